/**
 * A catalogue: what a database holds beside its rows, as text that is equal when the structure is.
 *
 *     table todos                        todos
 *     column todos.id                    text NOT NULL
 *     index todos_by_title (of todos)    CREATE INDEX …
 *
 * On SQLite it is the text of `sqlite_schema`. On PostgreSQL it is one schema, as the server describes it: tables, columns,
 * constraints, indexes, views, sequences, triggers, policies, functions and types, with no object ids, owners or grants.
 * That a column is NOT NULL is said by the column alone, as PostgreSQL did before version 18 made it a constraint, whose name
 * keeps what table and column were once called.
 * The names of the schema itself do not occur in it, so two schemas can be compared.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"

export interface Item {
  /** `table`, `column`, `index`, … */
  readonly kind: string
  /** The table it belongs to; its own name where it belongs to none. */
  readonly owner: string
  readonly name: string
  readonly definition: string
}

/** What is in the schema that unqualified names reach first, sorted. One statement. */
export const read: Effect.Effect<ReadonlyArray<Item>, SqlError, SqlClient.SqlClient> = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql.onDialectOrElse({ sqlite: () => sqlite(sql), orElse: () => postgres(sql) })
)

/** One line an item, for a report, a diff or a comparison byte by byte. */
export const render = (items: ReadonlyArray<Item>): string =>
  items.map(({ definition, kind, name, owner }) => JSON.stringify([kind, owner, name, definition])).join("\n")

/** Whether it is one of the framework's own tables, or belongs to one. */
export const isOwn = ({ owner }: Item): boolean => owner.startsWith("processor_")

const sqlite = (sql: SqlClient.SqlClient) =>
  sql<Item>`
    SELECT type AS kind, tbl_name AS owner, name, coalesce(sql, '') AS definition
    FROM sqlite_schema ORDER BY type, tbl_name, name`

const postgres = (sql: SqlClient.SqlClient) =>
  sql<Item>`
    WITH here AS (SELECT oid, nspname AS name FROM pg_namespace WHERE nspname = current_schema()),
    relation AS (
      SELECT c.* FROM pg_class c JOIN here ON c.relnamespace = here.oid
      WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')
    ),
    item AS (
      SELECT CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' ELSE 'table' END
        AS kind, relname AS owner, relname AS name,
        CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid, true)
          ELSE concat_ws(' ', relkind, relpersistence, CASE WHEN relrowsecurity THEN 'row security' END,
            CASE WHEN relispartition THEN pg_get_expr(relpartbound, oid) END, pg_get_partkeydef(oid), reloptions::text)
        END AS definition
      FROM relation WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
      UNION ALL
      SELECT 'sequence of', relname, relname, concat_ws(' ', format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement,
        s.seqmin, s.seqmax, s.seqcache, s.seqcycle)
      FROM relation JOIN pg_sequence s ON s.seqrelid = oid
      UNION ALL
      SELECT 'column', c.relname, lpad(row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum)::text, 4, '0')
        || ' ' || a.attname,
        concat_ws(' ', format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'NOT NULL' END,
          'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), nullif(a.attidentity, ''), nullif(a.attgenerated, ''),
          (SELECT 'COLLATE ' || collname FROM pg_collation k WHERE k.oid = a.attcollation AND k.collname <> 'default'))
      FROM relation c JOIN pg_attribute a ON a.attrelid = c.oid
      LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
      WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
      UNION ALL
      SELECT 'constraint', c.relname, k.conname, pg_get_constraintdef(k.oid, true)
      FROM relation c JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype <> 'n'
      UNION ALL
      SELECT 'index', c.relname, i.relname,
        pg_get_indexdef(x.indexrelid, 0, true) || CASE WHEN x.indisvalid THEN '' ELSE ' INVALID' END
      FROM relation c JOIN pg_index x ON x.indrelid = c.oid JOIN pg_class i ON i.oid = x.indexrelid
      UNION ALL
      SELECT 'trigger', c.relname, t.tgname, pg_get_triggerdef(t.oid, true) || ' ' || t.tgenabled::text
      FROM relation c JOIN pg_trigger t ON t.tgrelid = c.oid WHERE NOT t.tgisinternal
      UNION ALL
      SELECT 'policy', c.relname, p.polname, concat_ws(' ', p.polcmd, p.polpermissive, pg_get_expr(p.polqual, p.polrelid),
        pg_get_expr(p.polwithcheck, p.polrelid))
      FROM relation c JOIN pg_policy p ON p.polrelid = c.oid
      UNION ALL
      SELECT 'function', f.proname, f.proname || '(' || pg_get_function_identity_arguments(f.oid) || ')',
        concat_ws(' ', f.prokind, pg_get_function_arguments(f.oid), pg_get_function_result(f.oid), l.lanname, f.provolatile,
          CASE WHEN f.prosecdef THEN 'SECURITY DEFINER' END, coalesce(pg_get_function_sqlbody(f.oid), f.prosrc))
      FROM pg_proc f JOIN here ON f.pronamespace = here.oid JOIN pg_language l ON l.oid = f.prolang
      WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = f.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e')
      UNION ALL
      SELECT 'type', t.typname, t.typname, concat_ws(' ', t.typtype, CASE t.typtype
        WHEN 'e' THEN (SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder) FROM pg_enum
          WHERE enumtypid = t.oid)
        WHEN 'd' THEN concat_ws(' ', format_type(t.typbasetype, t.typtypmod), CASE WHEN t.typnotnull THEN 'NOT NULL' END,
          'DEFAULT ' || t.typdefault,
          (SELECT string_agg(pg_get_constraintdef(k.oid, true), ' ' ORDER BY conname) FROM pg_constraint k
            WHERE k.contypid = t.oid))
        END)
      FROM pg_type t JOIN here ON t.typnamespace = here.oid
      WHERE t.typtype IN ('e', 'd', 'r')
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = t.oid AND d.classid = 'pg_type'::regclass AND d.deptype = 'e')
    )
    SELECT kind, owner, item.name, replace(replace(definition, quote_ident(here.name) || '.', ''), here.name || '.', '')
      AS definition
    FROM item, here ORDER BY kind COLLATE "C", owner COLLATE "C", item.name COLLATE "C"`
