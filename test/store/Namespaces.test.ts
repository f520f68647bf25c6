/**
 * Namespaces: each has a place of its own, which is proven to be its own before anything is done there, and none reaches
 * another's.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import Sqlite3 from "better-sqlite3"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs"
import { join } from "node:path"
import pg from "pg"
import * as Sqlite from "../../layers/Sqlite.js"
import {
  Cursors,
  Drift,
  Fault,
  Health,
  Migration,
  Migrations,
  Migrator,
  Namespace,
  Policy,
  Processor,
  Reactor,
  Source
} from "../../src/index.js"
import * as Fleet from "../guarantees/Fleet.js"
import * as Database from "../support/Database.js"
import * as Ledger from "../support/Ledger.js"
import * as Store from "../support/Store.js"

const withSql = <A, E, R>(use: (sql: SqlClient.SqlClient) => Effect.Effect<A, E, R>) =>
  Effect.flatMap(SqlClient.SqlClient, use)

const within = <A, E, R>(name: string, use: (sql: SqlClient.SqlClient) => Effect.Effect<A, E, R>) =>
  Namespace.within(name, withSql(use))

const query = <A, E, R>(name: string, use: (sql: SqlClient.SqlClient) => Effect.Effect<A, E, R>) =>
  Namespace.query(name, withSql(use))

const open = (name: string) => within(name, () => Effect.void)

const placeOf = (name: string) => Namespace.place(Namespace.make(name))

const fileOf = (database: Database.SqliteDatabase, name: string) =>
  join(Store.directoryOf(database), `${placeOf(name)}.db`)

/** Sends statements to the place of `name` past the framework, as somebody else would. */
const behindItsBack = (
  database: Database.Database,
  name: string,
  statements: ReadonlyArray<string>
): Effect.Effect<ReadonlyArray<{ readonly [column: string]: unknown }>> =>
  database.dialect === "sqlite"
    ? Effect.sync(() => {
      mkdirSync(Store.directoryOf(database), { recursive: true })
      const db = new Sqlite3(fileOf(database, name))
      let rows: ReadonlyArray<{ readonly [column: string]: unknown }> = []
      for (const text of statements) {
        const statement = db.prepare(text)
        if (statement.reader) rows = statement.all() as typeof rows
        else statement.run()
      }
      db.close()
      return rows
    })
    : Effect.promise(async () => {
      const client = new pg.Client({ connectionString: database.url })
      await client.connect()
      await client.query(`SET search_path = ${placeOf(name)}`)
      let rows: ReadonlyArray<{ readonly [column: string]: unknown }> = []
      for (const text of statements) rows = (await client.query(text)).rows
      await client.end()
      return rows
    })

/** The tables of the place that unqualified names reach. */
const tables = withSql((sql) =>
  Effect.map(
    sql.onDialectOrElse({
      sqlite: () => sql<{ readonly name: string }>`SELECT name FROM sqlite_schema WHERE type = 'table'`,
      orElse: () =>
        sql<{ readonly name: string }>`SELECT table_name AS name FROM information_schema.tables
          WHERE table_schema = current_schema()`
    }),
    (rows) => rows.map(({ name }) => name).sort()
  )
)

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  /** A test with many namespaces in a store of its own. */
  const test = <E>(
    title: string,
    body: (database: Database.Database) => Effect.Effect<unknown, E, Namespace.Namespaces>,
    timeoutMillis?: number
  ) =>
    it.scopedLive(
      title,
      () => Effect.flatMap(fresh, (database) => Effect.provide(body(database), Store.layerMany(database))),
      timeoutMillis
    )

  describe("a place", () => {
    const own = [
      "processor_courier",
      "processor_cursor",
      "processor_dead_letter",
      "processor_manifest",
      "processor_migration"
    ]

    test("holds the namespace's tables and the framework's, and is the only one that does", (database) =>
      Effect.gen(function*() {
        for (const name of ["red", "blue"]) {
          yield* Namespace.within(
            name,
            Effect.zipRight(Migrator.prepare, withSql((sql) => sql`CREATE TABLE t (a TEXT)`))
          )
          yield* within(name, (sql) => sql`INSERT INTO t (a) VALUES (${name})`)
        }
        for (const name of ["red", "blue"]) {
          expect(yield* query(name, (sql) => sql`SELECT a FROM t`)).toEqual([{ a: name }])
          expect(yield* Namespace.query(name, tables)).toEqual([
            ...own,
            "processor_namespace",
            "processor_outbox",
            "processor_state",
            "processor_stream",
            "t"
          ])
        }
        if (database.dialect === "sqlite") {
          const files = readdirSync(Store.directoryOf(database)).filter((file) => file.endsWith(".db"))
          expect(files.sort()).toEqual([`${placeOf("blue")}.db`, `${placeOf("red")}.db`])
        } else {
          expect(yield* Effect.provide(tables, Store.layer(database))).toEqual([])
        }
      }))

    test("is another for each name, however alike they look", () =>
      Effect.gen(function*() {
        const names = [
          "Shop",
          "shop",
          "SHOP",
          "a-b",
          "a_b",
          "A-b",
          "pg",
          "pg_catalog",
          "SearchIndexerProcessor_0221632b",
          "SearchIndexerProcessor_a488c284",
          "x".repeat(127),
          "x".repeat(128)
        ]
        for (const name of names) yield* within(name, (sql) => sql`CREATE TABLE t (a TEXT)`)
        for (const name of names) yield* within(name, (sql) => sql`INSERT INTO t (a) VALUES (${name})`)
        for (const name of names) expect(yield* query(name, (sql) => sql`SELECT a FROM t`)).toEqual([{ a: name }])
      }))

    test("is the same the next time, and costs nothing once it is known", (database) =>
      Effect.gen(function*() {
        yield* within("red", (sql) => sql`CREATE TABLE t (a TEXT)`)
        yield* open("red").pipe(Effect.provide(Layer.fresh(Store.layerMany(database))))
        const namespaces = yield* Namespace.Namespaces
        const [first, again] = yield* Effect.all([
          namespaces.open(Namespace.make("red")),
          namespaces.open(Namespace.make("red"))
        ])
        expect(first).toBe(again)
      }))

    test("that was lost costs no other namespace anything", (database) =>
      Effect.gen(function*() {
        for (const name of ["red", "blue"]) yield* within(name, (sql) => sql`CREATE TABLE t (a TEXT)`)
        yield* within("blue", (sql) => sql`INSERT INTO t (a) VALUES ('kept')`)
        if (database.dialect === "sqlite") rmSync(fileOf(database, "red"))
        else {yield* Effect.provide(
            withSql((sql) => sql`DROP SCHEMA ${sql(placeOf("red"))} CASCADE`),
            Store.layer(database)
          )}
        expect(yield* query("blue", (sql) => sql`SELECT a FROM t`)).toEqual([{ a: "kept" }])
        const tablesAgain = Namespace.within("red", tables).pipe(Effect.provide(Layer.fresh(Store.layerMany(database))))
        expect(yield* tablesAgain).toEqual(["processor_namespace"])
      }))

    test("that was made beforehand, with nothing in it, is taken", (database) =>
      Effect.gen(function*() {
        if (database.dialect === "pg") {
          yield* Effect.provide(withSql((sql) => sql`CREATE SCHEMA ${sql(placeOf("red"))}`), Store.layer(database))
        } else {
          yield* behindItsBack(database, "red", [])
        }
        yield* open("red")
        expect(yield* Namespace.query("red", tables)).toEqual(["processor_namespace"])
      }))
  })

  describe("a place that is somebody else's is refused before anything is done there", () => {
    const everything = "SELECT * FROM processor_namespace"

    test("because its row names another namespace", (database) =>
      Effect.gen(function*() {
        yield* open("red")
        yield* behindItsBack(database, "red", ["UPDATE processor_namespace SET name = 'blue'"])
        const again = Effect.flip(
          Namespace.within("red", withSql((sql) => sql`CREATE TABLE t (a TEXT)`))
        ).pipe(Effect.provide(Layer.fresh(Store.layerMany(database))))
        const failure = yield* again
        expect(failure).toMatchObject({
          _tag: "NamespaceMismatch",
          namespace: "red",
          place: placeOf("red"),
          found: { namespace: "blue", place: placeOf("red") }
        })
        expect(failure.message).toContain("belongs to namespace blue")
        expect(failure.message).toContain("Sqlite.layerDirectory and Postgres.layer hold many")
        expect(yield* behindItsBack(database, "red", [everything])).toMatchObject([{ name: "blue" }])
        const inQuery = Effect.flip(Namespace.query("red", tables))
        expect(yield* Effect.provide(inQuery, Layer.fresh(Store.layerMany(database)))).toEqual(failure)
      }))

    test("because it was moved here from another place", (database) =>
      Effect.gen(function*() {
        yield* open("red")
        yield* behindItsBack(database, "red", ["UPDATE processor_namespace SET place = 'elsewhere'"])
        const failure = yield* Effect.flip(open("red")).pipe(Effect.provide(Layer.fresh(Store.layerMany(database))))
        expect(failure).toMatchObject({ _tag: "NamespaceMismatch", found: { namespace: "red", place: "elsewhere" } })
      }))

    test("because it holds tables and no row", (database) =>
      Effect.gen(function*() {
        if (database.dialect === "pg") {
          yield* Effect.provide(withSql((sql) => sql`CREATE SCHEMA ${sql(placeOf("red"))}`), Store.layer(database))
        }
        yield* behindItsBack(database, "red", ["CREATE TABLE precious (a TEXT)"])
        expect(yield* Effect.flip(open("red"))).toMatchObject({ _tag: "NamespaceMismatch", found: undefined })
        expect(Exit.isFailure(yield* Effect.exit(behindItsBack(database, "red", [everything])))).toBe(true)
      }))

    test("also by a reactor, which does not start", (database) =>
      Effect.gen(function*() {
        yield* open("p")
        yield* behindItsBack(database, "p", ["UPDATE processor_namespace SET name = 'q'"])
        const failure = yield* Effect.flip(Reactor.run(Ledger.make("p"))).pipe(
          Effect.provide([Layer.fresh(Store.layerMany(database)), Source.layerIterable("test", [])])
        )
        expect(failure).toMatchObject({ _tag: "NamespaceMismatch", namespace: "p" })
        expect(yield* Namespace.within("p", tables)).toEqual(["processor_namespace"])
      }))
  })

  test("32 that open it for the first time at once find one place", (database) =>
    Effect.gen(function*() {
      const clients = Array.from({ length: 8 }, () => Layer.fresh(Store.layerMany(database)))
      const opens = clients.map((client) =>
        Effect.all(Array.from({ length: 4 }, () => open("red")), { concurrency: "unbounded" }).pipe(
          Effect.provide(client)
        )
      )
      yield* Effect.all(opens, { concurrency: "unbounded" })
      expect(yield* query("red", (sql) => sql`SELECT name, place FROM processor_namespace`)).toEqual([
        { name: "red", place: placeOf("red") }
      ])
    }))

  test(
    "processes that open the same namespaces for the first time at once find the same places",
    (database) =>
      Effect.gen(function*() {
        const names = ["red", "blue", "Red"]
        const fleet = yield* Fleet.make(8)
        const answers = yield* Effect.forEach(fleet, (ship) => ship.order({ kind: "place", database, names }), {
          concurrency: "unbounded"
        })
        expect(answers.filter((answer) => answer.kind !== "migrated" || !answer.isComplete)).toEqual([])
        const applied = answers.flatMap((answer) => answer.kind === "migrated" ? answer.applied : [])
        const steps = ["0001_processors", "0001_race", "0002_race", "0003_race"]
        expect(applied.sort()).toEqual(names.flatMap((name) => steps.map((id) => `${name} ${id}`)).sort())
      }).pipe(Effect.scoped)
  )

  describe("a query", () => {
    test("of a namespace that does not exist says so, and makes nothing", (database) =>
      Effect.gen(function*() {
        expect(yield* Effect.flip(query("red", (sql) => sql`SELECT 1`))).toMatchObject({
          _tag: "NamespaceMissing",
          namespace: "red",
          message: expect.stringContaining("a reactor, Migrations.layer or Namespace.within makes it")
        })
        if (database.dialect === "sqlite") {
          expect(readdirSync(Store.directoryOf(database))).toEqual([])
        } else {
          const schemas = withSql((sql) =>
            sql`SELECT FROM information_schema.schemata WHERE schema_name = ${placeOf("red")}`
          )
          expect(yield* Effect.provide(schemas, Store.layer(database))).toEqual([])
        }
        yield* open("red")
        expect(yield* query("red", (sql) => sql`SELECT 1 AS one`)).toEqual([{ one: 1 }])
      }))

    test("sees what was committed, and all of it as it was at the first look inside a transaction", () =>
      Effect.gen(function*() {
        yield* within("red", (sql) => sql`CREATE TABLE t (a INTEGER)`)
        const count = withSql((sql) => sql<{ readonly n: number }>`SELECT count(*) AS n FROM t`)
        const put = within("red", (sql) => sql`INSERT INTO t (a) VALUES (1)`)
        yield* put
        expect(yield* Namespace.query("red", count)).toEqual([{ n: 1 }])
        yield* query("red", (sql) =>
          sql.withTransaction(Effect.gen(function*() {
            expect(yield* count).toEqual([{ n: 1 }])
            expect(yield* sql.withTransaction(count)).toEqual([{ n: 1 }])
          })))
        const rows = yield* query("red", (sql) => Stream.runCollect(sql`SELECT a FROM t`.stream))
        expect(Array.from(rows)).toEqual([{ a: 1 }])
      }))

    const everywhere = [
      "INSERT INTO t (a) VALUES ('stolen')",
      "UPDATE t SET a = 'stolen'",
      "DELETE FROM t",
      "DROP TABLE t",
      "CREATE TABLE u (a TEXT)",
      "ALTER TABLE t ADD COLUMN b TEXT",
      "COMMIT; DROP TABLE t",
      "ROLLBACK; DROP TABLE t",
      "COMMIT",
      "/* */ rollback",
      "BEGIN"
    ]
    const tricks = dialect === "pg"
      ? [
        ...everywhere,
        "SET TRANSACTION READ WRITE; INSERT INTO t (a) VALUES ('stolen')",
        "SET transaction_read_only = off; INSERT INTO t (a) VALUES ('stolen')",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; INSERT INTO t (a) VALUES ('stolen')",
        "SELECT set_config('transaction_read_only', 'off', false); INSERT INTO t (a) VALUES ('stolen')",
        "SAVEPOINT s; SET TRANSACTION READ WRITE; INSERT INTO t (a) VALUES ('stolen')",
        "WITH gone AS (DELETE FROM t RETURNING a) SELECT a FROM gone",
        "SELECT steal()",
        "DO $$ BEGIN COMMIT; INSERT INTO t (a) VALUES ('stolen'); END $$",
        "CALL steal_and_commit()",
        "END; INSERT INTO t (a) VALUES ('stolen')",
        "ABORT AND CHAIN",
        "SELECT nextval('numbers')",
        "TRUNCATE t",
        "SELECT a FROM t FOR UPDATE"
      ]
      : [
        ...everywhere,
        "WITH gone AS (SELECT 1) DELETE FROM t",
        "PRAGMA query_only = OFF",
        "PRAGMA user_version = 7",
        "PRAGMA journal_mode = DELETE",
        "ATTACH DATABASE 'other.db' AS other",
        "ATTACH DATABASE ':memory:' AS other",
        "VACUUM",
        "VACUUM INTO 'copy.db'",
        "CREATE TEMP TABLE t (a TEXT)",
        "REINDEX",
        "ANALYZE",
        "DETACH DATABASE main",
        "SELECT load_extension('x')"
      ]
    const prepare = within("red", (sql) =>
      Effect.gen(function*() {
        yield* sql`CREATE TABLE t (a TEXT)`
        yield* sql`INSERT INTO t (a) VALUES ('safe')`
        if (dialect === "sqlite") return
        yield* sql`CREATE SEQUENCE numbers`
        yield* sql`
          CREATE FUNCTION steal() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            PERFORM set_config('transaction_read_only', 'off', false);
            INSERT INTO t (a) VALUES ('stolen');
          END $$`
        yield* sql`
          CREATE PROCEDURE steal_and_commit() LANGUAGE plpgsql AS $$ BEGIN
            COMMIT; INSERT INTO t (a) VALUES ('stolen');
          END $$`
      }))

    test("changes nothing, whatever it tries", () =>
      Effect.gen(function*() {
        yield* prepare
        const before = yield* Namespace.query("red", tables)
        for (const trick of tricks) {
          const alone = yield* Effect.exit(query("red", (sql) => sql.unsafe(trick)))
          const inside = yield* Effect.exit(
            query("red", (sql) => sql.withTransaction(Effect.zipRight(sql`SELECT 1`, sql.unsafe(trick))))
          )
          const rows = yield* query("red", (sql) => sql`SELECT a FROM t`)
          const after = yield* Namespace.query("red", tables)
          expect({ trick, fails: [alone, inside].map(Exit.isFailure), rows, after }).toEqual({
            trick,
            fails: [true, true],
            rows: [{ a: "safe" }],
            after: before
          })
        }
        // Whoever may write still may: nothing of the tricks has stayed with a session or a handle.
        yield* within("red", (sql) => sql`INSERT INTO t (a) VALUES ('more')`)
        expect(existsSync("copy.db") || existsSync("other.db")).toBe(false)
      }))

    test("leaves nothing behind in the session it had", () =>
      Effect.gen(function*() {
        yield* prepare
        yield* open("blue")
        if (dialect === "pg") {
          yield* query(
            "red",
            (sql) => sql.unsafe("SET search_path = pg_catalog; SET statement_timeout = 1; LISTEN news")
          )
        }
        const found = yield* Effect.all(
          Array.from({ length: 12 }, () => query("red", (sql) => sql`SELECT a FROM t`)),
          { concurrency: "unbounded" }
        )
        expect(found).toEqual(Array.from({ length: 12 }, () => [{ a: "safe" }]))
        if (dialect === "pg") {
          expect(yield* within("red", (sql) => sql`SELECT current_setting('statement_timeout') AS t`)).toEqual([
            { t: "30s" }
          ])
        }
      }))

    test("is outside the transaction that it is asked from", () =>
      Effect.gen(function*() {
        for (const name of ["red", "blue"]) yield* within(name, (sql) => sql`CREATE TABLE t (a TEXT)`)
        yield* within("blue", (sql) => sql`INSERT INTO t (a) VALUES ('of blue')`)
        const found = yield* within("red", (sql) =>
          sql.withTransaction(Effect.gen(function*() {
            yield* sql`INSERT INTO t (a) VALUES ('of red')`
            return yield* query("blue", (other) => other`SELECT a FROM t`)
          })))
        expect(found).toEqual([{ a: "of blue" }])
      }))
  })

  test("drift is looked for in the namespace's own place", () =>
    Effect.gen(function*() {
      const make = (name: string) => {
        const type = dialect === "pg" ? "mood" : "TEXT"
        return {
          "0001_t": Migration.fromSql({
            up: `${dialect === "pg" ? "CREATE TYPE mood AS ENUM ('fine', 'bad');" : ""}
              CREATE TABLE t (a ${type} PRIMARY KEY); CREATE INDEX t_of_${name} ON t (a)`,
            down: "DROP TABLE t"
          })
        }
      }
      const options = { shadow: Sqlite.layerMemory, exclusive: true }
      const verify = (name: string) => Namespace.within(name, Drift.verify(Namespace.make(name), make(name), options))
      yield* Migrator.upAll(
        ["red", "blue"].map((name) => ({ namespace: Namespace.make(name), migrations: make(name) }))
      )
      expect(Drift.isNone(yield* verify("red"))).toBe(true)
      yield* within("blue", (sql) => sql`DROP INDEX t_of_blue`)
      expect(Drift.isNone(yield* verify("red"))).toBe(true)
      expect((yield* verify("blue")).differences?.map(({ name, where }) => [where, name])).toEqual([
        ["missing", "t_of_blue"]
      ])
    }))

  test("a reactor mixes processors of 20 namespaces, each in its own place", (database) =>
    Effect.gen(function*() {
      const names = Array.from({ length: 20 }, (_, i) => `n${i}`)
      const processors = names.map((name) => Ledger.make(name, undefined, { filter: { documentId: [name, "all"] } }))
      const strands = [...names.map((name) => Ledger.strand(name, `for ${name}`)), Ledger.strand("all", "for all")]
      const run = Effect.provide(Reactor.run(...processors), Source.layerIterable("test", strands))
      const outcomes = yield* run
      expect(outcomes.map(({ namespace, phase }) => [namespace, phase])).toEqual(names.map((name) => [name, "ended"]))
      for (const name of names) expect(yield* Ledger.applied(name)).toEqual([`for ${name}`, "for all"])
      const again = yield* Effect.provide(run, Layer.fresh(Store.layerMany(database)))
      expect(again.map(({ totals }) => totals.operations)).toEqual(names.map(() => 0))
    }))

  test("processors of one namespace share its tables", () =>
    Effect.gen(function*() {
      const shared = Ledger.make("shared")
      const make = (name: string, documentId: string) => ({
        ...shared,
        name: Ledger.make(name).name,
        filter: { documentId: [documentId] }
      })
      yield* Effect.provide(
        Reactor.run(make("first", "d1"), make("second", "d2")),
        Source.layerIterable("test", [Ledger.strand("d1", "a"), Ledger.strand("d2", "b")])
      )
      expect([...yield* Ledger.applied("shared")].sort()).toEqual(["a", "b"])
      expect(yield* query("shared", (sql) => sql`SELECT processor FROM processor_cursor ORDER BY processor`)).toEqual([
        { processor: "first" },
        { processor: "second" }
      ])
    }))

  test("migrations go up in their namespace, and health looks there and makes none", () =>
    Effect.gen(function*() {
      yield* Effect.provide(Effect.void, Migrations.layer("red", Ledger.migrations("red")))
      expect(yield* Namespace.query("red", tables)).toContain("ledger_red")
      const report = yield* Effect.flatMap(Health.Health, ({ check }) => check).pipe(
        Effect.provide(Health.layer({ tables: { red: ["ledger_red"], blue: ["ledger_red"] } })),
        Effect.provide(Reactor.layer()),
        Effect.provide(Source.layerIterable("test", [])),
        Effect.scoped
      )
      expect(report).toMatchObject({
        database: { isReachable: true },
        tables: [
          { namespace: "red", name: "ledger_red", isPresent: true },
          { namespace: "blue", name: "ledger_red", isPresent: false }
        ]
      })
      expect(yield* Effect.flip(open2("blue"))).toMatchObject({ _tag: "NamespaceMissing" })
    }))

  describe("a database that is one namespace", () => {
    it.scopedLive("is that of the first who opens it, with whatever was in it, and refuses any other", () =>
      Effect.gen(function*() {
        const database = yield* fresh
        yield* Effect.gen(function*() {
          yield* withSql((sql) => sql`CREATE TABLE t (a TEXT)`)
          expect(yield* Effect.flip(query("red", (sql) => sql`SELECT 1`))).toMatchObject({ _tag: "NamespaceMissing" })
          yield* within("red", (sql) => sql`INSERT INTO t (a) VALUES ('x')`)
          expect(yield* query("red", (sql) => sql`SELECT a FROM t`)).toEqual([{ a: "x" }])
          expect(Exit.isFailure(yield* Effect.exit(query("red", (sql) => sql`DELETE FROM t`)))).toBe(true)
          const mismatch = { _tag: "NamespaceMismatch", namespace: "blue", found: { namespace: "red" } }
          expect(yield* Effect.flip(open("blue"))).toMatchObject(mismatch)
          expect(yield* Effect.flip(query("blue", (sql) => sql`SELECT 1`))).toMatchObject(mismatch)
        }).pipe(Effect.provide(Store.layer(database)))
      }))

    it.scopedLive("is one's alone when many ask for it at once", () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const names = Array.from({ length: 8 }, (_, i) => `n${i}`)
        const opens = names.map((name) => Effect.provide(Effect.exit(open(name)), Layer.fresh(Store.layer(database))))
        const exits = yield* Effect.all(opens, { concurrency: "unbounded" })
        expect(exits.filter(Exit.isSuccess)).toHaveLength(1)
      }))
  })
})

const open2 = (name: string): Effect.Effect<unknown, SqlError | Namespace.NamespaceError, Namespace.Namespaces> =>
  query(name, (sql) => sql`SELECT 1`)

describe("in memory", () => {
  it.effect("each namespace is a database of its own, beside that of the SqlClient", () =>
    Effect.gen(function*() {
      for (const name of ["red", "blue"]) {
        yield* within(name, (sql) => sql`CREATE TABLE t (a TEXT)`)
        yield* within(name, (sql) => sql`INSERT INTO t (a) VALUES (${name})`)
      }
      for (const name of ["red", "blue"]) {
        expect(yield* query(name, (sql) => sql`SELECT a FROM t`)).toEqual([{ a: name }])
        for (const trick of ["INSERT INTO t VALUES ('x')", "PRAGMA query_only = OFF", "COMMIT"]) {
          const exit = yield* Effect.exit(query(name, (sql) => sql.unsafe(trick)))
          expect([trick, Exit.isFailure(exit)]).toEqual([trick, true])
        }
        yield* within(name, (sql) => sql`INSERT INTO t (a) VALUES ('more')`)
      }
      expect(yield* tables).toEqual([])
      expect(yield* Effect.flip(open2("green"))).toMatchObject({ _tag: "NamespaceMissing" })
    }).pipe(Effect.provide(Sqlite.layerMemory)))
})

describe("a directory of files", () => {
  const names = Array.from({ length: 50 }, (_, i) => `n${i}`)
  /** A file in WAL mode has its log beside it for as long as it is open for writing, and no longer. */
  const openFiles = (directory: string) => readdirSync(directory).filter((file) => file.endsWith("-wal"))

  it.scopedLive("keeps no more of them open than it may, under 50 busy namespaces", () =>
    Effect.gen(function*() {
      const database = yield* Database.sqlite
      const directory = Store.directoryOf(database)
      let most = 0
      const watch = Effect.sync(() => {
        most = Math.max(most, openFiles(directory).length)
      })
      yield* Effect.gen(function*() {
        yield* Effect.forEach(names, (name) => within(name, (sql) => sql`CREATE TABLE t (a INTEGER)`), {
          concurrency: "unbounded"
        })
        const work = (name: string) =>
          within(name, (sql) =>
            sql.withTransaction(
              Effect.forEach([1, 2, 3], (a) => Effect.zipRight(sql`INSERT INTO t (a) VALUES (${a})`, watch))
            ))
        for (let round = 0; round < 3; round++) {
          yield* Effect.forEach(names, work, { concurrency: "unbounded", discard: true })
        }
        const sums = yield* Effect.forEach(
          names,
          (name) => query(name, (sql) => sql`SELECT count(*) AS n, sum(a) AS total FROM t`),
          { concurrency: "unbounded" }
        )
        expect(sums).toEqual(names.map(() => [{ n: 9, total: 18 }]))
      }).pipe(Effect.provide(Store.layerMany(database, { filesMax: 4 })))
      expect(most).toBe(4)
      // Whoever only reads leaves a log behind, with nothing in it.
      expect(openFiles(directory).filter((file) => statSync(join(directory, file)).size > 0)).toEqual([])
      expect(readdirSync(directory).filter((file) => file.endsWith(".db"))).toHaveLength(50)
    }))

  it.scopedLive("writes the log of the one that it closes back into its file", () =>
    Effect.gen(function*() {
      const database = yield* Database.sqlite
      yield* Effect.gen(function*() {
        yield* within("red", (sql) => sql`CREATE TABLE t (a TEXT)`)
        yield* within("red", (sql) => sql`INSERT INTO t (a) VALUES ('kept')`)
        expect(openFiles(Store.directoryOf(database))).toEqual([`${placeOf("red")}.db-wal`])
        yield* open("blue")
        yield* open("green")
        expect(openFiles(Store.directoryOf(database))).not.toContain(`${placeOf("red")}.db-wal`)
        expect(readFileSync(fileOf(database, "red")).includes("kept")).toBe(true)
        expect(yield* within("red", (sql) => sql`SELECT a FROM t`)).toEqual([{ a: "kept" }])
      }).pipe(Effect.provide(Store.layerMany(database, { filesMax: 2 })))
    }))

  it.scopedLive("says with SQLite's code that a file cannot be opened any more, and does not make another", () =>
    Effect.gen(function*() {
      const database = yield* Database.sqlite
      yield* Effect.gen(function*() {
        for (const name of ["red", "blue", "green"]) yield* open(name)
        rmSync(fileOf(database, "red"))
        const failure = yield* Effect.flip(within("red", (sql) => sql`SELECT 1`))
        expect(failure).toMatchObject({ _tag: "SqlError", cause: { code: "SQLITE_CANTOPEN" } })
        expect(Fault.classify(failure)).toBe("infrastructure")
        expect(existsSync(fileOf(database, "red"))).toBe(false)
        yield* open("blue")
      }).pipe(Effect.provide(Store.layerMany(database, { filesMax: 2 })))
    }))

  it.scopedLive("is closed with its scope, for those as well who come later", () =>
    Effect.gen(function*() {
      const database = yield* Database.sqlite
      const client = yield* Effect.flatMap(
        Namespace.Namespaces,
        (namespaces) => namespaces.open(Namespace.make("red"))
      ).pipe(Effect.provide(Store.layerMany(database)))
      expect(openFiles(Store.directoryOf(database))).toEqual([])
      expect(yield* Effect.flip(client`SELECT 1`)).toMatchObject({ _tag: "SqlError" })
      expect(openFiles(Store.directoryOf(database))).toEqual([])
    }))

  it.scopedLive("that cannot be made is a StoreUnavailable, as is a file that is no database", () =>
    Effect.gen(function*() {
      const database = yield* Database.sqlite
      const refused = (directory: string) => Effect.flip(Layer.build(Sqlite.layerDirectory({ directory })))
      yield* Effect.provide(open("red"), Store.layerMany(database))
      expect(yield* refused(join(fileOf(database, "red"), "below"))).toMatchObject({ _tag: "StoreUnavailable" })
      const file = fileOf(database, "blue")
      yield* Effect.sync(() => mkdirSync(file))
      expect(yield* Effect.flip(Effect.provide(open("blue"), Store.layerMany(database)))).toMatchObject({
        _tag: "StoreUnavailable",
        target: file,
        reason: "it is a directory"
      })
    }))

  it.scoped("is opened as the environment says", () =>
    Effect.gen(function*() {
      const { filename } = yield* Database.sqlite
      const config = new Map([["SQLITE_DIRECTORY", filename], ["SQLITE_FILES_MAX", "2"]])
      yield* Effect.provide(open("red"), Sqlite.layerDirectoryConfig()).pipe(
        Effect.withConfigProvider(ConfigProvider.fromMap(config))
      )
      expect(readdirSync(filename)).toEqual([`${placeOf("red")}.db`])
    }))

  it.scoped.each([{ filesMax: 1 }, { filesMax: 1.5 }, { directory: " " }])(
    "is not made with %o",
    (options) =>
      Effect.gen(function*() {
        const { filename } = yield* Database.sqlite
        const failure = yield* Effect.flip(Layer.build(Sqlite.layerDirectory({ directory: filename, ...options })))
        expect(failure).toMatchObject({ _op: "InvalidData", path: Object.keys(options) })
        expect(existsSync(filename)).toBe(false)
      })
  )
})

describe("the sessions of one PostgreSQL pool", () => {
  /** One session for all: with two at least in the pool, the other is kept busy. */
  const narrow = <A, E>(body: Effect.Effect<A, E, Namespace.Namespaces | SqlClient.SqlClient>) =>
    Effect.gen(function*() {
      const database = yield* Database.postgres
      return yield* Effect.scoped(Effect.gen(function*() {
        yield* withSql((sql) => sql.reserve)
        for (const name of ["red", "blue"]) {
          yield* within(name, (sql) => sql`CREATE TABLE t (a TEXT)`)
          yield* within(name, (sql) => sql`INSERT INTO t (a) VALUES (${name})`)
        }
        return yield* body
      })).pipe(Effect.provide(Store.layerPool(database, { maxConnections: 2 })))
    })

  const read = (name: string) => within(name, (sql) => sql`SELECT a FROM t`)

  const wanderings = [
    "SET search_path = pg_catalog",
    "SET LOCAL search_path = pg_catalog",
    "RESET ALL",
    "DISCARD ALL",
    "SET search_path TO DEFAULT",
    "SELECT set_config('search_path', 'pg_catalog', false)",
    "SET SESSION AUTHORIZATION DEFAULT"
  ]

  it.scopedLive.each(wanderings)("are where they should be after %s", (wandering) =>
    narrow(Effect.gen(function*() {
      yield* within("red", (sql) => sql.unsafe(wandering))
      expect(yield* read("red")).toEqual([{ a: "red" }])
      expect(yield* read("blue")).toEqual([{ a: "blue" }])
      yield* Effect.exit(
        within("red", (sql) => sql.withTransaction(Effect.zipRight(sql.unsafe(wandering), Effect.fail("rolled back"))))
      )
      expect(yield* read("red")).toEqual([{ a: "red" }])
      expect(yield* read("blue")).toEqual([{ a: "blue" }])
      expect(yield* withSql((sql) => sql`SHOW search_path`)).toEqual([{ search_path: "\"$user\", public" }])
    })))

  it.scopedLive("are where they should be after a function that went elsewhere", () =>
    narrow(Effect.gen(function*() {
      yield* within("red", (sql) =>
        sql`CREATE FUNCTION roam() RETURNS void LANGUAGE plpgsql AS
          $$ BEGIN PERFORM set_config('search_' || 'path', ${sql.literal(`'${placeOf("blue")}'`)}, false); END $$`)
      yield* within("red", (sql) => sql`SELECT roam()`)
      expect(yield* read("red")).toEqual([{ a: "red" }])
    })))

  it.scopedLive("are not committed on once their transaction has left its namespace", () =>
    narrow(Effect.gen(function*() {
      const failure = yield* Effect.flip(
        Effect.sandbox(within("red", (sql) =>
          sql.withTransaction(Effect.gen(function*() {
            yield* sql.unsafe(`SET search_path = ${placeOf("blue")}`)
            yield* sql`INSERT INTO t (a) VALUES ('stray')`
          }))))
      )
      expect(String(failure)).toContain("the transaction has left its namespace")
      expect(yield* read("blue")).toEqual([{ a: "blue" }])
      // There and back is nobody's business.
      yield* within("red", (sql) =>
        sql.withTransaction(Effect.gen(function*() {
          yield* sql`SET LOCAL search_path = pg_catalog`
          yield* sql.unsafe(`SET LOCAL search_path = ${placeOf("red")}, pg_temp`)
          yield* sql`INSERT INTO t (a) VALUES ('back')`
        })))
      expect(yield* read("red")).toEqual([{ a: "red" }, { a: "back" }])
    })))

  it.scopedLive("commit nothing of a handler that goes where the engine's own statements would succeed as well", () =>
    narrow(Effect.gen(function*() {
      const key = { processor: Ledger.make("p").name, source: Source.name("test") }
      yield* Namespace.within("blue", Effect.zipRight(Migrator.prepare, Cursors.claim(key)))
      const roaming = Processor.make("p", {
        namespace: "red",
        handler: Processor.onBatch(() => withSql((sql) => sql.unsafe(`SET search_path = ${placeOf("blue")}`)))
      }).pipe(Processor.withPolicy(Policy.standard))
      const [outcome] = yield* Effect.provide(
        Reactor.run(roaming),
        Source.layerIterable("test", [Ledger.strand("d1", "a")])
      )
      expect(outcome).toMatchObject({
        phase: "halted",
        failure: { _tag: "Halted", fault: "drift", cause: { cause: { code: "3F000" } } }
      })
      for (const name of ["red", "blue"]) {
        expect(yield* Namespace.query(name, Cursors.peek(key))).toMatchObject({ position: 0n, sequence: 0n, epoch: 1n })
        expect(yield* query(name, (sql) => sql`SELECT * FROM processor_stream`)).toEqual([])
      }
    })))

  it.scopedLive("hide no table of a namespace behind another's temporary one", () =>
    narrow(Effect.gen(function*() {
      yield* within("blue", (sql) => sql`CREATE TEMP TABLE t (a TEXT)`)
      yield* within("blue", (sql) => sql`CREATE TEMP TABLE processor_cursor (a TEXT)`)
      expect(yield* read("red")).toEqual([{ a: "red" }])
      expect(yield* read("blue")).toEqual([{ a: "blue" }])
    })))

  it.scopedLive("do not reach what is in public by its name alone", () =>
    narrow(Effect.gen(function*() {
      yield* withSql((sql) => sql`CREATE TABLE shared (a TEXT)`)
      expect(yield* Effect.flip(within("red", (sql) => sql`SELECT * FROM shared`))).toMatchObject({
        cause: { code: "42P01" }
      })
      expect(yield* within("red", (sql) => sql`SELECT * FROM public.shared`)).toEqual([])
    })))

  it.scopedLive("are as many as the pool has, however many namespaces there are", () =>
    Effect.gen(function*() {
      const database = yield* Database.postgres
      const names = Array.from({ length: 30 }, (_, i) => `n${i}`)
      yield* Effect.gen(function*() {
        yield* Effect.forEach(names, (name) => within(name, (sql) => sql`CREATE TABLE t (a TEXT)`), {
          concurrency: "unbounded"
        })
        const put = (name: string) =>
          within(name, (sql) => sql.withTransaction(sql`INSERT INTO t (a) VALUES (${name})`))
        yield* Effect.forEach([...names, ...names], put, { concurrency: "unbounded" })
        for (const name of names) expect(yield* read(name)).toEqual([{ a: name }, { a: name }])
        const sessions = yield* withSql((sql) =>
          sql`SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'effect-processors'`
        )
        expect(sessions.length).toBeLessThanOrEqual(3)
      }).pipe(Effect.provide(Store.layerPool(database, { maxConnections: 3 })))
    }))
})
