/**
 * What a rebuild does to tables of all shapes, and what tells one row from another.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as fc from "fast-check"
import * as Test from "../../layers/Test.js"
import { DocumentModel, Namespace, Policy, Processor, Reactor, Rebuild, Source, Table } from "../../src/index.js"
import type { Migration } from "../../src/index.js"
import type * as Pages from "../../src/store/Pages.js"
import * as RowHash from "../../src/store/RowHash.js"
import * as Transaction from "../../src/store/Transaction.js"
import * as Database from "../support/Database.js"
import { onFresh, silent } from "../support/Rebuilds.js"
import * as Store from "../support/Store.js"
import * as Program from "../table/Program.js"

const sqlOf = (...statements: ReadonlyArray<string>): Migration.Migration => ({
  up: Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.forEach(statements, (text) => sql.unsafe(text))),
  down: Effect.void
})

const Model = DocumentModel.make("test/shape", { RUN: Schema.Struct({ place: Schema.Int }) })

type Step = Effect.Effect<unknown, SqlError, SqlClient.SqlClient>

/** A processor that runs a list of effects, one an operation. */
const running = (
  name: string,
  steps: ReadonlyArray<Step>,
  options: {
    readonly tables: ReadonlyArray<Processor.Owned>
    readonly migrations: Migration.Migrations
    readonly operations?: number
  }
) =>
  Processor.make(name, {
    namespace: name,
    tables: options.tables,
    migrations: options.migrations,
    batch: { operations: options.operations ?? 1_000 },
    handler: Processor.onOperations(Model, { RUN: ({ input }) => steps[input.place] ?? Effect.void })
  }).pipe(Processor.withPolicy({ ...Policy.standard, SqlError: Policy.skip }))

/** An operation for each step: of one document, or of the documents that are named. */
const strandsOf = (steps: ReadonlyArray<Step>, documentOf: (place: number) => string = (place) => `d${place}`) => {
  const next = new Map<string, number>()
  return steps.map((_, place) => {
    const documentId = documentOf(place)
    const from = next.get(documentId) ?? 0
    next.set(documentId, from + 1)
    return Test.strand({ documentId, documentType: Model.type, from, operations: [{ type: "RUN", input: { place } }] })
  })
}

const statement = (text: string): Step => Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(text))

const query = (namespace: string, text: string) =>
  Namespace.query(
    namespace,
    Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe<{ readonly [column: string]: unknown }>(text))
  )

const meddle = (namespace: string, text: string) => Namespace.within(namespace, statement(text))

/** Runs a processor to the end of its source, and what is asked of the source afterwards. */
const follow = (
  processor: Processor.Processor<never, SqlClient.SqlClient>,
  strands: ReadonlyArray<Source.Unplaced>
) => {
  const source = Source.fromIterable("s", strands)
  const on = <A, E>(effect: Effect.Effect<A, E, Source.Source | Namespace.Namespaces>) =>
    Effect.provideService(effect, Source.Source, source)
  return Effect.as(on(Reactor.run(processor)), on)
}

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  const byDialect = <A>(pg: A, sqlite: A): A => dialect === "pg" ? pg : sqlite

  it.scopedLive(
    "after random programs a replay in other batches is live, what is spoilt is found, and a rebuild heals it",
    () =>
      onFresh(fresh)(Effect.gen(function*() {
        const runtime = yield* Effect.runtime<Namespace.Namespaces>()
        const all = Program.tables("live")
        const tables = [all.plain, all.member, all.mark] as ReadonlyArray<Processor.Owned>
        const migrations = { "0001_all": { up: Program.create("live"), down: Effect.void } }
        let runs = 0
        const seen = { rows: 0, spoilt: 0 }
        yield* Effect.promise(() =>
          fc.assert(
            fc.asyncProperty(Program.program, fc.constantFrom(1, 2, 5, 1_000), async (program, operations) => {
              const name = `run-${runs++}`
              const steps = program.flat().map((step): Step =>
                Effect.catchTag(step.run(all, "live"), "TakenBack", () => Effect.void)
              )
              const live = running(name, steps, { tables, migrations })
              const replayed = running(name, steps, { tables, migrations, operations })
              await Effect.runPromise(
                Effect.gen(function*() {
                  const on = yield* follow(live, strandsOf(steps))
                  const stored = Namespace.query(name, Program.stored("live"))
                  const before = yield* stored
                  const verdict = yield* on(Rebuild.verify(replayed))
                  expect(verdict.tables.flatMap(({ differences }) => differences)).toEqual([])
                  yield* meddle(name, "UPDATE live_plain SET flag = NOT flag")
                  yield* meddle(name, "UPDATE live_member SET mail = NULL WHERE mail IS NOT NULL")
                  const isSpoilt = JSON.stringify(yield* stored, plain) !== JSON.stringify(before, plain)
                  expect((yield* on(Rebuild.verify(live))).isClean).toBe(!isSpoilt)
                  yield* on(Rebuild.run(replayed))
                  expect(yield* stored).toEqual(before)
                  seen.rows += before.plain.length + before.member.length + before.mark.length
                  if (isSpoilt) seen.spoilt++
                }).pipe(Effect.provide(runtime))
              )
            }),
            { numRuns: byDialect(8, 30) }
          )
        )
        expect(seen.rows).toBeGreaterThan(10)
        expect(seen.spoilt).toBeGreaterThan(3)
      }))
  )

  it.scopedLive("tables that refer to each other, or to themselves, are emptied and filled in an order that they allow", () =>
    onFresh(fresh)(Effect.gen(function*() {
      const text = Schema.String
      const Child = Table.make(
        "child",
        Schema.Struct({ id: text, board: text, parent: text, boss: Schema.NullOr(text) }),
        { key: ["id"], document: "board" }
      )
      const Parent = Table.make("parent", Schema.Struct({ id: text, board: text }), { key: ["id"], document: "board" })
      const migrations = {
        "0001_family": sqlOf(
          "CREATE TABLE parent (id TEXT NOT NULL PRIMARY KEY, board TEXT NOT NULL)",
          "CREATE TABLE child (id TEXT NOT NULL PRIMARY KEY, board TEXT NOT NULL, parent TEXT NOT NULL REFERENCES " +
            "parent (id), boss TEXT REFERENCES child (id))"
        )
      }
      const steps = ["a", "b"].flatMap((board) => [
        Parent.insert({ id: `p-${board}`, board }),
        Child.insert({ id: `z-${board}`, board, parent: `p-${board}`, boss: null }),
        Child.insert({ id: `y-${board}`, board, parent: `p-${board}`, boss: `z-${board}` }),
        Child.insert({ id: `x-${board}`, board, parent: `p-${board}`, boss: `y-${board}` })
      ])
      // Named in the order that would not do.
      const processor = running("family", steps, { tables: [Child, Parent], migrations })
      const on = yield* follow(processor, strandsOf(steps, (place) => place < 4 ? "a" : "b"))
      const rows = query("family", "SELECT id, parent, boss FROM child ORDER BY id")
      const before = yield* rows
      expect(before).toHaveLength(6)
      yield* meddle("family", "UPDATE child SET boss = NULL")
      yield* on(Rebuild.run(processor, { documentId: "a" }))
      expect((yield* on(Rebuild.verify(processor))).tables[0]?.different).toBe(2)
      yield* on(Rebuild.run(processor))
      expect(yield* rows).toEqual(before)
      yield* meddle("family", "UPDATE child SET boss = NULL")
      yield* on(Rebuild.run(processor, { how: "in place" }))
      yield* on(Reactor.run(processor))
      expect(yield* rows).toEqual(before)
    })))

  it.scopedLive("in a circle they can be on SQLite, and are refused on PostgreSQL", () =>
    onFresh(fresh)(Effect.gen(function*() {
      const row = Schema.Struct({ id: Schema.String, other: Schema.NullOr(Schema.String) })
      const One = Table.make("one", row, { key: ["id"] })
      const Two = Table.make("two", row, { key: ["id"] })
      const migrations = {
        "0001_circle": sqlOf(
          "CREATE TABLE one (id TEXT NOT NULL PRIMARY KEY, other TEXT" + byDialect(")", " REFERENCES two (id))"),
          "CREATE TABLE two (id TEXT NOT NULL PRIMARY KEY, other TEXT REFERENCES one (id))",
          byDialect("ALTER TABLE one ADD FOREIGN KEY (other) REFERENCES two (id)", "SELECT 1")
        )
      }
      const steps = [
        One.insert({ id: "1", other: null }),
        Two.insert({ id: "2", other: "1" }),
        One.update({ id: "1" }, { other: "2" })
      ]
      const processor = running("circle", steps, { tables: [One, Two], migrations })
      const on = yield* follow(processor, strandsOf(steps))
      yield* meddle("circle", "UPDATE one SET other = NULL")
      if (dialect === "pg") {
        const failure = yield* Effect.flip(on(Rebuild.run(processor)))
        expect(failure).toMatchObject({ _tag: "NotRebuildable" })
        expect(failure.message).toMatch(/refer to each other in a circle/)
      } else {
        yield* on(Rebuild.run(processor))
        expect(yield* query("circle", "SELECT other FROM one")).toEqual([{ other: "2" }])
      }
    })))

  it.scopedLive("numbers that the database gives go on behind those of the replay, and no other document's is taken", () =>
    onFresh(fresh)(Effect.gen(function*() {
      const Note = Table.make("note", Schema.Struct({ id: Schema.String, board: Schema.String }), {
        key: ["id"],
        document: "board"
      })
      const migrations = {
        "0001_note": sqlOf(
          "CREATE TABLE note (n " +
            byDialect("BIGINT GENERATED ALWAYS AS IDENTITY", "INTEGER") +
            " PRIMARY KEY, id TEXT NOT NULL UNIQUE, board TEXT NOT NULL, " +
            `shout TEXT GENERATED ALWAYS AS (upper(id)) ${byDialect("STORED", "VIRTUAL")})`
        )
      }
      const steps = ["a1", "b1", "a2", "b2"].map((id) => Note.insert({ id, board: id.slice(0, 1) }))
      const processor = running("numbered", steps, { tables: [Note], migrations })
      const on = yield* follow(processor, strandsOf(steps, (place) => place % 2 === 0 ? "a" : "b"))
      const rows = query("numbered", "SELECT n, id, shout FROM note ORDER BY n")
      const numbered = ["a1", "b1", "a2", "b2"].map((id, i) => ({ n: i + 1, id, shout: id.toUpperCase() }))
      expect(yield* rows).toEqual(numbered)
      yield* meddle("numbered", "DELETE FROM note WHERE id = 'b1'")
      yield* on(Rebuild.run(processor))
      expect(yield* rows).toEqual(numbered)
      yield* meddle("numbered", "INSERT INTO note (id, board) VALUES ('c1', 'c')")
      expect(yield* rows).toEqual([...numbered, { n: 5, id: "c1", shout: "C1" }])
      yield* on(Rebuild.run(processor, { documentId: "b" }))
      expect((yield* rows).map((row) => row["id"])).toEqual(["a1", "a2", "c1", "b1", "b2"])
      // One who writes more than was written before comes further than the live table ever was.
      const more = steps.map((step, i) => Effect.zipRight(step, Note.insert({ id: `more ${i}`, board: "a" })))
      yield* on(Rebuild.run(running("numbered", more, { tables: [Note], migrations })))
      yield* meddle("numbered", "INSERT INTO note (id, board) VALUES ('d1', 'd')")
      expect((yield* rows).map(({ n }) => n)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
      yield* meddle("numbered", "DELETE FROM note WHERE id = 'd1'")
      yield* on(Rebuild.run(processor))
      expect((yield* on(Rebuild.verify(processor, { documentId: "b" }))).isClean).toBe(true)
    })))

  it.scopedLive("values arrive as they were stored, in columns of any type and of none", () =>
    onFresh(fresh)(Effect.gen(function*() {
      const Value = Table.make("value", Schema.Struct({ id: Schema.String }), { key: ["id"] })
      const values = byDialect(
        [
          "'gloomy', ARRAY['gloomy', 'glad']::mood[], 3.10::numeric, '{\"a\": 1}'::jsonb, '\\x00ff'::bytea, " +
          "'2026-01-01T00:00:00.123456Z'::timestamptz, 'infinity'::double precision, ARRAY[1, NULL, 3], 'x'::short",
          "NULL, NULL, 'NaN', 'null', '', '-infinity', '-0', '{}', NULL"
        ],
        [
          "3.0, 3, 0.1, 1e999, -9223372036854775808, x'00ff', 'it''s', 'a' || char(0) || 'b', '3'",
          "NULL, x'', '', -0.0, 5e-324, 9007199254740993, '{\"a\": 1.0}', char(0), 1e15"
        ]
      )
      const migrations = {
        "0001_value": sqlOf(
          ...byDialect([
            "CREATE TYPE mood AS ENUM ('glad', 'gloomy')",
            "CREATE DOMAIN short AS TEXT CHECK (length(value) < 3)"
          ], []),
          "CREATE TABLE value (id TEXT NOT NULL PRIMARY KEY, " + byDialect(
            "a mood, b mood[], c NUMERIC(9, 2), d JSONB, e BYTEA, f TIMESTAMPTZ, g DOUBLE PRECISION, h INTEGER[], i short)",
            "a, b REAL, c NUMERIC, d, e, f BLOB, g TEXT, h, i ANY)"
          )
        )
      }
      const steps = values.map((list, i) => statement(`INSERT INTO value VALUES ('v${i}', ${list})`))
      const processor = running("values", steps, { tables: [Value], migrations })
      const on = yield* follow(processor, strandsOf(steps))
      const rows = query(
        "values",
        byDialect(
          "SELECT id, value::text AS all FROM value ORDER BY id",
          "SELECT id, " + Array.from("abcdefghi", (name) =>
            `typeof(${name}) || quote(${name}) || hex(${name}) AS ${name}`)
            .join(", ") +
            " FROM value ORDER BY id"
        )
      )
      const before = yield* rows
      expect(before).toHaveLength(2)
      yield* on(Rebuild.run(processor))
      expect(yield* rows).toEqual(before)
    })))

  it.scopedLive("more rows than a page holds all arrive", () =>
    onFresh(fresh)(Effect.gen(function*() {
      const Many = Table.make("many", Schema.Struct({ team: Schema.String, n: Schema.Int, text: Schema.String }), {
        key: ["team", "n"]
      })
      const migrations = {
        "0001_many": sqlOf(
          "CREATE TABLE many (team TEXT NOT NULL, n BIGINT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (team, n))"
        )
      }
      const count = byDialect(23_456, 3_456)
      const steps = [
        Effect.forEach(
          Array.from({ length: count }, (_, n) => n),
          (n) => Many.insert({ team: `t${n % 7}`, n, text: "x" }),
          { discard: true }
        )
      ]
      const processor = running("many", steps, { tables: [Many], migrations })
      const on = yield* follow(processor, strandsOf(steps))
      yield* meddle("many", "DELETE FROM many WHERE n % 2 = 0")
      yield* on(Rebuild.run(processor))
      expect(yield* query("many", "SELECT count(*) AS n, sum(n) AS sum FROM many")).toMatchObject([{ n: count }])
      expect((yield* on(Rebuild.verify(processor))).isClean).toBe(true)
    })))

  it.scopedLive("one place alone has no shadow: it says so, and is rebuilt in place", () =>
    Effect.flatMap(fresh, (database) =>
      Effect.gen(function*() {
        const One = Table.make("one", Schema.Struct({ id: Schema.String }), { key: ["id"] })
        const steps = [One.insert({ id: "1" })]
        const migrations = { "0001_one": sqlOf("CREATE TABLE one (id TEXT NOT NULL PRIMARY KEY)") }
        const processor = running("single", steps, { tables: [One], migrations })
        const on = yield* follow(processor, strandsOf(steps))
        yield* meddle("single", "DELETE FROM one")
        for (const work of [Effect.asVoid(Rebuild.verify(processor)), Effect.asVoid(Rebuild.run(processor))]) {
          const failure = yield* Effect.flip(on(work))
          expect(failure).toMatchObject({ _tag: "NotRebuildable" })
          expect(failure.message).toMatch(/no place beside namespace single: .*; or rebuild it in place$/)
        }
        yield* on(Rebuild.run(processor, { how: "in place" }))
        yield* on(Reactor.run(processor))
        expect(yield* query("single", "SELECT id FROM one")).toEqual([{ id: "1" }])
      }).pipe(
        Effect.provide(Layer.merge(Layer.provideMerge(Namespace.layerSingle, Store.layer(database)), silent))
      )))

  describe("a row's hash", () => {
    const Spelt = Table.make(
      "spelt",
      Schema.Struct({
        id: Schema.String,
        json: Schema.NullOr(Schema.Unknown),
        double: Schema.NullOr(Schema.Number),
        at: Schema.NullOr(Schema.DateFromSelf)
      }),
      { key: ["id"] }
    )
    const create = byDialect(
      "CREATE TABLE spelt (id TEXT, json JSONB, double DOUBLE PRECISION, at TIMESTAMPTZ)",
      "CREATE TABLE spelt (id TEXT, json TEXT, double, at TEXT)"
    )

    /** The rows that differ between a live table and one beside it. */
    const differing = (live: ReadonlyArray<string>, replayed: ReadonlyArray<string>) =>
      Effect.gen(function*() {
        const { aside, open } = yield* Namespace.Namespaces
        const sql = yield* open(Namespace.make("spelling"))
        const beside = yield* aside(Namespace.make("spelling"))
        const fill = (on: SqlClient.SqlClient, rows: ReadonlyArray<string>) =>
          Effect.forEach([
            "DROP TABLE IF EXISTS spelt",
            create,
            `INSERT INTO spelt VALUES ${rows.map((row) => `(${row})`).join(", ")}`
          ], (text) => on.unsafe(text))
        yield* fill(sql, live)
        yield* fill(beside.sql, replayed)
        const paged: Pages.Paged = { name: "spelt", key: [{ name: "id", type: "text" }], where: [] }
        const comparison = yield* Effect.provideService(
          Transaction.run(RowHash.compare(
            { sql, schema: undefined, isElsewhere: false },
            beside.schema === undefined
              ? { sql: beside.sql, schema: undefined, isElsewhere: true }
              : { sql, schema: beside.schema, isElsewhere: false },
            RowHash.ofDefinition(dialect, Spelt.definition, paged),
            100
          )),
          SqlClient.SqlClient,
          sql
        )
        expect(comparison.hash === comparison.replayedHash).toBe(comparison.different === 0)
        return comparison.differences.map(({ columns, key, where }) =>
          [where, ...Object.values(key), ...columns].join(" ")
        )
      })

    it.scopedLive("is the same however a value is spelt", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const live = [
          `'a', '{"a":1,"b":[1.0,{"c":2,"d":0.1}]}', 3, '2026-01-01T00:00:00.000Z'`,
          `'b', '[]', 0.0, '2026-01-01T00:00:00.120Z'`
        ]
        const replayed = [
          `'b', ' [ ] ', -0.0, '2026-01-01T00:00:00.12Z'`,
          `'a', '{ "b": [1, {"d": 1e-1, "c": 2.0}], "a": 1 }', 3.0, '2026-01-01T00:00:00.000Z'`
        ]
        expect(yield* differing(live, byDialect(replayed, [replayed[0]!.replace(".12Z", ".120Z"), replayed[1]!])))
          .toEqual([])
        expect(yield* differing(["'n', NULL, NULL, NULL"], ["'n', NULL, NULL, NULL"])).toEqual([])
        const odd = byDialect("'n', '1', 'NaN', 'infinity'", "'n', 'no JSON', 'no number', 'no time'")
        expect(yield* differing([odd], [odd])).toEqual([])
      })))

    it.scopedLive("tells values apart that are not the same", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const pairs = [
          ["NULL, 1, NULL", "'null', 1, NULL", "json"],
          ["'{}', 1, NULL", "'[]', 1, NULL", "json"],
          ["'{\"a\":1}', 1, NULL", "'[\"a\",1]', 1, NULL", "json"],
          ["'[\"object\"]', 1, NULL", "'{}', 1, NULL", "json"],
          ["'1', 1, NULL", "'\"1\"', 1, NULL", "json"],
          ["NULL, 1, NULL", "NULL, 1.0000000000000002, NULL", "double"],
          ["NULL, 0, NULL", "NULL, NULL, NULL", "double"],
          ["NULL, 1, NULL", byDialect("NULL, 'NaN', NULL", "NULL, '1', NULL"), "double"],
          ["NULL, 1, '2026-01-01T00:00:00.000Z'", "NULL, 1, '2026-01-01T00:00:00.001Z'", "at"]
        ] as const
        for (const [one, other, column] of pairs) {
          expect(yield* differing([`'r', ${one}`], [`'r', ${other}`])).toEqual([`changed r ${column}`])
        }
      })))

    it.scopedLive("counts rows that share a key, or have none of it", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const row = (id: string, n: number) => `${id}, NULL, ${n}, NULL`
        const twice = Array.from({ length: 1_200 }, (_, n) => row("'same'", n))
        expect(yield* differing(twice, twice.toReversed())).toEqual([])
        expect(yield* differing([...twice, row("'same'", 7)], twice)).toEqual(["extra same"])
        expect(yield* differing(twice.slice(1), twice)).toEqual(["missing same"])
        expect(yield* differing([row("'a'", 1)], [row("'b'", 1)])).toEqual(["extra a", "missing b"])
        const keyless = [...twice, row("NULL", 1), row("NULL", 1), row("NULL", 2)]
        expect(yield* differing(keyless, keyless)).toEqual([])
        expect(yield* differing(keyless, keyless.slice(0, -1))).toEqual(["extra "])
      })))
  })
})

const plain = (_: string, value: unknown) => typeof value === "bigint" ? `${value}n` : value
