/**
 * The cursor: whose commits count, and that none of them is made twice or from a wrong place.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Partition from "../../src/domain/Partition.js"
import * as Position from "../../src/domain/Position.js"
import * as Cursors from "../../src/store/Cursors.js"
import * as Transaction from "../../src/store/Transaction.js"
import * as Follow from "../guarantees/Follow.js"
import * as Ledger from "../guarantees/Ledger.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"

const key = Follow.keyOf(Ledger.make(), "s")
const none = { written: 0, removed: 0 }
const rangesOf = (partitions: number) => Partition.all(partitions).map(Partition.slices)
const at = (position: number) => Position.make(BigInt(position))

/** One commit of this owner, to `position`. */
const commit = (owned: Cursors.Cursor, position: number, letters = none) =>
  Transaction.run(Effect.flatMap(Cursors.hold(owned), (held) => Cursors.advance(held, at(position), letters)))

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  const kept = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient>) =>
    Effect.flatMap(
      fresh,
      (database) => Effect.zipRight(Follow.prepare(Ledger.make()), effect).pipe(Effect.provide(Store.layer(database)))
    )

  it.scopedLive("does not exist before the first claim, which puts it before the first position", () =>
    kept(Effect.gen(function*() {
      expect(yield* Cursors.peek(key)).toBeUndefined()
      expect(yield* Cursors.claim(key)).toEqual({
        ...key,
        slices: { first: 0, last: 1_023 },
        start: 0n,
        position: 0n,
        ahead: [],
        sequence: 0n,
        epoch: 1n,
        parked: 0,
        letters: 0n,
        handled: []
      })
    })))

  it.scopedLive("is claimed again where it stands, with the next epoch", () =>
    kept(Effect.gen(function*() {
      const moved = yield* commit(yield* Cursors.claim(key), 7, { written: 3, removed: 1 })
      expect(moved).toMatchObject({ position: 7n, sequence: 1n, epoch: 1n, parked: 2, letters: 3n })
      expect(yield* Cursors.claim(key)).toEqual({ ...moved, epoch: 2n })
    })))

  it.scopedLive("who was overtaken is Fenced at the first statement, and nothing is written", () =>
    kept(Effect.gen(function*() {
      const old = yield* Cursors.claim(key)
      const current = yield* Cursors.claim(key)
      expect(yield* Effect.flip(commit(old, 5))).toMatchObject({ _tag: "Fenced", epoch: 1n, owner: 2n })
      expect(yield* Cursors.peek(key)).toEqual(current)
      yield* commit(current, 5)
    })))

  it.scopedLive("who was overtaken after it looked is Fenced at the last statement too", () =>
    kept(Effect.gen(function*() {
      const old = yield* Cursors.claim(key)
      yield* Cursors.claim(key)
      expect(yield* Effect.flip(Transaction.run(Cursors.advance(old, at(5), none)))).toMatchObject({ _tag: "Fenced" })
    })))

  it.scopedLive("a commit made twice is a conflict, and so is a row that was edited, restored or deleted", () =>
    kept(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const first = yield* Cursors.claim(key)
      const second = yield* commit(first, 5)
      expect(yield* Effect.flip(commit(first, 5))).toMatchObject({ _tag: "CursorConflict" })
      yield* sql`UPDATE processor_cursor SET position = 3`
      expect(yield* Effect.flip(commit(second, 6))).toMatchObject({ _tag: "CursorConflict" })
      yield* sql`UPDATE processor_cursor SET position = 5, epoch = 0`
      expect(yield* Effect.flip(commit(second, 6))).toMatchObject({ _tag: "CursorConflict" })
      yield* sql`DELETE FROM processor_cursor`
      expect(yield* Effect.flip(commit(second, 6))).toMatchObject({ _tag: "CursorConflict", found: "nothing" })
    })))

  it.scopedLive("a commit that does not move the position is told from one that never happened", () =>
    kept(Effect.gen(function*() {
      const first = yield* Cursors.claim(key)
      const second = yield* commit(first, 0)
      expect(second).toEqual({ ...first, sequence: 1n })
      expect(yield* Effect.flip(commit(first, 0))).toMatchObject({ _tag: "CursorConflict" })
    })))

  it.scopedLive("positions keep all of their 63 bits", () =>
    kept(Effect.gen(function*() {
      const owned = yield* Cursors.claim(key)
      const held = { ...owned }
      const moved = yield* Transaction.run(Cursors.advance(held, Position.make(Position.max), none))
      expect(moved.position).toBe(9_223_372_036_854_775_807n)
      expect((yield* Cursors.peek(key))?.position).toBe(9_223_372_036_854_775_807n)
      yield* Transaction.run(Cursors.hold(moved))
    })))

  it.scopedLive("cursors of other processors and sources are left alone", () =>
    kept(Effect.gen(function*() {
      const others = [
        { ...key, source: "other" as typeof key.source },
        { ...key, processor: "other" as typeof key.processor }
      ]
      for (const other of others) yield* Cursors.claim(other)
      yield* commit(yield* Cursors.claim(key), 9)
      for (const other of others) expect(yield* Cursors.peek(other)).toMatchObject({ position: 0n, epoch: 1n })
    })))

  it.scopedLive("of many claims at once each gets an epoch of its own, and the last owner alone commits", () =>
    kept(Effect.gen(function*() {
      const claims = yield* Effect.all(Array.from({ length: 12 }, () => Cursors.claim(key)), {
        concurrency: "unbounded"
      })
      expect(claims.map((claim) => claim.epoch).sort((a, b) => Number(a - b))).toEqual(
        Array.from({ length: 12 }, (_, i) => BigInt(i + 1))
      )
      const exits = yield* Effect.forEach(claims, (claim) => Effect.exit(commit(claim, 1)), {
        concurrency: "unbounded"
      })
      expect(exits.map((exit) => exit._tag === "Success")).toEqual(claims.map((claim) => claim.epoch === 12n))
    })))

  it.scopedLive("of commits that race from one place exactly one is made", () =>
    kept(Effect.gen(function*() {
      const owned = yield* Cursors.claim(key)
      const exits = yield* Effect.all(
        Array.from({ length: 8 }, (_, i) => Effect.either(commit(owned, i + 1))),
        { concurrency: "unbounded" }
      )
      expect(exits.filter((exit) => exit._tag === "Right")).toHaveLength(1)
      expect((yield* Cursors.peek(key))?.sequence).toBe(1n)
    })))

  const standing = Effect.map(
    Cursors.all(key),
    (cursors) => cursors.map(({ position, slices }) => [slices.first, slices.last, Number(position)])
  )

  it.scopedLive("is divided where it stands, and put together at the lowest position, the others ahead", () =>
    kept(Effect.gen(function*() {
      yield* commit(yield* Cursors.claim(key), 7)
      const [low, high] = yield* Cursors.claimAll(key, rangesOf(2))
      expect(yield* standing).toEqual([[0, 511, 7], [512, 1_023, 7]])
      expect([low?.epoch, high?.epoch]).toEqual([2n, 2n])
      yield* commit(high!, 9)
      const [, second, third] = yield* Cursors.claimAll(key, rangesOf(3))
      expect(yield* standing).toEqual([[0, 340, 7], [341, 681, 7], [682, 1_023, 9]])
      expect(second?.ahead).toEqual([{ slices: { first: 512, last: 681 }, position: 9n }])
      expect(third?.ahead).toEqual([])
      const whole = yield* Cursors.claim(key)
      expect(whole).toMatchObject({ position: 7n, sequence: 2n, epoch: 4n })
      expect(whole.ahead).toEqual([{ slices: { first: 512, last: 1_023 }, position: 9n }])
      expect((yield* commit(whole, 8)).ahead).toEqual(whole.ahead)
      yield* commit(yield* Cursors.claim(key), 9)
      expect((yield* Cursors.peek(key))?.ahead).toEqual([])
    })))

  it.scopedLive("whose range another has divided is Fenced, also where no row is left of it", () =>
    kept(Effect.gen(function*() {
      const old = yield* Cursors.claimAll(key, rangesOf(4))
      yield* Cursors.claim(key)
      for (const cursor of old) {
        expect(yield* Effect.flip(commit(cursor, 1))).toMatchObject({ _tag: "Fenced", epoch: 1n, owner: 2n })
        const late = Transaction.run(Cursors.advance(cursor, at(1), none))
        expect(yield* Effect.flip(late)).toMatchObject({ _tag: "Fenced", epoch: 1n, owner: 2n })
      }
      yield* Cursors.claimAll(key, rangesOf(4))
      for (const cursor of old) {
        expect(yield* Effect.flip(commit(cursor, 1))).toMatchObject({ _tag: "Fenced", epoch: 1n, owner: 3n })
      }
      expect((yield* standing).map(([, , position]) => position)).toEqual([0, 0, 0, 0])
    })))

  it.scopedLive("a partition that claims its own again is Fenced where it is no partition any more", () =>
    kept(Effect.gen(function*() {
      const [first, second] = yield* Cursors.claimAll(key, rangesOf(2))
      expect(yield* Cursors.reclaim(key, second!.slices, 1n)).toMatchObject({ slices: second!.slices, epoch: 2n })
      yield* commit(first!, 3)
      yield* Cursors.claimAll(key, rangesOf(3))
      expect(yield* Effect.flip(Cursors.reclaim(key, second!.slices, 2n))).toMatchObject({ _tag: "Fenced", owner: 3n })
      const { slices } = first!
      expect(yield* Effect.flip(Cursors.reclaim(key, slices, 1n))).toMatchObject({ _tag: "Fenced", owner: 3n })
    })))

  it.scopedLive("of many who divide at once the last has all partitions, and nobody else any", () =>
    kept(Effect.gen(function*() {
      const claims = yield* Effect.forEach(
        Array.from({ length: 12 }, (_, i) => 1 + i % 5),
        (partitions) => Cursors.claimAll(key, rangesOf(partitions)),
        { concurrency: "unbounded" }
      )
      const epochs = claims.map(([first]) => first!.epoch)
      expect(epochs.toSorted((a, b) => Number(a - b))).toEqual(Array.from({ length: 12 }, (_, i) => BigInt(i + 1)))
      const last = claims[epochs.indexOf(12n)]!
      expect(yield* Cursors.all(key)).toEqual(last)
      for (const cursors of claims) {
        for (const cursor of cursors) {
          const exit = yield* Effect.exit(commit(cursor, 1))
          expect(exit._tag).toBe(cursors === last ? "Success" : "Failure")
        }
      }
    })))

  it.scopedLive("a commit that is open while others divide is in all partitions, or in none", () =>
    kept(Effect.gen(function*() {
      for (let round = 1; round <= 10; round++) {
        const owned = yield* Cursors.claimAll(key, rangesOf(2))
        const before = owned.map(({ position }) => Number(position))
        const [commits] = yield* Effect.all([
          Effect.forEach(owned, (cursor) => Effect.either(commit(cursor, round)), { concurrency: "unbounded" }),
          Cursors.claimAll(key, rangesOf(3))
        ], { concurrency: "unbounded" })
        const reached = commits.map((each, i) => each._tag === "Right" ? round : before[i]!)
        expect(
          (yield* Cursors.all(key)).map(({ ahead, position }) => [position, ...ahead.map((each) => each.position)])
        )
          .toEqual([
            [reached[0]!],
            Array.from(new Set([Math.min(...reached), Math.max(...reached)])),
            [reached[1]!]
          ].map((positions) => positions.map(BigInt)))
        yield* Cursors.claimAll(key, rangesOf(2))
      }
    })))
})
