/**
 * A reach: which tables of a database cannot be folded, since only the database knows what a change of theirs comes to.
 *
 *     a trigger, a view, a foreign key ON DELETE CASCADE to it    a change sets off others, in whichever tables
 *     a unique column in which "a" equals "A", or "a" equals "a " two keys of the program's are one row
 *
 * And of which types columns are on PostgreSQL, so that rows can be copied into tables that can be folded (see `Copy`): there
 * a cell means what it means in a statement only where the type is that of its kind, and a COPY minds no row security.
 *
 * It is asked of a client before its first fold, and again after a subscription has opened: what a migration adds while
 * subscriptions run is known when the next one opens. Tables drafted from types can always be folded.
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"

export interface Reach {
  /** The tables that cannot be folded, in lower case. */
  readonly tables: ReadonlySet<string>
  /** The types of columns that can be copied into, by table and by column. */
  readonly types: ReadonlyMap<string, { readonly [column: string]: string }>
}

const known = new WeakMap<SqlClient.SqlClient, Reach>()

/** Of the tables that unqualified names mean on this connection, which is one of the client's. */
export const of = (sql: SqlClient.SqlClient, connection: Connection): Effect.Effect<Reach, SqlError> =>
  Effect.suspend(() => {
    const found = known.get(sql)
    if (found !== undefined) return Effect.succeed(found)
    const text = sql.onDialectOrElse({ sqlite: () => sqliteText, orElse: () => pgText })
    return Effect.map(connection.executeValues(text, []), (rows) => {
      const tables = new Set<string>()
      const types = new Map<string, { readonly [column: string]: string }>()
      for (const [name, columns] of rows) {
        if (typeof columns === "string") types.set(String(name), JSON.parse(columns))
        else tables.add(String(name).toLowerCase())
      }
      const reach: Reach = { tables, types }
      known.set(sql, reach)
      return reach
    })
  })

/** Has it asked again. */
export const forget = (sql: SqlClient.SqlClient): void => void known.delete(sql)

const sqliteText = `
  SELECT tbl_name, NULL FROM sqlite_schema WHERE type IN ('trigger', 'view')
  UNION SELECT f."table", NULL FROM sqlite_schema AS s, pragma_foreign_key_list(s.name) AS f
    WHERE s.type = 'table' AND (f.on_delete IN ('CASCADE', 'SET NULL', 'SET DEFAULT')
      OR f.on_update IN ('CASCADE', 'SET NULL', 'SET DEFAULT'))
  UNION SELECT s.name, NULL FROM sqlite_schema AS s, pragma_index_list(s.name) AS i, pragma_index_xinfo(i.name) AS c
    WHERE s.type = 'table' AND i."unique" AND c."key" AND c.coll <> 'BINARY'`

const pgText = `
  SELECT t.relname, NULL FROM pg_catalog.pg_class AS t
  WHERE t.relkind IN ('r', 'p', 'v', 'f') AND t.relnamespace <> 'pg_catalog'::pg_catalog.regnamespace
    AND pg_catalog.pg_table_is_visible(t.oid) AND (
      t.relkind IN ('v', 'f')
      OR EXISTS (SELECT FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class = t.oid)
      OR EXISTS (SELECT FROM pg_catalog.pg_trigger AS r WHERE r.tgrelid = t.oid AND NOT r.tgisinternal)
      OR EXISTS (
        SELECT FROM pg_catalog.pg_constraint AS f
        WHERE f.confrelid = t.oid AND f.contype = 'f'
          AND (f.confdeltype IN ('c', 'n', 'd') OR f.confupdtype IN ('c', 'n', 'd')))
      OR EXISTS (
        SELECT FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = ANY (i.indkey::int2[])
        JOIN pg_catalog.pg_type AS y ON y.oid = a.atttypid
        LEFT JOIN pg_catalog.pg_collation AS c ON c.oid = a.attcollation
        WHERE i.indrelid = t.oid AND i.indisunique
          AND (y.typname IN ('bpchar', 'citext') OR NOT coalesce(c.collisdeterministic, TRUE))))
  UNION ALL
  SELECT t.relname, (
    SELECT coalesce(pg_catalog.json_object_agg(a.attname, pg_catalog.format_type(a.atttypid, NULL)), '{}')::text
    FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attidentity <> 'a' AND a.attgenerated = '')
  FROM pg_catalog.pg_class AS t
  WHERE t.relkind IN ('r', 'p') AND NOT t.relrowsecurity AND t.relnatts > 0
    AND t.relnamespace <> 'pg_catalog'::pg_catalog.regnamespace AND pg_catalog.pg_table_is_visible(t.oid)`
