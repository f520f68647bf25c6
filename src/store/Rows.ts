/**
 * Rows: many rows sent to a statement as one JSON parameter, so that its text never changes with their number and the
 * database prepares it once.
 *
 *     sql`INSERT INTO entry (id, title) SELECT id, title
 *         FROM ${Rows.table(sql, "incoming", { id: "text", title: "text" }, rows)}`
 *
 *     FROM json_each(?) …                              SQLite
 *     FROM json_to_recordset(CAST($1 AS json)) AS …    PostgreSQL
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import type { Fragment } from "@effect/sql/Statement"

/** A column's type, as both databases name it. */
export type ColumnType = "text" | "integer" | "bigint"

/**
 * A table expression named `alias` over `rows`. Column names are written into the statement, so they are the caller's own
 * and never come from outside; values are parameters. Text must be free of NUL and lone
 * surrogates, which PostgreSQL refuses.
 */
export const table = <Column extends string>(
  sql: SqlClient.SqlClient,
  alias: string,
  columns: { readonly [C in Column]: ColumnType },
  rows: ReadonlyArray<{ readonly [C in Column]: string | number | null }>
): Fragment => {
  const names = Object.keys(columns) as Array<keyof typeof columns>
  return sql.onDialectOrElse({
    // Lists, since SQLite finds a member of an object by looking at those before it.
    sqlite: () =>
      sql`(SELECT ${sql.literal(names.map((name, i) => `value ->> ${i} AS ${name}`).join(", "))}
           FROM json_each(${JSON.stringify(rows.map((row) => names.map((name) => row[name])))})) AS ${
        sql.literal(alias)
      }`,
    orElse: () =>
      sql`json_to_recordset(CAST(${JSON.stringify(rows)} AS json)) AS ${
        sql.literal(`${alias} (${Object.entries(columns).map(([name, type]) => `${name} ${String(type)}`).join(", ")})`)
      }`
  })
}
