/**
 * A copy: rows for `COPY … FROM STDIN`, which PostgreSQL takes at less than an INSERT of the same rows where they are many.
 *
 *     [["1", true], ["2", null]] ──▶ COPY "todos" ("id", "done") FROM STDIN ──▶ 1 ⇥ true ⏎ 2 ⇥ \N ⏎
 *
 * The text is sent with its data as the only parameter, to a connection that takes it so ({@link Copying}). A cell is read by
 * the type of its column alone, where an INSERT converts what is of another; so it is for tables whose columns are of the
 * types that their kinds have, as a `Reach` tells. Format: "COPY", PostgreSQL's documentation, File Formats, Text Format.
 */

import type { Connection } from "@effect/sql/SqlConnection"
import type { Bulk, Cells, Sent } from "./Bulk.js"
import { hexOf } from "./Bulk.js"
import type { Cell, Kind } from "./Column.js"

/** A connection that takes the data of a COPY as the parameter of its text, perhaps to send it together with others. */
export interface Copying {
  readonly takesCopies: "no" | "alone" | "together"
}

/** How a connection takes copies, whatever it is. */
export const takenBy = (connection: Connection): Copying["takesCopies"] =>
  "takesCopies" in connection ? (connection as Connection & Copying).takesCopies : "no"

/** From how many rows on they are copied; `Infinity`: none are. */
export const rowsFrom = (connection: Connection): number => {
  switch (takenBy(connection)) {
    case "no":
      return Infinity
    case "alone":
      return rowsMin
    case "together":
      return rowsMinTogether
  }
}

/**
 * Fewer rows are inserted. PostgreSQL (18.4 here) has places for up to 1,000 rows of a COPY, or 64 KB of them, and takes the
 * longer for each the more there are: narrow rows come to what they cost in an INSERT at two to four thousand.
 */
const rowsMin = 2_000
/** Fewer of them, where others' rows may join them (see {@link merged}). */
const rowsMinTogether = 500

/** So many at most at a time, since all of their text has to fit into a string. */
const rowsMax = 4_000

const verb = "COPY"
const source = "FROM STDIN"

/** Adds rows of columns of these kinds to a table; both names are quoted already. */
export const into = (table: string, columns: ReadonlyArray<string>, kinds: ReadonlyArray<Kind>): Bulk => {
  const text = `${verb} ${table} (${columns.join(", ")}) ${source}`
  const writers = kinds.map((kind) => writerOf(kind))
  return {
    take: (left) => Math.min(left, rowsMax),
    text: () => text,
    parameters: (rows, from, count) => [linesOf(rows, from, from + count, writers)]
  }
}

/** So much data of several statements goes together, in characters. */
const mergedMax = 16 * 1_024 * 1_024

/** Copies into one table that follow each other are made one: what each costs by itself, however many its rows, is paid once. */
export const merged = (statements: ReadonlyArray<Sent>): ReadonlyArray<Sent> => {
  const all: Array<Sent> = []
  for (const [text, parameters] of statements) {
    const last = all.at(-1)
    const data = last?.[0] === text ? joined(last, parameters) : undefined
    if (data === undefined) all.push([text, parameters])
    else all[all.length - 1] = [text, [data]]
  }
  return all
}

const joined = ([text, [before]]: Sent, [behind]: ReadonlyArray<unknown>): string | undefined =>
  text.startsWith(verb) && text.endsWith(source) && typeof before === "string" && typeof behind === "string" &&
    before.length + behind.length <= mergedMax
    ? before + behind
    : undefined

const linesOf = (rows: ReadonlyArray<Cells>, from: number, to: number, writers: ReadonlyArray<Writer>): string => {
  const lines: Array<string> = []
  for (let at = from; at < to; at++) {
    const cells = rows[at]!
    let line = ""
    for (let column = 0; column < writers.length; column++) {
      const cell = cells[column]!
      if (column > 0) line += "\t"
      line += cell === null ? "\\N" : writers[column]!(cell)
    }
    lines.push(line)
  }
  lines.push("")
  return lines.join("\n")
}

type Writer = (cell: NonNullable<Cell>) => string

const writerOf = (kind: Kind): Writer => {
  switch (kind) {
    case "text":
    case "enum":
    case "json":
    case "timestamp":
      return (cell) => escaped(cell as string)
    case "bytes":
      return (cell) => `\\${hexOf(cell as Uint8Array)}`
    case "bigint":
    case "boolean":
    case "double":
    case "integer":
      return String
  }
}

const special = /[\\\n\r\t]/
const specials = /[\\\n\r\t]/g
const escapes: { readonly [letter: string]: string } = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" }

const escaped = (text: string): string =>
  special.test(text) ? text.replace(specials, (letter) => escapes[letter]!) : text
