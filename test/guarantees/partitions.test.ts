/**
 * Partitions: whatever a processor is divided into, and however often, each document's operations are applied in order,
 * each once, and none is lost.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Position from "../../src/domain/Position.js"
import * as Slice from "../../src/domain/Slice.js"
import * as Cursors from "../../src/store/Cursors.js"
import * as DeadLetters from "../../src/store/DeadLetters.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"
import * as Follow from "./Follow.js"
import * as Ledger from "./Ledger.js"
import * as World from "./World.js"

const silent = Logger.remove(Logger.defaultLogger)

const follow = Follow.divided

/** Documents by the partition of two that they are in. */
const names = Array.from({ length: 40 }, (_, i) => `doc-${i}`)
const low = names.filter((name) => Slice.of(name) < Slice.count / 2)
const high = names.filter((name) => Slice.of(name) >= Slice.count / 2)

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  const kept = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient>) =>
    Effect.flatMap(
      fresh,
      (database) => Effect.provide(effect, Layer.merge(Store.layerOf(database, Ledger.namespace), silent))
    )

  it.scopedLive(
    "each document's operations are applied in order, each once, however it is divided meanwhile",
    () =>
      Effect.gen(function*() {
        const seeds = FastCheck.sample(FastCheck.record({ seed: FastCheck.nat(100_000), rounds: Follow.rounds }), {
          numRuns: dialect === "sqlite" ? 60 : 25,
          seed: 5
        })
        for (const { rounds: first, seed } of seeds) {
          const world = World.make(seed, { documents: 8, operations: 6 })
          const strands = World.strands(world)
          yield* kept(Effect.gen(function*() {
            const refusing = World.processor(world)
            const key = Follow.keyOf(refusing, "world")
            for (const round of [...first, { partitions: 3, commits: [] }]) {
              yield* follow(refusing, "world", strands, round)
              expect(yield* World.violations(world)).toEqual([])
            }
            expect(yield* Ledger.balances()).toEqual(World.balances(world))
            expect(yield* World.letters).toEqual(World.waiting(world))
            // What waited is put right beside the partitions, and they are divided again.
            yield* DeadLetters.retry(Ledger.make({ kind: world.kind }), key.source, world.refused.documentId)
            for (const round of first) yield* follow(refusing, "world", strands, round)
            expect(yield* Ledger.balances()).toEqual(Ledger.fold(world.documents.flat()))
            expect((yield* Cursors.all(key)).reduce((sum, { parked }) => sum + parked, 0)).toBe(0)
          }))
        }
      })
  )

  it.scopedLive(
    "a processor that began behind others' operations takes each stream up where it finds it, once",
    () =>
      Effect.gen(function*() {
        for (const first of FastCheck.sample(Follow.rounds, { numRuns: 15, seed: 6 })) {
          const histories = names.slice(0, 12).map((name) => Ledger.history(name, 6))
          const inTurns = histories[0]!.flatMap((_, i) => histories.map((ops) => ops[i]!))
          const start = 30
          yield* kept(Effect.gen(function*() {
            const late = { ...Ledger.make({ batch: { operations: 3 } }), startFrom: Position.make(BigInt(start)) }
            for (const round of [...first, { partitions: 2, commits: [] }]) {
              yield* follow(late, "s", inTurns.map((op) => Ledger.strand([op])), round)
            }
            expect(yield* Ledger.balances()).toEqual(Ledger.fold(inTurns.slice(start)))
            expect(yield* DeadLetters.list(Follow.keyOf(late, "s"))).toEqual([])
          }))
        }
      })
  )

  it.scopedLive("what a partition has passed does not come again when it is put together with one that is behind", () =>
    kept(Effect.gen(function*() {
      // A longer undo takes the index of the shorter one before it: told again from its beginning, this is rewritten history.
      const undone = [[0, 0], [1, 0], [2, 1], [2, 2], [3, 0]].map(([index, skip]): Ledger.Op => ({
        documentId: high[0]!,
        index: index!,
        skip: skip!,
        amount: Ledger.amountOf(high[0]!, 10 * index! + skip!)
      }))
      const behind = Ledger.history(low[0]!, 5)
      const strands = undone.flatMap((op, i) => [Ledger.strand([op]), Ledger.strand([behind[i]!])])
      const processor = Ledger.make({ batch: { operations: 1 } })
      const apart = yield* follow(processor, "s", strands, { partitions: 2, commits: [2] })
      const first = apart.filter(({ partition }) => partition.number === 1)
      expect([first.length, apart.length]).toEqual([2, 2 + undone.length])
      const together = yield* follow(processor, "s", strands, { partitions: 1, commits: [] })
      expect(together.map(({ operations, redelivered, superseded }) => [operations, redelivered, superseded]))
        .toEqual(behind.slice(2).map(() => [1, 0, 0]))
      expect(yield* DeadLetters.list(Follow.keyOf(processor, "s"))).toEqual([])
      expect(yield* Ledger.balances()).toEqual(Ledger.fold([...undone, ...behind]))
    })))

  it.scopedLive("letters stay in order within their document, and are counted by the partition that has it", () =>
    kept(Effect.gen(function*() {
      const bad = [low[0]!, high[0]!]
      const histories = [...bad, low[1]!, high[1]!].map((name) => Ledger.history(name, 6))
      const strands = histories[0]!.flatMap((_, i) => histories.map((ops) => Ledger.strand([ops[i]!])))
      let isBroken = true
      const processor = Ledger.make({
        batch: { operations: 2 },
        before: ({ documentId }, { index }) =>
          isBroken && index === 1 && bad.includes(documentId) ? new Ledger.Refused({ index }) : Effect.void
      })
      const key = Follow.keyOf(processor, "s")
      for (const partitions of [1, 2, 1, 3, 4]) {
        yield* follow(processor, "s", strands, { partitions, commits: Array.from({ length: partitions }, () => 2) })
      }
      yield* follow(processor, "s", strands, { partitions: 2, commits: [] })
      expect((yield* Cursors.all(key)).map(({ parked }) => parked)).toEqual([5, 5])
      const letters = yield* DeadLetters.list(key)
      expect(new Set(letters.map(({ ordinal }) => ordinal)).size).toBe(10)
      for (const documentId of bad) {
        const own = letters.filter(({ strand }) => strand.documentId === documentId)
        expect(own.map(({ operation }) => operation.index)).toEqual([1, 2, 3, 4, 5])
      }
      isBroken = false
      yield* DeadLetters.retry(processor, key.source, high[0]!)
      expect((yield* Cursors.all(key)).map(({ parked }) => parked)).toEqual([5, 0])
      const [first] = yield* DeadLetters.list(key)
      yield* DeadLetters.drop(key, first!.ordinal)
      expect((yield* Cursors.all(key)).map(({ parked }) => parked)).toEqual([4, 0])
      yield* follow(processor, "s", strands, { partitions: 4, commits: [] })
      const applied = [...histories.slice(1).flat(), ...histories[0]!.filter(({ index }) => index !== 1)]
      expect(yield* Ledger.balances()).toEqual(Ledger.fold(applied))
    })))
})
