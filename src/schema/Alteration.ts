/**
 * An alteration: the SQL that takes a database from some shapes to others and keeps the rows.
 *
 *     PostgreSQL   ALTER TABLE in place: drop, rename, add, retype, name, constrain
 *     SQLite       which cannot alter constraints: new table ─▶ INSERT … SELECT ─▶ drop the old ─▶ rename the new ─▶ indexes
 *
 * In the end every constraint and index is there as a `Blueprint` would have made it, by the same name. On PostgreSQL new
 * columns come last. Dropped tables go first and added tables come last, so that a name can pass from one to another.
 */

import type { Dialect } from "../domain/Dialect.js"
import type * as Column from "../table/Column.js"
import type * as Definition from "../table/Definition.js"
import * as Blueprint from "./Blueprint.js"
import * as Comparison from "./Comparison.js"

/** What rows that are there already get in a column that is new or no longer takes NULL; `undefined` leaves NULL. */
export type Fill = (table: Definition.Shape, column: Column.Shape) => Column.Cell | undefined

export interface Options {
  readonly fill: Fill
  /** Whether a table is built anew also where it need not be, so that nothing stays of it but its rows. */
  readonly isRebuilt: (pair: Comparison.TablePair) => boolean
}

/** The statements in their order; none when nothing changes. */
export const statements = (
  { added, dropped, kept }: Comparison.Comparison,
  dialect: Dialect,
  options: Options
): ReadonlyArray<string> => {
  const changed = kept.filter((pair) => options.isRebuilt(pair) || Comparison.changesWithin(pair).length > 0)
  const rebuilt = changed.filter((pair) => options.isRebuilt(pair) || rebuilds(pair, dialect))
  const altered = changed.filter((pair) => !rebuilt.includes(pair))
  return [
    ...dropped.toReversed().map(({ name }) => `DROP TABLE ${Blueprint.quote(name)}`),
    ...rebuild(rebuilt, dialect, options.fill),
    ...alter(altered, dialect, options.fill),
    ...added.flatMap((shape) => Blueprint.statements(shape, dialect))
  ]
}

/** Whether a table is built anew in any case: on SQLite wherever more changes than its indexes. */
export const rebuilds = (pair: Comparison.TablePair, dialect: Dialect): boolean =>
  dialect === "sqlite" && Comparison.changesWithin(pair).some(({ what }) => !ofIndexes.includes(what))

/** The value that takes a row's place where nothing else is known: no text, zero, no, the first of an enum, 1970. */
export const blank = ({ kind, nullable, values }: Column.Shape): Column.Cell => {
  if (nullable) return null
  switch (kind) {
    case "text":
      return ""
    case "enum":
      return values[0] ?? null
    case "integer":
    case "double":
      return 0
    case "bigint":
      return 0n
    case "boolean":
      return false
    case "timestamp":
      return "1970-01-01T00:00:00.000Z"
    case "bytes":
      return new Uint8Array()
    case "json":
      return "null"
  }
}

const ofIndexes: ReadonlyArray<Comparison.Change["what"]> = [
  "unique added",
  "unique dropped",
  "index added",
  "index dropped"
]

const rebuild = (
  pairs: ReadonlyArray<Comparison.TablePair>,
  dialect: Dialect,
  fill: Fill
): ReadonlyArray<string> => {
  const interim = ({ after }: Comparison.TablePair) => Blueprint.nameOf([after.name], "new")
  return [
    ...pairs.flatMap((pair) => [create(pair, dialect, interim(pair)), copy(pair, dialect, interim(pair), fill)]),
    ...pairs.map(({ before }) => `DROP TABLE ${Blueprint.quote(before.name)}`),
    ...pairs.map((pair) =>
      `ALTER TABLE ${Blueprint.quote(interim(pair))} RENAME TO ${Blueprint.quote(pair.after.name)}`
    ),
    ...pairs.flatMap((pair) => finish(pair.after, dialect))
  ]
}

/** On PostgreSQL without constraints, whose names may be those of the old table's and are told by the table's. */
const create = ({ after }: Comparison.TablePair, dialect: Dialect, as: string): string =>
  dialect === "sqlite"
    ? Blueprint.createTable(after, dialect, as)
    : `CREATE TABLE ${Blueprint.quote(as)} (\n  ${
      after.columns
        .map(({ kind, name }) => `${Blueprint.quote(name)} ${Blueprint.typeOf(kind, dialect)}`)
        .join(",\n  ")
    }\n)`

const copy = (pair: Comparison.TablePair, dialect: Dialect, into: string, fill: Fill): string => {
  const values = pair.after.columns.map((column) => {
    const filled = filling(pair.after, column, dialect, fill)
    const source = pair.kept.find(({ after }) => after === column)
    if (source === undefined) return filled ?? "NULL"
    const expression = converted(source, Blueprint.quote(source.before.name), dialect)
    return source.before.nullable && !column.nullable && filled !== undefined
      ? `coalesce(${expression}, ${filled})`
      : expression
  })
  return `INSERT INTO ${Blueprint.quote(into)} (${Blueprint.list(pair.after.columns.map(({ name }) => name))})\n`
    + `SELECT ${values.join(", ")} FROM ${Blueprint.quote(pair.before.name)}`
}

const finish = (shape: Definition.Shape, dialect: Dialect): ReadonlyArray<string> => {
  const indexes = Blueprint.indexesOf(shape).map((part) => Blueprint.createIndex(shape.name, part))
  if (dialect === "sqlite") return indexes
  const table = Blueprint.quote(shape.name)
  const required = shape.columns
    .filter(({ nullable }) => !nullable)
    .map(({ name }) => `ALTER TABLE ${table} ALTER COLUMN ${Blueprint.quote(name)} SET NOT NULL`)
  const constraints = Blueprint.partsOf(shape, dialect)
    .filter(({ role }) => role === "key" || role === "check")
    .map((part) => `ALTER TABLE ${table} ADD ${Blueprint.constraint(part)}`)
  return [...required, ...constraints, ...indexes]
}

/** In place. On SQLite there is nothing here but indexes. */
const alter = (
  pairs: ReadonlyArray<Comparison.TablePair>,
  dialect: Dialect,
  fill: Fill
): ReadonlyArray<string> => {
  const fates = fatesOf(pairs, dialect)
  return [
    ...fates.removed.map(({ part, table }) => remove(table, part)),
    ...pairs.flatMap((pair) =>
      pair.dropped.map(({ name }) =>
        `ALTER TABLE ${Blueprint.quote(pair.before.name)} DROP COLUMN ${Blueprint.quote(name)}`
      )
    ),
    ...pairs.flatMap(({ before, kept }) =>
      renameAll(
        kept.map((each) => [each.before.name, each.after.name]),
        (from, to) => `ALTER TABLE ${Blueprint.quote(before.name)} RENAME COLUMN ${from} TO ${to}`
      )
    ),
    ...renameAll(
      pairs.map(({ after, before }) => [before.name, after.name]),
      (from, to) => `ALTER TABLE ${from} RENAME TO ${to}`
    ),
    ...pairs.flatMap((pair) => [
      ...pair.added.flatMap((column) => add(pair.after, column, dialect, fill)),
      ...pair.kept.flatMap((column) => retype(pair.after, column, dialect, fill))
    ]),
    ...fates.renamed.map(({ name, part, table }) => rename(table, part, name)),
    ...fates.created.map(({ part, table }) =>
      part.role === "key" || part.role === "check"
        ? `ALTER TABLE ${Blueprint.quote(table)} ADD ${Blueprint.constraint(part)}`
        : Blueprint.createIndex(table, part)
    )
  ]
}

interface Fate {
  /** Before for what is removed, after for what is renamed or created. */
  readonly table: string
  readonly part: Blueprint.Part
}

interface Fates {
  readonly removed: ReadonlyArray<Fate>
  readonly renamed: ReadonlyArray<Fate & { readonly name: string }>
  readonly created: ReadonlyArray<Fate>
}

/** What becomes of constraints and indexes. One whose new name is taken when its turn comes is made anew instead. */
const fatesOf = (pairs: ReadonlyArray<Comparison.TablePair>, dialect: Dialect): Fates => {
  const taken = new Set(pairs.flatMap(({ before }) => Blueprint.partsOf(before, dialect).map(({ name }) => name)))
  const all = pairs.map((pair): Fates => {
    const before = Blueprint.partsOf(pair.before, dialect)
    const after = Blueprint.partsOf(pair.after, dialect)
    const added = new Set(pair.added.map(({ name }) => name))
    const matches = after.flatMap((part) => {
      const other = before.find((each) => isSame(pair, each, part))
      return other !== undefined && (other.name === part.name || !taken.has(part.name)) ? [{ part, other }] : []
    })
    return {
      removed: before
        .filter((part) => !matches.some(({ other }) => other === part))
        .map((part) => ({ table: pair.before.name, part })),
      renamed: matches
        .filter(({ other, part }) => other.name !== part.name)
        .map(({ other, part }) => ({ table: pair.after.name, part: other, name: part.name })),
      created: after
        // A column that is added brings its CHECK.
        .filter((part) => !(part.role === "check" && part.columns.every((name) => added.has(name))))
        .filter((part) => !matches.some((match) => match.part === part))
        .map((part) => ({ table: pair.after.name, part }))
    }
  })
  return {
    removed: all.flatMap(({ removed }) => removed),
    renamed: all.flatMap(({ renamed }) => renamed),
    created: all.flatMap(({ created }) => created)
  }
}

/** Whether a part of before says of the renamed columns what a part of after does. */
const isSame = (pair: Comparison.TablePair, before: Blueprint.Part, after: Blueprint.Part): boolean => {
  const names = before.columns.map((name) => Comparison.nameAfter(pair, name))
  if (before.role !== after.role || names.join(",") !== after.columns.join(",")) return false
  if (before.role !== "check") return true
  const column = pair.kept.find((each) => each.after.name === names[0])
  return column !== undefined && column.before.kind === column.after.kind && column.passage === "same"
}

const remove = (table: string, { name, role }: Blueprint.Part): string =>
  role === "key" || role === "check"
    ? `ALTER TABLE ${Blueprint.quote(table)} DROP CONSTRAINT ${Blueprint.quote(name)}`
    : `DROP INDEX ${Blueprint.quote(name)}`

const rename = (table: string, part: Blueprint.Part, name: string): string =>
  part.role === "key" || part.role === "check"
    ? `ALTER TABLE ${Blueprint.quote(table)} RENAME CONSTRAINT ${Blueprint.quote(part.name)} TO ${
      Blueprint.quote(name)
    }`
    : `ALTER INDEX ${Blueprint.quote(part.name)} RENAME TO ${Blueprint.quote(name)}`

/** Names that are still held by another on its way are reached through one that nobody has. */
const renameAll = (
  names: ReadonlyArray<readonly [before: string, after: string]>,
  statement: (from: string, to: string) => string
): ReadonlyArray<string> => {
  const moving = names.filter(([before, after]) => before !== after)
  const held = new Set(moving.map(([before]) => before))
  const through = (name: string) => Blueprint.nameOf([name], "passing")
  return [
    ...moving.map(([before, after]) =>
      statement(Blueprint.quote(before), Blueprint.quote(held.has(after) ? through(after) : after))
    ),
    ...moving
      .filter(([, after]) => held.has(after))
      .map(([, after]) => statement(Blueprint.quote(through(after)), Blueprint.quote(after)))
  ]
}

const add = (
  shape: Definition.Shape,
  column: Column.Shape,
  dialect: Dialect,
  fill: Fill
): ReadonlyArray<string> => {
  const filled = filling(shape, column, dialect, fill)
  const table = Blueprint.quote(shape.name)
  // With its default in place the rows are not written again; the CHECK is then read against each of them.
  return [
    `ALTER TABLE ${table} ADD COLUMN ${Blueprint.columnOf(shape.name, column, dialect)}${
      filled === undefined ? "" : ` DEFAULT ${filled}`
    }`,
    ...(filled === undefined
      ? []
      : [`ALTER TABLE ${table} ALTER COLUMN ${Blueprint.quote(column.name)} DROP DEFAULT`])
  ]
}

const retype = (
  shape: Definition.Shape,
  pair: Comparison.ColumnPair,
  dialect: Dialect,
  fill: Fill
): ReadonlyArray<string> => {
  const { after, before } = pair
  const table = Blueprint.quote(shape.name)
  const column = Blueprint.quote(after.name)
  const type = Blueprint.typeOf(after.kind, dialect)
  const change = `ALTER TABLE ${table} ALTER COLUMN ${column}`
  const filled = filling(shape, after, dialect, fill)
  const isFilled = before.nullable && !after.nullable && filled !== undefined
  return [
    ...(type === Blueprint.typeOf(before.kind, dialect)
      ? []
      : [`${change} TYPE ${type} USING ${converted(pair, column, dialect)}`]),
    ...(isFilled ? [`UPDATE ${table} SET ${column} = ${filled} WHERE ${column} IS NULL`] : []),
    ...(before.nullable === after.nullable ? [] : [`${change} ${after.nullable ? "DROP" : "SET"} NOT NULL`])
  ]
}

const filling = (
  shape: Definition.Shape,
  column: Column.Shape,
  dialect: Dialect,
  fill: Fill
): string | undefined => {
  const cell = fill(shape, column)
  return cell === undefined || cell === null ? undefined : Blueprint.literal(cell, dialect)
}

/**
 * The old value as a new one. What does not fit fails the statement, on both databases: where SQLite's STRICT tables refuse
 * by themselves the value is passed as it is, and where a cast of PostgreSQL would round or guess it is kept from it.
 */
const converted = (
  { after, before }: Comparison.ColumnPair,
  column: string,
  dialect: Dialect
): string => {
  if (before.kind === after.kind) return column
  const passage = (dialect === "pg" ? pgPassages : sqlitePassages)[`${before.kind} ${after.kind}`]
  return passage === undefined ? column : passage(column)
}

type Passages = { readonly [fromTo: string]: (column: string) => string }

const instant = String.raw`'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$'`

const toText = (column: string) => `${column}::text`
const asInteger = (column: string) => `${column}::text::bigint`
const wholeOf = (column: string) =>
  `CASE WHEN ${column} = trunc(${column}) THEN ${column}::bigint ELSE ${column}::text::bigint END`
const boolean = (column: string) => `${column}::text::boolean`

const pgPassages: Passages = {
  "integer text": toText,
  "integer double": (column) => `${column}::double precision`,
  "integer boolean": boolean,
  "bigint text": toText,
  "bigint double": (column) => `${column}::double precision`,
  "bigint boolean": boolean,
  "boolean text": toText,
  "boolean integer": (column) => `${column}::integer::bigint`,
  "boolean bigint": (column) => `${column}::integer::bigint`,
  "double integer": wholeOf,
  "double bigint": wholeOf,
  "json text": toText,
  // A column that was made by hand may hold other years, and infinity, which this way of writing has no text for.
  "timestamp text": (column) =>
    `CASE WHEN ${Blueprint.isInstant(column)} `
    + `THEN to_char(${column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') `
    + `ELSE ('no instant: ' || ${column})::timestamptz::text END`,
  "text integer": asInteger,
  "text bigint": asInteger,
  "text double": (column) => `${column}::double precision`,
  "text boolean": (column) =>
    `CASE ${column} WHEN 'true' THEN TRUE WHEN 'false' THEN FALSE ELSE ('no boolean: ' || ${column})::boolean END`,
  "text timestamp": (column) =>
    `CASE WHEN ${column} !~ ${instant} THEN 'no instant: ' || ${column} `
    + `ELSE ${column} END::timestamptz`,
  "text json": (column) => `${column}::jsonb`
}

const sqlitePassages: Passages = {
  "boolean text": (column) => `CASE ${column} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END`,
  "text boolean": (column) => `CASE ${column} WHEN 'true' THEN 1 WHEN 'false' THEN 0 ELSE ${column} END`
}
