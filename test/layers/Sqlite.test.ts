/**
 * The SQLite store: a file that cannot be opened says so, and one that is open is set as stated.
 */
import { SqliteClient } from "@effect/sql-sqlite-node/SqliteClient"
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import Sqlite3 from "better-sqlite3"
import * as Cause from "effect/Cause"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as EvenRows from "../../layers/EvenRows.js"
import * as Sqlite from "../../layers/Sqlite.js"
import type { StoreUnavailable } from "../../src/store/StoreUnavailable.js"
import * as Database from "../support/Database.js"

/** Fails the test unless the layer cannot be built; gives what it says. */
const refusal = (options: Sqlite.Options) =>
  Layer.build(Sqlite.layer(options)).pipe(
    Effect.scoped,
    Effect.flip,
    Effect.flatMap((error) => error._tag === "StoreUnavailable" ? Effect.succeed(error) : Effect.die(error))
  )

const expectRefusal = (error: StoreUnavailable, filename: string, reason: RegExp) => {
  expect(error.store).toBe("sqlite")
  expect(error.target).toBe(filename)
  expect(error.reason).toMatch(reason)
  expect(error.message).toContain(filename)
  expect(error.message).toContain(error.hint)
}

/** Runs as a user with no rights of its own: root may write everywhere. */
const unprivileged = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  process.getuid?.() !== 0 ? effect : Effect.acquireUseRelease(
    Effect.sync(() => process.seteuid?.(65_534)),
    () => effect,
    () => Effect.sync(() => process.seteuid?.(0))
  )

const pragma = (name: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.map(sql.unsafe(`PRAGMA ${name}`).values, (rows) => rows[0]?.[0]))

const memory = Effect.provide(Sqlite.layerMemory)

const defectOf = <A, E>(exit: Exit.Exit<A, E>): unknown =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.dieOption(exit.cause)) : undefined

describe("a file that cannot be opened", () => {
  it.scoped("whose directory is missing is a StoreUnavailable", () =>
    Effect.gen(function*() {
      const { filename } = yield* Database.sqlite
      const missing = Path.join(Path.dirname(filename), "none", "test.db")
      const error = yield* refusal({ filename: missing })
      expectRefusal(error, missing, /directory does not exist/)
      expect(error.transient).toBe(false)
    }))

  it.scoped("because it is a directory is a StoreUnavailable", () =>
    Effect.gen(function*() {
      const directory = Path.dirname((yield* Database.sqlite).filename)
      expectRefusal(yield* refusal({ filename: directory }), directory, /it is a directory/)
    }))

  it.scoped("because it is not a database is a StoreUnavailable and stays as it was", () =>
    Effect.gen(function*() {
      const { filename } = yield* Database.sqlite
      const text = "not a database ".repeat(1000)
      Fs.writeFileSync(filename, text)
      expectRefusal(yield* refusal({ filename }), filename, /not an SQLite database/)
      expect(Fs.readFileSync(filename, "utf8")).toBe(text)
    }))

  it.scoped("because it is missing and only to be read is a StoreUnavailable and is not created", () =>
    Effect.gen(function*() {
      const { filename } = yield* Database.sqlite
      expectRefusal(yield* refusal({ filename, readonly: true }), filename, /no such file/)
      expect(Fs.existsSync(filename)).toBe(false)
    }))

  it.scoped("because it is locked while the log is switched to WAL is a transient StoreUnavailable", () =>
    Effect.gen(function*() {
      const { filename } = yield* Database.sqlite
      const other = yield* Effect.acquireRelease(
        Effect.sync(() => new Sqlite3(filename)),
        (db) => Effect.sync(() => db.close())
      )
      other.exec("CREATE TABLE t (a); BEGIN EXCLUSIVE")
      const error = yield* refusal({ filename, busyTimeoutMillis: 10 })
      expectRefusal(error, filename, /locked/)
      expect(error.transient).toBe(true)
    }))

  for (
    const [title, protect] of [
      ["a new file in a directory without rights", () => undefined],
      ["a file without rights", (filename: string) => Fs.chmodSync(filename, 0o444)],
      ["a file with rights, in a directory without", (filename: string) => Fs.chmodSync(filename, 0o666)]
    ] as const
  ) {
    it.scoped(`because it cannot be written is a StoreUnavailable at once: ${title}`, () =>
      Effect.gen(function*() {
        const { filename } = yield* Database.sqlite
        if (!title.startsWith("a new")) {
          yield* Effect.scoped(Layer.build(Sqlite.layer({ filename })))
          protect(filename)
        }
        yield* Effect.acquireRelease(
          Effect.sync(() => Fs.chmodSync(Path.dirname(filename), 0o555)),
          () => Effect.sync(() => Fs.chmodSync(Path.dirname(filename), 0o700))
        )
        expectRefusal(yield* unprivileged(refusal({ filename })), filename, /may not write/)
      }))
  }

  for (
    const [title, options] of [
      ["an empty filename, which SQLite takes for a database to throw away", { filename: " " }],
      ["a wait for locks that would stop the event loop", { filename: ":memory:", busyTimeoutMillis: 5001 }],
      ["a cache of no size", { filename: ":memory:", cacheKibibytes: 0 }]
    ] as const
  ) {
    it.scoped(`is never tried with ${title}`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(Layer.build(Sqlite.layer(options)))
        expect(error._tag).toBe("ConfigError")
      }))
  }
})

describe("an open file", () => {
  for (const [synchronous, level] of [["full", 2], ["normal", 1]] as const) {
    it.scoped(`is set as stated on the first and on every later open, with synchronous ${synchronous}`, () =>
      Effect.gen(function*() {
        const { filename } = yield* Database.sqlite
        for (let time = 0; time < 3; time++) {
          yield* Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            yield* sql`CREATE TABLE IF NOT EXISTS t (a)`
            expect(yield* pragma("journal_mode")).toBe("wal")
            expect(yield* pragma("synchronous")).toBe(level)
            expect(yield* pragma("foreign_keys")).toBe(1)
            expect(yield* pragma("busy_timeout")).toBe(Sqlite.defaults.busyTimeoutMillis)
            expect(yield* pragma("cache_size")).toBe(-Sqlite.defaults.cacheKibibytes)
          }).pipe(Effect.provide(Sqlite.layer({ filename, synchronous })))
        }
      }))
  }

  it.scoped("is closed with its scope: nothing of its log is left", () =>
    Effect.gen(function*() {
      const { filename } = yield* Database.sqlite
      yield* Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE t (a)`).pipe(
        Effect.provide(Sqlite.layer({ filename }))
      )
      expect(Fs.readdirSync(Path.dirname(filename))).toEqual([Path.basename(filename)])
    }))

  it.scoped("opens while another process writes to it, and says SQLITE_BUSY when it may not write itself", () =>
    Effect.gen(function*() {
      const { filename } = yield* Database.sqlite
      yield* Effect.scoped(Layer.build(Sqlite.layer({ filename })))
      const other = yield* Effect.acquireRelease(
        Effect.sync(() => new Sqlite3(filename)),
        (db) => Effect.sync(() => db.close())
      )
      other.exec("CREATE TABLE t (a); BEGIN IMMEDIATE")
      const error = yield* Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO t VALUES (1)`).pipe(
        Effect.provide(Sqlite.layer({ filename, busyTimeoutMillis: 1 })),
        Effect.flip
      )
      expect(error).toMatchObject({ _tag: "SqlError", cause: { code: "SQLITE_BUSY" } })
    }))

  it.scoped("that is only to be read refuses to be written", () =>
    Effect.gen(function*() {
      const { filename } = yield* Database.sqlite
      yield* Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE t (a)`).pipe(
        Effect.provide(Sqlite.layer({ filename }))
      )
      const error = yield* Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        expect(yield* sql`SELECT * FROM t`).toEqual([])
        return yield* Effect.flip(sql`INSERT INTO t VALUES (1)`)
      }).pipe(Effect.provide(Sqlite.layer({ filename, readonly: true })))
      expect(error).toMatchObject({ cause: { code: "SQLITE_READONLY" } })
    }))

  it.scoped("takes its options from the ConfigProvider", () =>
    Effect.gen(function*() {
      const { filename } = yield* Database.sqlite
      const provider = ConfigProvider.fromMap(
        new Map([["SQLITE_FILENAME", filename], ["SQLITE_SYNCHRONOUS", "normal"]])
      )
      const level = yield* pragma("synchronous").pipe(
        Effect.provide(Sqlite.layerConfig()),
        Effect.withConfigProvider(provider)
      )
      expect(level).toBe(1)
      expect(Fs.existsSync(filename)).toBe(true)
    }))
})

describe("a statement", () => {
  it.effect("with rows that lack a column is refused, with the column's name", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE t (a, b)`
      for (const [rows, column] of [[[{ a: 1 }, { a: 2, b: 3 }], "b"], [[{ a: 1, b: 2 }, { a: 3 }], "b"]] as const) {
        for (const client of [sql, sql.withoutTransforms(), sql.safe]) {
          const defect = defectOf(yield* Effect.exit(client`INSERT INTO t ${client.insert(rows)}`))
          expect(defect).toBeInstanceOf(EvenRows.UnevenRows)
          expect(defect).toMatchObject({ column, message: expect.stringContaining(`"${column}"`) })
        }
      }
      expect(defectOf(yield* Effect.exit(sql`INSERT INTO t ${sql.insert([])}`))).toBeInstanceOf(EvenRows.UnevenRows)
      expect(yield* sql`SELECT * FROM t`).toEqual([])
    }).pipe(memory))

  it.effect("with even rows is as it was, in whatever order their columns stand", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE t (a, b)`
      const rows = yield* sql`INSERT INTO t ${sql.insert([{ a: 1, b: "x" }, { b: undefined, a: 2 }]).returning("*")}`
      expect(rows).toEqual([{ a: 1, b: "x" }, { a: 2, b: null }])
      expect(sql.onDialectOrElse({ sqlite: () => "sqlite", orElse: () => "other" })).toBe("sqlite")
    }).pipe(memory))

  it.effect("rounds no integer, and is not changed by an earlier one with SafeIntegers", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const read = sql`SELECT 7 AS small, 9007199254740993 AS large, 1.5 AS real`
      const safe = Effect.provideService(read, SqlClient.SafeIntegers, true)
      expect(yield* safe).toEqual([{ small: 7n, large: 9_007_199_254_740_993n, real: 1.5 }])
      expect(yield* read).toEqual([{ small: 7, large: 9_007_199_254_740_993n, real: 1.5 }])
      expect(yield* read.values).toEqual([[7, 9_007_199_254_740_993n, 1.5]])
      expect(yield* read.unprepared).toEqual(yield* read)
    }).pipe(memory))

  it.effect("stores a whole number as an integer, a boolean as 0 or 1, a date as text, undefined as NULL", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE t (n TEXT, b, d, u)`
      yield* sql`INSERT INTO t VALUES (${1}, ${true}, ${new Date(0)}, ${undefined})`
      expect(yield* sql`SELECT * FROM t`).toEqual([{ n: "1", b: 1, d: "1970-01-01T00:00:00.000Z", u: null }])
    }).pipe(memory))

  it.effect("fails, with a code, on a parameter that SQLite cannot store and on text it cannot prepare", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const list: unknown = ["a"]
      for (const [value, code] of [[list, "SQLITE_MISMATCH"], [2n ** 70n, "SQLITE_RANGE"]] as const) {
        const error = yield* Effect.flip(sql`SELECT ${value}`)
        expect(error).toMatchObject({ _tag: "SqlError", cause: { code } })
      }
      expect(yield* Effect.flip(sql`SELEC`.unprepared)).toMatchObject({ cause: { code: "SQLITE_ERROR" } })
      expect(yield* Effect.flip(sql`SELEC`.values)).toMatchObject({ cause: { code: "SQLITE_ERROR" } })
    }).pipe(memory))

  it.effect("streams, and its consumer may use the connection", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE t (a)`
      const numbers = sql<
        { readonly n: number }
      >`WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 9) SELECT n FROM c`
      yield* Stream.runForEach(numbers.stream, ({ n }) => sql`INSERT INTO t VALUES (${n})`)
      expect(yield* sql`SELECT count(*) AS n FROM t`).toEqual([{ n: 9 }])
    }).pipe(memory))

  it.effect("sees a column that was added after it was prepared", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE t (a)`
      yield* sql`INSERT INTO t VALUES (1)`
      expect(yield* sql`SELECT * FROM t`).toEqual([{ a: 1 }])
      yield* sql`ALTER TABLE t ADD COLUMN b DEFAULT 2`
      expect(yield* sql`SELECT * FROM t`).toEqual([{ a: 1, b: 2 }])
    }).pipe(memory))
})

describe("the connection", () => {
  it.effect("left inside a transaction is rolled back before anyone else has it", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE t (a)`
      yield* Effect.scoped(Effect.flatMap(sql.reserve, (connection) =>
        Effect.zipRight(
          connection.executeRaw("BEGIN IMMEDIATE", []),
          connection.executeRaw("INSERT INTO t VALUES (1)", [])
        )))
      yield* sql`BEGIN`
      yield* sql`BEGIN`
      expect(yield* sql`SELECT * FROM t`).toEqual([])
    }).pipe(memory))

  it.live("is leased to one at a time, and a waiting fiber that is interrupted does not keep it", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE t (a)`
      const holder = yield* Effect.fork(Effect.scoped(Effect.zipRight(sql.reserve, Effect.never)))
      yield* Effect.sleep(10)
      const outsider = yield* Effect.fork(sql`INSERT INTO t VALUES (1)`)
      const waiting = yield* Effect.fork(Effect.scoped(Effect.zipRight(sql.reserve, Effect.never)))
      yield* Effect.sleep(10)
      expect(Option.isNone(yield* Fiber.poll(outsider))).toBe(true)
      yield* Fiber.interrupt(waiting)
      yield* Fiber.interrupt(holder)
      yield* Fiber.join(outsider)
      expect(yield* sql`SELECT * FROM t`).toEqual([{ a: 1 }])
    }).pipe(memory))

  it.effect("can be copied as a whole through SqliteClient", () =>
    Effect.gen(function*() {
      const sqlite = yield* SqliteClient
      yield* sqlite`CREATE TABLE t (a)`
      const copy = new Sqlite3(Buffer.from(yield* sqlite.export))
      expect(copy.prepare("SELECT name FROM sqlite_schema").all()).toEqual([{ name: "t" }])
      copy.close()
    }).pipe(memory))
})
