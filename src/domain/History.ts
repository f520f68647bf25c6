/**
 * A history: which operations of one stream (document, scope, branch) survive those after them, told one at a time.
 *
 *     a skip          0   1   2   3↶2               3 takes back 2 and 1                left: 0 3
 *     an undo         0   1   2   N3↶1              the mark N3 takes back 2            left: 0 1
 *       protocol 1    0   1   2   N3↶1  N3↶2        again: a longer skip, same index    left: 0
 *       protocol 2    0   1   2   N3↶1  N4↶1        again: a chain, k marks undo k      left: 0
 *     a reshuffle     A0  A1  A2  B3↶2  A1'4  A2'5  A1 and A2 come again after B3       left: A0 B3 A1' A2'
 *     a mark undone   0   1   2   N3↶1  4↶1         4 takes back N3: with protocol 1    left: 0 1 4
 *                                                   with protocol 2, 2 is brought back  left: 0 1 2 4
 *
 * An undo is recorded as a mark: a `NOOP` with a skip. A redo is recorded as a new operation and restores nothing. An
 * operation that its document refused (`error`) keeps its place, and its skip takes nothing back.
 *
 * - Protocol 1: an operation with skip n takes back what survives of the n indexes before its own, for good. What was
 *   undone before it was delivered is missing from the indexes, and nothing is taken back in its place.
 * - Protocol 2: a mark takes back the last survivor, whatever its skip says. Any other operation with skip n removes the
 *   n indexes before its own, marks included; then every mark that remains, from the last to the first, removes as many
 *   indexes before it as its skip says; then those survive that the remaining marks do not undo, each the last before
 *   it. So what a removed mark had undone comes back, and a mark that stays counts twice: that is how the real system
 *   rebuilds a document's state.
 *
 * Invariants: indexes only grow, except that protocol 1 gives a longer undo the index of the shorter one. Every
 * operation of the stream must be taken, also those that a processor leaves out, for a mark counts them.
 */

import * as Data from "effect/Data"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { indexMax, skipMax } from "./Operation.js"
import type { Operation } from "./Operation.js"

/**
 * The rule a document is written by, which its operations do not repeat: 1 for what document-drive delivers (strands),
 * and for the reactor what CREATE_DOCUMENT says, nearly always 2.
 */
export const Protocol = Schema.Literal(1, 2)
export type Protocol = typeof Protocol.Type

/** What of an operation the rule looks at. */
export type Trace = Pick<Operation, "index" | "skip" | "type" | "error">

/** What one operation changes about those before it. Both lists are empty for most. */
export interface Step {
  /** The indexes that no longer survive, highest first. */
  readonly takenBack: ReadonlyArray<number>
  /**
   * The indexes that survive again, lowest first: only where protocol 2 takes a mark back. Survivors between them
   * stay, so whose writes depend on order must apply everything after the lowest one again.
   */
  readonly broughtBack: ReadonlyArray<number>
}

/** How many unbroken runs of indexes one history may consist of. A run ends where an undo or a skip left a trace. */
export const runsMax = 65_536

/** The length of {@link History.encode}'s text at most, in characters: 19 for each run at most, 3 for most. */
export const textMax = 32 + 19 * runsMax

/** A stream was broken up by more undos than are kept track of: it can only be projected anew. */
export class HistoryTooBroken extends Data.TaggedError("HistoryTooBroken")<{
  /** The operation that one run too many began at. */
  readonly index: number
}> {
  override get message(): string {
    return `the history of this stream breaks into more than ${runsMax} runs at index ${this.index}`
  }
}

/**
 * Consecutive indexes, from and to included. `skip` is 0 for operations, and for marks what each of them says.
 */
interface Run {
  readonly from: number
  to: number
  readonly skip: number
}

/** One stream's history. `take` changes it in place; one that has refused an operation is to be thrown away. */
export class History {
  private constructor(
    readonly protocol: Protocol,
    private head: number,
    private headSkip: number,
    /** What later operations may still change: with protocol 1 the survivors, else marks and the undone too. */
    private kept: Array<Run>,
    private standing: Array<Run>
  ) {}

  /** Before the first operation. */
  static make(protocol: Protocol): History {
    return new History(protocol, -1, 0, [], [])
  }

  /** Whether the operation goes on from the last one; any other was superseded or comes again, and changes nothing. */
  isNext({ index, skip }: Pick<Trace, "index" | "skip">): boolean {
    return index > this.head || (this.protocol === 1 && index === this.head && skip > this.headSkip)
  }

  /** Takes in the stream's next operation and says what that changes about those before it. */
  take(operation: Trace): Either.Either<Step, HistoryTooBroken> {
    if (!this.isNext(operation)) return Either.right(nothing)
    const { error, index } = operation
    const skip = error === undefined ? operation.skip : 0
    const mark = isMark(operation)
    this.head = index
    this.headSkip = operation.skip
    const step = this.protocol === 1
      ? taken(cut(this.standing, index - skip))
      : mark
      ? taken(cutLast(this.standing))
      : skip > 0
      ? this.rebuild(index - skip)
      : nothing
    if (!mark) append(this.standing, index, 0)
    if (this.protocol === 1) this.kept = this.standing
    else append(this.kept, index, mark ? skip : 0)
    return this.kept.length > runsMax ? Either.left(new HistoryTooBroken({ index })) : Either.right(step)
  }

  /** Whether the index survives. */
  survives(index: number): boolean {
    let low = 0
    let high = this.standing.length - 1
    while (low <= high) {
      const middle = (low + high) >> 1
      const { from, to } = this.standing[middle]!
      if (index < from) high = middle - 1
      else if (index > to) low = middle + 1
      else return true
    }
    return false
  }

  /** The indexes that survive, lowest first. */
  survivors(): ReadonlyArray<number> {
    return indexesOf(this.standing)
  }

  /**
   * This history as text for a row, such as `2:8.1:+7~2`: the protocol; the last index and its skip; then, from index
   * 0 on, how many operations (`+`), marks (`~`, with `*` and what each skips) or missing indexes (`.`) follow each
   * other, in base 36. Of a number that is 1 only the sign is written.
   */
  encode(): string {
    let runs = ""
    let next = 0
    for (const { from, skip, to } of this.kept) {
      if (from > next) runs += written(".", from - next)
      runs += written(skip === 0 ? "+" : "~", to - from + 1)
      if (skip > 1) runs += written("*", skip)
      next = to + 1
    }
    return `${this.protocol}:${this.head}.${this.headSkip}:${runs}`
  }

  /** Reads what {@link encode} wrote; nothing where the text is no history. */
  static decode(text: string): Option.Option<History> {
    if (text.length > textMax) return Option.none()
    const [, protocol, head, headSkip, runs] = textPattern.exec(text) ?? []
    if (protocol === undefined || runs === undefined) return Option.none()
    const kept: Array<Run> = []
    let next = 0
    let legible = 0
    for (const [run, sign, digits = "", skip = ""] of runs.matchAll(runPattern)) {
      legible += run.length
      const from = next
      next += read(digits)
      if (sign !== ".") kept.push({ from, to: next - 1, skip: sign === "+" ? 0 : read(skip) })
    }
    const isSound = legible === runs.length && kept.length <= runsMax && next - 1 <= Number(head) &&
      Number(head) <= indexMax &&
      kept.every(({ skip }) => skip <= skipMax && (skip === 0 || protocol === "2"))
    if (!isSound) return Option.none()
    return Option.some(
      protocol === "1"
        ? new History(1, Number(head), Number(headSkip), kept, kept)
        : new History(2, Number(head), Number(headSkip), kept, standingIn(kept))
    )
  }

  /** What protocol 2 does at an operation with a skip that is no mark. */
  private rebuild(floor: number): Step {
    const before = this.standing
    cut(this.kept, floor)
    this.kept = settled(this.kept)
    this.standing = standingIn(this.kept)
    return {
      takenBack: indexesOf(without(before, this.standing)).toReversed(),
      broughtBack: indexesOf(without(this.standing, before))
    }
  }
}

/**
 * The operations of one stream that survive, in index order: what a document's rows are to be projected from. They may
 * come in any order, with gaps, and more than once.
 */
export const surviving = <A extends Trace>(
  operations: Iterable<A>,
  protocol: Protocol
): Either.Either<ReadonlyArray<A>, HistoryTooBroken> => {
  const history = History.make(protocol)
  const latest = new Map<number, A>()
  for (const operation of Array.from(operations).sort((a, b) => a.index - b.index || a.skip - b.skip)) {
    if (!history.isNext(operation)) continue
    const step = history.take(operation)
    if (Either.isLeft(step)) return Either.left(step.left)
    latest.set(operation.index, operation)
  }
  return Either.right(history.survivors().map((index) => latest.get(index)!))
}

/**
 * The protocol that a document's first operation names, CREATE_DOCUMENT in its scope `document`; nothing for any other
 * operation. A creation that names none is of the time before there were two.
 */
export const protocolOf = ({ input, type }: Pick<Operation, "type" | "input">): Protocol | undefined => {
  if (type !== "CREATE_DOCUMENT") return undefined
  const version = Option.getOrUndefined(readProtocol(input))
  return version === undefined || version < 2 ? 1 : 2
}

/** Whether an operation only undoes others, and nothing itself. */
export const isMark = ({ error, skip, type }: Pick<Trace, "skip" | "type" | "error">): boolean =>
  type === "NOOP" && skip > 0 && error === undefined

const readProtocol = (input: unknown): Option.Option<number> =>
  Option.map(
    Schema.decodeUnknownOption(Creation)(input),
    ({ protocolVersions }) => protocolVersions["base-reducer"]
  )

const Creation = Schema.Struct({ protocolVersions: Schema.Struct({ "base-reducer": Schema.Number }) })

const nothing: Step = { takenBack: [], broughtBack: [] }

const taken = (takenBack: ReadonlyArray<number>): Step =>
  takenBack.length === 0 ? nothing : { takenBack, broughtBack: [] }

/** Adds one index at the end, to the last run where it continues that. */
const append = (runs: Array<Run>, index: number, skip: number): void => {
  const last = runs[runs.length - 1]
  if (last !== undefined && last.to + 1 === index && last.skip === skip) last.to = index
  else runs.push({ from: index, to: index, skip })
}

/** Removes what is not below `floor`, and returns those indexes, highest first. */
const cut = (runs: Array<Run>, floor: number): ReadonlyArray<number> => {
  const removed: Array<number> = []
  for (let last = runs[runs.length - 1]; last !== undefined && last.to >= floor; last = runs[runs.length - 1]) {
    const from = Math.max(last.from, floor)
    for (let index = last.to; index >= from; index--) removed.push(index)
    last.to = from - 1
    if (last.to < last.from) runs.pop()
  }
  return removed
}

const cutLast = (runs: Array<Run>): ReadonlyArray<number> => {
  const last = runs[runs.length - 1]
  return last === undefined ? [] : cut(runs, last.to)
}

/** Lets each mark, from the end, remove as many indexes before it as its skip says. */
const settled = (kept: ReadonlyArray<Run>): Array<Run> => {
  const reversed: Array<Run> = []
  let top = Infinity
  for (let i = kept.length - 1; i >= 0; i--) {
    const { from, skip, to } = kept[i]!
    if (skip === 0) {
      if (from <= top) {
        reversed.push({ from, to: Math.min(to, top), skip })
        top = from - 1
      }
      continue
    }
    for (let index = Math.min(to, top); index >= from; index = top) {
      reversed.push({ from: index, to: index, skip })
      top = index - skip - 1
    }
  }
  return reversed.toReversed()
}

/** What the marks do not undo, each of them the last one before it that stands. */
const standingIn = (kept: ReadonlyArray<Run>): Array<Run> => {
  const reversed: Array<Run> = []
  let undone = 0
  for (let i = kept.length - 1; i >= 0; i--) {
    const { from, skip, to } = kept[i]!
    const length = to - from + 1
    if (skip > 0) {
      undone += length
      continue
    }
    if (undone < length) reversed.push({ from, to: to - undone, skip })
    undone = Math.max(0, undone - length)
  }
  return reversed.toReversed()
}

/** The runs of `runs` with the indexes of `others` left out. */
const without = (runs: ReadonlyArray<Run>, others: ReadonlyArray<Run>): ReadonlyArray<Run> => {
  const left: Array<Run> = []
  let i = 0
  for (const { from, skip, to } of runs) {
    let next = from
    while (i < others.length && others[i]!.to < from) i++
    for (; i < others.length && others[i]!.from <= to; i++) {
      const other = others[i]!
      if (other.from > next) left.push({ from: next, to: other.from - 1, skip })
      next = other.to + 1
      if (other.to > to) break
    }
    if (next <= to) left.push({ from: next, to, skip })
  }
  return left
}

const indexesOf = (runs: ReadonlyArray<Run>): Array<number> =>
  runs.flatMap(({ from, to }) => Array.from({ length: to - from + 1 }, (_, i) => from + i))

const runPattern = /([+~.])((?!0)[0-9a-z]{0,6})(?:(?<=~\w*)\*((?!0)[0-9a-z]{1,4}))?/g
const textPattern = /^([12]):(-1|\d{1,10})\.(\d{1,7}):([^:]*)$/

const written = (sign: string, value: number): string => value === 1 ? sign : sign + value.toString(36)
const read = (digits: string): number => digits === "" ? 1 : parseInt(digits, 36)
