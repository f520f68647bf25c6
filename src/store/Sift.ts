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
import * as Outline from "./Outline.js"
import type { Progress, StreamProgress } from "./Progress.js"
import { unknownHistory } from "./Rewrite.js"
import type { Rewrite } from "./Rewrite.js"
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
  /** Whether it is left out with all that it takes back, since that cannot be carried out. */
  readonly isBare?: boolean
}

/** What the database says of the documents of a segment. */
export interface Standing {
  readonly progress: Progress
  /** The queues of documents with letters, for operations that come from the source. */
  readonly queues: Map<string, Letters.Queue>
  /** The first blocking letter by document, for operations that come from letters. */
  readonly blocking: ReadonlyMap<string, bigint>
  /** What is told of each operation that is taken, where the processor copes with rewritten history. */
  readonly rewrite: Rewrite | undefined
}

export const sift = (
  segment: Segment,
  standing: Standing,
  policy: Policy.Table,
  sentence: Sentence | undefined
): Sifted => {
  const sieve: Sieve = { segment, standing, policy, sentence, stopped: new Set(), ways: noWays() }
  const whole = continued(sieve)
  if (whole === "all") return { ...sieve.ways, strands: segment.strands }
  const strands: Array<Strand> = []
  for (const strand of segment.strands) {
    const stream = standing.progress.of(strand)
    const { operations } = strand
    // Most strands stay whole, and thousands of processors may be given the same ones: nothing is made for those.
    let first = whole.has(stream) ? operations.length : 0
    while (first < operations.length && isKept(sieve, strand, stream, operations[first]!)) first++
    if (first === operations.length) {
      strands.push(strand)
      continue
    }
    const kept = operations.slice(0, first)
    for (let i = first + 1; i < operations.length; i++) {
      if (isKept(sieve, strand, stream, operations[i]!)) kept.push(operations[i]!)
    }
    if (kept.length > 0) strands.push({ ...strand, operations: kept })
  }
  return { ...sieve.ways, strands }
}

/**
 * The streams of documents of whose operations nothing can be said but that each comes next, which is then so; where one is
 * set aside, those of the document's other streams wait behind it. Thousands of processors may be given the same operations:
 * what those are to each other is asked once.
 */
const continued = ({ segment, sentence, standing, ways }: Sieve): "all" | ReadonlySet<StreamProgress> => {
  const whole = new Set<StreamProgress>()
  const isAsked = segment.letters.size > 0 || standing.queues.size > 0 || standing.rewrite !== undefined ||
    sentence !== undefined
  if (isAsked) return whole
  const outline = Outline.of(segment.strands)
  const others = new Set<string>()
  for (const stretch of outline) {
    const chain = stretch.chain()
    if (chain === undefined || !standing.progress.of(stretch).isContinuedBy(chain)) others.add(stretch.documentId)
  }
  for (const stretch of outline) {
    const chain = stretch.chain()
    if (chain === undefined || others.has(stretch.documentId)) continue
    const stream = standing.progress.of(stretch)
    stream.extend(chain)
    ways.operations += stretch.operations.length
    whole.add(stream)
  }
  return others.size === 0 ? "all" : whole
}

/** Sends one operation its way, unless the segment halts before it; true when that is to the handler. */
const isKept = (sieve: Sieve, strand: Strand, stream: StreamProgress, operation: Operation): boolean => {
  const { segment, ways } = sieve
  if (ways.halted !== undefined) return false
  const isFor = isForHandler(sieve, { strand, stream, operation, ordinal: segment.letters.get(operation) })
  if (isFor) ways.operations++
  return isFor
}

interface Sieve {
  readonly segment: Segment
  readonly standing: Standing
  readonly policy: Policy.Table
  readonly sentence: Sentence | undefined
  /** Documents whose letters are not tried any further in this segment, since one of them stays. */
  readonly stopped: Set<string>
  readonly ways: Ways
}

/** What becomes {@link Sifted}, as it fills. */
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
  halted: Sifted["halted"]
}

const noWays = (): Ways => ({
  operations: 0,
  drafts: [],
  done: [],
  redelivered: 0,
  superseded: 0,
  parked: [],
  skipped: [],
  failedAgain: [],
  stirred: new Set(),
  halted: undefined
})

/** One operation on its way. */
interface Item {
  readonly strand: Strand
  readonly stream: StreamProgress
  readonly operation: Operation
  /** Set when it comes from a letter. */
  readonly ordinal: bigint | undefined
}

/** Sends one operation its way; true when that is to the handler. */
const isForHandler = (sieve: Sieve, item: Item): boolean => {
  const { operation, ordinal, strand, stream } = item
  const { standing, ways } = sieve
  if (ordinal !== undefined && mustStay(sieve, strand, ordinal)) return false
  const placement = stream.place(operation)
  if (placement === "redelivered" || placement === "superseded") {
    ways[placement]++
    if (ordinal !== undefined) ways.done.push(ordinal)
    return false
  }
  const queue = standing.queues.get(strand.documentId)
  if (queue !== undefined) {
    if (queue.holds(strand, operation)) {
      ways.redelivered++
      return false
    }
    if (queue.isBlocked || placement !== "next" || !queue.hasGapIn(stream)) {
      const gap = gapBehind(strand, operation, queue.lastOf(stream))
      if (gap === undefined) setAside(sieve, item, waits)
      else if (Policy.judge(sieve.policy, gap)._tag === "Halt") ways.halted = { operation, failure: gap }
      else setAside(sieve, item, Letters.causeOf(gap))
      return false
    }
  }
  if (ordinal !== undefined && placement === "gap") {
    sieve.stopped.add(strand.documentId)
    return false
  }
  if (sieve.sentence !== undefined) {
    carryOut(sieve, item, sieve.sentence)
    return false
  }
  const failure = lastingFailure(item, placement) ?? (standing.rewrite && unknownHistory(item))
  if (failure !== undefined) {
    const verdict = Policy.judge(sieve.policy, failure)
    if (verdict._tag === "Halt") ways.halted = { operation, failure }
    else carryOut(sieve, item, { verdict, failure })
    return false
  }
  const lost = standing.rewrite?.take(item, true)
  if (lost !== undefined) {
    ways.halted = { operation, failure: lost }
    return false
  }
  stream.advance(operation)
  if (ordinal !== undefined) ways.done.push(ordinal)
  if (queue !== undefined) ways.stirred.add(strand.documentId)
  return true
}

/** Whether a letter waits behind one that stays. */
const mustStay = ({ segment, standing, stopped }: Sieve, { documentId }: Strand, ordinal: bigint): boolean => {
  const first = standing.blocking.get(documentId)
  return stopped.has(documentId) || (first !== undefined && first < ordinal && !holds(segment, first))
}

/** Leaves the operation out, or sets it aside; a letter that fails again stays, and those behind it. */
const carryOut = (sieve: Sieve, item: Item, { failure, verdict }: Sentence): void => {
  const { operation, ordinal, strand, stream } = item
  const { ways } = sieve
  const setback = { subject: subject(strand, operation), failure }
  if (verdict._tag === "Skip") {
    ways.skipped.push(setback)
    if (stream.place(operation) !== "rewritten") sieve.standing.rewrite?.take(item, false)
    stream.leaveOut(operation)
    if (ordinal !== undefined) ways.done.push(ordinal)
    return
  }
  ways.parked.push(setback)
  if (ordinal === undefined) {
    setAside(sieve, item, Letters.causeOf(failure))
  } else {
    ways.failedAgain.push({ ordinal, failure })
    sieve.stopped.add(strand.documentId)
  }
}

/** What an operation waits for behind the letters of its document, and nothing else. */
const waits = { cause: Letters.queued, reason: "waits for earlier operations of its document" }

/** Set when an operation behind letters waits for operations of its own stream as well, which has come to `last`. */
const gapBehind = (strand: Strand, operation: Operation, last: number | undefined): StrandGap | undefined =>
  last !== undefined && operation.index - operation.skip > last + 1
    ? new StrandGap({ ...subject(strand, operation), expected: last + 1 })
    : undefined

const setAside = (
  { standing: { queues }, ways }: Sieve,
  { operation, strand }: Item,
  cause: Pick<Letters.Draft, "cause" | "reason">
): void => {
  ways.drafts.push({ strand, operation, ...cause })
  const queue = queues.get(strand.documentId) ?? new Letters.Queue()
  queue.add(strand, cause.cause, operation.index - operation.skip, operation.index)
  queue.remember(strand, operation)
  queues.set(strand.documentId, queue)
}

const lastingFailure = (
  { operation, strand, stream }: Item,
  placement: "next" | "gap" | "rewritten"
): Policy.Lasting | undefined => {
  const who = subject(strand, operation)
  if (placement === "gap") return new StrandGap({ ...who, expected: stream.head + 1 })
  if (placement === "rewritten") return new HistoryRewritten({ ...who, head: stream.head })
  return operation.flaw === undefined ? undefined : new MalformedOperation({ ...who, reason: operation.flaw })
}
