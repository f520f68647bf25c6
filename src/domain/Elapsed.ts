/**
 * Elapsed time: milliseconds that only grow, whatever is done to the clock on the wall.
 *
 *     clock set back by an hour     what waits for 200 ms still waits for 200 ms, and not for an hour
 *     clock set forward by an hour  what was seen a moment ago was seen a moment ago
 *
 * It is to wait by, and says nothing about dates. A machine that sleeps does not count.
 */

import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

/** Milliseconds since some moment, with fractions. */
export const of = (clock: Clock.Clock): number => Number(clock.unsafeCurrentTimeNanos()) / 1_000_000

/** {@link of} the clock in the context. */
export const millis: Effect.Effect<number> = Effect.clockWith((clock) => Effect.sync(() => of(clock)))
