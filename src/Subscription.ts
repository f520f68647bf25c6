/**
 * A subscription: one processor, or one of its partitions, following one source, from its cursor on, in order, one commit
 * at a time.
 *
 *     build the handler ─▶ claim the cursor ─▶ strands after the cursor ─▶ filter ─▶ batch ─▶ brake ─▶ commit ─▶ Commit, …
 *
 * It is a Stream of commits: a reactor merges many of them, a test or a backfill drains one. When the Stream ends, fails or
 * is interrupted, the handler's finalizers have run and nothing of the subscription is left but what it committed.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { once } from "./domain/Once.js"
import * as Partition from "./domain/Partition.js"
import type { Position } from "./domain/Position.js"
import * as Slice from "./domain/Slice.js"
import type { Strand } from "./domain/Strand.js"
import * as Batch from "./ingest/Batch.js"
import type * as Brake from "./ingest/Brake.js"
import * as Filter from "./ingest/Filter.js"
import * as Pace from "./ingest/Pace.js"
import type * as Relay from "./ingest/Relay.js"
import { Source, withoutDocuments } from "./ingest/Source.js"
import type { SourceError } from "./ingest/Source.js"
import * as Tempo from "./ingest/Tempo.js"
import type { Dispatch } from "./process/Dispatch.js"
import type { Processor, StartFrom } from "./process/Processor.js"
import { Claims } from "./store/Claims.js"
import * as Commit from "./store/Commit.js"
import type { Company } from "./store/Company.js"
import { Seat } from "./store/Convoy.js"
import type * as Cursors from "./store/Cursors.js"
import * as Errand from "./store/Errand.js"
import type { Incident } from "./store/Incident.js"
import type * as Moves from "./store/Moves.js"
import * as Narrowing from "./store/Narrowing.js"
import { NoSuchStart } from "./store/NoSuchStart.js"
import type * as Permits from "./store/Permits.js"
import * as Ranges from "./store/Ranges.js"
import * as Reach from "./table/Reach.js"
import { Meter } from "./vitals/Metrics.js"
import * as Pulse from "./vitals/Pulse.js"

export { NoSuchStart } from "./store/NoSuchStart.js"

/** What ends a subscription before its source ends. */
export type SubscriptionError = Pulse.Failure

/** What a reactor adds to a subscription; a subscription that runs by itself needs none of it. */
export interface Options {
  /** Where the subscription tells how it fares. */
  readonly pulse?: Pulse.Pulse
  /** Called with each incident, once it is settled. */
  readonly report?: (incident: Incident) => Effect.Effect<void>
  /** What its metrics go by; the processor's name when left out. */
  readonly meteredAs?: string
  /** Runs around each transaction: how a reactor bounds how many subscriptions commit at once. */
  readonly turn?: Permits.Permits
  /** What keeps batches from being committed yet; default: the processor's own rate. */
  readonly brake?: Brake.Brake<Pulse.Held>
  /** Which partition it follows, and with whom it shares the claiming of cursors; default: all documents, alone. */
  readonly share?: { readonly partition: Partition.Partition; readonly claims: Claims }
  /** What it shares with others; without it, it reads its source by itself. */
  readonly shared?: Shared
}

/** What subscriptions of one reactor share: those that read its source, and those that commit in one place. */
export interface Shared extends Pick<Relay.Relay, "follow">, Pick<Company, "mover" | "convoy"> {
  /** Called once it follows: those who were announced to the relay together are waited for. */
  readonly arrived: () => void
  /** Told of commits that only move its cursor past what it did not want, which no pull supplies. */
  readonly moved: (commit: Commit.Commit) => Effect.Effect<void>
}

/**
 * Follows the source in the context with the processor. The client in the context is that of the processor's namespace, whose
 * tables are there; `Namespace.within` and `Migrator.upAll` see to both.
 */
export const commits = <R>(
  processor: Processor<never, R>,
  options: Options = {}
): Stream.Stream<Commit.Commit, SubscriptionError, Exclude<R, Dispatch> | Source | SqlClient.SqlClient> =>
  Stream.unwrapScoped(
    Effect.map(open(processor, options), (opened) => Stream.repeatEffectChunkOption(pulling(opened)))
  ) as Stream.Stream<
    Commit.Commit,
    SubscriptionError,
    Exclude<R, Dispatch> | Source | SqlClient.SqlClient
  >

/**
 * The same for a caller who only looks on. Ends when the source does. Thousands of these wait at once, so what one keeps
 * while it waits is little: a scope that only what it opens has in its context, and one frame for its loop.
 */
export const run = <R>(
  processor: Processor<never, R>,
  options: Options,
  each: (commits: Chunk.Chunk<Commit.Commit>) => Effect.Effect<unknown>
): Effect.Effect<void, SubscriptionError, Exclude<R, Dispatch> | Source | SqlClient.SqlClient> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Scope.make(), (scope) => {
      const work = Effect.suspend(() =>
        Effect.flatMap(Scope.extend(open(processor, options), scope), (opened) => looping(opened, each))
      )
      return Effect.flatMap(Effect.exit(restore(work)), (exit) => Effect.zipRight(Scope.close(scope, exit), exit))
    })
  ) as Effect.Effect<void, SubscriptionError, Exclude<R, Dispatch> | Source | SqlClient.SqlClient>

/** A subscription that is open, as long as its scope is. */
interface Opened<R> {
  /** Commits that were made and not told yet. */
  readonly done: Array<Commit.Commit>
  /** What is left from the last time that it was open. */
  readonly begun: Effect.Effect<void, SubscriptionError, R | SqlClient.SqlClient>
  /** The next batch; `None` once the source has ended. */
  readonly take: Effect.Effect<Option.Option<Batch.Batch>, SourceError>
  /** Commits what was taken, or its beginning: what is left of it is taken next. */
  readonly commit: (batch: Batch.Batch) => Effect.Effect<void, SubscriptionError, R | SqlClient.SqlClient>
  /** Says that there are no more. */
  readonly ended: Effect.Effect<void>
}

/** Opens the subscription: claims its cursor and begins to follow. */
const open = <R>(processor: Processor<never, R>, options: Options) =>
  Effect.gen(function*() {
    const source = yield* Source
    // Found out at the first operation that takes others back, it would be late.
    const refusal = processor.history === "replay" ? withoutDocuments(source) : undefined
    if (refusal !== undefined) return yield* refusal
    const key = { processor: processor.name, source: source.name }
    const turn = options.turn ?? identity
    const { claims, partition } = options.share ?? { claims: new Claims(key, 1, turn), partition: Partition.whole }
    const pulse = options.pulse ??
      new Pulse.Pulse(key, source.head, yield* Clock.currentTimeMillis, processor.namespace)
    const vitals = new Vitals(pulse, { name: options.meteredAs ?? processor.name, partition }, options.report)
    yield* vitals.enter(Pulse.opening)
    Reach.forget(yield* SqlClient.SqlClient)
    const brake = options.brake ?? Pace.brake(processor.pace.rate)
    const tempo = new Tempo.Tempo(boundsOf(processor))
    const done: Array<Commit.Commit> = []
    const owner: Commit.Owner<R> = {
      handler: yield* processor.handler,
      policy: processor.policy,
      coping: Commit.copingOf(processor, source),
      partition,
      cursor: yield* claims.claim(partition, begin(key, processor.startFrom, source)),
      fenced: true,
      report: (incident) => vitals.report(incident),
      committed: (commit) => Effect.zipRight(Effect.sync(() => done.push(commit)), vitals.committed(commit)),
      turn: (commit) => Effect.zipRight(vitals.trying, turn(tempo.timed(commit))),
      habits: new Errand.Habits(yield* Errand.Limits),
      seat: options.shared === undefined || isPaced(processor) ? undefined : new Seat(options.shared.convoy)
    }
    pulse.opened(owner.cursor)
    const batches = yield* follow(processor, source, owner, tempo, vitals, options.shared)
    vitals.waiting = Effect.suspend(() => Effect.map(batches.waiting, (waiting) => waiting.oldest))
    const held = (failure: Pulse.Held) => vitals.enter({ phase: "held", failure })
    /** What was taken and is not committed. */
    let left: Batch.Batch | undefined
    pulse.passed = Effect.suspend(() =>
      Effect.map(batches.passed, (passed) => passed > owner.cursor.position ? passed : owner.cursor.position)
    )

    const begun = owner.cursor.parked === 0
      ? Effect.void
      : Effect.zipRight(brake.release(nothing(owner.cursor.position), held), Narrowing.releaseHeld(owner))
    const take = Effect.zipRight(
      vitals.enter(Pulse.idle),
      Effect.suspend(() => left === undefined ? batches.take : Effect.succeedSome(left))
    )
    const commit = (batch: Batch.Batch) => {
      left = batch
      return vitals.during(
        batch,
        Effect.flatMap(brake.release(batch, held), (released) =>
          Effect.map(vitals.committing(Narrowing.batch(owner, released.first)), () => {
            left = released.rest
            tempo.committed(released.first.operations)
          }))
      )
    }
    const opened: Opened<R> = {
      done,
      begun,
      take,
      commit,
      ended: vitals.enter(Pulse.ended)
    }
    return opened
  })

/** How many operations a batch may hold, and what it may take; any time, where it is said how much it may hold. */
const boundsOf = <R>({ limits, pace }: Processor<never, R>): Tempo.Bounds => ({
  // No more than may be committed in the time of a rate.
  most: Math.min(limits.operations ?? Batch.defaults.operations, pace.rate?.operations ?? Infinity),
  ...(pace.commitMillis !== undefined
    ? { budgetMillis: pace.commitMillis }
    : limits.operations === undefined
    ? Pace.unasked
    : {})
})

/** Whether its commits are made by measure, each for itself. */
const isPaced = <R>({ pace }: Processor<never, R>): boolean =>
  pace.concurrency !== undefined || pace.commitMillis !== undefined

/** A batch of nothing, for what may be done up to a position. */
const nothing = (position: Position): Batch.Batch => ({ strands: [], position, operations: 0 })

/** What the subscription commits: from the relay that it shares, or read for it alone. */
const follow = <R>(
  processor: Processor<never, R>,
  source: Context.Tag.Service<Source>,
  owner: Commit.Owner<R>,
  tempo: Tempo.Tempo,
  vitals: Vitals,
  shared: Shared | undefined
) => {
  const { filter, filterDialect } = processor
  const after = owner.cursor.position
  const limits = limitsOf(processor, tempo)
  const isNews = newsOf(owner.cursor)
  if (shared === undefined) {
    const matches = Filter.compile(filter, filterDialect)
    const wanted = isNews === undefined ? matches : (strand: Strand) => matches(strand) && isNews(strand)
    return Batch.form(source.strands(after), { after, wanted, limits })
  }
  const moved = (commit: Commit.Commit) => Effect.zipRight(vitals.moved(commit), shared.moved(commit))
  const movable = { mover: shared.mover, cursor: { owner, moved } satisfies Moves.Holder }
  const { isCrowded } = shared.convoy
  const following = { after, filter, filterDialect, alsoWanted: isNews, limits, isCrowded, movable }
  return Effect.map(shared.follow(following), (batches) => {
    shared.arrived()
    return batches
  })
}

/** The bounds of its batches, as they are at the time: that of operations keeps to the tempo. */
const limitsOf = <R>({ limits }: Processor<never, R>, tempo: Tempo.Tempo): Batch.Limits => ({
  ...Batch.defaults,
  ...limits,
  get operations() {
    return tempo.operations
  }
})

/** Whether a strand is of a cursor's documents and not past it; `undefined` where all are that come after its position. */
const newsOf = (cursor: Cursors.Cursor): ((strand: Strand) => boolean) | undefined =>
  Slice.isSame(cursor.slices, Slice.whole) && cursor.ahead.length === 0
    ? undefined
    : (strand) => Ranges.isNews(cursor, Slice.of(strand.documentId), strand.position)

/** Where a processor that has no cursor yet begins; `undefined`: before the first strand. */
const begin = (key: Cursors.Key, startFrom: StartFrom, source: Context.Tag.Service<Source>) =>
  startFrom === "beginning" ? undefined : Effect.gen(function*() {
    const head = Option.getOrUndefined(yield* source.head)
    const start = startFrom === "current" ? head : startFrom
    return start === undefined || (head !== undefined && start > head)
      ? yield* new NoSuchStart({ ...key, startFrom, head })
      : start
  })

/** Works off one batch after another, and tells of the commits that came of each, also of those before a failure. */
const looping = <R>(
  { begun, commit, done, ended, take }: Opened<R>,
  each: (commits: Chunk.Chunk<Commit.Commit>) => Effect.Effect<unknown>
): Effect.Effect<void, SubscriptionError, R | SqlClient.SqlClient> => {
  const tell = Effect.suspend(() => each(Chunk.unsafeFromArray(done.splice(0))))
  const told = (work: Effect.Effect<void, SubscriptionError, R | SqlClient.SqlClient>) =>
    Effect.matchCauseEffect(work, {
      onFailure: (cause) => Effect.zipRight(done.length === 0 ? Effect.void : tell, Effect.failCause(cause)),
      onSuccess: () => Effect.zipRight(tell, Effect.yieldNow())
    })
  const next: Effect.Effect<void, SubscriptionError, R | SqlClient.SqlClient> = Effect.flatMap(
    take,
    (batch) => Option.isNone(batch) ? ended : Effect.zipRight(told(commit(batch.value)), next)
  )
  return Effect.zipRight(told(begun), next)
}

/** Pulls the commits of one batch after another. Those made before a failure are supplied before it fails. */
const pulling = <R>(
  { begun, commit, done, ended, take }: Opened<R>
): Effect.Effect<Chunk.Chunk<Commit.Commit>, Option.Option<SubscriptionError>, R | SqlClient.SqlClient> => {
  type Pull = Effect.Effect<void, Option.Option<SubscriptionError>, R | SqlClient.SqlClient>
  const next: Pull = Effect.flatMap(
    Effect.mapError(take, Option.some),
    (batch): Pull =>
      Option.isNone(batch)
        ? Effect.zipRight(ended, Effect.fail(Option.none()))
        : Effect.mapError(commit(batch.value), Option.some)
  )
  let work: Pull = Effect.mapError(begun, Option.some)
  return Effect.flatMap(Effect.suspend(() => Effect.exit(work)), (exit) => {
    work = Exit.isSuccess(exit) ? next : Effect.failCause(exit.cause)
    return Exit.isSuccess(exit) || done.length > 0
      ? Effect.succeed(Chunk.unsafeFromArray(done.splice(0)))
      : Effect.failCause(exit.cause)
  })
}

/** What a subscription tells of itself, to its pulse, its metrics and its reactor. */
class Vitals {
  /** The timestamp of the oldest operation that waits to be taken. */
  waiting: Effect.Effect<string | undefined> = Effect.succeed(undefined)
  /** The timestamp of the first operation of the batch being committed. */
  private working: string | undefined = undefined
  private metered: Meter | undefined = undefined

  constructor(
    private readonly pulse: Pulse.Pulse,
    private readonly of: { readonly name: string; readonly partition: Partition.Partition },
    private readonly pass: Options["report"]
  ) {
    pulse.oldestWaiting = Effect.suspend(() => this.working === undefined ? this.waiting : Effect.succeed(this.working))
  }

  /** Made when there is something to count: many processors have nothing to do for long. */
  private get meter(): Meter {
    return this.metered ??= new Meter(this.of.name, this.of.partition)
  }

  enter(state: Pulse.State): Effect.Effect<void> {
    return Effect.map(Clock.currentTimeMillis, (now) => this.pulse.enter(state, now))
  }

  /** A transaction begins: a pause between two tries of an operation is over. */
  get trying(): Effect.Effect<void> {
    return Effect.suspend(() => this.pulse.phase === "retrying" ? this.enter(Pulse.working) : Effect.void)
  }

  /** Works on a batch. */
  committing<A, E, R>(commit: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.zipRight(this.enter(Pulse.working), commit)
  }

  /** Holds or commits a batch, during which its first operation is the oldest that waits. */
  during<A, E, R>(batch: Batch.Batch, commit: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    const oldest = batch.strands[0]?.operations[0]?.timestamp
    return Effect.suspend(() => {
      this.working = oldest
      return this.measure
    }).pipe(
      Effect.zipRight(once(commit)),
      Effect.ensuring(Effect.suspend(() => {
        this.working = undefined
        return this.measure
      }))
    )
  }

  /** A commit shows that the loop is alive, and that whatever it waited for is back. */
  committed(commit: Commit.Commit): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.pulse.committed(commit)
      this.meter.committed(commit)
      return this.enter(Pulse.working)
    })
  }

  /** A commit that the loop had no part in. */
  moved(commit: Commit.Commit): Effect.Effect<void> {
    return Effect.sync(() => this.pulse.committed(commit))
  }

  report(incident: Incident): Effect.Effect<void> {
    return Effect.suspend(() => {
      const state = heldUpBy(incident)
      if (state === undefined) return Effect.void
      this.meter.retried()
      return Effect.zipRight(this.measure, this.enter(state))
    }).pipe(Effect.zipRight(Effect.suspend(() => this.pass?.(incident) ?? Effect.void)))
  }

  private get measure(): Effect.Effect<void> {
    return Effect.suspend(() =>
      Effect.zipWith(
        this.pulse.oldestWaiting,
        Clock.currentTimeMillis,
        (oldest, now) => this.meter.behind(oldest === undefined ? 0 : Math.max(0, now - Date.parse(oldest)))
      )
    )
  }
}

/** The phase that an incident means; `undefined`: none of its own. */
const heldUpBy = (incident: Incident): Pulse.State | undefined =>
  incident._tag === "Waiting"
    ? { phase: "waiting", failure: incident }
    : incident._tag === "Retrying"
    ? { phase: "retrying", failure: incident }
    : undefined
