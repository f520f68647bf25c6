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
import { indexMax } from "../domain/Operation.js"
import type * as Strand from "../domain/Strand.js"
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
export interface Missing extends Strand.Stream {
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

/** The archive of generation 3: the operation index of the reactor, `(await builder.buildModule()).operationIndex`. */
export const fromOperationIndex = (index: Contract.OperationIndex): Archive => ({
  since: (mark, drive, isolated) =>
    isolated
      ? pages("operation index", (paging) => index.find(collectionOf(drive), mark, undefined, paging), fromEntry)
      : pages("operation index", (paging) => index.getSinceOrdinal(mark, paging), fromIndexed),
  between: ({ branch, documentId, from, scope, to }) =>
    pages("operation index", (paging) => index.get(documentId, { branch, scopes: [scope] }, paging), fromEntry).pipe(
      Stream.map((found) => found.filter(({ envelope: { operation } }) => isBetween(operation.index, from, to)))
    ),
  within: (drive, documentIds) =>
    Effect.map(
      read("collections", () => index.getCollectionsForDocuments([...documentIds])),
      (collections) =>
        new Set(
          Object.entries(collections).filter(([, ids]) => ids.includes(collectionOf(drive))).map(([id]) => id)
        )
    ),
  head: Effect.suspend(() => highest((ordinal) => hasAbove(index, ordinal)))
})

const isBetween = (index: unknown, from: number, to: number): boolean =>
  typeof index === "number" && index >= from && index <= to

/** How the reactor names what belongs to a drive. */
const collectionOf = (drive: string): string => `drive.main.${drive}`

const fromIndexed = (envelope: Contract.Indexed) => ({ envelope, ordinal: Number(envelope.context.ordinal) })

const fromEntry = (entry: Contract.IndexEntry & { readonly index?: number }) => {
  const { branch, documentId, documentType, scope } = entry
  const ordinal = Number(entry.ordinal)
  return { envelope: { operation: entry, context: { documentId, documentType, scope, branch, ordinal } }, ordinal }
}

/** The highest ordinal, found by doubling and halving: each question is one row of an index. */
const highest = (
  isAbove: (ordinal: number) => Effect.Effect<boolean, ArchiveUnavailable>
): Effect.Effect<number, ArchiveUnavailable> =>
  Effect.gen(function*() {
    if (!(yield* isAbove(0))) return 0
    let below = 0
    let notBelow = 1
    while (yield* isAbove(notBelow)) {
      below = notBelow
      notBelow *= 2
    }
    while (notBelow - below > 1) {
      const middle = Math.floor((below + notBelow) / 2)
      if (yield* isAbove(middle)) below = middle
      else notBelow = middle
    }
    return notBelow
  })

const hasAbove = (index: Contract.OperationIndex, ordinal: number) =>
  Effect.map(
    read("operation index", () => index.getSinceOrdinal(ordinal, { cursor: "0", limit: 1 })),
    ({ results }) => results.length > 0
  )

/**
 * The archive of generations 1 and 2: the storage that the server is built with. Read document by document, as it keeps them,
 * and not replayed, so that a document which cannot be replayed hinders nobody. It has no order over documents, and each
 * `since` reads every document of the drive.
 */
export const fromDocumentStorage = (storage: Contract.DocumentStorage): Archive => ({
  since: (_, drive) =>
    Stream.unwrap(Effect.map(
      read("documents", () => storage.getChildren(drive)),
      (children) => Stream.mapEffect(Stream.fromIterable([drive, ...children]), (id) => strandsOf(storage, drive, id))
    )),
  between: ({ documentId, from, scope, to }) =>
    Stream.fromEffect(Effect.map(
      stored(storage, documentId),
      (document) => document === undefined ? [] : [strand(documentId, document, scope, from, to)]
    )),
  within: (drive, documentIds) =>
    Effect.map(read("documents", () => storage.getChildren(drive)), (children) => {
      const known = new Set([drive, ...children])
      return new Set(documentIds.filter((id) => known.has(id)))
    }),
  head: Effect.succeed(0)
})

const strandsOf = (storage: Contract.DocumentStorage, driveId: string, documentId: string) =>
  Effect.map(
    stored(storage, documentId),
    (document): ReadonlyArray<Found> =>
      document === undefined ? [] : Object.keys(document.operations).flatMap((scope) => {
        // The real system never delivers this scope: it is its own.
        if (scope === "local") return []
        const { envelope, ordinal } = strand(documentId, document, scope, 0, indexMax)
        return envelope.operations.length === 0 ? [] : [{ envelope: { ...envelope, driveId }, ordinal }]
      })
  )

/** A document that was deleted meanwhile, or whose file cannot be read, has nothing to tell; the reactor says so itself. */
const stored = (storage: Contract.DocumentStorage, documentId: string) =>
  Effect.orElseSucceed(read("documents", () => storage.get(documentId)), () => undefined)

const strand = (
  documentId: string,
  document: Contract.StoredDocument,
  scope: string,
  from: number,
  to: number
) => ({
  envelope: {
    documentId,
    documentType: document.header.documentType,
    scope,
    branch: "main",
    // Said, so that no input is taken for the text of one.
    state: undefined,
    operations: (document.operations[scope] ?? []).filter((operation: { readonly index?: unknown }) =>
      isBetween(operation.index, from, to)
    )
  },
  ordinal: undefined
})

const pages = <A, B>(
  what: string,
  page: (paging: Contract.Paging) => Promise<Contract.Page<A>>,
  found: (result: A) => B
): Stream.Stream<ReadonlyArray<B>, ArchiveUnavailable> =>
  Stream.paginateChunkEffect(
    "0",
    (cursor) =>
      Effect.map(read(what, () => page({ cursor, limit: pageMax })), ({ nextCursor, results }) => [
        Chunk.of(results.map(found)),
        Option.fromNullable(nextCursor)
      ])
  )

const read = <A>(what: string, from: () => Promise<A>): Effect.Effect<A, ArchiveUnavailable> =>
  Effect.tryPromise({ try: from, catch: (cause) => new ArchiveUnavailable({ what, cause }) })
