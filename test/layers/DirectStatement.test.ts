/**
 * Direct statements: inside a transaction they do what stock ones do, and whoever traces or transforms statements sees them.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Transaction from "../../src/store/Transaction.js"
import * as Database from "../support/Database.js"
import * as Spans from "../support/Spans.js"
import * as Store from "../support/Store.js"

const onTable =
  (fresh: Effect.Effect<Database.Database, never, Scope.Scope>) =>
  <A, E>(use: (sql: SqlClient.SqlClient) => Effect.Effect<A, E, SqlClient.SqlClient | Scope.Scope>) =>
    Effect.flatMap(fresh, (database) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE t (id INTEGER PRIMARY KEY, title TEXT)`
        return yield* use(sql)
      }).pipe(Effect.provide(Store.layer(database))))

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  const table = onTable(fresh)

  it.scopedLive("a statement that is refused fails with what the database says, in a transaction and outside", () =>
    table((sql) =>
      Effect.gen(function*() {
        yield* sql`INSERT INTO t (id) VALUES (1)`
        const again = sql`INSERT INTO t (id) VALUES (1)`
        const outside = yield* Effect.flip(again)
        const inside = yield* Effect.flip(Transaction.run(again))
        const code = (failure: unknown) =>
          failure instanceof SqlError ? (failure.cause as { readonly code?: string }).code : undefined
        expect(code(inside)).toBeDefined()
        expect(code(inside)).toBe(code(outside))
      })
    ))

  it.scopedLive("statements made in every way belong to the transaction that they run in", () =>
    table((sql) =>
      Effect.gen(function*() {
        const body = Effect.gen(function*() {
          yield* sql`INSERT INTO t (id, title) VALUES (${1}, ${"a"})`
          yield* sql`INSERT INTO t ${sql.insert([{ id: 2, title: "b" }, { id: 3, title: "c" }])}`
          yield* sql.unsafe("INSERT INTO t (id, title) VALUES (4, 'd')")
          yield* sql.safe`INSERT INTO t (id, title) VALUES (5, 'e')`
          yield* sql.withoutTransforms()`INSERT INTO t (id, title) VALUES (6, 'f')`
          yield* Effect.ignore(
            sql.withTransaction(Effect.zipRight(sql`INSERT INTO t (id) VALUES (7)`, Effect.fail("taken back")))
          )
          return yield* sql`SELECT id, title FROM t WHERE ${sql.in("id", [1, 2, 3, 4, 5, 6, 7])} ORDER BY id`
        })
        const rows = yield* Transaction.run(body)
        expect(rows).toEqual(["a", "b", "c", "d", "e", "f"].map((title, i) => ({ id: i + 1, title })))
        yield* Effect.ignore(
          Transaction.run(Effect.zipRight(sql`INSERT INTO t (id) VALUES (8)`, Effect.fail("rolled back")))
        )
        expect((yield* sql`SELECT id FROM t`).length).toBe(6)
      })
    ))

  it.scopedLive("one statement value runs again with each use, in a transaction and outside", () =>
    table((sql) =>
      Effect.gen(function*() {
        const count = sql<{ readonly n: number }>`SELECT count(*) AS n FROM t`
        const add = sql`INSERT INTO t (title) SELECT 'x' WHERE FALSE`
        const seen = yield* Transaction.run(Effect.gen(function*() {
          const before = yield* count
          yield* sql`INSERT INTO t (id) VALUES (1)`
          yield* add
          return [before[0]?.n, (yield* count)[0]?.n]
        }))
        expect(seen).toEqual([0, 1])
        expect(yield* count).toEqual([{ n: 1 }])
      })
    ))

  it.scopedLive("whether integers are safe is asked where the statement runs", () =>
    table((sql) =>
      Effect.gen(function*() {
        yield* sql`INSERT INTO t (id) VALUES (7)`
        const read = sql`SELECT CAST(id AS BIGINT) AS id FROM t`
        const seen = yield* Transaction.run(Effect.all([
          read,
          Effect.provideService(read, SqlClient.SafeIntegers, true),
          read
        ]))
        expect(seen).toEqual([[{ id: 7 }], [{ id: 7n }], [{ id: 7 }]])
      })
    ))

  it.scopedLive("what is made and not run does nothing", () =>
    table((sql) =>
      Effect.gen(function*() {
        yield* Transaction.run(Effect.sync(() => [sql`INSERT INTO t (id) VALUES (1)`, sql.unsafe("DROP TABLE t")]))
        expect(yield* sql`SELECT id FROM t`).toEqual([])
      })
    ))

  it.scopedLive("a program that is run inside of another has a connection of its own", () =>
    table((sql) =>
      Effect.gen(function*() {
        const count = sql`SELECT count(*) AS n FROM t`
        const seen = yield* Transaction.run(Effect.gen(function*() {
          const [connection] = Option.getOrThrow(yield* Effect.serviceOption(SqlClient.TransactionConnection))
          const other = { ...connection, prompt: undefined, execute: () => Effect.succeed([{ n: "another's" }]) }
          const inOther = Effect.provideService(count, SqlClient.TransactionConnection, [other, 0])
          yield* sql`INSERT INTO t (id) VALUES (1)`
          return [yield* count, Effect.runSync(inOther), yield* count]
        }))
        expect(seen).toEqual([[{ n: 1 }], [{ n: "another's" }], [{ n: 1 }]])
      })
    ))

  it.scopedLive("each has its span where there is a tracer", () =>
    table((sql) =>
      Effect.gen(function*() {
        const { names, tracer } = Spans.recording()
        yield* Effect.withTracer(
          Transaction.run(Effect.zipRight(sql`INSERT INTO t (id) VALUES (1)`, sql.unsafe("SELECT 1"))),
          tracer
        )
        expect(names).toEqual(["sql.execute", "sql.execute"])
      })
    ))

  it.scopedLive("each goes through the transformer where there is one", () =>
    table((sql) =>
      Effect.gen(function*() {
        const rows = yield* Transaction.run(sql`SELECT 1 AS n`).pipe(
          Statement.withTransformer((_, make) => Effect.succeed(make`SELECT 2 AS n`))
        )
        expect(rows).toEqual([{ n: 2 }])
      })
    ))

  it.scopedLive("fragments and identifiers stay what they are", () =>
    table((sql) =>
      Effect.gen(function*() {
        const column = sql("title")
        yield* Transaction.run(sql`INSERT INTO t (id, ${column}) VALUES (1, ${sql.literal("'a'")})`)
        expect(yield* sql`SELECT ${column} FROM t`).toEqual([{ title: "a" }])
      })
    ))
})
