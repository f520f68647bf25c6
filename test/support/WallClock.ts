/**
 * WallClock: a clock on the wall that a test sets forward or back, while time goes on as it did.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

export interface WallClock {
  /** Has an effect look at this clock. What moves a `TestClock` has to stay outside. */
  readonly on: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** Sets it by so many milliseconds. */
  readonly set: (byMillis: number) => void
}

/** A clock that goes with the one in the context, until it is set. */
export const make: Effect.Effect<WallClock> = Effect.map(Effect.clock, (inner) => {
  let by = 0
  const clock: Clock.Clock = {
    [Clock.ClockTypeId]: Clock.ClockTypeId,
    unsafeCurrentTimeMillis: () => inner.unsafeCurrentTimeMillis() + by,
    unsafeCurrentTimeNanos: () => inner.unsafeCurrentTimeNanos(),
    currentTimeMillis: Effect.map(inner.currentTimeMillis, (now) => now + by),
    currentTimeNanos: inner.currentTimeNanos,
    sleep: (duration) => inner.sleep(duration)
  }
  return {
    on: (effect) => Effect.withClock(effect, clock),
    set: (byMillis) => {
      by += byMillis
    }
  }
})
