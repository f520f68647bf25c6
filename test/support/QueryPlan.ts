/**
 * A query plan: how a database goes about a statement whatever its parameters are, as the plan that it keeps does.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type { Statement } from "@effect/sql/Statement"
import * as Effect from "effect/Effect"

/** The steps of the plan, one a line. */
export const of = (statement: Statement<object>): Effect.Effect<string, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => {
    const [text, parameters] = statement.compile()
    return sql.onDialectOrElse({
      sqlite: () =>
        Effect.map(
          sql.unsafe<{ readonly detail: string }>(`EXPLAIN QUERY PLAN ${text}`, parameters),
          (rows) => rows.map(({ detail }) => detail).join("\n")
        ),
      orElse: () =>
        Effect.map(
          sql.unsafe<{ readonly "QUERY PLAN": string }>(`EXPLAIN (GENERIC_PLAN) ${text}`),
          (rows) => rows.map((row) => row["QUERY PLAN"]).join("\n")
        )
    })
  })
