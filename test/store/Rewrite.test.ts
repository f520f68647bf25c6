/**
 * A rewrite: after each commit, the rows of every document are the projection of the operations that survive, as the real
 * packages say which those are.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Source from "../../src/ingest/Source.js"
import * as Subscription from "../../src/Subscription.js"
import * as Follow from "../guarantees/Follow.js"
import * as Database from "../support/Database.js"
import * as Lists from "../support/Lists.js"
import { recorded } from "../support/RealHistories.js"
import type { ListOperation, RealHistory } from "../support/RealHistories.js"
import * as Store from "../support/Store.js"

/** So many histories of each truth that is known operation by operation, those with most skips first. */
const sample = (perTruth: number): ReadonlyArray<RealHistory> => {
  const chosen = new Map<string, Array<RealHistory>>()
  const skips = ({ steps }: RealHistory) => steps.filter(([{ skip }]) => skip > 0).length
  const whole = recorded().filter((each) => Lists.isWhole(each) && each.steps.every(([, left]) => left !== null))
  for (const each of whole.toSorted((a, b) => skips(b) - skips(a))) {
    const own = chosen.get(each.truth) ?? []
    if (own.length < perTruth) own.push(each)
    chosen.set(each.truth, own)
  }
  return Array.from(chosen.values()).flat()
}

interface World {
  readonly strands: ReadonlyArray<Source.Unplaced>
  /** What each document is left with once the source was read up to a position. */
  readonly at: (position: bigint) => ReadonlyMap<string, ReadonlyArray<number>>
}

/** Histories as documents, a strand for each operation, in turns. */
const worldOf = (histories: ReadonlyArray<RealHistory>): World => {
  const strands: Array<Source.Unplaced> = []
  const told: Array<readonly [documentId: string, left: ReadonlyArray<number>]> = []
  const longest = Math.max(...histories.map(({ steps }) => steps.length))
  for (let i = 0; i < longest; i++) {
    for (const [d, { protocol, steps }] of histories.entries()) {
      const step = steps[i]
      if (step === undefined) continue
      strands.push(Lists.strand(`d${d}`, [step[0]], { protocol }))
      told.push([`d${d}`, step[1] ?? []])
    }
  }
  return {
    strands,
    at: (position) => {
      const left = new Map(told.slice(0, Number(position)))
      return new Map(Array.from(left).filter(([, numbers]) => numbers.length > 0))
    }
  }
}

const sorted = (lists: ReadonlyMap<string, ReadonlyArray<number>>) =>
  Array.from(lists, ([documentId, numbers]) => `${documentId}: ${numbers.join(" ")}`).sort()

const op = (index: number, skip = 0, number = index): ListOperation => ({ type: "PUSH", index, skip, number })
const mark = (index: number, skip = 1): ListOperation => ({ type: "NOOP", index, skip, number: -1 })

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  const kept = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient>) =>
    Effect.flatMap(fresh, (database) => Effect.provide(effect, Store.layer(database)))

  const histories = sample(12)
  const world = worldOf(histories)

  /** Follows the world, and compares the tables after each commit. */
  const compare = (options: Lists.Options) =>
    kept(Effect.gen(function*() {
      const processor = Lists.make(options)
      yield* Follow.prepare(processor)
      const wrong: Array<string> = []
      let replayed = 0
      yield* Subscription.commits(processor).pipe(
        Stream.runForEachChunk((commits) =>
          Effect.gen(function*() {
            const position = Array.from(commits).at(-1)?.position
            if (position === undefined) return
            for (const commit of commits) replayed += commit.replayed
            const found = sorted(yield* Lists.lists)
            const wanted = sorted(world.at(position))
            if (found.join() !== wanted.join()) {
              wrong.push(`at ${position}: ${found.filter((each) => !wanted.includes(each)).join()}`)
            }
          })
        ),
        Effect.provide(Layer.succeed(Source.Source, Source.fromIterable("s", world.strands)))
      )
      expect(wrong.slice(0, 3)).toEqual([])
      expect(sorted(yield* Lists.lists)).toEqual(sorted(world.at(BigInt(world.strands.length))))
      return replayed
    }))

  it("takes enough histories of enough packages", () => {
    expect(new Set(histories.map(({ truth }) => truth)).size).toBe(9)
    expect(histories.length).toBeGreaterThan(90)
  })

  describe.each(["replay", "append"] as const)("%s", (history) => {
    it.scopedLive.each([1, 3, 7, 100, 1_000])(
      "the rows are those of the survivors after each commit, in batches of %i operations",
      (operations) =>
        Effect.gen(function*() {
          const replayed = yield* compare({ history, batch: { operations } })
          if (operations < 1_000) expect(replayed).toBeGreaterThan(history === "replay" ? 100 : 0)
        }),
      60_000
    )

    it.scopedLive.each(["statements", "batch"] as const)(
      "likewise where the handler works with %s",
      (kind) => compare({ history, kind, batch: { operations: 5 } }),
      60_000
    )
  })

  it.scopedLive("a processor that is given what was recorded has every operation, also those taken back", () =>
    kept(Effect.gen(function*() {
      yield* Follow.follow(Lists.make({ history: "recorded" }), "s", [
        Lists.strand("d", [op(0), op(1), mark(2), op(3, 1)])
      ])
      expect(sorted(yield* Lists.lists)).toEqual(["d: 0 1 3"])
    })))
})
