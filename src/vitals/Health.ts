/**
 * Health: whether a reactor does its work, and if not, what is wrong.
 *
 *     every 30 s ─▶ each namespace answers? how fast? ─┐
 *                   tables there?                      ├─▶ Report ─▶ Subscribable
 *                   each subscription's pulse ─────────┤
 *                   what the sources complain of ──────┘
 *
 * It watches the namespaces of the reactor's processors and those whose tables it is asked for, and creates none.
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
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Subscribable from "effect/Subscribable"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { dialectOf } from "../domain/Dialect.js"
import type { Dialect } from "../domain/Dialect.js"
import * as Partition from "../domain/Partition.js"
import type { Source, SourceError } from "../ingest/Source.js"
import * as Fault from "../process/Fault.js"
import * as Cursors from "../store/Cursors.js"
import * as Namespaces from "../store/Namespaces.js"
import * as Outbox from "../store/Outbox.js"
import * as Metrics from "./Metrics.js"
import { Behind } from "./Precedence.js"
import { inWords, Pulses } from "./Pulse.js"
import type { Phase, Pulse, Rebuild } from "./Pulse.js"

export interface Report {
  /** Whether nothing below is wrong. */
  readonly isHealthy: boolean
  readonly atMillis: number
  /** Whether all namespaces answer, and how long the slowest took. */
  readonly database:
    | { readonly isReachable: true; readonly latencyMillis: number }
    | { readonly isReachable: false; readonly reason: string }
  /** The tables that were asked for, and whether each is there. */
  readonly tables: ReadonlyArray<{ readonly namespace: string; readonly name: string; readonly isPresent: boolean }>
  readonly subscriptions: ReadonlyArray<SubscriptionReport>
  /** What is followed. */
  readonly sources: ReadonlyArray<SourceReport>
  /** What waits to be sent, for namespaces whose processors have sent something. */
  readonly outboxes: ReadonlyArray<OutboxReport>
  /** Everything that is wrong, in sentences. */
  readonly complaints: ReadonlyArray<string>
  /** What somebody should look at although the work goes on: dead letters, refused messages. Nothing here makes a report unhealthy. */
  readonly notices: ReadonlyArray<string>
}

export interface SubscriptionReport {
  readonly processor: string
  readonly source: string
  /** Which of the processor's partitions it follows. */
  readonly partition: Partition.Partition
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
  /** Set while its tables are projected anew. */
  readonly rebuild: Rebuild | undefined
  readonly complaints: ReadonlyArray<string>
  readonly notices: ReadonlyArray<string>
}

export interface SourceReport {
  readonly source: string
  /** What keeps it from being up to date, and what to do about it; see {@link Source}. */
  readonly complaints: ReadonlyArray<string>
}

export interface OutboxReport {
  readonly namespace: string
  /** Messages that are neither delivered nor given up. */
  readonly undelivered: number
  /** Those of them that were refused. */
  readonly refused: number
  /** How long the first of the others has been waiting, in milliseconds. */
  readonly oldestMillis: number | undefined
}

export interface Options {
  /** How often to check; every 30 s when left out. */
  readonly every?: Duration.DurationInput
  /** Tables that must be there, by namespace. */
  readonly tables?: { readonly [namespace: string]: ReadonlyArray<string> }
  /** How long a commit may take before its loop counts as stalled; 1 minute when left out. */
  readonly stalledAfter?: Duration.DurationInput
  /** How long an operation that was read may wait for its commit; 1 minute when left out. */
  readonly waitingMax?: Duration.DurationInput
  /** How long a message may wait to be delivered; 1 minute when left out. */
  readonly undeliveredMax?: Duration.DurationInput
  /** How long the database may take to answer; 5 s when left out. */
  readonly answerWithin?: Duration.DurationInput
}

export class Health extends Context.Tag("effect-processors/Health")<Health, {
  /** The last report, and every one from now on. */
  readonly report: Subscribable.Subscribable<Report>
  /** Checks now, and publishes what it finds. */
  readonly check: Effect.Effect<Report>
  /** Whether one of the namespaces it watches answers and has this table or view: `healthCheck` of the specs. */
  readonly healthCheck: (tableName: string) => Effect.Effect<boolean>
}>() {}

/**
 * Checks once before the layer is ready, then on its interval, until the scope closes. Throws a `ParseError` for a namespace
 * that is not allowed, as `Processor.make` does.
 */
export const layer = (options: Options = {}): Layer.Layer<Health, never, Namespaces.Namespaces | Pulses> => {
  const tables = Object.entries(options.tables ?? {}).map(([name, names]) => [Namespaces.make(name), names] as const)
  return Layer.scoped(
    Health,
    Effect.gen(function*() {
      const namespaces = yield* Namespaces.Namespaces
      const pulses = yield* Pulses
      const limits: Limits = {
        stalledAfterMillis: Duration.toMillis(options.stalledAfter ?? "1 minute"),
        waitingMaxMillis: Duration.toMillis(options.waitingMax ?? "1 minute"),
        undeliveredMaxMillis: Duration.toMillis(options.undeliveredMax ?? "1 minute"),
        answerWithin: options.answerWithin ?? "5 seconds"
      }
      const watched = Effect.zipWith(
        pulses.all,
        pulses.sources,
        (all, sources): Watched => ({ ...watch(namespaces, tables, all), sources })
      )
      const examine = Effect.flatMap(watched, (all) => inspect(all, limits))
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
          Effect.flatMap(watched, ({ places }) =>
            Effect.exists(places, ({ client }) =>
              Effect.map(
                answered(Effect.flatMap(client, (sql) => hasTable(sql, tableName)), limits),
                Either.getOrElse(() => false)
              )))
      }
    })
  )
}

/** What is looked at: the places, the subscriptions in their order, and what they follow. */
interface Watched {
  readonly places: ReadonlyArray<Place>
  readonly pulses: ReadonlyArray<Pulse>
  readonly sources: ReadonlyArray<Context.Tag.Service<Source>>
}

interface Place {
  readonly namespace: Namespaces.Namespace
  readonly client: Effect.Effect<SqlClient.SqlClient, Namespaces.NamespaceError>
  readonly tables: ReadonlyArray<string>
}

/** A reactor has opened the namespaces of its processors; any other is only read, and so never made. */
const watch = (
  namespaces: Context.Tag.Service<Namespaces.Namespaces>,
  tables: ReadonlyArray<readonly [Namespaces.Namespace, ReadonlyArray<string>]>,
  pulses: ReadonlyArray<Pulse>
): Omit<Watched, "sources"> => {
  const written = new Set(pulses.map(({ namespace }) => namespace))
  const wanted = new Map(tables)
  const places = Array.from(new Set([...written, ...wanted.keys()]), (namespace) => ({
    namespace,
    client: written.has(namespace) ? namespaces.open(namespace) : namespaces.query(namespace),
    tables: wanted.get(namespace) ?? []
  }))
  return { places, pulses }
}

interface Limits {
  readonly stalledAfterMillis: number
  readonly waitingMaxMillis: number
  readonly undeliveredMaxMillis: number
  readonly answerWithin: Duration.DurationInput
}

const inspect = ({ places, pulses, sources: followed }: Watched, limits: Limits): Effect.Effect<Report> =>
  Effect.gen(function*() {
    const atMillis = yield* Clock.currentTimeMillis
    const answers = yield* Effect.forEach(places, (place) => ask(place, pulses, limits), { concurrency: placesMax })
    const tables = answers.flatMap((answer) => answer.tables)
    const reachable = new Map(answers.map((answer) => [answer.namespace, answer.sql]))
    const subscriptions = yield* Effect.forEach(pulses, (pulse) => {
      const sql = reachable.get(pulse.namespace)
      return Effect.flatMap(
        sql === undefined ? Effect.succeed(pulse.parked) : lettersOf(sql, pulse, limits),
        (parked) => examinePulse(pulse, parked, atMillis, limits)
      )
    })
    const dispatching = new Set(pulses.filter((pulse) => pulse.isDispatching()).map(({ namespace }) => namespace))
    const outboxes = (yield* Effect.forEach(dispatching, (namespace) => {
      const sql = reachable.get(namespace)
      return sql === undefined ? Effect.succeed([]) : outboxOf(namespace, sql, atMillis, limits)
    })).flat()
    const sources = yield* Effect.forEach(followed, (source) =>
      Effect.map(
        answered(source.complaints ?? Effect.succeed([]), limits),
        (found): SourceReport => ({
          source: source.name,
          complaints: Either.getOrElse(found, (reason) => [`does not tell how it is: ${reason}`])
        })
      ))
    const silent = answers.flatMap(({ namespace, reason }) => reason === undefined ? [] : [{ namespace, reason }])
    const database = silent.length === 0
      ? { isReachable: true as const, latencyMillis: Math.max(0, ...answers.map((answer) => answer.latencyMillis)) }
      : { isReachable: false as const, reason: reasonOf(silent, answers.length) }
    const complaints = [
      ...(database.isReachable ? [] : [`the database does not answer: ${database.reason}`]),
      ...answers.flatMap((answer) =>
        answer.reason === undefined
          ? answer.tables.flatMap(({ isPresent, name }) => isPresent ? [] : [`table ${name} is missing`])
          : []
      ),
      ...told(subscriptions, "complaints"),
      ...sources.flatMap(({ complaints: own, source }) => own.map((text) => `source ${source} ${text}`)),
      ...outboxes.flatMap(({ namespace, oldestMillis }) =>
        oldestMillis !== undefined && oldestMillis > limits.undeliveredMaxMillis
          ? [`the outbox of ${namespace} has had a message waiting for ${oldestMillis} ms`]
          : []
      )
    ]
    return {
      isHealthy: complaints.length === 0,
      atMillis,
      database,
      tables,
      subscriptions,
      sources,
      outboxes,
      complaints,
      notices: [
        ...told(subscriptions, "notices"),
        ...outboxes.flatMap(({ namespace, refused }) =>
          refused > 0
            ? [
              `the outbox of ${namespace} has ${refused} message${refused === 1 ? "" : "s"} that ${
                refused === 1 ? "was" : "were"
              } refused`
            ]
            : []
        )
      ]
    }
  })

/** None if the outbox cannot be read in time: that the database does not answer is said already. */
const outboxOf = (
  namespace: Namespaces.Namespace,
  sql: SqlClient.SqlClient,
  now: number,
  limits: Limits
): Effect.Effect<ReadonlyArray<OutboxReport>> =>
  Effect.gen(function*() {
    const found = yield* answered(Effect.provideService(Outbox.summary, SqlClient.SqlClient, sql), limits)
    if (Either.isLeft(found)) return []
    const { oldestSentAtMillis, refused, undelivered } = found.right
    const oldestMillis = oldestSentAtMillis === undefined ? undefined : Math.max(0, now - oldestSentAtMillis)
    const tagged = <Type, In, Out>(metric: Metric.Metric<Type, In, Out>) =>
      Metric.tagged(metric, "namespace", namespace)
    tagged(Metrics.outboxUndelivered).unsafeUpdate(undelivered, [])
    tagged(Metrics.outboxAgeMillis).unsafeUpdate(oldestMillis ?? 0, [])
    return [{ namespace, undelivered, refused, oldestMillis }]
  })

/** So many namespaces are asked at a time. */
const placesMax = 4

interface Answer {
  readonly namespace: Namespaces.Namespace
  /** Its client, if it has answered. */
  readonly sql: SqlClient.SqlClient | undefined
  /** Why there was no answer. */
  readonly reason: string | undefined
  readonly latencyMillis: number
  readonly tables: Report["tables"]
}

/** A namespace that nobody has opened yet answers that it has no tables. */
const ask = (place: Place, pulses: ReadonlyArray<Pulse>, limits: Limits): Effect.Effect<Answer> =>
  Effect.gen(function*() {
    const { namespace } = place
    let dialect: Dialect | undefined
    const question = place.client.pipe(
      Effect.tap((sql) => {
        dialect = dialectOf(sql)
        return sql`SELECT 1`
      }),
      Effect.catchTag("NamespaceMissing", () => Effect.succeed(undefined))
    )
    const [took, answer] = yield* Effect.timed(answered(question, limits))
    // On SQLite a namespace has one connection, and a commit has it to itself.
    const holder = dialect === "sqlite"
      ? pulses.find((pulse) => pulse.phase === "working" && pulse.namespace === namespace)
      : undefined
    const reason = Either.isRight(answer)
      ? undefined
      : holder === undefined
      ? answer.left
      : `${answer.left}, while ${holder.key.processor} holds it for a commit`
    const sql = Either.getOrUndefined(answer)
    const tables = yield* Effect.forEach(place.tables, (name) =>
      Effect.map(
        sql === undefined ? Effect.succeed(Either.right(false)) : answered(hasTable(sql, name), limits),
        (found) => ({ namespace, name, isPresent: Either.getOrElse(found, () => false) })
      ))
    return { namespace, sql, reason, latencyMillis: Duration.toMillis(took), tables }
  })

const reasonOf = (
  [first, ...others]: ReadonlyArray<{ readonly namespace: string; readonly reason: string }>,
  watched: number
): string =>
  watched === 1
    ? `${first?.reason}`
    : `${first?.reason} (namespace ${first?.namespace}${others.length === 0 ? "" : ` and ${others.length} more`})`

const told = (subscriptions: ReadonlyArray<SubscriptionReport>, what: "complaints" | "notices") =>
  subscriptions.flatMap((each) =>
    each[what].map((text) => `${each.processor}${Partition.show(each.partition)} on ${each.source} ${text}`)
  )

/** Dead letters that wait: the database knows of those that were retried or dropped since the last commit. */
const lettersOf = (sql: SqlClient.SqlClient, pulse: Pulse, limits: Limits): Effect.Effect<number> =>
  Effect.map(
    answered(
      Effect.provideService(
        Cursors.peek(pulse.key, Partition.slices(pulse.partition).first),
        SqlClient.SqlClient,
        sql
      ),
      limits
    ),
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
    const { failure } = pulse.state
    const isHeldUp = failure instanceof Behind
    const isForGood = isHeldUp && failure.isForGood
    const reason = inWords(pulse.state)
    const why = reason === undefined ? "" : `: ${reason}`
    const { rebuild } = pulse
    const complaints = [
      ...(rebuild?.how === "in place"
        ? [`is rebuilt in place, at position ${rebuild.position} of ${rebuild.through}: its tables are not whole yet`]
        : []),
      ...(pulse.replayFailure === undefined
        ? []
        : [`has a rebuild or comparison that waits: ${Fault.describe(pulse.replayFailure)}`]),
      ...(pulse.isGone() ? ["has a dead loop"] : []),
      ...(pulse.phase === "halted" ? [`has halted${why}`] : []),
      ...(pulse.phase === "reopening" ? [`failed and waits to open again${why}`] : []),
      ...(pulse.phase === "waiting" ? [`waits for the database${why}`] : []),
      ...(pulse.phase === "retrying" && forMillis > limits.stalledAfterMillis
        ? [`has been waiting ${forMillis} ms to try an operation again${why}`]
        : []),
      ...(isHeldUp && (isForGood || forMillis > limits.waitingMaxMillis)
        ? [`has been held up for ${forMillis} ms${why}`]
        : []),
      ...(stuck ? [`has been working on one commit for ${now - pulse.beatMillis} ms`] : []),
      ...(pulse.phase === "idle" && behindPositions !== undefined && behindPositions > 0n &&
          forMillis > limits.waitingMaxMillis
        ? [`is idle ${behindPositions} positions behind its source`]
        : []),
      ...(oldestWaitingMillis !== undefined && pulse.phase !== "halted" && !isHeldUp &&
          forMillis > limits.waitingMaxMillis && oldestWaitingMillis > limits.waitingMaxMillis
        ? [`has had an operation waiting for ${oldestWaitingMillis} ms`]
        : [])
    ]
    return {
      processor: pulse.key.processor,
      source: pulse.key.source,
      partition: pulse.partition,
      phase: pulse.phase,
      forMillis,
      position: pulse.position,
      behindPositions,
      oldestWaitingMillis,
      parked,
      rebuild,
      complaints,
      notices: [
        ...(parked > 0 ? [`has ${parked} dead letter${parked === 1 ? "" : "s"}`] : []),
        ...(rebuild?.how === "shadow"
          ? [`is replayed in the shadow, at position ${rebuild.position} of ${rebuild.through}`]
          : [])
      ]
    }
  })

/** The answer to a question, or why there is none in time. What was asked is left to end by itself. */
const answered = <A>(
  question: Effect.Effect<A, Namespaces.NamespaceError | SourceError>,
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
