/**
 * A reactor: many subscriptions, opened and closed together.
 *
 *     Reactor.layer(A, B, C)   follows the source for as long as the scope is open
 *     Reactor.run(A, B, C)     follows a source that ends, and reports
 *
 * A processor has a subscription for each of its partitions, one unless it says otherwise, and works in its namespace,
 * whatever others the reactor has. The tables of all are migrated before any subscription opens. Each subscription is
 * supervised by itself: one that fails opens again from its cursor after a growing, jittered pause; one that cannot go on is
 * reported as halted; the others never notice, but for those that go after it, which wait.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Namespace } from "./domain/Namespace.js"
import { quote } from "./domain/Operation.js"
import * as Partition from "./domain/Partition.js"
import type { Position } from "./domain/Position.js"
import * as Brake from "./ingest/Brake.js"
import * as Pace from "./ingest/Pace.js"
import * as Relay from "./ingest/Relay.js"
import { Source } from "./ingest/Source.js"
import * as Intermission from "./Intermission.js"
import type { Dispatch } from "./process/Dispatch.js"
import type { Dispatcher } from "./process/Dispatcher.js"
import { Defect } from "./process/Failure.js"
import * as Fault from "./process/Fault.js"
import * as Pauses from "./process/Pauses.js"
import type { Processor, ProcessorName, Services } from "./process/Processor.js"
import type * as Rebuild from "./Rebuild.js"
import * as Revision from "./Revision.js"
import { Claims } from "./store/Claims.js"
import { patience } from "./store/Commit.js"
import { Halted } from "./store/Commit.js"
import type { Commit } from "./store/Commit.js"
import * as Company from "./store/Company.js"
import type { Key } from "./store/Cursors.js"
import * as Incident from "./store/Incident.js"
import * as Migrator from "./store/Migrator.js"
import { Namespaces } from "./store/Namespaces.js"
import type { NamespaceMismatch } from "./store/Namespaces.js"
import * as Permits from "./store/Permits.js"
import type { StoreUnavailable } from "./store/StoreUnavailable.js"
import * as Subscription from "./Subscription.js"
import type { SubscriptionError } from "./Subscription.js"
import * as Couriers from "./vitals/Couriers.js"
import * as Metrics from "./vitals/Metrics.js"
import * as Precedence from "./vitals/Precedence.js"
import * as Pulse from "./vitals/Pulse.js"
import * as Wait from "./vitals/Wait.js"

export class Reactor extends Context.Tag("effect-processors/Reactor")<Reactor, {
  /** Every commit from now on, and up to 64 before, until the scope closes. A slow observer misses the oldest; it holds nobody up. */
  readonly commits: Stream.Stream<Commit>
  /** Every incident from now on, and up to 64 before: parked, skipped, retrying, waiting, reopening, halted. */
  readonly incidents: Stream.Stream<Incident.Incident>
  /**
   * Waits until one of its processors has dealt with an operation, or with everything up to a position, and returns where
   * its cursor stands then. Woken by the subscription's commits; it looks by itself too, down to once a second, since
   * another process may own the cursor.
   */
  readonly waitFor: (
    processor: Wait.Followed,
    place: Wait.Place,
    options?: Wait.Options
  ) => Effect.Effect<Position, Wait.WaitError>
  /**
   * Projects one of its processors anew from what its source has, or one document of it, while all others go on. One that
   * has halted begins again. Two of one processor come one after the other. Closing the reactor ends it. All its partitions
   * stand still while rows are exchanged; for one document that of the document.
   */
  readonly rebuild: (
    processor: Pick<Decided, "name">,
    options?: Rebuild.Options
  ) => Effect.Effect<Rebuild.Rebuilt, Rebuild.RebuildError>
  /** Compares the tables of one of its processors with those of a replay. The processor stands still while rows are compared. */
  readonly verify: (
    processor: Pick<Decided, "name">,
    options?: Rebuild.VerifyOptions
  ) => Effect.Effect<Rebuild.Verdict, Rebuild.RebuildError>
  /** How each subscription stands. */
  readonly outcomes: Effect.Effect<ReadonlyArray<Outcome>>
  /** Waits until every subscription has ended or halted, or waits for one that has halted; for ever on a live source. */
  readonly ended: Effect.Effect<void>
  /** Waits until every message is delivered that can be: what is left was refused, or its receiver is unavailable. */
  readonly settled: Effect.Effect<void>
}>() {}

/** How one subscription stands: its phase, and with it why it is held up, waits or has halted. */
export type Outcome = Standing & Pulse.State

/** The same whatever it is at. */
export interface Standing extends Key {
  /** Which of its processor's partitions it follows. */
  readonly partition: Partition.Partition
  /** Where its processor writes, and where its cursor and its dead letters are. */
  readonly namespace: Namespace
  readonly position: Position | undefined
  /** Dead letters that wait. */
  readonly waiting: number
  readonly totals: Pulse.Totals
  /** Set while its tables are projected anew: how, and how far that has come. */
  readonly rebuild: Pulse.Rebuild | undefined
}

/** What may be set for a reactor; every default is here. */
export class Settings extends Context.Reference<Settings>()("effect-processors/Reactor/Settings", {
  defaultValue: (): Settings.Values => ({
    concurrency: 8,
    reopenings: Schedule.exponential("100 millis").pipe(
      Schedule.either(Schedule.spaced("30 seconds")),
      Schedule.jittered,
      Schedule.intersect(Schedule.recurs(10))
    )
  })
}) {}

export declare namespace Settings {
  interface Values {
    /** How many subscriptions may commit at once. At least 1; at most the pool's connections makes sense. */
    readonly concurrency: number
    /**
     * Pauses before a failed subscription opens again. Starts over once it commits, or has been idle for a minute; when it
     * ends, the subscription halts.
     */
    readonly reopenings: Schedule.Schedule<unknown>
    /**
     * What strands that were read and are not committed may occupy in memory, in bytes, as sources estimate it; at most one
     * strand a subscription comes on top, and a page that is being read. Default: 64 MiB.
     */
    readonly bytesMax?: number | undefined
    /** How many subscriptions that have fallen behind read by themselves at a time. Default: twice the concurrency. */
    readonly laggardsMax?: number | undefined
    /** How migrations are applied: which statements they may send, how long they wait for the lock. */
    readonly migrations?: Migrator.Options | undefined
  }
}

/** A processor with every failure decided. */
export type Decided = Processor<never, unknown>

/** What keeps a reactor from starting: a migration, a place that is somebody else's, a file that cannot be opened. */
export type StartError = Migrator.MigrationFailed | NamespaceMismatch | StoreUnavailable

/**
 * What processors need besides a source: whatever their handlers do, the client of their namespace aside, and somebody who
 * takes what they send, if they do.
 */
type Needs<P extends Decided> =
  | Exclude<Exclude<Services<P>, Dispatch>, SqlClient.SqlClient>
  | (Dispatch extends Services<P> ? Dispatcher : never)
  | Source
  | Namespaces

/** Follows the source with these processors until the scope closes. Fails if a namespace cannot be made ready. */
export const layer = <const Processors extends ReadonlyArray<Decided>>(
  ...processors: Processors
): Layer.Layer<
  Reactor | Pulse.Pulses,
  StartError,
  Needs<Processors[number]>
> =>
  Layer.scopedContext(Effect.gen(function*() {
    const pulses = yield* Pulse.make
    const reactor = yield* start(processors, pulses)
    return Context.make(Reactor, reactor).pipe(Context.add(Pulse.Pulses, pulses))
  }))

/** Follows a source that ends with these processors, tries to deliver what they send, and tells how each fared. */
export const run = <const Processors extends ReadonlyArray<Decided>>(
  ...processors: Processors
): Effect.Effect<
  ReadonlyArray<Outcome>,
  StartError,
  Needs<Processors[number]>
> =>
  Effect.flatMap(
    Reactor,
    (reactor) => Effect.zipRight(Effect.zipRight(reactor.ended, reactor.settled), reactor.outcomes)
  ).pipe(
    Effect.provide(layer(...processors))
  )

const start = <const Processors extends ReadonlyArray<Decided>>(
  processors: Processors,
  pulses: Context.Tag.Service<Pulse.Pulses>
): Effect.Effect<
  Context.Tag.Service<Reactor>,
  StartError,
  Needs<Processors[number]> | Scope.Scope
> =>
  Effect.gen(function*() {
    const names = processors.map((processor) => processor.name)
    const seen = new Set<string>()
    const twice = names.find((name) => seen.size === seen.add(name).size)
    if (twice !== undefined) return yield* Effect.dieMessage(`two processors of one reactor are named ${twice}`)
    const flaw = Precedence.flaw(processors)
    if (flaw !== undefined) return yield* Effect.dieMessage(flaw)
    yield* migrate(processors)

    const settings = yield* Settings
    const source = yield* Source
    yield* pulses.follow(source)
    const namespaces = yield* Namespaces
    if (!(settings.concurrency >= 1)) {
      return yield* Effect.dieMessage(`a reactor's concurrency is at least 1, not ${settings.concurrency}`)
    }
    const permits = Permits.make(settings.concurrency)
    const observers = {
      commits: yield* observable<Commit>(),
      incidents: yield* observable<Incident.Incident>()
    }
    // What a rebuild leaves that was killed; only processors that name their tables are ever rebuilt.
    if (processors.some(({ tables }) => tables.length > 0)) {
      yield* Effect.forkScoped(Effect.ignoreLogged(namespaces.tidy))
    }
    const report = (incident: Incident.Incident) =>
      Effect.zipRight(log(incident), Effect.asVoid(PubSub.publish(observers.incidents, incident)))
    const couriers = yield* Couriers.make(processors.map(({ namespace }) => namespace), report)
    const lookouts = yield* Wait.lookouts(source.name, looks)
    const now = yield* Clock.currentTimeMillis
    const crews = new Map(processors.map((processor) => [processor.name, crewOf(processor, source, now)]))
    const order = new Precedence.Order(crews)
    const stir = (name: ProcessorName) => Effect.zipRight(lookouts.stir(name), order.stir(name))
    const countMove = Metrics.moveTold(source.name)
    const moved = (commit: Commit) =>
      Effect.suspend(() => {
        countMove()
        return Effect.zipRight(PubSub.publish(observers.commits, commit), stir(commit.processor))
      })
    const committed: Committed = ({ name, namespace }, commits) =>
      PubSub.publishAll(observers.commits, commits).pipe(
        Effect.zipRight(stir(name)),
        Effect.zipRight(couriers.stir(namespace, commits))
      )
    const relay = yield* Relay.make(source, {
      bytesMax: settings.bytesMax,
      laggardsMax: settings.laggardsMax ?? 2 * settings.concurrency,
      tell: Metrics.relayTold(source.name)
    })
    const arrivals = processors.map(({ partitions }) => Partition.all(partitions).map(() => relay.expect()))
    const context = yield* Effect.context<Needs<Processors[number]> | Scope.Scope>()
    const places = new Map<SqlClient.SqlClient, Place<Processors[number]>>()
    const revisions = yield* Revision.revisions<Services<Processors[number]>>()
    const rests = yield* Effect.forEach(
      processors as ReadonlyArray<Processor<never, Services<Processors[number]>>>,
      (processor, i) =>
        Effect.gen(function*() {
          // It was opened for its migrations, and is at hand since.
          const sql = yield* Effect.orDie(namespaces.open(processor.namespace))
          const place = places.get(sql) ?? {
            company: yield* Effect.provideService(
              Company.make(permits, settings.concurrency),
              SqlClient.SqlClient,
              sql
            ),
            context: Context.add(context, SqlClient.SqlClient, sql) as Place<Processors[number]>["context"]
          }
          places.set(sql, place)
          const { company } = place
          const turn = turnOf(processor, permits)
          const claims = new Claims(
            { processor: processor.name, source: source.name },
            processor.partitions,
            turn,
            company.claim
          )
          const rate = Pace.brake(processor.pace.rate)
          const crew: Array<Revision.Member> = []
          revisions.add(processor, { crew, claims, report, turn, beside: processors, migrating: settings.migrations })
          return yield* Effect.forEach(crews.get(processor.name)!, (pulse, j) =>
            Effect.gen(function*() {
              pulse.isDispatching = () => couriers.isUsed(processor.namespace)
              yield* pulses.add(pulse)
              const precedence = order.brake(processor)
              const options = {
                pulse,
                turn,
                report,
                brake: Brake.both(precedence ?? Brake.none, rate),
                share: { partition: pulse.partition, claims },
                shared: {
                  mover: company.mover,
                  convoy: company.convoy,
                  follow: relay.follow,
                  arrived: arrivals[i]![j]!,
                  moved
                }
              }
              const play = (perform: Intermission.Perform) =>
                supervise(processor, options, perform, committed, settings)
              // Around the fork, so that the fiber need not keep what puts its context back.
              const stage = yield* inContext(
                processor.tables.length > 0 ? Intermission.make(play) : Intermission.unbroken(play),
                place.context
              )
              pulse.isGone = () => stage.isOver() && pulse.phase !== "ended" && pulse.phase !== "halted"
              crew.push({ stage, pulse })
              return precedence === undefined ? stage : { ended: Effect.raceFirst(stage.ended, precedence.stuck) }
            }))
        })
    )
    return {
      commits: Stream.fromPubSub(observers.commits),
      incidents: Stream.fromPubSub(observers.incidents),
      waitFor: (processor, place, options) =>
        Effect.gen(function*() {
          const own = processors.find(({ name }) => name === processor.name)
          const crew = crews.get(processor.name)
          if (own === undefined || crew === undefined) return yield* unknownName(processor.name)
          const lookout = yield* lookouts.of(own, () => Pulse.phaseOf(crew))
          return yield* lookout.until(place, options)
        }),
      rebuild: ({ name }, options) =>
        Effect.flatMap(revisions.of(name) ?? unknownName(name), ({ rebuild }) => rebuild(options)),
      verify: ({ name }, options) =>
        Effect.flatMap(revisions.of(name) ?? unknownName(name), ({ verify }) => verify(options)),
      outcomes: Effect.map(pulses.all, (all) => all.map(outcome)),
      ended: Effect.forEach(rests.flat(), ({ ended }) => ended, { concurrency: "unbounded", discard: true }),
      settled: couriers.settled
    }
  })

/** The pulses of a processor's subscriptions, one for each of its partitions. */
const crewOf = (
  { name, namespace, partitions }: Decided,
  source: Context.Tag.Service<Source>,
  nowMillis: number
): ReadonlyArray<Pulse.Pulse> =>
  Partition.all(partitions).map((partition) =>
    new Pulse.Pulse({ processor: name, source: source.name }, source.head, nowMillis, namespace, partition)
  )

/** Its turn to commit: the processor's own, so that who waits for it takes nobody else's, and then the reactor's. */
const turnOf = ({ pace: { concurrency }, partitions }: Decided, permits: Permits.Permits): Permits.Permits => {
  if (concurrency === undefined || concurrency >= partitions) return permits
  const own = Permits.make(concurrency)
  return (commit) => own(permits(commit))
}

const unknownName = (name: string): Effect.Effect<never> =>
  Effect.dieMessage(`no processor of this reactor is named ${name}`)

/** What subscriptions of one place share: one context too, since thousands may be in it. */
interface Place<P extends Decided> {
  readonly company: Company.Company
  readonly context: Context.Context<Exclude<Services<P>, Dispatch> | Source | SqlClient.SqlClient | Scope.Scope>
}

/** Runs in this very context, of which no copy is made. */
const inContext = <A, R>(effect: Effect.Effect<A, never, R>, context: Context.Context<R>): Effect.Effect<A> =>
  Effect.mapInputContext(effect, () => context)

/** Pauses between looks for those who wait, where commits tell when to look. */
const looks = { minMillis: 25, maxMillis: 1_000 }

/** What observers follow until the scope closes. */
const observable = <A>(): Effect.Effect<PubSub.PubSub<A>, never, Scope.Scope> =>
  Effect.acquireRelease(PubSub.sliding<A>({ capacity: 1_024, replay: 64 }), PubSub.shutdown)

/** Every namespace's tables, the framework's in it and its own, side by side. */
const migrate = (
  processors: ReadonlyArray<Decided>
): Effect.Effect<void, StartError, Namespaces> =>
  Effect.gen(function*() {
    const { migrations } = yield* Settings
    const summaries = yield* Migrator.upAll(processors, migrations)
    const steps = summaries.flatMap((summary) => summary.steps)
    if (steps.length === 0) return
    const durationMillis = Math.max(...summaries.map((summary) => summary.durationMillis))
    yield* Effect.logInfo(`${steps.length} migrations applied, the slowest namespace took ${durationMillis} ms`)
  }).pipe(Effect.mapError((failure) =>
    failure._tag === "NamespaceMismatch" || failure._tag === "StoreUnavailable" ? failure : Migrator.asFailed(failure)
  ))

/** Tells those who follow a processor's commits, and wakes those who wait for them. */
type Committed = (processor: Pick<Decided, "name" | "namespace">, commits: Iterable<Commit>) => Effect.Effect<void>

/**
 * Runs a subscription, and again from its cursor when it fails, until it ends or cannot go on. Most never fail, and wait
 * for long: while one runs, what decides on a failure is not there yet.
 */
const supervise = <R>(
  processor: Processor<never, R>,
  options: Supervised,
  perform: Intermission.Perform,
  committed: Committed,
  settings: Settings.Values
): Effect.Effect<void, never, Exclude<R, Dispatch> | Source | SqlClient.SqlClient> => {
  const { pulse } = options
  const pauses: Reopenings = { reopening: undefined, outage: undefined }
  const again: Effect.Effect<void, never, Exclude<R, Dispatch> | Source | SqlClient.SqlClient> = Effect.suspend(() => {
    const before = pulse.totals.commits
    return Effect.flatMap(
      perform(Subscription.run(processor, options, (commits) => committed(processor, commits))),
      (exit) =>
        Effect.flatMap(
          goesOn(exit, pulse.totals.commits > before, options, pauses, settings),
          (doesGoOn) => doesGoOn ? again : Effect.void
        )
    )
  })
  return again
}

type Supervised = Subscription.Options & Required<Pick<Subscription.Options, "pulse" | "report" | "shared">>

/** How long has been waited before opening again, each once there was need to. */
interface Reopenings {
  reopening: Pauses.Pauses<SubscriptionError> | undefined
  outage: Pauses.Pauses<SubscriptionError> | undefined
}

/** A subscription that has waited for strands for so long is as good as one that has committed, in milliseconds. */
const steadyMillis = 60_000

/** Whether a subscription is to open again, having waited for as long as it should; says so where it halts. */
const goesOn = (
  /** How it ended; `undefined` where it was interrupted for somebody who had to have its cursor. */
  exit: Exit.Exit<void, SubscriptionError> | undefined,
  hasCommitted: boolean,
  { pulse, report, shared }: Supervised,
  pauses: Reopenings,
  settings: Settings.Values
): Effect.Effect<boolean> =>
  Effect.gen(function*() {
    const whose = { ...pulse.key, partition: pulse.partition }
    const halt = (failure: Pulse.Failure | Defect) =>
      Effect.gen(function*() {
        pulse.enter({ phase: "halted", failure }, yield* Clock.currentTimeMillis)
        yield* report(Incident.Halted({ ...whose, failure }))
        return false
      })
    shared.arrived()
    if (exit === undefined) {
      pulse.enter(Pulse.opening, yield* Clock.currentTimeMillis)
      return true
    }
    if (Exit.isSuccess(exit)) return false
    const failure = Option.getOrUndefined(Cause.failureOption(exit.cause))
    // An interruption that gets this far came from within, such as a handler's own fiber; one from outside ends all of it.
    if (failure === undefined) return yield* halt(new Defect({ cause: Cause.squash(exit.cause) }))
    const reaction = react(failure)
    if (reaction === "halt") return yield* halt(failure)
    const reopening = pauses.reopening ??= yield* Pauses.make(settings.reopenings)
    const outage = pauses.outage ??= yield* Pauses.make(patience)
    const now = yield* Clock.currentTimeMillis
    // Where nothing comes there is nothing to commit, and what failed long ago has nothing to do with this.
    const hasStood = pulse.phase === "idle" && now - pulse.sinceMillis >= steadyMillis
    if (hasCommitted || hasStood) yield* Effect.zipRight(reopening.reset, outage.reset)
    pulse.enter({ phase: "reopening", failure }, now)
    const waited = yield* (reaction === "wait" ? outage : reopening).next(
      failure,
      (attempt) => report(Incident.Reopening({ ...whose, failure, attempt }))
    )
    return waited || (yield* halt(failure))
  })

/** Whether opening again can help: for ever where the database is away, a bounded number of times otherwise, or never. */
const react = (failure: SubscriptionError): "halt" | "reopen" | "wait" => {
  switch (failure._tag) {
    case "SqlError":
      return Fault.classify(failure) === "drift" ? "halt" : "wait"
    case "CommitUnknown":
      return "wait"
    case "SourceUnavailable":
      // Such as a journal, whose database may be away while that of the processor is there.
      return Fault.isPassing(failure) ? "wait" : "reopen"
    case "CursorConflict":
      return "reopen"
    default:
      return "halt"
  }
}

const log = (incident: Incident.Incident): Effect.Effect<void> => {
  const what = Fault.describe(incident.failure)
  const subject = "subject" in incident
    ? incident.subject
    : incident.failure instanceof Halted
    ? incident.failure.at
    : undefined
  const { processor, source } = incident
  const partition = "partition" in incident && incident.partition.of > 1 ? { partition: incident.partition.number } : {}
  const where = { processor, source, ...partition, ...subject }
  return Incident.match(incident, {
    Parked: () => Effect.logWarning(`parked: ${what}`),
    Skipped: () => Effect.logWarning(`skipped: ${what}`),
    Retrying: ({ attempt }) => Effect.logInfo(`retrying (${attempt}): ${what}`),
    Waiting: ({ attempt, isReplay }) =>
      Effect.logWarning(`${isReplay ? "a rebuild waits" : "waiting for the database"} (${attempt}): ${what}`),
    Reopening: ({ attempt }) => Effect.logWarning(`opening again (${attempt}): ${what}`),
    Halted: () => Effect.logError(`halted: ${what}`),
    Undeliverable: ({ documentId, id }) =>
      Effect.logError(`message ${id} for document ${quote(documentId)} was refused: ${what}`)
  }).pipe(Effect.annotateLogs(where))
}

const outcome = (pulse: Pulse.Pulse): Outcome => ({
  ...pulse.key,
  partition: pulse.partition,
  namespace: pulse.namespace,
  ...pulse.state,
  position: pulse.position,
  waiting: pulse.parked,
  totals: pulse.totals,
  rebuild: pulse.rebuild
})
