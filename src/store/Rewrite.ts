/**
 * A rewrite: what the operations of a segment take back, and what the handler is called with because of it.
 *
 *     sift ─▶ take, take, … ─▶ the history of each stream
 *                  └─▶ plan     append   operations · retraction · operations · …
 *                               replay   for each document that lost, or got back, what was handled before:
 *                                          rows removed, what survives of before, again
 *                                        then the operations that survive their own segment
 *
 * What has to be given again is read from the source, which cannot be done in the segment's transaction: there SQLite's
 * one connection is taken. So a plan that lacks documents fails with {@link Needed}, before any handler was called, and is
 * made again once they were read.
 *
 * Invariant: what is given again is exactly what was applied and survives, told by the progress of its stream; were any of
 * it not in the source any more, the plan fails.
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { History, isMark, protocolOf } from "../domain/History.js"
import type { HistoryTooBroken } from "../domain/History.js"
import type { Operation } from "../domain/Operation.js"
import type { Retraction, Told } from "../domain/Retraction.js"
import { Scope } from "../domain/Strand.js"
import type { DocumentId, Strand } from "../domain/Strand.js"
import { HistoryLost, subject } from "../process/Failure.js"
import type { Key } from "./Cursors.js"
import * as Progress from "./Progress.js"
import type { StreamProgress } from "./Progress.js"
import type { States, Step } from "./States.js"

/** The strands of documents, as far as they have to be at hand. */
export type Documents = ReadonlyMap<DocumentId, ReadonlyArray<Strand>>

/** Documents have to be read before this can be planned, each because of an operation. */
export class Needed extends Data.TaggedError("Needed")<{ readonly by: ReadonlyMap<DocumentId, Item> }> {}

/** An operation, where it came from, and where its stream stands. */
export interface Item {
  readonly strand: Strand
  readonly stream: StreamProgress
  readonly operation: Operation
}

/** One call of the handler. */
export interface Run {
  readonly strands: ReadonlyArray<Told>
  /** Set where it repeats what was handled before; then this operation is to blame for whatever it fails with. */
  readonly because: Operation | undefined
  /** The document whose rows are removed before. */
  readonly removes: DocumentId | undefined
  /** The document whose state begins anew before. */
  readonly resets: DocumentId | undefined
  /** What the states of documents are folded from meanwhile: the operations, and those that were left out. */
  readonly steps: ReadonlyArray<Step>
}

/** What the handler is called with. */
export interface Plan {
  readonly runs: ReadonlyArray<Run>
  /** The operations of retractions. */
  readonly by: ReadonlyMap<Retraction, Operation>
  /** Operations that it is given for the first time. */
  readonly operations: number
  /** Operations of the segment that it is not given: marks, and what is taken back in the same segment. */
  readonly withheld: number
  /** Operations that it is given again. */
  readonly replayed: number
}

/** What a run is that repeats nothing. */
const once = { because: undefined, removes: undefined, resets: undefined }

/** The plan where nothing is taken back. */
export const straight = (
  strands: ReadonlyArray<Strand>,
  operations: number,
  steps: ReadonlyArray<Step> = []
): Plan => ({
  runs: operations === 0 && steps.length === 0 ? [] : [{ ...once, strands, steps }],
  by: new Map(),
  operations,
  withheld: 0,
  replayed: 0
})

/** An item in the order in which it was taken. */
interface Entry extends Item {
  /** Whether the handler is given it; otherwise it was left out. */
  readonly isGiven: boolean
  /** What it takes back of what the handler was given, highest first, and what is to be given again, lowest first. */
  readonly retracts: ReadonlyArray<number>
  readonly restores: ReadonlyArray<number>
  /** What of the document stands at this moment without it and what is restored; known where state is folded. */
  readonly standing: Standing | undefined
  /** Whether it stands only for what was taken back before anybody asked. */
  readonly isRecall?: boolean
}

/** Which operations of a document stand, by stream and index. */
type Standing = ReadonlyMap<StreamProgress, Pick<ReadonlySet<number>, "has">>

const none: ReadonlyArray<number> = []

export class Rewrite {
  private readonly entries: Array<Entry> = []
  /** The operations taken so far, by stream and index. */
  private readonly fresh = new Map<StreamProgress, Map<number, Operation>>()
  /** Documents of which something was taken or brought back that was there before, by the last operation that did. */
  private readonly rewritten = new Map<DocumentId, Item>()
  /** Whether anything was taken that takes others back. */
  private hasSkips = false

  constructor(
    private readonly mode: "append" | "replay",
    private readonly key: Key,
    private readonly progress: Progress.Progress,
    private readonly documents: Documents,
    private readonly states: States | undefined
  ) {}

  /**
   * To be called before the first operation is taken: reads again what is not stored of the documents of these strands, their
   * histories and states.
   */
  begin(strands: ReadonlyArray<Strand>): Effect.Effect<void, Needed | HistoryLost> {
    return Effect.suspend((): Effect.Effect<void, Needed | HistoryLost> => {
      const stateless = new Set(this.states?.unknown)
      const firsts = new Map<DocumentId, Item>()
      for (const strand of strands) {
        const [operation] = strand.operations
        if (operation === undefined || firsts.has(strand.documentId)) continue
        const item = { strand, stream: this.progress.of(strand), operation }
        if (isUnknown(item.stream) || stateless.has(strand.documentId)) firsts.set(strand.documentId, item)
      }
      const missing = Array.from(firsts).filter(([documentId]) => !this.documents.has(documentId))
      if (missing.length > 0) return new Needed({ by: new Map(missing) })
      for (const first of firsts.values()) {
        const failure = this.recall(first) ?? this.seed(first)
        if (failure !== undefined) return failure
      }
      return Effect.void
    })
  }

  /**
   * Finds out what survives of a document that was followed without asking. What was taken back then was never undone, so it
   * is now.
   */
  private recall(first: Item): HistoryLost | undefined {
    const strands = this.documents.get(first.strand.documentId) ?? []
    const named =
      strands.flatMap(({ operations, scope }) =>
        scope === documentScope ? operations.map(protocolOf).filter((protocol) => protocol !== undefined) : []
      )[0]
    for (const stream of this.progress.streamsOf(first.strand.documentId)) {
      if (!isUnknown(stream)) continue
      const found = new Collection()
      for (const strand of strands) {
        if (this.progress.of(strand) !== stream) continue
        for (const operation of strand.operations) found.add({ operation, strand, stream })
      }
      if (!found.has(stream, stream.head)) return missing(first, stream.head)
      const { steps } = found.inOrder()
      const history = History.make(named ?? steps[0]?.strand.protocol ?? 2)
      for (const { operation } of steps) {
        const step = history.take(operation)
        if (Either.isLeft(step)) return tooBroken(first, step.left)
      }
      stream.history = history
      const lost = steps.filter(({ operation, isLeftOut }) => !isLeftOut && !history.survives(operation.index))
      if (lost.length === 0) continue
      this.hasSkips = true
      this.rewritten.set(first.strand.documentId, first)
      const retracts = lost.map(({ operation }) => operation.index).toReversed()
      const told = { ...first, stream, strand: lost[0]!.strand }
      this.entries.push({ ...told, isGiven: false, isRecall: true, retracts, restores: none, standing: undefined })
    }
    return undefined
  }

  private seed(first: Item): HistoryLost | undefined {
    if (this.states === undefined) return undefined
    const applied = this.survivors(first)
    if (Either.isLeft(applied)) return applied.left
    const seeded = this.states.seed(first.strand.documentId, applied.right.steps)
    return Either.isRight(seeded) ? undefined : new HistoryLost({
      ...subject(first.strand, first.operation),
      reason: `the document's state cannot be folded: ${seeded.left.message}`,
      cause: seeded.left
    })
  }

  /**
   * Takes in the stream's next operation, before its progress moves. Fails where its history has become too long to be kept;
   * then nothing of the segment may be committed, but this operation left out.
   */
  take(item: Item, isGiven: boolean): HistoryLost | undefined {
    const { operation, strand, stream } = item
    const step = remember(this.progress, item)
    if (Either.isLeft(step)) return step.left
    const { broughtBack, takenBack } = step.right
    const fresh = this.fresh.get(stream) ?? new Map<number, Operation>()
    this.fresh.set(stream, fresh)
    if (operation.skip > 0) this.hasSkips = true
    const isOld = (index: number) => !fresh.has(index)
    if (takenBack.some(isOld) || broughtBack.some(isOld)) this.rewritten.set(strand.documentId, item)
    fresh.set(operation.index, operation)
    if (this.mode === "replay" && this.states === undefined) return undefined
    const lowest = broughtBack[0]
    const left = lowest === undefined ? none : stream.history?.survivors() ?? none
    if (lowest === undefined) {
      const standing = takenBack.length === 0 ? undefined : this.standingOf(item, none)
      this.entries.push({ operation, strand, stream, isGiven, retracts: takenBack, restores: none, standing })
      return undefined
    }
    // Writes may depend on their order: all from the lowest one on are undone, and what survives of them is given again.
    const restores = left.filter((index) => index >= lowest && index < operation.index)
    const back = new Set(broughtBack)
    const retracts = [...restores.filter((index) => !back.has(index)), ...takenBack].sort((a, b) => b - a)
    this.entries.push({ ...item, isGiven, retracts, restores, standing: this.standingOf(item, restores) })
    return undefined
  }

  private standingOf(item: Item, restores: ReadonlyArray<number>): Standing | undefined {
    if (this.states === undefined || this.mode === "replay") return undefined
    const standing = new Map<StreamProgress, Pick<ReadonlySet<number>, "has">>()
    for (const stream of this.progress.streamsOf(item.strand.documentId)) {
      if (stream.scope === documentScope) {
        const { head } = stream
        standing.set(stream, { has: (index) => index <= head })
        continue
      }
      const left = new Set(stream.history?.survivors())
      if (stream === item.stream) { for (const index of [item.operation.index, ...restores]) left.delete(index) }
      standing.set(stream, left)
    }
    return standing
  }

  /** What to call the handler with, given the strands that the sift has left. */
  plan(
    strands: ReadonlyArray<Strand>,
    operations: number
  ): Effect.Effect<Plan, Needed | HistoryLost | SqlError, SqlClient.SqlClient> {
    if (!this.hasSkips) {
      const steps = this.states === undefined ? [] : this.entries.filter(isTaken).map(stepOf)
      return Effect.succeed(straight(strands, operations, steps))
    }
    return this.mode === "append" ? this.appending : Effect.suspend(() => this.replaying(strands, operations))
  }

  private replaying(
    strands: ReadonlyArray<Strand>,
    operations: number
  ): Effect.Effect<Plan, Needed | HistoryLost> {
    const missing = Array.from(this.rewritten).filter(([documentId]) => !this.documents.has(documentId))
    if (missing.length > 0) return new Needed({ by: new Map(missing) })
    const runs: Array<Run> = []
    let replayed = 0
    for (const [documentId, by] of this.rewritten) {
      const again = this.survivors(by)
      if (Either.isLeft(again)) return again.left
      replayed += countOf(again.right.strands)
      runs.push({ ...again.right, because: by.operation, removes: documentId, resets: documentId })
    }
    const first = this.standing(strands)
    const given = countOf(first)
    const steps = this.entries.filter((item) => isTaken(item) && this.stands(item)).map(stepOf)
    if (given > 0 || steps.length > 0) runs.push({ ...once, strands: first, steps })
    return Effect.succeed({ runs, by: new Map(), operations: given, withheld: operations - given, replayed })
  }

  /** What of the segment's own operations survives it. */
  private standing(strands: ReadonlyArray<Strand>): ReadonlyArray<Strand> {
    return strands.flatMap((strand) => {
      const stream = this.progress.of(strand)
      const operations = strand.operations.filter((operation) => this.stands({ operation, strand, stream }))
      return operations.length === strand.operations.length
        ? [strand]
        : operations.length === 0
        ? []
        : [{ ...strand, operations }]
    })
  }

  private stands({ operation, strand, stream }: Item): boolean {
    return this.fresh.get(stream)?.get(operation.index) === operation && !isMark(operation) &&
      survives(strand, stream, operation.index)
  }

  /** What was taken in of a document before the segment, and survives it. */
  private survivors(by: Item): Either.Either<Collected, HistoryLost> {
    const found = new Collection()
    for (const strand of this.documents.get(by.strand.documentId) ?? []) {
      const stream = this.progress.of(strand)
      const fresh = this.fresh.get(stream)
      for (const operation of strand.operations) {
        if (fresh?.has(operation.index) !== true && !isMark(operation) && survives(strand, stream, operation.index)) {
          found.add({ operation, strand, stream })
        }
      }
    }
    for (const stream of this.progress.streamsOf(by.strand.documentId)) {
      const fresh = this.fresh.get(stream)
      const lost = stream.history?.survivors().find((index) =>
        fresh?.has(index) !== true && !stream.isLeftOut(index) && !found.has(stream, index)
      )
      if (lost !== undefined) return Either.left(missing(by, lost))
    }
    return Either.right(found.inOrder())
  }

  /** What stood of a document at an entry. */
  private stood({ strand: { documentId } }: Entry, standing: Standing): Collected {
    const found = new Collection()
    for (const strand of this.documents.get(documentId) ?? []) {
      const stream = this.progress.of(strand)
      for (const operation of strand.operations) {
        if (!isMark(operation) && standing.get(stream)?.has(operation.index) === true) {
          found.add({ operation, strand, stream })
        }
      }
    }
    return found.inOrder()
  }

  /** Operations in the order in which they came, with what they take back before them. */
  private readonly appending: Effect.Effect<Plan, Needed | HistoryLost | SqlError, SqlClient.SqlClient> = Effect.gen(
    this,
    function*() {
      const restoring = this.entries.filter(({ restores, standing }) => restores.length > 0 || standing !== undefined)
      const unread = restoring.filter(({ strand }) => !this.documents.has(strand.documentId))
      if (unread.length > 0) {
        return yield* new Needed({ by: new Map(unread.map((item) => [item.strand.documentId, item])) })
      }
      yield* this.loadPages
      const told = new Telling()
      for (const entry of this.entries) {
        if (entry.standing !== undefined) told.reset(entry, this.stood(entry, entry.standing).steps)
        const indexes = entry.retracts.filter((index) => !entry.stream.isLeftOut(index))
        if (isNonEmpty(indexes)) told.retract(entry, indexes)
        if (entry.restores.length > 0) {
          const again = this.restored(entry)
          if (Either.isLeft(again)) return yield* again.left
          told.again(again.right, entry.operation)
        }
        if (!isTaken(entry)) continue
        if (isMark(entry.operation)) told.withheld += entry.isGiven ? 1 : 0
        else told.give(entry)
      }
      return told.plan()
    }
  )

  /** Whether what is taken back was given to the handler stands in its pages. */
  private get loadPages(): Effect.Effect<void, SqlError, SqlClient.SqlClient> {
    const unknown = this.entries.flatMap(({ retracts, strand, stream }) => {
      const operations = retracts.filter((index) => !stream.knowsPageOf(index)).map((index) => ({ index }))
      return operations.length === 0 ? [] : [{ ...strand, operations }]
    })
    return unknown.length === 0 ? Effect.void : Progress.more(this.progress, this.key, unknown)
  }

  private restored(entry: Entry): Either.Either<Collected, HistoryLost> {
    const { restores, stream } = entry
    const wanted = new Set(restores)
    const found = new Collection()
    for (const strand of this.documents.get(entry.strand.documentId) ?? []) {
      if (this.progress.of(strand) !== stream) continue
      for (const operation of strand.operations) {
        if (wanted.has(operation.index)) found.add({ operation, strand, stream })
      }
    }
    const lost = restores.find((index) => !stream.isLeftOut(index) && !found.has(stream, index))
    return lost === undefined ? Either.right(found.inOrder()) : Either.left(missing(entry, lost))
  }
}

/**
 * Tells the stream's history of its next operation, applied or left out. A history that was not kept from the first
 * operation on stays unknown.
 */
export const remember = (
  progress: Progress.Progress,
  { operation, strand, stream }: Item
): Either.Either<
  { readonly takenBack: ReadonlyArray<number>; readonly broughtBack: ReadonlyArray<number> },
  HistoryLost
> => {
  const nothing = { takenBack: none, broughtBack: none }
  if (strand.scope === documentScope) {
    // Nothing is taken back here. Its history is kept for the protocol, by which the document's other scopes go.
    const named = protocolOf(operation)
    if (named !== undefined || stream.head === -1) stream.history = History.make(named ?? strand.protocol ?? 2)
    return Either.right(nothing)
  }
  if (stream.head === -1 && stream.history === undefined) {
    const document = progress.of({ ...strand, scope: documentScope }).history
    stream.history = History.make(document?.protocol ?? strand.protocol ?? 2)
  }
  const step = stream.history?.take(operation) ?? Either.right(nothing)
  if (Either.isRight(step)) return Either.right(step.right)
  stream.history = undefined
  return Either.left(tooBroken({ operation, strand, stream }, step.left))
}

const tooBroken = ({ operation, strand }: Item, cause: HistoryTooBroken): HistoryLost =>
  new HistoryLost({ ...subject(strand, operation), reason: cause.message, cause })

/** The scope in which a document is created, upgraded and deleted. */
const documentScope = Schema.decodeSync(Scope)("document")

/** Why an operation cannot be taken in: what survives of its stream is not known. */
export const unknownHistory = ({ operation, strand, stream }: Item): HistoryLost | undefined =>
  isUnknown(stream)
    ? new HistoryLost({
      ...subject(strand, operation),
      reason: "what survives of the operations before it is not known"
    })
    : undefined

const isUnknown = (stream: StreamProgress): boolean =>
  stream.scope !== documentScope && stream.head >= 0 && stream.history === undefined

/** The streams whose progress has to be known besides those of the operations themselves. */
export const besides = (
  progress: Progress.Progress,
  strands: ReadonlyArray<Strand>,
  documents: Documents
): ReadonlyArray<Progress.Wanted> => {
  const begun = strands.filter((strand) => strand.scope !== documentScope && progress.of(strand).head === -1)
  const creations = begun.map((strand) => ({ ...strand, scope: documentScope, operations: [] }))
  return [...creations, ...Array.from(documents.values()).flat()]
}

const survives = ({ scope }: Strand, { history }: StreamProgress, index: number): boolean =>
  scope === documentScope || history?.survives(index) === true

const missing = ({ operation, strand }: Item, index: number): HistoryLost =>
  new HistoryLost({
    ...subject(strand, operation),
    reason: `what is left of the document cannot be given again: the operation at index ${index} is not in the source`
  })

const countOf = (strands: ReadonlyArray<Strand>): number =>
  strands.reduce((count, { operations }) => count + operations.length, 0)

const isNonEmpty = (indexes: ReadonlyArray<number>): indexes is readonly [number, ...Array<number>] =>
  indexes.length > 0

const isTaken = ({ isRecall }: Entry): boolean => isRecall !== true

const stepOf = ({ isGiven, operation, strand }: Entry): Step => ({ strand, operation, isLeftOut: !isGiven })

interface Collected {
  /** What was applied. */
  readonly strands: ReadonlyArray<Strand>
  /** What was applied or left out. */
  readonly steps: ReadonlyArray<Step>
}

/**
 * Operations of a document that were taken in, each once: its streams in the order of the source, each in the order of its
 * indexes. What was not taken in does not get into it.
 */
class Collection {
  private readonly places: Array<StreamProgress> = []
  private readonly streams = new Map<StreamProgress, Map<number, Item>>()

  add(item: Item): void {
    const items = this.streams.get(item.stream) ?? new Map<number, Item>()
    if (items.has(item.operation.index) || item.stream.fateOf(item.operation) === undefined) return
    items.set(item.operation.index, item)
    this.streams.set(item.stream, items)
    this.places.push(item.stream)
  }

  has(stream: StreamProgress, index: number): boolean {
    return this.streams.get(stream)?.has(index) === true
  }

  inOrder(): Collected {
    const sorted = new Map(
      Array.from(this.streams, ([stream, items]) => [
        stream,
        Array.from(items.values()).sort((a, b) => a.operation.index - b.operation.index).values()
      ])
    )
    const pieces = new Pieces()
    const steps: Array<Step> = []
    for (const stream of this.places) {
      const next = sorted.get(stream)?.next()
      if (next === undefined || next.done === true) continue
      const { operation, strand } = next.value
      const isLeftOut = stream.fateOf(operation) === "left out"
      steps.push({ strand, operation, isLeftOut })
      if (!isLeftOut) pieces.add(next.value)
    }
    return { strands: pieces.all, steps }
  }
}

/** Strands, put together from their operations. */
class Pieces {
  readonly all: Array<Told> = []
  private last: { readonly of: Strand; readonly operations: Array<Operation> } | undefined = undefined

  add({ operation, strand }: Item): void {
    if (this.last?.of !== strand) this.open(strand)
    this.last?.operations.push(operation)
  }

  open(strand: Strand, retraction?: Retraction): void {
    const operations: Array<Operation> = []
    this.last = { of: strand, operations }
    this.all.push(retraction === undefined ? { ...strand, operations } : { ...strand, operations, retraction })
  }
}

/** What a handler that appends is told, as it is put together. */
class Telling {
  private readonly runs: Array<Run> = []
  private readonly by = new Map<Retraction, Operation>()
  private pieces = new Pieces()
  private steps: Array<Step> = []
  private operations = 0
  private replayed = 0
  withheld = 0

  give(entry: Entry): void {
    this.steps.push(stepOf(entry))
    if (!entry.isGiven) return
    this.pieces.add(entry)
    this.operations++
  }

  /** The state of the entry's document is that of these operations from here on. */
  reset({ operation, strand: { documentId } }: Item, steps: ReadonlyArray<Step>): void {
    this.close()
    this.runs.push({ strands: [], because: operation, removes: undefined, resets: documentId, steps })
  }

  retract({ operation, strand }: Item, indexes: readonly [number, ...Array<number>]): void {
    const { branch, documentId, documentType, scope } = strand
    const retraction: Retraction = {
      _tag: "Retraction",
      documentId,
      documentType,
      scope,
      branch,
      by: operation.index,
      indexes
    }
    this.by.set(retraction, operation)
    this.pieces.open(strand, retraction)
  }

  again(collected: Collected, because: Operation): void {
    this.close()
    this.runs.push({ ...once, ...collected, because })
    this.replayed += countOf(collected.strands)
  }

  private close(): void {
    if (this.pieces.all.length > 0 || this.steps.length > 0) {
      this.runs.push({ ...once, strands: this.pieces.all, steps: this.steps })
    }
    this.pieces = new Pieces()
    this.steps = []
  }

  plan(): Plan {
    this.close()
    const { by, operations, replayed, runs, withheld } = this
    return { runs, by, operations, withheld, replayed }
  }
}
