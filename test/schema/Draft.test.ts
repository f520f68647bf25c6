/**
 * Drafts: what a difference refuses, what it keeps, and how it is written down, on SQLite and on PostgreSQL.
 */
import * as Model from "@effect/sql/Model"
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { transformSync } from "esbuild"
import * as Sqlite from "../../layers/Sqlite.js"
import {
  Catalogue,
  Definition,
  Draft,
  Introspection,
  Migration,
  MigrationDirectory,
  Migrator,
  Namespace
} from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Directory from "../support/Directory.js"
import * as Store from "../support/Store.js"

const shop = Namespace.make("shop")
const shadow = Sqlite.layerMemory

const todo = { id: Schema.String, title: Schema.String, done: Schema.Boolean }
const todos = Definition.make("todos", Schema.Struct(todo), { key: ["id"] })
const made = { "0001_todos": Draft.migration(Draft.initial([todos])) }

const fields = (more: Schema.Struct.Fields) =>
  Definition.make("todos", Schema.Struct({ ...todo, ...more }), { key: ["id"] })

const run = (text: string) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe<Record<string, unknown>>(text))

const described = ({ changes }: { readonly changes: ReadonlyArray<Draft.Change> }) => changes.map(Draft.describe)

const catalogue = Effect.map(
  Catalogue.read,
  (items) => Catalogue.render(items.filter((item) => !Catalogue.isOwn(item)))
)

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  const isPg = dialect === "pg"
  const yes = isPg ? "TRUE" : "1"
  const no = isPg ? "FALSE" : "0"

  const test = <E>(title: string, body: () => Effect.Effect<unknown, E, SqlClient.SqlClient | Scope.Scope>) =>
    it.scopedLive(title, () =>
      Effect.flatMap(fresh, (database) => Effect.provide(body(), Store.layer(database))).pipe(
        Logger.withMinimumLogLevel(LogLevel.Error)
      ))

  /** From one definition to another, on a database with rows. */
  const moved = (
    from: ReadonlyArray<Definition.Definition>,
    to: ReadonlyArray<Definition.Definition>,
    rows: ReadonlyArray<string>,
    options: Omit<Draft.Options, "shadow"> = {}
  ) =>
    Effect.gen(function*() {
      const one = { "0001_a": Draft.migration(Draft.initial(from)) }
      const draft = yield* Draft.difference(shop, one, to, { ...options, shadow })
      const two = { ...one, "0002_b": Draft.migration(draft) }
      yield* Migrator.up(shop, one)
      yield* Effect.forEach(rows, run)
      return { draft, two, up: Migrator.up(shop, two), down: Migrator.down(shop, two, { to: "0001_a" }) }
    })

  describe("a difference refuses", () => {
    test("what may lose or refuse rows, and names each", () =>
      Effect.gen(function*() {
        const changed = Definition.make(
          "todos",
          Schema.Struct({ id: Schema.String, title: Schema.Int }),
          { key: ["id"], unique: [["title"]] }
        )
        const failure = yield* Effect.flip(Draft.difference(shop, made, [changed], { shadow }))
        expect(failure).toMatchObject({ _tag: "LossyChange" })
        expect(failure.message.split("\n")).toEqual([
          "column dropped: todos.done (boolean); its values are lost",
          "kind changed: todos.title (text → integer); values that do not fit are refused",
          "unique added: todos (title); rows with the same values are refused",
          "say allowLossy: true if that is meant, or name a rename"
        ])
        const gone = yield* Effect.flip(Draft.difference(shop, made, [], { shadow }))
        expect(gone).toMatchObject({ _tag: "LossyChange", changes: [{ what: "table dropped", table: "todos" }] })
      }))

    test("a new column that takes no NULL, until it is told what rows get", () =>
      Effect.gen(function*() {
        const more = [fields({ rank: Schema.Int })]
        const wanted = yield* Effect.flip(Draft.difference(shop, made, more, { shadow }))
        expect(wanted).toMatchObject({ _tag: "DefaultWanted", table: "todos", column: "rank", reason: undefined })
        expect(wanted.message).toContain("defaults: { todos: { rank: … } }")
        const unfit = yield* Effect.flip(
          Draft.difference(shop, made, more, { shadow, defaults: { todos: { rank: 0.5 } } })
        )
        expect(unfit).toMatchObject({ _tag: "DefaultWanted", reason: expect.stringContaining("0.5") })
        const nullable = { "0001_todos": Draft.migration(Draft.initial([fields({ rank: Schema.NullOr(Schema.Int) })])) }
        const required = yield* Effect.flip(Draft.difference(shop, nullable, more, { shadow }))
        expect(required).toMatchObject({ _tag: "DefaultWanted", column: "rank", reason: undefined })
        const stray = yield* Effect.flip(
          Draft.difference(shop, made, more, { shadow, defaults: { todos: { rank: 1, rnak: 1 } } })
        )
        expect(stray).toMatchObject({ _tag: "DefaultWanted", column: "rnak", reason: "there is no such column" })
      }))

    test("a rename of nothing, and one to nothing", () =>
      Effect.gen(function*() {
        const failure = yield* Effect.flip(Draft.difference(shop, made, [todos], {
          shadow,
          renames: { tables: { tasks: "todos" }, columns: { todos: { name: "title", done: "state" } } }
        }))
        expect(failure).toMatchObject({ _tag: "RenameUnknown", names: ["tasks", "todos.name", "todos.done"] })
      }))

    test("a migration that does not run on an empty database", () =>
      Effect.gen(function*() {
        const broken = { "0001_a": Migration.fromSql({ up: "DROP TABLE nothing", down: "" }) }
        expect(yield* Effect.flip(Draft.difference(shop, broken, [todos], { shadow }))).toMatchObject({
          _tag: "ShadowFailed",
          id: "0001_a"
        })
      }))

    test("a table that a view depends on", () =>
      Effect.gen(function*() {
        const seen = {
          ...made,
          "0002_v": Migration.fromSql({ up: "CREATE VIEW v AS SELECT done FROM todos", down: "DROP VIEW v" })
        }
        const without = Definition.make("todos", Schema.Struct({ id: Schema.String, title: Schema.String }), {
          key: ["id"]
        })
        const failure = yield* Effect.flip(Draft.difference(shop, seen, [without], { shadow, allowLossy: true }))
        expect(failure).toMatchObject({
          _tag: "Unalterable",
          reasons: [expect.stringMatching(isPg ? /other objects depend/ : /\bv\b/)]
        })
      }))

    test("to drop a table that foreign keys refer to, so that no row elsewhere goes with it", () =>
      Effect.gen(function*() {
        const notes = "CREATE TABLE notes (todo TEXT NOT NULL REFERENCES todos (id) ON DELETE CASCADE)"
        const referred = { ...made, "0002_n": Migration.fromSql({ up: notes, down: "DROP TABLE notes" }) }
        const options = { shadow, allowLossy: true, ignore: ["notes"] }
        const failure = yield* Effect.flip(Draft.difference(shop, referred, [], options))
        expect(failure).toMatchObject({ _tag: "Unalterable", table: "todos" })
        expect(failure.message).toContain("foreign keys of notes")
      }))

    test("to build its shadow by a statement that is not permitted", () =>
      Effect.gen(function*() {
        const text = isPg ? "DO $$ BEGIN NULL; END $$" : "PRAGMA user_version = 7"
        const foreign = { ...made, "0002_f": Migration.fromSql({ up: text, down: "" }) }
        const options = { shadow, allowLossy: true }
        const failure = yield* Effect.flip(Draft.difference(shop, foreign, [], { ...options, statements: "schema" }))
        expect(failure).toMatchObject({ _tag: "ShadowFailed", id: "0002_f" })
        expect(failure.message).toContain(`${isPg ? "DO" : "PRAGMA"} is not permitted`)
        expect((yield* Draft.difference(shop, foreign, [], options)).changes).toHaveLength(1)
      }))

    test("two tables whose names differ in case alone", () =>
      Effect.sync(() => {
        const other = Definition.make("Todos", Schema.Struct(todo), { key: ["id"] })
        expect(() => Draft.initial([todos, other])).toThrow("two tables are called todos and Todos")
        expect(() => Draft.difference(shop, made, [todos, other])).toThrow("two tables are called todos and Todos")
      }))
  })

  test("a table that foreign keys refer to gets an index, which drops nothing", () =>
    Effect.gen(function*() {
      const notes = "CREATE TABLE notes (todo TEXT NOT NULL REFERENCES todos (id) ON DELETE CASCADE)"
      const referred = { ...made, "0002_n": Migration.fromSql({ up: notes, down: "DROP TABLE notes" }) }
      const indexed = { ...todos, indexes: [["title"]] }
      const draft = yield* Draft.difference(shop, referred, [indexed], { shadow, ignore: ["notes"] })
      expect(described(draft)).toEqual(["index added: todos (title)"])
      const all = { ...referred, "0003_i": Draft.migration(draft) }
      yield* Migrator.up(shop, referred)
      yield* run(`INSERT INTO todos VALUES ('1', 'x', ${no})`)
      yield* run("INSERT INTO notes VALUES ('1')")
      yield* Migrator.up(shop, all)
      yield* Migrator.down(shop, all, { to: "0002_n" })
      expect(yield* run("SELECT todo FROM notes")).toEqual([{ todo: "1" }])
    }))

  test("a difference changes nothing itself", () =>
    Effect.gen(function*() {
      yield* Migrator.up(shop, made)
      const before = yield* Catalogue.read
      yield* Draft.difference(shop, made, [fields({ note: Schema.NullOr(Schema.String) })], { shadow })
      expect(yield* Catalogue.read).toEqual(before)
    }))

  test("the order of columns is no difference", () =>
    Effect.gen(function*() {
      const { done, id, title } = todo
      const other = Definition.make("todos", Schema.Struct({ done, title, id }), { key: ["id"] })
      expect((yield* Draft.difference(shop, made, [other], { shadow })).changes).toEqual([])
    }))

  test("tables and columns that are renamed keep their rows, also when they change places", () =>
    Effect.gen(function*() {
      const pair = { id: Schema.String, a: Schema.Int, b: Schema.String }
      const swapped = { id: Schema.String, b: Schema.Int, a: Schema.String }
      const from = [
        Definition.make("one", Schema.Struct(pair), { key: ["id"], indexes: [["a"], ["b"]] }),
        Definition.make("two", Schema.Struct(pair), { key: ["id"], indexes: [["a"], ["b"]] })
      ]
      const to = [
        Definition.make("two", Schema.Struct(swapped), { key: ["id"], indexes: [["a"], ["b"]] }),
        Definition.make("one", Schema.Struct(pair), { key: ["id"], indexes: [["a"], ["b"]] })
      ]
      const step = yield* moved(from, to, [
        "INSERT INTO one (id, a, b) VALUES ('1', 1, 'one')",
        "INSERT INTO two (id, a, b) VALUES ('2', 2, 'two')"
      ], { renames: { tables: { one: "two", two: "one" }, columns: { two: { a: "b", b: "a" } } } })
      yield* step.up
      expect(yield* run("SELECT id, a, b FROM two")).toEqual([{ id: "1", a: "one", b: 1 }])
      expect(yield* run("SELECT id, a, b FROM one")).toEqual([{ id: "2", a: 2, b: "two" }])
      expect((yield* Draft.difference(shop, step.two, to, { shadow })).changes).toEqual([])
      yield* step.down
      expect(yield* run("SELECT id, a, b FROM one")).toEqual([{ id: "1", a: 1, b: "one" }])
    }))

  test("what is widened keeps its values, the same on both databases, and comes back", () =>
    Effect.gen(function*() {
      const row = (more: Schema.Struct.Fields) => [
        Definition.make("t", Schema.Struct({ id: Schema.Int, ...more }), { key: ["id"] })
      ]
      const from = row({
        a: Schema.Int,
        b: Schema.Int,
        c: Schema.Boolean,
        d: Schema.DateFromSelf,
        e: Schema.Literal("x", "y"),
        f: Schema.Literal("x"),
        g: Schema.NullOr(Schema.Boolean)
      })
      const to = row({
        a: Schema.BigIntFromSelf,
        b: Schema.Finite,
        c: Schema.String,
        d: Schema.String,
        e: Schema.String,
        f: Schema.Literal("w", "x"),
        g: Schema.NullOr(Schema.Int)
      })
      const insert =
        `INSERT INTO t VALUES (1, 9007199254740991, 7, ${yes}, '2026-11-21T18:25:11.310Z', 'y', 'x', ${no})`
      const step = yield* moved(from, to, [insert])
      expect(step.draft.changes.filter(({ loss }) => loss !== undefined)).toEqual([])
      const before = yield* run("SELECT * FROM t")
      yield* step.up
      expect(yield* run("SELECT * FROM t")).toEqual([
        { id: 1, a: 9007199254740991, b: 7, c: "true", d: "2026-11-21T18:25:11.310Z", e: "y", f: "x", g: 0 }
      ])
      yield* step.down
      expect(yield* run("SELECT * FROM t")).toEqual(before)
    }))

  it.each([
    ["text", Schema.String, "'abc'", Schema.Int],
    ["a fraction", Schema.Finite, "1.5", Schema.Int],
    ["a fraction for a bigint", Schema.Finite, "1.5", Schema.BigIntFromSelf],
    ["2^53", Schema.BigIntFromSelf, "9007199254740992", Schema.Int],
    ["a word that is no boolean", Schema.String, "'maybe'", Schema.Boolean],
    ["2", Schema.Int, "2", Schema.Boolean],
    ["a day that is none", Schema.String, "'2026-02-30T00:00:00.000Z'", Schema.DateFromSelf],
    ["a date without a time", Schema.String, "'2026-02-28'", Schema.DateFromSelf],
    ["half a JSON", Schema.String, "'{'", Schema.Unknown],
    ["a value that is gone", Schema.Literal("a", "b"), "'b'", Schema.Literal("a", "c")],
    ["NULL", Schema.NullOr(Schema.String), "NULL", Schema.String]
  ])(
    "%s that does not fit any more fails the migration, and stays",
    (_, before, value, after) =>
      Effect.flatMap(fresh, (database) =>
        Effect.provide(
          Effect.gen(function*() {
            const row = (schema: Schema.Schema.AnyNoContext) => [
              Definition.make("t", Schema.Struct({ id: Schema.Int, v: schema }), { key: ["id"] })
            ]
            const step = yield* moved(row(before), row(after), [`INSERT INTO t VALUES (1, ${value})`], {
              allowLossy: true
            })
            const [kept] = yield* run("SELECT v FROM t")
            const was = yield* catalogue
            expect(yield* Effect.flip(step.up)).toMatchObject({ _tag: "MigrationFailed", id: "0002_b" })
            expect(yield* run("SELECT v FROM t")).toEqual([kept])
            expect(yield* catalogue).toBe(was)
          }),
          Store.layer(database)
        )).pipe(Effect.scoped, Logger.withMinimumLogLevel(LogLevel.None), Effect.runPromise)
  )

  it.each([
    ["text", Schema.String, "'-12'", Schema.Int, -12],
    ["a whole double", Schema.Finite, "9007199254740991", Schema.Int, 9007199254740991],
    ["a bigint", Schema.BigIntFromSelf, "3", Schema.Finite, 3],
    ["text", Schema.String, "'y'", Schema.Literal("x", "y"), "y"],
    ["an instant", Schema.String, "'2026-02-28T01:02:03.004Z'", Schema.DateFromSelf, "2026-02-28T01:02:03.004Z"]
  ])(
    "%s that fits is narrowed",
    (_, before, value, after, expected) =>
      Effect.flatMap(fresh, (database) =>
        Effect.provide(
          Effect.gen(function*() {
            const row = (schema: Schema.Schema.AnyNoContext) => [
              Definition.make("t", Schema.Struct({ id: Schema.Int, v: schema }), { key: ["id"] })
            ]
            const step = yield* moved(row(before), row(after), [`INSERT INTO t VALUES (1, ${value})`], {
              allowLossy: true
            })
            yield* step.up
            const [found] = yield* run("SELECT v FROM t")
            expect(found?.["v"] instanceof Date ? found["v"].toISOString() : found?.["v"]).toBe(expected)
          }),
          Store.layer(database)
        )).pipe(Effect.scoped, Logger.withMinimumLogLevel(LogLevel.None), Effect.runPromise)
  )

  test("rows get the defaults that are given, and new ones have none", () =>
    Effect.gen(function*() {
      const from = [fields({ note: Schema.NullOr(Schema.String) })]
      const to = [fields({ note: Schema.String, at: Schema.DateFromSelf, data: Schema.Struct({ a: Schema.Int }) })]
      const step = yield* moved(
        from,
        to,
        [`INSERT INTO todos VALUES ('1', 't', ${yes}, NULL)`, `INSERT INTO todos VALUES ('2', 't', ${no}, 'kept')`],
        { defaults: { todos: { note: "it's", at: new Date(0), data: { a: 1 } } } }
      )
      expect(described(step.draft)).toEqual([
        "made required: todos.note (text); rows without a value are refused",
        "column added: todos.at (timestamp)",
        "column added: todos.data (json)"
      ])
      yield* step.up
      const data = isPg ? { a: 1 } : `{"a":1}`
      const at = isPg ? new Date(0) : "1970-01-01T00:00:00.000Z"
      expect(yield* run("SELECT id, note, at, data FROM todos ORDER BY id")).toEqual([
        { id: "1", note: "it's", at, data },
        { id: "2", note: "kept", at, data }
      ])
      const bare = yield* Effect.flip(run(`INSERT INTO todos (id, title, done, note) VALUES ('3', 't', ${yes}, 'n')`))
      expect(bare).toMatchObject({ _tag: "SqlError" })
    }))

  test("what was dropped comes back empty", () =>
    Effect.gen(function*() {
      const from = [fields({ rank: Schema.Int, state: Schema.Literal("open", "shut"), at: Schema.NullOr(Schema.Date) })]
      const step = yield* moved(from, [todos], [`INSERT INTO todos VALUES ('1', 't', ${yes}, 7, 'shut', NULL)`], {
        allowLossy: true
      })
      yield* step.up
      yield* step.down
      expect(yield* run("SELECT id, title, rank, state, at FROM todos")).toEqual([
        { id: "1", title: "t", rank: 0, state: "open", at: null }
      ])
    }))

  describe("a table that was written by hand", () => {
    const byHand = {
      "0001_todos": Migration.fromSql({
        up: `CREATE TABLE todos (id VARCHAR(20) PRIMARY KEY, title TEXT NOT NULL DEFAULT 'none', done INTEGER NOT NULL);
          CREATE INDEX todos_by_title ON todos (title)`,
        down: "DROP TABLE todos"
      })
    }
    const same = Definition.make(
      "todos",
      Schema.Struct({ id: Schema.String, title: Schema.String, done: Schema.Int }),
      { key: ["id"], indexes: [["title"]] }
    )

    test("is left alone where its shape is that of its type", () =>
      Effect.gen(function*() {
        expect((yield* Draft.difference(shop, byHand, [same], { shadow })).changes).toEqual([])
      }))

    test("is built anew where it is not, if that is allowed, and keeps its rows", () =>
      Effect.gen(function*() {
        const more = Definition.make(
          "todos",
          Schema.Struct({ id: Schema.String, title: Schema.String, done: Schema.Int, at: Schema.NullOr(Schema.Date) }),
          { key: ["id"], indexes: [["title"]] }
        )
        const failure = yield* Effect.flip(Draft.difference(shop, byHand, [more], { shadow }))
        expect(failure).toMatchObject({ _tag: "LossyChange", changes: [{ what: "table conformed", table: "todos" }] })
        expect(failure.message).toContain("id: ")
        const draft = yield* Draft.difference(shop, byHand, [more], { shadow, allowLossy: true })
        yield* Migrator.up(shop, byHand)
        yield* run("INSERT INTO todos VALUES ('1', 'one', 1)")
        const all = { ...byHand, "0002_at": Draft.migration(draft) }
        yield* Migrator.up(shop, all)
        expect(yield* run("SELECT * FROM todos")).toEqual([{ id: "1", title: "one", done: 1, at: null }])
        const reached = yield* catalogue
        yield* Migrator.down(shop, all, "nothing")
        yield* Migrator.up(shop, { "0001_todos": Draft.migration(Draft.initial([more])) })
        expect(yield* catalogue).toBe(reached)
      }))

    test("whose instants have no text here is not made text of another", () =>
      Effect.gen(function*() {
        if (!isPg) return
        const up = "CREATE TABLE events (id TEXT PRIMARY KEY, at TIMESTAMPTZ)"
        const events = { "0001_events": Migration.fromSql({ up, down: "DROP TABLE events" }) }
        const text = Schema.Struct({ id: Schema.String, at: Schema.NullOr(Schema.String) })
        const draft = yield* Draft.difference(shop, events, [Definition.make("events", text, { key: ["id"] })], {
          allowLossy: true
        })
        const all = { ...events, "0002_text": Draft.migration(draft) }
        yield* Migrator.up(shop, events)
        for (const instant of ["infinity", "0044-03-15T00:00:00Z BC", "10000-01-01T00:00:00Z"]) {
          yield* run(`INSERT INTO events VALUES ('1', '${instant}')`)
          expect(yield* Effect.flip(Migrator.up(shop, all))).toMatchObject({ _tag: "MigrationFailed" })
          yield* run("DELETE FROM events")
        }
        yield* run("INSERT INTO events VALUES ('1', '0001-01-01T00:00:00.5Z'), ('2', NULL)")
        yield* Migrator.up(shop, all)
        expect(yield* run("SELECT at FROM events ORDER BY id")).toEqual([{ at: "0001-01-01T00:00:00.500Z" }, {
          at: null
        }])
      }))

    test("can be left out", () =>
      Effect.gen(function*() {
        const labels = Definition.make("labels", Schema.Struct({ id: Schema.String }), { key: ["id"] })
        const draft = yield* Draft.difference(shop, byHand, [labels], { shadow, ignore: ["todos"] })
        expect(described(draft)).toEqual(["table added: labels"])
      }))
  })

  test("a draft of a Model's class is one of its rows as they are selected", () =>
    Effect.gen(function*() {
      class Person extends Model.Class<Person>("Person")({
        id: Model.Generated(Schema.Int),
        name: Schema.NonEmptyTrimmedString,
        nick: Model.FieldOption(Schema.String),
        secret: Model.Sensitive(Schema.String),
        flag: Model.BooleanFromNumber,
        settings: Model.JsonFromString(Schema.Struct({ theme: Schema.String })),
        createdAt: Model.DateTimeInsert,
        updatedAt: Model.DateTimeUpdateFromDate,
        touchedAt: Model.DateTimeUpdateFromNumber
      }) {}
      const people = Definition.make("people", Person, { key: ["id"], unique: [["name"]] })
      expect(people.columns.map(({ kind, name, nullable }) => `${name} ${kind}${nullable ? "?" : ""}`)).toEqual([
        "id integer",
        "name text",
        "nick text?",
        "secret text",
        "flag integer",
        "settings text",
        "createdAt timestamp",
        "updatedAt timestamp",
        "touchedAt timestamp"
      ])
      const migrations = { "0001_people": Draft.migration(Draft.initial([people])) }
      yield* Migrator.up(shop, migrations)
      const [found] = yield* Introspection.read
      expect(found?.columns.map(({ fit }) => fit)).toEqual(people.columns.map(() => "exact"))
      expect((yield* Draft.difference(shop, migrations, [people], { shadow })).changes).toEqual([])
    }))

  test("as files and as a module it makes the same, and the same text each time", () =>
    Effect.gen(function*() {
      const tricky = Definition.make(
        "tricky",
        Schema.Struct({ id: Schema.Literal("`", "${x}", "\\", "*/", "a;\n-- b"), n: Schema.Int }),
        { key: ["id"], indexes: [["n"]] }
      )
      const draft = Draft.initial([todos, tricky])
      expect(Draft.files("0001_all", draft)).toEqual(Draft.files("0001_all", Draft.initial([todos, tricky])))
      expect(Draft.module(draft)).toBe(Draft.module(Draft.initial([todos, tricky])))
      const written = Draft.files("0001_all", draft).map(({ name, text }) => [name, text] as const)
      const asFiles = yield* Directory.make(Object.fromEntries(written))
      const { code } = transformSync(Draft.module(draft), { loader: "ts", format: "esm" })
      const asModule = yield* Directory.make({ "0001_all.mjs": code })
      const results = yield* Effect.forEach([
        { "0001_all": Draft.migration(draft) },
        yield* MigrationDirectory.fromDirectory(asFiles),
        yield* MigrationDirectory.fromDirectory(asModule)
      ], (migrations) =>
        Effect.gen(function*() {
          yield* Migrator.up(shop, migrations)
          const text = yield* catalogue
          yield* Migrator.down(shop, migrations, "nothing")
          expect(yield* catalogue).toBe("")
          return text
        }))
      expect(results[0]).not.toBe("")
      expect(new Set(results).size).toBe(1)
    }))

  test("a difference is for the database that it was drafted on, until it is combined with the other's", () =>
    Effect.gen(function*() {
      const to = [fields({ note: Schema.NullOr(Schema.String) })]
      const here = yield* Draft.difference(shop, made, to, { shadow })
      const there = yield* Effect.flatMap(
        Database.dialects.find((each) => each.dialect !== dialect)!.fresh,
        (database) => Effect.provide(Draft.difference(shop, made, to, { shadow }), Store.layer(database))
      )
      const all = (draft: Draft.Draft) => ({ ...made, "0002_note": Draft.migration(draft) })
      const failure = yield* Effect.flip(Migrator.up(shop, all(there)))
      expect(failure.message).toContain(`drafted for ${isPg ? "SQLite" : "PostgreSQL"} alone`)
      expect(Draft.files("0002_note", here).map(({ name }) => name)).toEqual(["0002_note.up.sql", "0002_note.down.sql"])
      const both = Draft.combine(there, here)
      expect(described(both)).toEqual(["column added: todos.note (text, nullable)"])
      expect(Draft.files("0002_note", both).map(({ name }) => name)).toEqual([
        "0002_note.up.pg.sql",
        "0002_note.up.sqlite.sql",
        "0002_note.down.pg.sql",
        "0002_note.down.sqlite.sql"
      ])
      yield* Migrator.up(shop, all(both))
      expect((yield* Draft.difference(shop, all(both), to, { shadow })).changes).toEqual([])
    }))
})

it.scopedLive("on SQLite a difference needs a shadow, and says so", () =>
  Effect.gen(function*() {
    const failure = yield* Effect.flip(Draft.difference(shop, made, [todos]))
    expect(failure).toMatchObject({ _tag: "ShadowFailed", message: expect.stringContaining("Sqlite.layerMemory") })
  }).pipe(Effect.provide(Sqlite.layerMemory)))
