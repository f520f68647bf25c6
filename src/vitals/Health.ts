/**
 * Health: whether a reactor does its work, and if not, what is wrong.
 *
 *     every 30 s ─▶ database answers? how fast? ─┐
 *                   tables there?                ├─▶ Report ─▶ Subscribable
 *                   each subscription's pulse ───┘
 *
 * Three signals judge a subscription: its loop shows a beat, its cursor is at the source's head when it is idle, and the
 * oldest operation that it has read does not wait while it stays in one phase. One signal alone can be fooled; a dead loop
 * has no lag to report.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Subscribable from "effect/Subscribable"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { SourceError } from "../ingest/Source.js"
import * as Fault from "../process/Fault.js"
import * as Cursors from "../store/Cursors.js"
import { Pulses } from "./Pulse.js"
import type { Phase, Pulse } from "./Pulse.js"

export interface Report {
  /** Whether nothing below is wrong. */
  readonly isHealthy: boolean
  readonly atMillis: number
  readonly database:
    | { readonly isReachable: true; readonly latencyMillis: number }
    | { readonly isReachable: false; readonly reason: string }
  /** The tables that were asked for, and whether each is there. */
  readonly tables: ReadonlyArray<{ readonly name: string; readonly isPresent: boolean }>
  readonly subscriptions: ReadonlyArray<SubscriptionReport>
  /** Everything that is wrong, in sentences. */
  readonly complaints: ReadonlyArray<string>
  /** What somebody should look at although the work goes on: dead letters. Nothing here makes a report unhealthy. */
  readonly notices: ReadonlyArray<string>
}

export interface SubscriptionReport {
  readonly processor: string
  readonly source: string
  readonly phase: Phase
  /** How long it has been in that phase, in milliseconds. */
  readonly forMillis: number
  readonly position: bigint | undefined
  /** How many positions the source's head is ahead, where the source knows its head. */
  readonly behindPositions: bigint | undefined
  /** How old the oldest operation is that was read and is not committed, in milliseconds. */
  readonly oldestWaitingMillis: number | undefined
  /** Dead letters that wait. */
  readonly parked: number
  readonly complaints: ReadonlyArray<string>
  readonly notices: ReadonlyArray<string>
}

export interface Options {
  /** How often to check; every 30 s when left out. */
  readonly every?: Duration.DurationInput
  /** Tables that must be there. */
  readonly tables?: ReadonlyArray<string>
  /** How long a commit may take before its loop counts as stalled; 1 minute when left out. */
  readonly stalledAfter?: Duration.DurationInput
  /** How long an operation that was read may wait for its commit; 1 minute when left out. */
  readonly waitingMax?: Duration.DurationInput
  /** How long the database may take to answer; 5 s when left out. */
  readonly answerWithin?: Duration.DurationInput
}

export class Health extends Context.Tag("effect-processors/Health")<Health, {
  /** The last report, and every one from now on. */
  readonly report: Subscribable.Subscribable<Report>
  /** Checks now, and publishes what it finds. */
  readonly check: Effect.Effect<Report>
  /** Whether the database answers and has this table or view: `healthCheck` of the specs. */
  readonly healthCheck: (tableName: string) => Effect.Effect<boolean>
}>() {}

/** Checks once before the layer is ready, then on its interval, until the scope closes. */
export const layer = (options: Options = {}): Layer.Layer<Health, never, SqlClient.SqlClient | Pulses> =>
  Layer.scoped(
    Health,
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const pulses = yield* Pulses
      const limits: Limits = {
        stalledAfterMillis: Duration.toMillis(options.stalledAfter ?? "1 minute"),
        waitingMaxMillis: Duration.toMillis(options.waitingMax ?? "1 minute"),
        answerWithin: options.answerWithin ?? "5 seconds"
      }
      const examine = Effect.flatMap(pulses.all, (all) => inspect(sql, options.tables ?? [], all, limits))
      const latest = yield* SubscriptionRef.make(yield* examine)
      const check = Effect.tap(examine, (report) => SubscriptionRef.set(latest, report))
      yield* check.pipe(
        Effect.tap((report) => report.isHealthy ? Effect.void : Effect.logWarning("unhealthy", ...report.complaints)),
        Effect.schedule(Schedule.spaced(options.every ?? "30 seconds")),
        Effect.forkScoped
      )
      return {
        report: latest,
        check,
        healthCheck: (tableName) =>
          answered(hasTable(sql, tableName), limits).pipe(Effect.map(Either.getOrElse(() => false)))
      }
    })
  )

interface Limits {
  readonly stalledAfterMillis: number
  readonly waitingMaxMillis: number
  readonly answerWithin: Duration.DurationInput
}

const inspect = (
  sql: SqlClient.SqlClient,
  tables: ReadonlyArray<string>,
  pulses: ReadonlyArray<Pulse>,
  limits: Limits
): Effect.Effect<Report> =>
  Effect.gen(function*() {
    const atMillis = yield* Clock.currentTimeMillis
    const [took, answer] = yield* Effect.timed(answered(sql`SELECT 1`, limits))
    const holder = sql.onDialectOrElse({
      sqlite: () => pulses.find((pulse) => pulse.phase === "working"),
      orElse: () => undefined
    })
    const database = Either.isRight(answer)
      ? { isReachable: true as const, latencyMillis: Duration.toMillis(took) }
      : {
        isReachable: false as const,
        // SQLite has one connection, and a commit has it to itself.
        reason: holder === undefined
          ? answer.left
          : `${answer.left}, while ${holder.key.processor} holds it for a commit`
      }
    const present = yield* Effect.forEach(tables, (name) =>
      database.isReachable
        ? Effect.map(answered(hasTable(sql, name), limits), (found) => ({
          name,
          isPresent: Either.getOrElse(found, () => false)
        }))
        : Effect.succeed({ name, isPresent: false }))
    const subscriptions = yield* Effect.forEach(pulses, (pulse) =>
      Effect.flatMap(
        database.isReachable ? lettersOf(sql, pulse, limits) : Effect.succeed(pulse.parked),
        (parked) => examinePulse(pulse, parked, atMillis, limits)
      ))
    const complaints = [
      ...(database.isReachable ? [] : [`the database does not answer: ${database.reason}`]),
      ...present.flatMap(({ isPresent, name }) =>
        isPresent || !database.isReachable ? [] : [`table ${name} is missing`]
      ),
      ...told(subscriptions, "complaints")
    ]
    return {
      isHealthy: complaints.length === 0,
      atMillis,
      database,
      tables: present,
      subscriptions,
      complaints,
      notices: told(subscriptions, "notices")
    }
  })

const told = (subscriptions: ReadonlyArray<SubscriptionReport>, what: "complaints" | "notices") =>
  subscriptions.flatMap((each) => each[what].map((text) => `${each.processor} on ${each.source} ${text}`))

/** Dead letters that wait: the database knows of those that were retried or dropped since the last commit. */
const lettersOf = (sql: SqlClient.SqlClient, pulse: Pulse, limits: Limits): Effect.Effect<number> =>
  Effect.map(
    answered(Effect.provideService(Cursors.peek(pulse.key), SqlClient.SqlClient, sql), limits),
    (found) => Either.getOrUndefined(found)?.parked ?? pulse.parked
  )

const examinePulse = (
  pulse: Pulse,
  parked: number,
  now: number,
  limits: Limits
): Effect.Effect<SubscriptionReport> =>
  Effect.gen(function*() {
    const oldest = yield* pulse.oldestWaiting
    // A source that does not tell its head in time must not keep the report from being made.
    const head = Either.getOrElse(yield* answered(pulse.head, limits), Option.none)
    const oldestWaitingMillis = oldest === undefined ? undefined : Math.max(0, now - Date.parse(oldest))
    const behindPositions = Option.getOrUndefined(
      Option.map(head, (position) => pulse.position === undefined ? position : position - pulse.position)
    )
    const forMillis = now - pulse.sinceMillis
    const stuck = pulse.phase === "working" && now - pulse.beatMillis > limits.stalledAfterMillis
    const why = pulse.failure === undefined ? "" : `: ${Fault.describe(pulse.failure)}`
    const complaints = [
      ...(pulse.isGone() ? ["has a dead loop"] : []),
      ...(pulse.phase === "halted" ? [`has halted${why}`] : []),
      ...(pulse.phase === "reopening" ? [`failed and waits to open again${why}`] : []),
      ...(pulse.phase === "waiting" ? [`waits for the database${why}`] : []),
      ...(pulse.phase === "retrying" && forMillis > limits.stalledAfterMillis
        ? [`has been waiting ${forMillis} ms to try an operation again${why}`]
        : []),
      ...(stuck ? [`has been working on one commit for ${now - pulse.beatMillis} ms`] : []),
      ...(pulse.phase === "idle" && behindPositions !== undefined && behindPositions > 0n &&
          forMillis > limits.waitingMaxMillis
        ? [`is idle ${behindPositions} positions behind its source`]
        : []),
      ...(oldestWaitingMillis !== undefined && pulse.phase !== "halted" &&
          forMillis > limits.waitingMaxMillis && oldestWaitingMillis > limits.waitingMaxMillis
        ? [`has had an operation waiting for ${oldestWaitingMillis} ms`]
        : [])
    ]
    return {
      processor: pulse.key.processor,
      source: pulse.key.source,
      phase: pulse.phase,
      forMillis,
      position: pulse.position,
      behindPositions,
      oldestWaitingMillis,
      parked,
      complaints,
      notices: parked > 0 ? [`has ${parked} dead letter${parked === 1 ? "" : "s"}`] : []
    }
  })

/** The answer to a question, or why there is none in time. What was asked is left to end by itself. */
const answered = <A>(
  question: Effect.Effect<A, SqlError | SourceError>,
  limits: Limits
): Effect.Effect<Either.Either<A, string>> =>
  question.pipe(
    Effect.mapError(Fault.describe),
    Effect.either,
    Effect.disconnect,
    Effect.timeoutTo({
      duration: limits.answerWithin,
      onSuccess: (answer) => answer,
      onTimeout: () => Either.left(`no answer within ${Duration.format(Duration.decode(limits.answerWithin))}`)
    })
  )

const hasTable = (sql: SqlClient.SqlClient, name: string): Effect.Effect<boolean, SqlError> =>
  Effect.map(
    sql.onDialectOrElse({
      sqlite: () => sql`SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND name = ${name}`,
      orElse: () =>
        sql`SELECT 1 FROM pg_catalog.pg_class
            WHERE relname = ${name} AND relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_catalog.pg_table_is_visible(oid)`
    }),
    (rows) => rows.length > 0
  )
