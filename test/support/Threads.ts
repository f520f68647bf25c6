/**
 * Threads: those that SQLite files are given, watched: what is sent to them, and what becomes of it.
 *
 *     const threads = yield* Threads.watch((n, send, worker) => n === 3 ? void worker.terminate() : send())
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Worker } from "node:worker_threads"
import type { Request } from "../../layers/sqlite/Thread.js"

export interface Threads {
  /** The statements of each request, in the order sent. */
  readonly requests: Array<ReadonlyArray<string>>
  /** All that were sent anything. */
  readonly workers: Set<Worker>
}

/** How a request is sent, of which it is the `n`-th, from 1. */
export type Post = (n: number, send: (more?: Request) => void, worker: Worker, request: Request) => void

/** Watches all threads until the scope closes. */
export const watch = (post: Post = (_, send) => send()): Effect.Effect<Threads, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const threads: Threads = { requests: [], workers: new Set() }
      const original = Object.getOwnPropertyDescriptor(Worker.prototype, "postMessage")!
      const send = original.value as (this: Worker, message: unknown) => void
      Object.defineProperty(Worker.prototype, "postMessage", {
        ...original,
        value: function(this: Worker, message: Request | "close") {
          if (message === "close") return send.call(this, message)
          threads.workers.add(this)
          threads.requests.push(message.calls.map(({ text }) => text.trim().split(/\s+/).slice(0, 3).join(" ")))
          post(threads.requests.length, (more = message) => send.call(this, more), this, message)
        }
      })
      return { threads, restore: () => Object.defineProperty(Worker.prototype, "postMessage", original) }
    }),
    ({ restore }) => Effect.sync(restore)
  ).pipe(Effect.map(({ threads }) => threads))

/** Those that have not ended. */
export const alive = ({ workers }: Threads): number =>
  Array.from(workers).filter((worker) => worker.threadId !== -1).length
