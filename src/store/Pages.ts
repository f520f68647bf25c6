/**
 * Pages: the rows of a table in the order of a key, so many at a time, each page a range of keys that both sides of a
 * comparison, or a copy, can be asked for.
 *
 *     after ── key < … ≤ key ── page ── key < … ≤ key ── page ── key < … ── last page
 *
 * A page ends at a key and not after a number of rows, so rows that share a key are of one page, and rows that one side
 * lacks move nothing. Keys are compared by the database alone. On PostgreSQL a key travels as the text that the server writes
 * of it, which loses nothing; on SQLite as the driver's value.
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type { Dialect } from "../domain/Dialect.js"
import { dialectOf } from "../domain/Dialect.js"
import * as Transaction from "./Transaction.js"

/** Where a table is read: through a client, in the schema that its unqualified names mean or in another. */
export interface Side {
  readonly sql: SqlClient.SqlClient
  readonly schema: string | undefined
  /** Whether it is another database, to be read outside the transaction that is open. */
  readonly isElsewhere: boolean
}

export interface Paged {
  readonly name: string
  /** The columns of the key, in order, with their types on PostgreSQL. */
  readonly key: ReadonlyArray<{ readonly name: string; readonly type: string }>
  /** Which rows are meant: those with these values in these columns. */
  readonly where: ReadonlyArray<readonly [column: string, value: string]>
}

/** A key's values. */
export type Place = ReadonlyArray<unknown>

/** A range of keys: above `after`, up to `upTo`; open where one is left out. */
export interface Range {
  readonly after: Place | undefined
  readonly upTo: Place | undefined
}

export const everything: Range = { after: undefined, upTo: undefined }

export const quote = (name: string): string => `"${name.replaceAll("\"", "\"\"")}"`

export const tableOf = (side: Pick<Side, "schema">, name: string): string =>
  side.schema === undefined ? quote(name) : `${quote(side.schema)}.${quote(name)}`

/** Sends a statement for its rows, each as a list of values. */
export const send = (
  side: Side,
  text: string,
  parameters: ReadonlyArray<unknown>
): Effect.Effect<ReadonlyArray<ReadonlyArray<unknown>>, SqlError> => {
  const { values } = side.sql.unsafe(text, parameters)
  return side.isElsewhere ? Transaction.outside(values) : values
}

/** A condition for the rows of a range, and its parameters, the first of them numbered `from`. */
export const condition = (
  dialect: Dialect,
  { key, where }: Paged,
  { after, upTo }: Range,
  from = 1
): { readonly text: string; readonly parameters: ReadonlyArray<unknown> } => {
  const parameters: Array<unknown> = []
  const parameter = (value: unknown, type: string): string => {
    parameters.push(value)
    return dialect === "pg" ? `$${from + parameters.length - 1}::${type}` : "?"
  }
  const names = `(${key.map(({ name }) => quote(name)).join(", ")})`
  const place = (values: Place) => `(${key.map(({ type }, i) => parameter(values[i], type)).join(", ")})`
  const tests = where.map(([column, value]) => `${quote(column)} = ${parameter(value, "text")}`)
  if (after !== undefined) tests.push(`${names} > ${place(after)}`)
  if (upTo !== undefined) tests.push(`${names} <= ${place(upTo)}`)
  return { text: tests.length === 0 ? "" : ` WHERE ${tests.join(" AND ")}`, parameters }
}

/** The key of the row at place `count` of a range, from 1; `undefined` if it has fewer. */
export const keyAt = (
  side: Side,
  paged: Paged,
  range: Range,
  count: number
): Effect.Effect<Place | undefined, SqlError> => {
  const dialect = dialectOf(side.sql)
  const { parameters, text } = condition(dialect, paged, range)
  const names = paged.key.map(({ name }) => quote(name))
  const selected = names.map((name) => dialect === "pg" ? `${name}::text` : name)
  return Effect.map(
    send(
      side,
      `SELECT ${selected.join(", ")} FROM ${tableOf(side, paged.name)}${text} ` +
        `ORDER BY ${names.join(", ")} LIMIT 1 OFFSET ${count - 1}`,
      parameters
    ),
    ([row]) => row
  )
}

/** Goes through the ranges of about `size` rows that a table falls into, one after another. */
export const each = <E, R>(
  side: Side,
  paged: Paged,
  size: number,
  visit: (range: Range) => Effect.Effect<void, E, R>
): Effect.Effect<void, E | SqlError, R> => {
  const from = (after: Place | undefined): Effect.Effect<void, E | SqlError, R> =>
    Effect.flatMap(
      keyAt(side, paged, { after, upTo: undefined }, size),
      (upTo) => Effect.zipRight(visit({ after, upTo }), upTo === undefined ? Effect.void : from(upTo))
    )
  return from(undefined)
}
