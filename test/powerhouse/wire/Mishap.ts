/**
 * Mishap: a process that follows a remote, killed again and again at any moment, and begun again.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as Bundle from "../../support/Bundle.js"
import type { Order } from "./follower.js"
import type { Endpoint } from "./Real.js"

/**
 * Starts followers one after another while `work` goes on, kills each at some moment after it has begun to ask, and then
 * lets one live.
 */
export const killing = <A>(
  order: Order,
  { requests }: Pick<Endpoint, "requests">,
  random: () => number,
  work: Effect.Effect<A>
): Effect.Effect<{ readonly kills: number }, never, Scope.Scope> =>
  Effect.gen(function*() {
    const program = yield* Bundle.make(new URL("./follower.ts", import.meta.url))
    let isOver = false
    let kills = 0
    const starting = Effect.acquireRelease(
      Effect.sync(() => spawn(process.execPath, [program, JSON.stringify(order)], { stdio: "ignore" })),
      (child) =>
        Effect.promise(async () => {
          if (child.exitCode !== null || child.signalCode !== null) return
          const ended = once(child, "exit")
          child.kill("SIGKILL")
          await ended
        })
    )
    const round = Effect.scoped(Effect.gen(function*() {
      const before = requests.length
      yield* starting
      while (requests.length === before) yield* Effect.sleep(5)
      yield* Effect.sleep(random() * 100)
      kills++
    }))
    const rounds = Effect.repeat(round, { while: () => !isOver })
    yield* Effect.all([
      rounds,
      Effect.tap(work, () => {
        isOver = true
      })
    ], { concurrency: 2 })
    yield* starting
    return { kills }
  })
