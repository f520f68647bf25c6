/**
 * Prepared statements of PostgreSQL sessions: what is sent often has a name, and nobody notices when the name goes stale.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Postgres from "../../layers/Postgres.js"
import * as Fault from "../../src/process/Fault.js"
import * as Flight from "../../src/store/Flight.js"
import * as Transaction from "../../src/store/Transaction.js"
import * as Database from "../support/Database.js"

/** A table `t` of one row, whose statements, one after another, share a session. */
const onSession = <A, E>(use: (sql: SqlClient.SqlClient) => Effect.Effect<A, E, SqlClient.SqlClient | Scope.Scope>) =>
  Effect.flatMap(Database.postgres, ({ url }) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE t (id INTEGER PRIMARY KEY)`
      yield* sql`INSERT INTO t (id) VALUES (1)`
      return yield* use(sql)
    }).pipe(Effect.provide(Layer.orDie(Postgres.layer({ url: Redacted.make(url) })))))

const named = (sql: SqlClient.SqlClient) =>
  Effect.map(
    sql<{ readonly n: number }>`SELECT count(*) AS n FROM pg_prepared_statements WHERE name LIKE 'ep%'`,
    ([row]) => row?.n
  )

const all = (sql: SqlClient.SqlClient) => sql`SELECT * FROM t WHERE id > ${0}`

it.scopedLive("a result that a migration changed is read as it is now, by a statement outside a transaction", () =>
  onSession((sql) =>
    Effect.gen(function*() {
      yield* Effect.repeatN(all(sql), 5)
      yield* sql`ALTER TABLE t ADD COLUMN title TEXT`
      expect(yield* all(sql)).toEqual([{ id: 1, title: null }])
    })
  ))

it.scopedLive("inside a transaction it is a conflict, and the transaction succeeds when it is run again", () =>
  onSession((sql) =>
    Effect.gen(function*() {
      yield* Effect.repeatN(Transaction.run(all(sql)), 5)
      yield* sql`ALTER TABLE t ADD COLUMN title TEXT`
      const failure = yield* Effect.flip(Transaction.run(all(sql)))
      expect(Fault.classify(failure)).toBe("conflict")
      expect(yield* Transaction.run(all(sql))).toEqual([{ id: 1, title: null }])
    })
  ))

it.scopedLive("names that were discarded on the way are given anew", () =>
  onSession((sql) =>
    Effect.gen(function*() {
      yield* Effect.repeatN(all(sql), 5)
      expect(yield* named(sql)).toBe(1)
      yield* sql`DEALLOCATE ALL`
      expect(yield* Effect.replicateEffect(all(sql), 5)).toEqual(Array.from({ length: 5 }, () => [{ id: 1 }]))
      expect(yield* named(sql)).toBe(1)
    })
  ))

it.scopedLive("a name that is gone when the statement goes with COMMIT has nothing written behind the transaction's end", () =>
  onSession((sql) =>
    Effect.gen(function*() {
      const ids = Effect.map(sql<{ readonly id: number }>`SELECT id FROM t ORDER BY id`, (rows) =>
        rows.map(({ id }) => id))
      const adding = (id: number) =>
        Transaction.run(Effect.gen(function*() {
          yield* sql`SELECT 1`
          const depart = yield* Flight.departure
          depart?.([sql`INSERT INTO t (id) VALUES (${id})`.compile()])
        }))
      for (const id of [2, 3, 4]) {
        yield* adding(id)
      }
      expect(yield* named(sql)).toBe(1)
      yield* sql`DEALLOCATE ALL`
      expect(Fault.classify(yield* Effect.flip(adding(5)))).toBe("conflict")
      expect(yield* ids).toEqual([1, 2, 3, 4])
      yield* adding(5)
      expect(yield* ids).toEqual([1, 2, 3, 4, 5])
    })
  ))

it.scopedLive("a statement sent twice has no name, and a session has at most 256", () =>
  onSession((sql) =>
    Effect.gen(function*() {
      for (let i = 0; i < 300; i++) {
        const text = `SELECT ${i} WHERE $1`
        yield* Effect.replicateEffect(sql.unsafe(text, [true]), 2, { discard: true })
        if (i === 0) expect(yield* named(sql)).toBe(0)
        yield* sql.unsafe(text, [true])
      }
      expect(yield* named(sql)).toBe(256)
    })
  ))

it.scopedLive("a named statement that is refused for its data can be used again", () =>
  onSession((sql) =>
    Effect.gen(function*() {
      const insert = (id: number) => sql`INSERT INTO t (id) VALUES (${id})`
      for (const id of [2, 3, 4]) yield* insert(id)
      expect(Fault.classify(yield* Effect.flip(insert(4)))).toBe("poison")
      yield* insert(5)
      expect((yield* all(sql)).length).toBe(5)
    })
  ))

it.scopedLive("is planned anew once its table has grown, though nobody has analysed it", () =>
  onSession((sql) =>
    Effect.gen(function*() {
      yield* sql`ALTER TABLE t SET (autovacuum_enabled = false)`
      yield* sql`ANALYZE t`
      const text = "SELECT t.id FROM unnest($1::integer[]) AS v (id) JOIN t ON t.id = v.id"
      const ask = sql.unsafe(text, ["{1,2}"])
      const plan = Effect.gen(function*() {
        const [found] = yield* sql<{ readonly name: string }>`
          SELECT name FROM pg_prepared_statements WHERE statement = ${text}`
        const lines = yield* sql.unsafe<{ readonly "QUERY PLAN": string }>(`EXPLAIN EXECUTE ${found!.name} ('{1,2}')`)
        return lines.map((line) => line["QUERY PLAN"]).join("\n")
      })
      yield* Effect.repeatN(ask, 20)
      yield* sql`INSERT INTO t (id) SELECT generate_series(2, 50000)`
      expect(yield* plan, "as it was made for one row").toContain("Seq Scan on t")
      expect(yield* Effect.replicateEffect(ask, 130)).toEqual(Array.from({ length: 130 }, () => [{ id: 1 }, { id: 2 }]))
      expect(yield* plan).not.toContain("Seq Scan on t")
      expect(yield* plan).toContain("Index")
    })
  ))
