/**
 * Introspection and typings of tables that were written by hand, and that what is said of raw rows is true.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Schema from "effect/Schema"
import type { Dialect } from "../../src/domain/Dialect.js"
import { type Column, Definition, Introspection, Migrator, Typings } from "../../src/index.js"
import * as Blueprint from "../../src/schema/Blueprint.js"
import * as Compiler from "../support/Compiler.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"

const statements = (texts: ReadonlyArray<string>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.forEach(texts, (text) => sql.unsafe(text), { discard: true }))

const fits = (tables: ReadonlyArray<Introspection.FoundTable>) =>
  tables.flatMap(({ columns }) =>
    columns.map(({ fit, kind, name, nullable, values }) =>
      [name, fit, kind, ...(nullable ? ["nullable"] : []), ...(values.length === 0 ? [] : [values.join("|")])].join(" ")
    )
  )

const on = <E>(
  { fresh }: Pick<(typeof Database.dialects)[number], "fresh">,
  body: Effect.Effect<unknown, E, SqlClient.SqlClient>
) =>
  Effect.flatMap(fresh, (database) => Effect.provide(body, Store.layer(database))).pipe(
    Logger.withMinimumLogLevel(LogLevel.Warning)
  )

it.scopedLive("on PostgreSQL, types that no kind means exactly are the nearest, and say so", () =>
  on(
    { fresh: Database.postgres },
    Effect.gen(function*() {
      yield* statements([
        "CREATE TYPE mood AS ENUM ('sad', 'it''s ok')",
        "CREATE DOMAIN email AS TEXT CHECK (VALUE LIKE '%@%')",
        `CREATE TABLE by_hand (
          id UUID PRIMARY KEY, name VARCHAR(255) NOT NULL, amount NUMERIC(10, 2), small SMALLINT NOT NULL, n INT NOT NULL,
          big BIGINT NOT NULL, ratio REAL, free DOUBLE PRECISION, at TIMESTAMPTZ, local TIMESTAMP, day DATE, tags TEXT[],
          doc JSON, mood mood, mail email, span INTERVAL, spot POINT, period TSTZRANGE, twice INT GENERATED ALWAYS AS (n * 2) STORED,
          status VARCHAR(9) CHECK (status IN ('on', 'off')), one TEXT CHECK (one = 'x'), other TEXT CHECK (other <> 'x'),
          span_of TEXT CHECK (span_of IN ('a', 'b') OR length(span_of) > 9), "Odd name" INT
        )`,
        "CREATE INDEX by_hand_lower ON by_hand (lower(name))",
        "CREATE UNIQUE INDEX by_hand_partial ON by_hand (n) WHERE n > 0",
        "CREATE INDEX by_hand_n ON by_hand (n, big)",
        "ALTER TABLE by_hand ADD UNIQUE (small)",
        "CREATE TABLE keyless (a TEXT)",
        "CREATE VIEW seen AS SELECT 1 AS one"
      ])
      const tables = yield* Introspection.read
      expect(fits(tables)).toEqual([
        "id nearest text",
        "name nearest text",
        "amount nearest text nullable",
        "small nearest integer",
        "n nearest integer",
        "big exact bigint",
        "ratio nearest double nullable",
        "free nearest double nullable",
        "at nearest timestamp nullable",
        "local nearest timestamp nullable",
        "day nearest timestamp nullable",
        "tags none json nullable",
        "doc nearest json nullable",
        "mood nearest enum nullable sad|it's ok",
        "mail nearest text nullable",
        "span none json nullable",
        "spot none json nullable",
        "period nearest text nullable",
        "twice none json nullable",
        "status nearest enum nullable on|off",
        "one exact enum nullable x",
        "other exact text nullable",
        "span_of exact text nullable",
        "Odd name nearest integer nullable",
        "a exact text nullable"
      ])
      expect(tables.map(({ indexes, key, notes, unique }) => ({ indexes, key, notes, unique }))).toEqual([
        {
          indexes: [["n", "big"]],
          key: ["id"],
          notes: ["the index by_hand_lower is in no shape", "the index by_hand_partial is in no shape"],
          unique: [["small"]]
        },
        { indexes: [], key: [], notes: ["it has no primary key"], unique: [] }
      ])
      const text = Typings.generate(tables, { dialect: "pg", source: "a test" })
      expect(text).toContain("  // no kind fits text[]\n  tags: Schema.NullOr(Schema.Unknown),\n")
      expect(text).toContain("  // no kind fits text[]\n  readonly tags: unknown\n")
      expect(text).toContain(
        "  // it is numeric(10,2), which is read as text\n  amount: Schema.NullOr(Schema.String),\n"
      )
      expect(text).toContain("// No Table is made of by_hand: \"Odd name\" is no plain identifier.\n")
      expect(text).toContain("// No Table is made of keyless: it has no primary key.\n")
      expect(text).not.toContain("Table.make")
      expect(Compiler.compile([{ name: "by-hand.ts", text }])).toBe("")
    })
  ))

it.scopedLive("on SQLite, columns that are not STRICT have the kind of their affinity, and say so", () =>
  on(
    { fresh: Database.sqlite },
    Effect.gen(function*() {
      yield* statements([
        `CREATE TABLE by_hand (
          id INTEGER PRIMARY KEY, name VARCHAR(255) NOT NULL, amount NUMERIC, ratio FLOAT, at TIMESTAMP, raw BLOB, anything,
          done BOOLEAN, status TEXT NOT NULL CHECK (status in ('on','it''s off')), twice INT GENERATED ALWAYS AS (id * 2) STORED
        )`,
        "CREATE TABLE loose (id TEXT PRIMARY KEY)",
        "CREATE TABLE strict (id TEXT PRIMARY KEY, n INT, r REAL, a ANY, j TEXT CHECK (json_valid(j))) STRICT",
        "CREATE UNIQUE INDEX strict_n ON strict (n)",
        "CREATE INDEX strict_desc ON strict (n DESC)",
        "CREATE INDEX strict_some ON strict (n) WHERE n > 0",
        "CREATE VIRTUAL TABLE words USING fts5 (word)",
        "CREATE VIEW seen AS SELECT 1 AS one"
      ])
      const tables = yield* Introspection.read
      expect(fits(tables)).toEqual([
        "id nearest integer",
        "name nearest text",
        "amount none json nullable",
        "ratio nearest double nullable",
        "at none json nullable",
        "raw none json nullable",
        "anything none json nullable",
        "done none json nullable",
        "status nearest enum on|it's off",
        "twice none json nullable",
        "id nearest text",
        "id exact text",
        "n exact bigint nullable",
        "r nearest double nullable",
        "a none json nullable",
        "j exact text nullable"
      ])
      expect(tables.map(({ name, notes, unique }) => ({ name, notes, unique }))).toEqual([
        { name: "by_hand", notes: [], unique: [] },
        { name: "loose", notes: [], unique: [] },
        {
          name: "strict",
          notes: ["the index strict_desc is in no shape", "the index strict_some is in no shape"],
          unique: [["n"]]
        }
      ])
      const text = Typings.generate(tables, { dialect: "sqlite", source: "*/ a\ntest" })
      expect(text).toMatch(
        /^\/\*\*\n \* Generated by effect-processors from \* \/ a test; do not edit, generate again\.\n \*\/\n/
      )
      expect(text).toContain("SQLite lets this key be NULL")
      expect(text).toContain("// No Table is made of by_hand: no kind fits amount.\n")
    })
  ))

it("Kysely takes the interface, and what it says may be written", () => {
  const column = (name: string, kind: Column.Kind): Column.Shape => ({
    name,
    kind,
    nullable: name === "note",
    values: []
  })
  const table: Definition.Shape = {
    name: "todos",
    columns: [column("id", "text"), column("yes", "boolean"), column("at", "timestamp"), column("note", "json")],
    key: ["id"],
    unique: [],
    indexes: []
  }
  const file = (dialect: Dialect, yes: string, selected: string) => ({
    name: `${dialect}-${yes}.ts`,
    text: `${Typings.generate([table], { dialect, source: "a test" })}
import type { Kysely } from "kysely"
export const write = (db: Kysely<Database>) =>
  db.insertInto("todos").values({ id: "a", yes: ${yes}, at: new Date(0) }).execute()
export const read = (db: Kysely<Database>): Promise<Array<${selected}>> =>
  db.selectFrom("todos").select(["yes", "at", "note"]).execute()
`
  })
  const sqlite = file("sqlite", "true", "{ yes: 0 | 1; at: string; note: string | null }")
  const pg = file("pg", "false", "{ yes: boolean; at: Date; note: unknown }")
  expect(Compiler.compile([sqlite, pg])).toBe("")
  const wrong = Compiler.compile([file("pg", "0", "{ yes: boolean; at: string; note: unknown }")])
  expect(wrong.match(/error TS\d+/g)).toEqual(["error TS2345", "error TS2322"])
})

it("tables whose names come out alike are numbered, and odd ones are named", () => {
  const table = (name: string): Definition.Shape => ({
    name,
    columns: [{ name: "id", kind: "text", nullable: false, values: [] }],
    key: ["id"],
    unique: [],
    indexes: []
  })
  const text = Typings.generate(["a_b", "a__b", "aB", "_", "_1"].map(table), { dialect: "pg", source: "a test" })
  expect([...text.matchAll(/export const (\w+)Row/g)].map((match) => match[1])).toEqual([
    "AB",
    "AB_2",
    "AB_3",
    "Table",
    "Table1"
  ])
})

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  it.scopedLive("the framework's own tables are left out", () =>
    on({ fresh }, Effect.zipRight(Migrator.prepare, Effect.map(Introspection.read, (all) => expect(all).toEqual([])))))

  it.scopedLive("the interface for Kysely says what the driver returns and what it accepts", () =>
    on(
      { fresh },
      Effect.gen(function*() {
        const table = Definition.make(
          "t",
          Schema.Struct({
            text: Schema.String,
            int: Schema.Int,
            double: Schema.Finite,
            big: Schema.BigIntFromSelf,
            yes: Schema.Boolean,
            at: Schema.DateFromSelf,
            raw: Schema.Uint8ArrayFromSelf,
            data: Schema.NullOr(Schema.Struct({ a: Schema.Array(Schema.Int) }))
          }),
          { key: ["text"] }
        )
        const sql = yield* SqlClient.SqlClient
        yield* statements(Blueprint.statements(table, dialect))
        const types = [
          ...Typings.generate([table], { dialect, source: "a test" }).matchAll(/ {2}readonly (\w+): (.*)\n/g)
        ]
        const at = new Date(1)
        const data = JSON.stringify({ a: [1] })
        const raw = new Uint8Array([1])
        const given: { readonly [column: string]: ReadonlyArray<unknown> } = {
          text: ["a", "b"],
          int: [1, 2],
          double: [0.5, 2],
          big: [3, 2n ** 62n],
          yes: dialect === "pg" ? [true, false] : [true, 0],
          at: [at, at.toISOString()],
          raw: [raw, raw],
          data: [data, null]
        }
        for (const i of [0, 1]) {
          yield* sql`INSERT INTO t ${
            sql.insert(Object.fromEntries(Object.entries(given).map(([name, all]) => [name, all[i]])) as never)
          }`
        }
        const rows = yield* sql<Record<string, unknown>>`SELECT * FROM t ORDER BY text`
        const isPg = dialect === "pg"
        const when = isPg ? at : at.toISOString()
        expect(rows.map((row) => ({ ...row, raw: row["raw"] instanceof Uint8Array }))).toEqual([
          {
            text: "a",
            int: 1,
            double: 0.5,
            big: 3,
            yes: isPg || 1,
            at: when,
            raw: true,
            data: isPg ? { a: [1] } : data
          },
          { text: "b", int: 2, double: 2, big: 2n ** 62n, yes: isPg ? false : 0, at: when, raw: true, data: null }
        ])
        expect(Object.fromEntries(types.slice(0, 8).map(([, name, type]) => [name, type]))).toEqual({
          text: "string",
          int: "number",
          double: "number",
          big: "number | bigint",
          yes: isPg ? "boolean" : "ColumnType<0 | 1, boolean | 0 | 1, boolean | 0 | 1>",
          at: isPg
            ? "ColumnType<Date, Date | string, Date | string>"
            : "ColumnType<string, Date | string, Date | string>",
          raw: "Uint8Array",
          data: isPg ? "ColumnType<unknown, string | null, string | null>" : "string | null"
        })
      })
    ))
})
