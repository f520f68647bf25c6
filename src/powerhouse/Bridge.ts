/**
 * A bridge: our processors as a factory that a real Powerhouse reactor runs.
 *
 *     processorManager.registerFactory("ours", bridge.factory)
 *
 *     a drive ─▶ factory ─▶ a record for each processor: filter, startFrom, and an engagement behind it
 *                           and one more, where drives are isolated, which hears of the drive's documents
 *
 * Each processor of each drive has a cursor of its own, named by the processor and the drive, in the processor's namespace;
 * what the reactor remembers of it is of no importance. Registering the factory again, another order of processors, a
 * replay from the beginning or a delivery repeated a hundred times change nothing: what was applied is dropped.
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as ManagedRuntime from "effect/ManagedRuntime"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import * as Namespace from "../domain/Namespace.js"
import { DriveId } from "../domain/Strand.js"
import { constraints } from "../ingest/Filter.js"
import { Wakeups } from "../ingest/Wakeups.js"
import * as Fault from "../process/Fault.js"
import * as Processor from "../process/Processor.js"
import type * as Reactor from "../Reactor.js"
import type { Namespaces } from "../store/Namespaces.js"
import type { Archive } from "./Archive.js"
import type * as Contract from "./Contract.js"
import * as Engagement from "./Engagement.js"

/** The processors of a drive: the same for all, each in a namespace of its own for each drive, or as a function says. */
export type Processors<P extends Reactor.Decided> = ReadonlyArray<P> | ((drive: string) => ReadonlyArray<P>)

export interface Options {
  /**
   * Where to read what the reactor does not deliver: `ReactorArchive.make(module)` for the current reactor,
   * `StorageArchive.make(storage)` for document-drive. Without one, an operation that is never delivered is
   * missed, and those behind it in its stream wait as dead letters; and one that its document refused may come as if it had
   * not, where the current reactor catches up.
   */
  readonly archive?: Archive | undefined
  /**
   * Whether a processor of a drive is given only the drive's own operations and those of its documents. Default: true where
   * there is an archive to ask. The current reactor delivers every drive's operations to the processors of each.
   */
  readonly isolated?: boolean | undefined
  /** How often the archive is compared with what was delivered. Default: 10 seconds. */
  readonly sweepEvery?: Duration.DurationInput | undefined
  /**
   * How long the reactor may take, at most, from giving an operation its ordinal to committing it: the archive is read again
   * that far back. Default: a minute.
   */
  readonly grace?: Duration.DurationInput | undefined
}

export interface Bridge {
  /**
   * To be registered with the reactor's processor manager. A processor that cannot be opened is there all the same: its
   * deliveries open it again, or are rejected.
   */
  readonly factory: Contract.ProcessorFactory
  /** How each processor of each drive stands, of those that were opened. */
  readonly outcomes: Effect.Effect<ReadonlyArray<Outcome>>
  /** Has every processor look into the archive now, and not at its next turn. */
  readonly stir: Effect.Effect<void>
}

/** How a processor of a drive stands. */
export type Outcome = Reactor.Outcome & { readonly drive: string }

/** What the handlers of processors need, the client of their namespace aside. */
export type Services<P extends Reactor.Decided> = Exclude<Processor.Services<P>, SqlClient.SqlClient>

/** What the runtime of a bridge has to have. */
export type Given<P extends Reactor.Decided> = Services<P> | Namespaces | Scope.Scope

/** A bridge whose processors run until the scope closes, at the latest. */
export const make = <P extends Reactor.Decided>(
  processors: Processors<P>,
  options: Options = {}
): Effect.Effect<Bridge, never, Given<P>> =>
  Effect.gen(function*() {
    const isolated = options.isolated ?? options.archive !== undefined
    if (isolated && options.archive === undefined) {
      return yield* Effect.dieMessage(
        "drives are isolated by what the archive says of them: give it, or isolated: false"
      )
    }
    const runtime = yield* Effect.runtime<Given<P>>()
    const runPromise = promising(runtime)
    const desks: Array<Desk> = []
    const finding = yield* Effect.makeSemaphore(1)

    // The client is that of its namespace, which its reactor opens.
    const deskOf = (processor: Processor.Processor<never, Services<P>>, drive: string) =>
      Effect.gen(function*() {
        const id = yield* Schema.decode(DriveId)(drive)
        const known = desks.find((desk) => desk.drive === drive && desk.processor === processor.name)
        if (known !== undefined) return known
        const engagement = yield* Engagement.make({
          processor,
          drive: id,
          archive: options.archive,
          isolated,
          sweepMillis: Duration.toMillis(options.sweepEvery ?? "10 seconds"),
          graceMillis: Duration.toMillis(options.grace ?? "1 minute")
        })
        const desk: Desk = { drive, processor: processor.name, engagement, records: 0 }
        desks.push(desk)
        return desk
      }).pipe(finding.withPermits(1))

    const openRecord = (processor: Processor.Processor<never, Services<P>>, drive: string) =>
      Effect.gen(function*() {
        const desk = yield* deskOf(processor, drive)
        desk.records++
        // Its failure comes again with the first delivery, which opens it once more.
        yield* desk.engagement.open.pipe(Effect.catchAllCause((cause) => Effect.logError(describe(cause))))
        const close = Effect.suspend(() => {
          if (--desk.records > 0) return Effect.void
          desks.splice(desks.indexOf(desk), 1)
          return desk.engagement.close
        })
        return recordOf(
          processor,
          desk.engagement,
          options.archive !== undefined,
          runPromise,
          yield* Effect.cached(close)
        )
      })

    const factory: Contract.ProcessorFactory = (argument) => {
      const drive = typeof argument === "string" ? argument : argument.id
      const own = typeof processors === "function"
        ? processors(drive)
        : processors.map((processor) => perDrive(processor, drive))
      return runPromise(Effect.map(
        Effect.forEach(
          own as ReadonlyArray<Processor.Processor<never, Services<P>>>,
          (processor) => openRecord(processor, drive),
          { concurrency: "unbounded" }
        ),
        (records) =>
          records.length > 0 && isolated
            ? [...records, watcher(drive, { documentId: [drive] }, () => runPromise(stirAll(desks, drive)))]
            : records
      ))
    }
    return {
      factory,
      outcomes: Effect.map(Effect.suspend(() => Effect.forEach(desks, outcomesOf)), (all) => all.flat()),
      stir: Effect.suspend(() => stirAll(desks))
    }
  })

/** {@link make}, and what `processorFactory` gives besides the factory itself. */
export interface Factory extends Contract.ProcessorFactory {
  /** How each processor of each drive stands; what a promise was rejected with, typed and at rest. */
  readonly outcomes: () => Promise<ReadonlyArray<Outcome>>
  /** Has every processor look into the archive now. */
  readonly stir: () => Promise<void>
}

/**
 * {@link make} for a program that is not written with Effect: a factory to be registered, over a runtime with the services
 * of the processors, the `Namespaces` of a database, and a scope, so that everything ends when it is disposed of, and before
 * the database does: `ManagedRuntime.make(Layer.provideMerge(Layer.scope, Sqlite.layerDirectory({ directory })))`.
 */
export const processorFactory = <P extends Reactor.Decided>(
  runtime: Runtime.Runtime<Given<P>> | ManagedRuntime.ManagedRuntime<Given<P>, unknown>,
  processors: Processors<P>,
  options: Options = {}
): Factory => {
  const exitOf: <A, E>(effect: Effect.Effect<A, E, Given<P>>) => Promise<Exit.Exit<A, unknown>> =
    "runPromiseExit" in runtime
      ? (effect) => runtime.runPromiseExit(effect)
      : (effect) => Runtime.runPromiseExit(runtime)(effect)
  let bridge: Promise<Bridge> | undefined
  const made = () =>
    bridge ??= answered(exitOf(make(processors, options))).catch((failure: unknown) => {
      // A runtime that could not be built is built again when it is next asked for.
      bridge = undefined
      return Promise.reject(failure)
    })
  const factory: Contract.ProcessorFactory = (drive) => made().then((it) => it.factory(drive))
  return Object.assign(factory, {
    outcomes: () => made().then((it) => Effect.runPromise(it.outcomes)),
    stir: () => made().then((it) => Effect.runPromise(it.stir))
  })
}

/**
 * A factory that has nothing delivered but the news that there is some: for processors that follow a source over the
 * reactor's own store, and would look there only at their next poll. Put the layer below the source.
 */
export const wakeups: Effect.Effect<
  {
    readonly factory: Contract.ProcessorFactory
    readonly layer: Layer.Layer<never>
  },
  never,
  Scope.Scope
> = Effect.gen(function*() {
  const news = yield* Effect.acquireRelease(PubSub.sliding<void>(1), PubSub.shutdown)
  const stir = () => Effect.runPromise(Effect.asVoid(PubSub.publish(news, undefined)))
  return {
    factory: (drive) => Promise.resolve([watcher(typeof drive === "string" ? drive : drive.id, {}, stir)]),
    layer: Layer.succeed(Wakeups, { hints: () => Stream.fromPubSub(news) })
  }
})

/**
 * A processor of a drive, as this bridge has it. A reactor that has it registered twice, and delivers everything twice, has
 * two records of the one.
 */
interface Desk {
  readonly drive: string
  readonly processor: string
  readonly engagement: Engagement.Engagement
  /** How many records were given for it and not disconnected. */
  records: number
}

/** The processor in a namespace of its own for the drive: `todos` in drive `d-1` is `todos_d-1`. */
export const perDrive = <E, R>(
  processor: Processor.Processor<E, R>,
  drive: string
): Processor.Processor<E, R> => {
  const name = `${processor.namespace}_${drive}`
  const isFit = Schema.is(Namespace.Namespace)(name)
  return Processor.inNamespace(
    isFit
      ? name
      : `${processor.namespace.slice(0, 64)}_${createHash("sha256").update(name).digest("hex").slice(0, 32)}`
  )(processor)
}

const recordOf = (
  processor: Reactor.Decided,
  engagement: Engagement.Engagement,
  hasArchive: boolean,
  run: Run,
  close: Effect.Effect<void>
): Contract.ProcessorRecord => {
  const deliver = (value: ReadonlyArray<unknown>) => run(engagement.deliver(value))
  return {
    id: processor.name,
    filter: filterOf(processor),
    // What came before is in the archive, and only what was not applied is read from there.
    startFrom: hasArchive || processor.startFrom === "current" ? "current" : "beginning",
    processor: {
      namespace: processor.namespace,
      onStrands: deliver,
      onOperations: deliver,
      initAndUpgrade: () => run(engagement.open),
      onDisconnect: () => run(close)
    }
  }
}

/** Hears of a drive's own operations, or of all, and keeps none of them. */
const watcher = (
  drive: string,
  filter: Contract.ProcessorFilter,
  stir: () => Promise<void>
): Contract.ProcessorRecord => ({
  id: "effect-processors-watcher",
  filter,
  startFrom: "current",
  processor: {
    namespace: `effect-processors-watcher-${drive}`,
    onStrands: stir,
    onOperations: stir,
    initAndUpgrade: () => Promise.resolve(),
    onDisconnect: () => Promise.resolve()
  }
})

/** A field that means anything is left out, which means that to every generation. */
const filterOf = (processor: Reactor.Decided): Contract.ProcessorFilter => {
  const fields = constraints(processor.filter, processor.filterDialect)
  return Object.fromEntries(
    fields.flatMap(({ field, values }) => field === "driveId" ? [] : [[field, Array.from(values)]])
  )
}

const stirAll = (desks: ReadonlyArray<Desk>, drive?: string): Effect.Effect<void> =>
  Effect.forEach(
    desks.filter((desk) => drive === undefined || desk.drive === drive),
    ({ engagement }) => engagement.stir,
    {
      discard: true
    }
  )

const outcomesOf = ({ drive, engagement }: Desk): Effect.Effect<ReadonlyArray<Outcome>> =>
  Effect.flatMap(engagement.reactor, (reactor) =>
    Option.isNone(reactor)
      ? Effect.succeed([])
      : Effect.map(reactor.value.outcomes, (all) => all.map((outcome) => ({ ...outcome, drive }))))

/** Runs an effect as a promise that is rejected with the failure itself. */
type Run = <A, E>(effect: Effect.Effect<A, E>) => Promise<A>

const promising = <R>(runtime: Runtime.Runtime<R>) => <A, E>(effect: Effect.Effect<A, E, R>): Promise<A> =>
  answered(Runtime.runPromiseExit(runtime)(effect))

const answered = <A, E>(exit: Promise<Exit.Exit<A, E>>): Promise<A> =>
  exit.then(Exit.match({
    onSuccess: (value) => Promise.resolve(value),
    onFailure: (cause) => Promise.reject(Cause.squash(cause))
  }))

const describe = (cause: Cause.Cause<unknown>): string => Fault.describe(Cause.squash(cause))
