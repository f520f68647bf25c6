/**
 * A retraction: what an operation takes back of its stream, told to a processor before that operation.
 *
 *     op 1 · op 2 · op 3 · Retraction { by: 4, indexes: [3, 2] } · op 4
 *
 * Invariants: `indexes` are below `by`, highest first, so that undoing their writes in this order is undoing them
 * backwards; each was delivered and survived until now.
 */

import * as Schema from "effect/Schema"
import { Index } from "./Operation.js"
import { Branch, DocumentId, DocumentType, Scope } from "./Strand.js"

export const Retraction = Schema.TaggedStruct("Retraction", {
  documentId: DocumentId,
  documentType: DocumentType,
  scope: Scope,
  branch: Branch,
  /** The index of the operation that takes back, which comes next. It may be a mark, and write nothing itself. */
  by: Index,
  indexes: Schema.NonEmptyArray(Index)
}).pipe(
  Schema.filter(({ by, indexes }) =>
    indexes.every((index, i) => index < (i === 0 ? by : indexes[i - 1]!)) || "indexes below `by`, highest first"
  )
)
export type Retraction = typeof Retraction.Type
