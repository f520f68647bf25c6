/**
 * A turnstile: lets so many in at a time, in the order in which they came, and nobody wait for ever.
 *
 *     take ─┬ free ──▶ in ──▶ release ──▶ the first who waits, or free
 *           └ taken ─▶ waits ─┬ its turn ──────────────────▶ in
 *                             └ too long, or interrupted ──▶ out of the queue
 *
 * A semaphore would let one who releases and takes again at once overtake those who wait.
 */

import { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"

export interface Turnstile {
  /** An `SqlError` with the code `SQLITE_BUSY` when it takes too long. */
  readonly take: Effect.Effect<void, SqlError>
  readonly release: Effect.Effect<void>
}

/** Waits by a timer and not by the Clock: what others do on their connections takes real time. */
export const make = (permits: number, waitMillis: number, what: string): Turnstile => {
  let free = permits
  const waiting = new Set<() => void>()
  const release = () => {
    const [next] = waiting
    if (next === undefined) free++
    else next()
  }
  return {
    release: Effect.sync(release),
    take: Effect.async<void, SqlError>((resume) => {
      let isIn = false
      let timer: NodeJS.Timeout | undefined
      const leave = () => {
        clearTimeout(timer)
        waiting.delete(enter)
      }
      const enter = () => {
        leave()
        isIn = true
        resume(Effect.void)
      }
      if (free > 0) {
        free--
        enter()
      } else {
        waiting.add(enter)
        timer = setTimeout(() => {
          leave()
          resume(Effect.fail(tooLong(what, waitMillis)))
        }, waitMillis)
      }
      // Its turn and its interruption may come in the same moment.
      return Effect.sync(() => isIn ? release() : leave())
    })
  }
}

const tooLong = (what: string, waitMillis: number): SqlError =>
  new SqlError({
    message: "Failed to acquire connection",
    cause: Object.assign(new Error(`${what} was not free within ${waitMillis} ms`), { code: "SQLITE_BUSY" })
  })
