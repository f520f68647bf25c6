/**
 * A blueprint: the SQL that makes a table, as its types say, for either database.
 *
 *     Shape ──▶ CREATE TABLE "todos" ( … ), CREATE INDEX …        the same text each time, byte by byte
 *
 * The two databases are made equally strict. What a type alone does not refuse, a CHECK does, and by its CHECK a kind is
 * known again in the catalogue:
 *
 * | kind      | PostgreSQL                             | SQLite, in STRICT tables                   |
 * | text      | TEXT                                   | TEXT                                       |
 * | enum      | TEXT, one of its values                | TEXT, one of its values                    |
 * | integer   | BIGINT, within ±(2^53 - 1)             | INTEGER, within ±(2^53 - 1)                |
 * | double    | DOUBLE PRECISION, finite               | REAL, finite                               |
 * | bigint    | BIGINT                                 | INTEGER                                    |
 * | boolean   | BOOLEAN                                | INTEGER, 0 or 1                            |
 * | timestamp | TIMESTAMPTZ(3), years 1 to 9999        | TEXT, as `2026-11-21T18:25:11.310Z`        |
 * | bytes     | BYTEA                                  | BLOB                                       |
 * | json      | JSONB                                  | TEXT, valid JSON                           |
 *
 * Names of constraints and indexes are derived: `todos$title$index`. A `$` cannot be in the name of a table or column, so
 * no two of them, and none of them and a table, can meet. One that is longer than 63 bytes is cut and ends in a hash.
 */

import { createHash } from "node:crypto"
import type { Dialect } from "../domain/Dialect.js"
import type * as Column from "../table/Column.js"
import type * as Definition from "../table/Definition.js"

/** A constraint or index of a table, with a name of its own. */
export interface Part {
  readonly role: "check" | "key" | "unique" | "index"
  readonly name: string
  readonly columns: ReadonlyArray<string>
  /** Of a `check`: its expression. */
  readonly expression: string | undefined
}

/** The same table with `unique` and `indexes` sorted and each once, as a catalogue tells them, which keeps no order. */
export const canonical = <S extends Definition.Shape>(shape: S): S => ({
  ...shape,
  unique: sorted(shape.unique),
  indexes: sorted(shape.indexes)
})

/** Throws a `TypeError` for tables which cannot be in one database: two names that differ in case alone, or not at all. */
export const check = (shapes: ReadonlyArray<Definition.Shape>): void => {
  const seen = new Map<string, string>()
  for (const { columns, name } of shapes) {
    const other = seen.get(name.toLowerCase())
    if (other !== undefined) throw new TypeError(`two tables are called ${other} and ${name}`)
    seen.set(name.toLowerCase(), name)
    const unfit = columns.find(({ values }) => values.some((value) => !value.isWellFormed() || value.includes("\0")))
    if (unfit !== undefined) throw new TypeError(`a value of ${name}.${unfit.name} cannot be stored as text`)
  }
}

/** The statements that make a table: it, then its indexes. */
export const statements = (shape: Definition.Shape, dialect: Dialect): ReadonlyArray<string> => [
  createTable(shape, dialect),
  ...indexesOf(shape).map((part) => createIndex(shape.name, part))
]

/** `as` gives it another name and leaves the names of what belongs to it. */
export const createTable = (shape: Definition.Shape, dialect: Dialect, as: string = shape.name): string => {
  const lines = [
    ...shape.columns.map((column) => columnOf(shape.name, column, dialect)),
    ...keyOf(shape).map(constraint)
  ]
  return `CREATE TABLE ${quote(as)} (\n  ${lines.join(",\n  ")}\n)${options(shape, dialect)}`
}

/** A column with its CHECK, as in CREATE TABLE or ADD COLUMN. */
export const columnOf = (table: string, column: Column.Shape, dialect: Dialect): string =>
  [
    quote(column.name),
    typeOf(column.kind, dialect),
    ...(column.nullable ? [] : ["NOT NULL"]),
    ...checkOf(table, column, dialect).map(constraint)
  ].join(" ")

/** Everything of a table that has a name of its own. */
export const partsOf = (shape: Definition.Shape, dialect: Dialect): ReadonlyArray<Part> => [
  ...keyOf(shape),
  ...shape.columns.flatMap((column) => checkOf(shape.name, column, dialect)),
  ...indexesOf(shape)
]

/** `CONSTRAINT … CHECK (…)` or `CONSTRAINT … PRIMARY KEY (…)`. */
export const constraint = ({ columns, expression, name }: Part): string =>
  `CONSTRAINT ${quote(name)} ${expression === undefined ? `PRIMARY KEY (${list(columns)})` : `CHECK (${expression})`}`

export const createIndex = (table: string, { columns, name, role }: Part): string =>
  `CREATE ${role === "unique" ? "UNIQUE INDEX" : "INDEX"} ${quote(name)} ON ${quote(table)} (${list(columns)})`

export const indexesOf = (shape: Definition.Shape): ReadonlyArray<Part> => {
  const { indexes, unique } = canonical(shape)
  const part = (role: "unique" | "index") => (columns: ReadonlyArray<string>): Part => ({
    role,
    columns,
    name: nameOf([shape.name, ...columns], role),
    expression: undefined
  })
  return [...unique.map(part("unique")), ...indexes.map(part("index"))]
}

/** The CHECK of a column, if its kind has one. */
const checkOf = (table: string, column: Column.Shape, dialect: Dialect): ReadonlyArray<Part> => {
  const expression = expressionOf(column, dialect)
  const name = nameOf([table, column.name], "check")
  return expression === undefined ? [] : [{ role: "check", columns: [column.name], name, expression }]
}

export const typeOf = (kind: Column.Kind, dialect: Dialect): string => typesOf[dialect][kind]

/** The greatest integer that a number holds exactly. */
const safe = "9007199254740991"
const finite = "1.7976931348623157e308"

/** What the type alone does not refuse. NULL passes every CHECK, so it is NOT NULL's part. */
export const expressionOf = (
  { kind, name, values }: Pick<Column.Shape, "kind" | "name" | "values">,
  dialect: Dialect
): string | undefined => {
  const column = quote(name)
  const isSqlite = dialect === "sqlite"
  switch (kind) {
    case "enum":
      return `${column} IN (${values.map(text).join(", ")})`
    case "integer":
      return `${column} BETWEEN -${safe} AND ${safe}`
    case "double":
      return isSqlite
        ? `${column} BETWEEN -${finite} AND ${finite}`
        : `${column} > '-Infinity' AND ${column} < 'Infinity'`
    case "boolean":
      return isSqlite ? `${column} IN (0, 1)` : undefined
    case "timestamp":
      // SQLite takes the hour 24 for one, and writes it back as it was.
      return isSqlite
        ? `strftime('%Y-%m-%dT%H:%M:%fZ', ${column}) IS ${column} AND substr(${column}, 12, 2) < '24' `
          + `AND ${column} >= '0001'`
        : isInstant(column)
    case "json":
      return isSqlite ? `json_valid(${column})` : undefined
    case "text":
    case "bigint":
    case "bytes":
      return undefined
  }
}

/** Of an expression on PostgreSQL: whether it is an instant of the years 1 to 9999. */
export const isInstant = (expression: string): string =>
  `EXTRACT(EPOCH FROM ${expression}) BETWEEN -62135596800 AND 253402300799.999`

/** A value as SQL text. */
export const literal = (cell: Column.Cell, dialect: Dialect): string => {
  if (cell === null) return "NULL"
  if (cell instanceof Uint8Array) {
    const digits = Buffer.from(cell).toString("hex")
    return dialect === "pg" ? `'\\x${digits}'::bytea` : `x'${digits}'`
  }
  if (typeof cell === "boolean") return dialect === "pg" ? (cell ? "TRUE" : "FALSE") : (cell ? "1" : "0")
  return typeof cell === "string" ? text(cell) : String(cell)
}

export const quote = (name: string): string => `"${name.replaceAll("\"", "\"\"")}"`

export const list = (names: ReadonlyArray<string>): string => names.map(quote).join(", ")

/** Names of at most 63 bytes, which is what PostgreSQL keeps of one. */
export const nameOf = (parts: ReadonlyArray<string>, role: string): string => {
  const plain = [...parts, role].join("$")
  if (plain.length <= nameMax) return plain
  const hash = createHash("sha256").update(plain).digest("hex").slice(0, 12)
  const end = `$${hash}$${role}`
  return plain.slice(0, nameMax - end.length) + end
}

const nameMax = 63

const keyOf = (shape: Definition.Shape): ReadonlyArray<Part> =>
  shape.key.length === 0
    ? []
    : [{ role: "key", columns: shape.key, name: nameOf([shape.name], "key"), expression: undefined }]

/** A single integer key of a table with rowids would be the rowid, which SQLite makes up where it is NULL. */
const options = (shape: Definition.Shape, dialect: Dialect): string => {
  if (dialect === "pg") return ""
  const [first] = shape.columns.filter(({ name }) => shape.key.includes(name))
  const isRowid = shape.key.length === 1 && first !== undefined && typeOf(first.kind, dialect) === "INTEGER"
  return isRowid ? " STRICT, WITHOUT ROWID" : " STRICT"
}

const text = (value: string): string => `'${value.replaceAll("'", "''")}'`

/** Commas cannot be in a name, so the joined text tells two lists apart. */
const sorted = (lists: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<ReadonlyArray<string>> =>
  [...new Map(lists.map((columns) => [columns.join(","), columns])).entries()]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, columns]) => columns)

const typesOf: { readonly [D in Dialect]: { readonly [K in Column.Kind]: string } } = {
  pg: {
    text: "TEXT",
    enum: "TEXT",
    integer: "BIGINT",
    double: "DOUBLE PRECISION",
    bigint: "BIGINT",
    boolean: "BOOLEAN",
    timestamp: "TIMESTAMPTZ(3)",
    bytes: "BYTEA",
    json: "JSONB"
  },
  sqlite: {
    text: "TEXT",
    enum: "TEXT",
    integer: "INTEGER",
    double: "REAL",
    bigint: "INTEGER",
    boolean: "INTEGER",
    timestamp: "TEXT",
    bytes: "BLOB",
    json: "TEXT"
  }
}
