/**
 * A permit in force: what a migration is not permitted to send is never sent, whichever way it tries; what it is permitted
 * to send runs.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { sql as kyselySql } from "kysely"
import type { Kysely } from "kysely"
import {
  Catalogue,
  Drift,
  KyselyMigration,
  Migration,
  Migrator,
  Namespace,
  Policy,
  Processor,
  Reactor,
  Source
} from "../../src/index.js"
import * as Guard from "../../src/store/Guard.js"
import * as Transaction from "../../src/store/Transaction.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"

const shop = Namespace.make("shop")
const strict: Migrator.Options = { statements: "schema" }

const userTables = Effect.map(
  Catalogue.read,
  (items) => items.filter((item) => item.kind === "table" && !Catalogue.isOwn(item)).map(({ name }) => name)
)

/** Writes down what reaches the connection. */
const recording = (connection: Connection, sent: Array<string>): Connection => ({
  execute: (text, ...rest) => Effect.suspend(() => (sent.push(text), connection.execute(text, ...rest))),
  executeRaw: (text, ...rest) => Effect.suspend(() => (sent.push(text), connection.executeRaw(text, ...rest))),
  executeValues: (text, ...rest) => Effect.suspend(() => (sent.push(text), connection.executeValues(text, ...rest))),
  executeUnprepared: (text, ...rest) =>
    Effect.suspend(() => (sent.push(text), connection.executeUnprepared(text, ...rest))),
  executeStream: (text, ...rest) => Stream.suspend(() => (sent.push(text), connection.executeStream(text, ...rest)))
})

/** A statement that is refused on both databases, and what it needs. */
const bad = {
  sqlite: { text: "ATTACH DATABASE ':memory:' AS other", needs: "ATTACH" },
  pg: { text: "CREATE ROLE permit_test", needs: "CREATE ROLE" }
}

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  const test = <E>(
    title: string,
    body: Effect.Effect<unknown, E, SqlClient.SqlClient | Namespace.Namespaces | Scope.Scope>
  ) =>
    it.scopedLive(title, () =>
      Effect.flatMap(fresh, (database) => Effect.provide(body, Store.layer(database))).pipe(
        Logger.withMinimumLogLevel(LogLevel.None)
      ))
  const { needs, text } = bad[dialect]
  const withSql = (run: (sql: SqlClient.SqlClient) => Migration.Migration["up"]): Migration.Migration["up"] =>
    Effect.flatMap(SqlClient.SqlClient, run)
  const steps = (up: Migration.Migration["up"], transactional?: false) => ({
    "0001_a": { up, down: Effect.void, transactional }
  })
  const refused = { _tag: "MigrationRefused", namespace: "shop", id: "0001_a", needs }

  /** Ways to send the statement, after a first one that is permitted. */
  const ways: { readonly [way: string]: Migration.Migration["up"] } = {
    "as SQL text": Migration.fromSql({ up: `CREATE TABLE half (id TEXT); /**/${text}`, down: "" }).up,
    "by sql": withSql((sql) => Effect.zipRight(sql`CREATE TABLE half (id TEXT)`, sql.unsafe(text))),
    "by sql, swallowing the failure": withSql((sql) =>
      Effect.zipRight(sql`CREATE TABLE half (id TEXT)`, Effect.ignore(sql.unsafe(text)))
    ),
    "raw, as values, unprepared and as a stream": withSql((sql) =>
      Effect.all([
        sql`CREATE TABLE half (id TEXT)`,
        Effect.ignore(sql.unsafe(text).raw),
        Effect.ignore(sql.unsafe(text).values),
        Effect.ignore(sql.unsafe(text).unprepared),
        Effect.ignore(Stream.runDrain(sql.unsafe(text).stream))
      ])
    ),
    "in a part of its own": withSql((sql) =>
      Effect.zipRight(sql`CREATE TABLE half (id TEXT)`, sql.withTransaction(sql.withTransaction(sql.unsafe(text))))
    ),
    // SQLite has one connection, which the transaction has.
    ...(dialect === "pg"
      ? {
        "on a connection of its own": withSql((sql) =>
          Effect.zipRight(
            sql`CREATE TABLE half (id TEXT)`,
            Effect.scoped(Effect.flatMap(sql.reserve, (connection) => connection.executeRaw(text, [])))
          )
        )
      }
      : {}),
    "by Kysely": KyselyMigration.fromModule({
      up: async (db: Kysely<unknown>) => {
        await db.schema.createTable("half").addColumn("id", "text").execute()
        await kyselySql.raw(text).execute(db)
      }
    }).up
  }

  /** The client, and all that reaches any of its connections. */
  const recorded = Effect.map(SqlClient.SqlClient, (sql) => {
    const sent: Array<string> = []
    const client: SqlClient.SqlClient = Object.assign(
      ((...args: Parameters<typeof sql>) => sql(...args)) as SqlClient.SqlClient,
      sql,
      { reserve: Effect.map(sql.reserve, (connection) => recording(connection, sent)) }
    )
    return { client, sent }
  })

  test(
    "the statement works where it is permitted, so that its refusal means something",
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      if (dialect === "sqlite") {
        yield* sql.unsafe(text)
        yield* sql`DETACH other`
        return
      }
      const doomed = Transaction.run(Effect.zipRight(sql.unsafe(text), Effect.fail("roll back" as const)))
      expect(yield* Effect.flip(doomed)).toBe("roll back")
    })
  )

  describe.each(Object.entries(ways))("%s", (_, up) => {
    test(
      "it is never sent, and the migration is rolled back and named",
      Effect.gen(function*() {
        const { client, sent } = yield* recorded
        const failure = yield* Effect.flip(
          Effect.provideService(Migrator.up(shop, steps(up), strict), SqlClient.SqlClient, client)
        )
        expect(failure).toMatchObject(refused)
        expect(failure.message).toMatch(
          /^migration 0001_a of namespace shop may not run .*; .*permit "[A-Z ]+" in the option/
        )
        expect(sent.some((each) => each.includes("CREATE TABLE half") || each.includes("create table"))).toBe(true)
        expect(sent.filter((each) => each.includes(text))).toEqual([])
        expect(yield* userTables).toEqual([])
        expect((yield* Migrator.status(shop, steps(up))).map(({ state }) => state)).toEqual(["pending"])
      })
    )

    test(
      "a plan finds it too",
      Effect.gen(function*() {
        expect(yield* Effect.flip(Migrator.plan(shop, steps(up), strict))).toMatchObject(refused)
        expect(yield* userTables).toEqual([])
      })
    )

    test(
      "outside a transaction it is not sent either",
      Effect.gen(function*() {
        const failure = yield* Effect.flip(Migrator.up(shop, steps(up, false), strict))
        expect(failure).toMatchObject(refused)
        const sql = yield* SqlClient.SqlClient
        const found = dialect === "sqlite"
          ? yield* sql`SELECT name FROM pragma_database_list WHERE name = 'other'`
          : yield* sql`SELECT rolname FROM pg_roles WHERE rolname = 'permit_test'`
        expect(found).toEqual([])
      })
    )
  })

  test(
    "outside a transaction, what is permitted runs, also in a transaction of its own that is taken back",
    Effect.gen(function*() {
      const up = withSql((sql) =>
        Effect.gen(function*() {
          yield* sql`CREATE TABLE kept (id TEXT)`
          const doomed = Effect.zipRight(
            sql`CREATE TABLE gone (id TEXT)`,
            sql.withTransaction(sql`SELECT * FROM nowhere`)
          )
          expect((yield* Effect.exit(sql.withTransaction(doomed)))._tag).toBe("Failure")
          yield* sql.withTransaction(sql`INSERT INTO kept VALUES ('a')`)
        })
      )
      yield* Migrator.up(shop, steps(up, false), strict)
      expect(yield* userTables).toEqual(["kept"])
      const sql = yield* SqlClient.SqlClient
      expect(yield* sql`SELECT id FROM kept`).toEqual([{ id: "a" }])
    })
  )

  test(
    "on the way down it is refused as well",
    Effect.gen(function*() {
      const migrations = { "0001_a": { up: withSql((sql) => sql`CREATE TABLE a (id TEXT)`), down: ways["by sql"]! } }
      yield* Migrator.up(shop, migrations, strict)
      expect(yield* Effect.flip(Migrator.down(shop, migrations, "nothing", strict))).toMatchObject(refused)
      expect(yield* userTables).toEqual(["a"])
    })
  )

  test(
    "by default nothing is refused but what ends the transaction",
    Effect.gen(function*() {
      const unusual = dialect === "pg" ? "DO $$ BEGIN CREATE TABLE done (id int); END $$" : "PRAGMA user_version = 7"
      yield* Migrator.up(shop, { "0001_a": Migration.fromSql({ up: unusual, down: "SELECT 1" }) })
      const ending = { "0002_b": Migration.fromSql({ up: "COMMIT", down: "SELECT 1" }) }
      expect(yield* Effect.flip(Migrator.up(Namespace.make("other"), ending))).toMatchObject({
        _tag: "MigrationEndedTransaction"
      })
      expect(yield* Effect.flip(Migrator.up(Namespace.make("other"), ending, strict))).toMatchObject({
        _tag: "MigrationEndedTransaction"
      })
    })
  )

  if (dialect === "pg") {
    test(
      "the shadow of a comparison is built under the same permit",
      Effect.gen(function*() {
        const migrations = steps(withSql((sql) => sql.unsafe("DO $$ BEGIN CREATE TABLE a (id int); END $$")))
        yield* Migrator.up(shop, migrations)
        expect(Drift.isNone(yield* Drift.verify(shop, migrations))).toBe(true)
        expect(yield* Effect.flip(Drift.verify(shop, migrations, strict))).toMatchObject({
          _tag: "ShadowFailed",
          id: "0001_a",
          cause: { _tag: "StatementRefused", needs: "DO" }
        })
      })
    )

    const hidden = "DO $do$ BEGIN CREATE TABLE hidden (id int); END $do$"
    it.scopedLive.each<readonly [string, string]>([
      ["behind a comment", `/* /* */ ; */${hidden}`],
      ["behind a line comment that ends at a carriage return", `-- note\r${hidden}`],
      ["behind another statement", `SELECT ';'; ${hidden}`],
      ["between names that look like dollar quotes", `SELECT 1 AS \u00a0$$; ${hidden}; SELECT 1 AS \u00a0$$`],
      ["behind what looks like an atomic body", `SELECT begin atomic FROM (SELECT 1 AS begin) x; ${hidden}`],
      ["behind an escape", `SELECT E'\\''; ${hidden}; --'`],
      ["behind an escape of the next line", `SELECT E'a'\n'b\\''; ${hidden}; SELECT ''`],
      ["between dollar quotes", `SELECT $a$ $b$ $a$; ${hidden}; SELECT $a$ $a$`]
    ])(
      "a statement %s would run, and is refused",
      ([, trick]) =>
        Effect.flatMap(fresh, (database) =>
          Effect.gen(function*() {
            const up = withSql((sql) => sql.unsafe(trick))
            expect(yield* Effect.flip(Migrator.up(shop, steps(up), strict))).toMatchObject({ needs: "DO" })
            expect(yield* userTables).toEqual([])
            yield* Migrator.up(shop, steps(up))
            expect(yield* userTables).toEqual(["hidden"])
          }).pipe(Effect.provide(Store.layer(database)), Logger.withMinimumLogLevel(LogLevel.None)))
    )
  }

  test(
    "what shapes and fills tables is permitted, and runs",
    Effect.gen(function*() {
      const texts = dialect === "sqlite" ? permitted.sqlite : permitted.pg
      const up = withSql((sql) => Effect.forEach(texts, (each) => sql.unsafe(each), { discard: true }))
      yield* Migrator.up(shop, steps(up), strict)
      const sql = yield* SqlClient.SqlClient
      expect(yield* sql`SELECT id, title FROM item ORDER BY id`).toEqual([{ id: 1, title: "one" }, {
        id: 2,
        title: "two"
      }])
    })
  )

  test(
    "a reactor applies migrations under the permit of its settings",
    Effect.gen(function*() {
      const handler = Processor.onBatch(() => Effect.void)
      const processor = Processor.make("p", { namespace: "shop", migrations: steps(ways["by sql"]!), handler }).pipe(
        Processor.withPolicy(Policy.standard)
      )
      const settings = yield* Reactor.Settings
      const run = Reactor.run(processor).pipe(
        Effect.provide(Source.layerIterable("test", [])),
        Effect.provideService(Reactor.Settings, { ...settings, migrations: strict })
      )
      expect(yield* Effect.flip(run)).toMatchObject({ _tag: "MigrationFailed", id: "0001_a", cause: refused })
      expect(yield* userTables).toEqual([])
    })
  )

  test(
    "a guard without a permit permits everything",
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const body = dialect === "sqlite" ? sql`PRAGMA user_version` : sql`SET LOCAL search_path = public`
      yield* Transaction.run(Guard.run(body))
      expect(yield* Effect.flip(Transaction.run(Guard.run(body, { permit: "schema" })))).toMatchObject({
        _tag: "StatementRefused"
      })
    })
  )
})

const permitted = {
  sqlite: [
    "CREATE TABLE item (id INTEGER PRIMARY KEY, title TEXT NOT NULL)",
    "CREATE TABLE part (id INTEGER PRIMARY KEY, item_id INTEGER REFERENCES item (id))",
    "CREATE UNIQUE INDEX IF NOT EXISTS main.item_title ON item (title)",
    "CREATE TEMP VIEW all_items AS SELECT item.id FROM item JOIN part ON part.item_id = item.id",
    "CREATE TRIGGER t AFTER INSERT ON item BEGIN UPDATE item SET title = lower(title); DELETE FROM part WHERE id = 0; END",
    "CREATE VIRTUAL TABLE search USING fts5(title)",
    "/* data */ INSERT INTO item (id, title) VALUES (1, 'ONE')",
    "WITH x AS (SELECT 2 AS id) INSERT INTO item SELECT id, 'two' FROM x",
    "REPLACE INTO part VALUES (1, 1)",
    "UPDATE main.item SET title = title WHERE id IN (SELECT item_id FROM part)",
    "DELETE FROM part",
    "PRAGMA defer_foreign_keys = ON",
    "PRAGMA foreign_key_check",
    "PRAGMA main.table_info(item)",
    "ALTER TABLE part ADD COLUMN note TEXT",
    "DROP TRIGGER t",
    "DROP VIEW all_items",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "RELEASE a",
    "ANALYZE",
    "REINDEX"
  ],
  pg: [
    "SET LOCAL lock_timeout = '5s'",
    "CREATE TABLE item (id INT PRIMARY KEY, title TEXT NOT NULL, \"language\" TEXT, role TEXT)",
    "CREATE TABLE part (id INT PRIMARY KEY, item_id INT REFERENCES item (id) DEFERRABLE)",
    "CREATE UNIQUE INDEX IF NOT EXISTS item_title ON item USING btree (title) WHERE item.id > 0",
    "CREATE OR REPLACE TEMP VIEW all_items AS SELECT item.id FROM item JOIN part ON part.item_id = item.id",
    "CREATE MATERIALIZED VIEW counts AS SELECT count(*) FROM item",
    "CREATE SEQUENCE seq OWNED BY part.id",
    "CREATE TYPE mood AS ENUM ('good')",
    "ALTER TYPE mood RENAME VALUE 'good' TO 'fine'",
    "CREATE DOMAIN positive AS INT CHECK (VALUE > 0)",
    "CREATE FUNCTION twice(language INT) RETURNS INT LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $$ SELECT 2 * $1 $$",
    "CREATE FUNCTION thrice(a INT) RETURNS INT LANGUAGE 'sql' BEGIN ATOMIC SELECT a; SELECT 3 * a; END",
    "CREATE OR REPLACE FUNCTION touch() RETURNS void AS 'UPDATE item SET role = ''a'' ; DELETE FROM part' LANGUAGE SQL",
    "CREATE TRIGGER t BEFORE UPDATE OF title ON item FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "/* data */ INSERT INTO item (id, title) VALUES (1, 'one') ON CONFLICT (id) DO UPDATE SET title = excluded.title",
    "WITH x AS (INSERT INTO item (id, title) VALUES (2, 'two') RETURNING id) INSERT INTO part SELECT id, id FROM x",
    "UPDATE ONLY item SET role = 'a' FROM part WHERE part.item_id = item.id",
    "MERGE INTO part USING item ON part.id = item.id WHEN MATCHED THEN DELETE",
    "SELECT touch(), twice(1), pg_get_serial_sequence('part', 'id'), nextval('seq')",
    "(SELECT id FROM item) UNION ALL (VALUES (1))",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "ALTER TABLE part ADD COLUMN note TEXT, ALTER COLUMN note SET DEFAULT 'x'",
    "LOCK TABLE part IN SHARE MODE",
    "TRUNCATE part",
    "COMMENT ON COLUMN item.title IS 'GRANT; DO'",
    "REFRESH MATERIALIZED VIEW counts",
    "DROP VIEW IF EXISTS all_items",
    "DROP TRIGGER t ON item",
    "SAVEPOINT a",
    "ROLLBACK TO SAVEPOINT a",
    "RELEASE a",
    "ANALYZE item"
  ]
}
