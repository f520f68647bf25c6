/**
 * A lease: the connection for one fiber alone, so that no statement slips into the transaction of another.
 *
 *     transaction ──▶ lease ──▶ connection ──▶ given back when the scope closes; rolled back if still inside
 *     statement ────▶ lease ──▶ connection ──▶ given back at once
 */

import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import type Database from "better-sqlite3"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

/** One lease at a time of `connection`, the only one to `db`. Waiting for it can be interrupted. */
export const make = (db: Database.Database, connection: Connection): Connection.Acquirer => {
  const semaphore = Effect.unsafeMakeSemaphore(1)
  return Effect.uninterruptibleMask((restore) =>
    Effect.zipRight(
      restore(semaphore.take(1)),
      Effect.as(Effect.addFinalizer(() => Effect.ensuring(leaveTransaction(db), semaphore.release(1))), connection)
    )
  )
}

/** A connection for statements outside a transaction, each of which holds the lease for as long as it runs. */
export const alone = (lease: Connection.Acquirer): Connection => {
  const hold = <A>(statement: (connection: Connection) => Effect.Effect<A, SqlError>) =>
    Effect.scoped(Effect.flatMap(lease, statement))
  const execute: Connection["execute"] = (text, params, transformRows) =>
    hold((connection) => connection.execute(text, params, transformRows))
  return {
    execute,
    executeRaw: (text, params) => hold((connection) => connection.executeRaw(text, params)),
    executeValues: (text, params) => hold((connection) => connection.executeValues(text, params)),
    executeUnprepared: (text, params, transformRows) =>
      hold((connection) => connection.executeUnprepared(text, params, transformRows)),
    executeStream: (text, params, transformRows) => Stream.fromIterableEffect(execute(text, params, transformRows))
  }
}

const leaveTransaction = (db: Database.Database): Effect.Effect<void> =>
  Effect.suspend(() =>
    db.open && db.inTransaction
      ? Effect.zipRight(
        Effect.ignore(Effect.try(() => db.exec("ROLLBACK"))),
        Effect.logWarning("a connection was given back inside a transaction, which was rolled back")
      )
      : Effect.void
  )
