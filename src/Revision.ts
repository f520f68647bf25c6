/**
 * A revision: how a reactor has one of its processors rebuilt or compared, around the subscriptions that it supervises, one
 * for each partition.
 *
 *     rebuild ─▶ one at a time ─▶ Rebuild.run ─┬ beside the subscriptions: the replay
 *                                              └ in an intermission of all, or that of the document: the exchange
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Partition from "./domain/Partition.js"
import * as Slice from "./domain/Slice.js"
import type { DocumentId } from "./domain/Strand.js"
import { Source } from "./ingest/Source.js"
import type * as Intermission from "./Intermission.js"
import type { Dispatch } from "./process/Dispatch.js"
import * as Migration from "./process/Migration.js"
import type { Processor } from "./process/Processor.js"
import * as Rebuild from "./Rebuild.js"
import type * as Replay from "./Replay.js"
import type { Claims } from "./store/Claims.js"
import * as Incident from "./store/Incident.js"
import type * as Migrator from "./store/Migrator.js"
import type { Namespaces } from "./store/Namespaces.js"
import type * as Subscription from "./Subscription.js"
import type { Pulse } from "./vitals/Pulse.js"

export interface Revision {
  readonly rebuild: (options?: Rebuild.Options) => Effect.Effect<Rebuild.Rebuilt, Rebuild.RebuildError>
  readonly verify: (options?: Rebuild.VerifyOptions) => Effect.Effect<Rebuild.Verdict, Rebuild.RebuildError>
}

/** What a reactor has of the processor. */
export interface Options {
  /** Its subscriptions, one for each partition. */
  readonly crew: ReadonlyArray<Member>
  /** How they come by their cursors. */
  readonly claims: Claims
  /** Called with what a rebuild or a comparison waits for. */
  readonly report: NonNullable<Subscription.Options["report"]>
  readonly turn: NonNullable<Subscription.Options["turn"]>
  /** All processors of the reactor, whose migrations make the tables of their namespaces together. */
  readonly beside: ReadonlyArray<Migrator.Owner>
  readonly migrating: Migrator.Options | undefined
}

export interface Member {
  readonly stage: Intermission.Stage
  readonly pulse: Pulse
}

/** The revisions of a reactor's processors, each made when it is first asked for: most never are. */
export interface Revisions<R> {
  readonly add: (processor: Processor<never, R>, options: Options) => void
  /** That of the processor of this name, `undefined` where there is none. */
  readonly of: (name: string) => Effect.Effect<Revision> | undefined
}

/** They last as long as the scope. */
export const revisions = <R>(): Effect.Effect<Revisions<R>, never, Context<R>> =>
  Effect.map(Effect.context<Context<R>>(), (context): Revisions<R> => {
    const known = new Map<string, readonly [Processor<never, R>, Options]>()
    const made = new Map<string, Revision>()
    return {
      add: (processor, options) => void known.set(processor.name, [processor, options]),
      of: (name) => {
        const before = made.get(name)
        if (before !== undefined) return Effect.succeed(before)
        const asked = known.get(name)
        return asked === undefined ? undefined : Effect.map(Effect.provide(make(...asked), context), (revision) => {
          const first = made.get(name) ?? revision
          made.set(name, first)
          return first
        })
      }
    }
  })

type Context<R> = Exclude<Exclude<R, Dispatch>, SqlClient.SqlClient> | Source | Namespaces | Scope.Scope

/** For as long as the reactor's scope is open; what is under way when it closes is interrupted, and has changed nothing. */
export const make = <R>(
  processor: Processor<never, R>,
  { beside, claims, crew, migrating, report, turn }: Options
): Effect.Effect<
  Revision,
  never,
  Exclude<Exclude<R, Dispatch>, SqlClient.SqlClient> | Source | Namespaces | Scope.Scope
> =>
  Effect.gen(function*() {
    const context = yield* Effect.context<Exclude<Exclude<R, Dispatch>, SqlClient.SqlClient> | Source | Namespaces>()
    const scope = yield* Effect.scope
    const source = yield* Source
    const first = yield* Effect.makeSemaphore(1)
    const waits = (waiting: Replay.Waiting | undefined) =>
      Effect.suspend(() => {
        for (const { pulse } of crew) pulse.replayFailure = waiting?.failure
        if (waiting === undefined) return Effect.void
        const { attempt, failure, fault } = waiting
        return report(
          Incident.Waiting({
            processor: processor.name,
            source: source.name,
            partition: Partition.whole,
            fault,
            failure,
            attempt,
            isReplay: true
          })
        )
      })
    const around = Effect.map(
      Effect.orDie(Migration.merge(
        processor.namespace,
        beside.filter(({ namespace }) => namespace === processor.namespace).map(({ migrations }) => migrations)
      )),
      (migrations): Rebuild.Around => ({
        alone: (work, documentId) =>
          concerned(crew, documentId).reduceRight((all, { stage }) => stage.during(all), work),
        turn,
        told: (replay) => {
          for (const { pulse } of crew) {
            pulse.replay = replay
            pulse.replayFailure = undefined
          }
        },
        waits,
        report: (incident) => incident._tag === "Waiting" ? waits(incident) : Effect.void,
        exchanged: (cursors) => {
          claims.forget()
          for (const { pulse } of crew) {
            const own = cursors.find(({ slices }) => Slice.isSame(slices, Partition.slices(pulse.partition)))
            if (own !== undefined) pulse.opened(own)
          }
        },
        migrations,
        migrating
      })
    )
    const inScope = <A>(work: Effect.Effect<A, Rebuild.RebuildError, Rebuild.Needs<R>>) =>
      Effect.gen(function*() {
        const exit = yield* Deferred.make<Exit.Exit<A, Rebuild.RebuildError>>()
        const settled = Effect.onExit(
          Effect.provide(first.withPermits(1)(work), context),
          (ended) => Deferred.succeed(exit, ended)
        )
        const fiber = yield* Effect.forkIn(Effect.interruptible(settled), scope)
        const ended = yield* Effect.onInterrupt(Deferred.await(exit), () => Fiber.interrupt(fiber))
        return yield* Exit.isFailure(ended) && Cause.isInterruptedOnly(ended.cause)
          ? new Rebuild.RebuildFailed({ processor: processor.name, source: source.name, cause: new Closed() })
          : ended
      })
    return {
      rebuild: (options) => inScope(Effect.flatMap(around, (each) => Rebuild.run(processor, options, each))),
      verify: (options) => inScope(Effect.flatMap(around, (each) => Rebuild.verify(processor, options, each)))
    }
  })

/** Those whose rows are meant: all, or that of the document's partition. */
const concerned = (
  crew: ReadonlyArray<Member>,
  documentId: DocumentId | undefined
): ReadonlyArray<Member> =>
  documentId === undefined
    ? crew
    : crew.filter(({ pulse }) => Slice.isIn(Partition.slices(pulse.partition), Slice.of(documentId)))

/** The reactor was closed meanwhile. */
class Closed extends Error {
  override readonly message = "the reactor was closed"
}
