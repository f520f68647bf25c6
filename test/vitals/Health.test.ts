/**
 * Health: each thing that can be wrong, broken for real, and the report that names it.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import Sqlite3 from "better-sqlite3"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Supervisor from "effect/Supervisor"
import * as TestClock from "effect/TestClock"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import * as Test from "../../layers/Test.js"
import { DeadLetters, Health, Namespace, Policy, Position, Processor, Pulse, Reactor, Source } from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Eventually from "../support/Eventually.js"
import * as Feed from "../support/Feed.js"
import * as Ledger from "../support/Ledger.js"
import * as Ordinal from "../support/Ordinal.js"
import * as Proxy from "../support/Proxy.js"
import * as Store from "../support/Store.js"

const check = Effect.flatMap(Health.Health, (health) => health.check)
const latest = Effect.flatMap(Health.Health, (health) => health.report.get)
const healthCheck = (table: string) => Effect.flatMap(Health.Health, (health) => health.healthCheck(table))

/** Health by itself, of a reactor that has no subscriptions. */
const alone = (options?: Health.Options) => Health.layer(options).pipe(Layer.provide(Pulse.layer))

/** A namespace, and Health that watches it. */
const inTodos = <A, E, R>(use: (sql: SqlClient.SqlClient) => Effect.Effect<A, E, R>) =>
  Namespace.within("todos", Effect.flatMap(SqlClient.SqlClient, use))
const ofTodos = (options: Omit<Health.Options, "tables"> = {}) => alone({ ...options, tables: { todos: ["todos"] } })
const createTodos = inTodos((sql) => sql`CREATE TABLE todos (id INTEGER)`)

/** Health beside a reactor, which follows `source`. */
const beside = <R>(
  processor: Processor.Processor<never, R>,
  source: Context.Tag.Service<Source.Source>,
  options?: Health.Options
) =>
  Health.layer(options).pipe(
    Layer.provideMerge(Reactor.layer(processor)),
    Layer.provide(Layer.succeed(Source.Source, source))
  )

/** The report about the only subscription. */
const subscription = Effect.map(check, ({ complaints, isHealthy, notices, subscriptions: [only] }) => {
  if (only === undefined) throw new Error("no subscription")
  return { ...only, complaints, isHealthy, notices }
})

const isIn = (phase: Pulse.Phase) =>
  Eventually.until(
    `the subscription is ${phase}`,
    Effect.flatMap(Pulse.Pulses, (pulses) => Effect.map(pulses.all, ([only]) => only?.phase === phase))
  )

/** A SQLite store whose databases can be closed under it. */
const closable = Effect.gen(function*() {
  const scope = yield* Scope.make()
  const context = yield* Layer.buildWithScope(Layer.fresh(Sqlite.layerMemory), scope)
  return {
    namespaces: Context.get(context, Namespace.Namespaces),
    close: Scope.close(scope, Exit.void)
  }
})

describe("a database", () => {
  it.scoped("that is closed is reported, and nothing is concluded about its tables", () =>
    Effect.gen(function*() {
      const database = yield* closable
      yield* Effect.gen(function*() {
        yield* createTodos
        expect(yield* check).toMatchObject({ isHealthy: true, tables: [{ name: "todos", isPresent: true }] })
        yield* database.close
        const reason = expect.stringContaining("The database connection is not open")
        expect(yield* check).toEqual({
          isHealthy: false,
          atMillis: 0,
          database: { isReachable: false, reason },
          tables: [{ namespace: "todos", name: "todos", isPresent: false }],
          subscriptions: [],
          sources: [],
          outboxes: [],
          complaints: [expect.stringMatching(/^the database does not answer: .*The database connection is not open$/)],
          notices: []
        })
        expect(yield* healthCheck("todos")).toBe(false)
      }).pipe(
        Effect.provide(ofTodos()),
        Effect.provideService(Namespace.Namespaces, database.namespaces)
      )
    }))

  it.scopedLive("that refuses is reported, and that it is back as well", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      const proxy = yield* Proxy.make(url)
      yield* Effect.gen(function*() {
        yield* createTodos
        expect((yield* check).database).toMatchObject({ isReachable: true })
        yield* proxy.setMode("refuse")
        yield* proxy.cutAll
        const down = yield* check
        expect(down).toMatchObject({ isHealthy: false, database: { isReachable: false } })
        expect(down.complaints).toHaveLength(1)
        expect(down.complaints[0]).toMatch(/^the database does not answer: /)
        yield* proxy.setMode("pass")
        expect(yield* check).toMatchObject({ isHealthy: true, complaints: [] })
      }).pipe(
        Effect.provide(
          ofTodos().pipe(
            Layer.provideMerge(Postgres.layer({ url: Redacted.make(proxy.url), connectTimeout: "1 second" }))
          )
        )
      )
    }))

  it.scopedLive("that does not answer is reported in time", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      const proxy = yield* Proxy.make(url)
      yield* Effect.gen(function*() {
        yield* createTodos
        yield* proxy.setMode("blackhole")
        expect(yield* check).toMatchObject({ database: { isReachable: false, reason: "no answer within 500ms" } })
        expect(yield* healthCheck("todos")).toBe(false)
        yield* proxy.setMode("pass")
        expect(yield* healthCheck("todos")).toBe(true)
      }).pipe(Effect.provide(
        ofTodos({ answerWithin: "500 millis" }).pipe(
          Layer.provideMerge(Postgres.layer({ url: Redacted.make(proxy.url) }))
        )
      ))
    }))

  it.scopedLive("is reported with how long it takes to answer", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      const proxy = yield* Proxy.make(url)
      yield* proxy.setLatency("20 millis")
      const { database } = yield* Effect.provide(
        check,
        ofTodos().pipe(Layer.provide(Postgres.layer({ url: Redacted.make(proxy.url) })))
      )
      expect(database.isReachable && database.latencyMillis).toBeGreaterThanOrEqual(35)
    }))
})

describe.each(Database.dialects)("a table on $dialect", ({ fresh }) => {
  it.scopedLive("that is missing is named, and is no complaint once it is there", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      yield* Effect.gen(function*() {
        yield* createTodos
        expect(yield* check).toMatchObject({
          isHealthy: false,
          tables: [
            { namespace: "todos", name: "todos", isPresent: true },
            { namespace: "todos", name: "done", isPresent: false }
          ],
          complaints: ["table done is missing"]
        })
        yield* inTodos((sql) => sql`CREATE VIEW done AS SELECT id FROM todos`)
        expect(yield* check).toMatchObject({ isHealthy: true, complaints: [] })
        yield* inTodos((sql) => sql`DROP VIEW done`)
        expect(yield* check).toMatchObject({ isHealthy: false })
      }).pipe(Effect.provide(
        alone({ tables: { todos: ["todos", "done"] } }).pipe(
          Layer.provideMerge(Store.layerMany(database))
        )
      ))
    }))

  it.scopedLive("answers healthCheck by its exact name", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      yield* Effect.gen(function*() {
        yield* createTodos
        yield* inTodos((sql) => sql`CREATE INDEX todos_id ON todos (id)`)
        const names = ["todos", "Todos", "todos ", "todos_id", "todos' OR '1'='1", "", "%"]
        expect(yield* Effect.filter(names, healthCheck)).toEqual(["todos"])
      }).pipe(Effect.provide(ofTodos().pipe(Layer.provideMerge(Store.layerMany(database)))))
    }))
})

describe("a subscription", () => {
  it.scoped("that has halted is reported with its reason", () =>
    Effect.gen(function*() {
      const halting = Ledger.undecided("p", (text) => text === "bad" ? Ledger.write("p", null) : Effect.void).pipe(
        Processor.withPolicy({ ...Policy.standard, SqlError: Policy.halt })
      )
      yield* Effect.gen(function*() {
        yield* isIn("halted")
        const { complaints } = yield* check
        expect(complaints).toHaveLength(1)
        expect(complaints[0]).toMatch(
          /^p on test has halted: PUT at index 1 of document d1 \(global, main\): SQLITE_CONSTRAINT_NOTNULL: NOT NULL constraint failed/
        )
      }).pipe(Effect.provide(beside(halting, Source.fromIterable("test", [Ledger.strand("d1", "a", "bad")]))))
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.scoped("whose source is away is reported while it waits to open again", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* feed.fail(new Source.SourceUnavailable({ source: "feed", reason: "the line is cut" }))
      yield* Effect.gen(function*() {
        yield* isIn("reopening")
        expect(yield* check).toMatchObject({
          isHealthy: false,
          complaints: ["p on feed failed and waits to open again: source feed is not available: the line is cut"]
        })
        yield* feed.fail(undefined)
        yield* TestClock.adjust("1 second")
        yield* isIn("idle")
        expect(yield* check).toMatchObject({ isHealthy: true, complaints: [] })
      }).pipe(Effect.provide(beside(Ledger.make("p"), feed.source)))
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.scoped("whose database cannot be written to waits for it, parks nothing and says so", () =>
    Effect.gen(function*() {
      const { filename } = yield* Database.sqlite
      const feed = yield* Feed.make("feed")
      yield* Effect.gen(function*() {
        yield* isIn("idle")
        const other = yield* Effect.acquireRelease(
          Effect.sync(() => new Sqlite3(filename)),
          (database) => Effect.sync(() => database.close())
        )
        other.exec("BEGIN IMMEDIATE")
        yield* feed.push(Ledger.strand("d1", "a"))
        yield* isIn("waiting")
        expect(yield* subscription).toMatchObject({
          phase: "waiting",
          position: 0n,
          behindPositions: 1n,
          parked: 0,
          complaints: [expect.stringMatching(/^p on feed waits for the database: .*SQLITE_BUSY: database is locked/)]
        })
        other.exec("ROLLBACK")
        yield* TestClock.adjust("1 second")
        yield* isIn("idle")
        expect(yield* subscription).toMatchObject({ position: 1n, complaints: [] })
      }).pipe(
        Effect.provide(beside(Ledger.make("p"), feed.source)),
        Effect.provide(Sqlite.layer({ filename, busyTimeoutMillis: 0 }))
      )
    }))

  it.scoped("that has been at one batch for too long is reported, with what waits behind it", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* feed.push(Ledger.strand("d1", "a"))
      // On SQLite the handler has the only connection, so that the check itself waits for its answer.
      const checkInTime = Effect.flatMap(
        Effect.fork(subscription),
        (fiber) => Effect.zipRight(TestClock.adjust("5 seconds"), Fiber.join(fiber))
      )
      yield* Effect.gen(function*() {
        yield* isIn("working")
        yield* feed.push(Ledger.strand("d2", "b"))
        yield* TestClock.adjust("1 minute")
        expect((yield* checkInTime).complaints).toEqual([
          "the database does not answer: no answer within 5s, while p holds it for a commit"
        ])
        expect(yield* checkInTime).toMatchObject({
          phase: "working",
          forMillis: 65_000,
          position: 0n,
          behindPositions: 2n,
          oldestWaitingMillis: 65_000,
          complaints: [
            "the database does not answer: no answer within 5s, while p holds it for a commit",
            "p on feed has been working on one commit for 65000 ms",
            "p on feed has had an operation waiting for 65000 ms"
          ]
        })
      }).pipe(Effect.provide(beside(Ledger.make("p", () => Effect.never), feed.source)))
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.scoped("that is idle while its source is ahead is reported", () =>
    Effect.gen(function*() {
      const silent: Context.Tag.Service<Source.Source> = {
        name: Source.name("silent"),
        strands: () => Stream.never,
        head: Effect.succeedSome(Position.make(7n))
      }
      yield* Effect.gen(function*() {
        yield* isIn("idle")
        yield* TestClock.adjust("1 minute")
        expect(yield* subscription).toMatchObject({ behindPositions: 7n, complaints: [] })
        yield* TestClock.adjust("1 second")
        expect((yield* subscription).complaints).toEqual(["p on silent is idle 7 positions behind its source"])
      }).pipe(Effect.provide(beside(Ledger.make("p"), silent)))
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.scoped("whose source does not tell its head in time is reported on all the same", () =>
    Effect.gen(function*() {
      const slow: Context.Tag.Service<Source.Source> = {
        name: Source.name("slow"),
        strands: () => Stream.never,
        head: Effect.never
      }
      // The layer itself checks once before it is ready.
      const reported = Effect.provide(subscription, beside(Ledger.make("p"), slow))
      const fiber = yield* Effect.fork(reported)
      for (let i = 0; i < 3; i++) yield* Effect.zipRight(Eventually.settled, TestClock.adjust("5 seconds"))
      expect(yield* Fiber.join(fiber)).toMatchObject({ behindPositions: undefined, complaints: [] })
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.scoped("whose source does not know its head, or cannot be asked, has no lag to report", () =>
    Effect.gen(function*() {
      const unsure = (name: string, head: Context.Tag.Service<Source.Source>["head"]) => ({
        name: Source.name(name),
        strands: () => Stream.never,
        head
      })
      const cut = new Source.SourceUnavailable({ source: "cut", reason: "the line is cut" })
      for (const source of [unsure("none", Effect.succeed(Option.none())), unsure("cut", Effect.fail(cut))]) {
        yield* Effect.gen(function*() {
          yield* isIn("idle")
          yield* TestClock.adjust("2 minutes")
          expect(yield* subscription).toMatchObject({ behindPositions: undefined, complaints: [] })
        }).pipe(Effect.provide(Layer.fresh(beside(Ledger.make("p"), source))))
      }
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.scoped("with dead letters is reported with their number, though it works", () =>
    Effect.gen(function*() {
      const source = Source.fromIterable("test", [
        Test.strand({
          documentId: "d1",
          documentType: Ledger.Model.type,
          operations: [{ type: "NEW" }, { type: "NEW" }]
        }),
        Ledger.strand("d2", "a")
      ])
      yield* Effect.gen(function*() {
        yield* isIn("ended")
        expect(yield* subscription).toMatchObject({
          parked: 2,
          position: 2n,
          behindPositions: 0n,
          isHealthy: true,
          complaints: [],
          notices: ["p on test has 2 dead letters"]
        })
        const key = { processor: Ledger.make("p").name, source: Source.name("test") }
        yield* Namespace.within("p", DeadLetters.drop(key, Ordinal.of(1, "d1")))
        expect(yield* subscription).toMatchObject({ parked: 1, notices: ["p on test has 1 dead letter"] })
      }).pipe(Effect.provide(beside(Ledger.make("p"), source)))
    }).pipe(Effect.provide(Sqlite.layerMemory)))

  it.scoped("whose loop is gone without a word is reported", () =>
    Effect.gen(function*() {
      const pulses = yield* Pulse.Pulses
      const key = { processor: Ledger.make("p").name, source: Source.name("test") }
      const pulse = new Pulse.Pulse(key, Effect.succeedNone, 0, Ledger.make("p").namespace)
      pulse.isGone = () => true
      yield* pulses.add(pulse)
      expect((yield* check).complaints).toEqual(["p on test has a dead loop"])
    }).pipe(Effect.provide(
      Health.layer().pipe(
        Layer.provideMerge(Pulse.layer),
        Layer.provide(Sqlite.layerMemory)
      )
    )))
})

describe("the report", () => {
  it.scoped("is there as soon as the layer is, and is made anew every 30 seconds", () =>
    Effect.gen(function*() {
      const at = Effect.map(latest, (report) => report.atMillis)
      expect(yield* at).toBe(0)
      yield* TestClock.adjust("29999 millis")
      yield* Eventually.settled
      expect(yield* at).toBe(0)
      yield* TestClock.adjust("1 millis")
      yield* Eventually.until("it is made anew", Effect.map(at, (millis) => millis === 30_000))
      yield* TestClock.adjust("30 seconds")
      yield* Eventually.until("it is made anew", Effect.map(at, (millis) => millis === 60_000))
    }).pipe(Effect.provide(alone().pipe(Layer.provide(Sqlite.layerMemory)))))

  it.scoped("is made as often as was asked for", () =>
    Effect.gen(function*() {
      yield* TestClock.adjust("1 second")
      yield* Eventually.until("it is made anew", Effect.map(latest, (report) => report.atMillis === 1_000))
    }).pipe(Effect.provide(alone({ every: "1 second" }).pipe(Layer.provide(Sqlite.layerMemory)))))

  it.scoped("can be followed: the last one, and every one from then on", () =>
    Effect.gen(function*() {
      const { report } = yield* Health.Health
      const seen: Array<boolean> = []
      const follower = yield* report.changes.pipe(
        Stream.tap(({ isHealthy }) => Effect.sync(() => seen.push(isHealthy))),
        Stream.take(3),
        Stream.runCollect,
        Effect.fork
      )
      yield* Eventually.until("the last one is seen", Effect.sync(() => seen.length === 1))
      yield* createTodos
      yield* TestClock.adjust("30 seconds")
      yield* Eventually.until("the next one is seen", Effect.sync(() => seen.length === 2))
      yield* inTodos((sql) => sql`DROP TABLE todos`)
      yield* check
      const all = Chunk.toReadonlyArray(yield* Fiber.join(follower))
      expect(all.map(({ isHealthy }) => isHealthy)).toEqual([false, true, false])
    }).pipe(Effect.provide(ofTodos().pipe(Layer.provideMerge(Sqlite.layerMemory)))))

  it.scoped("goes on being made after a database that was away", () =>
    Effect.gen(function*() {
      const database = yield* closable
      yield* Effect.gen(function*() {
        yield* createTodos
        yield* database.close
        for (const millis of [30_000, 60_000, 90_000]) {
          yield* TestClock.adjust("30 seconds")
          yield* Eventually.until("it is made", Effect.map(latest, (report) => report.atMillis === millis))
          expect((yield* latest).isHealthy).toBe(false)
        }
      }).pipe(Effect.provide(ofTodos()), Effect.provideService(Namespace.Namespaces, database.namespaces))
    }))
})

describe("the scope of health", () => {
  it.effect("ends its checks, and leaves no fiber", () =>
    Effect.gen(function*() {
      const supervisor = yield* Supervisor.track
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(alone().pipe(Layer.provide(Sqlite.layerMemory)), scope).pipe(
        Effect.supervised(supervisor)
      )
      const { report } = Context.get(context, Health.Health)
      expect(yield* supervisor.value).toHaveLength(1)
      yield* Scope.close(scope, Exit.void)
      expect(yield* supervisor.value).toEqual([])
      yield* TestClock.adjust("1 hour")
      yield* Eventually.settled
      expect((yield* report.get).atMillis).toBe(0)
    }))

  it.effect("closes while the database does not answer", () =>
    Effect.gen(function*() {
      const supervisor = yield* Supervisor.track
      const scope = yield* Scope.make()
      const namespaces = yield* Namespace.Namespaces
      const sql = yield* namespaces.open(Namespace.make("todos"))
      yield* Layer.buildWithScope(
        ofTodos().pipe(Layer.provide(Layer.succeed(Namespace.Namespaces, namespaces))),
        scope
      ).pipe(Effect.supervised(supervisor))
      // Holds the only connection, so that the check waits for it.
      yield* Effect.scoped(Effect.gen(function*() {
        yield* sql.reserve
        yield* TestClock.adjust("30 seconds")
        yield* Eventually.settled
        yield* Scope.close(scope, Exit.void)
      }))
      yield* Eventually.settled
      expect(yield* supervisor.value).toEqual([])
    }).pipe(Effect.provide(Sqlite.layerMemory)))
})
