/**
 * An introspection: the tables that a database holds, as the shapes that types would have.
 *
 *     catalogue ──▶ type and CHECK of each column ──▶ kind        what `Blueprint` makes, exactly; anything else, as near as can be
 *
 * What was written by hand has types that no kind means exactly. Such a column has the kind whose values are read most
 * alike, and a note that says what is not the same:
 *
 * | PostgreSQL                                                  | kind                     |
 * | varchar, char, uuid, numeric, and what else arrives as text | text                     |
 * | int2, int4                                                  | integer                  |
 * | float4, and float8 that may be NaN                          | double                   |
 * | an enum type                                                | enum                     |
 * | timestamptz of another precision, timestamp, date           | timestamp                |
 * | json                                                        | json                     |
 * | arrays, composites, intervals, points, generated columns    | none, said by the `fit`  |
 *
 * On SQLite a table that is not STRICT takes values of any type in any column: its columns have the kind of their affinity,
 * with a note; a NUMERIC or BLOB affinity is none. The framework's own tables, virtual tables and what belongs to an
 * extension are left out. Partial indexes and those of expressions are noted at their table and are in no shape.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type * as Column from "../table/Column.js"
import type * as Definition from "../table/Definition.js"
import * as Blueprint from "./Blueprint.js"

export interface FoundColumn extends Column.Shape {
  /** The type as the database writes it. */
  readonly declared: string
  /** Whether the kind is what the column is, what is nearest to it, or nothing that fits. */
  readonly fit: "exact" | "nearest" | "none"
  /** What is not the same, where it is not exact. */
  readonly note: string | undefined
}

export interface FoundTable extends Definition.Shape {
  /** In the catalogue's order. */
  readonly columns: ReadonlyArray<FoundColumn>
  /** What the shape does not say. */
  readonly notes: ReadonlyArray<string>
  /** The tables whose foreign keys name this one, other than itself. */
  readonly referencedBy: ReadonlyArray<string>
}

/**
 * The tables of the schema that unqualified names reach first, or of the file, by name: those of a namespace with
 * `Namespace.query("todos", Introspection.read)`. The framework's own are left out.
 */
export const read: Effect.Effect<ReadonlyArray<FoundTable>, SqlError, SqlClient.SqlClient> = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql.onDialectOrElse({ sqlite: () => sqlite(sql), orElse: () => postgres(sql) })
)

/** The shape alone. */
export const shapeOf = (table: FoundTable): Definition.Shape => ({
  name: table.name,
  columns: table.columns.map(({ kind, name, nullable, values }) => ({ name, kind, nullable, values })),
  key: table.key,
  unique: table.unique,
  indexes: table.indexes
})

interface Judged {
  readonly kind: Column.Kind
  readonly values: ReadonlyArray<string>
  readonly fit: FoundColumn["fit"]
  readonly note: string | undefined
}

const exact = (kind: Column.Kind, values: ReadonlyArray<string> = []): Judged => ({
  kind,
  values,
  fit: "exact",
  note: undefined
})
const nearest = (kind: Column.Kind, note: string, values: ReadonlyArray<string> = []): Judged => ({
  kind,
  values,
  fit: "nearest",
  note
})
const none = (note: string): Judged => ({ kind: "json", values: [], fit: "none", note })

interface IndexRow {
  readonly owner: string
  readonly name: string
  readonly role: "key" | "unique" | "index"
  readonly columns: ReadonlyArray<string> | undefined
}

const assemble = (
  name: string,
  columns: ReadonlyArray<FoundColumn>,
  indexes: ReadonlyArray<IndexRow>,
  references: ReadonlyArray<{ readonly owner: string; readonly target: string }>
): FoundTable => {
  const own = indexes.filter(({ owner }) => owner === name)
  const columnsOf = (role: IndexRow["role"]) =>
    own.flatMap((index) => index.role === role && index.columns !== undefined ? [index.columns] : [])
  const isThis = (other: string) => other.toLowerCase() === name.toLowerCase()
  return Blueprint.canonical({
    name,
    columns,
    key: columnsOf("key")[0] ?? [],
    unique: columnsOf("unique"),
    indexes: columnsOf("index"),
    notes: [
      ...(columnsOf("key").length === 0 ? ["it has no primary key"] : []),
      ...own.filter((index) => index.columns === undefined).map((index) => `the index ${index.name} is in no shape`)
    ],
    referencedBy: [
      ...new Set(references.filter(({ owner, target }) => isThis(target) && !isThis(owner)).map(({ owner }) => owner))
    ].sort()
  })
}

const grouped = <A extends { readonly owner: string }>(
  rows: ReadonlyArray<A>
): ReadonlyMap<string, ReadonlyArray<A>> => {
  const groups = new Map<string, Array<A>>()
  for (const row of rows) {
    const group = groups.get(row.owner)
    if (group === undefined) groups.set(row.owner, [row])
    else group.push(row)
  }
  return groups
}

// SQLite

interface SqliteTable {
  readonly name: string
  readonly strict: number
  readonly text: string
}

interface SqliteColumn {
  readonly owner: string
  readonly name: string
  readonly type: string
  readonly required: number
  readonly keyed: number
  readonly hidden: number
}

interface SqliteIndexColumn {
  readonly owner: string
  readonly name: string
  readonly origin: string
  readonly isUnique: number
  readonly partial: number
  readonly column: string | null
  readonly isPlain: number
}

const sqlite = (sql: SqlClient.SqlClient) =>
  Effect.gen(function*() {
    const tables = yield* sql<SqliteTable>`
      SELECT l.name, l.strict, m.sql AS text
      FROM pragma_table_list AS l JOIN sqlite_schema AS m ON m.type = 'table' AND m.name = l.name
      WHERE l.schema = 'main' AND l.type = 'table'
        AND l.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND l.name NOT LIKE 'processor\\_%' ESCAPE '\\'
      ORDER BY l.name`
    const columns = yield* sql<SqliteColumn>`
      SELECT m.name AS owner, x.name, x.type, x."notnull" AS required, x.pk AS keyed, x.hidden
      FROM sqlite_schema AS m JOIN pragma_table_xinfo(m.name) AS x WHERE m.type = 'table' ORDER BY m.name, x.cid`
    const parts = yield* sql<SqliteIndexColumn>`
      SELECT m.name AS owner, l.name, l.origin, l."unique" AS "isUnique", l.partial, x.name AS "column",
        x.cid >= 0 AND NOT x."desc" AND x.coll = 'BINARY' AS "isPlain"
      FROM sqlite_schema AS m JOIN pragma_index_list(m.name) AS l JOIN pragma_index_xinfo(l.name) AS x
      WHERE m.type = 'table' AND x.key = 1 ORDER BY m.name, l.name, x.seqno`
    const references = yield* sql<{ owner: string; target: string }>`
      SELECT m.name AS owner, f."table" AS target
      FROM sqlite_schema AS m JOIN pragma_foreign_key_list(m.name) AS f WHERE m.type = 'table'`
    const byOwner = grouped(columns)
    const indexes = sqliteIndexes(parts)
    return tables.map((table) => {
      const own = byOwner.get(table.name) ?? []
      const key = own.filter(({ keyed }) => keyed > 0).sort((a, b) => a.keyed - b.keyed).map(({ name }) => name)
      const keyIndex: ReadonlyArray<IndexRow> = key.length === 0
        ? []
        : [{ owner: table.name, name: "", role: "key", columns: key }]
      return assemble(
        table.name,
        own.map((column) => sqliteColumn(table, column, key.length === 1)),
        [...keyIndex, ...indexes],
        references
      )
    })
  })

const sqliteIndexes = (parts: ReadonlyArray<SqliteIndexColumn>): ReadonlyArray<IndexRow> => {
  const byName = grouped(
    parts.filter(({ origin }) => origin !== "pk").map((part) => ({
      ...part,
      table: part.owner,
      // Names of indexes are unique in a file.
      owner: part.name
    }))
  )
  return [...byName.values()].flatMap((columns) => {
    const [first] = columns
    if (first === undefined) return []
    const isPlain = first.partial === 0 && columns.every((each) => each.isPlain === 1 && each.column !== null)
    return [{
      owner: first.table,
      name: first.name,
      role: first.isUnique === 1 ? "unique" as const : "index" as const,
      columns: isPlain ? columns.map(({ column }) => column ?? "") : undefined
    }]
  })
}

const sqliteColumn = (table: SqliteTable, column: SqliteColumn, isAlone: boolean): FoundColumn => {
  const judged = column.hidden !== 0 ? none("its value is generated") : sqliteKind(table, column)
  const isKey = column.keyed > 0
  // A key of the very type INTEGER is the rowid, which is there always.
  const isRowid = isKey && isAlone && column.type.toUpperCase() === "INTEGER"
  const isLoose = isKey && !isRowid && column.required === 0 && judged.fit !== "none"
  const note = isLoose ? [judged.note, "SQLite lets this key be NULL"].filter((each) => each !== undefined) : []
  return {
    name: column.name,
    nullable: column.required === 0 && !isKey,
    declared: column.type,
    ...judged,
    ...(isLoose ? { fit: "nearest" as const, note: note.join("; ") } : {})
  }
}

const sqliteKind = (table: SqliteTable, { name, type }: SqliteColumn): Judged => {
  const found = sqliteChecked(table.text, name, type.toUpperCase())
  const listed = sqliteListed(table.text, name)
  if (table.strict === 1) {
    if (found !== undefined) return exact(found)
    switch (type.toUpperCase()) {
      case "TEXT":
        return listed === undefined ? exact("text") : exact("enum", listed)
      case "INT":
      case "INTEGER":
        return exact("bigint")
      case "REAL":
        return nearest("double", "it may be infinite")
      case "BLOB":
        return exact("bytes")
      default:
        return none(`no kind fits ${type}`)
    }
  }
  const loose = "the table is not STRICT, so values of any type can be here"
  switch (affinityOf(type)) {
    case "INTEGER":
      return nearest(found === "boolean" ? "boolean" : "integer", loose)
    case "TEXT":
      return listed === undefined ? nearest(found ?? "text", loose) : nearest("enum", loose, listed)
    case "REAL":
      return nearest("double", loose)
    default:
      return none(type === "" ? "it has no type, so values of any type can be here" : `no kind fits ${type}; ${loose}`)
  }
}

const sqliteKinds: ReadonlyArray<Column.Kind> = ["integer", "boolean", "double", "timestamp", "json"]

/** The kind whose CHECK is in the text, as `Blueprint` writes it. */
const sqliteChecked = (text: string, name: string, type: string): Column.Kind | undefined =>
  sqliteKinds.find((kind) =>
    Blueprint.typeOf(kind, "sqlite") === type &&
    text.includes(`CHECK (${Blueprint.expressionOf({ kind, name, values: [] }, "sqlite")})`)
  )

/** The texts that `CHECK (name IN ('…', '…'))` allows, as a `Blueprint` or a hand would write it. */
const sqliteListed = (text: string, name: string): ReadonlyArray<string> | undefined => {
  const quoted = String.raw`'(?:[^']|'')*'`
  const escaped = name.replace(/[$()*+.?[\\\]^{|}]/g, "\\$&")
  const pattern = String
    .raw`CHECK\s*\(\s*(?:"${escaped}"|\b${escaped})\s+IN\s*\(\s*(${quoted}(?:\s*,\s*${quoted})*)\s*\)\s*\)`
  const found = new RegExp(pattern, "i").exec(text)?.[1]
  return found?.match(new RegExp(quoted, "g"))?.map((each) => each.slice(1, -1).replaceAll("''", "'"))
}

/** As SQLite tells it from the declared type. */
const affinityOf = (type: string): "INTEGER" | "TEXT" | "BLOB" | "REAL" | "NUMERIC" => {
  if (/INT/i.test(type)) return "INTEGER"
  if (/CHAR|CLOB|TEXT/i.test(type)) return "TEXT"
  if (type === "" || /BLOB/i.test(type)) return "BLOB"
  return /REAL|FLOA|DOUB/i.test(type) ? "REAL" : "NUMERIC"
}

// PostgreSQL

interface PostgresColumn {
  readonly owner: string
  readonly name: string
  readonly declared: string
  /** The type, or the one that a domain is made of. */
  readonly type: string
  readonly category: string
  readonly nullable: boolean
  readonly isGenerated: boolean
  readonly isDomain: boolean
  readonly labels: ReadonlyArray<string> | null
  readonly checks: ReadonlyArray<string> | null
}

const postgres = (sql: SqlClient.SqlClient) =>
  Effect.gen(function*() {
    const columns = yield* sql<PostgresColumn>`
      SELECT c.relname AS owner, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS declared,
        b.typname AS type, b.typcategory::text AS category, NOT a.attnotnull AS nullable,
        a.attgenerated <> '' AS "isGenerated", t.typtype = 'd' AS "isDomain",
        (SELECT json_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = b.oid) AS labels,
        (SELECT json_agg(pg_get_constraintdef(k.oid, true) ORDER BY k.conname) FROM pg_constraint k
          WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.conkey = ARRAY[a.attnum]) AS checks
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = current_schema()
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      JOIN pg_type t ON t.oid = a.atttypid
      JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
      WHERE c.relkind IN ('r', 'p') AND c.relname NOT LIKE 'processor\\_%'
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')
      ORDER BY c.relname COLLATE "C", a.attnum`
    const indexes = yield* sql<{ owner: string; name: string; role: IndexRow["role"]; columns: Array<string> | null }>`
      SELECT c.relname AS owner, i.relname AS name,
        CASE WHEN x.indisprimary THEN 'key' WHEN x.indisunique THEN 'unique' ELSE 'index' END AS role,
        CASE WHEN x.indpred IS NULL AND x.indexprs IS NULL AND x.indisvalid AND m.amname = 'btree'
            AND x.indnkeyatts = x.indnatts AND NOT EXISTS (SELECT FROM unnest(x.indoption::int2[]) o WHERE o <> 0)
          THEN (SELECT json_agg(a.attname ORDER BY k.place) FROM unnest(x.indkey::int2[]) WITH ORDINALITY k (attnum, place)
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum) END AS columns
      FROM pg_index x
      JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am m ON m.oid = i.relam
      JOIN pg_class c ON c.oid = x.indrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = current_schema()
      ORDER BY c.relname COLLATE "C", i.relname COLLATE "C"`
    const references = yield* sql<{ owner: string; target: string }>`
      SELECT c.relname AS owner, f.relname AS target FROM pg_constraint k
      JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class f ON f.oid = k.confrelid
      JOIN pg_namespace n ON n.oid = f.relnamespace AND n.nspname = current_schema() WHERE k.contype = 'f'`
    const all = indexes.map((index) => ({ ...index, columns: index.columns ?? undefined }))
    return [...grouped(columns)].map(([name, own]) => assemble(name, own.map(postgresColumn), all, references))
  })

const postgresColumn = (column: PostgresColumn): FoundColumn => {
  const { declared, isDomain, isGenerated, name, nullable } = column
  const judged = isGenerated ? none("its value is generated") : postgresKind(column)
  return {
    name,
    nullable,
    declared,
    ...judged,
    ...(isDomain && judged.fit === "exact" ? { fit: "nearest" as const, note: `it is of the domain ${declared}` } : {})
  }
}

const postgresKind = ({ category, checks, declared, labels, type }: PostgresColumn): Judged => {
  const listed = postgresListed(checks ?? [])
  const isChecked = (pattern: RegExp) => (checks ?? []).some((each) => pattern.test(each))
  switch (type) {
    case "text":
      return listed === undefined ? exact("text") : exact("enum", listed)
    case "int8":
      return isChecked(safeInteger) ? exact("integer") : exact("bigint")
    case "int2":
    case "int4":
      return nearest("integer", `it is ${declared}`)
    case "float8":
      return isChecked(finite) ? exact("double") : nearest("double", "it may be NaN or infinite")
    case "float4":
      return nearest("double", "it is real, of 6 digits, and may be NaN or infinite")
    case "bool":
      return exact("boolean")
    case "timestamptz":
      return declared === "timestamp(3) with time zone" && isChecked(epoch)
        ? exact("timestamp")
        : nearest("timestamp", `it is ${declared}: read to the millisecond, and it may be infinite`)
    case "timestamp":
    case "date":
      return nearest("timestamp", `it is ${declared}: read as of the time zone of the process`)
    case "bytea":
      return exact("bytes")
    case "jsonb":
      return exact("json")
    case "json":
      return nearest("json", "it is json, whose text is kept as it was written")
    case "interval":
    case "point":
    case "circle":
      return none(`no kind fits ${declared}`)
    default:
      if (labels !== null) return nearest("enum", `it is of the type ${declared}`, labels)
      if (category === "A" || category === "C") return none(`no kind fits ${declared}`)
      return listed === undefined
        ? nearest("text", `it is ${declared}, which is read as text`)
        : nearest("enum", `it is ${declared}`, listed)
  }
}

/** As the server writes the CHECKs of `Blueprint`. */
const safeInteger = />= '-9007199254740991'::bigint AND .* <= '9007199254740991'::bigint\)$/
const finite = /> '-Infinity'::double precision AND .* < 'Infinity'::double precision\)$/
const epoch = /EXTRACT\(epoch FROM .*\) >= '-62135596800'::.* AND .* <= 253402300799\.999\)$/i

const quotedText = String.raw`E?'(?:[^']|'')*'::(?:text|character varying|bpchar)`
const listPattern = new RegExp(
  String
    .raw`^CHECK \([^'=]+ = (?:${quotedText}|ANY \(+ARRAY\[${quotedText}(?:, ${quotedText})*\]\)*(?:::text\[\]\)?)?)\)+$`
)

/** The texts that `CHECK (name = ANY (ARRAY['…'::text, …]))`, which is how IN is written back, allows. */
const postgresListed = (checks: ReadonlyArray<string>): ReadonlyArray<string> | undefined =>
  checks.find((each) => listPattern.test(each))?.match(new RegExp(quotedText, "g"))?.map((each) => {
    const body = each.slice(each.indexOf("'") + 1, each.lastIndexOf("'")).replaceAll("''", "'")
    return each.startsWith("E") ? body.replaceAll("\\\\", "\\") : body
  })
