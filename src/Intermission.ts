/**
 * An intermission: the time in which a subscription of a reactor is stopped, for somebody who has to have its cursor to
 * himself, after which it goes on from there.
 *
 *     play ── perform ── perform ──╳ interrupted      perform ── …
 *                                   └── during ──────▶┘
 *
 * Invariants: `during` begins once what was performed has ended, its transaction committed or rolled back; two of them come
 * one after the other; a play that was over, since its subscription had ended or halted, begins again.
 */

import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import type * as Scope from "effect/Scope"

/** Runs an effect that an intermission may interrupt: then there is no exit, and it is to be run again. */
export type Perform = <A, E, R>(act: Effect.Effect<A, E, R>) => Effect.Effect<Exit.Exit<A, E> | undefined, never, R>

export interface Stage {
  /** Runs `work` while the subscription is stopped. */
  readonly during: <A, E, R>(work: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** Waits until the play is over. */
  readonly ended: Effect.Effect<void>
  readonly isOver: () => boolean
}

/** Begins a play that nobody ever interrupts, which costs less. */
export const unbroken = <R>(
  play: (perform: Perform) => Effect.Effect<void, never, R>
): Effect.Effect<Stage, never, R | Scope.Scope> =>
  Effect.map(Effect.forkScoped(play(Effect.exit)), (fiber) => new Unbroken(fiber))

/** Thousands of these may be there at once. */
class Unbroken implements Stage {
  constructor(private readonly fiber: Fiber.RuntimeFiber<void>) {}

  get ended(): Effect.Effect<void> {
    return Effect.asVoid(Fiber.await(this.fiber))
  }

  during<A, E, R>(): Effect.Effect<A, E, R> {
    return Effect.dieMessage("this play has no intermission")
  }

  isOver(): boolean {
    return this.fiber.unsafePoll() !== null
  }
}

/** Begins the play in a fiber of the scope. */
export const make = <R>(
  play: (perform: Perform) => Effect.Effect<void, never, R>
): Effect.Effect<Stage, never, R | Scope.Scope> =>
  Effect.gen(function*() {
    const scope = yield* Effect.scope
    const context = yield* Effect.context<R>()
    const turn = yield* Effect.makeSemaphore(1)
    let call = yield* Deferred.make<void>()
    /** How many have called and do not have their turn yet. */
    let callers = 0

    /** Whoever calls goes first, though a permit that is free goes to who asks before those that wait have woken. */
    const perform: Perform = (act) =>
      Effect.suspend(() => callers > 0 ? Effect.as(Effect.yieldNow(), undefined) : turn.withPermits(1)(once(act)))
    const once: Perform = (act) =>
      Effect.suspend(() => {
        if (callers > 0) return Effect.succeed(undefined)
        call = Deferred.unsafeMake<void>(FiberId.none)
        return Effect.raceFirst(Effect.exit(act), Effect.as(Deferred.await(call), undefined))
      })
    const begin = Effect.forkIn(
      Effect.interruptible(Effect.provide(Effect.suspend(() => play(perform)), context)),
      scope
    )
    let fiber = yield* begin

    const isOver = () => fiber.unsafePoll() !== null
    const goOn = Effect.suspend(() => isOver() ? Effect.map(begin, (next) => void (fiber = next)) : Effect.void)
    const during: Stage["during"] = (work) =>
      Effect.suspend(() => {
        let isWaiting = true
        const stopWaiting = Effect.sync(() => {
          if (isWaiting) callers--
          isWaiting = false
        })
        callers++
        return Deferred.succeed(call, undefined).pipe(
          Effect.zipRight(turn.withPermits(1)(Effect.ensuring(Effect.zipRight(stopWaiting, work), goOn))),
          Effect.ensuring(stopWaiting)
        )
      })
    const ended: Effect.Effect<void> = Effect.suspend(() => {
      const awaited = fiber
      return Effect.flatMap(Fiber.await(awaited), () => awaited === fiber ? Effect.void : ended)
    })
    return { during, ended, isOver }
  })
