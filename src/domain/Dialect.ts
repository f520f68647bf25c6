/**
 * A dialect: which of the two databases SQL is written for.
 */

import type * as SqlClient from "@effect/sql/SqlClient"

export type Dialect = "sqlite" | "pg"

/** The dialect of a client. */
export const dialectOf = (sql: SqlClient.SqlClient): Dialect =>
  sql.onDialectOrElse<Dialect, Dialect>({ sqlite: () => "sqlite", orElse: () => "pg" })
