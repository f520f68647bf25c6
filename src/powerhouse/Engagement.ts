/**
 * An engagement: one processor of one drive, as long as a real reactor has it.
 *
 *     onStrands, onOperations ─▶ decode ─▶ session, opened when there is none ─▶ committed
 *     onDisconnect ─▶ session closed, nothing taken any more
 *
 * It opens with the first delivery at the latest. A processor that has halted opens again, from its cursor, with the next
 * delivery: that is how the reactor's own `retry()` of a processor is answered. One that another process has taken over is
 * left to it for a while, and then taken back.
 *
 * Invariant: a delivery returns when everything of it that is wanted is in the database, committed or set aside, or fails.
 */

import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import * as Elapsed from "../domain/Elapsed.js"
import type * as Envelope from "../ingest/Envelope.js"
import type * as Reactor from "../Reactor.js"
import * as Cursors from "../store/Cursors.js"
import type { Namespaces } from "../store/Namespaces.js"
import * as Session from "./Session.js"

/** Why it cannot be opened. */
export type OpenError = Reactor.StartError | Session.ProcessorStopped | Session.Disconnected

/** Why a delivery was not taken, or not all of it. */
export type DeliveryError = OpenError | Envelope.MalformedEnvelope

/** For how long a processor that another process has taken over is left to that, from the first delivery that meets it. */
const othersMillis = 30_000

export interface Engagement {
  /** Opens it, tables included. */
  readonly open: Effect.Effect<void, OpenError>
  /** Takes what one call of the reactor delivers. What cannot be read fails it, once everything else is committed. */
  readonly deliver: (value: unknown) => Effect.Effect<void, DeliveryError>
  /** The drive's documents may have changed: looks into the archive now. */
  readonly stir: Effect.Effect<void>
  /** The reactor that it runs in, once it has been opened. */
  readonly reactor: Effect.Effect<Option.Option<Context.Tag.Service<Reactor.Reactor>>>
  /** Returns once everything is released. */
  readonly close: Effect.Effect<void>
}

/** An engagement that closes with the scope at the latest. Nothing is opened yet. */
export const make = <R>(post: Session.Post<R>): Effect.Effect<Engagement, never, R | Namespaces | Scope.Scope> =>
  Effect.gen(function*() {
    const services = yield* Effect.context<R | Namespaces>()
    const scope = yield* Scope.fork(yield* Effect.scope, ExecutionStrategy.sequential)
    const turn = yield* Effect.makeSemaphore(1)
    const gone = new Session.Disconnected({ drive: post.drive, processor: post.processor.name })
    let current: Open | undefined
    let isClosed = false
    let lostAt: number | undefined

    const open = Effect.gen(function*() {
      if (isClosed) return yield* gone
      const failure = current?.session.failure()
      if (current !== undefined && failure === undefined) return current.session
      if (failure !== undefined && isOthers(failure)) {
        const now = yield* Elapsed.millis
        lostAt ??= now
        if (now - lostAt < othersMillis) return yield* failure
      }
      yield* closeSession
      return yield* openSession
    }).pipe(turn.withPermits(1))

    const closeSession = Effect.suspend(() =>
      current === undefined ? Effect.void : Scope.close(current.scope, Exit.void)
    )

    const openSession = Effect.gen(function*() {
      const own = yield* Scope.fork(scope, ExecutionStrategy.sequential)
      const session = yield* Session.open(post).pipe(
        Scope.extend(own),
        Effect.provide(services),
        Effect.onError((cause) => Scope.close(own, Exit.failCause(cause)))
      )
      current = { session, scope: own }
      lostAt = undefined
      return session
    })

    yield* Scope.addFinalizer(scope, Effect.sync(() => void (isClosed = true)))
    return {
      open: Effect.asVoid(open),
      deliver: (value) =>
        Effect.gen(function*() {
          const { flaw, strands } = Session.readable(value)
          const session = yield* open
          yield* session.take({ strands, ...placesOf(value) })
          if (flaw !== undefined) yield* flaw
        }),
      stir: Effect.suspend(() => current?.session.stir ?? Effect.void),
      reactor: Effect.sync(() => Option.fromNullable(current?.session.reactor)),
      // Whoever is opening it finishes first, and whoever comes later finds it closed.
      close: Effect.zipRight(
        Effect.sync(() => void (isClosed = true)),
        turn.withPermits(1)(Effect.suspend(() => Scope.close(scope, Exit.void)))
      )
    }
  })

/** Whether another process has it: two that take it from each other at each delivery get nothing done. */
const isOthers = (failure: Session.ProcessorStopped | Session.Disconnected): boolean =>
  failure._tag === "ProcessorStopped" && failure.cause instanceof Cursors.Fenced

interface Open {
  readonly session: Session.Session
  readonly scope: Scope.CloseableScope
}

/** What the current reactor tells of each operation beside it. */
const placesOf = (value: unknown): Pick<Session.Delivery, "ordinals" | "isBare"> => {
  const contexts = (Array.isArray(value) ? value : []).flatMap((each: unknown) =>
    Predicate.hasProperty(each, "context") && Predicate.isRecord(each.context) ? [each.context] : []
  )
  return {
    ordinals: contexts.flatMap(({ documentId, ordinal }) =>
      typeof documentId === "string" && ordinal !== undefined ? [{ documentId, ordinal: Number(ordinal) }] : []
    ),
    isBare: contexts.some(({ resultingState }) => resultingState === undefined)
  }
}
