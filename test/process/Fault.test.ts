/**
 * The fault: what a failure means, told by the database's own code, provoked on the real databases wherever that can be done.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import Sqlite3 from "better-sqlite3"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import * as Fault from "../../src/process/Fault.js"
import * as Transaction from "../../src/store/Transaction.js"
import * as Database from "../support/Database.js"

const withCode = (code: string, message = "") => new SqlError({ cause: Object.assign(new Error(message), { code }) })

describe("by its code", () => {
  const classes: { readonly [fault in Fault.Fault]?: string } = {
    infrastructure: `
      ECONNREFUSED ECONNRESET EPIPE ETIMEDOUT ENOTFOUND EAI_AGAIN EHOSTUNREACH ENOENT EMFILE
      08000 08003 08006 57P01 57P02 57P03 57P05 57014 55P03 53100 53200 53300 25006 25P03 25P04 3D000 28P01 28000 58030
      SQLITE_BUSY SQLITE_BUSY_RECOVERY SQLITE_LOCKED SQLITE_FULL SQLITE_IOERR_WRITE SQLITE_CANTOPEN SQLITE_READONLY
      SQLITE_NOMEM SQLITE_PROTOCOL SQLITE_INTERRUPT`,
    conflict: "40001 40P01 SQLITE_BUSY_SNAPSHOT",
    poison: `
      22001 22003 22P02 22P05 23502 23503 23505 23514 54000 P0001
      SQLITE_CONSTRAINT_UNIQUE SQLITE_CONSTRAINT_CHECK SQLITE_TOOBIG SQLITE_MISMATCH SQLITE_RANGE`,
    drift: "42P01 42703 42601 42501 25P02 0A000 XX000 SQLITE_CORRUPT SQLITE_NOTADB SQLITE_AUTH"
  }
  const cases = Object.entries(classes).flatMap(([fault, codes]) =>
    codes.trim().split(/\s+/).map((code) => [code, fault] as const)
  )

  it.each(cases)("%s is %s", (code, fault) => {
    expect(Fault.classify(withCode(code))).toBe(fault)
  })

  it("a failure of the handler's own is poison, whatever it is", () => {
    FastCheck.assert(FastCheck.property(FastCheck.anything(), (failure) => {
      expect(Fault.classify(failure)).toBe("poison")
      expect(typeof Fault.describe(failure)).toBe("string")
    }))
  })

  it("a failed COMMIT is unknown unless the database itself has said no", () => {
    const unknown = [
      "ECONNRESET",
      "EPIPE",
      "ETIMEDOUT",
      "08006",
      "57P01",
      "57P02",
      "57P03",
      "58030",
      "SQLITE_IOERR_FSYNC"
    ]
    for (const code of unknown) expect([code, Fault.leavesCommitUnknown(withCode(code))]).toEqual([code, true])
    const known = ["23503", "40001", "57014", "53100", "SQLITE_FULL", "SQLITE_BUSY", "SQLITE_CONSTRAINT_FOREIGNKEY"]
    for (const code of known) expect([code, Fault.leavesCommitUnknown(withCode(code))]).toEqual([code, false])
    expect(Fault.leavesCommitUnknown(new SqlError({ cause: new Error("Connection terminated unexpectedly") }))).toBe(
      true
    )
    expect(Fault.leavesCommitUnknown(new Error("anything"))).toBe(true)
  })

  it("the code is found behind wrappers and in lists, to a bounded depth", () => {
    const inner = withCode("23505").cause
    expect(Fault.codeOf(new SqlError({ cause: new Error("outer", { cause: inner }) }))).toBe("23505")
    expect(Fault.codeOf(new SqlError({ cause: new AggregateError([inner], "all failed") }))).toBe("23505")
    const loop: { cause?: unknown } = {}
    loop.cause = loop
    expect(Fault.codeOf(new SqlError({ cause: loop }))).toBeUndefined()
    expect(Fault.classify(new SqlError({ cause: loop }))).toBe("infrastructure")
  })

  it("a description has no row contents in it", () => {
    const cause = Object.assign(new Error("duplicate key"), {
      code: "23505",
      detail: "Key (email)=(alice@x)",
      where: "row"
    })
    expect(Fault.describe(new SqlError({ cause }))).toBe("23505: duplicate key")
  })
})

/** Statements that fail, and what each means. */
const sqlitePoison = [
  "INSERT INTO t VALUES (1, 1)",
  "INSERT INTO t VALUES (NULL, NULL)",
  "INSERT INTO t VALUES (5, -1)"
]
  .concat(["INSERT INTO t VALUES ('text', 1)", "SELECT json_extract('{', '$')", "SELECT abs(-9223372036854775808)"])
  .concat(["INSERT INTO u VALUES (9)", "INSERT INTO guarded VALUES (1)"])
const sqliteDrift = ["SELECT * FROM gone", "SELECT gone FROM t", "INSERT INTO t VALUES (1)", "SELEC 1", "SELECT gone()"]
  .concat(["CREATE TABLE t (a)", "ROLLBACK TO gone", "COMMIT"])
const pgPoison = ["INSERT INTO t VALUES (1, 1)", "INSERT INTO t VALUES (NULL, NULL)", "INSERT INTO t VALUES (5, -1)"]
  .concat(["INSERT INTO u VALUES (9)", "SELECT 1 / 0", "SELECT 'x'::int", "SELECT 3000000000::int", "SELECT '{'::json"])
  .concat(["SELECT chr(0)", "INSERT INTO v VALUES ('too long')", "DO $$ BEGIN RAISE EXCEPTION 'no'; END $$"])
const pgDrift = ["SELECT * FROM gone", "SELECT gone FROM t", "SELEC 1", "SELECT gone()", "CREATE TABLE t (a int)"]
  .concat(["INSERT INTO t VALUES (1, 1, 1)", "SELECT 1 + 'x'::text", "ROLLBACK TO gone"])

const tables = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.all([
    sql`CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL CHECK (n > 0))`,
    sql`CREATE TABLE u (t INTEGER REFERENCES t (id))`,
    sql`INSERT INTO t VALUES (1, 1)`
  ]))

const faultOf = (statement: string) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) =>
      Effect.map(Effect.either(sql.unsafe(statement)), (answer) =>
        answer._tag === "Left" ? Fault.classify(answer.left) : "no failure")
  )

describe("on 'sqlite', for real", () => {
  const store = (filename: string) => Layer.orDie(Sqlite.layer({ filename, busyTimeoutMillis: 10 }))
  const onFile = <A, E>(use: (filename: string) => Effect.Effect<A, E, SqlClient.SqlClient>) =>
    Effect.flatMap(
      Database.sqlite,
      ({ filename }) => Effect.zipRight(tables, use(filename)).pipe(Effect.provide(store(filename)))
    )
  const another = (filename: string) =>
    Effect.acquireRelease(
      Effect.sync(() => new Sqlite3(filename, { timeout: 0 })),
      (db) => Effect.sync(() => db.close())
    )

  it.scopedLive("what the data is refused for is poison, what the schema is refused for is drift", () =>
    onFile(() =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE guarded (a)`
        yield* sql`CREATE TRIGGER guard BEFORE INSERT ON guarded BEGIN SELECT RAISE(ABORT, 'no'); END`
        for (const text of sqlitePoison) expect([text, yield* faultOf(text)]).toEqual([text, "poison"])
        for (const text of sqliteDrift) expect([text, yield* faultOf(text)]).toEqual([text, "drift"])
        const list = yield* Effect.flip(sql`INSERT INTO t VALUES (${[1, 2] as never}, 1)`)
        expect(Fault.classify(list)).toBe("poison")
      })
    ))

  it.scopedLive("a lock of another process is infrastructure, and a snapshot that another has passed is a conflict", () =>
    onFile((filename) =>
      Effect.scoped(Effect.gen(function*() {
        const other = yield* another(filename)
        const sql = yield* SqlClient.SqlClient
        other.exec("BEGIN IMMEDIATE")
        expect(Fault.classify(yield* Effect.flip(sql`INSERT INTO t VALUES (2, 1)`))).toBe("infrastructure")
        other.exec("ROLLBACK")
        // A deferred transaction, as somebody else's library might begin one.
        const stale = yield* Effect.flip(Effect.scoped(Effect.gen(function*() {
          const connection = yield* sql.reserve
          yield* connection.executeRaw("BEGIN DEFERRED", [])
          yield* connection.executeRaw("SELECT * FROM t", [])
          other.exec("INSERT INTO t VALUES (3, 1)")
          yield* connection.executeRaw("INSERT INTO t VALUES (4, 1)", [])
        })))
        expect([Fault.codeOf(stale), Fault.classify(stale)]).toEqual(["SQLITE_BUSY_SNAPSHOT", "conflict"])
      }))
    ))

  it.scopedLive("a full database is infrastructure", () =>
    onFile(() =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const [{ page_count }] = (yield* sql`PRAGMA page_count`) as unknown as readonly [
          { readonly page_count: number }
        ]
        yield* sql.unsafe(`PRAGMA max_page_count = ${page_count}`)
        const failure = yield* Effect.flip(sql`CREATE TABLE more (a)`)
        expect([Fault.codeOf(failure), Fault.classify(failure)]).toEqual(["SQLITE_FULL", "infrastructure"])
      })
    ))
})

describe("on 'pg', for real", () => {
  const store = (url: string) =>
    Layer.orDie(Postgres.layer({
      url: Redacted.make(url),
      statementTimeout: "300 millis",
      lockTimeout: "100 millis",
      idleInTransactionTimeout: "300 millis"
    }))
  const onDatabase = <A, E>(use: Effect.Effect<A, E, SqlClient.SqlClient>) =>
    Effect.flatMap(Database.postgres, ({ url }) => Effect.zipRight(tables, use).pipe(Effect.provide(store(url))))

  it.scopedLive("what the data is refused for is poison, what the schema is refused for is drift", () =>
    onDatabase(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE v (a VARCHAR(3))`
      for (const text of pgPoison) expect([text, yield* faultOf(text)]).toEqual([text, "poison"])
      for (const text of pgDrift) expect([text, yield* faultOf(text)]).toEqual([text, "drift"])
      const nul = yield* Effect.flip(sql`SELECT CAST(${"a\u0000b"} AS text)`)
      expect(Fault.classify(nul)).toBe("poison")
      const loop: { self?: unknown } = {}
      loop.self = loop
      expect(Fault.classify(yield* Effect.flip(sql`SELECT CAST(${loop as never} AS json)`))).toBe("poison")
    })))

  it.scopedLive(
    "timeouts, locks, cancellations and terminations are infrastructure",
    () =>
      onDatabase(Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        expect(yield* faultOf("SELECT pg_sleep(10)")).toBe("infrastructure")
        expect(yield* faultOf("SELECT pg_terminate_backend(pg_backend_pid())")).toBe("infrastructure")
        expect(yield* faultOf("SELECT pg_cancel_backend(pg_backend_pid())")).toBe("infrastructure")
        const locked = yield* Effect.flip(Transaction.run(Effect.zipRight(
          sql`LOCK TABLE t`,
          Effect.provideServiceEffect(
            Effect.flatMap(Effect.scoped(sql.reserve), (other) => other.executeRaw("SELECT * FROM t", [])),
            SqlClient.SafeIntegers,
            Effect.succeed(false)
          )
        )))
        expect(Fault.classify(locked)).toBe("infrastructure")
        const idle = yield* Effect.flip(Transaction.run(Effect.zipRight(
          sql`SELECT 1`,
          Effect.zipRight(Effect.sleep("700 millis"), sql`SELECT 1`)
        )))
        expect(Fault.classify(idle)).toBe("infrastructure")
        const readonly = yield* Effect.flip(Transaction.run(Effect.zipRight(
          sql`SET TRANSACTION READ ONLY`,
          sql`DELETE FROM u`
        )))
        expect([Fault.codeOf(readonly), Fault.classify(readonly)]).toEqual(["25006", "infrastructure"])
      }))
  )

  it.scopedLive("serialisation failures and deadlocks are conflicts", () =>
    onDatabase(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const writeSkew = (id: number) =>
        Transaction.run(Effect.gen(function*() {
          yield* sql`SET TRANSACTION ISOLATION LEVEL SERIALIZABLE`
          yield* sql`SELECT sum(n) FROM t`
          yield* Effect.sleep("50 millis")
          yield* sql`INSERT INTO t VALUES (${id}, 1)`
          yield* Effect.sleep("50 millis")
        }))
      const exits = yield* Effect.all([Effect.either(writeSkew(10)), Effect.either(writeSkew(11))], { concurrency: 2 })
      const failures = exits.flatMap((exit) => exit._tag === "Left" ? [exit.left] : [])
      expect(failures.map((failure) => [Fault.codeOf(failure), Fault.classify(failure)])).toEqual([[
        "40001",
        "conflict"
      ]])
    })))

  it.scopedLive("a transaction that is aborted already is drift: somebody swallowed the failure", () =>
    onDatabase(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const failure = yield* Effect.flip(
        Transaction.run(Effect.zipRight(Effect.ignore(sql`SELECT 1 / 0`), sql`SELECT 1`))
      )
      expect([Fault.codeOf(failure), Fault.classify(failure)]).toEqual(["25P02", "drift"])
    })))
})
