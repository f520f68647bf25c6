/**
 * Eventually: waits until something holds, on the event loop's turns and on no clock.
 *
 * Under a `TestClock` nothing that sleeps moves by itself, so what has not happened after a thousand turns waits for a time
 * or will never be; what takes real time, such as a socket, is to be awaited by other means.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/TestClock"

const turnsMax = 1_000

/** One turn of the event loop: whatever could run has run, and what it scheduled comes next. */
export const turn: Effect.Effect<void> = Effect.async((resume) => {
  const handle = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(handle))
})

/** Lets everything run that does not wait for a clock. */
export const settled: Effect.Effect<void> = Effect.repeatN(turn, 50)

/** Waits until `holds` says so, and dies with `what` if it never does. */
export const until = <E, R>(what: string, holds: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.gen(function*() {
    for (let turns = 0; turns < turnsMax; turns++) {
      if (yield* holds) return
      yield* turn
    }
    return yield* Effect.dieMessage(`it never came true that ${what}`)
  })

/**
 * Lets everything run, moves the `TestClock` to the next moment that somebody sleeps until, and returns how many
 * milliseconds that took. Unlike one long `adjust`, it lets whoever wakes go to sleep again at that very moment.
 */
export const nextSleep: Effect.Effect<number> = Effect.gen(function*() {
  yield* settled
  const now = yield* Clock.currentTimeMillis
  const later = Array.from(yield* TestClock.sleeps()).filter((instant) => instant > now)
  if (later.length === 0) return yield* Effect.dieMessage("nobody sleeps")
  const next = Math.min(...later)
  yield* TestClock.setTime(next)
  yield* settled
  return next - now
})
