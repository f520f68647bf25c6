/**
 * A reactor archive: what the current reactor, of generation 3, has stored.
 *
 *     operation index    the order, and which documents belong to a drive
 *     operation store    the operations themselves: the index does not keep whether a document refused one
 */

import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { pages, read } from "./Archive.js"
import type { Archive, ArchiveUnavailable, Found, Missing } from "./Archive.js"
import type * as Contract from "./Contract.js"

/** Streams whose operations are read at once. */
const streamsAtOnce = 8

/** The archive of the module that `await builder.buildModule()` of the reactor returns. */
export const make = ({ operationIndex, operationStore }: Contract.ReactorModule): Archive => ({
  since: (mark, drive, isolated) =>
    (isolated
      ? pages("operation index", (paging) => operationIndex.find(collectionOf(drive), mark, undefined, paging))
      : pages("operation index", (paging) => operationIndex.getSinceOrdinal(mark, paging)).pipe(
        Stream.map((page) => page.map(({ context, operation }): Contract.IndexEntry => ({ ...operation, ...context })))
      )).pipe(Stream.mapEffect((entries) => completed(operationStore, entries))),
  between: (missing) =>
    pages("operation store", (paging) => stored(operationStore, missing, paging)).pipe(
      Stream.takeUntil((page) => page.some(({ index }) => index > missing.to)),
      Stream.map((page) =>
        page.filter(({ index }) => index <= missing.to).map((operation) => found({ ...missing, ordinal: 0 }, operation))
      )
    ),
  document: (_, documentId) =>
    pages("operation index", (paging) => operationIndex.get(documentId, undefined, paging)).pipe(
      Stream.mapEffect((entries) => completed(operationStore, entries))
    ),
  within: (drive, documentIds) =>
    Effect.map(
      read("collections", () => operationIndex.getCollectionsForDocuments([...documentIds])),
      (collections) =>
        new Set(
          Object.entries(collections).filter(([, ids]) => ids.includes(collectionOf(drive))).map(([id]) => id)
        )
    ),
  head: Effect.suspend(() => highest((ordinal) => hasAbove(operationIndex, ordinal)))
})

type OperationStore = Contract.ReactorModule["operationStore"]

const stored = (store: OperationStore, { branch, documentId, from, scope }: Missing, paging: Contract.Paging) =>
  store.getSince(documentId, scope, branch, from - 1, undefined, paging)

const found = (
  { branch, documentId, documentType, ordinal, scope }: Contract.OperationContext,
  operation: object
): Found => ({
  envelope: { operation, context: { documentId, documentType, scope, branch, ordinal } },
  ordinal: Number(ordinal)
})

/** The entries of a page with the operations as they were stored. */
const completed = (store: OperationStore, entries: ReadonlyArray<Contract.IndexEntry>) =>
  Effect.map(
    Effect.forEach(spansOf(entries), (span) =>
      Effect.map(
        read("operation store", () => stored(store, span, { cursor: "0", limit: span.to - span.from + 1 })),
        ({ results }) => new Map(results.map((operation) => [`${nameOf(span)} ${operation.index}`, operation]))
      ), { concurrency: streamsAtOnce }),
    (maps) => {
      const operations = new Map(maps.flatMap((map) => Array.from(map)))
      return entries.map((entry) => found(entry, operations.get(`${nameOf(entry)} ${entry.index}`) ?? entry))
    }
  )

/** The indexes of each stream that lie on a page. */
const spansOf = (entries: ReadonlyArray<Contract.IndexEntry>): ReadonlyArray<Missing> => {
  const spans = new Map<string, Missing>()
  for (const entry of entries) {
    const span = spans.get(nameOf(entry))
    spans.set(nameOf(entry), {
      ...entry,
      from: Math.min(span?.from ?? entry.index, entry.index),
      to: Math.max(span?.to ?? entry.index, entry.index)
    })
  }
  return Array.from(spans.values())
}

/** Only to look it up. */
const nameOf = ({ branch, documentId, scope }: Pick<Missing, "documentId" | "scope" | "branch">): string =>
  JSON.stringify([documentId, scope, branch])

/** How the reactor names what belongs to a drive. */
const collectionOf = (drive: string): string => `drive.main.${drive}`

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

const hasAbove = (index: Contract.ReactorModule["operationIndex"], ordinal: number) =>
  Effect.map(
    read("operation index", () => index.getSinceOrdinal(ordinal, { cursor: "0", limit: 1 })),
    ({ results }) => results.length > 0
  )
