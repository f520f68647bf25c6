/**
 * A segment: a stretch of a batch that is tried as one commit.
 *
 *     batch ═ segment ──fails──▶ segment · segment ──▶ … ──▶ one operation, and a verdict for it
 *
 * Invariant: the segments of a batch, one after another, hold its operations once each and in order; a segment's
 * `position` is the last strand's that the operations up to its end hold whole, so a cursor never passes an operation that
 * is still to be tried.
 */

import type { Operation } from "../domain/Operation.js"
import type { Position } from "../domain/Position.js"
import * as Slice from "../domain/Slice.js"
import type { Strand } from "../domain/Strand.js"
import type { Batch } from "../ingest/Batch.js"
import type { Subject } from "../process/Failure.js"
import type { Letter } from "./Letters.js"
import * as Ranges from "./Ranges.js"

export interface Segment {
  readonly strands: ReadonlyArray<Strand>
  readonly operations: number
  /** Where the cursor stands before and after; the same for letters. */
  readonly from: Position
  readonly position: Position
  /** The letters that the operations were taken from; empty for operations that come from the source. */
  readonly letters: ReadonlyMap<Operation, bigint>
}

/** Whether the segment holds the letter with this ordinal. */
export const holds = (segment: Segment, ordinal: bigint): boolean =>
  segment.strands.some((strand) => strand.operations.some((operation) => segment.letters.get(operation) === ordinal))

/**
 * Whether the operation, this very object, is in the segment once. A source may supply one object in several strands, and
 * then it does not tell which of them is meant.
 */
export const holdsOnce = (segment: Segment, operation: Operation | undefined): boolean => {
  let times = 0
  for (const strand of segment.strands) for (const each of strand.operations) if (each === operation) times++
  return times === 1
}

/** The operation that a failure names. */
export const find = (segment: Segment, at: Subject): Operation | undefined => {
  for (const strand of segment.strands) {
    if (strand.documentId !== at.documentId || strand.scope !== at.scope || strand.branch !== at.branch) continue
    const found = strand.operations.find(({ index, skip }) => index === at.index && skip === at.skip)
    if (found !== undefined) return found
  }
  return undefined
}

const none: ReadonlyMap<Operation, bigint> = new Map()

/** A batch as it came, after a cursor at `from`. */
export const fromBatch = (batch: Batch, from: Position): Segment => ({
  strands: batch.strands,
  operations: batch.operations,
  from,
  position: batch.position,
  letters: none
})

/** Letters to be tried again, in the order given, beside a cursor that stays at `position`. */
export const fromLetters = (letters: ReadonlyArray<Letter>, position: Position): Segment => ({
  strands: letters.map((letter) => letter.strand),
  operations: letters.length,
  from: position,
  position,
  letters: new Map(letters.map((letter) => [letter.operation, letter.ordinal]))
})

export const isFromLetters = (segment: Segment): boolean => segment.letters.size > 0

/** Where a cursor stands, and what it repeats. */
type Repeating = Pick<Ranges.Standing, "position" | "handled">

/** Whether its operations were handled before a rebuild in place began, which has not come so far yet. */
export const isReplayed = (segment: Segment, cursor: Repeating): boolean =>
  cursor.handled.length > 0 && segment.strands.every((strand) => wasHandled(cursor, strand))

const wasHandled = (cursor: Repeating, { documentId, position }: Strand): boolean =>
  Ranges.wasHandled(cursor, Slice.of(documentId), position)

/** Cut where a replay ends, for each slice by itself, so that no segment has operations of both kinds. */
export const cutByHandled = (segment: Segment, cursor: Repeating): ReadonlyArray<Segment> => {
  if (cursor.handled.length === 0 || segment.operations === 0) return [segment]
  const done: Array<Segment> = []
  for (let rest = segment;;) {
    const isRepeated = wasHandled(cursor, rest.strands[0]!)
    let alike = 0
    for (const strand of rest.strands) {
      if (wasHandled(cursor, strand) !== isRepeated) break
      alike += strand.operations.length
    }
    if (alike === rest.operations) return [...done, rest]
    const [before, after] = split(rest, alike)
    done.push(before)
    rest = after
  }
}

/** Cuts after the first `at` operations; `at` is between 1 and one less than there are. No strand is without operations. */
export const split = (segment: Segment, at: number): readonly [Segment, Segment] => {
  const before: Array<Strand> = []
  const after: Array<Strand> = []
  let left = at
  let whole = segment.from
  for (const strand of segment.strands) {
    const taken = Math.min(left, strand.operations.length)
    left -= taken
    if (taken === strand.operations.length) {
      before.push(strand)
      whole = strand.position
    } else if (taken === 0) {
      after.push(strand)
    } else {
      before.push({ ...strand, operations: strand.operations.slice(0, taken) })
      after.push({ ...strand, operations: strand.operations.slice(taken) })
    }
  }
  const position = isFromLetters(segment) ? segment.position : noFurther(segment, whole)
  return [
    { ...segment, strands: before, operations: at, position },
    { ...segment, strands: after, operations: segment.operations - at, from: position }
  ]
}

/** The operation, which the segment holds once, by itself, and what lies before and after it: one segment each, or none. */
export const around = (segment: Segment, operation: Operation): {
  readonly before: ReadonlyArray<Segment>
  readonly itself: Segment
  readonly after: ReadonlyArray<Segment>
} => {
  const at = segment.strands.flatMap((strand) => strand.operations).indexOf(operation)
  const [before, from] = at > 0 ? split(segment, at) : [undefined, segment]
  const [itself, after] = from.operations > 1 ? split(from, 1) : [from, undefined]
  return {
    before: before === undefined ? [] : [before],
    itself,
    after: after === undefined ? [] : [after]
  }
}

/** Two halves of a segment of at least two operations. */
export const halves = (segment: Segment): ReadonlyArray<Segment> => split(segment, segment.operations >> 1)

/**
 * The last strand of a batch may be a piece of a longer one whose remainder comes with the next batch; then the batch's own
 * position stays before it. No part of the batch may go further than the batch itself.
 */
const noFurther = (segment: Segment, position: Position): Position =>
  position > segment.position ? segment.position : position
