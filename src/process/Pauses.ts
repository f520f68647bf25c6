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

/** A fresh run of the schedule. */
export const make = <E>(schedule: Schedule.Schedule<unknown, E>): Effect.Effect<Pauses<E>> =>
  Effect.gen(function*() {
    let attempt = 0
    let announce: (attempt: number) => Effect.Effect<void> = () => Effect.void
    const driver = yield* Schedule.driver(Schedule.onDecision(schedule, (_, decision) =>
      Effect.suspend(() =>
        ScheduleDecision.isContinue(decision) ? announce(++attempt) : Effect.void
      )))
    return {
      next: (failure, told) =>
        Effect.suspend(() => {
          announce = told
          return Effect.match(driver.next(failure), {
            onFailure: () =>
              false,
            onSuccess: () => true
          })
        }),
      reset: Effect.zipRight(
        driver.reset,
        Effect.sync(() => {
          attempt = 0
        })
      )
    }
  })
