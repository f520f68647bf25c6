/**
 * A PGlite, the PostgreSQL that runs inside a program, as a `SqlClient` for reading what another owner of it writes.
 *
 *     the reactor ──┐
 *                   ├──▶ one connection
 *     this client ──┘
 *
 * A PGlite has a single connection. So a statement of this client may run inside a transaction that the other owner has
 * open, and sees what that one may take back; and a transaction of its own would hold the other's statements, so that there
 * are none. `Powerhouse.OperationStore` reads with care for both. What is stored belongs into a database of its own.
 */

import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"

/** What is needed of a `PGlite` of `@electric-sql/pglite`. Its owner opens and closes it. */
export interface Pglite {
  readonly query: (
    text: string,
    params?: Array<unknown>,
    options?: { readonly rowMode?: "array" | "object" }
  ) => Promise<{ readonly rows: Array<unknown> }>
}

/** A client over a PGlite that is open. */
export const layer = (database: Pglite): Layer.Layer<SqlClient.SqlClient> =>
  Layer.effect(SqlClient.SqlClient, make(database)).pipe(Layer.provide(Reactivity.layer))

/** {@link layer} without the layer. */
export const make = (database: Pglite): Effect.Effect<SqlClient.SqlClient, never, Reactivity.Reactivity> =>
  SqlClient.make({
    acquirer: Effect.succeed(connectionTo(database)),
    transactionAcquirer: new SqlError({ cause: undefined, message: "a PGlite of another owner is only read from" }),
    compiler: Statement.makeCompiler({
      dialect: "pg",
      placeholder: (position) => `$${position}`,
      onIdentifier: Statement.defaultEscape("\""),
      onRecordUpdate: (placeholders, alias, columns, values) => [
        `(values ${placeholders}) AS ${alias}${columns}`,
        values.flat()
      ],
      onCustom: () => ["", []]
    }),
    spanAttributes: [["db.system.name", "postgresql"]]
  })

const connectionTo = (database: Pglite): Connection => {
  const run = (text: string, params: ReadonlyArray<unknown>, rowMode: "array" | "object") =>
    Effect.tryPromise({
      try: () => database.query(text, Array.from(params), { rowMode }),
      catch: (cause) => new SqlError({ cause, message: "Failed to execute statement" })
    })
  const execute: Connection["execute"] = (text, params, transformRows) =>
    Effect.map(
      run(text, params, "object"),
      ({ rows }) => transformRows === undefined ? rows : transformRows(rows as Array<object>)
    )
  return {
    execute,
    executeUnprepared: execute,
    executeRaw: (text, params) => run(text, params, "object"),
    executeValues: (text, params) =>
      Effect.map(run(text, params, "array"), ({ rows }) => rows as Array<ReadonlyArray<unknown>>),
    executeStream: (text, params, transformRows) => Stream.fromIterableEffect(execute(text, params, transformRows))
  }
}
