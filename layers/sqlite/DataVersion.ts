/**
 * The data version: a number that SQLite keeps for each connection, and that changes when another one has written.
 *
 *     asked, 5 ms doubling to 100 ms ──▶ it has changed ──▶ hint
 *
 * Asking is a look into shared memory, far cheaper than a statement. What this connection writes itself does not change it.
 */

import type Database from "better-sqlite3"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

const pauseMinMillis = 5
const pauseMaxMillis = 100

/** An element whenever another process has written to the file, for ever; never for a database in memory. */
export const changes = (db: Database.Database): Stream.Stream<void> =>
  db.memory ? Stream.never : Stream.unwrap(Effect.map(versionOf(db), (first) => {
    let version = first
    const next = (pauseMillis: number): Effect.Effect<void> =>
      Effect.flatMap(Effect.delay(versionOf(db), pauseMillis), (now) => {
        if (now === version) return next(Math.min(2 * pauseMillis, pauseMaxMillis))
        version = now
        return Effect.void
      })
    return Stream.repeatEffect(Effect.suspend(() => next(pauseMinMillis)))
  }))

/** `undefined` once the file is closed, or cannot be read at this moment: then whoever waits sees it from his own poll. */
const versionOf = (db: Database.Database): Effect.Effect<unknown> =>
  Effect.orElseSucceed(
    Effect.try((): unknown => db.pragma("data_version", { simple: true })),
    () => undefined
  )
