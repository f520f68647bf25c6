/**
 * An exchange: the rows of a replay in place of those that are there, with what the framework keeps of them, in one
 * transaction. Whoever reads sees the old ones or the new ones.
 *
 *     BEGIN
 *       hold the cursors       one has moved since the replay came to it → CursorConflict, nothing done
 *       empty, fill            page by page: as much as a statement, or memory, should take
 *       the cursors            where they stood, a commit later
 *     COMMIT
 *
 * Nobody else writes meanwhile what is exchanged: whoever commits for one of the cursors holds it first.
 *
 * On PostgreSQL rows are copied by the server, from one schema to the other. On SQLite they are read from the other database
 * as the literals that SQLite writes of them, so a value arrives with the type it had.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import { dialectOf } from "../domain/Dialect.js"
import * as Slice from "../domain/Slice.js"
import type { Definition } from "../table/Definition.js"
import * as Anew from "./Anew.js"
import * as Cursors from "./Cursors.js"
import * as Pages from "./Pages.js"
import * as Standing from "./Standing.js"
import type { Column } from "./Survey.js"

/** Rows that one statement empties or fills: on SQLite they pass through memory. */
const rowsMax = { pg: 10_000, sqlite: 200 } as const

/** Where the rows come from, and how the framework's own are numbered there; none: there are none, and all is emptied. */
export interface Origin {
  readonly side: Pages.Side
  /** How many dead letters the replay has ever written. */
  readonly letters: bigint
}

/**
 * The body of the transaction. `expected` are the cursors of all that is exchanged: those of all partitions, or that of the
 * one document's. Returns them as they stand then.
 */
export const run = (
  anew: Anew.Anew,
  expected: ReadonlyArray<Cursors.Cursor>,
  origin: Origin | undefined,
  next: (held: Cursors.Cursor) => Omit<Cursors.Rebuilt, "letters">
): Effect.Effect<
  ReadonlyArray<Cursors.Cursor>,
  SqlError | Cursors.Fenced | Cursors.CursorConflict,
  SqlClient.SqlClient
> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const live: Pages.Side = { sql, schema: undefined, isElsewhere: false }
    const held = yield* Cursors.holdAll(expected)
    // Counted on from the highest number of any, so that none is given twice.
    const before = held.reduce((most, { letters }) => letters > most ? letters : most, 0n)
    if (dialectOf(sql) === "sqlite") yield* sql`PRAGMA defer_foreign_keys = ON`
    for (const definition of anew.order.toReversed()) yield* empty(live, anew, definition)
    if (origin !== undefined) {
      for (const definition of anew.order) yield* fill(live, origin.side, anew, definition)
    }
    for (const kept of Standing.tables) yield* exchangeKept(live, anew, expected[0]!, before, origin, kept)
    if (dialectOf(sql) === "pg" && origin !== undefined) yield* countOn(live, anew)
    return yield* Cursors.rebuilt(held, (each) => ({ ...next(each), letters: before + (origin?.letters ?? 0n) }))
  })

const empty = (live: Pages.Side, anew: Anew.Anew, definition: Definition): Effect.Effect<void, SqlError> => {
  const paged = Anew.pagedOf(anew, definition)
  const remove = (range: Pages.Range) => {
    const { parameters, text } = Pages.condition(dialectOf(live.sql), paged, range)
    return Effect.asVoid(Pages.send(live, `DELETE FROM ${Pages.quote(definition.name)}${text}`, parameters))
  }
  return dialectOf(live.sql) === "sqlite" || Anew.refersToItself(anew, definition.name)
    ? remove(Pages.everything)
    : Pages.each(live, paged, rowsMax.pg, remove)
}

const fill = (
  live: Pages.Side,
  from: Pages.Side,
  anew: Anew.Anew,
  definition: Definition
): Effect.Effect<void, SqlError> => {
  const paged = Anew.pagedOf(anew, definition)
  const columns = Anew.copied(anew, definition)
  const dialect = dialectOf(live.sql)
  const copied = (range: Pages.Range) =>
    copy(live, from, paged, range, columns.map((column) => ({ name: column.name, value: valueOf(column) })))
  return dialect === "pg" && Anew.refersToItself(anew, definition.name)
    ? copied(Pages.everything)
    : Pages.each(from, paged, rowsMax[dialect], copied)
}

/** What is read of a column: a type that a schema made for itself is another one in the other schema. */
const valueOf = ({ isOwnType, name, type }: Column): string =>
  isOwnType ? `${Pages.quote(name)}::text::${type}` : Pages.quote(name)

interface Copied {
  readonly name: string
  /** The expression that it is read by. */
  readonly value: string
}

const copy = (
  live: Pages.Side,
  from: Pages.Side,
  paged: Pages.Paged,
  range: Pages.Range,
  columns: ReadonlyArray<Copied>
): Effect.Effect<void, SqlError> => {
  const dialect = dialectOf(live.sql)
  const { parameters, text } = Pages.condition(dialect, paged, range)
  const table = Pages.tableOf(from, paged.name)
  const into = `INSERT INTO ${Pages.quote(paged.name)} (${columns.map(({ name }) => Pages.quote(name)).join(", ")})`
  if (dialect === "pg") {
    const values = columns.map(({ value }) => value).join(", ")
    return Effect.asVoid(
      Pages.send(live, `${into} OVERRIDING SYSTEM VALUE SELECT ${values} FROM ${table}${text}`, parameters)
    )
  }
  const literals = columns.map(({ value }) => literalOf(value)).join(" || ', ' || ")
  return Effect.flatMap(
    Pages.send(from, `SELECT ${literals} FROM ${table}${text}`, parameters),
    (rows) =>
      rows.length === 0 ? Effect.void : Effect.asVoid(
        live.sql.unsafe(`${into} VALUES ${rows.map(([row]) => `(${String(row)})`).join(", ")}`).unprepared
      )
  )
}

/** SQLite's literal of a value; `quote` ends a text at its first NUL. */
const literalOf = (value: string): string =>
  `CASE WHEN typeof(${value}) = 'text' AND instr(${value}, char(0)) > 0 ` +
  `THEN 'CAST(X''' || hex(${value}) || ''' AS TEXT)' ELSE quote(${value}) END`

/** Exchanges what the framework keeps in one of its tables. Ordinals count on from `before`. */
const exchangeKept = (
  live: Pages.Side,
  anew: Anew.Anew,
  key: Cursors.Key,
  before: bigint,
  origin: Origin | undefined,
  kept: Standing.Kept
): Effect.Effect<void, SqlError> =>
  Effect.gen(function*() {
    const dialect = dialectOf(live.sql)
    const paged = keptPages(anew, key, kept)
    yield* Pages.each(live, paged, rowsMax.pg, (range) => {
      const some = Pages.condition(dialect, paged, range)
      return Effect.asVoid(Pages.send(live, `DELETE FROM ${kept.name}${some.text}`, some.parameters))
    })
    if (origin !== undefined) {
      const columns = (anew.survey.columns.get(kept.name) ?? []).map(({ name }) => ({
        name,
        value: name === kept.ordinal
          ? `(${Pages.quote(name)} + ${before * BigInt(Slice.count)})`
          : Pages.quote(name)
      }))
      yield* Pages.each(
        origin.side,
        paged,
        rowsMax[dialect],
        (range) => copy(live, origin.side, paged, range, columns)
      )
    }
  })

/** The rows of one processor on one source, and of one document where that is what is meant. */
export const keptPages = (
  { documentId, survey }: Anew.Anew,
  key: Cursors.Key,
  kept: Standing.Kept,
  by: ReadonlyArray<string> = kept.key
): Pages.Paged => ({
  name: kept.name,
  key: by.map((name) => ({ name, type: Anew.typeOf(survey, kept.name, name) })),
  where: [
    ["processor", key.processor],
    ["source", key.source],
    ...(documentId === undefined ? [] : [[kept.document, documentId] as const])
  ]
})

/** Lets PostgreSQL's sequences go on behind the numbers that came with the rows. */
const countOn = (live: Pages.Side, anew: Anew.Anew): Effect.Effect<void, SqlError> =>
  Effect.forEach(
    anew.definitions.flatMap((definition) =>
      Anew.copied(anew, definition).flatMap(({ name, sequence }) =>
        sequence === undefined ? [] : [{ table: definition.name, column: name, sequence }]
      )
    ),
    ({ column, sequence, table }) =>
      Pages.send(
        live,
        `SELECT setval($1::regclass, greatest((SELECT last_value FROM ${sequence}), ` +
          `(SELECT max(${Pages.quote(column)}) FROM ${Pages.quote(table)})))`,
        [sequence]
      ),
    { discard: true }
  )
