/**
 * Cursors of many: claimed in one transaction, and moved in one, each by compare-and-set.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { make as position } from "../../src/domain/Position.js"
import * as Source from "../../src/ingest/Source.js"
import * as Crowd from "../../src/store/Crowd.js"
import * as Cursors from "../../src/store/Cursors.js"
import * as JointClaims from "../../src/store/JointClaims.js"
import * as Migrator from "../../src/store/Migrator.js"
import * as Moves from "../../src/store/Moves.js"
import * as Permits from "../../src/store/Permits.js"
import * as Database from "../support/Database.js"
import * as Eventually from "../support/Eventually.js"
import * as Ledger from "../support/Ledger.js"
import * as QueryPlan from "../support/QueryPlan.js"
import * as Store from "../support/Store.js"

const source = Source.name("home")
const key = (name: string): Cursors.Key => ({ processor: Ledger.make(name).name, source })
const at = (value: number) => position(BigInt(value))

/** Counts transactions. */
const counting = () => {
  const count = { transactions: 0 }
  const turn: Permits.Permits = (effect) =>
    Effect.suspend(() => {
      count.transactions++
      return effect
    })
  return { count, turn }
}

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  const prepared = <A, E>(body: Effect.Effect<A, E, Effect.Effect.Context<typeof Migrator.prepare>>) =>
    Effect.flatMap(
      fresh,
      (database) => Effect.zipRight(Migrator.prepare, body).pipe(Effect.provide(Store.layer(database)))
    )

  it.scopedLive("cursors that are claimed at once are claimed in few transactions, each with its own epoch", () =>
    prepared(Effect.gen(function*() {
      yield* Cursors.claim(key("p7"), at(7))
      const { count, turn } = counting()
      const claim = yield* JointClaims.make(turn)
      const names = Array.from({ length: 300 }, (_, i) => `p${i}`)
      const cursors = yield* Effect.forEach(names, (name, i) => claim({ ...key(name), start: at(i) }), {
        concurrency: "unbounded"
      })
      expect(count.transactions).toBeLessThanOrEqual(2)
      for (const [i, cursor] of cursors.entries()) {
        expect(cursor).toMatchObject({ ...key(`p${i}`), start: at(i), position: at(i), epoch: i === 7 ? 2n : 1n })
        expect(cursor).toEqual(yield* Cursors.peek(key(`p${i}`)))
      }
    })))

  it.scopedLive("the key leads to the cursors that are held and moved, however many there are", () =>
    prepared(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const claims = Array.from({ length: 1_000 }, (_, i) => ({ ...key(`p${i}`), start: at(0) }))
      const few = (yield* Crowd.claimEach(claims)).slice(0, 2)
      const { statements } = Crowd.holding(sql, few)
      const moving = sql.onDialectOrElse({
        // Only PostgreSQL has no one to wait for what becomes of a move.
        sqlite: () => [],
        orElse: () => Crowd.moving(sql, few.map((from) => ({ from, position: at(1) })), 0)
      })
      for (const statement of [...statements, ...moving]) {
        const plan = yield* QueryPlan.of(statement)
        expect(plan).toMatch(/USING INDEX|Index Scan using processor_cursor_pkey/)
        expect(plan).not.toMatch(/SCAN processor_cursor|Seq Scan/)
      }
    })))

  it.scopedLive("a claim that is called off takes none of the others along", () =>
    prepared(Effect.gen(function*() {
      const claim = yield* JointClaims.make(Permits.make(1))
      const fibers = yield* Effect.forEach(
        ["a", "b", "c"],
        (name) => Effect.fork(claim({ ...key(name), start: at(0) }))
      )
      yield* Fiber.interrupt(fibers[0]!)
      expect((yield* Fiber.join(fibers[1]!)).epoch).toBeGreaterThanOrEqual(1n)
      expect((yield* Fiber.join(fibers[2]!)).processor).toBe("c")
    })))

  it.scopedLive("cursors are moved together; one that is somebody else's, or somewhere else, is refused", () =>
    prepared(Effect.gen(function*() {
      const names = ["p", "fenced", "edited", "q"]
      const owners = yield* Effect.forEach(
        names,
        (name) => Effect.map(Cursors.claim(key(name)), (cursor) => ({ cursor }))
      )
      yield* Cursors.claim(key("fenced"))
      yield* Crowd.moveAll([{ from: owners[2]!.cursor, position: at(3) }])
      const { count, turn } = counting()
      const mover = yield* Moves.make(turn)
      const told: Array<string> = []
      const commits: Array<bigint> = []
      yield* mover.move(owners.map((owner, i) => ({
        cursor: {
          owner,
          moved: (commit) => Effect.sync(() => commits.push(commit.position, commit.sequence))
        },
        position: at(9),
        settle: (outcome) => told.push(`${names[i]}: ${outcome}`)
      })))
      expect(told).toEqual(["p: moved", "fenced: refused", "edited: refused", "q: moved"])
      expect(count.transactions).toBe(1)
      expect(commits).toEqual([9n, 1n, 9n, 1n])
      const found = yield* Effect.forEach(names, (name) => Cursors.peek(key(name)))
      expect(found.map((cursor) => cursor?.position)).toEqual([9n, 0n, 3n, 9n])
      expect([owners[0]!.cursor, owners[3]!.cursor]).toEqual([found[0], found[3]])
    })))

  it.scopedLive("a move that is repeated, since its answer was lost, tells the same and moves nothing twice", () =>
    prepared(Effect.gen(function*() {
      const cursor = yield* Cursors.claim(key("p"))
      const passage = { from: cursor, position: at(5) }
      const first = yield* Crowd.moveAll([passage])
      expect(yield* Crowd.moveAll([passage])).toEqual(first)
      expect(yield* Cursors.peek(key("p"))).toEqual(first[0])
      expect(first[0]).toMatchObject({ position: 5n, sequence: 1n })
    })))
})

describe("permits", () => {
  it.live("are given in the order in which they were asked for, to no more than there are, and come back", () =>
    Effect.gen(function*() {
      const permits = Permits.make(2)
      const inside = { now: 0, most: 0 }
      const order: Array<number> = []
      const visit = (i: number) =>
        permits(Effect.gen(function*() {
          order.push(i)
          inside.most = Math.max(inside.most, ++inside.now)
          yield* Eventually.turn
          inside.now--
          if (i % 3 === 0) return yield* Effect.fail("no")
        })).pipe(Effect.ignore)
      const fibers = yield* Effect.forEach(Array.from({ length: 12 }, (_, i) => i), (i) => Effect.fork(visit(i)))
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(fibers[7]!)
      yield* Fiber.joinAll(fibers.filter((_, i) => i !== 7))
      expect(order).toEqual([0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11])
      expect(inside).toEqual({ now: 0, most: 2 })
      yield* Effect.all([visit(1), visit(2)], { concurrency: 2 })
      expect(inside.most).toBe(2)
    }))
})
