/**
 * A row's hash: SHA-256 over what a program sees of the row, so that two tables are compared whatever the driver, the spelling
 * of a number or the white space of a JSON text may be.
 *
 *     live  ── page ── row ─▶ cells ─▶ hash ─┐
 *     replay ─ page ── row ─▶ cells ─▶ hash ─┴▶ missing, extra, changed
 *
 * Two pages of rows are in memory at a time. A value that its column cannot hold, such as text among numbers, is hashed as it
 * is, and so told from every value that the column can.
 */

import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { createHash } from "node:crypto"
import type { Dialect } from "../domain/Dialect.js"
import { dialectOf } from "../domain/Dialect.js"
import { Unfit } from "../table/Column.js"
import type { Definition } from "../table/Definition.js"
import * as Pages from "./Pages.js"

/** How a table is compared. */
export interface Compared {
  readonly paged: Pages.Paged
  readonly columns: ReadonlyArray<{
    readonly name: string
    /** The expression that it is read by. */
    readonly value: string
    /** What stands for the value in the hash: equal when the values are. */
    readonly canonical: (stored: unknown) => string
    /** Whether it tells one row from another. */
    readonly isKey: boolean
  }>
}

/** A row that is not the same on both sides. */
export interface Difference {
  readonly table: string
  /** In the replay alone, in the live table alone, or in both and not the same. */
  readonly where: "missing" | "extra" | "changed"
  readonly key: { readonly [column: string]: unknown }
  /** The columns whose values differ; none where a row is on one side alone. */
  readonly columns: ReadonlyArray<string>
}

export interface Comparison {
  readonly table: string
  /** Rows, live and after the replay. */
  readonly rows: number
  readonly replayedRows: number
  /** The sum of the rows' hashes, which is the same where the rows are, in whatever order: 32 hexadecimal digits. */
  readonly hash: string
  readonly replayedHash: string
  /** How many rows differ, and the first of them in the order of the key. */
  readonly different: number
  readonly differences: ReadonlyArray<Difference>
}

/** Rows of each side that are in memory at a time. */
const pageRows = 500

/** The columns of a table's definition, as its program reads them. */
export const ofDefinition = (dialect: Dialect, definition: Definition, paged: Pages.Paged): Compared => ({
  paged,
  columns: definition.columns.map(({ kind, name, read }) => ({
    name,
    value: dialect === "pg" && kind === "json" ? `${Pages.quote(name)}::text` : Pages.quote(name),
    isKey: definition.key.includes(name),
    canonical: (stored) => {
      const cell = read(stored)
      if (cell instanceof Unfit) return `?${canonical(stored)}`
      return kind === "json" && typeof cell === "string" ? `json ${sorted(cell)}` : canonical(cell)
    }
  }))
})

/** Expressions by name, compared as the driver returns them. */
export const ofExpressions = (
  paged: Pages.Paged,
  expressions: { readonly [name: string]: string }
): Compared => ({
  paged,
  columns: [
    ...paged.key.map(({ name }) => ({ name, value: Pages.quote(name), canonical, isKey: true })),
    ...Object.entries(expressions).map(([name, value]) => ({ name, value, canonical, isKey: false }))
  ]
})

/** Goes through both tables side by side. At most `differencesMax` differences are kept; all are counted. */
export const compare = (
  live: Pages.Side,
  replayed: Pages.Side,
  compared: Compared,
  differencesMax: number
): Effect.Effect<Comparison, SqlError> =>
  Effect.gen(function*() {
    const { paged } = compared
    const sums = { live: new Sum(), replayed: new Sum() }
    const differences: Array<Difference> = []
    let different = 0
    const page = (range: Pages.Range) =>
      Effect.gen(function*() {
        const rows = yield* read(live, compared, range)
        const others = yield* read(replayed, compared, range)
        for (const row of rows) sums.live.add(row)
        for (const row of others) sums.replayed.add(row)
        for (const difference of differing(compared, rows, others)) {
          different++
          if (differences.length < differencesMax) differences.push(difference)
        }
      })
    yield* Pages.ranges((after) => endOf(live, replayed, paged, after), page)
    return {
      table: paged.name,
      rows: sums.live.rows,
      replayedRows: sums.replayed.rows,
      hash: sums.live.hash,
      replayedHash: sums.replayed.hash,
      different,
      differences
    }
  })

/** The end of a page that is small on both sides, since one of them may have many rows where the other has none. */
const endOf = (live: Pages.Side, replayed: Pages.Side, paged: Pages.Paged, after: Pages.Place | undefined) =>
  Effect.flatMap(
    Pages.keyAt(live, paged, { after, upTo: undefined }, pageRows),
    (upTo) => Effect.map(Pages.keyAt(replayed, paged, { after, upTo }, 2 * pageRows), (sooner) => sooner ?? upTo)
  )

interface Row {
  readonly key: string
  readonly hash: Buffer
  readonly stored: ReadonlyArray<unknown>
}

const read = (
  side: Pages.Side,
  { columns, paged }: Compared,
  range: Pages.Range
): Effect.Effect<ReadonlyArray<Row>, SqlError> => {
  const { parameters, text } = Pages.condition(dialectOf(side.sql), paged, range)
  const values = columns.map(({ value }) => value).join(", ")
  return Effect.map(
    Pages.send(side, `SELECT ${values} FROM ${Pages.tableOf(side, paged.name)}${text}`, parameters),
    (rows) => rows.map((stored) => rowOf(columns, stored))
  )
}

const rowOf = (columns: Compared["columns"], stored: ReadonlyArray<unknown>): Row => {
  const cells = columns.map(({ canonical }, i) => canonical(stored[i]))
  return {
    key: JSON.stringify(cells.filter((_, i) => columns[i]!.isKey)),
    hash: createHash("sha256").update(JSON.stringify(cells)).digest(),
    stored
  }
}

/** What differs between the rows of a page. Rows that share a key are told apart by their hash. */
const differing = (
  { columns, paged }: Compared,
  live: ReadonlyArray<Row>,
  replayed: ReadonlyArray<Row>
): ReadonlyArray<Difference> => {
  const left = new Map<string, Array<Row>>()
  for (const row of replayed) left.set(row.key, [...left.get(row.key) ?? [], row])
  const unmatched = live.filter((row) => {
    const candidates = left.get(row.key) ?? []
    const at = candidates.findIndex(({ hash }) => hash.equals(row.hash))
    if (at >= 0) candidates.splice(at, 1)
    return at < 0
  })
  const tell = (where: Difference["where"], row: Row, names: ReadonlyArray<string>): Difference => ({
    table: paged.name,
    where,
    key: Object.fromEntries(columns.flatMap(({ isKey, name }, i) => isKey ? [[name, row.stored[i]]] : [])),
    columns: names
  })
  const found = unmatched.map((row) => {
    const other = left.get(row.key)?.shift()
    return other === undefined ? tell("extra", row, []) : tell(
      "changed",
      row,
      columns.filter(({ canonical }, i) => canonical(row.stored[i]) !== canonical(other.stored[i])).map(({ name }) =>
        name
      )
    )
  })
  return [...found, ...Array.from(left.values()).flat().map((row) => tell("missing", row, []))]
}

/** A value in words that no value of another type has. */
const canonical = (value: unknown): string => {
  if (value === null || value === undefined) return "null"
  if (value instanceof Uint8Array) return `bytes ${Buffer.from(value).toString("hex")}`
  if (typeof value === "number" || typeof value === "bigint") return `number ${value === 0 ? 0 : String(value)}`
  return typeof value === "string" ? `text ${value}` : `json ${JSON.stringify(value)}`
}

/** JSON with the members of objects in one order, since a database may keep them in another. */
const sorted = (text: string): string =>
  Option.getOrElse(Option.liftThrowable(() => JSON.stringify(inOrder(JSON.parse(text))))(), () => text)

/** A list says what it stands for, an array or an object. */
const inOrder = (value: unknown): unknown =>
  Array.isArray(value)
    ? ["array", ...value.map(inOrder)]
    : typeof value === "object" && value !== null
    ? [
      "object",
      ...Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1).flatMap(([name, each]) => [name, inOrder(each)])
    ]
    : value

const modulus = 1n << 128n

class Sum {
  rows = 0
  private sum = 0n

  add({ hash }: Row): void {
    this.rows++
    this.sum = (this.sum + hash.readBigUInt64BE(0) * (1n << 64n) + hash.readBigUInt64BE(8)) % modulus
  }

  get hash(): string {
    return this.sum.toString(16).padStart(32, "0")
  }
}
