/**
 * A watch: looks where a log ends, for all the readers of one process that wait for more.
 *
 *     an append of this process ──▶ known at once
 *     a hint ─────────────────────▶ look ──┐
 *     a pause, 5 ms doubling to 1 s ─▶ look ─┴▶ it has moved ──▶ those who wait go on
 *
 * Looking is the truth, a hint only makes it sooner; nobody looks while nobody waits. The first hint after an append of this
 * process is taken for its own, and looked after a pause later: there is nothing behind it but what others have appended in
 * that moment, and now whoever was told has work to do. A look that fails sends everyone on, so that each meets the failure
 * itself.
 */

import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { origin } from "../domain/Position.js"
import type { Position } from "../domain/Position.js"

/** Waits until the log may go on beyond a position. Returns at once where it is known to; may return for nothing. */
export type Beyond = (position: Position) => Effect.Effect<void>

export interface Watch {
  readonly beyond: Beyond
  /** Tells of an end of the log that is known without looking. */
  readonly tell: (head: Position) => Effect.Effect<void>
}

/** How long is waited before looking again, in milliseconds. */
export interface Pauses {
  readonly minMillis: number
  readonly maxMillis: number
}

export const pauses: Pauses = { minMillis: 5, maxMillis: 1_000 }

/** Starts watching, for as long as the scope lasts. */
export const make = <E, R>(
  look: Effect.Effect<Position, E, R>,
  hints: Stream.Stream<void>,
  { maxMillis, minMillis }: Pauses = pauses
): Effect.Effect<Watch, never, R | Scope.Scope> =>
  Effect.gen(function*() {
    const waiters = new Set<Waiter>()
    const wanted = yield* Effect.makeLatch(false)
    const hinted = yield* Effect.makeLatch(false)
    let head = origin
    let pauseMillis = minMillis
    /** Whether the hint of an append of this process may be on its way. */
    let isOwnExpected = false

    const wake = (isDue: (waiter: Waiter) => boolean) => {
      for (const waiter of Array.from(waiters).filter(isDue)) {
        waiters.delete(waiter)
        waiter.resume(Effect.void)
      }
    }

    const move = (to: Position) => {
      if (to <= head) return
      head = to
      pauseMillis = minMillis
      wake(({ position }) => position < to)
    }

    // It is entered and looked up in one turn, so nothing can happen between the two.
    const beyond: Beyond = (position) =>
      Effect.async((resume) => {
        if (head > position) return resume(Effect.void)
        const waiter: Waiter = { position, resume }
        if (waiters.size === 0) pauseMillis = minMillis
        waiters.add(waiter)
        wanted.unsafeOpen()
        return Effect.sync(() => waiters.delete(waiter))
      })

    const round = Effect.gen(function*() {
      if (waiters.size === 0) {
        wanted.unsafeClose()
        yield* wanted.await
      }
      const hint = yield* Effect.timeoutOption(hinted.await, pauseMillis)
      hinted.unsafeClose()
      const isOwn = isOwnExpected && Option.isSome(hint)
      isOwnExpected = false
      if (isOwn) return
      pauseMillis = Math.min(2 * pauseMillis, maxMillis)
      yield* Effect.matchCause(look, {
        onSuccess: move,
        onFailure: () => wake(() => true)
      })
    })

    // Nobody is asked for hints before somebody waits for one.
    yield* Effect.forkScoped(Effect.zipRight(wanted.await, Stream.runForEachChunk(hints, () => hinted.open)))
    yield* Effect.forkScoped(Effect.forever(round))
    const tell = (position: Position) =>
      Effect.sync(() => {
        if (position <= head) return
        isOwnExpected = true
        move(position)
      })
    return { beyond, tell }
  })

interface Waiter {
  readonly position: Position
  readonly resume: (effect: Effect.Effect<void>) => void
}
