/**
 * An uptake: takes what came over the wire into the journal, as far as it is in order.
 *
 *     strands, as they came ──▶ each stream in the order of its indexes ──▶ append ─┬─ all of it is in the journal
 *                                                                        ▲          └─ one operation is refused:
 *                                                                        └── without it and what follows it ──┘
 *
 * Invariants: what is not reported as refused is in the journal, by this append or by an earlier one; of a refused stream
 * everything before the refused operation is. Nothing is kept here: what was refused has to be asked for again.
 */

import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type { Operation } from "../domain/Operation.js"
import type { Stream } from "../domain/Strand.js"
import type { Unplaced } from "../ingest/Source.js"
import type { Journal, JournalUnavailable, Refusal } from "../journal/Journal.js"
import type { QuestionRejected } from "./Endpoint.js"

/** A stream that cannot go on. */
export interface Refused extends Stream, Pick<Unplaced, "documentType"> {
  /** The first operation that is not in the journal. */
  readonly index: number
  /** What the journal says of it, or the server that was asked for it. */
  readonly refusal: Refusal | QuestionRejected
}

export interface Taken {
  readonly appended: number
  /** Operations that were in the journal already, or that a later one has taken the place of. */
  readonly known: number
  /** At most one for each stream. */
  readonly refused: ReadonlyArray<Refused>
}

/** Operations in one append; a page of the current reactor has at most 100. */
const appendOperationsMax = 1_000

/** Takes strands in. A strand without operations says nothing that a journal could hold. */
export const take = (
  journal: Context.Tag.Service<Journal>,
  strands: ReadonlyArray<Unplaced>
): Effect.Effect<Taken, JournalUnavailable> =>
  Effect.gen(function*() {
    const refused: Array<Refused> = []
    let appended = 0
    let known = 0
    for (const portion of portions(inOrder(strands.flatMap(piecesOf)))) {
      let pieces = portion.filter((piece) => !refused.some((one) => isSame(one, piece.strand)))
      while (pieces.length > 0) {
        const outcome = yield* append(journal, pieces)
        if (Either.isRight(outcome)) {
          appended += outcome.right.appended
          known += outcome.right.redelivered + outcome.right.superseded
          break
        }
        const at = refusedAt(pieces, outcome.left)
        const { operation, strand } = pieces[at]!
        refused.push({
          ...streamOf(strand),
          documentType: strand.documentType,
          index: operation.index,
          refusal: outcome.left
        })
        pieces = pieces.filter((piece, i) => i < at || !isSame(piece.strand, strand))
      }
    }
    return { appended, known, refused }
  })

/** One operation, and the strand it came in. */
interface Piece {
  readonly strand: Unplaced
  readonly operation: Operation
  readonly bytes: number
}

const piecesOf = (strand: Unplaced): ReadonlyArray<Piece> =>
  strand.operations.map((operation) => ({
    strand,
    operation,
    bytes: Math.ceil(strand.bytes / strand.operations.length)
  }))

export const streamOf = ({ branch, documentId, scope }: Stream): Stream => ({ documentId, scope, branch })

export const isSame = (a: Stream, b: Stream): boolean =>
  a.documentId === b.documentId && a.scope === b.scope && a.branch === b.branch

/** The operations of each stream by their indexes, in the places that the stream's operations had. */
const inOrder = (pieces: ReadonlyArray<Piece>): ReadonlyArray<Piece> => {
  const streams = new Map<string, Array<Piece>>()
  const keys = pieces.map(({ strand }) => JSON.stringify([strand.documentId, strand.scope, strand.branch]))
  pieces.forEach((piece, i) => {
    const key = keys[i]!
    const stream = streams.get(key)
    if (stream === undefined) streams.set(key, [piece])
    else stream.push(piece)
  })
  const turns = new Map(Array.from(streams, ([key, stream]) => [key, stream.sort(byPlace).values()]))
  return keys.map((key) => turns.get(key)!.next().value!)
}

/** A longer undo has the index of the shorter one it replaces. */
const byPlace = (a: Piece, b: Piece): number =>
  a.operation.index - b.operation.index || a.operation.skip - b.operation.skip

const portions = (pieces: ReadonlyArray<Piece>): ReadonlyArray<ReadonlyArray<Piece>> =>
  Array.from(
    { length: Math.ceil(pieces.length / appendOperationsMax) },
    (_, i) => pieces.slice(i * appendOperationsMax, (i + 1) * appendOperationsMax)
  )

/** Neighbours of one stream are one strand. */
const strandsOf = (pieces: ReadonlyArray<Piece>): ReadonlyArray<Unplaced> => {
  const strands: Array<Unplaced & { readonly operations: Array<Operation>; bytes: number }> = []
  for (const { bytes, operation, strand } of pieces) {
    const last = strands.at(-1)
    if (last !== undefined && isSame(last, strand) && last.documentType === strand.documentType) {
      last.operations.push(operation)
      last.bytes += bytes
    } else {
      strands.push({ ...strand, operations: [operation], bytes })
    }
  }
  return strands
}

interface Counts {
  readonly appended: number
  readonly redelivered: number
  readonly superseded: number
}

/** Appends all or nothing; in two halves what is too large for one append. */
const append = (
  journal: Context.Tag.Service<Journal>,
  pieces: ReadonlyArray<Piece>
): Effect.Effect<Either.Either<Counts, Refusal>, JournalUnavailable> =>
  journal.append(strandsOf(pieces)).pipe(
    Effect.map((receipt): Either.Either<Counts, Refusal> => Either.right(receipt)),
    Effect.catchAll((failure) =>
      failure._tag === "JournalUnavailable"
        ? Effect.fail(failure)
        : failure._tag === "AppendTooLarge" && pieces.length > 1
        ? inHalves(journal, pieces)
        : Effect.succeed(Either.left(failure))
    )
  )

const inHalves = (journal: Context.Tag.Service<Journal>, pieces: ReadonlyArray<Piece>) =>
  Effect.gen(function*() {
    const middle = pieces.length >> 1
    const first = yield* append(journal, pieces.slice(0, middle))
    if (Either.isLeft(first)) return first
    return Either.map(yield* append(journal, pieces.slice(middle)), (second): Counts => ({
      appended: first.right.appended + second.appended,
      redelivered: first.right.redelivered + second.redelivered,
      superseded: first.right.superseded + second.superseded
    }))
  })

/**
 * Which operation was refused; the last one where several have its place, since those before it may be good. An append that
 * is too large has one operation.
 */
const refusedAt = (pieces: ReadonlyArray<Piece>, refusal: Refusal): number =>
  refusal._tag === "AppendTooLarge"
    ? pieces.findIndex(({ bytes }) => bytes === Math.max(...pieces.map((piece) => piece.bytes)))
    : Math.max(
      0,
      pieces.findLastIndex(({ operation, strand }) =>
        strand.documentId === refusal.documentId && strand.scope === refusal.scope &&
        strand.branch === refusal.branch && operation.index === refusal.index && operation.skip === refusal.skip
      )
    )
