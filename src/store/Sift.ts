/**
 * A sift: what becomes of each operation of a segment before any handler sees it.
 *
 *     operation ─┬─ redelivered, superseded ──────────────▶ dropped, counted
 *                ├─ its document has letters ─────────────▶ letter (Queued), unless it fills their gap
 *                ├─ a gap before it, history rewritten,
 *                │  malformed: as the policy judges ──────▶ letter · left out · halt
 *                └─ otherwise ────────────────────────────▶ handler
 *
 * Invariant: every operation goes exactly one way, and the streams' progress moves past exactly those that are applied or
 * left out.
 */
import type { Operation } from "../domain/Operation.js"
import type { Strand } from "../domain/Strand.js"
import { HistoryRewritten, MalformedOperation, StrandGap, subject } from "../process/Failure.js"
import type { Subject } from "../process/Failure.js"
import * as Policy from "../process/Policy.js"
import * as Letters from "./Letters.js"
import type { Progress, StreamProgress } from "./Progress.js"
import { holds } from "./Segment.js"
import type { Segment } from "./Segment.js"

/** An operation that a policy took out of the stream. */
export interface Setback {
  readonly subject: Subject
  readonly failure: unknown
}

export interface Sifted {
  /** What the handler is given; strands that lost all their operations are gone. */
  readonly strands: ReadonlyArray<Strand>
  readonly operations: number
  /** Operations to be set aside, in order. */
  readonly drafts: ReadonlyArray<Letters.Draft>
  /** Letters whose operations are applied, left out or superseded now. */
  readonly done: ReadonlyArray<bigint>
  readonly redelivered: number
  readonly superseded: number
  readonly parked: ReadonlyArray<Setback>
  readonly skipped: ReadonlyArray<Setback>
  /** Letters that were tried and failed again, with what they failed with. */
  readonly failedAgain: ReadonlyArray<{ readonly ordinal: bigint; readonly failure: unknown }>
  /** Documents whose gap moved: their letters may be free to leave. */
  readonly stirred: ReadonlySet<string>
  /** An operation that the policy halts at; nothing of the segment may be committed. */
  readonly halted: { readonly operation: Operation; readonly failure: Policy.Lasting } | undefined
}

/** A decision about the one operation of a segment that has failed. */
export interface Sentence {
  readonly verdict: Policy.Skip | Policy.Park
  readonly failure: unknown
}

interface Ways {
  operations: number
  readonly drafts: Array<Letters.Draft>
  readonly done: Array<bigint>
  redelivered: number
  superseded: number
  readonly parked: Array<Setback>
  readonly skipped: Array<Setback>
  readonly failedAgain: Array<{ readonly ordinal: bigint; readonly failure: unknown }>
  readonly stirred: Set<string>
  /** Documents whose letters are not tried any further in this segment, since one of them stays. */
  readonly stopped: Set<string>
  halted: Sifted["halted"]
}

/** What the database says of the documents of a segment. */
export interface Standing {
  readonly progress: Progress
  /** The queues of documents with letters, for operations that come from the source. */
  readonly queues: Map<string, Letters.Queue>
  /** The first blocking letter by document, for operations that come from letters. */
  readonly blocking: ReadonlyMap<string, bigint>
}

export const sift = (
  segment: Segment,
  standing: Standing,
  policy: Policy.Table,
  sentence: Sentence | undefined
): Sifted => {
  const ways: Ways = {
    operations: 0,
    drafts: [],
    done: [],
    redelivered: 0,
    superseded: 0,
    parked: [],
    skipped: [],
    failedAgain: [],
    stirred: new Set(),
    stopped: new Set(),
    halted: undefined
  }
  const strands: Array<Strand> = []
  for (const strand of segment.strands) {
    const stream = standing.progress.of(strand)
    const kept = strand.operations.filter((operation) =>
      ways.halted === undefined && isForHandler(segment, strand, operation, stream, standing, policy, sentence, ways)
    )
    ways.operations += kept.length
    if (kept.length === strand.operations.length) strands.push(strand)
    else if (kept.length > 0) strands.push({ ...strand, operations: kept })
  }
  return { ...ways, strands }
}

/** Sends one operation its way; true when that is to the handler. */
const isForHandler = (
  segment: Segment,
  strand: Strand,
  operation: Operation,
  stream: StreamProgress,
  { blocking, queues }: Standing,
  policy: Policy.Table,
  sentence: Sentence | undefined,
  ways: Ways
): boolean => {
  const ordinal = segment.letters.get(operation)
  if (ordinal !== undefined) {
    const first = blocking.get(strand.documentId)
    const isBehind = first !== undefined && first < ordinal && !holds(segment, first)
    if (isBehind || ways.stopped.has(strand.documentId)) return false
  }
  const placement = stream.place(operation)
  if (placement === "redelivered" || placement === "superseded") {
    ways[placement]++
    if (ordinal !== undefined) ways.done.push(ordinal)
    return false
  }
  const queue = queues.get(strand.documentId)
  if (queue !== undefined && queue.holds(strand, operation)) {
    ways.redelivered++
    return false
  }
  const fillsGap = queue !== undefined && !queue.isBlocked && placement === "next" && queue.hasGapIn(strand)
  if (queue !== undefined && !fillsGap) {
    setAside(
      strand,
      operation,
      { cause: Letters.queued, reason: "waits for earlier operations of its document" },
      queues,
      ways
    )
    return false
  }
  if (ordinal !== undefined && placement === "gap") {
    ways.stopped.add(strand.documentId)
    return false
  }
  const failure = sentence?.failure ?? lastingFailure(strand, operation, stream, placement)
  if (failure !== undefined) {
    const verdict = sentence?.verdict ?? Policy.judge(policy, failure as Policy.Lasting)
    if (verdict._tag === "Halt") {
      ways.halted = { operation, failure: failure as Policy.Lasting }
      return false
    }
    const setback = { subject: subject(strand, operation), failure }
    if (verdict._tag === "Skip") {
      ways.skipped.push(setback)
      stream.advance(operation)
      if (ordinal !== undefined) ways.done.push(ordinal)
    } else {
      ways.parked.push(setback)
      if (ordinal === undefined) {
        setAside(strand, operation, Letters.causeOf(failure), queues, ways)
      } else {
        ways.failedAgain.push({ ordinal, failure })
        ways.stopped.add(strand.documentId)
      }
    }
    return false
  }
  stream.advance(operation)
  if (ordinal !== undefined) ways.done.push(ordinal)
  if (queue !== undefined) ways.stirred.add(strand.documentId)
  return true
}

const setAside = (
  strand: Strand,
  operation: Operation,
  cause: Pick<Letters.Draft, "cause" | "reason">,
  queues: Map<string, Letters.Queue>,
  ways: Ways
): void => {
  ways.drafts.push({ strand, operation, ...cause })
  const queue = queues.get(strand.documentId) ?? new Letters.Queue()
  queue.add(strand, cause.cause)
  queue.remember(strand, operation)
  queues.set(strand.documentId, queue)
}

const lastingFailure = (
  strand: Strand,
  operation: Operation,
  stream: StreamProgress,
  placement: "next" | "gap" | "rewritten"
): Policy.Lasting | undefined => {
  const who = subject(strand, operation)
  if (placement === "gap") return new StrandGap({ ...who, expected: stream.head + 1 })
  if (placement === "rewritten") return new HistoryRewritten({ ...who, head: stream.head })
  return operation.flaw === undefined ? undefined : new MalformedOperation({ ...who, reason: operation.flaw })
}
