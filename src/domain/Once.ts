/**
 * Once: an effect that is run a single time and lets go of what it was made of as soon as it begins.
 *
 *     uninterruptible ──▶ once ──▶ effect ──▶ operations         before
 *     uninterruptible ──▶ once                                   from its beginning on
 *
 * It matters to collections of young garbage. V8 puts a function literal that is assigned to a property into the old space at
 * once, and what is there keeps alive all that it refers to until the next full collection, however soon it is done with:
 * until then each collection of the young copies it. Effect 3 makes such literals for `async`, `uninterruptible`, the masks,
 * and with them for `ensuring`, `onExit`, `acquireUseRelease`, `withSpan`, `provideService` and permits. So whatever reaches
 * many operations or rows is given to those by way of this.
 *
 * A generator function that is made anew for each `Effect.gen` gets a map of its own there, with the same effect: where it
 * sees many operations, `Effect.fnUntraced` makes it once for all calls.
 */

import * as Effect from "effect/Effect"

export const once = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
  const take = taking(effect)
  return Effect.suspend(() => take() ?? Effect.dieMessage("an effect that is run once was run again"))
}

/** Gives it out a single time. */
export const taking = <A>(value: A): () => A | undefined => {
  let left: A | undefined = value
  return () => {
    const taken = left
    left = undefined
    return taken
  }
}
