/**
 * Permits: so many at a time, in the order in which they came, however many wait.
 *
 *     take ─┬ free ──▶ in ──▶ give back ──▶ the first who waits, or free
 *           └ taken ─▶ waits ─▶ its turn ─▶ in
 *
 * Effect's semaphore wakes all who wait whenever one leaves, which thousands of subscriptions would spend their time on.
 */

import * as Effect from "effect/Effect"

/** Runs an effect when it has its permit, which it gives back in the end. */
export type Permits = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

export const make = (permits: number): Permits => {
  let free = permits
  const waiting = new Set<() => void>()
  const release = () => {
    const [next] = waiting
    if (next === undefined) {
      free++
    } else {
      waiting.delete(next)
      next()
    }
  }
  const take = Effect.async<void>((resume) => {
    if (free > 0) {
      free--
      return resume(Effect.void)
    }
    let isIn = false
    const enter = () => {
      isIn = true
      resume(Effect.void)
    }
    waiting.add(enter)
    // Its turn and its interruption may come in the same moment.
    return Effect.sync(() => isIn ? release() : waiting.delete(enter))
  })
  const giveBack = Effect.sync(release)
  return (effect) =>
    Effect.uninterruptibleMask((restore) => Effect.zipRight(restore(take), Effect.ensuring(restore(effect), giveBack)))
}
