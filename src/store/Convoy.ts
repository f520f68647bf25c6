/**
 * A convoy: commits of several owners of one place in one transaction, when they would wait for each other anyway.
 *
 *     commit ─┬ a turn is free ──▶ leads ─┬ nobody waits ─▶ a transaction of its own
 *             └ none is ──▶ waits ─▶ taken └ others do ────▶ BEGIN, all cursors held, all progress read
 *                                                            part · part · part            one after another
 *                                                            all progress saved, all cursors moved, COMMIT
 *
 * Of a database that commits so many transactions a second, or a network with so long a way to it, a crowd of processors gets
 * the more done. What a commit is stays the same: its writes and its cursor, with those of others beside it or without.
 *
 * Invariants: each part is run by the fiber of its owner, on a lease of its own that ends with it; of a convoy in which
 * anything fails, nothing is committed and nothing is told: all go on their own, where a failure means what it always does.
 * One that fails, or is still at work after `patienceMillis`, goes alone for a while, and who is known to be slow never goes
 * with others, so that nobody waits for it but that once. Whoever is called off before it was taken leaves no trace; who has
 * been taken waits for the end, which the database's time-outs bound.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { Statement } from "@effect/sql/Statement"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import { dialectOf } from "../domain/Dialect.js"
import * as Elapsed from "../domain/Elapsed.js"
import { once } from "../domain/Once.js"
import type { Position } from "../domain/Position.js"
import type { Sent } from "../table/Bulk.js"
import * as Copy from "../table/Copy.js"
import * as Crowd from "./Crowd.js"
import type * as Cursors from "./Cursors.js"
import * as Flight from "./Flight.js"
import { Lease } from "./Lease.js"
import type * as Permits from "./Permits.js"
import * as Progress from "./Progress.js"
import { CommitUnknown, run as transaction } from "./Transaction.js"

/** A commit as its owner wants it made. */
export interface Part<E, R> extends Progress.Question {
  readonly follower: Cursors.Cursor
  readonly operations: number
  /** What it writes, once its cursor is held and its progress read. */
  readonly work: (boarding: Boarding) => Effect.Effect<Done, E, R>
}

/** What a part is given. */
export interface Boarding {
  readonly held: Cursors.Cursor
  /** Saved as the part leaves it. */
  readonly progress: Progress.Progress
  /** Whether statements may go with COMMIT. */
  readonly departs: boolean
  /** How many parts there are. */
  readonly together: number
}

/** What a part has come to. */
export interface Done {
  /** Where its cursor goes. */
  readonly position: Position
  /** Statements that go with COMMIT. */
  readonly last: ReadonlyArray<Sent>
}

/** Nothing was committed: everybody is to go on alone. */
export class Dispersed extends Data.TaggedError("Dispersed")<{}> {
  override get message(): string {
    return "the commits of several processors were taken back, to be made one by one"
  }
}

export interface Convoy {
  /** What those of whom nothing is known are expected to take here. */
  readonly newcomers: Newcomers
  /** Whether commits wait for a turn here, so that whoever had one more to make would wait behind them. */
  readonly isCrowded: () => boolean
  /** See {@link Seat.join}. */
  readonly join: <E, R, E2, R2>(
    seat: Seat,
    part: Part<E, R>,
    alone: Effect.Effect<unknown, E2, R2>,
    turn: Permits.Permits
  ) => Effect.Effect<void, Dispersed | CommitUnknown | E2, R | R2>
  /** Makes a commit that goes with no others, when its turn has come. */
  readonly single: <E, R>(alone: Effect.Effect<unknown, E, R>, turn: Permits.Permits) => Effect.Effect<void, E, R>
}

/** Bounds of a convoy. */
const partsMax = 32
const operationsMax = 8_000
/** What its parts are expected to take together, in milliseconds; and one of which nothing is known, at most. */
const expectedMaxMillis = 250
const unknownMillis = 30
/** A batch of so many times the operations of another is not known by what that one took, of which all may have been overhead. */
const knownTimes = 8
/** What newcomers are expected to take fades so with everybody who takes less: to a half with seven of them. */
const fading = 0.9
/** So long after it has begun a part is not waited for any longer. */
const patienceMillis = 1_000
/** How many commits of its own somebody makes that a convoy has failed for; eight times as many after each further one. */
const penaltyMin = 8
const penaltyMax = 4_096

/**
 * What those of whom nothing is known are expected to take, by what others have taken of late: thousands that have one
 * operation each now and then would go in small convoys otherwise until every one of them has had its first.
 */
export class Newcomers {
  private operations = 0
  private millis = unknownMillis

  /** What it takes one of them to handle so many operations: as long as it took others, and longer for more. */
  expectedMillis(operations: number): number {
    return knownTimes * this.operations < operations
      ? unknownMillis
      : Math.min(unknownMillis, this.millis * Math.max(1, operations / this.operations))
  }

  /** Somebody, known or not, has handled so many. */
  note(operations: number, millis: number): void {
    this.operations = operations
    this.millis = Math.max(millis, this.millis * fading)
  }
}

/** An owner's place in the convoys. */
export class Seat {
  /** What was handled, and in how long. */
  private known = { operations: 0, millis: 0 }
  private barred = 0
  private penalty = penaltyMin

  constructor(private readonly convoy: Convoy) {}

  /**
   * Makes a commit, with others or as `alone`, and fails as that does; with {@link Dispersed} where it was made with others
   * in vain, and with {@link CommitUnknown} where nobody knows. `turn` runs around the transaction, if it is its own.
   */
  join<E, R, E2, R2>(
    part: Part<E, R>,
    alone: Effect.Effect<unknown, E2, R2>,
    turn: Permits.Permits
  ): Effect.Effect<void, Dispersed | CommitUnknown | E2, R | R2> {
    return Effect.suspend(() => {
      const isWelcome = this.barred === 0 && this.expectedMillis(part.operations) <= expectedMaxMillis
      if (isWelcome) return this.convoy.join(this, part, alone, turn)
      if (this.barred > 0) this.barred--
      return this.convoy.single(alone, turn)
    })
  }

  /** What it takes to handle so many operations, as far as that is known. */
  expectedMillis(operations: number): number {
    const { convoy, known } = this
    if (known.operations === 0) return convoy.newcomers.expectedMillis(Math.max(1, operations))
    return knownTimes * known.operations < Math.max(1, operations)
      ? Math.max(unknownMillis, known.millis)
      : known.millis * operations / known.operations
  }

  /** Notes what it takes to handle so many operations. */
  timed<A, E, R>(operations: number, work: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.flatMap(
      Elapsed.millis,
      (began) =>
        Effect.onExit(
          work,
          (exit) =>
            Effect.map(
              Elapsed.millis,
              (ended) => this.note(Math.max(1, operations), ended - began, Exit.isSuccess(exit))
            )
        )
    )
  }

  /**
   * Of what came to no end it is only known that it takes no less. A few operations tell nothing of many, unless they take as
   * long.
   */
  private note(operations: number, millis: number, isDone: boolean): void {
    if (!isDone && millis <= this.expectedMillis(operations)) return
    const { convoy, known } = this
    convoy.newcomers.note(operations, millis)
    if (millis >= Math.max(unknownMillis, known.millis) || knownTimes * operations >= known.operations) {
      this.known = { operations, millis }
    }
  }

  /** A convoy has come to its end with it. */
  arrived(): void {
    this.penalty = penaltyMin
  }

  /** A convoy has failed, perhaps for it. */
  bar(): void {
    this.barred = this.penalty
    this.penalty = Math.min(penaltyMax, this.penalty * 8)
  }
}

/** How a rider's part is to be done, and how it went. */
interface Call extends Boarding {
  readonly lease: Lease
  readonly handled: Deferred.Deferred<Exit.Exit<Done, unknown>>
}

/** One convoy, from its beginning on. */
class Trip {
  /** Failed when parts are not waited for any more. */
  readonly late = Deferred.unsafeMake<never, Dispersed>(FiberId.none)
  isLate = false
  /** Whether all has been written, so that only COMMIT is left. */
  isWritten = false
  /** Whose part it is. */
  call: Call | undefined = undefined

  /** Waits for nobody any more, whether or not the part that it is about can be called off. */
  readonly expire: Effect.Effect<void> = Effect.sync(() => {
    this.isLate = true
    const failure = new Dispersed()
    Deferred.unsafeDone(this.late, Effect.fail(failure))
    if (this.call !== undefined) Deferred.unsafeDone(this.call.handled, Effect.succeed(Exit.fail(failure)))
  })
}

/** What a rider is told: to do its part, to lead the next convoy, or that its own has ended before it was its turn. */
type Word = Call | "lead" | "ended"

/** One who waits, or has been taken. */
class Rider {
  readonly called = Deferred.unsafeMake<Word>(FiberId.none)
  readonly over = Deferred.unsafeMake<void, Dispersed | CommitUnknown>(FiberId.none)
  private word: Word | undefined = undefined
  /** Whether it was called off before. */
  private isGone = false

  constructor(readonly seat: Seat, private wanted: Part<unknown, never> | undefined) {}

  /** What it wants made. Not asked for once it was let go of. */
  get part(): Part<unknown, never> {
    return this.wanted!
  }

  /** Its part is done, or is done elsewhere: who still waits with it in hand keeps none of its operations (see `Once`). */
  letGo(): void {
    this.wanted = undefined
  }

  /** It is told once. False if it has gone. */
  tell(word: Word): boolean {
    if (this.word === undefined) {
      this.word = word
      Deferred.unsafeDone(this.called, Effect.succeed(word))
    }
    return !this.isGone
  }

  /** It is called off; what it was told in the same moment. */
  leave(): Word | undefined {
    this.isGone = true
    return this.word
  }
}

/** The convoys of the place that the client in the context reaches, of which so many may be under way at once. */
export const make = (leadersMax: number): Effect.Effect<Convoy, never, SqlClient.SqlClient> =>
  Effect.map(SqlClient.SqlClient, (sql) => {
    // SQLite has one writer: whoever waits for it had better go together.
    const most = dialectOf(sql) === "sqlite" ? 1 : leadersMax
    const line = new Set<Rider>()
    let leaders = 0

    /** Those who go with `first`. */
    const gather = (first: Rider): ReadonlyArray<Rider> => {
      const aboard = [first]
      let { operations } = first.part
      let millis = first.seat.expectedMillis(operations)
      for (const rider of line) {
        operations += rider.part.operations
        millis += rider.seat.expectedMillis(rider.part.operations)
        if (aboard.length === partsMax || operations > operationsMax || millis > expectedMaxMillis) break
        line.delete(rider)
        aboard.push(rider)
      }
      return aboard
    }

    const passOn = Effect.sync(() => {
      for (const next of line) {
        line.delete(next)
        if (next.tell("lead")) return
      }
      leaders--
    })

    const lead = <E, R>(
      rider: Rider,
      alone: Effect.Effect<unknown, E, R>,
      turn: Permits.Permits
    ): Effect.Effect<void, Dispersed | CommitUnknown | E, R> =>
      turn(Effect.suspend((): Effect.Effect<void, Dispersed | CommitUnknown | E, R> => {
        const aboard = gather(rider)
        if (aboard.length > 1) return Effect.provideService(carry(aboard), SqlClient.SqlClient, sql)
        rider.letGo()
        return Effect.asVoid(alone)
      }))

    const join = <E, R>(rider: Rider, alone: Effect.Effect<unknown, E, R>, turn: Permits.Permits) =>
      Effect.uninterruptibleMask((restore) => {
        const leading = Effect.ensuring(restore(lead(rider, alone, turn)), passOn)
        if (leaders < most) {
          leaders++
          return leading
        }
        line.add(rider)
        return restore(Deferred.await(rider.called)).pipe(
          Effect.onInterrupt(() => leaves(rider, line, passOn)),
          Effect.flatMap((word) =>
            word === "lead" ? leading : word === "ended" ? Deferred.await(rider.over) : ride(rider, word, restore)
          )
        )
      })

    /** Who waits for a turn to go alone. */
    const singles = new Set<object>()

    return {
      newcomers: new Newcomers(),
      isCrowded: () => line.size > 0 || singles.size > 0,
      single: (alone, turn) =>
        Effect.suspend(() => {
          const waiter = {}
          singles.add(waiter)
          const begins = Effect.suspend(() => {
            singles.delete(waiter)
            return alone
          })
          return Effect.asVoid(Effect.onInterrupt(turn(begins), () => Effect.sync(() => singles.delete(waiter))))
        }),
      join: <E, R, E2, R2>(
        seat: Seat,
        part: Part<E, R>,
        alone: Effect.Effect<unknown, E2, R2>,
        turn: Permits.Permits
      ): Effect.Effect<void, Dispersed | CommitUnknown | E2, R | R2> =>
        // Each part is run by the fiber that has joined, in its own context.
        Effect.suspend(() => join(new Rider(seat, part as Part<unknown, never>), alone, turn))
    }
  })

/** Who is called off in the moment in which it is called. */
const leaves = (rider: Rider, line: Set<Rider>, passOn: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.suspend(() => {
    line.delete(rider)
    const word = rider.leave()
    if (word === "lead") return passOn
    return word === undefined || word === "ended"
      ? Effect.void
      : Effect.asVoid(Deferred.succeed(word.handled, calledOff))
  })

const calledOff = Exit.interrupt(FiberId.none)

/** Does its part when it is called, and waits for the end: the more so if it is called off. */
const ride = (
  rider: Rider,
  call: Call,
  restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
): Effect.Effect<void, Dispersed | CommitUnknown> =>
  Effect.flatMap(Effect.exit(restore(worked(rider, call))), (exit) => {
    call.lease.end()
    return Effect.zipRight(Deferred.succeed(call.handled, exit), Deferred.await(rider.over))
  })

/** The part, on its lease. */
const worked = ({ part }: Rider, call: Call): Effect.Effect<Done, unknown> =>
  Effect.provideService(once(part.work(call)), SqlClient.TransactionConnection, [call.lease, 0])

/** Takes all to their ends, and says to each which that is. */
const carry = (
  aboard: ReadonlyArray<Rider>
): Effect.Effect<void, Dispersed | CommitUnknown, SqlClient.SqlClient> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const trip = new Trip()
      const timer = yield* Effect.fork(Effect.interruptible(Effect.delay(trip.expire, patienceMillis)))
      const exit = yield* Effect.exit(restore(transaction(body(aboard, trip))))
      yield* Fiber.interruptFork(timer)
      const outcome = Exit.mapErrorCause(exit, (cause) => Cause.fail(verdictOf(aboard, trip, cause)))
      for (const rider of aboard) {
        if (Exit.isSuccess(exit)) rider.seat.arrived()
        yield* Deferred.done(rider.over, outcome)
        rider.tell("ended")
        rider.letGo()
      }
      return yield* outcome
    })
  )

/**
 * A failure that comes with the last statements may be anybody's. Where the leader was called off in the moment of COMMIT,
 * it is not said what became of that.
 */
const verdictOf = (
  aboard: ReadonlyArray<Rider>,
  trip: Trip,
  cause: Cause.Cause<unknown>
): Dispersed | CommitUnknown => {
  const failure = Cause.squash(cause)
  if (failure instanceof CommitUnknown || failure instanceof Dispersed) return failure
  if (Cause.isInterrupted(cause)) return trip.isWritten ? new CommitUnknown({ cause: failure }) : new Dispersed()
  for (const { seat } of aboard) seat.bar()
  return new Dispersed()
}

/** The body of the transaction. The first of those aboard is whose fiber this is. */
const body = Effect.fnUntraced(function*(
  aboard: ReadonlyArray<Rider>,
  trip: Trip
) {
  const sql = yield* SqlClient.SqlClient
  const lease = yield* leased
  const holding = Crowd.holding(sql, aboard.map(({ part }) => part.follower))
  const loading = Progress.loadingAll(sql, aboard.map(({ part }) => part))
  const answers = yield* Flight.send([...holding.statements, ...loading.statements])
  const held = holding.heldOf(answers.slice(0, holding.statements.length))
  // Whose cursor is not where it was finds out by itself.
  if (held === undefined) return yield* dispersed(aboard)
  const progress = loading.progressOf(answers.slice(holding.statements.length))
  const departure = yield* Flight.departure
  const done: Array<Done> = []
  for (const [i, rider] of aboard.entries()) {
    const call: Call = {
      held: held[i]!,
      progress: progress[i]!,
      departs: departure !== undefined,
      together: aboard.length,
      lease: lease.part(),
      handled: yield* Deferred.make<Exit.Exit<Done, unknown>>()
    }
    trip.call = call
    if (trip.isLate) return yield* dispersed(aboard)
    // Who is late goes on by itself, without the others; only the leader is called off, which all would wait for.
    const exit = i === 0
      ? yield* Effect.exit(Effect.raceFirst(worked(rider, call), Deferred.await(trip.late)))
      : rider.tell(call)
      ? yield* Deferred.await(call.handled)
      : calledOff
    call.lease.end()
    if (Exit.isFailure(exit)) return yield* dispersed([rider])
    if (lease.lost !== undefined) return yield* dispersed([rider])
    done.push(exit.value)
  }
  const saving = Progress.savingAll(
    sql,
    aboard.map(({ part }, i) => ({ key: part.follower, progress: progress[i]! }))
  )
  const passages = done.map(({ position }, i) => ({ from: held[i]!, position }))
  if (departure !== undefined) {
    const moving = Crowd.moving(sql, passages, yield* Clock.currentTimeMillis)
    departure([...Copy.merged(done.flatMap(({ last }) => last)), ...[...saving, ...moving].map(sentOf)])
  } else {
    yield* Flight.send(saving)
    const moved = yield* Crowd.moveEach(passages)
    if (moved.includes(undefined)) return yield* dispersed(aboard)
  }
  trip.isWritten = true
})

/** The convoy has failed for some, which go alone for a while. */
const dispersed = (some: ReadonlyArray<Rider>): Effect.Effect<never, Dispersed> =>
  Effect.suspend(() => {
    for (const { seat } of some) seat.bar()
    return new Dispersed()
  })

const sentOf = (statement: Statement<object>): Sent => statement.compile()

/** The connection of the transaction that this is in. */
const leased: Effect.Effect<Lease> = Effect.flatMap(Effect.context<never>(), (context) => {
  const connection = Option.map(Context.getOption(context, SqlClient.TransactionConnection), ([lease]) => lease)
  return Option.isSome(connection) && connection.value instanceof Lease
    ? Effect.succeed(connection.value)
    : Effect.dieMessage("a convoy is in a transaction of its own")
})
