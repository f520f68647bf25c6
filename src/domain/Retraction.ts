/**
 * A retraction: what an operation takes back of its stream, told to a processor before that operation.
 *
 *     op 1 · op 2 · op 3 · Retraction { by: 4, indexes: [3, 2] } · op 4
 *
 * Invariants: `indexes` are not above `by`, highest first, so that undoing their writes in this order is undoing them
 * backwards; each was delivered and survived until now. One is `by` itself where document-drive has used an index again.
 */

import * as Schema from "effect/Schema"
import { Index } from "./Operation.js"
import { Branch, DocumentId, DocumentType, Scope } from "./Strand.js"
import type { Strand } from "./Strand.js"

export const Retraction = Schema.TaggedStruct("Retraction", {
  documentId: DocumentId,
  documentType: DocumentType,
  scope: Scope,
  branch: Branch,
  /** The index of the operation that takes back. It comes next, unless it is a mark, which nobody is given. */
  by: Index,
  indexes: Schema.NonEmptyArray(Index)
}).pipe(
  Schema.filter(({ by, indexes }) =>
    indexes.every((index, i) => index < (i === 0 ? by + 1 : indexes[i - 1]!)) || "indexes not above `by`, highest first"
  )
)
export type Retraction = typeof Retraction.Type

/**
 * A strand as a processor that appends is given it. What a retraction takes back is to be undone before the strand's
 * operations are applied; where it is there for a mark alone, there are none.
 */
export interface Told extends Strand {
  readonly retraction?: Retraction
}
