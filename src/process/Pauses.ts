/**
 * Pauses: a schedule that is stepped by hand, once for each failure, and says so before it waits.
 *
 *     failure ─▶ next ─┬─ the schedule goes on ─▶ announce ─▶ wait ─▶ true
 *                      └─ it has ended ───────────────────────────▶ false
 */

import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as ScheduleDecision from "effect/ScheduleDecision"

export interface Pauses<in E> {
  /** Waits as long as the schedule says, having announced which pause it is, from 1. */
  readonly next: (failure: E, announce: (attempt: number) => Effect.Effect<void>) => Effect.Effect<boolean>
  /** Starts the schedule over. */
  readonly reset: Effect.Effect<void>
}

/** A fresh run of the schedule, which costs nothing before its first pause: most of what may fail does not. */
export const make = <E>(schedule: Schedule.Schedule<unknown, E>): Effect.Effect<Pauses<E>> =>
  Effect.sync(() => {
    let attempt = 0
    let announce: (attempt: number) => Effect.Effect<void> = () => Effect.void
    let driver: Schedule.ScheduleDriver<unknown, E> | undefined
    const start = () =>
      Effect.map(
        Schedule.driver(Schedule.onDecision(schedule, (_, decision) =>
          Effect.suspend(() => ScheduleDecision.isContinue(decision) ? announce(++attempt) : Effect.void))),
        (started) =>
          driver = started
      )
    return {
      next: (failure, told) =>
        Effect.flatMap(
          Effect.suspend(() =>
            driver === undefined ? start() : Effect.succeed(driver)
          ),
          (started) => {
            announce = told
            return Effect.match(started.next(failure), { onFailure: () => false, onSuccess: () => true })
          }
        ),
      reset: Effect.suspend(() => {
        attempt = 0
        return driver === undefined ? Effect.void : driver.reset
      })
    }
  })
