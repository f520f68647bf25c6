/**
 * A listener: one session outside the pool that hears one channel, and a failure as soon as it hears no more.
 *
 *     connect ──▶ LISTEN ──▶ notifications ──▶ stream
 *                   └ asked every `listenPing`; an error, an end or silence ──▶ SqlError
 */

import { SqlError } from "@effect/sql/SqlError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as Pg from "pg"
import type { Settings } from "./Settings.js"
import { socketOf, watch } from "./Sockets.js"

/** How often the session of a `listen` is asked whether it is still there. */
const listenPing = Duration.seconds(10)

/** The payloads sent to `channel` from now on, the latest 256 of them when they are not taken fast enough. */
export const listen = (
  settings: Settings,
  options: Pg.ClientConfig,
  channel: string
): Stream.Stream<string, SqlError> =>
  Stream.asyncPush<string, SqlError>((emit) =>
    Effect.gen(function*() {
      const client = yield* Effect.acquireRelease(
        Effect.sync(() => new Pg.Client(options)),
        (opened) => Effect.sync(() => opened.end(() => undefined))
      )
      const lost = (cause: unknown) => new SqlError({ cause, message: "Failed to listen" })
      client.on("error", (cause) => emit.fail(lost(cause)))
      client.on("end", () => emit.fail(lost(new Error("the session of a listener has ended"))))
      client.on("notification", (message) => {
        if (message.channel === channel) emit.single(message.payload ?? "")
      })
      const ask = (text: string): Effect.Effect<void, SqlError> =>
        Effect.async((resume) => {
          const socket = socketOf(client)
          socket?.setTimeout(settings.socketMillis)
          client.query(text, (cause: Error | null) => {
            socket?.setTimeout(0)
            resume(cause ? Effect.fail(lost(cause)) : Effect.void)
          })
        })
      yield* Effect.tryPromise({ try: () => client.connect(), catch: lost })
      watch(client)
      yield* ask(`LISTEN ${Pg.escapeIdentifier(channel)}`)
      yield* ask("").pipe(
        Effect.repeat(Schedule.spaced(listenPing)),
        Effect.catchAll((error) => Effect.sync(() => emit.fail(error))),
        Effect.forkScoped
      )
    }), { bufferSize: 256, strategy: "sliding" })

/** How long after its session is lost a topic is listened to again, give or take a fifth. */
const listenAgain = Schedule.jittered(Schedule.spaced("1 second"))

/** A hint for each notification, for ever. A session that is lost is one too, since what was sent meanwhile is not heard. */
export const hints = (settings: Settings, options: Pg.ClientConfig, channel: string): Stream.Stream<void> =>
  listen(settings, options, channel).pipe(
    Stream.map(() => undefined),
    Stream.catchAll(() => Stream.void),
    Stream.repeat(listenAgain)
  )
