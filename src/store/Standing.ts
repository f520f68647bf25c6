/**
 * A standing: what the framework keeps of a processor on a source besides the cursor, in tables keyed by both.
 *
 *     processor_stream          which operations of each document were applied
 *     processor_state           the state of each document, where it wants that
 *     processor_dead_letter     which were set aside
 *
 * Whatever is projected anew loses it together with its rows, and gets that of the replay. A table that is added to the
 * framework and is true of one projection alone belongs into {@link tables}.
 */

import * as Progress from "./Progress.js"

export interface Kept {
  readonly name: string
  /** Its key after processor and source, in order. */
  readonly key: ReadonlyArray<string>
  /** The column with the id of the document that a row is about. */
  readonly document: string
  /** The column that counts on from the cursor's `letters`, so that no number is given twice. */
  readonly ordinal: string | undefined
  /** What has to be the same after a replay, as expressions by name; times, attempts and ordinals need not be. */
  readonly compared: { readonly [name: string]: string }
  /** What finds one row among those of its processor and source again, in a replay. */
  readonly identity: ReadonlyArray<string>
}

export const tables: ReadonlyArray<Kept> = [
  {
    name: "processor_stream",
    key: ["document_id", "scope", "branch", "page"],
    document: "document_id",
    ordinal: undefined,
    identity: ["document_id", "scope", "branch", "page"],
    compared: {
      slots: "slots",
      // On the other pages these two are stale.
      last_index: `CASE WHEN page = ${Progress.newest} THEN last_index END`,
      last_skip: `CASE WHEN page = ${Progress.newest} THEN last_skip END`,
      history: `CASE WHEN page = ${Progress.newest} THEN history END`
    }
  },
  {
    name: "processor_state",
    key: ["document_id", "branch"],
    document: "document_id",
    ordinal: undefined,
    identity: ["document_id", "branch"],
    compared: { state: "state" }
  },
  {
    name: "processor_dead_letter",
    key: ["ordinal"],
    document: "document_id",
    ordinal: "ordinal",
    identity: ["document_id", "scope", "branch", "op_index", "op_skip", "op_hash"],
    compared: { cause: "cause" }
  }
]
