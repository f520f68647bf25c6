/**
 * A bulk: one statement for any number of rows, in texts that stay the same, so that a database prepares each once.
 *
 *     rows ──▶ 128 rows, 128 rows, 32, 8, 1       SQLite: VALUES (?, ?), …, in sizes that are powers of two; 1,024 keys
 *     rows ──▶ 1,000 rows, 1,000 rows, 297        PostgreSQL: unnest($1::text[]), …, a list for each column
 *     row  ──▶ 1 row                              $1::text, …, its cells
 *
 * Invariant: no call has more parameters than its database takes (32,766 and 65,535), or more rows than these.
 */

import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type { Dialect } from "../domain/Dialect.js"
import type { Cell, Kind } from "./Column.js"

export type Cells = ReadonlyArray<Cell>

/** Sends one text with its parameters. */
export type Send<A> = (text: string, parameters: ReadonlyArray<unknown>) => Effect.Effect<A, SqlError>

/** A statement whose rows have one cell for each of some columns. */
export interface Bulk {
  /** How many of `left` rows the next call takes. */
  readonly take: (left: number) => number
  readonly text: (rows: number) => string
  readonly parameters: (rows: ReadonlyArray<Cells>, from: number, count: number) => ReadonlyArray<unknown>
}

/** Sends all rows, in as few calls as the dialect allows, one after another. */
export const run = <A>(
  bulk: Bulk,
  rows: ReadonlyArray<Cells>,
  send: Send<A>
): Effect.Effect<ReadonlyArray<A>, SqlError> => {
  const answers: Array<A> = []
  const from = (at: number): Effect.Effect<ReadonlyArray<A>, SqlError> => {
    if (at >= rows.length) return Effect.succeed(answers)
    const count = bulk.take(rows.length - at)
    return Effect.flatMap(
      send(bulk.text(count), bulk.parameters(rows, at, Math.min(count, rows.length - at))),
      (answer) => {
        answers.push(answer)
        return from(at + count)
      }
    )
  }
  return Effect.suspend(() => from(0))
}

/** A connection that may be told statements, of which nobody waits for the answers yet. */
export interface Teller {
  readonly tell: (statements: ReadonlyArray<Sent>) => Effect.Effect<void, SqlError>
  /** Waits for all that it was told, and fails with the first failure. Whatever it is asked after that fails likewise. */
  readonly told: Effect.Effect<void, SqlError>
}

/** A text with its parameters. */
export type Sent = readonly [text: string, parameters: ReadonlyArray<unknown>]

/** The calls that {@link run} makes. */
export const calls = (bulk: Bulk, rows: ReadonlyArray<Cells>): ReadonlyArray<Sent> => {
  const made: Array<Sent> = []
  for (let at = 0; at < rows.length;) {
    const count = bulk.take(rows.length - at)
    made.push([bulk.text(count), bulk.parameters(rows, at, Math.min(count, rows.length - at))])
    at += count
  }
  return made
}

/** Where the rows of a call are written into its text, as a list or as a table named `v`. */
export type Write = (rows: { readonly list: string; readonly table: string }) => string

const sqliteRowsMax = 128
/** Rows of keys alone are short. */
const sqliteKeysMax = 1_024
const sqliteParametersMax = 32_766

/** About so many cells of rows cost SQLite what a call does. */
const sqliteCellsACall = 24

/** For SQLite. With `repeats`, a call may hold a row twice, so a rest is filled up where this is less than sending it in pieces. */
export const sqlite = (kinds: ReadonlyArray<Kind>, write: Write, repeats = false): Bulk => {
  const most = repeats ? sqliteKeysMax : sqliteRowsMax
  const rowsMax = floorOf(Math.min(most, Math.floor(sqliteParametersMax / Math.max(1, kinds.length))))
  const texts = new Map<number, string>()
  const isFilledUp = (left: number) =>
    left < rowsMax && (ceilingOf(left) - left) * kinds.length <= sqliteCellsACall * (callsOf(left) - 1)
  const row = `(${kinds.map(() => "?").join(", ")})`
  return {
    take: (left) => repeats && isFilledUp(left) ? ceilingOf(left) : floorOf(Math.min(left, rowsMax)),
    text: (rows) => {
      const known = texts.get(rows)
      if (known !== undefined) return known
      const list = new Array<string>(rows).fill(row).join(", ")
      const text = write({ list, table: `(VALUES ${list}) AS v` })
      texts.set(rows, text)
      return text
    },
    parameters: (rows, from, count) => {
      const parameters: Array<unknown> = []
      for (let at = from; at < from + count; at++) pushSqlite(parameters, rows[at]!)
      if (repeats) {
        for (let missing = ceilingOf(count) - count; missing > 0; missing--) pushSqlite(parameters, rows[from]!)
      }
      return parameters
    }
  }
}

const pushSqlite = (parameters: Array<unknown>, cells: Cells): void => {
  for (const cell of cells) parameters.push(sqliteParameter(cell))
}

/** A cell as SQLite keeps it. */
export const sqliteParameter = (cell: Cell): unknown => typeof cell === "boolean" ? Number(cell) : cell

const floorOf = (count: number): number => 1 << (31 - Math.clz32(count))

/** How many powers of two add up to it. */
const callsOf = (count: number): number => count === 0 ? 0 : 1 + callsOf(count & (count - 1))

const ceilingOf = (count: number): number => count <= 1 ? 1 : floorOf(count - 1) << 1

const pgRowsMax = 1_000

/**
 * For PostgreSQL, where the columns of the table have these names. Of a row alone it knows that it is one: it keeps a plan that
 * goes by the key, where it would make one for each call with a list of few.
 */
export const pg = (kinds: ReadonlyArray<Kind>, names: ReadonlyArray<string>, write: Write): Bulk => {
  const columns = names.join(", ")
  const types = kinds.map((kind) => pgTypes[kind])
  const lists = types.map((type, i) => `$${i + 1}::${type}[]`)
  const cells = `SELECT ${types.map((type, i) => `$${i + 1}::${type}`).join(", ")}`
  const one = write({ list: cells, table: `(${cells}) AS v (${columns})` })
  const many = write({
    // What FROM has is kept aside as a whole before the first row of it is read.
    list: `SELECT ${lists.map((each) => `unnest(${each})`).join(", ")}`,
    table: `unnest(${lists.join(", ")}) AS v (${columns})`
  })
  return {
    take: (left) => Math.min(left, pgRowsMax),
    text: (rows) => rows === 1 ? one : many,
    parameters: (rows, from, count) =>
      count === 1
        ? kinds.map((_, column) => alone(rows[from]![column]!))
        : kinds.map((kind, column) => listOf(kind, rows, column, from, from + count))
  }
}

/** The types of PostgreSQL, by kind, under the names by which it tells them. */
export const pgTypes: { readonly [K in Kind]: string } = {
  text: "text",
  enum: "text",
  integer: "bigint",
  double: "double precision",
  bigint: "bigint",
  boolean: "boolean",
  timestamp: "timestamp with time zone",
  bytes: "bytea",
  json: "jsonb"
}

/** A cell by itself, as PostgreSQL reads it. */
const alone = (cell: Cell): string | null =>
  cell === null ? null : cell instanceof Uint8Array ? hexOf(cell) : String(cell)

/** A list of one column, as PostgreSQL reads it: `{"a","b",NULL}`. */
const listOf = (kind: Kind, rows: ReadonlyArray<Cells>, column: number, from: number, to: number): string => {
  const cells: Array<Cell> = []
  for (let at = from; at < to; at++) cells.push(rows[at]![column]!)
  return (writtenAsJson.has(kind) ? jsonList(cells) : undefined) ?? literalList(cells, pgLiterals[kind])
}

const literalList = (cells: ReadonlyArray<Cell>, write: (cell: NonNullable<Cell>) => string): string => {
  let list = "{"
  for (let at = 0; at < cells.length; at++) {
    const cell = cells[at]!
    if (at > 0) list += ","
    list += cell === null ? "NULL" : write(cell)
  }
  return `${list}}`
}

/** What JSON writes as PostgreSQL does, but for what {@link differs}. */
const writtenAsJson: ReadonlySet<Kind> = new Set([
  "text",
  "enum",
  "integer",
  "double",
  "boolean",
  "timestamp",
  "json"
])

/** An escape of JSON's that means its letter to PostgreSQL. */
const differs = /(?<!\\)(?:\\\\)*\\[bfnrtu]/

/** The list as JSON writes it, at a fraction of the price; `undefined` where PostgreSQL would read something else. */
const jsonList = (cells: ReadonlyArray<Cell>): string | undefined => {
  const json = JSON.stringify(cells)
  return json.includes("\\") && differs.test(json) ? undefined : `{${json.slice(1, -1)}}`
}

const special = /["\\]/
const specials = /["\\]/g

const quoted = (cell: Cell): string => {
  const text = cell as string
  return `"${special.test(text) ? text.replace(specials, "\\$&") : text}"`
}

/** Bytes as PostgreSQL reads them. */
export const hexOf = (bytes: Uint8Array): string =>
  `\\x${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex")}`

const bytesLiteral = (cell: Cell): string => `"\\${hexOf(cell as Uint8Array)}"`

const pgLiterals: { readonly [K in Kind]: (cell: Cell) => string } = {
  text: quoted,
  enum: quoted,
  integer: String,
  double: String,
  bigint: String,
  boolean: String,
  timestamp: quoted,
  bytes: bytesLiteral,
  json: quoted
}

/** Makes a statement whose rows have cells of these kinds, in the dialect that it stands for. */
export type Make = (kinds: ReadonlyArray<Kind>, write: Write) => Bulk

/**
 * Statements that are written alike for both dialects: the columns of `table` are named column1, column2 and so on, and
 * `list` is a query. With `repeats`, see {@link sqlite}.
 */
export const both = <Statements>(
  statements: (bulk: Make) => Statements,
  { repeats = false }: { readonly repeats?: boolean } = {}
): { readonly [D in Dialect]: Statements } => ({
  sqlite: statements((kinds, write) =>
    sqlite(kinds, ({ list, table }) => write({ list: `VALUES ${list}`, table }), repeats)
  ),
  pg: statements((kinds, write) => pg(kinds, kinds.map((_, i) => `column${i + 1}`), write))
})
