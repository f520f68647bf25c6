/**
 * A policy: each failure meets its decision, as itself, and only the operation that failed is affected.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import * as Test from "../../layers/Test.js"
import {
  Cursors,
  DeadLetters,
  Failure,
  Incident,
  Namespace,
  Policy,
  Processor,
  Reactor,
  Source
} from "../../src/index.js"
import * as Eventually from "../support/Eventually.js"
import * as Ledger from "../support/Ledger.js"

class Flaky extends Data.TaggedError("Flaky")<{ readonly attempt: number }> {}

class Refused extends Data.TaggedError("Refused")<{ readonly text: string }> {}

const key = { processor: Ledger.make("p").name, source: Source.name("test") }

/** Refuses texts that begin with "bad". */
const refusing = Ledger.undecided("p", (text) => text.startsWith("bad") ? new Refused({ text }) : Effect.void).pipe(
  Processor.withPolicy(Policy.standard)
)

/** Fails with `Flaky` as often as `times` says. */
const flaky = (times: number) => {
  const counts = { tries: 0 }
  const processor = Ledger.undecided(
    "p",
    (text) => text === "flaky" && ++counts.tries <= times ? new Flaky({ attempt: counts.tries }) : Effect.void
  ).pipe(Processor.withPolicy(Policy.standard))
  return { counts, processor }
}

const reactor = <R>(processor: Processor.Processor<never, R>, ...strands: ReadonlyArray<Source.Unplaced>) =>
  Effect.provide(Reactor.layer(processor).pipe(Layer.provideMerge(Test.layer(strands))))

const outcome = Effect.gen(function*() {
  const { ended, outcomes } = yield* Reactor.Reactor
  yield* ended
  const [only] = yield* outcomes
  if (only === undefined) throw new Error("no outcome")
  return only
})

/** The incidents so far, of which there have to be as many as `expected`. */
const incidents = (expected: number) =>
  Effect.flatMap(
    Reactor.Reactor,
    (running) => running.incidents.pipe(Stream.take(expected), Stream.runCollect, Effect.map(Chunk.toReadonlyArray))
  )

const mixed = [
  Ledger.strand("d1", "a1", "a2"),
  Ledger.strand("d2", "b1", "bad", "b2"),
  Ledger.strand("d3", "c1")
]

describe("decide", () => {
  const failure = new Refused({ text: "x" })

  it("halts at what the table does not know, and at what has no tag", () => {
    for (const unknown of [failure, new Error("x"), "text", undefined, null, { _tag: 7 }]) {
      expect(Policy.decide(new Map(), unknown)).toBe(Policy.halt)
    }
  })

  it("asks a function with the failure itself", () => {
    const asked: Array<unknown> = []
    const table: Policy.Table = new Map([["Refused", (given: unknown) => (asked.push(given), Policy.skip)]])
    expect(Policy.decide(table, failure)).toBe(Policy.skip)
    expect(asked).toEqual([failure])
    expect(asked[0]).toBe(failure)
  })

  it("is not misled by names that every object has", () => {
    const table: Policy.Table = new Map(Object.entries(Policy.standard))
    expect(Policy.decide(table, { _tag: "constructor" })).toBe(Policy.halt)
    expect(Policy.decide(table, { _tag: "__proto__" })).toBe(Policy.halt)
  })
})

describe("judge", () => {
  it("takes the verdict behind a retry for a failure that lasts", () => {
    const gap = new Failure.StrandGap({
      documentId: "d",
      scope: "global",
      branch: "main",
      index: 5,
      skip: 0,
      type: "PUT",
      expected: 3
    })
    const table: Policy.Table = new Map([["StrandGap", Policy.retry(Schedule.forever, { otherwise: Policy.skip })]])
    expect(Policy.judge(table, gap)).toBe(Policy.skip)
  })
})

describe("halt", () => {
  const halting = refusing.pipe(Processor.withPolicy({ Refused: Policy.halt }))

  it.scoped("stops with the cursor before the operation, and what came before it applied", () =>
    Effect.gen(function*() {
      const { failure, phase } = yield* outcome
      expect(phase).toBe("halted")
      expect(failure).toMatchObject({
        _tag: "Halted",
        fault: "poison",
        at: { documentId: "d2", index: 1, type: "PUT" },
        cause: { _tag: "Refused", text: "bad" }
      })
      expect(yield* Namespace.query("p", Cursors.peek(key))).toMatchObject({ position: 1n, parked: 0 })
      expect(yield* Ledger.applied("p")).toEqual(["a1", "a2", "b1"])
    }).pipe(reactor(halting, ...mixed)))

  // The engine's: commits of a batch are told when all of it is done, so a halt in the middle keeps them back.
  it.scoped("tells the commits of its batch that came before the operation", () =>
    Effect.gen(function*() {
      expect(yield* outcome).toMatchObject({ position: 1n, totals: { operations: 3 } })
    }).pipe(reactor(halting, ...mixed)))

  it.scoped("goes on from that operation once it is decided otherwise", () =>
    Effect.gen(function*() {
      yield* Reactor.run(halting)
      const [again] = yield* Reactor.run(refusing.pipe(Processor.withPolicy({ Refused: Policy.skip })))
      expect(again).toMatchObject({ phase: "ended", position: 3n, totals: { operations: 2, skipped: 1 } })
      expect(yield* Ledger.applied("p")).toEqual(["a1", "a2", "b1", "b2", "c1"])
    }).pipe(Effect.provide(Test.layer(mixed))))
})

describe("park", () => {
  it.scoped("sets the operation aside with its cause, its document behind it, and nobody else", () =>
    Effect.gen(function*() {
      const { phase, position, totals, waiting } = yield* outcome
      expect({ phase, position, waiting }).toEqual({ phase: "ended", position: 3n, waiting: 2 })
      expect(totals).toMatchObject({ parked: 1, skipped: 0 })
      expect((yield* Ledger.applied("p")).toSorted()).toEqual(["a1", "a2", "b1", "c1"])
      const letters = yield* Namespace.query("p", DeadLetters.list(key))
      expect(letters.map(({ cause, operation, strand }) => [strand.documentId, operation.index, cause])).toEqual([
        ["d2", 1, "Refused"],
        ["d2", 2, "Queued"]
      ])
    }).pipe(reactor(refusing.pipe(Processor.withPolicy({ Refused: Policy.park })), ...mixed)))

  it.scoped("is told as an incident that holds the failure itself", () =>
    Effect.gen(function*() {
      yield* outcome
      const [parked] = yield* incidents(1)
      expect(parked).toMatchObject({ _tag: "Parked", processor: "p", source: "test", subject: { index: 1 } })
      expect(parked?.failure).toBeInstanceOf(Refused)
    }).pipe(reactor(refusing.pipe(Processor.withPolicy({ Refused: Policy.park })), ...mixed)))
})

describe("skip", () => {
  it.scoped("leaves the operation out, counts it and goes on in its document", () =>
    Effect.gen(function*() {
      expect(yield* outcome).toMatchObject({ phase: "ended", waiting: 0, totals: { skipped: 1, parked: 0 } })
      expect((yield* Ledger.applied("p")).toSorted()).toEqual(["a1", "a2", "b1", "b2", "c1"])
      expect((yield* incidents(1))[0]).toMatchObject({ _tag: "Skipped", subject: { documentId: "d2", index: 1 } })
    }).pipe(reactor(refusing.pipe(Processor.withPolicy({ Refused: Policy.skip })), ...mixed)))

  it.scoped("can be chosen by what the failure holds", () =>
    Effect.gen(function*() {
      expect(yield* outcome).toMatchObject({ waiting: 1, totals: { skipped: 1, parked: 1 } })
    }).pipe(reactor(
      refusing.pipe(Processor.withPolicy({ Refused: (e) => e.text === "bad" ? Policy.skip : Policy.park })),
      Ledger.strand("d1", "bad"),
      Ledger.strand("d2", "bad luck")
    )))
})

describe("retry", () => {
  const strands = [Ledger.strand("d1", "flaky", "after")]

  it.scoped("that never helps falls back to its verdict when its schedule ends", () => {
    const { counts, processor } = flaky(Infinity)
    return Effect.gen(function*() {
      expect(yield* outcome).toMatchObject({ phase: "ended", waiting: 2, totals: { parked: 1 } })
      expect(counts.tries).toBeGreaterThanOrEqual(4)
      const all = yield* incidents(4)
      expect(all.map((each) => each._tag)).toEqual(["Retrying", "Retrying", "Retrying", "Parked"])
      expect(all.filter(Incident.is("Retrying")).map((each) => each.attempt)).toEqual([1, 2, 3])
    }).pipe(reactor(
      processor.pipe(Processor.withPolicy({ Flaky: Policy.retry(Schedule.recurs(3), { otherwise: Policy.park }) })),
      ...strands
    ))
  })

  it.scoped("waits as long as its schedule says, and holds its document in order", () => {
    const { counts, processor } = flaky(3)
    return Effect.gen(function*() {
      yield* Eventually.settled
      const first = counts.tries
      yield* TestClock.adjust("999 millis")
      yield* Eventually.settled
      expect(counts.tries).toBe(first)
      expect(yield* Ledger.applied("p")).toEqual([])
      yield* TestClock.adjust("1 millis")
      yield* Eventually.until("it is tried again", Effect.sync(() => counts.tries > first))
      yield* Effect.forkScoped(Effect.forever(Effect.zipRight(TestClock.adjust("1 second"), Eventually.settled)))
      expect(yield* outcome).toMatchObject({ phase: "ended", waiting: 0, totals: { operations: 2, parked: 0 } })
      expect(yield* Ledger.applied("p")).toEqual(["flaky", "after"])
    }).pipe(reactor(
      processor.pipe(Processor.withPolicy({
        Flaky: Policy.retry(Schedule.spaced("1 second"), { otherwise: Policy.halt })
      })),
      ...strands
    ))
  })

  it.scoped("asks a function once for an operation, with its first failure", () => {
    const { processor } = flaky(5)
    const asked: Array<number> = []
    return Effect.gen(function*() {
      expect(yield* outcome).toMatchObject({ phase: "ended", waiting: 0 })
      expect(asked).toHaveLength(1)
    }).pipe(reactor(
      processor.pipe(Processor.withPolicy({
        Flaky: (e) => {
          asked.push(e.attempt)
          return Policy.retry(Schedule.recurs(10), { otherwise: Policy.halt })
        }
      })),
      ...strands
    ))
  })

  it.scoped("runs a schedule of its own for each operation", () => {
    const failed = new Map<string, number>()
    const twice = Ledger.undecided("p", (text) => {
      const tries = (failed.get(text) ?? 0) + 1
      failed.set(text, tries)
      return tries <= 2 ? new Flaky({ attempt: tries }) : Effect.void
    }).pipe(
      Processor.withPolicy(Policy.standard),
      Processor.withPolicy({ Flaky: Policy.retry(Schedule.recurs(2), { otherwise: Policy.halt }) })
    )
    return Effect.gen(function*() {
      expect(yield* outcome).toMatchObject({ phase: "ended", waiting: 0, totals: { operations: 3 } })
      expect(yield* Ledger.applied("p")).toEqual(["a", "b", "c"])
    }).pipe(reactor(twice, Ledger.strand("d1", "a", "b", "c")))
  })

  it.scoped("is given up with the scope, in the middle of a pause", () => {
    const { counts, processor } = flaky(Infinity)
    return Effect.gen(function*() {
      const fiber = yield* Effect.fork(Reactor.run(processor.pipe(
        Processor.withPolicy({ Flaky: Policy.retry(Schedule.spaced("1 day"), { otherwise: Policy.halt }) })
      )))
      yield* Eventually.until("it has failed", Effect.sync(() => counts.tries > 0))
      yield* Eventually.settled
      yield* Fiber.interrupt(fiber)
      expect(yield* Ledger.applied("p")).toEqual([])
    }).pipe(Effect.provide(Test.layer(strands)))
  })
})

describe("a statement that is refused for its data", () => {
  const breaking = Ledger.undecided("p", (text) => text === "bad" ? Ledger.write("p", null) : Effect.void)

  it.scoped("is poison: the policy decides as about any failure of the handler", () =>
    Effect.gen(function*() {
      expect(yield* outcome).toMatchObject({ phase: "ended", waiting: 2, totals: { parked: 1 } })
      const [letter] = yield* Namespace.query("p", DeadLetters.list(key))
      expect(letter).toMatchObject({ cause: "SqlError" })
      expect(letter?.reason).toMatch(/^SQLITE_CONSTRAINT_NOTNULL: /)
    }).pipe(reactor(breaking.pipe(Processor.withPolicy(Policy.standard)), ...mixed)))
})
