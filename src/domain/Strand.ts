/**
 * A strand: consecutive operations of one document, in one scope, on one branch.
 *
 *     position   document ─ scope ─ branch   op 7 · op 8 · op 9
 *
 * Invariants: `position` is the strand's place in its source; `operations` are in the order in which they are to be
 * applied. A strand without operations says that a document exists and carries nothing to apply.
 */

import * as Schema from "effect/Schema"
import { Protocol } from "./History.js"
import { Received } from "./Name.js"
import { Operation } from "./Operation.js"
import { Position } from "./Position.js"

export const DocumentId = Received.pipe(Schema.brand("DocumentId"))
export type DocumentId = typeof DocumentId.Type

export const DocumentType = Received.pipe(Schema.brand("DocumentType"))
export type DocumentType = typeof DocumentType.Type

export const DriveId = Received.pipe(Schema.brand("DriveId"))
export type DriveId = typeof DriveId.Type

export const Scope = Received.pipe(Schema.brand("Scope"))
export type Scope = typeof Scope.Type

export const Branch = Received.pipe(Schema.brand("Branch"))
export type Branch = typeof Branch.Type

export const Strand = Schema.Struct({
  position: Position,
  /** The drive the strand was delivered for; the current reactor does not say. */
  driveId: Schema.UndefinedOr(DriveId),
  documentId: DocumentId,
  documentType: DocumentType,
  scope: Scope,
  branch: Branch,
  operations: Schema.Array(Operation),
  /**
   * The rule by which its operations take others back, as the generation that delivered it implies: 1 for document-drive,
   * 2 for the reactor and where nothing is said. What the document's own CREATE_DOCUMENT says goes before it.
   */
  protocol: Schema.optionalWith(Protocol, { exact: true }),
  /** What the strand occupies, in bytes, as its source estimates it: the text it was read from. */
  bytes: Schema.NonNegativeInt
})
export type Strand = typeof Strand.Type

/** The strand without its operations: who it is about. */
export type Stream = Pick<Strand, "documentId" | "scope" | "branch">
