/**
 * Soon: waits for what real databases and real reactors do in their own time, looking again and again.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"

/** Waits until `holds` says so, and dies with `what` if it has not within 45 seconds. */
export const until = <E, R>(what: string, holds: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.repeat(holds, { until: (isSo) => isSo, schedule: Schedule.spaced("5 millis") }).pipe(
    Effect.timeoutFailCause({
      duration: "45 seconds",
      onTimeout: () => Cause.die(new Error(`it never came true that ${what}`))
    }),
    Effect.asVoid
  )
