/**
 * Dead letters: a person can look at them, try them again and give them up, beside a running subscription and twice at once.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Policy from "../../src/process/Policy.js"
import { Halted } from "../../src/store/Commit.js"
import * as Cursors from "../../src/store/Cursors.js"
import * as DeadLetters from "../../src/store/DeadLetters.js"
import * as Follow from "../guarantees/Follow.js"
import * as Ledger from "../guarantees/Ledger.js"
import * as Database from "../support/Database.js"
import * as Ordinal from "../support/Ordinal.js"
import * as Store from "../support/Store.js"

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  const kept = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient>) =>
    Effect.flatMap(fresh, (database) => Effect.provide(effect, Store.layer(database)))

  /** A processor that refuses these indexes of document `a` for as long as they are in the set. */
  const refusing = (indexes: Set<number>, policy: Policy.Verdict = Policy.park) =>
    Ledger.make({
      before: ({ documentId }, { index }) =>
        documentId === "a" && indexes.has(index) ? new Ledger.Refused({ index }) : Effect.void,
      policy: { Refused: policy }
    })

  const key = Follow.keyOf(Ledger.make(), "s")
  const a = Ledger.history("a", 6)
  const strands = a.map((op) => Ledger.strand([op]))
  const waiting = Effect.map(
    DeadLetters.list(key),
    (letters) => letters.map(({ attempts, cause, operation }) => [operation.index, cause, attempts])
  )
  const parked = Effect.map(Cursors.peek(key), (cursor) => cursor?.parked)

  it.scopedLive("a letter says what it is, why it waits, and how often it was tried", () =>
    kept(Effect.gen(function*() {
      yield* Follow.follow(refusing(new Set([4])), "s", strands)
      const [first, second] = yield* DeadLetters.list(key)
      expect(first).toMatchObject({
        ordinal: Ordinal.of(1, "a"),
        cause: "Refused",
        attempts: 1,
        operation: { index: 4, type: "ADD", input: { amount: a[4]!.amount } },
        strand: { documentId: "a", position: 5n, scope: "global", branch: "main" }
      })
      expect(second).toMatchObject({ ordinal: Ordinal.of(2, "a"), cause: "Queued", attempts: 0 })
      expect(yield* DeadLetters.list(key, { cause: "Refused" })).toEqual([first])
      expect(yield* DeadLetters.list(key, { ordinal: Ordinal.of(2, "a") })).toEqual([second])
      expect(yield* DeadLetters.list(key, { limit: 1 })).toEqual([first])
      expect(yield* DeadLetters.list(key, { documentId: "b" })).toEqual([])
    })))

  it.scopedLive("a retry applies in order until one fails again, which stays with its new cause; the rest wait behind it", () =>
    kept(Effect.gen(function*() {
      const bad = new Set([1, 3])
      yield* Follow.follow(refusing(bad), "s", strands)
      expect(yield* waiting).toEqual([[1, "Refused", 1], [2, "Queued", 0], [3, "Queued", 0], [4, "Queued", 0], [
        5,
        "Queued",
        0
      ]])
      bad.delete(1)
      expect(yield* DeadLetters.retry(refusing(bad), key.source, "a")).toMatchObject({ released: 2, waiting: 3 })
      expect(yield* waiting).toEqual([[3, "Refused", 1], [4, "Queued", 0], [5, "Queued", 0]])
      expect(yield* DeadLetters.retry(refusing(bad), key.source, "a")).toMatchObject({ released: 0, waiting: 3 })
      expect(yield* waiting).toEqual([[3, "Refused", 2], [4, "Queued", 0], [5, "Queued", 0]])
      expect(yield* Ledger.balances()).toEqual(Ledger.fold(a.slice(0, 3)))
      bad.clear()
      yield* DeadLetters.retry(refusing(bad), key.source, "a")
      expect(yield* Ledger.balances()).toEqual(Ledger.fold(a))
      expect(yield* parked).toBe(0)
    })))

  it.scopedLive("a retry under a policy of skip leaves the letter out; under one of halt it stops, and nothing is lost", () =>
    kept(Effect.gen(function*() {
      const bad = new Set([1])
      yield* Follow.follow(refusing(bad), "s", strands)
      expect(yield* Effect.flip(DeadLetters.retry(refusing(bad, Policy.halt), key.source, "a"))).toBeInstanceOf(Halted)
      expect(yield* parked).toBe(5)
      expect(yield* DeadLetters.retry(refusing(bad, Policy.skip), key.source, "a")).toMatchObject({
        released: 5,
        waiting: 0
      })
      expect(yield* Ledger.balances()).toEqual(Ledger.fold(a.filter((op) => op.index !== 1)))
    })))

  it.scopedLive("what is dropped is never applied, though it comes again; what waited behind it leaves with the next retry", () =>
    kept(Effect.gen(function*() {
      yield* Follow.follow(refusing(new Set([1])), "s", strands)
      const [first] = yield* DeadLetters.list(key)
      expect(yield* DeadLetters.drop(key, first!.ordinal)).toEqual(first)
      expect(yield* Effect.flip(DeadLetters.drop(key, first!.ordinal))).toBeInstanceOf(DeadLetters.NoSuchLetter)
      expect(yield* parked).toBe(4)
      yield* DeadLetters.retry(Ledger.make(), key.source, "a")
      const { commits } = yield* Follow.follow(Ledger.make(), "s", [...strands, ...strands])
      expect(commits.reduce((sum, commit) => sum + commit.redelivered, 0)).toBe(6)
      expect(yield* Ledger.balances()).toEqual(Ledger.fold(a.filter((op) => op.index !== 1)))
      expect(yield* parked).toBe(0)
    })))

  it.scopedLive("a letter behind others of its stream cannot be dropped, which would give those up in silence", () =>
    kept(Effect.gen(function*() {
      yield* Follow.follow(refusing(new Set([1])), "s", strands)
      const letters = yield* DeadLetters.list(key)
      expect(yield* Effect.flip(DeadLetters.drop(key, letters[2]!.ordinal))).toMatchObject({
        _tag: "OutOfTurn",
        first: Ordinal.of(1, "a")
      })
      expect(yield* parked).toBe(5)
      yield* DeadLetters.retry(Ledger.make(), key.source, "a")
      expect(yield* Ledger.balances()).toEqual(Ledger.fold(a))
    })))

  it.scopedLive("dropping the letter behind a gap gives the gap up too, should it still be closed", () =>
    kept(Effect.gen(function*() {
      const come = [0, 1, 3, 4].map((i) => strands[i]!)
      yield* Follow.follow(Ledger.make(), "s", come)
      const [first] = yield* DeadLetters.list(key)
      expect(first).toMatchObject({ cause: "StrandGap", reason: expect.stringMatching(/index 2 is missing/) })
      yield* DeadLetters.drop(key, first!.ordinal)
      yield* Follow.follow(Ledger.make(), "s", [...come, strands[2]!, strands[5]!])
      expect((yield* Ledger.entries()).map((entry) => entry.index)).toEqual([0, 1, 4, 5])
      expect(yield* parked).toBe(0)
    })))

  it.scopedLive("dropping an operation that rewrites history leaves what was applied known, should it come again", () =>
    kept(Effect.gen(function*() {
      yield* Follow.follow(Ledger.make(), "s", strands.slice(0, 2))
      const rewritten = { ...strands[0]!, operations: strands[0]!.operations.map((op) => ({ ...op, hash: "other" })) }
      yield* Follow.follow(Ledger.make(), "s", [...strands.slice(0, 2), rewritten])
      expect(yield* waiting).toEqual([[0, "HistoryRewritten", 1]])
      yield* DeadLetters.drop(key, Ordinal.of(1, "a"))
      yield* Follow.follow(Ledger.make(), "s", [...strands.slice(0, 2), rewritten, ...strands])
      expect(yield* waiting).toEqual([])
      expect(yield* Ledger.balances()).toEqual(Ledger.fold(a))
    })))

  it.scopedLive("a long queue leaves in order, a thousand letters at a time", () =>
    kept(Effect.gen(function*() {
      const long = Ledger.history("a", 2_500)
      const late = [Ledger.strand(long.slice(1)), Ledger.strand(long.slice(0, 1))]
      const { commits } = yield* Follow.follow(Ledger.make(), "s", late)
      expect(yield* waiting).toEqual([])
      expect(yield* Ledger.balances()).toEqual(Ledger.fold(long))
      expect(commits.filter((commit) => commit.released > 0).map((commit) => commit.released)).toEqual([
        1_000,
        1_000,
        499
      ])
    })))

  it.scopedLive("retries that race release every letter once, and count them once", () =>
    kept(Effect.gen(function*() {
      yield* Follow.follow(refusing(new Set([1])), "s", strands)
      const held = yield* Deferred.make<void>()
      let reached = 0
      // Each has read the letters before the first of them commits.
      const slow = Ledger.make({ opened: Effect.void, before: () => Effect.void })
      const racing = Effect.gen(function*() {
        if (++reached === 4) yield* Deferred.succeed(held, undefined)
        yield* Deferred.await(held)
        return yield* DeadLetters.retry(slow, key.source, "a")
      })
      yield* Effect.all(Array.from({ length: 4 }, () => racing), { concurrency: "unbounded" })
      expect(yield* waiting).toEqual([])
      expect(yield* parked).toBe(0)
      expect(yield* Ledger.balances()).toEqual(Ledger.fold(a))
    })))

  it.scopedLive("a retry that comes too late takes nobody else's letter away, and the count stays right", () =>
    kept(Effect.gen(function*() {
      const bad = new Set([5])
      yield* Follow.follow(refusing(bad), "s", strands)
      const reading = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      let isFirst = true
      // The first retry has read the letter and is about to work on it …
      const slow = {
        ...Ledger.make(),
        handler: Effect.zipRight(
          Effect.suspend(() => {
            if (!isFirst) return Effect.void
            isFirst = false
            return Effect.zipRight(Deferred.succeed(reading, undefined), Deferred.await(goOn))
          }),
          Ledger.make().handler
        )
      }
      const late = yield* Effect.fork(DeadLetters.retry(slow, key.source, "a"))
      yield* Deferred.await(reading)
      // … while another applies it, and an operation of another document is parked.
      bad.clear()
      yield* DeadLetters.retry(refusing(bad), key.source, "a")
      const b = Ledger.strand(Ledger.history("b", 1), (operation) => ({ ...operation, flaw: "bad" }))
      yield* Follow.follow(Ledger.make(), "s", [...strands, b])
      yield* Deferred.succeed(goOn, undefined)
      yield* Fiber.join(late)
      const letters = yield* DeadLetters.list(key)
      expect(letters.map(({ ordinal, strand }) => [ordinal, strand.documentId])).toEqual([[Ordinal.of(2, "b"), "b"]])
      expect(yield* parked).toBe(1)
    })))

  it.scopedLive("an ordinal is never given twice, so that what a person saw is what a person drops", () =>
    kept(Effect.gen(function*() {
      const ordinals: Array<bigint> = []
      for (let i = 0; i < 4; i++) {
        const bad = Array.from(
          { length: i + 1 },
          (_, d) => Ledger.strand(Ledger.history(`d${d}`, 1), (operation) => ({ ...operation, flaw: "bad" }))
        )
        yield* Follow.follow(Ledger.make(), "s", bad)
        const [letter] = yield* DeadLetters.list(key)
        ordinals.push(letter!.ordinal)
        yield* DeadLetters.drop(key, letter!.ordinal)
      }
      expect(ordinals).toEqual([0, 1, 2, 3].map((d) => Ordinal.of(d + 1, `d${d}`)))
    })))

  it.scopedLive("a retry of a document without letters, and of a cursor that is not there, does nothing", () =>
    kept(Effect.gen(function*() {
      yield* Follow.prepare(Ledger.make())
      const nothing = { released: 0, waiting: 0, incidents: [] }
      expect(yield* DeadLetters.retry(Ledger.make(), key.source, "a")).toEqual(nothing)
      yield* Follow.follow(Ledger.make(), "s", strands)
      expect(yield* DeadLetters.retry(Ledger.make(), key.source, "b")).toEqual(nothing)
      expect(yield* Effect.flip(DeadLetters.drop(key, 7n))).toBeInstanceOf(DeadLetters.NoSuchLetter)
    })))

  it.scopedLive("a letter holds hostile text as it came", () =>
    kept(Effect.gen(function*() {
      yield* Follow.prepare(Ledger.make())
      const hostile = [
        "\u0000",
        "\ud800",
        "'; DROP TABLE processor_cursor; --",
        "\u202e",
        "{\"__proto__\": 1}",
        "𝒟é\n\t"
      ]
      const bad = hostile.map((text, d) =>
        Ledger.strand(
          Ledger.history(`d${d}`, 1),
          (operation) => ({ ...operation, input: { text }, flaw: `holds ${text}` })
        )
      )
      const { failure } = yield* Follow.follow(Ledger.make(), "s", bad)
      expect(failure).toBeUndefined()
      const letters = yield* DeadLetters.list(key)
      expect(letters.map(({ operation }) => (operation.input as { readonly text: string }).text)).toEqual(hostile)
    })))
})
