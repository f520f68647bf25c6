/**
 * A processor: what its handlers are given, what they fail with, and what is released when they are done.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Test from "../../layers/Test.js"
import { DeadLetters, Namespace, Policy, Processor, Reactor, Source, Subscription } from "../../src/index.js"
import type { Batch, Strand } from "../../src/index.js"
import * as Eventually from "../support/Eventually.js"
import * as Feed from "../support/Feed.js"
import * as Ledger from "../support/Ledger.js"

/** Follows the strands to their end and returns how the only processor fared. */
const follow = <R>(processor: Processor.Processor<never, R>) =>
  Effect.map(Reactor.run(processor), ([outcome]) => {
    if (outcome === undefined) throw new Error("no outcome")
    return outcome
  })

const lettersOf = (processor: { readonly name: Processor.ProcessorName; readonly namespace: Namespace.Namespace }) =>
  Namespace.query(
    processor.namespace,
    DeadLetters.list({ processor: processor.name, source: Source.name("test") })
  )

const on = (...strands: ReadonlyArray<Source.Unplaced>) => Effect.provide(Test.layer(strands))

const ledgerStrand = (...operations: ReadonlyArray<Test.OperationOptions>) =>
  Test.strand({ documentId: "d1", documentType: Ledger.Model.type, operations })

describe("a processor that cannot be", () => {
  const make = (name: string, namespace: string) =>
    Processor.make(name, { namespace, handler: Processor.onBatch(() => Effect.void) })

  it.each(["", " todo", "Todo", "9lives", "to\u0000do", "a".repeat(49)])("named %j is refused", (name) => {
    expect(() => make(name, "fine")).toThrow(/a name is a-z/)
  })

  it.each(["", "9lives", "a b", "../x", "a".repeat(129), "processor_x", "Processor_x"])(
    "in the namespace %j is refused",
    (namespace) => {
      expect(() => make("fine", namespace)).toThrow(/a namespace is A-Z|is reserved/)
    }
  )

  it("is the same in another namespace, which is checked as the first", () => {
    const one = make("fine", "here")
    const other = Processor.inNamespace("there")(one)
    expect([one.namespace, other.namespace]).toEqual(["here", "there"])
    expect([other.name, other.handler, other.policy, other.filter]).toEqual([
      one.name,
      one.handler,
      one.policy,
      one.filter
    ])
    expect(() => Processor.inNamespace("9lives")(one)).toThrow(/a namespace is A-Z/)
  })
})

describe("an operation that onOperations cannot hand on", () => {
  it.effect("because its model does not know it is an UnknownOperation", () =>
    Effect.gen(function*() {
      const outcome = yield* follow(Ledger.make("p"))
      expect(outcome).toMatchObject({ phase: "ended", waiting: 1, totals: { operations: 0, parked: 1 } })
      const [letter] = yield* lettersOf(Ledger.make("p"))
      expect(letter).toMatchObject({ cause: "UnknownOperation", operation: { type: "PUTT" } })
      expect(letter?.reason).toBe(
        `PUTT at index 0 of document d1 (global, main): the model test/ledger has no such operation`
      )
    }).pipe(on(ledgerStrand({ type: "PUTT", input: { text: "a" } }))))

  it.effect("because of a name that every object has is an UnknownOperation", () =>
    Effect.gen(function*() {
      yield* follow(Ledger.make("p"))
      expect((yield* lettersOf(Ledger.make("p"))).map((letter) => letter.cause)).toEqual(["UnknownOperation", "Queued"])
    }).pipe(on(ledgerStrand({ type: "constructor" }, { type: "__proto__" }))))

  it.effect("because its input does not fit its Schema is a MalformedOperation that says where", () =>
    Effect.gen(function*() {
      yield* follow(Ledger.make("p"))
      const [letter] = yield* lettersOf(Ledger.make("p"))
      expect(letter).toMatchObject({ cause: "MalformedOperation", operation: { input: { text: 7 } } })
      expect(letter?.reason).toMatch(/^PUT at index 0 of document d1 .*the input does not fit the model:.*\["text"\]/s)
      expect(yield* Ledger.applied("p")).toEqual([])
    }).pipe(on(ledgerStrand({ type: "PUT", input: { text: 7 } }))))
})

describe("onOperations", () => {
  it.effect("gives each operation its decoded input, itself and its strand", () =>
    Effect.gen(function*() {
      const seen: Array<unknown> = []
      yield* follow(
        Processor.make("p", {
          namespace: "p",
          handler: Processor.onOperations(Ledger.Model, {
            PUT: ({ input, operation, strand, type }) =>
              Effect.sync(() => seen.push([type, input, operation.index, strand.documentId]))
          })
        }).pipe(Processor.withPolicy(Policy.standard))
      )
      expect(seen).toEqual([["PUT", { text: "a" }, 0, "d1"], ["PUT", { text: "b" }, 1, "d1"]])
    }).pipe(on(ledgerStrand({ type: "PUT", input: { text: "a", more: 1 } }, { type: "PUT", input: { text: "b" } }))))

  it.effect("lets pass what it has no function for, what every document has, and what was refused already", () =>
    Effect.gen(function*() {
      const outcome = yield* follow(Ledger.make("p"))
      expect(outcome).toMatchObject({ phase: "ended", waiting: 0 })
      expect(yield* Ledger.applied("p")).toEqual(["kept"])
    }).pipe(on(
      ledgerStrand(
        { type: "PASS", input: { text: "no function" } },
        { type: "SET_NAME", input: { name: "of every document" } },
        { type: "PUT", input: { text: "refused" }, error: "its reducer said no" },
        { type: "PUT", input: { text: 7 }, error: "malformed as well" },
        { type: "PUT", input: { text: "kept" } }
      )
    )))

  it.effect("lets other document types pass", () =>
    Effect.gen(function*() {
      yield* follow(Ledger.make("p"))
      expect(yield* Ledger.applied("p")).toEqual([])
      expect(yield* lettersOf(Ledger.make("p"))).toEqual([])
    }).pipe(on(Test.strand({ documentId: "d1", documentType: "other", operations: [{ type: "WHATEVER" }] }))))
})

describe("onBatch and onStrands", () => {
  /** Records what each call was given. */
  const recording = (calls: Array<ReadonlyArray<string>>, batch: Partial<Batch.Limits> = {}) => {
    const record = (strands: ReadonlyArray<Strand.Strand>) =>
      calls.push(strands.map((strand) => `${strand.documentId}:${strand.operations.length}`))
    const options = { namespace: "p", filter: { documentType: [Ledger.Model.type] }, batch }
    return {
      byBatch: Processor.make("by-batch", {
        ...options,
        handler: Processor.onBatch((strands) => Effect.sync(() => record(strands)))
      }).pipe(Processor.withPolicy(Policy.standard)),
      byStream: Processor.make("by-stream", {
        ...options,
        handler: Processor.onStrands((strands) =>
          Stream.fromEffect(Effect.map(Stream.runCollect(strands), (all) => record(Array.from(all))))
        )
      }).pipe(Processor.withPolicy(Policy.standard))
    }
  }

  const strands = [
    Ledger.strand("d1", "a", "b"),
    Test.strand({ documentId: "x", documentType: "other", operations: [{ type: "X" }] }),
    Ledger.strand("d2", "c")
  ]

  it.effect("are given the whole batch, in order, without what the filter leaves out", () =>
    Effect.gen(function*() {
      const calls: Array<ReadonlyArray<string>> = []
      const { byBatch, byStream } = recording(calls)
      yield* follow(byBatch)
      yield* follow(byStream)
      expect(calls).toEqual([["d1:2", "d2:1"], ["d1:2", "d2:1"]])
    }).pipe(on(...strands)))

  it.effect("are given batches of the size that was asked for, and a longer strand in pieces", () =>
    Effect.gen(function*() {
      const calls: Array<ReadonlyArray<string>> = []
      const outcome = yield* follow(recording(calls, { operations: 1 }).byBatch)
      expect(calls).toEqual([["d1:1"], ["d1:1"], ["d2:1"]])
      expect(outcome).toMatchObject({ position: 3n, totals: { commits: 3, operations: 3 } })
    }).pipe(on(...strands)))

  it.effect("are not called with nothing, and the cursor moves all the same", () =>
    Effect.gen(function*() {
      const calls: Array<ReadonlyArray<string>> = []
      const outcome = yield* follow(recording(calls).byBatch)
      expect(calls).toEqual([])
      expect(outcome).toMatchObject({ phase: "ended", position: 1n, totals: { operations: 0 } })
    }).pipe(on(Test.strand({ documentId: "x", documentType: "other", operations: [{ type: "X" }] }))))
})

describe("merge", () => {
  it.effect("gives the batch to one handler after the other, in one transaction", () =>
    Effect.gen(function*() {
      const put = Processor.onOperations(Ledger.Model, { PUT: ({ input }) => Ledger.write("p", `1 ${input.text}`) })
      const second = Processor.onBatch(() => Ledger.write("p", "2"))
      const failing = Processor.onBatch(() => Ledger.write("p", null))
      const make = (name: string, handler: Processor.Handler<Processor.Failure<typeof both>, SqlClient.SqlClient>) =>
        Processor.make(name, { namespace: "p", migrations: Ledger.migrations("p"), handler }).pipe(
          Processor.withPolicy(Policy.standard)
        )
      const both = Processor.make("both", {
        namespace: "p",
        migrations: Ledger.migrations("p"),
        handler: Processor.merge(put, second)
      })
      yield* follow(make("good", Processor.merge(put, second)))
      expect(yield* Ledger.applied("p")).toEqual(["1 a", "2"])
      const outcome = yield* follow(make("bad", Processor.merge(put, failing)))
      expect(outcome).toMatchObject({ totals: { parked: 1 } })
      expect(yield* Ledger.applied("p")).toEqual(["1 a", "2"])
    }).pipe(on(Ledger.strand("d1", "a"))))
})

describe("a handler that is an effect", () => {
  class Connections extends Context.Tag("test/Connections")<Connections, { open: number; opened: number }>() {}

  const connected = Processor.make("p", {
    namespace: "p",
    migrations: Ledger.migrations("p"),
    batch: { operations: 1 },
    handler: Effect.gen(function*() {
      const connections = yield* Connections
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          connections.open++
          connections.opened++
        }),
        () => Effect.sync(() => connections.open--)
      )
      return Processor.onOperations(Ledger.Model, { PUT: ({ input }) => Ledger.write("p", input.text) })
    })
  }).pipe(Processor.withPolicy(Policy.standard))

  const connections = () => Layer.sync(Connections, () => ({ open: 0, opened: 0 }))

  it.effect("is built once, and what it acquired is released when the source ends", () =>
    Effect.gen(function*() {
      yield* follow(connected)
      expect(yield* Ledger.applied("p")).toEqual(["a", "b", "c"])
      expect(yield* Connections).toEqual({ open: 0, opened: 1 })
    }).pipe(on(Ledger.strand("d1", "a", "b", "c")), Effect.provide(connections())))

  it.effect("releases what it acquired when its fiber is interrupted", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* feed.push(Ledger.strand("d1", "a"))
      const fiber = yield* Effect.fork(
        Effect.provideService(follow(connected), Source.Source, feed.source)
      )
      const found = yield* Connections
      yield* Eventually.until(
        "the strand is committed",
        Effect.map(Ledger.applied("p"), (rows) => rows.length === 1).pipe(
          Effect.orElseSucceed(() => false)
        )
      )
      expect(found).toEqual({ open: 1, opened: 1 })
      yield* Fiber.interrupt(fiber)
      expect(found).toEqual({ open: 0, opened: 1 })
    }).pipe(on(), Effect.provide(connections())))

  it.effect("that cannot be built fails the subscription, and releases what it had acquired", () =>
    Effect.gen(function*() {
      const broken = Processor.make("p", {
        namespace: "p",
        handler: Effect.gen(function*() {
          const open = yield* Connections
          const sql = yield* SqlClient.SqlClient
          yield* Effect.acquireRelease(Effect.sync(() => open.open++), () => Effect.sync(() => open.open--))
          yield* sql`SELECT * FROM nowhere`
          return Processor.onBatch(() => Effect.void)
        })
      }).pipe(Processor.withPolicy(Policy.standard))
      const outcome = yield* follow(broken)
      expect(outcome).toMatchObject({ phase: "halted", failure: { _tag: "SqlError" } })
      expect(yield* Connections).toMatchObject({ open: 0 })
    }).pipe(on(Ledger.strand("d1", "a")), Effect.provide(connections())))
})

describe("the filter", () => {
  const strands = [Ledger.strand("d1", "a"), Ledger.strand("d2", "b")]

  it.effect("takes a star for any document type in the dialect of the drive", () =>
    Effect.gen(function*() {
      yield* follow(Ledger.make("p", undefined, { filter: { documentType: ["*"], documentId: ["d2"] } }))
      expect(yield* Ledger.applied("p")).toEqual(["b"])
    }).pipe(on(...strands)))

  it.effect("takes a star for a star in the dialect of the reactor", () =>
    Effect.gen(function*() {
      yield* follow(Ledger.make("p", undefined, { filter: { documentType: ["*"] }, filterDialect: "reactor" }))
      expect(yield* Ledger.applied("p")).toEqual([])
    }).pipe(on(...strands)))
})

describe("withPolicy", () => {
  it.effect("lets a later policy decide a standard failure again", () =>
    Effect.gen(function*() {
      const lenient = Ledger.undecided("p").pipe(
        Processor.withPolicy(Policy.standard),
        Processor.withPolicy({ UnknownOperation: Policy.skip })
      )
      const outcome = yield* follow(lenient)
      expect(outcome).toMatchObject({ waiting: 0, totals: { skipped: 1, parked: 0 } })
      expect(yield* Ledger.applied("p")).toEqual(["after"])
    }).pipe(on(ledgerStrand({ type: "NEW" }, { type: "PUT", input: { text: "after" } }))))

  it.effect("leaves the processor that it is given as it was", () =>
    Effect.gen(function*() {
      const parking = Ledger.make("p")
      parking.pipe(Processor.withPolicy({ UnknownOperation: Policy.skip }))
      expect(yield* follow(parking)).toMatchObject({ waiting: 1, totals: { skipped: 0, parked: 1 } })
    }).pipe(on(ledgerStrand({ type: "NEW" }))))
})

describe("a batch without an end", () => {
  it.each<Partial<Batch.Limits>>([
    { operations: 0 },
    { operations: Number.NaN },
    { operations: 0.5 },
    { bytes: 0 },
    { bytes: -1 },
    { unwanted: 0 },
    { lingerMillis: Number.POSITIVE_INFINITY },
    { unwantedMillis: -1 }
  ])("is refused: %o", (batch) => expect(() => Ledger.make("p", undefined, { batch })).toThrow(/Expected/))
})

describe("a processor by itself", () => {
  it.effect("is a Stream of commits", () =>
    Effect.gen(function*() {
      yield* Effect.ignore(follow(Ledger.make("tables")))
      const following = Subscription.commits(Ledger.make("tables", undefined, { batch: { operations: 2 } })).pipe(
        Stream.provideService(Source.Source, Source.fromIterable("other", [Ledger.strand("d1", "a", "b", "c")]))
      )
      const commits = yield* Namespace.within("tables", Stream.runCollect(following))
      expect(Array.from(commits, (commit) => commit.operations)).toEqual([2, 1])
    }).pipe(on()))
})
