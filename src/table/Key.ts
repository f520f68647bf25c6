/**
 * A key in memory: what a Map knows a row by.
 */

import type { Cells } from "./Bulk.js"
import type { Cell } from "./Column.js"

export type Hash = string | number | bigint | boolean

/**
 * Equal for keys with equal cells, and for no others: text holds no NUL, and a table's keys have the same kinds. The one
 * cell of a key stands for itself.
 */
export const hashOf = (key: Cells): Hash => key.length === 1 ? part(key[0]!) : key.map(part).join("\u0000")

/** {@link hashOf} the key that a row has at these places. */
export const hashAt = (row: Cells, at: ReadonlyArray<number>): Hash =>
  at.length === 1 ? part(row[at[0]!]!) : hashOf(at.map((i) => row[i]!))

const part = (cell: Cell): Hash =>
  cell instanceof Uint8Array
    ? Buffer.from(cell.buffer, cell.byteOffset, cell.byteLength).toString("hex")
    : cell ?? ""
