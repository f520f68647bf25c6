/**
 * Where a processor begins: at a place that its source has, once, with each stream as it finds it, and gaps are gaps.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Position from "../src/domain/Position.js"
import * as Source from "../src/ingest/Source.js"
import type { StartFrom } from "../src/process/Processor.js"
import * as Cursors from "../src/store/Cursors.js"
import * as DeadLetters from "../src/store/DeadLetters.js"
import * as Subscription from "../src/Subscription.js"
import * as Follow from "./guarantees/Follow.js"
import * as Ledger from "./guarantees/Ledger.js"
import * as Database from "./support/Database.js"
import * as Store from "./support/Store.js"

const key = Follow.keyOf(Ledger.make(), "s")
const second = Position.make(1n)

const from = (startFrom: StartFrom, options: Ledger.Options = {}) => ({
  ...Ledger.make({ batch: { operations: 1 }, ...options }),
  startFrom
})

const op = (index: number, scope = "global", skip = 0, documentId = "d"): Ledger.Op => ({
  documentId,
  scope,
  index,
  skip,
  amount: Ledger.amountOf(scope, index)
})

/** A strand for each operation, behind one of another document. */
const behindAnother = (...ops: ReadonlyArray<Ledger.Op>) =>
  [op(0, "global", 0, "before"), ...ops].map((one) => Ledger.strand([one]))

const waiting = Effect.map(
  DeadLetters.list(key),
  (letters) => letters.map(({ cause, operation, strand }) => `${strand.scope} ${operation.index} ${cause}`)
)

const applied = Effect.map(
  Ledger.entries(),
  (entries) => entries.map(({ documentId, index, scope }) => `${documentId} ${scope} ${index}`)
)

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  const kept = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient>) =>
    Effect.flatMap(fresh, (database) => Effect.provide(effect, Store.layer(database)))

  it.scopedLive("the head of a source that does not say where it ends is refused, and no cursor is made", () =>
    kept(Effect.gen(function*() {
      const endless = { ...Source.fromIterable("s", behindAnother(op(0))), head: Effect.succeed(Option.none()) }
      yield* Follow.prepare(Ledger.make())
      const failure = yield* Subscription.commits(from("current")).pipe(
        Stream.runDrain,
        Effect.provideService(Source.Source, endless),
        Effect.flip
      )
      expect(failure).toMatchObject({ _tag: "NoSuchStart", startFrom: "current", head: undefined })
      expect(failure.message).toMatch(/cannot begin at the head of s: the source does not say where it ends/)
      expect(yield* Cursors.peek(key)).toBeUndefined()
    })))

  it.scopedLive("a head that cannot be read now fails as the source does, and no cursor is made", () =>
    kept(Effect.gen(function*() {
      const cut = new Source.SourceUnavailable({ source: "s", reason: "the line is cut" })
      yield* Follow.prepare(Ledger.make())
      const failure = yield* Subscription.commits(from("current")).pipe(
        Stream.runDrain,
        Effect.provideService(Source.Source, { ...Source.fromIterable("s", []), head: Effect.fail(cut) }),
        Effect.flip
      )
      expect(failure).toBe(cut)
      expect(yield* Cursors.peek(key)).toBeUndefined()
    })))

  it.scopedLive("a position above the head is refused, and no cursor is made", () =>
    kept(Effect.gen(function*() {
      const { failure } = yield* Follow.follow(from(Position.make(3n)), "s", behindAnother(op(0)))
      expect(failure).toMatchObject({ _tag: "NoSuchStart", startFrom: 3n, head: 2n })
      expect(yield* Cursors.peek(key)).toBeUndefined()
    })))

  it.scopedLive("from the beginning, a stream whose first operations are missing is behind a gap", () =>
    kept(Effect.gen(function*() {
      for (const startFrom of ["beginning", Position.origin] as const) {
        yield* Follow.follow(from(startFrom), "s", behindAnother(op(5)))
        expect(yield* waiting).toEqual(["global 5 StrandGap"])
      }
    })))

  it.scopedLive("from the head of a source that is empty, nothing was missed, and gaps are gaps", () =>
    kept(Effect.gen(function*() {
      yield* Follow.follow(from("current"), "s", [])
      yield* Follow.follow(from("current"), "s", behindAnother(op(5)))
      expect(yield* Cursors.peek(key)).toMatchObject({ start: 0n, position: 2n })
      expect(yield* waiting).toEqual(["global 5 StrandGap"])
    })))

  it.scopedLive("from the head, what is there is never seen, and what comes is, whatever its index", () =>
    kept(Effect.gen(function*() {
      const there = behindAnother(op(0), op(1), op(0, "local"))
      expect((yield* Follow.follow(from("current"), "s", there)).commits).toEqual([])
      expect(yield* Cursors.peek(key)).toMatchObject({ start: 4n, position: 4n })
      const more = [op(2), op(1, "local"), op(3), op(0, "global", 0, "new")].map((one) => Ledger.strand([one]))
      yield* Follow.follow(from("current"), "s", [...there, ...more])
      expect(yield* applied).toEqual(["d global 2", "d global 3", "d local 1", "new global 0"])
      expect(yield* Cursors.peek(key)).toMatchObject({ start: 4n, position: 8n, parked: 0 })
    })))

  it.scopedLive("later starts go on from the cursor, whatever they are told", () =>
    kept(Effect.gen(function*() {
      const strands = behindAnother(op(7), op(8), op(9))
      yield* Follow.follow(from(second), "s", strands.slice(0, 2))
      for (const [i, startFrom] of (["beginning", Position.make(99n)] as const).entries()) {
        yield* Follow.follow(from(startFrom), "s", strands.slice(0, 3 + i))
      }
      expect(yield* applied).toEqual(["d global 7", "d global 8", "d global 9"])
      expect(yield* Cursors.peek(key)).toMatchObject({ start: 1n, position: 4n, epoch: 3n })
    })))

  it.scopedLive("a gap behind the first operation that is seen is a gap, and closes when the missing one comes", () =>
    kept(Effect.gen(function*() {
      const strands = behindAnother(op(7), op(9), op(10))
      yield* Follow.follow(from(second), "s", strands)
      expect(yield* waiting).toEqual(["global 9 StrandGap", "global 10 Queued"])
      yield* Follow.follow(from(second), "s", [...strands, Ledger.strand([op(8)])])
      expect(yield* waiting).toEqual([])
      expect(yield* applied).toEqual(["d global 7", "d global 8", "d global 9", "d global 10"])
    })))

  it.scopedLive("an operation below the first that was seen counts as superseded, and that one as known", () =>
    kept(Effect.gen(function*() {
      const { commits } = yield* Follow.follow(from(second), "s", behindAnother(op(40), op(39), op(3), op(40), op(41)))
      expect(commits.map(({ redelivered, superseded }) => [superseded, redelivered])).toEqual([
        [0, 0],
        [1, 0],
        [1, 0],
        [0, 1],
        [0, 0]
      ])
      expect(yield* applied).toEqual(["d global 40", "d global 41"])
    })))

  it.scopedLive("a first operation that fails is parked as such, and its stream goes on from it in order", () =>
    kept(Effect.gen(function*() {
      const failing = from(second, {
        before: (_, { index }) => index === 7 ? new Ledger.Refused({ index }) : Effect.void
      })
      const strands = behindAnother(op(7), op(8), op(4, "local"), op(5, "local"), op(9, "local"))
      yield* Follow.follow(failing, "s", strands)
      const inOrder = ["global 7 Refused", "global 8 Queued", "local 4 Queued", "local 5 Queued", "local 9 StrandGap"]
      expect(yield* waiting).toEqual(inOrder)
      expect(yield* DeadLetters.retry(from(second), key.source, "d")).toMatchObject({ released: 4, waiting: 1 })
      expect(yield* waiting).toEqual(["local 9 StrandGap"])
      expect(yield* applied).toEqual(["d global 7", "d global 8", "d local 4", "d local 5"])
    })))

  it.scopedLive("a first operation that is given up lets the next one be applied", () =>
    kept(Effect.gen(function*() {
      const failing = from(second, {
        before: (_, { index }) => index === 7 ? new Ledger.Refused({ index }) : Effect.void
      })
      yield* Follow.follow(failing, "s", behindAnother(op(7), op(8)))
      const [first] = yield* DeadLetters.list(key)
      yield* DeadLetters.drop(key, first!.ordinal)
      yield* DeadLetters.retry(from(second), key.source, "d")
      expect(yield* applied).toEqual(["d global 8"])
    })))

  it.scopedLive("a stream that begins behind the gap of another one keeps its order", () =>
    kept(Effect.gen(function*() {
      const strands = behindAnother(op(7), op(9), op(4, "local"), op(5, "local"), op(6, "local"))
      yield* Follow.follow(from(second), "s", strands)
      expect(yield* waiting).toEqual(["global 9 StrandGap", "local 4 Queued", "local 5 Queued", "local 6 Queued"])
      yield* Follow.follow(from(second), "s", [...strands, Ledger.strand([op(8)])])
      expect(yield* waiting).toEqual([])
      expect(yield* applied).toEqual([
        "d global 7",
        "d global 8",
        "d global 9",
        "d local 4",
        "d local 5",
        "d local 6"
      ])
    })))
})
