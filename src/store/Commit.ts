/**
 * A commit: one transaction with a segment's writes, what was set aside, and the cursor.
 *
 *     BEGIN
 *       hold the cursor            not ours any more → Fenced
 *       sift the operations        by the progress of their documents
 *       run the handler            its table operations folded, and flushed; its messages to the outbox
 *       save progress and letters
 *       advance the cursor         where the connection can, with the last flush and COMMIT in one flight
 *     COMMIT                       answer lost → read the cursor, then decide
 *
 * Where others wait as well, several go in one transaction (see `Convoy`). A failure is answered by what it means (see `Fault`): the database is waited for, a conflict is run again, an unknown
 * outcome is looked up, drift halts, and poison is handed back, for `Narrowing` to find the operation that is to blame.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import { once } from "../domain/Once.js"
import type { Operation } from "../domain/Operation.js"
import * as Partition from "../domain/Partition.js"
import type { Position } from "../domain/Position.js"
import * as Slice from "../domain/Slice.js"
import * as Filter from "../ingest/Filter.js"
import type { Source } from "../ingest/Source.js"
import { Attempt } from "../process/Attempt.js"
import type { Dispatch } from "../process/Dispatch.js"
import { Defect, HistoryLost, MalformedOperation, show } from "../process/Failure.js"
import type { Subject } from "../process/Failure.js"
import * as Fault from "../process/Fault.js"
import * as Pauses from "../process/Pauses.js"
import type * as Policy from "../process/Policy.js"
import type { Handler, Owned, Processor } from "../process/Processor.js"
import { Replaying } from "../process/Replaying.js"
import type { Fold } from "../table/Fold.js"
import { folding } from "../table/FoldingConnection.js"
import { removeDocument } from "../table/Table.js"
import { Dispersed } from "./Convoy.js"
import type { Boarding, Done, Seat } from "./Convoy.js"
import * as Cursors from "./Cursors.js"
import * as Documents from "./Documents.js"
import { Errand } from "./Errand.js"
import type { Habits } from "./Errand.js"
import * as Flight from "./Flight.js"
import * as Incident from "./Incident.js"
import * as Letters from "./Letters.js"
import { Outgoing } from "./Outgoing.js"
import * as Outline from "./Outline.js"
import * as Progress from "./Progress.js"
import * as Rewrite from "./Rewrite.js"
import * as Segment from "./Segment.js"
import { sift } from "./Sift.js"
import type { Sentence, Sifted } from "./Sift.js"
import * as States from "./States.js"
import { CommitUnknown, RolledBack, run as transaction } from "./Transaction.js"

/** What one transaction did. */
export interface Commit extends Cursors.Key {
  /** Which of the processor's partitions did it. */
  readonly partition: Partition.Partition
  readonly position: Position
  readonly sequence: bigint
  /** Operations that the handler was given. */
  readonly operations: number
  /** Operations that came again and were dropped. */
  readonly redelivered: number
  /** Operations that came after a later one had taken their place, or together with it, dropped. */
  readonly superseded: number
  /** Operations that the handler was given again, since others of their document were taken back. */
  readonly replayed: number
  /** Operations set aside with a failure of their own. */
  readonly parked: number
  /** Operations set aside because earlier ones of their document are. */
  readonly queued: number
  /** Operations left out by policy. */
  readonly skipped: number
  /** Letters that left: applied, left out or superseded. */
  readonly released: number
  /** Letters that wait after this commit. */
  readonly waiting: number
  /** Messages that the handler has sent. */
  readonly dispatched: number
  /** Commits that its transaction held, itself included: more than one where several processors would have waited. */
  readonly together: number
  /** The try that succeeded, from waiting for its turn to the answer to COMMIT. */
  readonly durationMillis: number
  /** Handler times by operation type, in milliseconds, of handlers that work operation by operation. */
  readonly handled: ReadonlyMap<string, ReadonlyArray<number>>
}

/**
 * The subscription cannot go on: a policy said halt, the handler has a bug, or code and database disagree. Its cursor is
 * before `at`.
 */
export class Halted extends Data.TaggedError("Halted")<
  Incident.Whose & {
    readonly fault: Fault.Fault
    /** The operation, where one is to blame. */
    readonly at: Subject | undefined
    readonly cause: unknown
  }
> {
  override get message(): string {
    const what = Fault.describe(this.cause)
    if (this.fault !== "poison") return `code and database disagree: ${what}`
    return this.at === undefined || what.startsWith(show(this.at)) ? what : `${show(this.at)}: ${what}`
  }
}

export type CommitError = Halted | Cursors.Fenced | Cursors.CursorConflict

/** Who commits: the owner of a cursor, and how it handles operations. */
export interface Owner<R> {
  readonly handler: Handler<unknown, R | Dispatch>
  readonly policy: Policy.Table
  /** How it copes with documents that take operations back; `undefined`: it takes all as they are recorded. */
  readonly coping: Coping | undefined
  /** Which of the processor's partitions it is; default: the only one. */
  readonly partition?: Partition.Partition | undefined
  /** Where the cursor stands; moved by every commit. */
  cursor: Cursors.Cursor
  /** Whether the cursor must be where this owner left it; work on dead letters beside a running owner does not care. */
  readonly fenced: boolean
  /** Called with each incident, once it is settled. */
  readonly report: (incident: Incident.Incident) => Effect.Effect<void>
  /** Called with each commit, once it is in the database. */
  readonly committed: (commit: Commit) => Effect.Effect<void>
  /** Runs around each transaction and no pause: how many owners may commit at once. */
  readonly turn: <A, E, R2>(commit: Effect.Effect<A, E, R2>) => Effect.Effect<A, E, R2>
  /** Which of its commits are offered as errands; none without. */
  readonly habits?: Habits | undefined
  /** How its commits go with those of others; none does without. */
  readonly seat?: Seat | undefined
}

/** How an owner copes with documents that take operations back. */
export interface Coping extends Documents.Reader {
  readonly history: "append" | "replay"
  /** What the rows of a document are removed from. */
  readonly tables: ReadonlyArray<Owned>
}

/** How a processor copes on this source, which may not be at hand. */
export const copingOf = <R>(
  { filter, filterDialect, history, tables }: Processor<never, R>,
  source: Context.Tag.Service<Source> | undefined
): Coping | undefined =>
  history === "recorded"
    ? undefined
    : { history, tables, source, wanted: Filter.compile(filter, filterDialect) }

/** Pauses between tries of a commit while the database is away: 100 ms doubling to 5 s, with jitter, for ever. */
export const patience: Schedule.Schedule<unknown> = Schedule.exponential("100 millis").pipe(
  Schedule.either(Schedule.spaced("5 seconds")),
  Schedule.jittered
)

/** The database's answer to a segment. */
export type Outcome =
  | { readonly _tag: "Committed"; readonly stirred: ReadonlyArray<string> }
  | { readonly _tag: "Poison"; readonly failure: unknown; readonly culprit: Operation | undefined }
  /** It needs more in memory than may be there at once. */
  | { readonly _tag: "TooMuch" }

const Outcome = Data.taggedEnum<Outcome>()

/**
 * Tries a segment until the database has given its answer: committed, or refused because of an operation. What is
 * `decided` about the one operation of a segment is carried out instead of running the handler.
 */
export const attempt = Effect.fnUntraced(function*<R>(
  owner: Owner<R>,
  segment: Segment.Segment,
  decided: Sentence | undefined
) {
  const pauses = yield* Pauses.make(patience)
  let isExact = false
  let seat = seatFor(owner, segment, decided)
  let documents: Rewrite.Documents = new Map()
  for (let tries = 1;; tries++) {
    const started = yield* Clock.currentTimeMillis
    const errand = new Errand()
    const trial: Trial = {
      attempt: new Attempt(),
      isExact,
      errand,
      kept: { fold: undefined },
      isBlind: false,
      done: undefined
    }
    const isOffered = tries === 1 && decided === undefined && owner.habits?.isOffered(segment.operations) === true
    const spanned = <A, E, R2>(effect: Effect.Effect<A, E, R2>) =>
      Effect.withSpan(once(effect), "processor.commit", {
        captureStackTrace: false,
        attributes: {
          processor: owner.cursor.processor,
          source: owner.cursor.source,
          partition: (owner.partition ?? Partition.whole).number,
          operations: segment.operations
        }
      })
    // Spans and scopes keep what they were closed with, so what was written is told by the trial.
    const body = Effect.asVoid(write(owner, segment, decided, documents, trial))
    const alone = spanned(transaction(once(body), isOffered ? errand : undefined))
    const { operations, strands } = segment
    const committed = seat === undefined || isOffered
      ? owner.turn(alone)
      : seat.join(
        {
          follower: owner.cursor,
          outline: Outline.of(strands),
          operations,
          work: (boarding) => spanned(board(owner, segment, trial, boarding))
        },
        alone,
        owner.turn
      )
    const exit = yield* Effect.exit(Effect.map(committed, () => trial.done!))
    if (Exit.isSuccess(exit)) {
      if (isOffered && !errand.isTaken) owner.habits?.failed()
      return yield* settle(owner, segment, exit.value, trial, started)
    }
    if (Cause.isInterrupted(exit.cause)) return yield* Effect.failCause(exit.cause as Cause.Cause<never>)
    const error = Option.getOrElse(
      Cause.failureOption(exit.cause),
      () => new Defect({ cause: Cause.squash(exit.cause) })
    )
    if (error instanceof Dispersed) {
      seat = undefined
      continue
    }
    if (errand.isTaken && !(error instanceof CommitUnknown)) {
      owner.habits?.failed()
      yield* Effect.logDebug("an errand failed and is run again", Fault.describe(error))
      continue
    }
    if (error instanceof Rewrite.Needed) {
      const read = yield* Effect.either(readDocuments(owner, segment, error))
      if (Either.isRight(read)) documents = new Map([...documents, ...read.right])
      else if (read.left._tag === "TooMuch") return Outcome.TooMuch()
      else return Outcome.Poison({ failure: read.left, culprit: Segment.find(segment, read.left) })
      continue
    }
    if (error instanceof Cursors.Fenced || error instanceof Cursors.CursorConflict) return yield* Effect.fail(error)
    const fault = error instanceof CommitUnknown
      ? "unknown"
      : error instanceof RolledBack
      ? "drift"
      : Fault.classify(error)
    const tell = (times: number) =>
      owner.report(Incident.Waiting({ ...keyOf(owner), fault, failure: error, attempt: times, isReplay: false }))
    if (fault === "unknown") {
      yield* tell(tries)
      if (trial.done !== undefined && (yield* isCommitted(owner, trial.done))) {
        return yield* settle(owner, segment, trial.done, trial, started)
      }
      yield* pauses.next(error, () => Effect.void)
    } else if (fault === "infrastructure") {
      yield* pauses.next(error, tell)
    } else if (fault === "conflict") {
      // One is nothing to speak of; a transaction that keeps losing should be heard of.
      if (tries % 20 === 0) yield* tell(tries)
      yield* Effect.sleep(Math.min(tries, 100))
    } else if (
      (fault === "poison" || fault === "drift") && (trial.isBlind || trial.kept.fold?.failure !== undefined)
    ) {
      // Which operation is to blame, and whether any is, shows when each table operation is a statement of its own.
      isExact = true
    } else if (fault === "poison") {
      const culprit = trial.attempt.current
      return Outcome.Poison({ failure: error, culprit: Segment.holdsOnce(segment, culprit) ? culprit : undefined })
    } else {
      return yield* new Halted({ ...keyOf(owner), fault, at: undefined, cause: error })
    }
  }
})

/** How a segment may go with those of others: as long as nothing but its operations is in question. */
const seatFor = <R>(
  { coping, cursor, fenced, seat }: Owner<R>,
  segment: Segment.Segment,
  decided: Sentence | undefined
): Seat | undefined =>
  coping === undefined && fenced && cursor.parked === 0 && decided === undefined && !Segment.isFromLetters(segment) &&
    !Cursors.isReplaying(cursor)
    ? seat
    : undefined

/** Reads documents that a segment needs, for as long as it takes the source to be there. */
const readDocuments = <R>(owner: Owner<R>, segment: Segment.Segment, needed: Rewrite.Needed) =>
  owner.coping === undefined ? Effect.succeed<Rewrite.Documents>(new Map()) : Documents.read(owner.coping, needed, {
    after: owner.cursor.start,
    through: segment.strands.reduce((last, { position }) => position > last ? position : last, segment.from)
  }).pipe(
    Effect.tapError((failure) =>
      failure._tag === "SourceUnavailable"
        ? owner.report(
          Incident.Waiting({ ...keyOf(owner), fault: "infrastructure", failure, attempt: 1, isReplay: false })
        )
        : Effect.void
    ),
    Effect.retry({ schedule: patience, while: (failure) => failure._tag === "SourceUnavailable" }),
    // The schedule never ends.
    Effect.catchTag("SourceUnavailable", Effect.die)
  )

/** One try: what the handler was doing, and what the transaction would have done had its COMMIT been answered. */
interface Trial {
  readonly attempt: Attempt
  /** Whether each table operation is a statement of its own, and none is held back. */
  readonly isExact: boolean
  /** What shows whether the commits of this owner may be run elsewhere. */
  readonly errand: Errand
  /** What holds table operations back. */
  readonly kept: { fold: Fold | undefined }
  /** Whether the last statements go with COMMIT, so that a failure does not tell which of them it is of. */
  isBlind: boolean
  done: Written | undefined
}

interface Written {
  readonly cursor: Cursors.Cursor
  readonly sifted: Sifted
  readonly plan: Rewrite.Plan
  /** Letters that were there and left. */
  readonly released: number
  readonly dispatched: number
  readonly together: number
}

/**
 * Whether the transaction is in the database whose COMMIT was not answered. Beside a running owner the same commit may be
 * somebody else's, so there it counts as lost; letters that have left are not applied again.
 */
const isCommitted = <R>(owner: Owner<R>, { cursor }: Written) =>
  Effect.map(
    persist(owner, Cursors.settled(owner.cursor, owner.cursor.slices.first)),
    (now) => owner.fenced && now?.sequence === cursor.sequence && now.epoch === cursor.epoch
  )

/** The body of the transaction. */
const write = Effect.fnUntraced(function*<R>(
  owner: Owner<R>,
  segment: Segment.Segment,
  decided: Sentence | undefined,
  documents: Rewrite.Documents,
  trial: Trial
) {
  const sql = yield* SqlClient.SqlClient
  const keepsHistory = owner.coping !== undefined
  const loading = Progress.loading(sql, owner.cursor, Outline.of(segment.strands), { keepsHistory })
  const [held, progress] = yield* holdFor(owner, segment, loading)
  const states = owner.coping === undefined || owner.handler.states === undefined || owner.handler.states.size === 0
    ? undefined
    : yield* States.load(held, owner.handler.states, segment.strands)
  const rewrite = owner.coping === undefined
    ? undefined
    : new Rewrite.Rewrite(owner.coping.history, held, progress, documents, states)
  if (rewrite !== undefined) {
    yield* Progress.more(progress, held, Rewrite.besides(progress, segment.strands, documents))
  }
  const fromLetters = Segment.isFromLetters(segment)
  const queues = held.parked === 0 || fromLetters
    ? new Map<string, Letters.Queue>()
    : yield* Letters.queues(held, segment.strands)
  const blocking = fromLetters ? yield* Letters.firstBlocking(held, segment.strands) : new Map<string, bigint>()
  // What is set aside, or left out with all that it takes back, asks for nothing.
  if (rewrite !== undefined && decided?.verdict._tag !== "Park" && decided?.isBare !== true) {
    const open = segment.strands.filter(({ documentId }) => queues.get(documentId)?.isBlocked !== true)
    yield* blaming(segment, trial, rewrite.begin(open))
  }
  const sifted = sift(segment, { progress, queues, blocking, rewrite }, owner.policy, decided)
  if (sifted.halted !== undefined) {
    trial.attempt.current = sifted.halted.operation
    return yield* Effect.fail(sifted.halted.failure)
  }
  const outgoing = new Outgoing(held, trial.attempt)
  const plan = rewrite === undefined || decided?.isBare === true
    ? Rewrite.straight(sifted.strands, sifted.operations)
    : yield* blaming(segment, trial, rewrite.plan(sifted.strands, sifted.operations))
  trial.attempt.states = states
  if (plan.runs.length > 0) {
    const handled = handle(owner, segment, plan, states, trial, outgoing)
    yield* Segment.isReplayed(segment, held) ? Effect.provideService(handled, Replaying, true) : handled
  }
  const departure = owner.fenced && !trial.isExact ? yield* Flight.departure : undefined
  trial.isBlind = departure !== undefined
  if (departure === undefined && trial.kept.fold !== undefined) yield* trial.kept.fold.sendLast
  if (states !== undefined) {
    yield* decided?.isBare === true
      ? States.forget(held, segment.strands.map(({ documentId }) => documentId))
      : blaming(segment, trial, States.save(held, states))
  }
  yield* Letters.append(held, sifted.drafts)
  const released = yield* Letters.remove(held, sifted.done)
  for (const { failure, ordinal } of sifted.failedAgain) yield* Letters.failedAgain(held, ordinal, failure)
  const saving = Progress.saving(sql, held, progress)
  if (!owner.fenced) yield* Flight.send(saving)
  const position = fromLetters ? held.position : segment.position
  const letters = { written: sifted.drafts.length, removed: released }
  let cursor: Cursors.Cursor
  if (departure !== undefined) {
    const [moving, moved] = yield* Cursors.advancing(held, position, letters)
    const rows = trial.kept.fold === undefined ? [] : yield* trial.kept.fold.takeLast
    departure([...rows, ...[...saving, moving].map((statement) => statement.compile())])
    cursor = moved
  } else {
    cursor = owner.fenced
      ? yield* Cursors.advance(held, position, letters, saving)
      : yield* Cursors.countParked(held, -released)
  }
  trial.done = { cursor, sifted, plan, released, dispatched: outgoing.messages, together: 1 }
  return trial.done
})

/** What a commit writes that goes with those of others. One that has anything to set aside goes alone. */
const board = Effect.fnUntraced(function*<R>(
  owner: Owner<R>,
  segment: Segment.Segment,
  trial: Trial,
  { departs, held, progress, together }: Boarding
) {
  const standing = { progress, queues: new Map<string, Letters.Queue>(), blocking: new Map(), rewrite: undefined }
  const sifted = sift(segment, standing, owner.policy, undefined)
  if (sifted.halted !== undefined || sifted.drafts.length > 0) return yield* new Dispersed()
  const outgoing = new Outgoing(held, trial.attempt)
  const plan = Rewrite.straight(sifted.strands, sifted.operations)
  if (plan.runs.length > 0) yield* handle(owner, segment, plan, undefined, trial, outgoing)
  if (!departs && trial.kept.fold !== undefined) yield* trial.kept.fold.sendLast
  const { position } = segment
  const cursor = Cursors.movedTo(held, position, { written: 0, removed: 0 })
  trial.done = { cursor, sifted, plan, released: 0, dispatched: outgoing.messages, together }
  const done: Done = {
    position,
    last: departs && trial.kept.fold !== undefined ? yield* trial.kept.fold.takeLast : []
  }
  return done
})

/**
 * Runs the handler. When this succeeds, what it sends is in the database, and what it writes through tables is there or kept
 * by its fold.
 */
const handle = <R>(
  owner: Owner<R>,
  segment: Segment.Segment,
  { by, runs }: Rewrite.Plan,
  states: States.States | undefined,
  trial: Trial,
  outgoing: Outgoing
) => {
  for (const [retraction, operation] of by) trial.attempt.by.set(retraction, operation)
  const handled = Effect.forEach(
    runs,
    (run) => {
      const handledRun = handleRun(owner, run, states, trial)
      return states === undefined ? handledRun : blaming(segment, trial, withStates(states, run, handledRun))
    },
    { discard: true }
  )
  const folded = trial.isExact
    ? handled
    : folding(handled, keeping(trial.kept), { counter: trial.errand, end: sealing })
  const written = Effect.zipRight(
    folded,
    Effect.suspend(() => trial.errand.failure === undefined ? Effect.void : Effect.fail(trial.errand.failure))
  )
  const timed = owner.seat === undefined ? written : owner.seat.timed(segment.operations, written)
  return Effect.zipRight(outgoing.around(timed), outgoing.close) as Effect.Effect<
    void,
    unknown,
    R | SqlClient.SqlClient
  >
}

// By themselves, so that they reach nothing else of a commit (see `Once`).
const keeping = (kept: Trial["kept"]) => (fold: Fold) => {
  kept.fold = fold
}
const sealing = (fold: Fold) => fold.seal

/** Notes which operation of the segment a failure names, where it names one. */
const blaming = <A, E, R>(segment: Segment.Segment, trial: Trial, effect: Effect.Effect<A, E, R>) =>
  Effect.tapError(effect, (failure) =>
    Effect.sync(() => {
      if (failure instanceof HistoryLost || failure instanceof MalformedOperation) {
        trial.attempt.current = Segment.find(segment, failure) ?? trial.attempt.current
      }
    }))

/** Folds the states of documents along with a run. */
const withStates = <E, R>(states: States.States, run: Rewrite.Run, handled: Effect.Effect<void, E, R>) =>
  Effect.suspend(() => {
    if (run.resets !== undefined) states.reset(run.resets)
    states.expect(run.steps)
    return Effect.zipRight(handled, Effect.suspend(() => states.settle()))
  })

/** What repeats what was handled before is nobody's fault but that of the operation which makes it necessary. */
const handleRun = <R>(
  owner: Owner<R>,
  { because, removes, strands }: Rewrite.Run,
  states: States.States | undefined,
  trial: Trial
): Effect.Effect<void, unknown, R | Dispatch | SqlClient.SqlClient> => {
  if (because === undefined) return strands.length === 0 ? Effect.void : owner.handler.run(strands, trial.attempt)
  const attemptAgain = new Attempt()
  attemptAgain.states = states
  const removed = removes === undefined ? Effect.void : Effect.forEach(
    owner.coping?.tables.toReversed() ?? [],
    ({ definition }) => removeDocument(definition, removes),
    { discard: true }
  )
  const again = strands.length === 0
    ? Effect.void
    : replaying(owner.handler.run(strands, attemptAgain))
  return Effect.onError(Effect.zipRight(removed, again), () =>
    Effect.sync(() => {
      trial.attempt.current = because
    }))
}

const replaying = <E, R>(handled: Effect.Effect<void, E, R>): Effect.Effect<void, E, R> =>
  Effect.mapInputContext(handled, (context: Context.Context<R>) => Context.add(context, Replaying, true))

/**
 * The owner's cursor or, beside a running owner, that of the document whose letters these are; and the progress as it is
 * once that is held: both are asked for at once.
 */
const holdFor = Effect.fnUntraced(function*<R>(
  owner: Owner<R>,
  { strands: [first] }: Segment.Segment,
  { progressOf, statements }: ReturnType<typeof Progress.loading>
) {
  if (owner.fenced) {
    const [held, answers] = yield* Cursors.holdAnd(owner.cursor, statements)
    return [held, progressOf(answers)] as const
  }
  const slice = first === undefined ? owner.cursor.slices.first : Slice.of(first.documentId)
  const found = yield* Cursors.settled(owner.cursor, slice)
  return found === undefined
    ? yield* new Cursors.CursorConflict({ ...keyOf(owner), expected: "a cursor", found: "nothing" })
    : [found, progressOf(yield* Flight.send(statements))] as const
})

/** Takes the transaction's outcome as done: moves the owner's cursor and tells what happened. */
const settle = Effect.fnUntraced(function*<R>(
  owner: Owner<R>,
  segment: Segment.Segment,
  { cursor, dispatched, plan, released, sifted, together }: Written,
  trial: Trial,
  started: number
) {
  owner.cursor = cursor
  if (trial.kept.fold?.hasReached !== false) trial.errand.statements++
  owner.habits?.committed(trial.errand, segment.operations)
  const key = keyOf(owner)
  for (const setback of sifted.parked) yield* owner.report(Incident.Parked({ ...key, ...setback }))
  for (const setback of sifted.skipped) yield* owner.report(Incident.Skipped({ ...key, ...setback }))
  yield* owner.committed({
    ...key,
    position: cursor.position,
    sequence: cursor.sequence,
    operations: plan.operations,
    redelivered: sifted.redelivered,
    superseded: sifted.superseded + plan.withheld,
    replayed: plan.replayed,
    parked: sifted.parked.length,
    queued: sifted.drafts.length - sifted.parked.length + sifted.failedAgain.length,
    skipped: sifted.skipped.length,
    released,
    waiting: cursor.parked,
    dispatched,
    together,
    durationMillis: (yield* Clock.currentTimeMillis) - started,
    handled: trial.attempt.handled
  })
  return Outcome.Committed({ stirred: Segment.isFromLetters(segment) ? [] : Array.from(sifted.stirred) })
})

/** Repeats a read until the database answers it. A failure that does not pass by itself halts. */
export const persist = <A, R, R2>(
  owner: Owner<R>,
  read: Effect.Effect<A, SqlError, R2>
): Effect.Effect<A, Halted, R2> =>
  read.pipe(
    Effect.tapError((failure) =>
      Fault.isPassing(failure)
        ? owner.report(
          Incident.Waiting({ ...keyOf(owner), fault: Fault.classify(failure), failure, attempt: 1, isReplay: false })
        )
        : Effect.void
    ),
    Effect.retry({ schedule: patience, while: Fault.isPassing }),
    Effect.mapError((failure) =>
      new Halted({ ...keyOf(owner), fault: Fault.classify(failure), at: undefined, cause: failure })
    )
  )

export const keyOf = <R>(
  { cursor: { processor, source }, partition = Partition.whole }: Owner<R>
): Cursors.Key & { readonly partition: Partition.Partition } => ({ processor, source, partition })
