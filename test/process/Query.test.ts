/**
 * Typed queries: what Kysely compiles runs on the fiber's own transaction, means the same on both databases, and fails with
 * an `SqlError`. The other two ways to write typed SQL, `SqlSchema` and `Model`, work in a handler as well.
 */
import * as Model from "@effect/sql/Model"
import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as SqlSchema from "@effect/sql/SqlSchema"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { CamelCasePlugin, sql as raw } from "kysely"
import type { Generated } from "kysely"
import * as Test from "../../layers/Test.js"
import { DeadLetters, DocumentModel, Migration, Policy, Processor, Query, Reactor, Source } from "../../src/index.js"
import * as Transaction from "../../src/store/Transaction.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"

interface Tables {
  readonly note: {
    readonly id: string
    readonly title: string
    readonly done: Generated<boolean | number>
    readonly size: bigint | number | null
    readonly at: Date | string | null
  }
}

const migrations = {
  "0001_note": Migration.fromSql({
    up: {
      sqlite: `CREATE TABLE note (id TEXT PRIMARY KEY, title TEXT NOT NULL, done BOOLEAN NOT NULL DEFAULT false,
        size INTEGER, at TEXT)`,
      pg: `CREATE TABLE note (id TEXT PRIMARY KEY, title TEXT NOT NULL, done BOOLEAN NOT NULL DEFAULT false,
        size BIGINT, at TIMESTAMPTZ)`
    },
    down: "DROP TABLE note"
  })
}

const note = (id: string, title = `note ${id}`) => ({ id, title, size: null, at: null })

const Note = DocumentModel.make("test/note", { ADD: Schema.Struct({ id: Schema.String, title: Schema.String }) })

const strand = (documentId: string, ...ids: ReadonlyArray<string>) =>
  Test.strand({
    documentId,
    documentType: Note.type,
    operations: ids.map((id) => ({ type: "ADD", input: { id, title: `note ${id}` } }))
  })

/** What it died with. */
const defectOf = <A, E>(exit: Exit.Exit<A, E>): unknown =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.dieOption(exit.cause)) : undefined

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  const store = Layer.unwrapScoped(Effect.map(fresh, Store.layer))

  /** A table, and a query over it. */
  const opened = Effect.gen(function*() {
    yield* migrations["0001_note"].up
    return yield* Query.kysely<Tables>()
  })

  const count = Effect.map(
    Effect.flatMap(SqlClient.SqlClient, (sql) => sql<{ readonly n: number }>`SELECT count(*) AS n FROM note`),
    ([row]) => row?.n
  )

  it.scopedLive("a statement that the database refuses is the SqlError that it would be by hand", () =>
    Effect.gen(function*() {
      const query = yield* opened
      const sql = yield* SqlClient.SqlClient
      yield* query((db) => db.insertInto("note").values(note("a")))
      const twice = yield* Effect.flip(query((db) => db.insertInto("note").values(note("a"))))
      const byHand = yield* Effect.flip(sql`INSERT INTO note (id, title) VALUES ('a', 'b')`)
      expect(twice).toBeInstanceOf(SqlError)
      const code = (failure: SqlError) => (failure.cause as { readonly code: string }).code
      expect(code(twice)).toBe(code(byHand))
    }).pipe(Effect.provide(store)))

  it.scopedLive("what Kysely cannot compile is a defect, and so are rows with uneven columns; nothing is sent", () =>
    Effect.gen(function*() {
      const query = yield* opened
      const thrown = new Error("no such thing")
      const broken = query(() => {
        throw thrown
      })
      expect(defectOf(yield* Effect.exit(broken))).toBe(thrown)
      const uneven = query((db) => db.insertInto("note").values([note("a"), { ...note("b"), done: true }]))
      expect(defectOf(yield* Effect.exit(uneven))).toMatchObject({
        _tag: "QueryRefused",
        message: expect.stringMatching(/uneven rows/)
      })
      expect(yield* count).toBe(0)
    }).pipe(Effect.provide(store)))

  it.scopedLive("a builder that executes itself has no connection, and the db no way to one", () =>
    Effect.gen(function*() {
      const query = yield* opened
      let refused: Promise<unknown> = Promise.resolve()
      const seen: Array<string> = []
      yield* query((db) => {
        refused = db.insertInto("note").values(note("a")).execute().then(() => "sent", (cause: unknown) => cause)
        const ways = [
          "transaction",
          "startTransaction",
          "connection",
          "destroy",
          "executeQuery",
          "getExecutor",
          "schema"
        ]
        seen.push(...ways.filter((name) => name in db))
        return db.selectFrom("note").selectAll()
      })
      expect(seen).toEqual([])
      expect(yield* Effect.promise(() => refused)).toMatchObject({ _tag: "QueryRefused" })
      expect(yield* count).toBe(0)
    }).pipe(Effect.provide(store)))

  it.scopedLive("rows come as rows, and writes as how many rows they affected", () =>
    Effect.gen(function*() {
      const query = yield* opened
      const inserted = yield* query((db) => db.insertInto("note").values([note("a"), note("b")]))
      expect(inserted).toMatchObject({ numInsertedOrUpdatedRows: 2n, insertId: undefined })
      const ignored = yield* query((db) =>
        db.insertInto("note").values([note("b"), note("c")]).onConflict((on) => on.column("id").doNothing())
      )
      expect(ignored.numInsertedOrUpdatedRows).toBe(1n)
      const nothing = yield* query((db) =>
        db.insertInto("note").values(note("c")).onConflict((on) => on.column("id").doNothing())
      )
      expect(nothing).toMatchObject({ numInsertedOrUpdatedRows: 0n, insertId: undefined })
      const upserted = yield* query((db) =>
        db.insertInto("note").values(note("a", "again"))
          .onConflict((on) => on.column("id").doUpdateSet((eb) => ({ title: eb.ref("excluded.title") })))
          .returning(["id", "title"])
      )
      expect(upserted).toEqual([{ id: "a", title: "again" }])
      const updated = yield* query((db) => db.updateTable("note").set({ done: true }).where("id", "<>", "a"))
      expect(updated.numUpdatedRows).toBe(2n)
      const deleted = yield* query((db) => db.deleteFrom("note").where("done", "=", true))
      expect(deleted.numDeletedRows).toBe(2n)
      const gone = yield* query((db) => db.deleteFrom("note").where("id", "=", "z"))
      expect(gone.numDeletedRows).toBe(0n)
      const none = yield* query((db) => db.deleteFrom("note").where("id", "=", "z").returningAll())
      expect(none).toEqual([])
      expect(yield* query((db) => db.selectFrom("note").select(["id", "title"]))).toEqual([{ id: "a", title: "again" }])
      expect(yield* query(() => raw<{ readonly n: number }>`SELECT ${1} + 1 AS n`)).toEqual([{ n: 2 }])
    }).pipe(Effect.provide(store)))

  it.scopedLive("values mean what the layer says they mean", () =>
    Effect.gen(function*() {
      const query = yield* opened
      const at = new Date(1_700_000_000_123)
      const size = 9_007_199_254_740_993n
      yield* query((db) => db.insertInto("note").values({ id: "a", title: "true", done: true, size, at }))
      const [row] = yield* query((db) =>
        db.selectFrom("note").selectAll().where("done", "=", true).where("at", "=", at).where("size", "=", size)
      )
      expect(row).toEqual({
        id: "a",
        title: "true",
        done: dialect === "pg" ? true : 1,
        size,
        at: dialect === "pg" ? at : at.toISOString()
      })
      yield* query((db) => db.updateTable("note").set({ size: 7 }))
      expect(yield* query((db) => db.selectFrom("note").select("size"))).toEqual([{ size: 7 }])
    }).pipe(Effect.provide(store)))

  it.scopedLive("the same query is the same text, whatever its values", () =>
    Effect.gen(function*() {
      const query = yield* opened
      const sent: Array<string> = []
      const select = (id: string) => query((db) => db.selectFrom("note").select("title").where("id", "=", id))
      const sql = yield* SqlClient.SqlClient
      const connection = yield* sql.reserve
      const watching: typeof connection = {
        ...connection,
        executeRaw: (text, parameters) => {
          sent.push(text)
          return connection.executeRaw(text, parameters)
        }
      }
      yield* Effect.provideService(
        Effect.zipRight(select("a"), select("'; --")),
        SqlClient.TransactionConnection,
        [watching, 0]
      )
      expect(sent).toHaveLength(2)
      expect(new Set(sent).size).toBe(1)
    }).pipe(Effect.provide(store)))

  it.scopedLive("plugins see queries and results, those of a single query too", () =>
    Effect.gen(function*() {
      yield* opened
      interface Camel {
        readonly note: { readonly id: string; readonly title: string }
        readonly someNotes: { readonly noteTitle: string }
      }
      const camel = yield* Query.kysely<Camel>({ plugins: [new CamelCasePlugin()] })
      const plain = yield* Query.kysely<Camel>()
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE some_notes (note_title TEXT)`
      yield* camel((db) => db.insertInto("someNotes").values({ noteTitle: "a" }))
      const expected = [{ noteTitle: "a" }]
      expect(yield* camel((db) => db.selectFrom("someNotes").selectAll())).toEqual(expected)
      expect(yield* plain((db) => db.withPlugin(new CamelCasePlugin()).selectFrom("someNotes").selectAll()))
        .toEqual(expected)
      const streamed = camel.stream((db) => db.selectFrom("someNotes").selectAll())
      expect(Chunk.toArray(yield* Stream.runCollect(streamed))).toEqual(expected)
      const without = yield* camel((db) =>
        db.withoutPlugins().selectFrom(raw<{ readonly note_title: string }>`some_notes`.as("n")).selectAll()
      )
      expect(without).toEqual([{ note_title: "a" }])
    }).pipe(Effect.provide(store)))

  it.scopedLive("a stream gives all rows, inside a transaction and outside", () =>
    Effect.gen(function*() {
      const query = yield* opened
      const ids = Array.from({ length: 300 }, (_, i) => String(i).padStart(3, "0"))
      yield* query((db) => db.insertInto("note").values(ids.map((id) => note(id))))
      const read = query.stream((db) => db.selectFrom("note").select("id").orderBy("id")).pipe(
        Stream.map(({ id }) => id),
        Stream.runCollect,
        Effect.map(Chunk.toArray)
      )
      expect(yield* read).toEqual(ids)
      expect(yield* Transaction.run(read)).toEqual(ids)
      const failing = Stream.runDrain(query.stream((db) => db.selectFrom("nowhere" as "note").selectAll()))
      expect(yield* Effect.flip(failing)).toBeInstanceOf(SqlError)
    }).pipe(Effect.provide(store)))

  it.scopedLive("in a transaction it is rolled back with it", () =>
    Effect.gen(function*() {
      const query = yield* opened
      const doomed = Transaction.run(Effect.gen(function*() {
        yield* query((db) => db.insertInto("note").values(note("a")))
        expect(yield* count).toBe(1)
        return yield* Effect.fail("no")
      }))
      expect(yield* Effect.flip(doomed)).toBe("no")
      expect(yield* count).toBe(0)
      yield* Transaction.run(query((db) => db.insertInto("note").values(note("a"))))
      expect(yield* count).toBe(1)
    }).pipe(Effect.provide(store)))

  describe("in a handler", () => {
    /** Follows the strands to their end. */
    const follow = (
      processor: Processor.Processor<never, SqlClient.SqlClient>,
      strands: ReadonlyArray<Source.Unplaced>
    ) =>
      Effect.map(Effect.provide(Reactor.run(processor), Source.layerIterable("test", strands)), ([outcome]) => outcome)

    const processor = <E extends Policy.Tagged>(
      handler: Processor.Options<E, SqlClient.SqlClient, SqlClient.SqlClient>["handler"]
    ) => Processor.make("notes", { namespace: "notes", migrations, handler })

    const titles = Effect.flatMap(
      SqlClient.SqlClient,
      (sql) =>
        Effect.map(sql<{ readonly id: string }>`SELECT id FROM note ORDER BY id`, (rows) => rows.map(({ id }) => id))
    )

    it.scopedLive("its failure is the policy's, and its writes are rolled back with the operation", () =>
      Effect.gen(function*() {
        const Notes = processor(Effect.gen(function*() {
          const query = yield* Query.kysely<Tables>()
          return Processor.onOperations(Note, {
            ADD: ({ input }) =>
              Effect.gen(function*() {
                yield* query((db) => db.insertInto("note").values(note(`first of ${input.id}`)))
                yield* query((db) => db.insertInto("note").values(note(input.id, input.title)))
              })
          })
        })).pipe(Processor.withPolicy(Policy.standard))
        // The second document's operation meets the primary key, after its first statement was done.
        const outcome = yield* follow(Notes, [strand("d1", "a", "b"), strand("d2", "first of a"), strand("d3", "c")])
        expect(outcome).toMatchObject({ phase: "ended", waiting: 1, totals: { operations: 3, parked: 1 } })
        expect(yield* titles).toEqual(["a", "b", "c", "first of a", "first of b", "first of c"])
        const letters = yield* DeadLetters.list({ processor: Notes.name, source: Source.name("test") })
        expect(letters.map(({ cause }) => cause)).toEqual(["SqlError"])
      }).pipe(Effect.provide(store)))

    it.scopedLive("SqlSchema works, and so does Model", () =>
      Effect.gen(function*() {
        class Row extends Model.Class<Row>("Row")({ id: Schema.String, title: Schema.String }) {}
        const Notes = processor(Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const repository = yield* Model.makeRepository(Row, { tableName: "note", spanPrefix: "note", idColumn: "id" })
          const find = SqlSchema.findOne({
            Request: Schema.String,
            Result: Row,
            execute: (id) => sql`SELECT id, title FROM note WHERE id = ${id}`
          })
          return Processor.onOperations(Note, {
            ADD: ({ input }) =>
              Effect.gen(function*() {
                yield* repository.insertVoid(input)
                const found = yield* Effect.orDie(find(input.id))
                const title = `${Option.getOrThrow(found).title}, found`
                yield* repository.updateVoid({ id: input.id, title })
              })
          })
        })).pipe(Processor.withPolicy(Policy.standard))
        yield* follow(Notes, [strand("d1", "a", "b")])
        const sql = yield* SqlClient.SqlClient
        expect(yield* sql`SELECT title FROM note ORDER BY id`).toEqual([
          { title: "note a, found" },
          { title: "note b, found" }
        ])
      }).pipe(Effect.provide(store)))
  })
})
