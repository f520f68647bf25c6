/**
 * A subscription: one processor following one source, from its cursor on, in order, one commit at a time.
 *
 *     claim the cursor ─▶ build the handler ─▶ strands after the cursor ─▶ filter ─▶ batch ─▶ commit ─▶ Commit, Commit, …
 *
 * It is a Stream of commits: a reactor merges many of them, a test or a backfill drains one. When the Stream ends, fails or
 * is interrupted, the handler's finalizers have run and nothing of the subscription is left but what it committed.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Batch from "./ingest/Batch.js"
import * as Filter from "./ingest/Filter.js"
import { Source } from "./ingest/Source.js"
import type { SourceError } from "./ingest/Source.js"
import type { Processor } from "./process/Processor.js"
import * as Commit from "./store/Commit.js"
import * as Cursors from "./store/Cursors.js"
import type { Incident } from "./store/Incident.js"
import type { TransactionError } from "./store/Transaction.js"
import { Meter } from "./vitals/Metrics.js"
import { Pulse } from "./vitals/Pulse.js"

/** What ends a subscription before its source ends. */
export type SubscriptionError = Commit.CommitError | SourceError | TransactionError

export { patience } from "./store/Commit.js"

/** What a reactor adds to a subscription; a subscription that runs by itself needs none of it. */
export interface Options {
  /** Where the subscription tells how it fares. */
  readonly pulse?: Pulse
  /** Called with each incident, once it is settled. */
  readonly report?: (incident: Incident) => Effect.Effect<void>
  /** Runs around each transaction: how a reactor bounds how many subscriptions commit at once. */
  readonly turn?: <A, E, R>(commit: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/** Follows the source in the context with the processor. */
export const commits = <R>(
  processor: Processor<never, R>,
  options: Options = {}
): Stream.Stream<Commit.Commit, SubscriptionError, R | Source | SqlClient.SqlClient> =>
  Stream.unwrapScoped(
    Effect.map(open(processor, options), (pull) => Stream.repeatEffectChunkOption(pull))
  ) as Stream.Stream<
    Commit.Commit,
    SubscriptionError,
    R | Source | SqlClient.SqlClient
  >

/** Opens the subscription and returns what pulls its next commits. */
const open = <R>(processor: Processor<never, R>, options: Options) =>
  Effect.gen(function*() {
    const source = yield* Source
    const pulse = options.pulse ??
      new Pulse({ processor: processor.name, source: source.name }, source.head, yield* Clock.currentTimeMillis)
    const meter = new Meter(processor.name)
    const enter = (phase: Pulse["phase"], failure?: unknown) =>
      Effect.map(Clock.currentTimeMillis, (now) => pulse.enter(phase, now, failure))
    yield* enter("opening")
    const owner: Commit.Owner<R> = {
      handler: yield* processor.handler,
      policy: processor.policy,
      cursor: yield* Cursors.claim({ processor: processor.name, source: source.name }),
      fenced: true,
      report: (incident) =>
        Effect.gen(function*() {
          if (incident._tag === "Waiting") yield* enter("waiting", incident.failure)
          if (incident._tag === "Waiting" || incident._tag === "Retrying") meter.retried()
          yield* options.report?.(incident) ?? Effect.void
        }),
      turn: options.turn ?? ((commit) => commit)
    }
    pulse.opened(owner.cursor)
    const batches = yield* Batch.form(source.strands(owner.cursor.position), {
      after: owner.cursor.position,
      wanted: Filter.compile(processor.filter, processor.filterDialect),
      limits: { ...Batch.defaults, ...processor.limits }
    })
    pulse.oldestWaiting = Effect.map(batches.waiting, (waiting) => waiting.oldest)

    const commit = (work: Effect.Effect<ReadonlyArray<Commit.Commit>, Commit.CommitError, R | SqlClient.SqlClient>) =>
      enter("working").pipe(
        Effect.zipRight(work),
        Effect.tap((done) =>
          Effect.sync(() => {
            for (const each of done) {
              pulse.committed(each)
              meter.committed(each)
            }
          })
        ),
        Effect.map(Chunk.unsafeFromArray)
      )

    let isFirst = true
    return Effect.suspend((): Effect.Effect<
      Chunk.Chunk<Commit.Commit>,
      Option.Option<SubscriptionError>,
      R | SqlClient.SqlClient
    > => {
      if (isFirst) {
        isFirst = false
        return Effect.mapError(commit(Commit.releaseHeld(owner)), Option.some)
      }
      return enter("idle").pipe(
        Effect.zipRight(Effect.mapError(batches.take, Option.some)),
        Effect.flatMap(Option.match({
          onNone: () => Effect.zipRight(enter("ended"), Effect.fail(Option.none())),
          onSome: (batch) => Effect.mapError(commit(Commit.batch(owner, batch)), Option.some)
        }))
      )
    })
  })
