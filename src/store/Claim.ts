/**
 * A claim: that a living process is at something, told apart from one that was killed at it.
 *
 * SQLite has no lock that outlives a transaction and ends with its process, so the claim names the process. All users of a
 * file in WAL mode are on one machine; a claim of another host (a container that shares the file) counts as alive, since
 * nobody here can tell, and a killed one then has to be settled by hand.
 */

import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { randomUUID } from "node:crypto"
import { hostname } from "node:os"

const Holder = Schema.parseJson(Schema.Struct({ host: Schema.String, pid: Schema.Number, key: Schema.String }))

/** The claims of this process. */
const held = new Set<string>()

/** Runs `work` with a new claim, which ends with it. */
export const hold = <A, E, R>(work: (claim: string) => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      const claim = JSON.stringify({ host: hostname(), pid: process.pid, key: randomUUID() })
      held.add(claim)
      return claim
    }),
    work,
    (claim) => Effect.sync(() => held.delete(claim))
  )

/** Whether whoever made it may still be at it. A claim that cannot be read is taken for one. */
export const isAlive = (claim: string): boolean => {
  if (held.has(claim)) return true
  const holder = Option.getOrUndefined(Schema.decodeOption(Holder)(claim))
  if (holder === undefined || holder.host !== hostname()) return true
  return holder.pid !== process.pid && isRunning(holder.pid)
}

/** Signal 0 is none: it asks whether one could be sent. A process of somebody else answers EPERM, and runs. */
const isRunning = (pid: number): boolean =>
  Effect.runSync(Effect.match(Effect.try(() => process.kill(pid, 0)), {
    onSuccess: () => true,
    onFailure: ({ error }) => typeof error === "object" && error !== null && "code" in error && error.code === "EPERM"
  }))
