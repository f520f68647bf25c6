/**
 * Guarantee 16, on both databases.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Slice from "../../src/domain/Slice.js"
import * as Rebuild from "../../src/Rebuild.js"
import * as Cursors from "../../src/store/Cursors.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"
import * as Follow from "./Follow.js"
import * as Ledger from "./Ledger.js"
import * as RebuildSweep from "./RebuildSweep.js"
import * as World from "./World.js"

const silent = Logger.remove(Logger.defaultLogger)

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  const size = { documents: 4, operations: 5 }
  const moments = dialect === "sqlite" ? (["before", "after"] as const) : (["before", "sent"] as const)

  describe("Rebuild equals live: replay into shadow tables, row-hash diff, after every campaign", () => {
    it.scopedLive.each(
      [
        { program: "shadow", seed: 7, stride: 16, partitions: 1 },
        { program: "document", seed: 8, stride: 16, partitions: 1 },
        { program: "in place", seed: 8, stride: 5, partitions: 1 },
        { program: "shadow", seed: 7, stride: 24, partitions: 3 },
        { program: "document", seed: 8, stride: 24, partitions: 3 },
        { program: "in place", seed: 8, stride: 8, partitions: 3 }
      ] as const
    )(
      "killed at each statement of a rebuild, $program, in $partitions partitions: the old rows or the new ones, never a mixture",
      ({ partitions, program, seed, stride }) =>
        Effect.gen(function*() {
          const result = yield* RebuildSweep.everyStatement(fresh, {
            dialect,
            seed,
            size,
            partitions,
            program,
            moments: partitions === 1 ? moments : moments.slice(-1),
            stride
          })
          expect(result.violations).toEqual([])
          expect(result.kills).toBeGreaterThan(partitions === 1 ? 30 : 15)
          expect(result.old).toBeGreaterThan(partitions === 1 ? 10 : 5)
          // In place there is no instant of exchange: what is there is the beginning of the new ones.
          expect(program === "in place" ? result.kills - result.old : result.new).toBeGreaterThan(0)
        }),
      480_000
    )

    it.scopedLive(
      "however a processor is divided meanwhile, and wherever its partitions stand",
      () =>
        Effect.gen(function*() {
          const hows = FastCheck.array(
            FastCheck.constantFrom("not" as const, "shadow" as const, "in place" as const, "document" as const),
            {
              minLength: 6,
              maxLength: 6
            }
          )
          const seeds = FastCheck.sample(
            FastCheck.record({ seed: FastCheck.nat(100_000), rounds: Follow.rounds, hows }),
            { numRuns: dialect === "sqlite" ? 20 : 8, seed: 16 }
          )
          const seen = { apart: 0, ahead: 0 }
          for (const { hows: how, rounds, seed } of seeds) {
            const world = World.make(seed, { documents: 8, operations: 6 })
            const strands = World.strands(world)
            const processor = World.processor(world)
            const on = Effect.provide(Ledger.source("world", strands))
            yield* Effect.flatMap(fresh, (database) =>
              Effect.provide(
                Effect.gen(function*() {
                  for (const [i, round] of [...rounds, { partitions: 3, commits: [] }].entries()) {
                    yield* Follow.divided(processor, "world", strands, round)
                    const cursors = yield* Cursors.all(Follow.keyOf(processor, "world"))
                    if (new Set(cursors.map(({ position }) => position)).size > 1) seen.apart++
                    if (cursors.some(({ ahead }) => ahead.length > 0)) seen.ahead++
                    const differences = Effect.map(
                      on(Rebuild.verify(processor)),
                      ({ tables }) => tables.flatMap((table) => table.differences)
                    )
                    expect(yield* differences).toEqual([])
                    if (how[i] === "not") continue
                    yield* RebuildSweep.spoil(world)
                    expect(yield* differences).not.toEqual([])
                    // They go on between the replay and the exchange, divided otherwise, with what is spoilt.
                    const sql = yield* SqlClient.SqlClient
                    const goOn = Effect.provideService(
                      Effect.orDie(Follow.divided(processor, "world", strands, rounds[(i + 1) % rounds.length]!)),
                      SqlClient.SqlClient,
                      sql
                    )
                    const alone: Rebuild.Around["alone"] = (work) => Effect.zipRight(goOn, work)
                    if (how[i] === "document") {
                      // Those that were spoilt.
                      for (const place of [0, 1]) {
                        yield* on(Rebuild.run(processor, { documentId: World.documentIdOf(world, place) }, { alone }))
                      }
                    } else yield* on(Rebuild.run(processor, { how: how[i] }, { alone }))
                    expect(yield* differences).toEqual([])
                    expect(yield* World.violations(world)).toEqual([])
                  }
                  yield* Follow.divided(processor, "world", strands, { partitions: 2, commits: [] })
                  expect(yield* World.violations(world)).toEqual([])
                  expect(yield* Ledger.balances()).toEqual(World.balances(world))
                  expect(yield* World.letters).toEqual(World.waiting(world))
                }),
                Layer.merge(Store.layerOf(database, Ledger.namespace), silent)
              ))
          }
          expect(seen.apart).toBeGreaterThan(3)
          expect(seen.ahead).toBeGreaterThan(3)
        })
    )

    it.scopedLive("a replay that is sent on goes back for who was behind, and repeats nothing of the others", () =>
      Effect.flatMap(fresh, (database) =>
        Effect.gen(function*() {
          const names = Array.from({ length: 40 }, (_, i) => `doc-${i}`)
          const low = names.find((name) => Slice.of(name) < Slice.count / 2)!
          const high = names.find((name) => Slice.of(name) >= Slice.count / 2)!
          // A longer undo takes the index of the shorter one before it: told again, this is rewritten history.
          const undone = [[0, 0], [1, 0], [2, 1], [2, 2], [3, 0]].map(([index, skip]): Ledger.Op => ({
            documentId: high,
            index: index!,
            skip: skip!,
            amount: Ledger.amountOf(high, 10 * index! + skip!)
          }))
          const behind = Ledger.history(low, 5)
          const strands = undone.flatMap((op, i) => [Ledger.strand([op]), Ledger.strand([behind[i]!])])
          const processor = Ledger.make({ batch: { operations: 1 } })
          const sql = yield* SqlClient.SqlClient
          const follow = (...commits: ReadonlyArray<number>) =>
            Follow.divided(processor, "s", strands, { partitions: 2, commits }).pipe(
              Effect.provideService(SqlClient.SqlClient, sql),
              Effect.orDie
            )
          yield* follow(2)
          const rebuilt = yield* Effect.provide(
            Rebuild.run(processor, {}, { alone: (work) => Effect.zipRight(follow(2), work) }),
            Ledger.source("s", strands)
          )
          expect(rebuilt).toMatchObject({ operations: undone.length + 4, waiting: 0 })
          yield* follow()
          expect(yield* Ledger.balances()).toEqual(Ledger.fold([...undone, ...behind]))
        }).pipe(Effect.provide(Layer.merge(Store.layerOf(database, Ledger.namespace), silent)))))

    it.scopedLive(
      "control: rows that are emptied and filled without a transaction are found out",
      () =>
        Effect.gen(function*() {
          const result = yield* RebuildSweep.everyStatement(fresh, {
            dialect,
            seed: 8,
            size,
            program: "torn",
            moments: ["before"],
            stride: 5
          })
          expect(result.kills).toBeGreaterThan(4)
          expect(result.violations.filter((what) => what.endsWith("neither the old ones nor the new ones")).length)
            .toBeGreaterThan(0)
        })
    )
  })
})
