/**
 * A Kysely dialect over our connections: how Kysely writes SQL for the database, and what it makes of an answer.
 *
 *     query ──▶ adapter, compiler ──▶ text ──▶ the fiber's transaction, or a connection of its own ──▶ result
 *
 * The package `kysely` is optional. It is loaded when it is first asked for, and never by importing this.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Kysely from "kysely"
import type { Dialect } from "../domain/Dialect.js"

/** The package. Fails with what importing it failed with. */
export const load: Effect.Effect<typeof Kysely, unknown> = Effect.tryPromise({
  try: () => import("kysely"),
  catch: (cause) => cause
})

/** Everything of a dialect but the driver. */
export const parts = (kysely: typeof Kysely, dialect: Dialect): Omit<Kysely.Dialect, "createDriver"> =>
  dialect === "sqlite"
    ? {
      createAdapter: () => new kysely.SqliteAdapter(),
      createQueryCompiler: () => new kysely.SqliteQueryCompiler(),
      createIntrospector: (db) => new kysely.SqliteIntrospector(db)
    }
    : {
      createAdapter: () => new kysely.PostgresAdapter(),
      createQueryCompiler: () => new kysely.PostgresQueryCompiler(),
      createIntrospector: (db) => new kysely.PostgresIntrospector(db)
    }

/** The connection of the transaction that the fiber is in, or else one of its own until the scope closes. */
export const connection: Effect.Effect<Connection, SqlError, SqlClient.SqlClient | Scope.Scope> = Effect.flatMap(
  Effect.serviceOption(SqlClient.TransactionConnection),
  (transaction) =>
    transaction._tag === "Some"
      ? Effect.succeed(transaction.value[0])
      : Effect.flatMap(SqlClient.SqlClient, (sql) => sql.reserve)
)

/** Uses that connection for as long as it takes. */
export const withConnection = <A, E, R>(
  use: (connection: Connection) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | SqlError, R | SqlClient.SqlClient> => Effect.scoped(Effect.flatMap(connection, use))

/** From what either driver answers: a `pg` result, the rows of SQLite, or what SQLite changed. */
export const resultOf = <R>(answer: unknown): Kysely.QueryResult<R> => {
  if (Array.isArray(answer)) return { rows: answer as Array<R> }
  const { changes, lastInsertRowid, rowCount, rows } = answer as {
    readonly rows?: Array<R>
    readonly rowCount?: number | null
    readonly changes?: number | bigint
    readonly lastInsertRowid?: number | bigint
  }
  return {
    rows: rows ?? [],
    numAffectedRows: BigInt(rowCount ?? changes ?? 0),
    ...(lastInsertRowid === undefined ? {} : { insertId: BigInt(lastInsertRowid) })
  }
}
