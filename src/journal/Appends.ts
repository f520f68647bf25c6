/**
 * Appends: those of one process wait in a line, and whoever stands in it when the last commit is done is committed together.
 *
 *     append ──▶ │ line, bounded │ ──▶ group ──▶ one transaction ──▶ each append's own outcome
 *     append ──▶ │               │       └ the database is away: again, for as long as an append's patience lasts
 *
 * A lone append waits for nobody. An append that is interrupted leaves the line; one whose group is being committed is
 * waited for, so that once it has ended nothing of it happens any more. A group that cannot be written is taken apart, so
 * that what is wrong with one append is nobody else's failure.
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { Unplaced } from "../ingest/Source.js"
import * as Fault from "../process/Fault.js"
import * as Pauses from "../process/Pauses.js"
import { CommitUnknown, RolledBack, turn, withoutTurn as transaction } from "../store/Transaction.js"
import * as Admission from "./Admission.js"
import * as Group from "./Group.js"
import type * as Log from "./Log.js"
import type { Addition } from "./Tail.js"

/** An append came to no answer: the database was away for longer than was waited, or cannot do what it is asked. */
export class JournalUnavailable extends Data.TaggedError("JournalUnavailable")<{
  readonly journal: string
  /**
   * Whether anything was stored: `nothing`, or nobody knows, and then the same append tells, since what is there already is
   * not stored again.
   */
  readonly outcome: "nothing" | "unknown"
  readonly cause: unknown
}> {
  override get message(): string {
    const outcome = this.outcome === "nothing" ? "nothing was stored" : "it is not known whether it was stored"
    return `journal ${this.journal} is not available, ${outcome}: ${Fault.describe(this.cause)}`
  }
}

export type AppendError = Admission.Refusal | JournalUnavailable

export interface Settings {
  /** How long an append is tried while the database is away. */
  readonly patience: Duration.DurationInput
}

/** The most appends in line; more wait before it. */
const lineMax = 1_024
/** Bytes that fill the line, and a group; the append that reaches the bound may exceed it. */
const lineBytesMax = 8 * 1024 * 1024
/** Operations that fill a group, likewise. */
const groupOperationsMax = 10_000

/** Appends strands: all of them, or none and why. */
export type Append = (strands: ReadonlyArray<Unplaced>) => Effect.Effect<Group.Receipt, AppendError>

/** Starts the fiber that commits, for as long as the scope lasts; `committed` is told what each group has put into the log. */
export const make = (
  log: Log.Log,
  settings: Settings,
  committed: (addition: Addition) => Effect.Effect<void>
): Effect.Effect<Append, never, SqlClient.SqlClient | Scope.Scope> =>
  Effect.gen(function*() {
    const line = new Line(yield* Effect.makeLatch(false), yield* Effect.makeLatch(true))
    const desk: Desk = { log, settings, committed, line }
    yield* Effect.addFinalizer(() =>
      Effect.forEach(line.close(), (one) => Deferred.fail(one.answer, closed(log, one)), { discard: true })
    )
    yield* Effect.forkScoped(Effect.forever(serve(desk)))
    return (strands) =>
      Effect.gen(function*() {
        const prepared = yield* Admission.prepare(strands)
        return yield* queue(desk, new Waiting(prepared, yield* Deferred.make<Group.Receipt, AppendError>()))
      })
  })

/** Where appends are served. */
interface Desk {
  readonly log: Log.Log
  readonly settings: Settings
  readonly committed: (addition: Addition) => Effect.Effect<void>
  readonly line: Line
}

/** Stands in line until there is an answer. */
const queue = ({ line, log }: Desk, one: Waiting): Effect.Effect<Group.Receipt, AppendError> =>
  Effect.onInterrupt(
    Effect.flatMap(line.enter(one), (isOpen) => isOpen ? Deferred.await(one.answer) : Effect.fail(closed(log, one))),
    () => {
      one.isWithdrawn = true
      return line.leave(one) === "committing" ? Effect.exit(Deferred.await(one.answer)) : Effect.void
    }
  )

type Restore = <A, E, R>(pause: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** Serves the next group. What has begun is brought to its end also when the journal is closed; only waiting is not. */
const serve = (desk: Desk): Effect.Effect<void, never, SqlClient.SqlClient> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(desk.line.next(restore), (group) =>
      Effect.catchAllDefect(
        commit(desk, group, restore),
        (defect) => Effect.forEach(group, (one) => settle(desk, one, Exit.die(defect)), { discard: true })
      ))
  )

/** Tries a group until each of it has an answer. */
const commit = (
  desk: Desk,
  group: ReadonlyArray<Waiting>,
  restore: Restore
): Effect.Effect<void, never, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const pauses = yield* Pauses.make(pausesOf(desk.settings.patience))
    for (;;) {
      const live = yield* stillWanted(desk, group)
      if (live.length === 0) return
      const exit = yield* Effect.exit(write(desk, live))
      if (Exit.isSuccess(exit)) {
        const { outcomes } = exit.value
        // The appenders go on before the readers, who have more to do.
        yield* Effect.forEach(live, (one, i) => settle(desk, one, exitOf(outcomes[i]!)), { discard: true })
        yield* desk.committed(exit.value)
        return yield* turn
      }
      yield* turn
      const failure = Option.getOrUndefined(Cause.failureOption(exit.cause))
      if (failure instanceof CommitUnknown) live.forEach((one) => one.isUnknown = true)
      if (failure !== undefined && isPassing(failure)) {
        if (yield* restore(pauses.next(failure, () => Effect.void))) continue
      } else if (live.length > 1) {
        return yield* Effect.forEach(live, (one) => commit(desk, [one], restore), { discard: true })
      }
      return yield* Effect.forEach(live, (one) =>
        settle(
          desk,
          one,
          failure === undefined
            ? Exit.failCause(exit.cause as Cause.Cause<never>)
            : Exit.fail(unavailable(desk.log, one, failure))
        ), { discard: true })
    }
  })

const write = ({ log }: Desk, live: ReadonlyArray<Waiting>) =>
  transaction(Group.write(log, live.map(({ prepared }) => prepared))).pipe(
    Effect.withSpan("journal.append", {
      captureStackTrace: false,
      attributes: { journal: log.name, appends: live.length }
    })
  )

/** Those of a group whose appenders are still there; the others are let go. */
const stillWanted = (desk: Desk, group: ReadonlyArray<Waiting>): Effect.Effect<ReadonlyArray<Waiting>> =>
  Effect.as(
    Effect.forEach(group.filter((one) => one.isWithdrawn), (one) => settle(desk, one, Exit.interrupt(FiberId.none))),
    group.filter((one) => !one.isWithdrawn)
  )

const settle = ({ line }: Desk, one: Waiting, exit: Exit.Exit<Group.Receipt, AppendError>): Effect.Effect<boolean> =>
  Effect.suspend(() => {
    line.done(one)
    return Deferred.done(one.answer, exit)
  })

const unavailable = (log: Log.Log, one: Waiting, cause: unknown): JournalUnavailable =>
  new JournalUnavailable({ journal: log.name, outcome: one.isUnknown ? "unknown" : "nothing", cause })

const closed = (log: Log.Log, one: Waiting): JournalUnavailable => unavailable(log, one, new Error("it was closed"))

/** 5 ms doubling to 1 s, with jitter: appenders of other processes are busy for a moment, an outage lasts. */
export const pausesOf = (patience: Duration.DurationInput): Schedule.Schedule<unknown> =>
  Schedule.exponential("5 millis").pipe(
    Schedule.either(Schedule.spaced("1 second")),
    Schedule.jittered,
    Schedule.upTo(patience)
  )

export const isPassing = (failure: unknown): boolean =>
  failure instanceof CommitUnknown || (!(failure instanceof RolledBack) && Fault.isPassing(failure))

const exitOf = (outcome: Group.Outcome): Exit.Exit<Group.Receipt, AppendError> =>
  Either.match(outcome, { onLeft: (refusal) => Exit.fail(refusal), onRight: (receipt) => Exit.succeed(receipt) })

/** An append on its way. */
class Waiting {
  /** Whether its appender was interrupted. */
  isWithdrawn = false
  /** Whether a COMMIT of it was not answered. */
  isUnknown = false

  constructor(
    readonly prepared: Admission.Prepared,
    readonly answer: Deferred.Deferred<Group.Receipt, AppendError>
  ) {}
}

/** Those that wait for a group, and those of the group that is being committed. */
class Line {
  private isClosed = false
  private waiting: Array<Waiting> = []
  private readonly committing = new Set<Waiting>()
  private bytes = 0

  constructor(
    /** Open while somebody waits. */
    private readonly news: Effect.Latch,
    /** Open while there is room. */
    private readonly space: Effect.Latch
  ) {}

  /** Waits for room, and stands in line; false when it is closed. */
  enter(one: Waiting): Effect.Effect<boolean> {
    return Effect.suspend(() => {
      if (this.isClosed) return Effect.succeed(false)
      if (this.isFull) return Effect.zipRight(this.space.await, this.enter(one))
      this.waiting.push(one)
      this.bytes += one.prepared.bytes
      this.update()
      return Effect.succeed(true)
    })
  }

  /** Takes one out that is still waiting, and tells where it was found. */
  leave(one: Waiting): "waiting" | "committing" | "nowhere" {
    if (this.committing.has(one)) return "committing"
    const at = this.waiting.indexOf(one)
    if (at === -1) return "nowhere"
    this.waiting.splice(at, 1)
    this.bytes -= one.prepared.bytes
    this.update()
    return "waiting"
  }

  /** The next group, as soon as there is one: as many as fit, at least one. */
  next(restore: Restore): Effect.Effect<ReadonlyArray<Waiting>> {
    return Effect.suspend(() =>
      this.waiting.length === 0
        ? Effect.zipRight(restore(this.news.await), this.next(restore))
        : Effect.succeed(this.take())
    )
  }

  done(one: Waiting): void {
    this.committing.delete(one)
  }

  /** Lets nobody in any more, and returns all who have no answer yet. */
  close(): ReadonlyArray<Waiting> {
    this.isClosed = true
    this.space.unsafeOpen()
    return [...this.committing, ...this.waiting]
  }

  private take(): ReadonlyArray<Waiting> {
    let operations = 0
    let count = 0
    while (count < this.waiting.length && operations < groupOperationsMax) {
      operations += this.waiting[count++]!.prepared.operations
    }
    const group = this.waiting.splice(0, count)
    for (const one of group) {
      this.bytes -= one.prepared.bytes
      this.committing.add(one)
    }
    this.update()
    return group
  }

  private get isFull(): boolean {
    return this.waiting.length >= lineMax || this.bytes >= lineBytesMax
  }

  private update(): void {
    if (this.waiting.length === 0) this.news.unsafeClose()
    else this.news.unsafeOpen()
    if (this.isFull) this.space.unsafeClose()
    else this.space.unsafeOpen()
  }
}
