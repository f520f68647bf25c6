/**
 * A commit: one transaction with a segment's writes, what was set aside, and the cursor.
 *
 *     BEGIN
 *       hold the cursor            not ours any more → Fenced
 *       sift the operations        by the progress of their documents
 *       run the handler
 *       save progress and letters
 *       advance the cursor
 *     COMMIT                       answer lost → read the cursor, then decide
 *
 * A failure is answered by what it means (see `Fault`): the database is waited for, a conflict is run again, and poison
 * narrows the segment until the operation that fails stands alone and its policy can be asked. So one bad operation in a
 * batch of a thousand costs a few commits and never its neighbours.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type { Operation } from "../domain/Operation.js"
import type { Position } from "../domain/Position.js"
import type { Batch } from "../ingest/Batch.js"
import { Attempt } from "../process/Attempt.js"
import { subject } from "../process/Failure.js"
import type { Subject } from "../process/Failure.js"
import * as Fault from "../process/Fault.js"
import * as Policy from "../process/Policy.js"
import type { Handler } from "../process/Processor.js"
import * as Cursors from "./Cursors.js"
import * as Incident from "./Incident.js"
import * as Letters from "./Letters.js"
import * as Progress from "./Progress.js"
import * as Release from "./Release.js"
import * as Segment from "./Segment.js"
import { sift } from "./Sift.js"
import type { Sentence, Sifted } from "./Sift.js"
import { CommitUnknown, RolledBack, run as transaction } from "./Transaction.js"

/** What one transaction did. */
export interface Commit extends Cursors.Key {
  readonly position: Position
  readonly sequence: bigint
  /** Operations that the handler was given. */
  readonly operations: number
  /** Operations that came again and were dropped. */
  readonly redelivered: number
  /** Operations that came after a later one had taken their place, dropped. */
  readonly superseded: number
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
  readonly durationMillis: number
  /** Handler time by operation type, of handlers that work operation by operation. */
  readonly handled: ReadonlyMap<string, { readonly count: number; readonly nanos: bigint }>
}

/** The subscription cannot go on: a policy said halt, or code and database disagree. Its cursor is before `at`. */
export class Halted extends Data.TaggedError("Halted")<
  Cursors.Key & {
    readonly fault: Fault.Fault
    /** The operation, where one is to blame. */
    readonly at: Subject | undefined
    readonly cause: unknown
  }
> {
  override get message(): string {
    const why = this.fault === "poison" ? "its policy halts at" : "code and database disagree:"
    return `${this.processor} on ${this.source} has halted: ${why} ${Fault.describe(this.cause)}`
  }
}

export type CommitError = Halted | Cursors.Fenced | Cursors.CursorConflict

/** Who commits: the owner of a cursor, and how it handles operations. */
export interface Owner<R> {
  readonly handler: Handler<unknown, R>
  readonly policy: Policy.Table
  /** Where the cursor stands; moved by every commit. */
  cursor: Cursors.Cursor
  /** Whether the cursor must be where this owner left it; work on dead letters beside a running owner does not care. */
  readonly fenced: boolean
  /** Called with each incident, once it is settled. */
  readonly report: (incident: Incident.Incident) => Effect.Effect<void>
  /** Runs around each transaction and no pause: how many owners may commit at once. */
  readonly turn: <A, E, R2>(commit: Effect.Effect<A, E, R2>) => Effect.Effect<A, E, R2>
}

/** The most letters that are tried as one commit. */
const releaseMax = 1_000

/** Pauses between tries of a commit while the database is away: 100 ms doubling to 5 s, with jitter, for ever. */
export const patience: Schedule.Schedule<unknown> = Schedule.exponential("100 millis").pipe(
  Schedule.either(Schedule.spaced("5 seconds")),
  Schedule.jittered
)

/** Commits a batch, in as many transactions as it takes, and returns what each did. */
export const batch = <R>(
  owner: Owner<R>,
  next: Batch
): Effect.Effect<ReadonlyArray<Commit>, CommitError, R | SqlClient.SqlClient> =>
  segments(owner, [Segment.fromBatch(next, owner.cursor.position)])

/** Applies the letters of documents whose missing operations have come meanwhile. */
export const releaseHeld = <R>(
  owner: Owner<R>
): Effect.Effect<ReadonlyArray<Commit>, CommitError, R | SqlClient.SqlClient> =>
  owner.cursor.parked === 0
    ? Effect.succeed([])
    : releaseAfter(owner, "")

/** {@link releaseHeld} for the documents whose id sorts after `last`, a thousand at a time. */
const releaseAfter = <R>(
  owner: Owner<R>,
  last: string
): Effect.Effect<ReadonlyArray<Commit>, CommitError, R | SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const documents = yield* persist(owner, Letters.heldDocuments(owner.cursor, last, releaseMax))
    const commits = yield* segments(owner, yield* releases(owner, documents))
    const further = documents.length < releaseMax ? [] : yield* releaseAfter(owner, documents.at(-1)!)
    return [...commits, ...further]
  })

/** Commits letters in the order given, as an operator asked. */
export const letters = <R>(
  owner: Owner<R>,
  chosen: ReadonlyArray<Letters.Letter>
): Effect.Effect<ReadonlyArray<Commit>, CommitError, R | SqlClient.SqlClient> =>
  segments(owner, inSegments(owner, chosen))

/** Works a list of segments off, narrowing those that fail. */
const segments = <R>(owner: Owner<R>, first: ReadonlyArray<Segment.Segment>) =>
  Effect.gen(function*() {
    const commits: Array<Commit> = []
    const retries = new Retries()
    const work: Array<Work> = []
    const push = (next: ReadonlyArray<Segment.Segment>) => {
      for (const segment of next.toReversed()) work.push({ segment, failure: Option.none() })
    }
    push(first)
    for (let item = work.pop(); item !== undefined; item = work.pop()) {
      const { failure, segment } = item
      const decided = Option.isNone(failure) ? undefined : yield* sentence(owner, segment, failure.value, retries)
      const outcome = yield* attempt(owner, segment, decided)
      if (outcome._tag === "Committed") {
        commits.push(outcome.commit)
        push(yield* releases(owner, outcome.stirred))
      } else if (segment.operations === 1) {
        work.push({ segment, failure: Option.some(outcome.failure) })
      } else if (outcome.culprit === undefined) {
        push(Segment.halves(segment))
      } else {
        const { after, before, itself } = Segment.around(segment, outcome.culprit)
        push(after)
        work.push({ segment: itself, failure: Option.some(outcome.failure) })
        push(before)
      }
    }
    return commits
  })

/** A segment to be tried, or the segment of one operation that has failed and awaits its sentence. */
interface Work {
  readonly segment: Segment.Segment
  readonly failure: Option.Option<unknown>
}

/** Asks the policy about the one operation of a segment: again after a pause (`undefined`), or a verdict to carry out. */
const sentence = <R>(
  owner: Owner<R>,
  segment: Segment.Segment,
  failure: unknown,
  retries: Retries
): Effect.Effect<Sentence | undefined, Halted> =>
  Effect.gen(function*() {
    const strand = segment.strands[0]!
    const operation = strand.operations[0]!
    const who = subject(strand, operation)
    const verdict = yield* retries.next(owner.policy, operation, failure, (attempt) =>
      owner.report(Incident.Retrying({ ...keyOf(owner), subject: who, failure, attempt })))
    if (verdict === undefined) {
      return undefined
    }
    return verdict._tag === "Halt"
      ? yield* new Halted({ ...keyOf(owner), fault: "poison", at: who, cause: failure })
      : { verdict, failure }
  })

/** The retries of one batch: a running schedule per operation and tag. */
class Retries {
  private readonly running = new Map<Operation, Map<unknown, Running>>()

  /** Pauses for the schedule and returns `undefined`, or returns the verdict that is due. */
  next(
    policy: Policy.Table,
    operation: Operation,
    failure: unknown,
    announce: (attempt: number) => Effect.Effect<void>
  ): Effect.Effect<Policy.Verdict | undefined> {
    const running = this.of(policy, operation, failure)
    if (!("driver" in running)) return Effect.succeed(running.verdict)
    return Effect.flatMap(running.driver, (driver) =>
      driver.next(failure).pipe(
        Effect.zipLeft(Effect.suspend(() => announce(++running.attempts))),
        Effect.as(undefined),
        Effect.catchAll(() => Effect.succeed(running.otherwise))
      ))
  }

  private of(policy: Policy.Table, operation: Operation, failure: unknown): Running {
    const tag = typeof failure === "object" && failure !== null && "_tag" in failure ? failure._tag : undefined
    const tags = this.running.get(operation) ?? new Map<unknown, Running>()
    this.running.set(operation, tags)
    const known = tags.get(tag)
    if (known !== undefined) return known
    const decision = Policy.decide(policy, failure)
    const fresh: Running = decision._tag === "Retry"
      ? {
        driver: Effect.runSync(Effect.cached(Schedule.driver(decision.schedule))),
        otherwise: decision.otherwise,
        attempts: 0
      }
      : { verdict: decision }
    tags.set(tag, fresh)
    return fresh
  }
}

type Running =
  | { readonly verdict: Policy.Verdict }
  | {
    readonly driver: Effect.Effect<Schedule.ScheduleDriver<unknown>>
    readonly otherwise: Policy.Verdict
    attempts: number
  }

type Outcome =
  | { readonly _tag: "Committed"; readonly commit: Commit; readonly stirred: ReadonlyArray<string> }
  | { readonly _tag: "Poison"; readonly failure: unknown; readonly culprit: Operation | undefined }

/** Tries a segment until the database has given its answer: committed, or refused because of an operation. */
const attempt = <R>(
  owner: Owner<R>,
  segment: Segment.Segment,
  decided: Sentence | undefined
): Effect.Effect<Outcome, CommitError, R | SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const pauses = yield* Schedule.driver(patience)
    for (let tries = 1;; tries++) {
      const started = yield* Clock.currentTimeMillis
      const trial: Trial = { attempt: new Attempt(), done: undefined }
      const exit = yield* transaction(write(owner, segment, decided, trial)).pipe(
        Effect.withSpan("processor.commit", {
          captureStackTrace: false,
          attributes: { ...keyOf(owner), operations: segment.operations }
        }),
        owner.turn,
        Effect.exit
      )
      if (Exit.isSuccess(exit)) return yield* settle(owner, segment, exit.value, trial, started)
      const failure = Cause.failureOption(exit.cause)
      if (Option.isNone(failure)) return yield* Effect.failCause(exit.cause as Cause.Cause<never>)
      const error = failure.value
      if (error instanceof Cursors.Fenced || error instanceof Cursors.CursorConflict) return yield* Effect.fail(error)
      const fault = error instanceof CommitUnknown
        ? "unknown"
        : error instanceof RolledBack
        ? "drift"
        : Fault.classify(error)
      if (fault === "unknown") {
        yield* owner.report(Incident.Waiting({ ...keyOf(owner), fault, failure: error, attempt: tries }))
        const now = yield* persist(owner, Cursors.settled(owner.cursor))
        if (
          trial.done !== undefined && now?.sequence === trial.done.cursor.sequence &&
          now.epoch === trial.done.cursor.epoch
        ) {
          return yield* settle(owner, segment, trial.done, trial, started)
        }
      } else if (fault === "infrastructure") {
        yield* owner.report(Incident.Waiting({ ...keyOf(owner), fault, failure: error, attempt: tries }))
        yield* Effect.ignore(pauses.next(undefined))
      } else if (fault === "conflict") {
        yield* Effect.sleep(Math.min(tries, 100))
      } else if (fault === "poison") {
        return { _tag: "Poison", failure: error, culprit: trial.attempt.current?.operation }
      } else {
        return yield* new Halted({ ...keyOf(owner), fault, at: undefined, cause: error })
      }
    }
  })

/** One try: what the handler was doing, and what the transaction would have done had its COMMIT been answered. */
interface Trial {
  readonly attempt: Attempt
  done: Written | undefined
}

interface Written {
  readonly cursor: Cursors.Cursor
  readonly sifted: Sifted
}

/** The body of the transaction. */
const write = <R>(owner: Owner<R>, segment: Segment.Segment, decided: Sentence | undefined, trial: Trial) =>
  Effect.gen(function*() {
    const held = yield* holdFor(owner)
    const progress = yield* Progress.load(held, segment.strands)
    const fromLetters = Segment.isFromLetters(segment)
    const queues = held.parked === 0 || fromLetters
      ? new Map<string, Letters.Queue>()
      : yield* Letters.queues(held, segment.strands)
    const blocking = fromLetters ? yield* Letters.firstBlocking(held, segment.strands) : new Map<string, bigint>()
    const sifted = sift(segment, { progress, queues, blocking }, owner.policy, decided)
    if (sifted.halted !== undefined) {
      trial.attempt.current = { strand: segment.strands[0]!, operation: sifted.halted.operation }
      return yield* Effect.fail(sifted.halted.failure)
    }
    if (sifted.operations > 0) yield* owner.handler.run(sifted.strands, trial.attempt)
    yield* Progress.save(held, progress)
    yield* Letters.append(held, sifted.drafts)
    yield* Letters.remove(held, sifted.done)
    yield* Effect.forEach(
      sifted.failedAgain,
      ({ failure, ordinal }) => Letters.failedAgain(held, ordinal, failure),
      { discard: true }
    )
    const position = fromLetters ? held.position : segment.position
    trial.done = {
      cursor: yield* Cursors.advance(held, position, sifted.drafts.length - sifted.done.length),
      sifted
    }
    return trial.done
  })

const holdFor = <R>(owner: Owner<R>) =>
  owner.fenced ? Cursors.hold(owner.cursor) : Effect.flatMap(
    Cursors.settled(owner.cursor),
    (found) =>
      found === undefined
        ? Effect.fail(new Cursors.CursorConflict({ ...keyOf(owner), expected: "a cursor", found: "nothing" }))
        : Effect.succeed(found)
  )

/** Takes the transaction's outcome as done: moves the owner's cursor and tells what happened. */
const settle = <R>(
  owner: Owner<R>,
  segment: Segment.Segment,
  { cursor, sifted }: Written,
  trial: Trial,
  started: number
): Effect.Effect<Outcome> =>
  Effect.gen(function*() {
    owner.cursor = cursor
    const key = keyOf(owner)
    for (const setback of sifted.parked) yield* owner.report(Incident.Parked({ ...key, ...setback }))
    for (const setback of sifted.skipped) yield* owner.report(Incident.Skipped({ ...key, ...setback }))
    const commit: Commit = {
      ...key,
      position: cursor.position,
      sequence: cursor.sequence,
      operations: sifted.operations,
      redelivered: sifted.redelivered,
      superseded: sifted.superseded,
      parked: sifted.parked.length,
      queued: sifted.drafts.length - sifted.parked.length + sifted.failedAgain.length,
      skipped: sifted.skipped.length,
      released: sifted.done.length,
      waiting: cursor.parked,
      durationMillis: (yield* Clock.currentTimeMillis) - started,
      handled: trial.attempt.handled
    }
    const stirred = Segment.isFromLetters(segment) ? [] : Array.from(sifted.stirred)
    return { _tag: "Committed", commit, stirred }
  })

/** The letters of these documents that may leave now, as segments of at most {@link releaseMax} operations. */
const releases = <R>(owner: Owner<R>, documents: ReadonlyArray<string>) =>
  Effect.forEach(
    documents,
    (documentId) =>
      Effect.map(persist(owner, Release.free(owner.cursor, documentId)), (free) => inSegments(owner, free))
  ).pipe(
    Effect.map((found) => found.flat())
  )

const inSegments = <R>(owner: Owner<R>, chosen: ReadonlyArray<Letters.Letter>): ReadonlyArray<Segment.Segment> =>
  Chunk.toReadonlyArray(Chunk.chunksOf(Chunk.fromIterable(chosen), releaseMax)).map((some) =>
    Segment.fromLetters(Chunk.toReadonlyArray(some), owner.cursor.position)
  )

/** Repeats a read until the database answers it. A failure that is not the database's being away halts. */
const persist = <A, R, R2>(
  owner: Owner<R>,
  read: Effect.Effect<A, SqlError, R2>
): Effect.Effect<A, Halted, R2> =>
  read.pipe(
    Effect.tapError((failure) =>
      owner.report(Incident.Waiting({ ...keyOf(owner), fault: Fault.classify(failure), failure, attempt: 1 }))
    ),
    Effect.retry({ schedule: patience, while: (failure) => Fault.classify(failure) === "infrastructure" }),
    Effect.mapError((failure) =>
      new Halted({ ...keyOf(owner), fault: Fault.classify(failure), at: undefined, cause: failure })
    )
  )

const keyOf = <R>(owner: Owner<R>): Cursors.Key => ({ processor: owner.cursor.processor, source: owner.cursor.source })
