/**
 * An admission: what becomes of the strands of an append, decided whole.
 *
 *     operation ─┬─ flawed, or too large ────────────────────────────▶ the append is refused
 *                ├─ redelivered, superseded ─────────────────────────▶ dropped, counted
 *                ├─ a gap before it, history rewritten, chain broken ▶ the append is refused
 *                └─ next ────────────────────────────────────────────▶ entry
 *
 * The rules of order are those of `Progress`, by which processors go as well: what a journal admits is in order for all of
 * its readers. A chain is checked where it can be: an operation that stands where its author meant it to, right behind
 * index `prevOpIndex`, has to name the hash of the operation that is there. One that a reactor has put elsewhere while it
 * merged histories stands behind another operation than its author saw, and nothing is wrong with that.
 */

import * as Data from "effect/Data"
import * as Either from "effect/Either"
import { inputFlaw } from "../domain/Operation.js"
import type { Operation } from "../domain/Operation.js"
import type { Stream } from "../domain/Strand.js"
import type { Unplaced } from "../ingest/Source.js"
import { HistoryRewritten, MalformedOperation, show, StrandGap, subject } from "../process/Failure.js"
import type { Subject } from "../process/Failure.js"
import type { Progress, StreamProgress } from "../store/Progress.js"
import type { Entry, Place } from "./Log.js"

/** The operation says that it follows another one than is there: somebody else's history, or a changed one. */
export class ChainBroken extends Data.TaggedError("ChainBroken")<
  Subject & {
    /** The hash that the operation names. */
    readonly named: string
    /** The hash of the operation before it. */
    readonly found: string
  }
> {
  override get message(): string {
    return `${show(this)}: it was made to follow an operation with hash ${JSON.stringify(this.named.slice(0, 80))}, ` +
      `and follows one with ${JSON.stringify(this.found.slice(0, 80))}`
  }
}

/** The append is larger than one transaction may be; append it in parts. */
export class AppendTooLarge extends Data.TaggedError("AppendTooLarge")<{
  readonly operations: number
  readonly bytes: number
}> {
  override get message(): string {
    return `${this.operations} operations of ${this.bytes} bytes are more than the ${operationsMax} operations and ` +
      `${bytesMax} bytes that are appended at once`
  }
}

/** Why nothing of an append was stored; the same append will be refused again unless what is missing comes first. */
export type Refusal = StrandGap | HistoryRewritten | ChainBroken | MalformedOperation | AppendTooLarge

/** The most operations of one append. */
export const operationsMax = 10_000
/** The most bytes of one append, as JSON. */
export const bytesMax = 32 * 1024 * 1024
/** A longer strand is stored in pieces, so that pages can be cut between them. */
const entryOperationsMax = 500
const entryBytesMax = 256 * 1024

/** A strand that can be stored, if it is in order. */
export interface Draft {
  readonly strand: Unplaced
  /** Each operation as JSON. */
  readonly texts: ReadonlyArray<string>
}

export interface Prepared {
  readonly drafts: ReadonlyArray<Draft>
  readonly operations: number
  readonly bytes: number
}

/** Checks what can be checked without a database, and writes the operations as they will be stored. */
export const prepare = (
  strands: ReadonlyArray<Unplaced>
): Either.Either<Prepared, MalformedOperation | AppendTooLarge> => {
  const drafts: Array<Draft> = []
  let operations = 0
  let bytes = 0
  for (const strand of strands) {
    const texts: Array<string> = []
    for (const operation of strand.operations) {
      const reason = operation.flaw ?? inputFlaw(operation.input)
      if (reason !== undefined) return Either.left(new MalformedOperation({ ...subject(strand, operation), reason }))
      const text = JSON.stringify(operation)
      bytes += text.length
      texts.push(text)
      if (++operations > operationsMax || bytes > bytesMax) {
        return Either.left(new AppendTooLarge({ operations, bytes }))
      }
    }
    if (texts.length > 0) drafts.push({ strand, texts })
  }
  return Either.right({ drafts, operations, bytes })
}

/** What is known of the streams of an admission. */
export interface Standing {
  readonly progress: Progress
  /** The hash of each stream's last operation, where it is known and somebody asks. */
  readonly hashes: Map<StreamProgress, string>
}

/** An append that is admitted: what is new of it, and where to look for what is not. */
export interface Admitted {
  readonly entries: ReadonlyArray<Entry>
  /** The last operation that was there before, of each strand that brought such. */
  readonly known: ReadonlyArray<Place>
  readonly redelivered: number
  readonly superseded: number
}

/** Decides about one append, and moves the standing on if it is admitted. */
export const admit = ({ drafts }: Prepared, standing: Standing): Either.Either<Admitted, Refusal> => {
  const revocations: Array<() => void> = []
  const entries: Array<Entry> = []
  const known: Array<Place> = []
  const counts = { redelivered: 0, superseded: 0 }
  for (const draft of drafts) {
    const { strand } = draft
    const stream = standing.progress.of(strand)
    const fresh: Array<number> = []
    let lastKnown: number | undefined
    for (const [i, operation] of strand.operations.entries()) {
      const placement = stream.place(operation)
      if (placement === "redelivered" || placement === "superseded") {
        counts[placement]++
        if (placement === "redelivered") lastKnown = operation.index
        continue
      }
      const refusal = refusalOf(strand, operation, stream, placement, standing.hashes.get(stream))
      if (refusal !== undefined) {
        for (const revoke of revocations.toReversed()) revoke()
        return Either.left(refusal)
      }
      revocations.push(take(stream, operation, standing.hashes))
      fresh.push(i)
    }
    if (lastKnown !== undefined) known.push({ ...streamOf(strand), index: lastKnown })
    entries.push(...entriesOf(draft, fresh))
  }
  return Either.right({ entries, known, ...counts })
}

/** Moves a stream on, and returns what takes that back. */
const take = (stream: StreamProgress, operation: Operation, hashes: Standing["hashes"]): () => void => {
  const hash = hashes.get(stream)
  const revoke = stream.advanceRevocably(operation)
  hashes.set(stream, operation.hash)
  return () => {
    revoke()
    if (hash === undefined) hashes.delete(stream)
    else hashes.set(stream, hash)
  }
}

const streamOf = ({ branch, documentId, scope }: Stream): Stream => ({ documentId, scope, branch })

const refusalOf = (
  strand: Unplaced,
  operation: Operation,
  stream: StreamProgress,
  placement: "next" | "gap" | "rewritten",
  hashBefore: string | undefined
): Refusal | undefined => {
  const who = subject(strand, operation)
  if (placement === "gap") return new StrandGap({ ...who, expected: stream.head + 1 })
  if (placement === "rewritten") return new HistoryRewritten({ ...who, head: stream.head })
  const named = operation.prevOpHash
  return isChained(operation) && operation.index === stream.head + 1 && named !== undefined &&
      hashBefore !== undefined && hashBefore !== "" && hashBefore !== named
    ? new ChainBroken({ ...who, named, found: hashBefore })
    : undefined
}

/**
 * Whether an operation stands where its author meant it to, and says behind what. Some operations have no hash, and nothing
 * can be said about what follows them.
 */
const isChained = ({ index, prevOpHash, prevOpIndex, skip }: Operation): boolean =>
  index > 0 && skip === 0 && prevOpIndex === index - 1 && prevOpHash !== undefined && prevOpHash !== ""

/** The streams of which the last hash is asked for: those with an operation that names it. */
export const chained = ({ drafts }: Prepared): ReadonlyArray<Stream> =>
  drafts.flatMap(({ strand }) => strand.operations.some(isChained) ? [streamOf(strand)] : [])

/** The new operations of a draft, in pieces of bounded size. */
const entriesOf = ({ strand, texts }: Draft, fresh: ReadonlyArray<number>): ReadonlyArray<Entry> => {
  const entries: Array<Entry> = []
  let piece: Array<number> = []
  let bytes = 0
  const close = () => {
    entries.push({
      driveId: strand.driveId,
      documentId: strand.documentId,
      documentType: strand.documentType,
      scope: strand.scope,
      branch: strand.branch,
      operationCount: piece.length,
      texts: piece.map((i) => texts[i]!),
      firstIndex: strand.operations[piece[0]!]!.index,
      lastHash: strand.operations[piece.at(-1)!]!.hash,
      protocol: strand.protocol ?? 2,
      bytes
    })
    piece = []
    bytes = 0
  }
  for (const i of fresh) {
    if (piece.length === entryOperationsMax || (piece.length > 0 && bytes + texts[i]!.length > entryBytesMax)) close()
    piece.push(i)
    bytes += texts[i]!.length
  }
  if (piece.length > 0) close()
  return entries
}
