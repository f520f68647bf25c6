/**
 * A subscription: a Stream of commits that starts at its cursor, fails with what it cannot do, and leaves nothing behind.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Ref from "effect/Ref"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import * as Sqlite from "../layers/Sqlite.js"
import * as Test from "../layers/Test.js"
import { Cursors, Migrator, Policy, Processor, Pulse, Source, Subscription } from "../src/index.js"
import type { Commit, Incident } from "../src/index.js"
import * as Eventually from "./support/Eventually.js"
import * as Feed from "./support/Feed.js"
import * as Ledger from "./support/Ledger.js"

/** What a reactor does before it opens subscriptions. */
const prepared = <R>(processor: Processor.Processor<never, R>) =>
  Effect.zipRight(Migrator.prepare, Migrator.up(processor.namespace, processor.migrations))

/** The commits of a subscription until it ends, and what it failed with. */
const drain = <R>(processor: Processor.Processor<never, R>, options?: Subscription.Options) =>
  Effect.gen(function*() {
    const commits: Array<Commit.Commit> = []
    const exit = yield* Subscription.commits(processor, options).pipe(
      Stream.runForEach((commit) => Effect.sync(() => commits.push(commit))),
      Effect.either
    )
    return { commits, failure: Either.isLeft(exit) ? exit.left : undefined }
  })

const keyOf = <R>(processor: Processor.Processor<never, R>, source = "test") => ({
  processor: processor.name,
  source: Source.name(source)
})

const three = [Ledger.strand("d1", "a", "b"), Ledger.strand("d2", "c"), Ledger.strand("d1x", "d")]

const p = Ledger.make("p")
const oneByOne = Ledger.make("p", undefined, { batch: { operations: 1 } })

describe("a subscription that cannot begin", () => {
  it.effect("because nobody has created the tables fails with the database's reason", () =>
    Effect.gen(function*() {
      const { commits, failure } = yield* drain(p)
      expect(commits).toEqual([])
      expect(failure).toMatchObject({ _tag: "SqlError", cause: { message: "no such table: processor_cursor" } })
    }).pipe(Effect.provide(Test.layer(three))))
})

describe("a subscription that fails", () => {
  it.effect("with its source has committed everything that came before", () =>
    Effect.gen(function*() {
      yield* prepared(p)
      const feed = yield* Feed.make("feed")
      const cut = new Source.SourceUnavailable({ source: "feed", reason: "the line is cut" })
      yield* feed.push(...three)
      yield* feed.fail(cut)
      const { commits, failure } = yield* Effect.provideService(drain(p), Source.Source, feed.source)
      expect(failure).toBe(cut)
      expect(commits.at(-1)).toMatchObject({ position: 3n })
      expect(yield* Ledger.texts("p")).toEqual(["a", "b", "c", "d"])
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.effect("in its handler has written nothing of that batch, and its finalizers have run", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const halting = Processor.make("p", {
        namespace: "p",
        migrations: Ledger.migrations("p"),
        handler: Effect.as(
          Effect.addFinalizer(() => Effect.sync(() => log.push("disconnect"))),
          Processor.onBatch(() => Effect.zipRight(Ledger.write("p", "x"), Ledger.write("p", null)))
        )
      }).pipe(Processor.withPolicy({ ...Policy.standard, SqlError: Policy.halt }))
      yield* prepared(halting)
      const { commits, failure } = yield* drain(halting)
      expect(commits).toEqual([])
      expect(failure).toMatchObject({ _tag: "Halted", fault: "poison", at: { documentId: "d1", index: 0 } })
      expect(yield* Ledger.texts("p")).toEqual([])
      expect(yield* Cursors.peek(keyOf(halting))).toMatchObject({ position: 0n, sequence: 0n })
      expect(log).toEqual(["disconnect"])
    }).pipe(Effect.provide(Test.layer(three))))

  it.effect("because it was claimed by another commits nothing more", () =>
    Effect.gen(function*() {
      yield* prepared(oneByOne)
      const seen = yield* Ref.make(0)
      const failure = yield* Subscription.commits(oneByOne).pipe(
        Stream.tap(() => Ref.update(seen, (n) => n + 1)),
        Stream.tap(() => Cursors.claim(keyOf(oneByOne))),
        Stream.runDrain,
        Effect.flip
      )
      expect(failure).toMatchObject({ _tag: "Fenced", epoch: 1n, owner: 2n })
      expect(yield* Ref.get(seen)).toBe(1)
      expect(yield* Ledger.texts("p")).toEqual(["a"])
    }).pipe(Effect.provide(Test.layer(three))))
})

describe("a subscription that is interrupted", () => {
  it.effect("while it waits for its source leaves nothing behind", () =>
    Effect.gen(function*() {
      yield* prepared(p)
      const feed = yield* Feed.make("feed")
      const log: Array<string> = []
      const watched = Processor.make("p", {
        namespace: "p",
        handler: Effect.as(
          Effect.addFinalizer(() => Effect.sync(() => log.push("disconnect"))),
          Processor.onOperations(Ledger.Model, { PUT: ({ input }) => Ledger.write("p", input.text) })
        )
      }).pipe(Processor.withPolicy(Policy.standard))
      yield* feed.push(Ledger.strand("d1", "a"))
      const first = yield* Subscription.commits(watched).pipe(
        Stream.take(1),
        Stream.runCollect,
        Effect.provideService(Source.Source, feed.source)
      )
      expect(Chunk.toReadonlyArray(first)).toMatchObject([{ operations: 1 }])
      expect(log).toEqual(["disconnect"])
      const fiber = yield* Effect.fork(Effect.provideService(drain(watched), Source.Source, feed.source))
      yield* Eventually.settled
      yield* Fiber.interrupt(fiber)
      expect(log).toEqual(["disconnect", "disconnect"])
      const sql = yield* SqlClient.SqlClient
      yield* sql.withTransaction(sql`SELECT 1`)
    }).pipe(Effect.provide(Sqlite.layerMemory)))
})

describe("the commits", () => {
  it.effect("are told one by one, in order, each with what it did", () =>
    Effect.gen(function*() {
      yield* prepared(oneByOne)
      const { commits, failure } = yield* drain(oneByOne)
      expect(failure).toBeUndefined()
      expect(commits.map(({ operations, position, sequence }) => [operations, position, sequence])).toEqual([
        [1, 0n, 1n],
        [1, 1n, 2n],
        [1, 2n, 3n],
        [1, 3n, 4n]
      ])
      expect(commits[0]).toMatchObject({
        processor: "p",
        source: "test",
        redelivered: 0,
        superseded: 0,
        parked: 0,
        queued: 0,
        skipped: 0,
        released: 0,
        waiting: 0,
        durationMillis: 0
      })
      expect(commits[0]?.handled.get("PUT")).toHaveLength(1)
    }).pipe(Effect.provide(Test.layer(three))))

  it.effect("start behind the cursor", () =>
    Effect.gen(function*() {
      yield* prepared(oneByOne)
      const two = yield* Subscription.commits(oneByOne).pipe(Stream.take(2), Stream.runCollect)
      expect(Chunk.size(two)).toBe(2)
      expect(yield* Ledger.texts("p")).toEqual(["a", "b"])
      const { commits } = yield* drain(p)
      expect(commits).toMatchObject([{ operations: 2, position: 3n, redelivered: 0 }])
      expect(yield* Ledger.texts("p")).toEqual(["a", "b", "c", "d"])
      expect((yield* drain(p)).commits).toEqual([])
    }).pipe(Effect.provide(Test.layer(three))))

  it.effect("are made only as fast as they are read", () =>
    Effect.gen(function*() {
      yield* prepared(oneByOne)
      yield* Stream.runForEachWhile(Subscription.commits(oneByOne), () =>
        Effect.gen(function*() {
          yield* Eventually.settled
          return (yield* Ledger.texts("p")).length < 2
        }))
      expect(yield* Ledger.texts("p")).toEqual(["a", "b"])
    }).pipe(Effect.provide(Test.layer(three))))

  it.scoped("move the cursor across strands that nobody wants, in time and not for each", () =>
    Effect.gen(function*() {
      const picky = Ledger.make("p", undefined, { filter: { documentId: ["d1"] } })
      yield* prepared(picky)
      const feed = yield* Feed.make("feed")
      const commits: Array<Commit.Commit> = []
      yield* Subscription.commits(picky).pipe(
        Stream.runForEach((commit) => Effect.sync(() => commits.push(commit))),
        Effect.provideService(Source.Source, feed.source),
        Effect.forkScoped
      )
      for (let i = 0; i < 10; i++) {
        yield* feed.push(Ledger.strand(`other-${i}`, "x"))
        yield* Eventually.settled
      }
      expect(commits).toEqual([])
      yield* TestClock.adjust("5 seconds")
      yield* Eventually.settled
      expect(commits).toMatchObject([{ operations: 0, position: 10n }])
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.effect("run inside the turn that they are given, and their pauses do not", () =>
    Effect.gen(function*() {
      yield* prepared(oneByOne)
      let turns = 0
      yield* drain(oneByOne, {
        turn: (commit) => Effect.zipRight(Effect.sync(() => turns++), commit)
      })
      // The claim, and a commit for each operation.
      expect(turns).toBe(5)
    }).pipe(Effect.provide(Test.layer(three))))
})

describe("incidents and the pulse", () => {
  it.effect("tell whoever runs the subscription how it fares", () =>
    Effect.gen(function*() {
      const incidents: Array<Incident.Incident> = []
      const breaking = Ledger.undecided("p", (text) => text === "c" ? Ledger.write("p", null) : Effect.void).pipe(
        Processor.withPolicy(Policy.standard)
      )
      yield* prepared(breaking)
      const source = yield* Source.Source
      const pulse = new Pulse.Pulse(keyOf(breaking), source.head, 0, breaking.namespace)
      expect(pulse).toMatchObject({ phase: "opening", position: undefined })
      yield* drain(breaking, { pulse, report: (incident) => Effect.sync(() => incidents.push(incident)) })
      expect(incidents).toMatchObject([{
        _tag: "Parked",
        processor: "p",
        source: "test",
        subject: { documentId: "d2" }
      }])
      expect(pulse).toMatchObject({ phase: "ended", position: 3n, parked: 1, totals: { operations: 3, parked: 1 } })
    }).pipe(Effect.provide(Test.layer(three))))
})

describe("two subscriptions", () => {
  it.effect("of one processor on two sources have a cursor each", () =>
    Effect.gen(function*() {
      yield* prepared(p)
      const other = Source.layerIterable("other", [Ledger.strand("elsewhere", "z")])
      yield* drain(p)
      yield* Effect.provide(drain(p), other)
      expect(yield* Ledger.texts("p")).toEqual(["a", "b", "c", "d", "z"])
      expect(yield* Cursors.peek(keyOf(p))).toMatchObject({ position: 3n })
      expect(yield* Cursors.peek(keyOf(p, "other"))).toMatchObject({ position: 1n })
    }).pipe(Effect.provide(Layer.fresh(Test.layer(three)))))
})
