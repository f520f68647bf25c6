/**
 * Even rows: the compiler both layers give their `sql`, which refuses rows that do not have the same columns.
 *
 *     sql.insert([{ id: 1 }, { id: 2, title: "b" }])      stock: INSERT … ("id") VALUES (?),(?), and the title is lost
 *
 * `@effect/sql` takes the columns of the first row for all of them: what others have beyond that is dropped, what they
 * lack becomes NULL. Nothing is changed about statements whose rows are even.
 */

import type * as Statement from "@effect/sql/Statement"
import * as Data from "effect/Data"

/** A mistake in the program, so it is thrown where the statement is compiled and ends the fiber as a defect. */
export class UnevenRows extends Data.TaggedError("UnevenRows")<{
  /** The place of the offending row in the list, from 0. */
  readonly index: number
  /** The column that this row lacks, or that the first row lacks; `undefined` when there are no rows or no columns. */
  readonly column: string | undefined
  readonly reason: string
}> {
  override get message(): string {
    return `refused to write uneven rows: ${this.reason}`
  }
}

/** `compiler`, refusing uneven rows given to `sql.insert` and `sql.updateValues` with a thrown `UnevenRows`. */
export const required = (compiler: Statement.Compiler): Statement.Compiler => ({
  dialect: compiler.dialect,
  compile: (statement, withoutTransform) => {
    for (const segment of statement.segments) {
      if (segment._tag === "RecordInsertHelper" || segment._tag === "RecordUpdateHelper") check(segment.value)
    }
    return compiler.compile(statement, withoutTransform)
  },
  get withoutTransform() {
    return required(compiler.withoutTransform)
  }
})

const check = (rows: ReadonlyArray<Record<string, unknown>>): void => {
  const first = rows[0]
  if (first === undefined) {
    throw new UnevenRows({ index: 0, column: undefined, reason: "there are no rows; leave the statement out instead" })
  }
  const columns = Object.keys(first)
  if (columns.length === 0) {
    throw new UnevenRows({ index: 0, column: undefined, reason: "the first row has no columns" })
  }
  for (let index = 1; index < rows.length; index++) {
    const row = rows[index] ?? {}
    const missing = columns.find((column) => !Object.hasOwn(row, column))
    if (missing !== undefined) {
      const reason = `row ${index} has no column ${JSON.stringify(missing)}, which row 0 has; give it a value or null`
      throw new UnevenRows({ index, column: missing, reason })
    }
    const keys = Object.keys(row)
    if (keys.length !== columns.length) {
      const extra = keys.find((key) => !Object.hasOwn(first, key))
      const reason = `row 0 has no column ${JSON.stringify(extra)}, which row ${index} has; give it a value or null`
      throw new UnevenRows({ index, column: extra, reason })
    }
  }
}
