/**
 * A courier: delivers what is in one namespace's outbox, in the order of each lane, for as long as its scope is open.
 *
 *     woken by a commit that has sent, or looking by itself
 *       └▶ claim the outbox ─▶ lanes that are due ─▶ each: deliver, mark, the next one … ─▶ until none is due ─▶ release
 *                                └ 8 at a time      ├ unavailable ─▶ the lane waits 100 ms, doubling to 30 s
 *                                                   └ refused ─────▶ set aside, the lane waits for somebody
 *
 * Of several couriers of one outbox, in however many processes, one delivers at a time: it holds a lease, by the database's
 * clock, renews it while it is at work, and stops by itself when it has not been able to. A process that stands still in the
 * very middle of a delivery, or is killed there, is what makes a message come twice.
 *
 * An outbox that was never used is looked at once, when the courier starts.
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { randomUUID } from "node:crypto"
import * as Elapsed from "../domain/Elapsed.js"
import { MessageRefused, ReceiverUnavailable } from "../process/Dispatcher.js"
import type { Dispatcher, Message } from "../process/Dispatcher.js"
import * as Fault from "../process/Fault.js"
import * as Outbox from "./Outbox.js"
import * as Transaction from "./Transaction.js"

/** What may be set for couriers; every default is here. */
export class Settings extends Context.Reference<Settings>()("effect-processors/Courier/Settings", {
  defaultValue: (): Settings.Values => ({
    concurrency: 8,
    leaseMillis: 15_000,
    answerWithin: "30 seconds",
    pauseMinMillis: 100,
    pauseMaxMillis: 30_000,
    lookMaxMillis: 30_000,
    rememberFor: "7 days"
  })
}) {}

export declare namespace Settings {
  interface Values {
    /** How many lanes are delivered at the same time. */
    readonly concurrency: number
    /** How long others wait for a courier that has gone without a word. */
    readonly leaseMillis: number
    /** How long a receiver may take; then it counts as unavailable. */
    readonly answerWithin: Duration.DurationInput
    /** The first pause after a receiver was unavailable, and the longest; they double, with jitter. */
    readonly pauseMinMillis: number
    readonly pauseMaxMillis: number
    /** The longest pause between two looks at an outbox that has been empty. Commits of this process are told at once. */
    readonly lookMaxMillis: number
    /** How long ids of delivered and dropped messages are remembered, so that they are not sent again. */
    readonly rememberFor: Duration.DurationInput
  }
}

/** What a courier tells of its messages, once that is in the database. */
export interface Told {
  readonly delivered: (message: Message) => Effect.Effect<void>
  readonly postponed: (message: Message, failure: ReceiverUnavailable) => Effect.Effect<void>
  readonly refused: (message: Message, failure: MessageRefused) => Effect.Effect<void>
}

export interface Courier {
  /** Tells that there is something to deliver. */
  readonly wake: Effect.Effect<void>
  /** Waits until everything was delivered that could be: what is left was refused, or its receiver is unavailable. */
  readonly settled: Effect.Effect<void>
  /** Whether anything was ever sent here, as far as the courier knows. */
  readonly isUsed: () => boolean
}

/** How many lanes are looked up at a time, and how many messages of one are delivered before others have their turn. */
const laneMax = { lanes: 100, messages: 1_000, page: 100 }

/** So many deliveries of a round may come to nothing, and none to something, before the rest of the round waits. */
const failuresMax = 16

/** Pauses between looks while something may be due soon, in milliseconds. */
const lookMinMillis = 50

/** The client in the context is that of the outbox's namespace. */
export const make = (
  dispatcher: Context.Tag.Service<Dispatcher>,
  told: Told
): Effect.Effect<Courier, never, SqlClient.SqlClient | Scope.Scope> =>
  Effect.gen(function*() {
    const work: Work = {
      dispatcher,
      told,
      settings: yield* Settings,
      holder: randomUUID(),
      held: undefined,
      isOwing: true,
      delivered: 0,
      failed: 0
    }
    const woken = yield* Effect.makeLatch(false)
    const waiters = new Set<() => void>()
    let isUsed = false
    let isStirred = true
    let isAway = false
    let pauseMillis = lookMinMillis
    let forgottenMillis = 0

    const wake = Effect.suspend(() => {
      isUsed = true
      isStirred = true
      // Commits go on while the receiver is away, and must not make it be asked without end.
      if (isAway) return Effect.void
      pauseMillis = lookMinMillis
      return woken.open
    })

    const tellSettled = () => {
      if (isStirred) return
      for (const resume of waiters) resume()
      waiters.clear()
    }

    const forgetOld = Effect.gen(function*() {
      const now = yield* Clock.currentTimeMillis
      if (now - forgottenMillis < forgetEveryMillis) return
      const forgotten = yield* Outbox.forget(Duration.toMillis(work.settings.rememberFor))
      if (forgotten < 1_000) forgottenMillis = now
    })

    /** Works until nothing is due, and says how long to wait then; `undefined`: until somebody has sent. */
    const look: Effect.Effect<number | undefined, SqlError, SqlClient.SqlClient> = Effect.gen(function*() {
      isUsed ||= yield* Outbox.isUsed
      if (!isUsed) return undefined
      yield* forgetOld
      const result = yield* rounds(work)
      isAway = result === "away"
      if (result === "worked") pauseMillis = lookMinMillis
      const longest = yield* longestPause(work, result)
      const pause = Math.min(pauseMillis, longest)
      pauseMillis = Math.min(2 * pause, longest)
      return pause
    }).pipe(Effect.catchAll((failure) => {
      const pause = Math.min(pauseMillis, longestMillis.away)
      pauseMillis = 2 * pause
      return Effect.as(Effect.logWarning(`the outbox cannot be worked on: ${Fault.describe(failure)}`), pause)
    }))

    const turn = Effect.gen(function*() {
      yield* woken.close
      isStirred = false
      const pause = yield* look
      tellSettled()
      yield* pause === undefined ? woken.await : Effect.timeoutOption(woken.await, pause)
    })

    yield* Effect.addFinalizer(() => work.held === undefined ? Effect.void : Effect.ignore(Outbox.release(work.holder)))
    yield* Effect.forkScoped(Effect.forever(turn))
    return {
      wake,
      isUsed: () => isUsed,
      settled: Effect.async<void>((resume) => {
        const waiter = () => resume(Effect.void)
        waiters.add(waiter)
        isStirred = true
        woken.unsafeOpen()
        return Effect.sync(() => waiters.delete(waiter))
      })
    }
  })

/** How often old ids are looked for, in milliseconds. */
const forgetEveryMillis = 60_000

/** The longest pauses between looks while somebody else delivers, and while the receiver or the database is away. */
const longestMillis = { busy: 1_000, away: 5_000 }

/** What came of a look: nothing was due, or it was delivered or put off, or somebody else is at it, or nobody answers. */
type Result = "nothing" | "worked" | "busy" | "away"

/** How long to wait at most after that. */
const longestPause = (work: Work, result: Result): Effect.Effect<number, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    if (result === "busy" || result === "away") return longestMillis[result]
    if (!work.isOwing) return work.settings.lookMaxMillis
    const due = yield* Outbox.nextDue
    work.isOwing = due !== undefined
    return Math.min(Math.max(due ?? Infinity, lookMinMillis), work.settings.lookMaxMillis)
  })

interface Work {
  readonly dispatcher: Context.Tag.Service<Dispatcher>
  readonly told: Told
  readonly settings: Settings.Values
  /** Who this courier is to others. */
  readonly holder: string
  /** Until when the lease surely lasts, by both of this process's clocks. */
  held: Held | undefined
  /** Whether there may be lanes that wait after a failure. */
  isOwing: boolean
  /** Of this round. */
  delivered: number
  failed: number
}

/**
 * The end of a lease, by the clock on the wall and by the time that goes by: the one may be set back, and the other stands
 * still while the machine sleeps.
 */
interface Held {
  readonly wallMillis: number
  readonly elapsedMillis: number
}

const present: Effect.Effect<Held> = Effect.zipWith(
  Clock.currentTimeMillis,
  Elapsed.millis,
  (wallMillis, elapsedMillis) => ({ wallMillis, elapsedMillis })
)

/** How long the lease surely lasts from now on; nothing without one. */
const leftOf = ({ held }: Work, now: Held): number =>
  held === undefined ? 0 : Math.min(held.wallMillis - now.wallMillis, held.elapsedMillis - now.elapsedMillis)

/** Round after round until nothing is due; nothing at all while somebody else is at it. */
const rounds = (work: Work): Effect.Effect<Result, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    let result: Result = "nothing"
    while ((yield* Outbox.lanes(1)).length > 0) {
      if (!(yield* claim(work))) {
        result = "busy"
        break
      }
      yield* round(work, yield* Outbox.lanes(laneMax.lanes))
      result = isUnanswered(work) ? "away" : "worked"
      if (result === "away") break
    }
    if (work.held !== undefined) {
      work.held = undefined
      yield* Outbox.release(work.holder)
    }
    return result
  })

/** Whether nobody has taken anything in this round, of so many that were asked. */
const isUnanswered = (work: Work): boolean => work.delivered === 0 && work.failed >= failuresMax

const claim = (work: Work): Effect.Effect<boolean, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const { leaseMillis } = work.settings
    const now = yield* present
    if (leftOf(work, now) > leaseMillis / 2) return true
    const isOurs = yield* Outbox.claim(work.holder, leaseMillis)
    work.held = isOurs
      ? { wallMillis: now.wallMillis + leaseMillis, elapsedMillis: now.elapsedMillis + leaseMillis }
      : undefined
    return isOurs
  })

const round = (
  work: Work,
  lanes: ReadonlyArray<Outbox.Lane>
): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.suspend(() => {
    work.delivered = 0
    work.failed = 0
    const renew = Effect.schedule(claim(work), Schedule.spaced(work.settings.leaseMillis / 3))
    return Effect.forEach(lanes, (lane) => deliverLane(work, lane), {
      concurrency: work.settings.concurrency,
      discard: true
    }).pipe(Effect.raceFirst(Effect.zipRight(Effect.ignore(renew), Effect.never)))
  })

/** Delivers a lane in order, to its end, its first failure, or the end of its turn. */
const deliverLane = (work: Work, lane: Outbox.Lane): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    let page: ReadonlyArray<Outbox.Entry> = [lane.first]
    let left = Math.min(lane.messages, laneMax.messages)
    while (page.length > 0) {
      for (const entry of page) {
        if (entry.state !== "waiting" || !(yield* mayGoOn(work)) || !(yield* deliver(work, entry))) return
        left--
      }
      page = left > 0 ? yield* Outbox.behind(page.at(-1)!, Math.min(left, laneMax.page)) : []
    }
  })

/** Whether the outbox is surely ours, and its receiver seems to be there. */
const mayGoOn = (work: Work): Effect.Effect<boolean> =>
  Effect.map(present, (now) => leftOf(work, now) > 0 && !isUnanswered(work))

/** Delivers one message and marks it; false if its lane has to wait. */
const deliver = (work: Work, entry: Outbox.Entry): Effect.Effect<boolean, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const failure = yield* answer(work, entry)
    if (failure === undefined) {
      yield* Outbox.delivered(entry.id)
      work.delivered++
      yield* work.told.delivered(entry)
      return true
    }
    if (failure instanceof MessageRefused) {
      yield* Outbox.setAside(entry.id, failure.message)
      yield* work.told.refused(entry, failure)
      return false
    }
    work.failed++
    work.isOwing = true
    yield* Outbox.postpone(entry.id, failure.message, yield* pauseAfter(work, entry.attempts))
    yield* work.told.postponed(entry, failure)
    return false
  })

/** What the dispatcher says. One that dies is taken for unavailable: nothing is lost, and what is wrong with it can be mended. */
const answer = (
  { dispatcher, settings }: Work,
  message: Message
): Effect.Effect<MessageRefused | ReceiverUnavailable | undefined> =>
  Transaction.outside(dispatcher.deliver(message)).pipe(
    Effect.timeoutFail({
      duration: settings.answerWithin,
      onTimeout: () =>
        new ReceiverUnavailable({
          reason: `no answer within ${Duration.format(Duration.decode(settings.answerWithin))}`
        })
    }),
    Effect.exit,
    Effect.flatMap((exit) => {
      if (Exit.isSuccess(exit)) return Effect.succeed(undefined)
      if (Cause.isInterrupted(exit.cause)) return Effect.failCause(exit.cause as Cause.Cause<never>)
      const failure = Option.getOrUndefined(Cause.failureOption(exit.cause))
      if (failure !== undefined) return Effect.succeed(failure)
      const cause = Cause.squash(exit.cause)
      return Effect.as(
        Effect.logError("the dispatcher died", exit.cause),
        new ReceiverUnavailable({ reason: `the dispatcher died: ${Fault.describe(cause)}`, cause })
      )
    })
  )

const pauseAfter = ({ settings }: Work, attempts: number): Effect.Effect<number> =>
  Effect.map(
    Random.nextRange(0.8, 1.2),
    (jitter) =>
      Math.round(jitter * Math.min(settings.pauseMinMillis * 2 ** Math.min(attempts, 30), settings.pauseMaxMillis))
  )
