/**
 * A survey: what a database itself says of the tables that are to be projected anew.
 *
 *     columns         with their types, and which of them it writes by itself
 *     references      foreign keys from one of them, or to one
 *     triggers        on which of them there are any
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"

export interface Column {
  readonly name: string
  /** As the database calls it. */
  readonly type: string
  /** Whether the type is one that the namespace made for itself, which is another type in another place. */
  readonly isOwnType: boolean
  /** Whether the database computes it, so that nobody can write it. */
  readonly isGenerated: boolean
  /** The sequence that gives it a value where none is written: on SQLite the rowid, on PostgreSQL its name in full. */
  readonly sequence: string | undefined
}

/** A foreign key. */
export interface Reference {
  readonly from: string
  readonly to: string
}

export interface Survey {
  /** By table, in their own order; no entry for one that is not there, or no table. */
  readonly columns: ReadonlyMap<string, ReadonlyArray<Column>>
  readonly references: ReadonlyArray<Reference>
  /** Tables with triggers of somebody's own. */
  readonly triggers: ReadonlySet<string>
}

/** Looks at the tables of these names that unqualified names reach, in three statements. */
export const of = (names: ReadonlyArray<string>): Effect.Effect<Survey, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const wanted = JSON.stringify(names)
    const [found, references, triggers] = yield* sql.onDialectOrElse({
      sqlite: () => sqlite(sql, wanted),
      orElse: () => postgres(sql, wanted)
    })
    const columns = new Map<string, Array<Column>>()
    for (const row of found) {
      const known = columns.get(row.table) ?? []
      columns.set(row.table, known)
      known.push({
        name: row.name,
        type: row.type,
        isOwnType: Boolean(row.own_type),
        isGenerated: Boolean(row.generated),
        sequence: row.sequence ?? undefined
      })
    }
    return { columns, references, triggers: new Set(triggers.map(({ table }) => table)) }
  })

interface ColumnRow {
  readonly table: string
  readonly name: string
  readonly type: string
  readonly own_type: boolean | number
  readonly generated: boolean | number
  readonly sequence: string | null
}

type Found = Effect.Effect<
  readonly [ReadonlyArray<ColumnRow>, ReadonlyArray<Reference>, ReadonlyArray<{ readonly table: string }>],
  SqlError
>

/** SQLite takes a name in any case, so tables go by the name that was asked for. */
const sqlite = (sql: SqlClient.SqlClient, wanted: string): Found =>
  Effect.all([
    sql<ColumnRow>`
      SELECT w.value AS "table", c.name, c.type, 0 AS own_type, c.hidden IN (2, 3) AS generated,
        CASE WHEN c.pk = 1 AND c.type = 'INTEGER' COLLATE NOCASE
          AND (SELECT count(*) FROM pragma_table_xinfo(s.name) AS o WHERE o.pk > 0) = 1 THEN 'rowid' END AS sequence
      FROM json_each(${wanted}) AS w
      JOIN sqlite_schema AS s ON s.type = 'table' AND s.name = w.value COLLATE NOCASE, pragma_table_xinfo(s.name) AS c
      WHERE c.hidden <> 1 ORDER BY w.value, c.cid`,
    sql<Reference>`
      SELECT DISTINCT coalesce(f.value, s.name) AS "from", coalesce(t.value, k."table") AS "to"
      FROM sqlite_schema AS s
      JOIN pragma_foreign_key_list(s.name) AS k
      LEFT JOIN json_each(${wanted}) AS f ON f.value = s.name COLLATE NOCASE
      LEFT JOIN json_each(${wanted}) AS t ON t.value = k."table" COLLATE NOCASE
      WHERE s.type = 'table' AND (f.value IS NOT NULL OR t.value IS NOT NULL)`,
    sql<{ readonly table: string }>`
      SELECT DISTINCT w.value AS "table" FROM json_each(${wanted}) AS w
      JOIN sqlite_schema AS s ON s.type = 'trigger' AND s.tbl_name = w.value COLLATE NOCASE`
  ])

const postgres = (sql: SqlClient.SqlClient, wanted: string): Found => {
  const tables = sql`(
    SELECT c.oid, c.relname, c.relnamespace FROM pg_catalog.pg_class AS c
    JOIN json_array_elements_text(CAST(${wanted} AS json)) AS w ON w.value = c.relname
    WHERE c.relkind IN ('r', 'p') AND pg_catalog.pg_table_is_visible(c.oid))`
  return Effect.all([
    sql<ColumnRow>`
      SELECT t.relname AS "table", a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
        y.typnamespace = t.relnamespace AS own_type, a.attgenerated <> '' AS generated,
        pg_catalog.pg_get_serial_sequence(pg_catalog.quote_ident(t.relname), a.attname) AS sequence
      FROM ${tables} AS t
      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
      JOIN pg_catalog.pg_type AS y ON y.oid = a.atttypid
      ORDER BY t.relname, a.attnum`,
    sql<Reference>`
      SELECT DISTINCT f.relname AS "from", t.relname AS "to"
      FROM pg_catalog.pg_constraint AS k
      JOIN pg_catalog.pg_class AS f ON f.oid = k.conrelid
      JOIN pg_catalog.pg_class AS t ON t.oid = k.confrelid
      WHERE k.contype = 'f' AND (k.conrelid IN (SELECT oid FROM ${tables} AS o)
        OR k.confrelid IN (SELECT oid FROM ${tables} AS o))`,
    sql<{ readonly table: string }>`
      SELECT DISTINCT t.relname AS "table" FROM ${tables} AS t
      JOIN pg_catalog.pg_trigger AS g ON g.tgrelid = t.oid WHERE NOT g.tgisinternal`
  ])
}

/** Drops every table but these, the framework's own and those with rows in them; returns their names. */
export const dropOthers = (
  names: ReadonlyArray<string>
): Effect.Effect<ReadonlyArray<string>, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const kept = new Set(names.map((name) => name.toLowerCase()))
    const found = yield* sql.onDialectOrElse({
      sqlite: () =>
        sql<{ readonly name: string }>`
          SELECT name FROM pragma_table_list
          WHERE schema = 'main' AND type IN ('table', 'virtual') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'`,
      orElse: () =>
        sql<{ readonly name: string }>`
          SELECT relname AS name FROM pg_catalog.pg_class
          WHERE relkind IN ('r', 'p', 'f') AND NOT relispartition
            AND relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema())`
    })
    const others = found.map(({ name }) => name).filter((name) =>
      !kept.has(name.toLowerCase()) && !name.toLowerCase().startsWith("processor_")
    )
    const full = new Set(yield* filled(others))
    const empty = others.filter((name) => !full.has(name))
    const cascade = sql.literal(sql.onDialectOrElse({ sqlite: () => "", orElse: () => "CASCADE" }))
    for (const name of empty) yield* sql`DROP TABLE ${sql(name)} ${cascade}`
    return empty
  })

/** Those of these tables that have rows. */
export const filled = (
  names: ReadonlyArray<string>
): Effect.Effect<ReadonlyArray<string>, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) =>
      Effect.filter(names, (name) => Effect.map(sql`SELECT 1 FROM ${sql(name)} LIMIT 1`, (rows) => rows.length > 0))
  )
