/**
 * A change: one operation on a table, with its values as cells.
 *
 * | change | where the row is there        | where it is not          |
 * | insert | fails                         | the row                  |
 * | upsert | the row                       | the row                  |
 * | patch  | columns set, or added to      | `otherwise`, or nothing  |
 * | remove | nothing                       | nothing                  |
 *
 * That, a statement for each and one after another, is what folding must equal.
 */

import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type * as Bulk from "./Bulk.js"
import type { Cells, Send } from "./Bulk.js"
import type { Cell } from "./Column.js"
import type { Mask, Plan } from "./Plan.js"

/** A cell for each column that is touched, in the table's order. */
export type Touched = ReadonlyArray<Cell | undefined>

export type Change = Insert | Upsert | Patch | Remove

export interface Insert {
  readonly _tag: "Insert"
  readonly row: Cells
}

export interface Upsert {
  readonly _tag: "Upsert"
  readonly row: Cells
}

export interface Patch {
  readonly _tag: "Patch"
  readonly key: Cells
  readonly touched: Touched
  /** Whether what is touched is added to, or else set. */
  readonly adds: boolean
  /** The whole row to insert if there is none yet. */
  readonly otherwise: Cells | undefined
}

export interface Remove {
  readonly _tag: "Remove"
  readonly key: Cells
}

/** Carries the change out at once, as one statement. */
export const run = (plan: Plan, change: Change, send: Send<unknown>): Effect.Effect<void, SqlError> => {
  switch (change._tag) {
    case "Insert":
      return one(plan.insert, change.row, send)
    case "Upsert":
      return one(plan.upsert, change.row, send)
    case "Remove":
      return one(plan.remove, change.key, send)
    case "Patch": {
      const mask = maskOf(change)
      if (change.otherwise !== undefined) return one(plan.count(mask), change.otherwise, send)
      const cells = change.touched.filter((cell) => cell !== undefined)
      return cells.length === 0 ? Effect.void : one(plan.patch(mask), [...change.key, ...cells], send)
    }
  }
}

const one = (bulk: Bulk.Bulk, row: Cells, send: Send<unknown>): Effect.Effect<void, SqlError> =>
  Effect.asVoid(send(bulk.text(1), bulk.parameters([row], 0, 1)))

const maskOf = ({ adds, touched }: Patch): Mask => {
  let mask = ""
  for (const cell of touched) mask += cell === undefined ? "-" : adds ? "a" : "s"
  return mask
}
