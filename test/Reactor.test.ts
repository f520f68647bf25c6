/**
 * A reactor: each subscription is supervised by itself, starts again where its cursor stands, and ends with the scope.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Supervisor from "effect/Supervisor"
import * as TestClock from "effect/TestClock"
import * as Sqlite from "../layers/Sqlite.js"
import * as Test from "../layers/Test.js"
import { Cursors, Incident, Namespace, Policy, Processor, Reactor, Source, StoreUnavailable } from "../src/index.js"
import type { Pulse } from "../src/index.js"
import * as Database from "./support/Database.js"
import * as Eventually from "./support/Eventually.js"
import * as Feed from "./support/Feed.js"
import * as Ledger from "./support/Ledger.js"
import * as Store from "./support/Store.js"

const unavailable = new Source.SourceUnavailable({ source: "feed", reason: "the line is cut" })
const malformed = new Source.MalformedSource({ source: "feed", at: "line 3", reason: "not JSON" })

const running = Reactor.Reactor

/** How the subscription of a processor stands. */
const standing = (processor: string) =>
  Effect.gen(function*() {
    const { outcomes } = yield* running
    const found = (yield* outcomes).find((each) => each.processor === processor)
    if (found === undefined) throw new Error(`no subscription of ${processor}`)
    return found
  })

const reaches = (processor: string, phase: Pulse.Phase) =>
  Eventually.until(`${processor} is ${phase}`, Effect.map(standing(processor), (found) => found.phase === phase))

const applies = (processor: string, operations: number) =>
  Eventually.until(
    `${processor} has applied ${operations}`,
    Effect.map(standing(processor), (found) => found.totals.operations >= operations)
  )

const incidents = (expected: number) =>
  Effect.flatMap(
    running,
    (reactor) => reactor.incidents.pipe(Stream.take(expected), Stream.runCollect, Effect.map(Chunk.toReadonlyArray))
  )

const feedLayer = (feed: Feed.Feed) => Layer.succeed(Source.Source, feed.source)

/** A processor that sees only its own document. */
const own = (name: string) => Ledger.make(name, undefined, { filter: { documentId: [name] } })

describe("a source that fails", () => {
  it.scoped("is opened again from the cursor after a growing, jittered pause, ten times, and then reported", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* feed.push(Ledger.strand("d1", "a"))
      yield* Effect.gen(function*() {
        yield* applies("p", 1)
        yield* feed.fail(unavailable)
        yield* reaches("p", "reopening")
        const jitters = new Set<number>()
        for (let attempt = 1; attempt <= 10; attempt++) {
          const pauseMillis = Math.min(100 * 2 ** (attempt - 1), 30_000)
          expect(yield* feed.opened).toBe(attempt)
          expect((yield* standing("p")).failure).toBe(unavailable)
          const jitter = (yield* Eventually.nextSleep) / pauseMillis
          expect(jitter, `pause ${attempt} is ${pauseMillis} ms, give or take 20 %`).toBeGreaterThanOrEqual(0.8)
          expect(jitter).toBeLessThanOrEqual(1.2)
          jitters.add(jitter)
        }
        expect(jitters.size).toBeGreaterThan(1)
        yield* reaches("p", "halted")
        expect(yield* standing("p")).toMatchObject({ failure: unavailable, position: 1n, totals: { operations: 1 } })
        const told = yield* incidents(11)
        expect(told.map((each) => each._tag)).toEqual([...Array<string>(10).fill("Reopening"), "Halted"])
        expect(told.filter(Incident.is("Reopening")).map((each) => each.attempt)).toEqual([
          1,
          2,
          3,
          4,
          5,
          6,
          7,
          8,
          9,
          10
        ])
        yield* TestClock.adjust("1 day")
        yield* Eventually.settled
        expect(yield* feed.opened).toBe(11)
      }).pipe(Effect.provide(Reactor.layer(Ledger.make("p")).pipe(Layer.provideMerge(feedLayer(feed)))))
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.scoped("is read on from the cursor once it is back, with nothing lost and nothing twice", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* feed.push(Ledger.strand("d1", "a"))
      yield* Effect.gen(function*() {
        yield* applies("p", 1)
        yield* feed.fail(unavailable)
        yield* reaches("p", "reopening")
        yield* feed.push(Ledger.strand("d2", "b"))
        yield* feed.fail(undefined)
        yield* TestClock.adjust("1 second")
        yield* applies("p", 2)
        yield* reaches("p", "idle")
        expect(yield* Ledger.applied("p")).toEqual(["a", "b"])
        expect(yield* standing("p")).toMatchObject({ failure: undefined, position: 2n, totals: { redelivered: 0 } })
      }).pipe(Effect.provide(Reactor.layer(Ledger.make("p")).pipe(Layer.provideMerge(feedLayer(feed)))))
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.scoped("for the database that it is in is waited for, however long that takes", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const refused = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" })
      const away = new Source.SourceUnavailable({
        source: "feed",
        reason: "ECONNREFUSED",
        cause: new SqlError({ cause: refused, message: "Failed to acquire connection" })
      })
      yield* feed.push(Ledger.strand("d1", "a"))
      yield* Effect.gen(function*() {
        yield* applies("p", 1)
        yield* feed.fail(away)
        yield* reaches("p", "reopening")
        for (let attempt = 1; attempt <= 30; attempt++) yield* Eventually.nextSleep
        expect(yield* standing("p")).toMatchObject({ phase: "reopening", failure: away })
        yield* feed.push(Ledger.strand("d2", "b"))
        yield* feed.fail(undefined)
        yield* TestClock.adjust("10 seconds")
        yield* applies("p", 2)
        expect(yield* Ledger.applied("p")).toEqual(["a", "b"])
      }).pipe(Effect.provide(Reactor.layer(Ledger.make("p")).pipe(Layer.provideMerge(feedLayer(feed)))))
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.scoped("starts its pauses over once something was committed", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* Effect.gen(function*() {
        for (let round = 1; round <= 30; round++) {
          yield* feed.fail(undefined)
          yield* feed.push(Ledger.strand(`d${round}`, `${round}`))
          yield* TestClock.adjust("120 millis")
          yield* applies("p", round)
          yield* feed.fail(unavailable)
          yield* reaches("p", "reopening")
          yield* Eventually.settled
        }
        expect((yield* Ledger.applied("p")).length).toBe(30)
      }).pipe(Effect.provide(Reactor.layer(Ledger.make("p")).pipe(Layer.provideMerge(feedLayer(feed)))))
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.scoped("starts its pauses over once it has stood for a minute, though nothing was to be committed", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* Effect.gen(function*() {
        for (let round = 1; round <= 30; round++) {
          yield* reaches("p", "idle")
          yield* TestClock.adjust("1 minute")
          yield* feed.fail(unavailable)
          yield* reaches("p", "reopening")
          yield* Eventually.settled
          yield* feed.fail(undefined)
          yield* TestClock.adjust("120 millis")
        }
        yield* reaches("p", "idle")
        const attempts = (yield* incidents(30)).filter(Incident.is("Reopening")).map(({ attempt }) => attempt)
        expect(attempts).toEqual(Array<number>(30).fill(1))
      }).pipe(Effect.provide(Reactor.layer(Ledger.make("p")).pipe(Layer.provideMerge(feedLayer(feed)))))
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.scoped("follows the schedule of the settings", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* feed.fail(unavailable)
      const settings = { concurrency: 1, reopenings: Schedule.recurs(2) }
      yield* Effect.gen(function*() {
        yield* Effect.flatMap(running, (reactor) => reactor.ended)
        expect(yield* standing("p")).toMatchObject({ phase: "halted", failure: unavailable })
        expect(yield* feed.opened).toBe(3)
      }).pipe(Effect.provide(
        Reactor.layer(Ledger.make("p")).pipe(
          Layer.provideMerge(feedLayer(feed)),
          Layer.provide(Layer.succeed(Reactor.Settings, settings))
        )
      ))
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.scoped("halts at once where it holds something that is not a strand, after all that came before it", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* feed.push(Ledger.strand("d1", "a"))
      yield* feed.fail(malformed)
      yield* Effect.gen(function*() {
        yield* Effect.flatMap(running, (reactor) => reactor.ended)
        expect(yield* standing("p")).toMatchObject({ phase: "halted", failure: malformed, totals: { operations: 1 } })
        expect((yield* incidents(1))[0]).toMatchObject({
          _tag: "Halted",
          processor: "p",
          source: "feed",
          failure: malformed
        })
        expect(yield* feed.opened).toBe(1)
      }).pipe(Effect.provide(Reactor.layer(Ledger.make("p")).pipe(Layer.provideMerge(feedLayer(feed)))))
    }).pipe(Effect.provide(Sqlite.layerMemory)))
})

describe("a subscription that stops", () => {
  const broken = Ledger.make("broken", () => Effect.dieMessage("a bug"))
  const drifted = Processor.make("drifted", {
    namespace: "drifted",
    handler: Processor.onBatch(() => Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT * FROM nowhere`))
  }).pipe(Processor.withPolicy(Policy.standard))

  it.scoped("because of a defect is reported with it, and the others go on", () =>
    Effect.gen(function*() {
      const [bad, good] = yield* Reactor.run(broken, Ledger.make("good"))
      expect(bad).toMatchObject({ processor: "broken", phase: "halted", position: 0n, totals: { commits: 0 } })
      expect(bad?.failure).toMatchObject({
        _tag: "Halted",
        at: { documentId: "d1", index: 0, type: "PUT" },
        cause: { _tag: "Defect", cause: { message: "a bug" } }
      })
      expect(good).toMatchObject({ processor: "good", phase: "ended", position: 2n, totals: { operations: 3 } })
      expect(yield* Ledger.applied("broken")).toEqual([])
      expect(yield* Ledger.applied("good")).toEqual(["a", "b", "c"])
    }).pipe(Effect.provide(Test.layer([Ledger.strand("d1", "a", "b"), Ledger.strand("d2", "c")]))))

  it.scoped("because something in its handler was interrupted is reported as halted", () =>
    Effect.gen(function*() {
      const joining = Ledger.make("p", () =>
        Effect.flatMap(Effect.fork(Effect.never), (fiber) =>
          Effect.zipRight(Fiber.interrupt(fiber), Fiber.join(fiber))))
      yield* Effect.gen(function*() {
        yield* Effect.flatMap(running, (reactor) =>
          reactor.ended)
        expect(yield* standing("p")).toMatchObject({ phase: "halted", position: 0n, totals: { commits: 0 } })
        expect(yield* incidents(1)).toMatchObject([{ _tag: "Halted", processor: "p" }])
      }).pipe(Effect.provide(Reactor.layer(joining)))
    }).pipe(Effect.provide(Test.layer([Ledger.strand("d1", "a")]))))

  it.scoped("because code and database disagree is halted and parks nothing", () =>
    Effect.gen(function*() {
      const [bad, good] = yield* Reactor.run(drifted, Ledger.make("good"))
      expect(bad).toMatchObject({
        phase: "halted",
        position: 0n,
        waiting: 0,
        failure: { _tag: "Halted", fault: "drift", at: undefined }
      })
      expect(good).toMatchObject({ phase: "ended" })
    }).pipe(Effect.provide(Test.layer([Ledger.strand("d1", "a")]))))

  it.scoped("because another owner claimed its cursor stays stopped and writes nothing more", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* Effect.gen(function*() {
        yield* reaches("p", "idle")
        yield* Namespace.within("p", Cursors.claim({ processor: Ledger.make("p").name, source: feed.source.name }))
        yield* feed.push(Ledger.strand("d1", "a"))
        yield* reaches("p", "halted")
        expect((yield* standing("p")).failure).toMatchObject({ _tag: "Fenced", epoch: 1n, owner: 2n })
        expect(yield* Ledger.applied("p")).toEqual([])
      }).pipe(Effect.provide(Reactor.layer(Ledger.make("p")).pipe(Layer.provideMerge(feedLayer(feed)))))
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.scoped("because its source failed when another owner had claimed its cursor does not claim it back", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const key = { processor: Ledger.make("p").name, source: feed.source.name }
      yield* Effect.gen(function*() {
        yield* reaches("p", "idle")
        yield* Namespace.within("p", Cursors.claim(key))
        yield* feed.fail(new Source.SourceUnavailable({ source: "feed", reason: "it was slow" }))
        yield* reaches("p", "reopening")
        yield* feed.fail(undefined)
        yield* feed.push(Ledger.strand("d1", "a"))
        yield* TestClock.adjust("1 second")
        yield* reaches("p", "halted")
        expect((yield* standing("p")).failure).toMatchObject({ _tag: "Fenced", epoch: 1n, owner: 2n })
        expect(yield* Ledger.applied("p")).toEqual([])
        expect(yield* Namespace.within("p", Cursors.peek(key))).toMatchObject({ epoch: 2n, position: 0n })
      }).pipe(Effect.provide(Reactor.layer(Ledger.make("p")).pipe(Layer.provideMerge(feedLayer(feed)))))
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.scoped("because its cursor was moved opens again where the cursor is", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* Effect.gen(function*() {
        yield* reaches("p", "idle")
        const move = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`UPDATE processor_cursor SET position = 1`)
        yield* Namespace.within("p", move)
        yield* feed.push(Ledger.strand("d1", "a"), Ledger.strand("d2", "b"))
        yield* reaches("p", "reopening")
        expect((yield* standing("p")).failure).toMatchObject({ _tag: "CursorConflict" })
        yield* TestClock.adjust("1 second")
        yield* applies("p", 1)
        expect(yield* Ledger.applied("p")).toEqual(["b"])
      }).pipe(Effect.provide(Reactor.layer(Ledger.make("p")).pipe(Layer.provideMerge(feedLayer(feed)))))
    }).pipe(Effect.provide(Sqlite.layerMemory)))
})

describe("a reactor that cannot start", () => {
  it.effect("because a migration fails says which, and leaves nothing of it", () =>
    Effect.gen(function*() {
      const broken = Processor.make("p", {
        namespace: "shop",
        migrations: {
          "0001_ok": { up: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE ok (a)`), down: Effect.void },
          "0002_bad": {
            up: Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.zipRight(sql`CREATE TABLE half (a)`, sql`CREATE`)),
            down: Effect.void
          }
        },
        handler: Processor.onBatch(() => Effect.void)
      }).pipe(Processor.withPolicy(Policy.standard))
      const failure = yield* Effect.flip(Reactor.run(broken))
      expect(failure).toMatchObject({ _tag: "MigrationFailed", namespace: "shop", id: "0002_bad" })
      const left = Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql`SELECT name FROM sqlite_master WHERE name IN ('ok', 'half')`
      )
      expect(yield* Namespace.query("shop", left)).toEqual([{ name: "ok" }])
    }).pipe(Effect.provide(Test.layer([]))))

  it.effect("because two processors have one name says which", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(Reactor.run(Ledger.make("p"), Ledger.make("p")))
      expect(Exit.isFailure(exit) && String(exit.cause)).toContain("two processors of one reactor are named p")
    }).pipe(Effect.provide(Test.layer([]))))

  it.effect("because its store cannot be opened fails with the store's reason", () =>
    Effect.gen(function*() {
      const store = Sqlite.layer({ filename: "/nowhere/at/all.db" })
      const failure = yield* Effect.flip(
        Reactor.run(Ledger.make("p")).pipe(Effect.provide([store, Source.layerIterable("test", [])]))
      )
      expect(failure).toBeInstanceOf(StoreUnavailable.StoreUnavailable)
    }))
})

describe("run", () => {
  it.effect("tells of each processor, in the order given, how it fared", () =>
    Effect.gen(function*() {
      const outcomes = yield* Reactor.run(Ledger.make("b"), Ledger.make("a"))
      expect(outcomes.map(({ phase, position, processor, source }) => [processor, source, phase, position])).toEqual([
        ["b", "test", "ended", 2n],
        ["a", "test", "ended", 2n]
      ])
      const totals = { operations: 3, redelivered: 0, superseded: 0, parked: 0, skipped: 0, released: 0 }
      for (const outcome of outcomes) expect(outcome.totals).toEqual({ commits: 1, ...totals })
    }).pipe(Effect.provide(Test.layer([Ledger.strand("d1", "a", "b"), Ledger.strand("d2", "c")]))))

  it.effect("does nothing again", () =>
    Effect.gen(function*() {
      yield* Reactor.run(Ledger.make("p"))
      const [again] = yield* Reactor.run(Ledger.make("p"))
      expect(again).toMatchObject({ phase: "ended", position: 1n, totals: { commits: 0, operations: 0 } })
      expect(yield* Ledger.applied("p")).toEqual(["a"])
    }).pipe(Effect.provide(Test.layer([Ledger.strand("d1", "a")]))))

  it.effect("of no processors ends at once", () =>
    Effect.gen(function*() {
      expect(yield* Reactor.run()).toEqual([])
    }).pipe(Effect.provide(Test.layer([Ledger.strand("d1", "a")]))))
})

describe("commits", () => {
  it.scoped("are told to an observer that came before them and to one that came after", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* Effect.gen(function*() {
        const reactor = yield* running
        const three = reactor.commits.pipe(Stream.take(3), Stream.runCollect, Effect.map(Chunk.toReadonlyArray))
        const early = yield* Effect.fork(three)
        for (const [i, text] of ["a", "b", "c"].entries()) {
          yield* feed.push(Ledger.strand(`d${i}`, text))
          yield* applies("p", i + 1)
        }
        const late = yield* three
        expect(late).toMatchObject([1n, 2n, 3n].map((position) => ({
          processor: "p",
          source: "feed",
          position,
          sequence: position,
          operations: 1,
          waiting: 0
        })))
        expect(yield* Fiber.join(early)).toEqual(late)
      }).pipe(Effect.provide(Reactor.layer(Ledger.make("p")).pipe(Layer.provideMerge(feedLayer(feed)))))
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.scoped("are not held up by an observer that does not read", () =>
    Effect.gen(function*() {
      const reactor = yield* running
      const stuck = yield* Effect.fork(Stream.runForEach(reactor.commits, () => Effect.never))
      yield* reactor.ended
      expect(yield* standing("p")).toMatchObject({ phase: "ended", totals: { commits: 1_500 } })
      yield* Fiber.interrupt(stuck)
    }).pipe(Effect.provide(
      Reactor.layer(Ledger.make("p", undefined, { batch: { operations: 1 } })).pipe(
        Layer.provideMerge(Test.layer(Array.from({ length: 1_500 }, (_, i) => Ledger.strand(`d${i}`, "a"))))
      )
    )))
})

describe("concurrency", () => {
  const names = ["p1", "p2", "p3", "p4", "p5", "p6"]

  /** Stays in its transaction until `expected` are in theirs, and then long enough for one more to come. */
  const crowd = (expected: number) => {
    const inside = { now: 0, most: 0 }
    const full = Deferred.unsafeMake<void>(FiberId.none)
    const make = (name: string) =>
      Processor.make(name, {
        namespace: name,
        handler: Processor.onBatch(() =>
          Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            inside.most = Math.max(inside.most, ++inside.now)
            if (inside.now === expected) yield* Deferred.succeed(full, undefined)
            yield* Deferred.await(full)
            for (let i = 0; i < 20; i++) yield* sql`SELECT 1`
            inside.now--
          })
        )
      }).pipe(Processor.withPolicy(Policy.standard))
    return { inside, processors: names.map(make) }
  }

  // On PostgreSQL, whose pool lets ten in: the one connection of SQLite would keep the others out by itself.
  it.scopedLive.each([1, 2, 6])(
    "lets %i subscriptions be inside a transaction at once, and no more",
    (concurrency) =>
      Effect.gen(function*() {
        const { inside, processors } = crowd(concurrency)
        const database = yield* Database.postgres
        const outcomes = yield* Reactor.run(...processors).pipe(
          Effect.provide(Layer.mergeAll(
            Store.layerMany(database),
            Source.layerIterable("test", [Ledger.strand("d1", "a")]),
            Layer.succeed(Reactor.Settings, { concurrency, reopenings: Schedule.recurs(0) })
          ))
        )
        expect(outcomes.map((each) => each.phase)).toEqual(names.map(() => "ended"))
        expect(inside).toEqual({ now: 0, most: concurrency })
      })
  )
})

describe("the scope of a reactor", () => {
  it.effect("ends its subscriptions when it closes, with their handlers' finalizers, and leaves no fiber", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* feed.push(Ledger.strand("d1", "a"))
      const log: Array<string> = []
      const supervisor = yield* Supervisor.track
      const watched = Processor.make("p", {
        namespace: "p",
        migrations: Ledger.migrations("p"),
        handler: Effect.as(
          Effect.acquireRelease(
            Effect.sync(() => log.push("connect")),
            () => Effect.sync(() => log.push("disconnect"))
          ),
          Processor.onOperations(Ledger.Model, { PUT: ({ input }) => Ledger.write("p", input.text) })
        )
      }).pipe(Processor.withPolicy(Policy.standard))

      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(
        Reactor.layer(watched).pipe(Layer.provide(feedLayer(feed))),
        scope
      ).pipe(Effect.supervised(supervisor))
      yield* applies("p", 1).pipe(Effect.provide(context))
      expect(log).toEqual(["connect"])
      expect((yield* supervisor.value).length).toBeGreaterThan(0)
      const ended = yield* Effect.fork(Context.get(context, Reactor.Reactor).ended)
      yield* Scope.close(scope, Exit.void)
      yield* Fiber.join(ended)
      expect(log).toEqual(["connect", "disconnect"])

      yield* feed.push(Ledger.strand("d2", "b"))
      yield* Eventually.settled
      expect(yield* Ledger.applied("p")).toEqual(["a"])
      expect(yield* supervisor.value).toEqual([])
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.effect("rolls back what is open when it closes in the middle of a transaction", () =>
    Effect.gen(function*() {
      const entered = yield* Deferred.make<void>()
      const slow = Ledger.make("p", (text) =>
        text === "b" ? Effect.zipRight(Deferred.succeed(entered, undefined), Effect.never) : Effect.void)
      const scope = yield* Scope.make()
      yield* Layer.buildWithScope(Reactor.layer(slow), scope)
      yield* Deferred.await(entered)
      yield* Scope.close(scope, Exit.void)
      expect(yield* Ledger.applied("p")).toEqual([])
      const cursor = Cursors.peek({ processor: slow.name, source: Source.name("test") })
      expect(yield* Namespace.query("p", cursor)).toMatchObject({ position: 0n, sequence: 0n })
    }).pipe(Effect.provide(Test.layer([Ledger.strand("d1", "a", "b")]))))

  // The engine's: `Pulse.layer` is one layer, which two reactors of one program share.
  it.effect("is that of its own subscriptions, beside another reactor of the program", () =>
    Effect.gen(function*() {
      const memo = yield* Layer.makeMemoMap
      const scope = yield* Effect.scope
      const drive = (name: string) =>
        Reactor.layer(own(name)).pipe(Layer.provide(Test.layer([Ledger.strand(name, "a")])))
      const names = yield* Effect.forEach(
        ["red", "blue"],
        (name) =>
          Layer.buildWithMemoMap(drive(name), memo, scope).pipe(
            Effect.flatMap((context) => Context.get(context, Reactor.Reactor).outcomes),
            Effect.map((all) => all.map((each) => each.processor))
          )
      )
      expect(names).toEqual([["red"], ["blue"]])
    }).pipe(Effect.scoped))
})

describe("subscriptions of one reactor", () => {
  it.scoped("each keep a cursor of their own", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* feed.push(Ledger.strand("p1", "a"), Ledger.strand("p2", "b"), Ledger.strand("p1", "c"))
      const halting = Ledger.undecided("p3", () =>
        Effect.fail(new Source.MalformedSource({ source: "", at: "", reason: "" }))).pipe(
          Processor.withPolicy({ ...Policy.standard, MalformedSource: Policy.halt })
        )
      yield* Effect.gen(function*() {
        yield* applies("p1", 1)
        yield* applies("p2", 1)
        yield* reaches("p3", "halted")
        const cursor = (name: string) =>
          Effect.map(
            Namespace.query(name, Cursors.peek({ processor: Ledger.make(name).name, source: feed.source.name })),
            (found) =>
              found?.position
          )
        expect(yield* Effect.forEach(["p1", "p2", "p3"], cursor)).toEqual([3n, 3n, 0n])
        expect(Option.getOrUndefined(yield* feed.source.head)).toBe(3n)
      }).pipe(Effect.provide(Reactor.layer(own("p1"), own("p2"), halting).pipe(Layer.provideMerge(feedLayer(feed)))))
    }).pipe(Effect.provide(Sqlite.layerMemory)))
})
