/**
 * A narrowing: how work that fails is taken apart until the operation to blame stands alone.
 *
 *     batch ─▶ commit ──poison──▶ halves, or before · culprit · after ─▶ commit, commit, …
 *                                              └▶ the policy: again after a pause, or a verdict to carry out
 *
 * So one bad operation in a batch of a thousand costs a few commits where the handler says which it is, about twenty where
 * it does not, and never its neighbours. Letters whose missing operations have come are committed as soon as the segment
 * that closed their gap is.
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Batch } from "../ingest/Batch.js"
import { Defect, subject } from "../process/Failure.js"
import type { Subject } from "../process/Failure.js"
import { attempt, Halted, keyOf, persist } from "./Commit.js"
import type { CommitError, Owner } from "./Commit.js"
import * as Incident from "./Incident.js"
import * as Letters from "./Letters.js"
import * as Release from "./Release.js"
import { Retries } from "./Retries.js"
import * as Segment from "./Segment.js"
import type { Sentence } from "./Sift.js"

/** The most letters that are tried as one commit. */
const releaseMax = 1_000

/** Commits a batch, in as many transactions as it takes. */
export const batch = <R>(
  owner: Owner<R>,
  next: Batch
): Effect.Effect<void, CommitError, R | SqlClient.SqlClient> =>
  segments(owner, Segment.cutByHandled(Segment.fromBatch(next, owner.cursor.position), owner.cursor))

/** Applies the letters of documents whose missing operations have come meanwhile. */
export const releaseHeld = <R>(
  owner: Owner<R>
): Effect.Effect<void, CommitError, R | SqlClient.SqlClient> =>
  owner.cursor.parked === 0 ? Effect.void : releaseAfter(owner, "")

/** {@link releaseHeld} for the documents whose id sorts after `last`; one document's letters are in memory at a time. */
const releaseAfter = <R>(
  owner: Owner<R>,
  last: string
): Effect.Effect<void, CommitError, R | SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const documents = yield* persist(owner, Letters.heldDocuments(owner.cursor, last, releaseMax))
    for (const documentId of documents) yield* release(owner, documentId)
    if (documents.length === releaseMax) yield* releaseAfter(owner, documents.at(-1)!)
  })

/** Commits the letters with these ordinals in the order given, as an operator asked. */
export const letters = <R>(
  owner: Owner<R>,
  ordinals: ReadonlyArray<bigint>
): Effect.Effect<void, CommitError, R | SqlClient.SqlClient> =>
  Effect.forEach(
    Chunk.chunksOf(Chunk.fromIterable(ordinals), releaseMax),
    (some) =>
      Effect.flatMap(
        persist(owner, Letters.readAll(owner.cursor, Chunk.toReadonlyArray(some))),
        (chosen) => segments(owner, inSegment(owner, chosen))
      ),
    { discard: true }
  )

/** Works a list of segments off, narrowing those that fail. */
const segments = Effect.fnUntraced(function*<R>(owner: Owner<R>, first: ReadonlyArray<Segment.Segment>) {
  const retries = new Retries(owner.policy)
  const work: Array<Work> = []
  const push = (next: ReadonlyArray<Segment.Segment>) => {
    for (const segment of next.toReversed()) work.push({ segment, failure: Option.none(), isBare: false })
  }
  push(first)
  for (let item = work.pop(); item !== undefined; item = work.pop()) {
    const { failure, isBare, segment } = item
    const decided = Option.isNone(failure)
      ? undefined
      : yield* sentence(owner, segment, failure.value, retries, isBare)
    const outcome = yield* attempt(owner, segment, decided)
    if (outcome._tag === "Committed") {
      for (const documentId of outcome.stirred) yield* release(owner, documentId)
    } else if (outcome._tag === "TooMuch") {
      push(Segment.halves(segment))
    } else if (decided?.verdict._tag === "Skip" && owner.coping !== undefined && !isBare) {
      // What it takes back cannot be carried out either.
      work.push({ segment, failure, isBare: true })
    } else if (decided !== undefined || segment.operations === 0) {
      // Not the handler was refused but what we write ourselves, and would be again.
      const at = decided === undefined ? undefined : subjectOf(segment)
      return yield* new Halted({ ...keyOf(owner), fault: "drift", at, cause: outcome.failure })
    } else if (segment.operations === 1) {
      work.push({ segment, failure: Option.some(outcome.failure), isBare: false })
    } else if (outcome.culprit === undefined) {
      push(Segment.halves(segment))
    } else {
      const { after, before, itself } = Segment.around(segment, outcome.culprit)
      push(after)
      work.push({ segment: itself, failure: Option.some(outcome.failure), isBare: false })
      push(before)
    }
  }
})

/** A segment to be tried, or the segment of one operation that has failed and awaits its sentence. */
interface Work {
  readonly segment: Segment.Segment
  readonly failure: Option.Option<unknown>
  /** Whether leaving it out has failed, so that it is left out with all that it takes back. */
  readonly isBare: boolean
}

/** Asks the policy about the one operation of a segment: again after a pause (`undefined`), or a verdict to carry out. */
const sentence = <R>(
  owner: Owner<R>,
  segment: Segment.Segment,
  failure: unknown,
  retries: Retries,
  isBare: boolean
): Effect.Effect<Sentence | undefined, Halted> =>
  Effect.gen(function*() {
    const operation = segment.strands[0]!.operations[0]!
    const who = subjectOf(segment)
    const halted = new Halted({ ...keyOf(owner), fault: "poison", at: who, cause: failure })
    if (failure instanceof Defect) return yield* halted
    const verdict = yield* retries.next(operation, failure, (times) =>
      owner.report(Incident.Retrying({ ...keyOf(owner), subject: who, failure, attempt: times })))
    if (verdict === undefined) {
      return undefined
    }
    return verdict._tag === "Halt" ? yield* halted : { verdict, failure, isBare }
  })

/** The one operation of a segment. */
const subjectOf = ({ strands: [strand] }: Segment.Segment): Subject => subject(strand!, strand!.operations[0]!)

/** Commits the letters of a document that may leave now, at most {@link releaseMax} in memory at a time. */
const release = <R>(
  owner: Owner<R>,
  documentId: string
): Effect.Effect<void, CommitError, R | SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const free = yield* persist(owner, Release.free(owner.cursor, documentId, releaseMax))
    yield* segments(owner, inSegment(owner, free))
    if (free.length === releaseMax) yield* release(owner, documentId)
  })

const inSegment = <R>(owner: Owner<R>, some: ReadonlyArray<Letters.Letter>): ReadonlyArray<Segment.Segment> =>
  some.length === 0 ? [] : [Segment.fromLetters(some, owner.cursor.position)]
