/**
 * Migrations as data: SQL text and its statements, directories, Kysely modules, digests.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as FastCheck from "fast-check"
import { sql as kyselySql } from "kysely"
import type { Kysely } from "kysely"
import { createHash } from "node:crypto"
import { writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Dialect } from "../../src/domain/Dialect.js"
import {
  Catalogue,
  KyselyMigration,
  Migration,
  MigrationDirectory,
  Migrations,
  Migrator,
  Namespace
} from "../../src/index.js"
import * as Statements from "../../src/process/Statements.js"
import * as Database from "../support/Database.js"
import * as Directory from "../support/Directory.js"
import * as Store from "../support/Store.js"

const shop = Namespace.make("shop")

const texts = (text: string, dialect: Dialect) => Statements.split(text, dialect).map((each) => each.text)

describe("statements", () => {
  it("end at a semicolon, and not at one that is quoted or commented", () => {
    const text = `SELECT ';', "a;b" -- not; here
      ; /* nor; here */ SELECT 'it''s; fine';;
      -- alone`
    for (const dialect of ["sqlite", "pg"] as const) {
      expect(texts(text, dialect)).toEqual([`SELECT ';', "a;b"`, "SELECT 'it''s; fine'"])
    }
  })

  it("on PostgreSQL know dollar quotes, escapes, nested comments and atomic bodies", () => {
    expect(texts("SELECT $$;$$; SELECT $a$ $$;$b$; $a$, $1; SELECT E'\\';'; /* /* ; */ ; */ SELECT a[1;2]", "pg"))
      .toEqual(["SELECT $$;$$", "SELECT $a$ $$;$b$; $a$, $1", "SELECT E'\\';'", "SELECT a[1", "2]"])
    const atomic = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END"
    expect(texts(`${atomic}; SELECT 3`, "pg")).toEqual([atomic, "SELECT 3"])
    expect(texts("CREATE TRIGGER t AFTER INSERT ON a EXECUTE FUNCTION f(); SELECT 1", "pg")).toHaveLength(2)
  })

  it("on SQLite know brackets, backticks and the bodies of triggers", () => {
    const trigger = "CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN SELECT CASE WHEN 1 THEN 2 END; DELETE FROM a; END"
    expect(texts(`SELECT [a;b], \`c;d\`; ${trigger}; SELECT 1`, "sqlite")).toEqual([
      "SELECT [a;b], `c;d`",
      trigger,
      "SELECT 1"
    ])
  })

  it.each([
    ["a line comment ends at a carriage return", "-- note\rCOMMIT", ["COMMIT"]],
    ["BEGIN ATOMIC is a body in a routine alone", "SELECT begin atomic FROM a; COMMIT", [
      "SELECT begin atomic FROM a",
      "COMMIT"
    ]],
    ["and there not among its parameters", "CREATE FUNCTION f(begin atomic) AS 'x'; COMMIT", [
      "CREATE FUNCTION f(begin atomic) AS 'x'",
      "COMMIT"
    ]],
    [
      "a no-break space is the letter of a name, and no dollar quote begins after it",
      "SELECT 1 \u00a0$$; COMMIT; SELECT 2 \u00a0$$",
      [
        "SELECT 1 \u00a0$$",
        "COMMIT",
        "SELECT 2 \u00a0$$"
      ]
    ],
    ["nor an escape string", "SELECT \u00a0E'\\'; COMMIT; --'", ["SELECT \u00a0E'\\'", "COMMIT"]],
    ["nor behind a byte order mark that does not come first", "SELECT 1 \ufeff$$; COMMIT; SELECT 2 \ufeff$$", [
      "SELECT 1 \ufeff$$",
      "COMMIT",
      "SELECT 2 \ufeff$$"
    ]],
    ["an escape string keeps its escapes on the next line", "SELECT E'a' -- b\n 'b\\''; COMMIT; SELECT ''", [
      "SELECT E'a' -- b\n 'b\\''",
      "COMMIT",
      "SELECT ''"
    ]]
  ])("on PostgreSQL, %s", (_, text, expected) => {
    expect(texts(text, "pg")).toEqual(expected)
  })

  it("on SQLite, a line comment goes on after a carriage return, and a byte order mark is blank", () => {
    expect(texts("-- note\rCOMMIT\n; \ufeffSELECT 1", "sqlite")).toEqual(["SELECT 1"])
  })

  it("lose nothing but semicolons, blanks and comments around them", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.array(FastCheck.constantFrom("SELECT 1", "INSERT INTO a VALUES (';')", "DROP TABLE \"x;y\"")),
        FastCheck.constantFrom(";", " ;\n", "; -- c;\n", ";/* ; */"),
        FastCheck.constantFrom<Dialect>("sqlite", "pg"),
        (statements, separator, dialect) => {
          expect(texts(statements.join(separator), dialect)).toEqual(statements)
        }
      )
    )
  })

  it("end for any text at all", () => {
    FastCheck.assert(FastCheck.property(FastCheck.string({ unit: "binary" }), (text) => {
      Statements.split(text, "pg")
      Statements.split(text, "sqlite")
    }))
  })

  it.each([
    ["BEGIN", true],
    ["begin immediate", true],
    ["/* x */ COMMIT", true],
    ["END", true],
    ["ROLLBACK", true],
    ["START TRANSACTION READ ONLY", true],
    ["PREPARE TRANSACTION 'x'", true],
    ["COMMIT PREPARED 'x'", true],
    ["ROLLBACK TO SAVEPOINT a", false],
    ["ROLLBACK WORK TO a", false],
    ["SAVEPOINT a", false],
    ["RELEASE a", false],
    ["PREPARE q AS SELECT 1", false],
    ["CREATE TABLE begin_end (id TEXT)", false],
    ["SELECT 'COMMIT'", false]
  ])("%s controls the transaction: %s", (text, expected) => {
    for (const dialect of ["sqlite", "pg"] as const) {
      expect(Statements.split(text, dialect).some(Statements.controlsTransaction)).toBe(expected)
    }
  })
})

describe("digests", () => {
  it("are SHA-256 of the exact bytes, and of the bytes with LF", () => {
    const hash = (text: string) => createHash("sha256").update(text).digest("hex")
    expect(Migration.digestOf("a\r\nb\n")).toEqual({ sha256: hash("a\r\nb\n"), textSha256: hash("a\nb\n") })
    const invalid = Uint8Array.of(0xff, 0x0d, 0x0a, 0xfe)
    expect(Migration.digestOf(invalid).textSha256)
      .toBe(createHash("sha256").update(Uint8Array.of(0xff, 0x0a, 0xfe)).digest("hex"))
  })

  it("of several parts are those of the list that sha256sum prints", () => {
    const hash = (text: string) => createHash("sha256").update(text).digest("hex")
    expect(Migration.fromSql({ up: "u", down: "d" }).digest?.sha256)
      .toBe(hash(`${hash("d")}  down.sql\n${hash("u")}  up.sql\n`))
  })

  it("tell one step from another when processors share a namespace", () => {
    const a = Migration.fromSql({ up: "SELECT 1", down: "SELECT 2" })
    const { digest: _, ...bare } = a
    const isMerged = (one: Migration.Migration, other: Migration.Migration) =>
      Either.isRight(Migration.merge("shop", [{ "1_a": one }, { "1_a": other }]))
    expect(isMerged(a, Migration.fromSql({ up: "SELECT 1", down: "SELECT 2" }))).toBe(true)
    expect(isMerged(a, Migration.fromSql({ up: "SELECT 1", down: "SELECT 3" }))).toBe(false)
    expect(isMerged(bare, bare)).toBe(true)
    expect(isMerged(bare, { up: Effect.void, down: Effect.void })).toBe(false)
  })
})

describe("a directory", () => {
  const sqlPair = { "002-b.up.sql": "CREATE TABLE b (id TEXT);", "002-b.down.sql": "DROP TABLE b;" }

  it.scopedLive("is read in the order of numbers: modules, SQL for both dialects, SQL for each", () =>
    Effect.gen(function*() {
      const path = yield* Directory.make({
        "001-a.js": Directory.module("a"),
        ...sqlPair,
        "010-c.up.pg.sql": "-- transactional: false\nCREATE TABLE c (id UUID)",
        "010-c.up.sqlite.sql": "CREATE TABLE c (id BLOB)",
        "010-c.down.sql": "DROP TABLE c",
        "001-a.d.ts": "",
        "README.md": "",
        ".gitkeep": ""
      })
      const loaded = yield* Migrations.fromDirectory(path)
      expect(Migration.order(loaded)).toEqual(["001-a", "002-b", "010-c"])
      expect(loaded["001-a"]?.digest).toEqual(Migration.digestOf(Directory.module("a")))
      expect(loaded["010-c"]?.transactional).toBe(false)
      const fresh = yield* Database.sqlite
      const items = yield* Effect.provide(
        Effect.zipRight(Migrator.up(shop, loaded), Catalogue.read),
        Store.layer(fresh)
      )
      expect(items.filter((item) => !Catalogue.isOwn(item)).map((item) => item.definition)).toEqual([
        "CREATE TABLE a (id TEXT)",
        "CREATE TABLE b (id TEXT)",
        "CREATE TABLE c (id BLOB)"
      ])
    }))

  it.scopedLive("outside of which nothing is: a module runs from a copy of the bytes that were hashed", () =>
    Effect.gen(function*() {
      const path = yield* Directory.make({ "001-a.js": Directory.module("a") })
      const read = yield* MigrationDirectory.read(path)
      writeFileSync(join(path, "001-a.js"), "throw new Error('the bytes were read again')")
      const loaded = yield* MigrationDirectory.load(read)
      expect(loaded["001-a"]?.digest).toEqual(Migration.digestOf(Directory.module("a")))
    }))

  it.scopedLive("a module may import another of the directory, and no other file", () =>
    Effect.gen(function*() {
      const shared = yield* Directory.make({
        "001-a.js": Directory.module("a"),
        "002-b.js": `export { up, down } from "./001-a.js"`
      })
      expect(Object.keys(yield* Migrations.fromDirectory(shared))).toEqual(["001-a", "002-b"])
      const reaching = yield* Directory.make({ "001-a.js": `export { up, down } from "../Migration.test.js"` })
      expect(yield* Effect.flip(Migrations.fromDirectory(reaching))).toMatchObject({ _tag: "MigrationUnreadable" })
    }))

  it.scopedLive.each(
    [
      ["a stray file", { "helper.js": "" }, "MigrationMisnamed"],
      ["an id in upper case", { "001-A.js": Directory.module("a") }, "MigrationMisnamed"],
      ["a Cyrillic letter in the name", { "001-\u0430.js": Directory.module("a") }, "MigrationLookAlike"],
      ["a Cyrillic letter in the extension", { ...sqlPair, "003-c.up.\u0455ql": "" }, "MigrationLookAlike"],
      [
        "two ids that look the same",
        { "001-a.js": Directory.module("a"), "1_a.js": Directory.module("b") },
        "MigrationMisnamed"
      ],
      [
        "a module beside SQL of the same step",
        { ...sqlPair, "002-b.js": Directory.module("b") },
        "MigrationUnreadable"
      ],
      ["up without down", { "001-a.up.sql": "SELECT 1" }, "MigrationUnreadable"],
      ["SQL for one dialect only", { "001-a.up.pg.sql": "", "001-a.down.sql": "" }, "MigrationUnreadable"],
      ["a module without up", { "001-a.js": "export const down = 1" }, "MigrationUnreadable"],
      ["a module that throws", { "001-a.js": "throw new Error('no')" }, "MigrationUnreadable"],
      ["TypeScript that this Node cannot run", { "001-a.ts": Directory.module("a") }, "MigrationUnreadable"]
    ] as const
  )("with %s is refused", ([, files, tag]) =>
    Effect.gen(function*() {
      const path = yield* Directory.make({ ...files })
      expect(yield* Effect.flip(Migrations.fromDirectory(path))).toMatchObject({ _tag: tag })
    }))

  it.live("that is not there is refused", () =>
    Effect.gen(function*() {
      const failure = yield* Effect.flip(Migrations.fromDirectory(join(tmpdir(), "no-such-directory")))
      expect(failure).toMatchObject({ _tag: "MigrationUnreadable" })
    }))
})

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  /** A migration as Powerhouse writes it. */
  const powerhouse = {
    up: async (db: Kysely<any>): Promise<void> => { // oxlint-disable-line typescript/no-explicit-any
      await db.schema
        .createTable("drive_node")
        .addColumn("id", "varchar(255)", (column) => column.primaryKey())
        .addColumn("size", "integer", (column) => column.notNull().defaultTo(0))
        .ifNotExists()
        .execute()
      await db.schema.createIndex("drive_node_size").on("drive_node").column("size").execute()
      await db.insertInto("drive_node").values([{ id: "a", size: 1 }, { id: "b", size: 2 }]).execute()
      const updated = await db.updateTable("drive_node").set({ size: 3 }).where("id", "=", "a")
        .executeTakeFirstOrThrow()
      if (updated.numUpdatedRows !== 1n) throw new Error(`updated ${updated.numUpdatedRows} rows`)
      const { rows } = await kyselySql<{ n: number }>`SELECT sum(size) AS n FROM drive_node`.execute(db)
      if (Number(rows[0]?.n) !== 5) throw new Error(`the sum is ${rows[0]?.n}`)
      await db.transaction().execute(async (inner) => {
        await inner.deleteFrom("drive_node").execute()
        throw new Error("taken back")
      }).catch(() => undefined)
    },
    down: async (db: Kysely<any>): Promise<void> => { // oxlint-disable-line typescript/no-explicit-any
      await db.schema.dropTable("drive_node").execute()
    }
  }

  it.scopedLive("a Kysely migration runs unchanged, up and down, in our transaction", () =>
    Effect.gen(function*() {
      const migrations = KyselyMigration.fromModules({ "0001_nodes": powerhouse })
      const sql = yield* SqlClient.SqlClient
      yield* Migrator.up(shop, migrations)
      expect(yield* sql`SELECT id, size FROM drive_node ORDER BY id`).toEqual([{ id: "a", size: 3 }, {
        id: "b",
        size: 2
      }])
      yield* Migrator.down(shop, migrations, "nothing")
      expect((yield* Catalogue.read).filter((item) => !Catalogue.isOwn(item))).toEqual([])
    }).pipe(Effect.provide(Layer.unwrapScoped(Effect.map(fresh, Store.layer)))))

  it.scopedLive("a Kysely migration that throws leaves nothing, nor does one whose statement fails", () =>
    Effect.gen(function*() {
      const throwing = KyselyMigration.fromModule({
        up: async (db: Kysely<unknown>) => {
          await db.schema.createTable("half").addColumn("id", "text").execute()
          throw new Error("on its way")
        }
      })
      expect(yield* Effect.flip(Migrator.up(shop, { "0001_half": throwing }))).toMatchObject({
        _tag: "MigrationFailed",
        statements: 1,
        cause: { _tag: "SqlError", cause: { message: "on its way" } }
      })
      const failing = KyselyMigration.fromModule({
        up: async (db: Kysely<unknown>) => {
          await db.schema.createTable("half").addColumn("id", "text").execute()
          await db.schema.dropTable("nowhere").execute()
        }
      })
      expect(yield* Effect.flip(Migrator.up(shop, { "0001_half": failing }))).toMatchObject({
        _tag: "MigrationFailed",
        statements: 2,
        cause: { _tag: "SqlError", message: "Failed to execute statement" }
      })
      expect((yield* Catalogue.read).filter((item) => !Catalogue.isOwn(item))).toEqual([])
    }).pipe(Effect.provide(Layer.unwrapScoped(Effect.map(fresh, Store.layer)))))

  it.scopedLive("a Kysely module of a directory is found to be one", () =>
    Effect.gen(function*() {
      const path = yield* Directory.make({
        "001-k.mjs": `
          import { sql } from "kysely"
          export async function up(db) {
            await db.schema.createTable("k").addColumn("id", "text").execute()
            await sql\`INSERT INTO k VALUES (\${"x"})\`.execute(db)
          }
          export async function down(db) { await db.schema.dropTable("k").execute() }`
      })
      const migrations = yield* Migrations.fromDirectory(path)
      const planned = yield* Migrator.plan(shop, migrations)
      expect(planned[0]?.statements.map(({ text }) => text.split(" ", 2).join(" "))).toEqual([
        "create table",
        "INSERT INTO"
      ])
      yield* Migrator.up(shop, migrations)
      yield* Migrator.redo(shop, migrations)
      const sql = yield* SqlClient.SqlClient
      expect(yield* sql`SELECT id FROM k`).toEqual([{ id: "x" }])
    }).pipe(Effect.provide(Layer.unwrapScoped(Effect.map(fresh, Store.layer)))))
})
