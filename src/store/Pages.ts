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
  /** Whether it is the rows that are in no range, since a part of their key is NULL, as SQLite lets it be. */
  readonly isKeyless?: boolean
}

export const everything: Range = { after: undefined, upTo: undefined }

/** The range behind the last one; none where that was all there is. */
export const keyless = ({ after }: Range): Range | undefined =>
  after === undefined ? undefined : { after: undefined, upTo: undefined, isKeyless: true }

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

/** A condition for the rows of a range, and its parameters. */
export const condition = (
  dialect: Dialect,
  { key, where }: Paged,
  { after, isKeyless, upTo }: Range
): { readonly text: string; readonly parameters: ReadonlyArray<unknown> } => {
  const parameters: Array<unknown> = []
  const parameter = (value: unknown, type: string): string => {
    parameters.push(value)
    return dialect === "pg" ? `$${parameters.length}::${type}` : "?"
  }
  const names = `(${key.map(({ name }) => quote(name)).join(", ")})`
  const place = (values: Place) => `(${key.map(({ type }, i) => parameter(values[i], type)).join(", ")})`
  const tests = where.map(([column, value]) => `${quote(column)} = ${parameter(value, "text")}`)
  const isNull = (not: string) => key.map(({ name }) => `${quote(name)} IS ${not}NULL`)
  if (isKeyless === true) tests.push(`(${isNull("").join(" OR ")})`)
  if (after !== undefined || upTo !== undefined) tests.push(...isNull("NOT "))
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
): Effect.Effect<void, E | SqlError, R> =>
  ranges((after) => keyAt(side, paged, { after, upTo: undefined }, size), visit)

/** Goes through ranges whose ends are found as it comes to them: `undefined` for the last. */
export const ranges = <E, R, E2, R2>(
  endOf: (after: Place | undefined) => Effect.Effect<Place | undefined, E, R>,
  visit: (range: Range) => Effect.Effect<void, E2, R2>
): Effect.Effect<void, E | E2, R | R2> => {
  const from = (after: Place | undefined): Effect.Effect<void, E | E2, R | R2> =>
    Effect.flatMap(endOf(after), (upTo) => {
      const rest = keyless({ after, upTo })
      const next = upTo !== undefined ? from(upTo) : rest === undefined ? Effect.void : visit(rest)
      return Effect.zipRight(visit({ after, upTo }), next)
    })
  return from(undefined)
}
