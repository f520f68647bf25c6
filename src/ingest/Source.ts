/**
 * A source: a named, ordered, replayable supply of strands.
 *
 *     strands(after) ──▶ strand ──▶ strand ──▶ …      positions ascend, each strand once
 *
 * Invariants: `strands(p)` supplies exactly the strands whose position is above `p`, in ascending order, the same ones each
 * time it is asked; a strand whose position has been supplied never gains a predecessor. A stream that ends says that the
 * source is finished; a live source never ends.
 */

import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { Received } from "../domain/Name.js"
import { inputFlaw } from "../domain/Operation.js"
import type { Operation } from "../domain/Operation.js"
import { make as position, origin } from "../domain/Position.js"
import type { Position } from "../domain/Position.js"
import type { DocumentId, Strand } from "../domain/Strand.js"
import type { Dialect, Filter } from "./Filter.js"

export const SourceName = Received.pipe(Schema.brand("SourceName"))
export type SourceName = typeof SourceName.Type

/** The supply cannot be reached or broke off: worth trying again. */
export class SourceUnavailable extends Data.TaggedError("SourceUnavailable")<{
  readonly source: string
  /** What could not be done, and what to do about it. */
  readonly reason: string
  readonly cause?: unknown
}> {
  override get message(): string {
    return `source ${this.source} is not available: ${this.reason}`
  }
}

/** The supply holds something that is not a strand: trying again reads the same. */
export class MalformedSource extends Data.TaggedError("MalformedSource")<{
  readonly source: string
  /** Where in the supply, in words a person can look up: a file and a line. */
  readonly at: string
  readonly reason: string
  readonly cause?: unknown
}> {
  override get message(): string {
    return `source ${this.source}, ${this.at}: ${this.reason}`
  }
}

/** What follows `after` was removed up to `floor`: whoever would read on from there would miss it. Lasting. */
export class SourceTruncated extends Data.TaggedError("SourceTruncated")<{
  readonly source: string
  /** Where the reader stands. */
  readonly after: Position
  /** The lowest position that can be read on from. */
  readonly floor: Position
}> {
  override get message(): string {
    return `source ${this.source} was truncated up to position ${this.floor}: what follows ${this.after} is gone`
  }
}

/** The supply ends before where a reader stands: what was read of it is gone, or it is another one. Lasting. */
export class SourceShortened extends Data.TaggedError("SourceShortened")<{
  readonly source: string
  /** Where the reader stands. */
  readonly after: Position
  /** Where the supply ends, how that comes, and what to do about it. */
  readonly reason: string
  readonly cause?: unknown
}> {
  override get message(): string {
    return `source ${this.source} ends before position ${this.after}, to which it was read: ${this.reason}`
  }
}

/** The supply is not there a second time, and somebody needs it again. Lasting. */
export class SuppliedOnce extends Data.TaggedError("SuppliedOnce")<{
  readonly source: string
  /** Why, and what to do. */
  readonly reason: string
}> {
  override get message(): string {
    return `source ${this.source} supplies nothing a second time: ${this.reason}`
  }
}

export type SourceError = SourceUnavailable | MalformedSource | SourceTruncated | SourceShortened | SuppliedOnce

/** Which strands are wanted, and how many at once; the strand that reaches a bound may exceed it. */
export interface Wanted {
  readonly filter: Filter
  readonly filterDialect: Dialect
  readonly operations: number
  readonly bytes: number
}

/** Strands, and how far the source was looked through for them. */
export interface Page {
  readonly strands: ReadonlyArray<Strand>
  readonly position: Position
}

export class Source extends Context.Tag("effect-processors/Source")<Source, {
  /** Names the cursors that follow this source; choose it once and keep it. */
  readonly name: SourceName
  /** The strands above a position, in order. */
  readonly strands: (after: Position) => Stream.Stream<Strand, SourceError>
  /** The highest position there is now, where the source knows it without reading through. */
  readonly head: Effect.Effect<Option.Option<Position>, SourceError>
  /**
   * The next strands above a position that are there now and wanted, where the source can leave the others out; how far it
   * looked goes beyond the position, unless there is nothing there.
   */
  readonly page?: (after: Position, wanted: Wanted) => Effect.Effect<Page, SourceError>
  /**
   * About how many strands there are above one position and up to a higher one; `Infinity` where it cannot tell. To be set
   * where positions are not given one after another: without it they are counted.
   */
  readonly distance?: (from: Position, to: Position) => number
  /**
   * What keeps it from being up to date, and what to do about it, in sentences; none while all is well. For a source that
   * somebody fills: whoever follows it cannot tell a quiet one from one that is cut off.
   */
  readonly complaints?: Effect.Effect<ReadonlyArray<string>>
  /**
   * Set where `strands` supplies to whoever follows, and to nobody a second time: why, and what to do. Its processors are
   * not rebuilt; and one that replays documents needs `document`.
   */
  readonly onlyOnce?: string
  /** The strands of one document up to a position, in order, where the source need not read through to find them. */
  readonly document?: (documentId: DocumentId, through: Position) => Stream.Stream<Strand, SourceError>
}>() {}

/** About how many strands there are above one position and up to a higher one; `Infinity` where nobody knows. */
export const distance = (source: Context.Tag.Service<Source>, from: Position, to: Position): number =>
  source.distance?.(from, to) ?? Number(to - from)

/** Why the strands of a document cannot be had again, where they cannot. */
export const withoutDocuments = (
  { document, name: source, onlyOnce }: Context.Tag.Service<Source>
): SuppliedOnce | undefined =>
  document !== undefined || onlyOnce === undefined ? undefined : new SuppliedOnce({ source, reason: onlyOnce })

/** The strands of one document up to a position, in order. A source that cannot look them up is read from its beginning. */
export const documentOf = (
  source: Context.Tag.Service<Source>,
  documentId: DocumentId,
  through: Position
): Stream.Stream<Strand, SourceError> =>
  through === origin ? Stream.empty : source.document?.(documentId, through) ??
    again(source, origin).pipe(
      Stream.takeUntil((strand) => strand.position >= through),
      Stream.filter((strand) => strand.documentId === documentId && strand.position <= through)
    )

/** {@link documentOf} for several documents, in one pass where the source has to be read through. */
export const documentsOf = (
  source: Context.Tag.Service<Source>,
  documentIds: ReadonlySet<DocumentId>,
  after: Position,
  through: Position
): Stream.Stream<Strand, SourceError> =>
  source.document !== undefined
    ? Stream.fromIterable(documentIds).pipe(
      Stream.flatMap((documentId) => documentOf(source, documentId, through)),
      Stream.filter((strand) => strand.position > after)
    )
    : through <= after
    ? Stream.empty
    : again(source, after).pipe(
      Stream.takeUntil((strand) => strand.position >= through),
      Stream.filter((strand) => documentIds.has(strand.documentId) && strand.position <= through)
    )

/** Reads beside whoever follows. */
const again = (source: Context.Tag.Service<Source>, after: Position): Stream.Stream<Strand, SourceError> => {
  const refusal = withoutDocuments(source)
  return refusal === undefined ? source.strands(after) : Stream.fail(refusal)
}

/** Brands a source's name; throws a `ParseError` when it is empty, too long or not clean text. */
export const name: (text: string) => SourceName = Schema.decodeUnknownSync(SourceName)

/** A strand whose position is yet to be given. */
export type Unplaced = Omit<Strand, "position">

/** A finite source over strands that are at hand; the first has position 1. */
export const fromIterable = (sourceName: string, strands: Iterable<Unplaced>): Context.Tag.Service<Source> => {
  // The position first: objects that get another property behind a spread share no shape, and are read ten times slower.
  const placed = Array.from(strands, (strand, i): Strand => ({
    position: position(BigInt(i + 1)),
    ...strand,
    operations: strand.operations.map(gate)
  }))
  return {
    name: name(sourceName),
    strands: (after) =>
      after > placed.length
        ? Stream.fail(
          new SourceShortened({
            source: sourceName,
            after,
            reason: `it has ${placed.length} strands; give all that it had, in their order, or give it another name`
          })
        )
        : Stream.fromChunk(Chunk.unsafeFromArray(placed.slice(Number(after)))),
    head: Effect.succeed(Option.some(position(BigInt(placed.length))))
  }
}

const gate = (operation: Operation): Operation => {
  const flaw = operation.flaw ?? inputFlaw(operation.input)
  return flaw === undefined ? operation : { ...operation, flaw }
}

/** {@link fromIterable} as a Layer. */
export const layerIterable = (sourceName: string, strands: Iterable<Unplaced>): Layer.Layer<Source> =>
  Layer.sync(Source, () => fromIterable(sourceName, strands))
