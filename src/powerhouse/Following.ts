/**
 * A following: a program that keeps a journal up to date with a remote drive, for ever, and tells how it fares.
 *
 *     round ──▶ news? ─┬─ more is waiting ──▶ next round at once
 *       ▲              └─ none ──▶ a pause, which doubles while nothing comes
 *       └── fails ─┬─ passing: a longer pause, with jitter
 *                  └─ lasting: halted, and the failure is the program's
 *
 * Invariant: a round acknowledges to the remote only what the journal has committed. So a following may be ended at any
 * moment and begun again; what was not acknowledged comes again, and what is in the journal is not stored twice.
 */

import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import type * as Subscribable from "effect/Subscribable"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { quote } from "../domain/Operation.js"
import type { SourceName } from "../ingest/Source.js"
import type { Journal, JournalUnavailable } from "../journal/Journal.js"
import * as Fault from "../process/Fault.js"
import { turn } from "../store/Transaction.js"
import type { AnswerTooLarge, AskError, Unauthorized } from "./Endpoint.js"
import type { Refused } from "./Uptake.js"

/** What ends a following: waiting does not help. */
export type FollowError = Unauthorized | AnswerTooLarge

/** What a round may fail with. */
export type RoundError = AskError | JournalUnavailable

/** How long to wait between rounds. */
export interface Pauses {
  /** After a round that brought something. Default: 250 ms. */
  readonly min?: Duration.DurationInput | undefined
  /** At most, while nothing comes. Default: 5 seconds. */
  readonly max?: Duration.DurationInput | undefined
  /** At most, while rounds fail. Default: 1 minute. */
  readonly failing?: Duration.DurationInput | undefined
}

/**
 * - `connecting`: nothing was answered yet;
 * - `following`: the last round was answered;
 * - `waiting`: the last round failed, and is tried again;
 * - `halted`: it has ended with a failure that lasts.
 */
export type Phase = "connecting" | "following" | "waiting" | "halted"

export interface Status {
  readonly phase: Phase
  /** When the phase began, in milliseconds since 1970. */
  readonly sinceMillis: number
  /** When the remote last answered, likewise. */
  readonly answeredMillis: number | undefined
  /** Whether the last round found nothing that was not in the journal, and nothing that is refused. */
  readonly isCaughtUp: boolean
  /** Operations that were appended to the journal since it was begun, by rounds that came to their end. */
  readonly appended: number
  /** Operations that came and were in the journal already, likewise. */
  readonly known: number
  /** How often the remote was told anew who follows it, likewise. */
  readonly registrations: number
  /** Streams that cannot go on: the journal refuses an operation of theirs. At most {@link refusedMax}. */
  readonly refused: ReadonlyArray<Refused>
  /** Why the last round failed, if it did. */
  readonly failure: RoundError | undefined
}

/** Refused streams that are told of. */
export const refusedMax = 1_000

export class Following extends Context.Tag("effect-processors/Following")<Following, {
  /** The endpoint, without what may be secret in its URL. */
  readonly endpoint: string
  readonly journal: SourceName
  /** How it fares, and every change from now on. */
  readonly status: Subscribable.Subscribable<Status>
  /** Waits for its end, which is a failure. */
  readonly await: Effect.Effect<never, FollowError>
}>() {}

/** What a round came to. */
export interface Round {
  readonly appended: number
  readonly known: number
  readonly registrations: number
  /** Whether the remote is known, or likely, to have more. */
  readonly isMore: boolean
  /** Whether the next round will not be the same one again. */
  readonly gotOn: boolean
  /** All streams that are refused now. */
  readonly refused: ReadonlyArray<Refused>
}

/** Begins following, and goes on until the scope closes. Its complaints are the journal's meanwhile. */
export const begin = (
  endpoint: string,
  journal: Context.Tag.Service<Journal>,
  round: Effect.Effect<Round, RoundError>,
  pauses: Pauses = {}
): Effect.Effect<Context.Tag.Service<Following>, never, Scope.Scope> =>
  Effect.gen(function*() {
    const status = yield* SubscriptionRef.make<Status>({
      phase: "connecting",
      sinceMillis: yield* Clock.currentTimeMillis,
      answeredMillis: undefined,
      isCaughtUp: false,
      appended: 0,
      known: 0,
      registrations: 0,
      refused: [],
      failure: undefined
    })
    const limits: Limits = {
      minMillis: Math.max(1, Duration.toMillis(pauses.min ?? "250 millis")),
      maxMillis: Duration.toMillis(pauses.max ?? "5 seconds"),
      failingMillis: Duration.toMillis(pauses.failing ?? "1 minute")
    }
    const fiber = yield* Effect.forkScoped(
      Effect.annotateLogs(forEver(status, round, limits), { endpoint, journal: journal.name })
    )
    yield* journal.heed(
      Effect.zipWith(SubscriptionRef.get(status), Clock.currentTimeMillis, (now, nowMillis) =>
        complaints(now, nowMillis).map((text) =>
          `is filled from ${endpoint}, which ${text}`
        ))
    )
    return { endpoint, journal: journal.name, status, await: Fiber.join(fiber) }
  })

interface Limits {
  readonly minMillis: number
  readonly maxMillis: number
  readonly failingMillis: number
}

const forEver = (
  status: SubscriptionRef.SubscriptionRef<Status>,
  round: Effect.Effect<Round, RoundError>,
  limits: Limits
): Effect.Effect<never, FollowError> =>
  Effect.gen(function*() {
    let quietRounds = 0
    let failedRounds = 0
    for (;;) {
      const outcome = yield* Effect.either(round)
      if (outcome._tag === "Right") {
        failedRounds = 0
        quietRounds = outcome.right.gotOn ? 0 : quietRounds + 1
        yield* answered(status, outcome.right)
        yield* outcome.right.isMore && outcome.right.gotOn
          ? turn
          : pause(limits.minMillis, limits.maxMillis, quietRounds)
      } else if (outcome.left._tag === "Unauthorized" || outcome.left._tag === "AnswerTooLarge") {
        yield* failed(status, "halted", outcome.left)
        return yield* outcome.left
      } else {
        yield* failed(status, "waiting", outcome.left)
        yield* pause(limits.minMillis, limits.failingMillis, ++failedRounds)
      }
    }
  })

/** `minMillis` doubled so many times, at most `maxMillis`, of which half is left to chance. */
const pause = (minMillis: number, maxMillis: number, times: number): Effect.Effect<void> =>
  Effect.flatMap(Random.next, (chance) => {
    const millis = Math.min(minMillis * 2 ** Math.min(times, 30), Math.max(minMillis, maxMillis))
    return Effect.sleep(millis / 2 + chance * millis / 2)
  })

const answered = (status: SubscriptionRef.SubscriptionRef<Status>, round: Round): Effect.Effect<void> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    SubscriptionRef.update(status, (was): Status => ({
      phase: "following",
      sinceMillis: was.phase === "following" ? was.sinceMillis : now,
      answeredMillis: now,
      isCaughtUp: round.appended === 0 && !round.isMore && round.refused.length === 0,
      appended: was.appended + round.appended,
      known: was.known + round.known,
      registrations: was.registrations + round.registrations,
      refused: round.refused.slice(0, refusedMax),
      failure: undefined
    })))

const failed = (
  status: SubscriptionRef.SubscriptionRef<Status>,
  phase: Phase,
  failure: RoundError
): Effect.Effect<void> =>
  Effect.gen(function*() {
    const now = yield* Clock.currentTimeMillis
    const was = yield* SubscriptionRef.getAndUpdate(status, (before): Status => ({
      ...before,
      phase,
      sinceMillis: before.phase === phase ? before.sinceMillis : now,
      isCaughtUp: false,
      failure
    }))
    if (was.phase !== phase) yield* Effect.logWarning(`${phase}: ${Fault.describe(failure)}`)
  })

/**
 * What an operator should know of, and what to do about it: empty while all is well. `quietMax` is how long no answer is no
 * complaint. A journal tells them to `Health`.
 */
export const complaints = (
  { failure, phase, refused, sinceMillis }: Status,
  nowMillis: number,
  quietMax: Duration.DurationInput = "1 minute"
): ReadonlyArray<string> => {
  const why = failure === undefined ? "" : `: ${Fault.describe(failure)}; ${cureOf(failure)}`
  const forMillis = nowMillis - sinceMillis
  const [first] = refused
  return [
    ...(phase === "halted" ? [`has halted${why}`] : []),
    ...(phase !== "halted" && phase !== "following" && forMillis > Duration.toMillis(quietMax)
      ? [`has had no good answer for ${forMillis} ms${why}`]
      : []),
    ...(first === undefined
      ? []
      : [
        `has ${refused.length === 1 ? "a stream" : `${refused.length} streams`} that cannot go on, first with ` +
        `${placeOf(first)}${Fault.describe(first.refusal)}; ${remedyOf(first.refusal)}`
      ])
  ]
}

/** Where a stream stands, unless its refusal says so. */
const placeOf = ({ branch, documentId, index, refusal, scope }: Refused): string =>
  "documentId" in refusal ? "" : `index ${index} of document ${quote(documentId)} (${quote(scope)}, ${quote(branch)}): `

/** What to do about a round that fails. One that is not halted is tried again by itself. */
const cureOf = (failure: RoundError): string => {
  switch (failure._tag) {
    case "Unauthorized":
      return "start it anew with a token that is let in"
    case "AnswerTooLarge":
      return "then start it anew"
    case "EndpointUnavailable":
      return "see whether it runs and can be reached"
    case "MalformedAnswer":
      return "see whether its URL leads to the right endpoint, of a version that this one knows"
    case "QuestionRejected":
      return "see whether there is such a drive, and the token may read it"
    case "JournalUnavailable":
      return "see to the journal's database"
  }
}

/** What to do about a stream. It is asked for again now and then, and goes on by itself once that helps. */
const remedyOf = (refusal: Refused["refusal"]): string => {
  switch (refusal._tag) {
    case "StrandGap":
      return "the remote does not have it either: have it send, or restore, what is missing, or leave the document out"
    case "QuestionRejected":
      return "see whether the document is still there, and the token may read it, or leave the document out"
    case "HistoryRewritten":
    case "ChainBroken":
      return "remote and journal disagree on its history: see which one was put back to an earlier time, and follow " +
        "the remote into a new journal if it is right"
    case "MalformedOperation":
    case "AppendTooLarge":
      return "it cannot be stored as it is: have the remote take it back, or leave the document out"
  }
}
