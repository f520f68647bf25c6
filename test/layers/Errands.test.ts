/**
 * Errands on SQLite: a transaction on a thread has the outcome that it has here, or none at all.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import Sqlite3 from "better-sqlite3"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type * as Scope from "effect/Scope"
import { renameSync, writeFileSync } from "node:fs"
import * as Sqlite from "../../layers/Sqlite.js"
import * as Traits from "../../layers/sqlite/Traits.js"
import * as Fault from "../../src/process/Fault.js"
import { Errand } from "../../src/store/Errand.js"
import * as Flight from "../../src/store/Flight.js"
import * as Transaction from "../../src/store/Transaction.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"
import * as Threads from "../support/Threads.js"

const silent = Logger.remove(Logger.defaultLogger)

const kept = <A, E>(
  effect: (database: Database.SqliteDatabase) => Effect.Effect<A, E, SqlClient.SqlClient | Scope.Scope>
) => Effect.flatMap(Database.sqlite, (database) => Effect.provide(effect(database), withStore(database)))

const withStore = (database: Database.Database) => Layer.merge(Store.layer(database), silent)

const client = SqlClient.SqlClient
const table = Effect.flatMap(client, (sql) => sql`CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT UNIQUE)`)
const insert = (a: number) => Effect.flatMap(client, (sql) => sql`INSERT INTO t (a) VALUES (${a})`)
const all = Effect.flatMap(
  client,
  (sql) => Effect.map(sql<{ readonly a: number }>`SELECT a FROM t ORDER BY a`, (rows) => rows.map(({ a }) => a))
)

/** Runs a transaction on the thread, and says where it ran. */
const sent = <A, E, R>(body: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const errand = new Errand()
    return Effect.map(Effect.either(Transaction.run(body, errand)), (outcome) => ({ outcome, errand }))
  })

const isTaken = Effect.map(sent(all), ({ errand }) => errand.isTaken)

/** The connection of the transaction around. */
const connection = Effect.map(
  Effect.context<never>(),
  (context) => Context.unsafeGet(context, SqlClient.TransactionConnection)[0]
)

const codeOf = (outcome: Either.Either<unknown, unknown>): string | undefined =>
  Either.isLeft(outcome) ? Fault.codeOf(outcome.left) : undefined

describe("a transaction on a thread", () => {
  it.scopedLive("is in the database for whoever reads here", () =>
    kept(() =>
      Effect.gen(function*() {
        yield* table
        const { errand, outcome } = yield* sent(Effect.zipRight(insert(1), all))
        expect(errand.isTaken).toBe(true)
        expect(outcome).toEqual(Either.right([1]))
        expect(yield* all).toEqual([1])
        yield* insert(2)
        expect((yield* sent(all)).outcome).toEqual(Either.right([1, 2]))
      })
    ))

  it.scopedLive("reads and writes values as one here does", () =>
    kept(() =>
      Effect.gen(function*() {
        const sql = yield* client
        const pool = Buffer.allocUnsafe(64).subarray(7, 11)
        pool.set([1, 2, 3, 255])
        const values: ReadonlyArray<unknown> = [
          1,
          -0.5,
          2 ** 53,
          Number.MAX_SAFE_INTEGER,
          2n ** 62n,
          true,
          undefined,
          null,
          "",
          "ä\u{1f600}\0\ud800",
          new Date(0),
          pool,
          new Uint8Array(0),
          new Uint16Array([258, 1]),
          new DataView(new ArrayBuffer(4), 1, 2)
        ]
        yield* sql`CREATE TABLE v (n INTEGER PRIMARY KEY, x, y TEXT)`
        const work = Effect.gen(function*() {
          const direct = yield* connection
          yield* sql`DELETE FROM v`
          for (const [n, value] of values.entries()) {
            yield* direct.executeRaw("INSERT INTO v VALUES (?, ?, ?)", [n, value, value])
          }
          const text = "SELECT x, y, typeof(x) AS t, typeof(y) AS u FROM v ORDER BY n"
          const exact = Effect.provideService(SqlClient.SafeIntegers, true)
          return {
            rows: yield* direct.execute(text, [], undefined),
            values: yield* direct.executeValues(text, []),
            unprepared: yield* direct.executeUnprepared(text, [], undefined),
            raw: yield* direct.executeRaw("SELECT count(*) AS n FROM v", []),
            exact: yield* exact(direct.execute(text, [], undefined)),
            exactValues: yield* exact(direct.executeValues(text, [])),
            together: yield* Flight.send([sql.unsafe(text), sql.unsafe("SELECT x FROM v WHERE n > ?", [10])]),
            changed: yield* sql`UPDATE v SET x = 7 WHERE n < 3 RETURNING n, x`
          }
        })
        const here = yield* Transaction.run(work)
        const { errand, outcome } = yield* sent(work)
        expect(errand.isTaken).toBe(true)
        const there = Either.getOrThrow(outcome)
        // The driver says what it has changed; nobody is told of that on a thread.
        expect({ ...there, raw: 0 }).toStrictEqual({ ...here, raw: 0 })
        expect(here.rows.some((row) => Buffer.isBuffer((row as { readonly x: unknown }).x))).toBe(true)
      })
    ))

  it.scopedLive.each([
    {
      what: "a row that is there",
      text: "INSERT INTO t (a) VALUES (1)",
      params: [],
      code: "SQLITE_CONSTRAINT_PRIMARYKEY"
    },
    { what: "a text that is no statement", text: "SELEC 1", params: [], code: "SQLITE_ERROR" },
    { what: "a table that is not there", text: "SELECT * FROM nowhere", params: [], code: "SQLITE_ERROR" },
    { what: "a list", text: "SELECT ?", params: [[1]], code: "SQLITE_MISMATCH" },
    { what: "a time that is none", text: "SELECT ?", params: [new Date(Number.NaN)], code: "SQLITE_RANGE" },
    { what: "too few parameters", text: "SELECT ?, ?", params: [1], code: "SQLITE_RANGE" },
    { what: "a function", text: "SELECT ?", params: [() => 1], code: "SQLITE_MISMATCH" },
    { what: "a symbol", text: "SELECT ?", params: [Symbol("a")], code: "SQLITE_MISMATCH" }
  ])("fails as one here does: $what", ({ code, params, text }) =>
    kept(() =>
      Effect.gen(function*() {
        yield* table
        yield* insert(1)
        const work = Effect.flatMap(connection, (direct) => direct.execute(text, params, undefined))
        const here = yield* Effect.either(Transaction.run(work))
        const { outcome } = yield* sent(work)
        expect([codeOf(here), codeOf(outcome)]).toEqual([code, code])
        expect(Either.isLeft(outcome) && outcome.left).toBeInstanceOf(SqlError)
        expect((yield* sent(Effect.zipRight(insert(2), all))).outcome).toEqual(Either.right([1, 2]))
      })
    ))

  it.scopedLive("keeps nothing once a statement has failed, even if that is swallowed", () =>
    kept(() =>
      Effect.gen(function*() {
        yield* table
        yield* insert(1)
        const work = Effect.gen(function*() {
          yield* insert(2)
          yield* Effect.ignore(insert(1))
          yield* Effect.ignore(insert(3))
        })
        expect(codeOf((yield* sent(work)).outcome)).toBe("SQLITE_CONSTRAINT_PRIMARYKEY")
        expect(yield* all).toEqual([1])
        expect((yield* sent(insert(2))).outcome._tag).toBe("Right")
        expect(yield* all).toEqual([1, 2])
      })
    ))

  it.scopedLive("fails at its COMMIT for what nobody waited for", () =>
    kept(() =>
      Effect.gen(function*() {
        yield* table
        yield* insert(1)
        const work = Effect.flatMap(
          connection,
          (direct) => Effect.forEach([2, 1, 3], (a) => direct.executeRaw("INSERT INTO t (a) VALUES (?)", [a]))
        )
        const { outcome } = yield* sent(work)
        expect(codeOf(outcome)).toBe("SQLITE_CONSTRAINT_PRIMARYKEY")
        expect(yield* all).toEqual([1])
      })
    ))

  it.scopedLive("ends with a flight that holds its COMMIT, or keeps nothing of that", () =>
    kept(() =>
      Effect.gen(function*() {
        yield* table
        const flight = (...values: ReadonlyArray<number>) =>
          Effect.gen(function*() {
            const direct = yield* connection
            // What a lease refuses the body of a transaction, its owner may do.
            const own = (direct as unknown as { readonly connection: Flight.Carrier }).connection
            return yield* own.executeTogether([
              ...values.map((a) => ["INSERT INTO t (a) VALUES (?) RETURNING a", [a]] as const),
              ["COMMIT", []]
            ])
          })
        const made = yield* sent(flight(1, 2))
        expect(codeOf(made.outcome)).toBe("SQLITE_MISUSE")
        expect(yield* all).toEqual([1, 2])
        expect(codeOf((yield* sent(flight(3, 1))).outcome)).toBe("SQLITE_CONSTRAINT_PRIMARYKEY")
        expect(yield* all).toEqual([1, 2])
        expect((yield* sent(insert(3))).outcome._tag).toBe("Right")
      })
    ))

  it.scopedLive("waits for some of many writes", () =>
    kept(() =>
      Effect.gen(function*() {
        yield* table
        const threads = yield* Threads.watch()
        const work = Effect.flatMap(connection, (direct) =>
          Effect.forEach(
            Array.from({ length: 1_000 }, (_, a) => a),
            (a) => direct.executeRaw("INSERT INTO t (a) VALUES (?)", [a])
          ))
        yield* sent(work)
        expect((yield* all).length).toBe(1_000)
        expect(threads.requests[0]).toEqual(["BEGIN IMMEDIATE", "INSERT INTO t"])
        expect(threads.requests.length).toBe(1_001)
      })
    ))

  it.scopedLive("is rolled back by its own failure, and when it is interrupted", () =>
    kept(() =>
      Effect.gen(function*() {
        yield* table
        const { outcome } = yield* sent(Effect.zipRight(insert(1), Effect.fail("no")))
        expect(outcome).toEqual(Either.left("no"))
        const fiber = yield* Effect.fork(sent(Effect.zipRight(insert(2), Effect.never)))
        yield* Effect.sleep(50)
        yield* Fiber.interrupt(fiber)
        yield* insert(3)
        expect(yield* all).toEqual([3])
      })
    ))

  it.scopedLive("that is rolled back before its first statement leaves the thread as it was", () =>
    kept(() =>
      Effect.gen(function*() {
        yield* table
        const threads = yield* Threads.watch()
        expect((yield* sent(Effect.fail("no"))).outcome).toEqual(Either.left("no"))
        expect((yield* sent(Effect.void)).outcome).toEqual(Either.right(undefined))
        expect(threads.requests).toEqual([])
        expect((yield* sent(insert(1))).outcome._tag).toBe("Right")
      })
    ))

  it.scopedLive("has the lease of the file: what is asked for here meanwhile waits, and no lock is busy", () =>
    kept(() =>
      Effect.gen(function*() {
        yield* table
        const order: Array<string> = []
        const note = (what: string) => Effect.sync(() => void order.push(what))
        const there = sent(
          Effect.zipRight(insert(1), Effect.delay(Effect.zipRight(note("there"), insert(2)), "300 millis"))
        )
        const here = Effect.delay(Effect.zipRight(Transaction.run(insert(3)), note("here")), "50 millis")
        const alone = Effect.delay(Effect.zipRight(insert(4), note("alone")), "60 millis")
        const [{ errand, outcome }] = yield* Effect.all([there, here, alone], { concurrency: 3 })
        expect(errand.isTaken).toBe(true)
        expect(outcome._tag).toBe("Right")
        expect(order[0]).toBe("there")
        expect(order.length).toBe(3)
        expect(yield* all).toEqual([1, 2, 3, 4])
      })
    ))

  it.scopedLive("lets the event loop turn while it runs", () =>
    kept(() =>
      Effect.gen(function*() {
        const sql = yield* client
        let turns = 0
        const ticking = setInterval(() => turns++, 1)
        const slow = sql`WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2000000)
          SELECT max(n) AS n FROM c`
        yield* Transaction.run(slow)
        const here = turns
        const { outcome } = yield* sent(slow)
        clearInterval(ticking)
        expect(Either.getOrThrow(outcome)).toEqual([{ n: 2_000_000 }])
        expect(turns).toBeGreaterThan(here + 5)
      })
    ))

  it.scopedLive("that finds the file locked by another process is told so by SQLite", () =>
    kept((database) =>
      Effect.gen(function*() {
        yield* table
        const other = new Sqlite3(database.filename)
        other.exec("BEGIN IMMEDIATE")
        expect(codeOf((yield* sent(insert(1))).outcome)).toBe("SQLITE_BUSY")
        other.exec("ROLLBACK")
        other.close()
        expect((yield* sent(insert(1))).outcome._tag).toBe("Right")
      })
    ))
})

describe("a thread that ends by itself", () => {
  /** Before a request is sent; once it is on its way; once it has been carried out, and its answer is lost. */
  const moments = ["before", "sent", "after"] as const

  it.scopedLive.each(moments.flatMap((moment) => [1, 2, 3].map((at) => ({ moment, at }))))(
    "has its transaction fail, $moment request $at, and leaves the file free",
    ({ at, moment }) =>
      kept(() =>
        Effect.gen(function*() {
          yield* table
          const threads = yield* Threads.watch((n, send, worker) => {
            if (n !== at || moment !== "before") send()
            if (n === at && moment === "after") worker.removeAllListeners("message")
            if (n === at && moment === "after") Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100)
            if (n === at) void worker.terminate()
          })
          const { errand, outcome } = yield* sent(Effect.zipRight(insert(1), insert(2)))
          const rows = yield* all
          expect(errand.isTaken).toBe(true)
          expect(Either.isLeft(outcome)).toBe(true)
          if (Either.isRight(outcome)) return
          if (at < 3) {
            expect(Fault.classify(outcome.left)).toBe("infrastructure")
            expect(rows).toEqual([])
          } else {
            // Its COMMIT was sent, or was meant to be.
            expect(outcome.left).toBeInstanceOf(Transaction.CommitUnknown)
            if (moment === "before") expect(rows).toEqual([])
            if (moment === "after") expect(rows).toEqual([1, 2])
          }
          yield* Transaction.run(insert(9))
          expect((yield* sent(insert(10))).errand.isTaken).toBe(true)
          expect(threads.workers.size).toBe(2)
          expect(Threads.alive(threads)).toBe(1)
        })
      )
  )

  it.scopedLive("again and again is not started any more", () =>
    kept(() =>
      Effect.gen(function*() {
        yield* table
        const threads = yield* Threads.watch((_, send, worker) => {
          send()
          void worker.terminate()
        })
        const taken: Array<boolean> = []
        for (let i = 0; i < 5; i++) taken.push((yield* sent(insert(i))).errand.isTaken)
        expect(taken).toEqual([true, true, true, false, false])
        expect(yield* all).toEqual(expect.arrayContaining([3, 4]))
        expect(threads.workers.size).toBe(3)
      })
    ))
})

describe("the thread of a file", () => {
  it.scopedLive("begins with the first errand and has ended when the store is closed", () =>
    Effect.gen(function*() {
      const database = yield* Database.sqlite
      const threads = yield* Threads.watch()
      yield* Effect.gen(function*() {
        yield* table
        yield* Transaction.run(insert(1))
        expect(threads.workers.size).toBe(0)
        yield* sent(insert(2))
        yield* sent(insert(3))
        expect([threads.workers.size, Threads.alive(threads)]).toEqual([1, 1])
      }).pipe(Effect.provide(withStore(database)))
      expect(Threads.alive(threads)).toBe(0)
      const other = new Sqlite3(database.filename, { readonly: true })
      expect(other.prepare("SELECT count(*) AS n FROM t").get()).toEqual({ n: 3 })
      other.close()
    }))

  it.scopedLive("ends as well when the store is closed in the middle of a transaction", () =>
    Effect.gen(function*() {
      const database = yield* Database.sqlite
      const threads = yield* Threads.watch()
      yield* Effect.gen(function*() {
        yield* table
        yield* Effect.fork(sent(Effect.zipRight(insert(1), Effect.never)))
        yield* Effect.sleep(100)
        expect(Threads.alive(threads)).toBe(1)
      }).pipe(Effect.provide(withStore(database)))
      expect(Threads.alive(threads)).toBe(0)
      expect(yield* Effect.provide(all, withStore(database))).toEqual([])
    }))

  it.scopedLive("is not there for a database in memory", () =>
    Effect.gen(function*() {
      yield* table
      expect(yield* isTaken).toBe(false)
    }).pipe(Effect.provide(Sqlite.layer({ filename: ":memory:" }))))

  it.scopedLive("is not there once another file lies in the place of the one that is open", () =>
    kept((database) =>
      Effect.gen(function*() {
        yield* table
        expect(yield* isTaken).toBe(true)
        renameSync(database.filename, `${database.filename}.old`)
        expect(yield* isTaken).toBe(false)
        writeFileSync(database.filename, "")
        expect(yield* isTaken).toBe(false)
      })
    ))

  it.scopedLive.each([
    "PRAGMA foreign_keys = OFF",
    "/* no */ -- \n pragma recursive_triggers(1)",
    "CREATE TEMP TABLE t (a)",
    "create temporary view u as select 1",
    "CREATE TABLE temp.t (a)",
    "CREATE TRIGGER \"temp\".x AFTER INSERT ON t BEGIN SELECT 1; END",
    "ATTACH ':memory:' AS other"
  ])("is not used once the connection here is no more like a new one: %s", (text) =>
    kept(() =>
      Effect.gen(function*() {
        const sql = yield* client
        yield* table
        expect(yield* isTaken).toBe(true)
        yield* sql.unsafe(text)
        expect(yield* isTaken).toBe(false)
      })
    ))

  it.scopedLive("is not used while a backup runs, which would begin anew with each of its commits", () =>
    kept((database) =>
      Effect.gen(function*() {
        const sql = (yield* client) as unknown as {
          readonly backup: (path: string) => Effect.Effect<unknown, SqlError>
        }
        yield* table
        const backup = yield* Effect.fork(sql.backup(`${database.filename}.copy`))
        yield* Effect.yieldNow()
        expect(yield* isTaken).toBe(false)
        yield* Fiber.join(backup)
        expect(yield* isTaken).toBe(true)
      })
    ))

  it.scopedLive("is not used once an extension was to be loaded", () =>
    kept(() =>
      Effect.gen(function*() {
        const sql = (yield* client) as unknown as {
          readonly loadExtension: (path: string) => Effect.Effect<void, SqlError>
        }
        yield* table
        expect(Exit.isFailure(yield* Effect.exit(sql.loadExtension("nowhere")))).toBe(true)
        expect(yield* isTaken).toBe(false)
      })
    ))

  it.each([
    "SELECT 'PRAGMA foreign_keys = OFF'",
    "PRAGMA defer_foreign_keys = ON",
    "PRAGMA query_only = ON",
    "PRAGMA table_info(t)",
    "CREATE TABLE temperature (temp_max REAL)",
    "INSERT INTO temp (a) VALUES (1)"
  ])("is used on after %s", (text) => {
    const traits = Traits.make()
    Traits.notice(traits, text)
    expect(traits.isPlain).toBe(true)
  })
})
