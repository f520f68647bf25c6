/**
 * The sockets of a PostgreSQL store: every one is counted, watched while an answer is awaited, and closed in the end.
 *
 *     open ──▶ counted ──▶ close ──▶ forgotten
 *                 ├ silent for longer than its time-out ──▶ destroyed
 *                 └ scope closes ──▶ `closeMillis` to say goodbye ──▶ destroyed
 */

import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Net from "node:net"
import type * as Pg from "pg"

/** The sockets of a closing pool are given so long to say goodbye, in milliseconds; a session of a `listen` too. */
const closeMillis = 1_000

/**
 * Every socket of the layer that is open. With the scope they close, by themselves within `closeMillis` or else by
 * force.
 */
export type Sockets = Set<Net.Socket>

/** No sockets yet. Its release is what closes them, so it has to be acquired before whoever opens them. */
export const make: Effect.Effect<Sockets, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync((): Sockets => new Set()),
  (sockets) => Effect.zipRight(emptied(sockets), Effect.sync(() => sockets.forEach((socket) => socket.destroy())))
)

/** A socket that is not connected yet, and is one of `sockets` until it closes. */
export const open = (sockets: Sockets): Net.Socket => {
  const socket = new Net.Socket()
  sockets.add(socket)
  return socket.once("close", () => sockets.delete(socket))
}

/** The socket of a session; after the change to TLS, the encrypted one. */
export const socketOf = (client: Pg.Client): Net.Socket | undefined =>
  client.connection.stream instanceof Net.Socket ? client.connection.stream : undefined

/**
 * Destroys the session's socket when its time-out, set while an answer or the end is awaited, has passed in silence.
 */
export const watch = (client: Pg.Client): void => {
  const socket = socketOf(client)
  client.on("error", () => undefined)
  socket?.once("timeout", () => socket.destroy(new Silence(`no answer for ${socket.timeout ?? 0} ms`)))
  socket?.once("finish", () => socket.setTimeout(closeMillis))
}

class Silence extends Error {
  readonly code = "ETIMEDOUT"
}

/** Waits by a timer and not by the Clock: sockets run on real time, and a test's clock would stand still. */
const emptied = (sockets: Sockets): Effect.Effect<void> =>
  Effect.async((resume) => {
    const timer = setTimeout(() => resume(Effect.void), closeMillis)
    const check = () => {
      if (sockets.size > 0) return
      clearTimeout(timer)
      resume(Effect.void)
    }
    sockets.forEach((socket) => socket.once("close", check))
    check()
  })
