/**
 * An archive: what a real reactor has stored, read by us, for what it never delivers.
 *
 *     its processor manager ──▶ deliveries, some lost ──▶ ┐
 *     its store ◀── Archive.since, Archive.between ────── ┴──▶ every operation
 *
 * Invariant: an operation that the reactor has stored is found by `since` of any mark below its ordinal, as soon as the
 * transaction that stored it has committed. Ordinals are given before that, so a lower one may be found later than a
 * higher one, as late as a transaction of the reactor stays open.
 */

import * as Chunk from "effect/Chunk"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type * as Contract from "./Contract.js"

/** The reactor's store cannot be read: worth trying again. */
export class ArchiveUnavailable extends Data.TaggedError("ArchiveUnavailable")<{
  /** What was read. */
  readonly what: string
  readonly cause: unknown
}> {
  override get message(): string {
    return `the reactor's ${this.what} cannot be read: ${
      this.cause instanceof Error ? this.cause.message : String(this.cause)
    }`
  }
}

/** What was found, as `Envelope` reads it. */
export interface Found {
  readonly envelope: unknown
  /** Its place in the order of the archive, where that has one. */
  readonly ordinal: number | undefined
}

/** Indexes of one stream, both included. */
export interface Missing {
  readonly documentId: string
  readonly documentType: string
  readonly scope: string
  readonly branch: string
  readonly from: number
  readonly to: number
}

export interface Archive {
  /**
   * What was stored above a mark, in pages of bounded size: of all drives, or of one drive and its documents, those included
   * that joined it above the mark.
   */
  readonly since: (
    mark: number,
    drive: string,
    isolated: boolean
  ) => Stream.Stream<ReadonlyArray<Found>, ArchiveUnavailable>
  /** Operations of one stream. */
  readonly between: (missing: Missing) => Stream.Stream<ReadonlyArray<Found>, ArchiveUnavailable>
  /** All operations of a document of a drive, each stream in the order of its indexes; none of one that is not there. */
  readonly document: (drive: string, documentId: string) => Stream.Stream<ReadonlyArray<Found>, ArchiveUnavailable>
  /** Those of the documents that are in the drive now. */
  readonly within: (
    drive: string,
    documentIds: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlySet<string>, ArchiveUnavailable>
  /** The highest ordinal there is; 0 where there are none. */
  readonly head: Effect.Effect<number, ArchiveUnavailable>
}

/** Operations of a page. */
const pageMax = 500

/** What a call of the reactor returns page by page. */
export const pages = <A>(
  what: string,
  page: (paging: Contract.Paging) => Promise<Contract.Page<A>>
): Stream.Stream<ReadonlyArray<A>, ArchiveUnavailable> =>
  Stream.paginateChunkEffect(
    "0",
    (cursor) =>
      Effect.map(read(what, () => page({ cursor, limit: pageMax })), ({ nextCursor, results }) => [
        Chunk.of(results),
        Option.fromNullable(nextCursor)
      ])
  )

/** What a call of the reactor returns. */
export const read = <A>(what: string, from: () => Promise<A>): Effect.Effect<A, ArchiveUnavailable> =>
  Effect.tryPromise({ try: from, catch: (cause) => new ArchiveUnavailable({ what, cause }) })
