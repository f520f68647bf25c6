/**
 * Verdicts: which operations the document's own reducer has refused, which a sync channel does not tell.
 *
 *     operation, hash ── another one than before it ──▶ it has changed the document, so it was not refused
 *                     └─ the same, or nobody knows ───▶ suspect: documentOperations tells its `error`
 *
 * The reactor keeps the error of an operation in its operation store and not in the index that channels are filled from. A
 * refused operation is recorded with the hash of the state that it left as it was, so only operations whose hash says
 * nothing new have to be asked about: in a busy document few, and the first of each stream.
 */

import * as Effect from "effect/Effect"
import type { Operation } from "../domain/Operation.js"
import type { Stream } from "../domain/Strand.js"
import type { Unplaced } from "../ingest/Source.js"
import type { Head } from "../journal/Journal.js"
import * as DocumentPull from "./DocumentPull.js"
import type * as Endpoint from "./Endpoint.js"
import * as Uptake from "./Uptake.js"

/** A stream of an answer, and all operations of it. */
export interface Stretch extends Stream, Pick<Unplaced, "documentType"> {
  readonly operations: ReadonlyArray<Operation>
}

/** The streams of an answer, each once, with its operations in order. */
export const streamsOf = (strands: ReadonlyArray<Unplaced>): ReadonlyArray<Stretch> => {
  const stretches = new Map<string, Stretch & { readonly operations: Array<Operation> }>()
  for (const strand of strands) {
    const key = JSON.stringify([strand.documentId, strand.scope, strand.branch])
    const known = stretches.get(key)
    if (known === undefined) {
      const { documentType, operations } = strand
      stretches.set(key, { ...Uptake.streamOf(strand), documentType, operations: Array.from(operations) })
    } else known.operations.push(...strand.operations)
  }
  for (const { operations } of stretches.values()) operations.sort((a, b) => a.index - b.index)
  return Array.from(stretches.values())
}

/** The part of a stream about which something has to be asked. */
export interface Suspect extends Stream, Pick<Unplaced, "documentType"> {
  readonly firstIndex: number
  readonly lastIndex: number
}

/**
 * What has to be asked about, given where the journal ends. Actions on a document as a whole have no hash; one that fails is
 * not recorded.
 */
export const suspects = (
  streams: ReadonlyArray<Stretch>,
  heads: ReadonlyArray<Head>
): ReadonlyArray<Suspect> =>
  streams.flatMap(({ operations, ...stream }, i) => {
    const head = heads[i]!
    let before = operations[0]?.index === head.index + 1 ? head.hash : undefined
    const asked: Array<number> = []
    for (const { error, hash, index, type } of operations) {
      const isTold = type === "NOOP" || (hash !== "" && before !== undefined && before !== "" && hash !== before)
      if (index > head.index && error === undefined && !isTold) asked.push(index)
      before = hash
    }
    const [firstIndex] = asked
    const lastIndex = asked.at(-1)
    return stream.scope === "document" || firstIndex === undefined || lastIndex === undefined
      ? []
      : [{ ...stream, firstIndex, lastIndex }]
  })

/** What was found out about a stream: its operations as the reactor's store has them. */
export interface Found extends Stream {
  readonly operations: ReadonlyArray<Operation>
}

/** Asks. Where the reactor does not say, as of a deleted document, the operations are taken for what they came as. */
export const ask = (
  endpoint: Endpoint.Endpoint,
  vocabulary: DocumentPull.Vocabulary,
  suspect: Suspect
): Effect.Effect<Found, Endpoint.AskError> =>
  Effect.suspend(() => {
    const operations: Array<Operation> = []
    return Effect.as(
      DocumentPull.operations(endpoint, vocabulary, suspect, suspect.firstIndex, (strands, lastIndex) =>
        Effect.sync(() => {
          operations.push(...strands.flatMap((strand) =>
            strand.operations
          ))
          return lastIndex < suspect.lastIndex
        })),
      { ...Uptake.streamOf(suspect), operations }
    )
  }).pipe(
    Effect.catchTag("QuestionRejected", (failure) =>
      Effect.as(
        Effect.logDebug(`it is not known whether operations were refused: ${failure.message}`),
        { ...Uptake.streamOf(suspect), operations: [] }
      ))
  )

/** The strands with the errors that were found. */
export const apply = (
  strands: ReadonlyArray<Unplaced>,
  found: ReadonlyArray<Found>
): ReadonlyArray<Unplaced> => {
  const refused = found.map((one) => ({
    ...one,
    operations: one.operations.filter(({ error }) => error !== undefined)
  })).filter(({ operations }) => operations.length > 0)
  if (refused.length === 0) return strands
  return strands.map((strand) => {
    const mine = refused.find((one) => Uptake.isSame(one, strand))
    return mine === undefined ? strand : {
      ...strand,
      operations: strand.operations.map((operation) => {
        const twin = mine.operations.find(({ hash, index, skip }) =>
          index === operation.index && skip === operation.skip && hash === operation.hash
        )
        return twin?.error === undefined ? operation : { ...operation, error: twin.error }
      })
    }
  })
}
