/**
 * A reach: which tables of a database cannot be folded, since only the database knows what a change of theirs comes to.
 *
 *     a trigger, a view, a foreign key ON DELETE CASCADE to it    a change sets off others, in whichever tables
 *     a unique column in which "a" equals "A", or "a" equals "a " two keys of the program's are one row
 *
 * It is asked of a client before its first fold, and again after a subscription has opened: what a migration adds while
 * subscriptions run is known when the next one opens. Tables drafted from types are never among them.
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"

/** Names in lower case. */
export type Reach = ReadonlySet<string>

const known = new WeakMap<SqlClient.SqlClient, Reach>()

/** Of the tables that unqualified names mean on this connection, which is one of the client's. */
export const of = (sql: SqlClient.SqlClient, connection: Connection): Effect.Effect<Reach, SqlError> =>
  Effect.suspend(() => {
    const found = known.get(sql)
    if (found !== undefined) return Effect.succeed(found)
    const text = sql.onDialectOrElse({ sqlite: () => sqliteText, orElse: () => pgText })
    return Effect.map(connection.executeValues(text, []), (rows) => {
      const reach: Reach = new Set(rows.map(([name]) => String(name).toLowerCase()))
      known.set(sql, reach)
      return reach
    })
  })

/** Has it asked again. */
export const forget = (sql: SqlClient.SqlClient): void => void known.delete(sql)

const sqliteText = `
  SELECT tbl_name FROM sqlite_schema WHERE type IN ('trigger', 'view')
  UNION SELECT f."table" FROM sqlite_schema AS s, pragma_foreign_key_list(s.name) AS f
    WHERE s.type = 'table' AND (f.on_delete IN ('CASCADE', 'SET NULL', 'SET DEFAULT')
      OR f.on_update IN ('CASCADE', 'SET NULL', 'SET DEFAULT'))
  UNION SELECT s.name FROM sqlite_schema AS s, pragma_index_list(s.name) AS i, pragma_index_xinfo(i.name) AS c
    WHERE s.type = 'table' AND i."unique" AND c."key" AND c.coll <> 'BINARY'`

const pgText = `
  SELECT t.relname FROM pg_catalog.pg_class AS t
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
          AND (y.typname IN ('bpchar', 'citext') OR NOT coalesce(c.collisdeterministic, TRUE))))`
