/**
 * Documents: the strands of those documents that a handler has to be given again, read from their source.
 *
 *     Needed ─▶ source ─▶ wanted strands from the cursor's start up to the segment's end ─▶ Documents
 *
 * Invariant: one document is read whatever it takes up to {@link bytesMax}, and several only as long as they are small
 * together, so memory holds no more than that; a segment that needs more is halved.
 */

import type * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { Position } from "../domain/Position.js"
import type { DocumentId, Strand } from "../domain/Strand.js"
import * as Source from "../ingest/Source.js"
import type { SourceUnavailable } from "../ingest/Source.js"
import { HistoryLost, subject } from "../process/Failure.js"
import type { Documents, Item, Needed } from "./Rewrite.js"

/** Bytes of one document at most, as sources estimate them. */
export const bytesMax = 256 * 1024 * 1024

/** Bytes of several documents at most, likewise. */
const bytesTogetherMax = 32 * 1024 * 1024

/** What is needed does not go into memory together. */
export class TooMuch extends Data.TaggedError("TooMuch") {}

/** Where documents are read, and which of their strands are wanted. */
export interface Reader {
  /** `undefined` where the source is not at hand. */
  readonly source: Context.Tag.Service<Source.Source> | undefined
  readonly wanted: (strand: Strand) => boolean
}

/** Where what was applied lies in the source: after the one, up to the other. */
export interface Stretch {
  readonly after: Position
  readonly through: Position
}

/** Reads the documents. What cannot be read now or ever is laid at the door of the operation that needs it. */
export const read = (
  { source, wanted }: Reader,
  { by }: Needed,
  { after, through }: Stretch
): Effect.Effect<Documents, HistoryLost | TooMuch | SourceUnavailable> => {
  const [first] = by.values()
  if (first === undefined) return Effect.succeed(new Map())
  if (source === undefined) return lost(first, "the source, in which they are, is not at hand")
  const documents = new Map<DocumentId, Array<Strand>>(Array.from(by.keys(), (documentId) => [documentId, []]))
  let bytes = 0
  return Source.documentsOf(source, new Set(by.keys()), after, through).pipe(
    Stream.runForEachWhile((strand) => {
      if (wanted(strand)) {
        documents.get(strand.documentId)?.push(strand)
        bytes += strand.bytes
      }
      return Effect.succeed(bytes <= (by.size > 1 ? bytesTogetherMax : bytesMax))
    }),
    Effect.catchAll((failure): Effect.Effect<never, HistoryLost | SourceUnavailable> =>
      failure._tag === "SourceUnavailable" ? Effect.fail(failure) : lost(first, failure.message, failure)
    ),
    Effect.flatMap((): Effect.Effect<Documents, HistoryLost | TooMuch> =>
      by.size > 1 && bytes > bytesTogetherMax
        ? Effect.fail(new TooMuch())
        : bytes > bytesMax
        ? lost(first, `they take more than ${bytesMax} bytes`)
        : Effect.succeed(documents)
    )
  )
}

const lost = ({ operation, strand }: Item, reason: string, cause?: unknown): Effect.Effect<never, HistoryLost> =>
  new HistoryLost({
    ...subject(strand, operation),
    reason: `the document's operations cannot be read again: ${reason}`,
    ...(cause === undefined ? {} : { cause })
  })
