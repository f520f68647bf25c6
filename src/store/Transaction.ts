/**
 * A transaction: everything in it is in the database, or nothing is, and the caller knows which.
 *
 *     reserve ─▶ BEGIN ─▶ body, on a lease ─▶ what it left, COMMIT ─▶ lease ends, connection returned, a turn for others
 *                           │ fails, or is interrupted
 *                           └▶ ROLLBACK
 *
 * It stands in for `sql.withTransaction`, whose failures of BEGIN, COMMIT and ROLLBACK are defects, which reports success
 * when PostgreSQL answers COMMIT with ROLLBACK, and which lets a fiber that outlives the body write on its connection.
 * Here
 *
 * - a failed BEGIN or COMMIT is a typed failure, and a COMMIT whose outcome is not known is `CommitUnknown`;
 * - the body's connection is a lease: once the body has ended, a statement on it fails instead of running; likewise once
 *   SQLite has rolled the transaction back by itself, as it does when the disk is full, where statements of a body that
 *   swallows such a failure would otherwise be committed one by one;
 * - the body cannot begin or end a transaction itself, which would tear its writes from the cursor: such a statement is
 *   refused, and the transaction fails even if the body swallows that;
 * - statements are not interrupted half-way (PostgreSQL would cancel whatever the connection runs next); an interruption
 *   waits for the one that runs, which the server's `statement_timeout` and the socket watchdog bound;
 * - SQLite begins IMMEDIATE, since a deferred transaction cannot be upgraded once another process has written;
 * - the event loop gets a turn after each transaction, without which one busy SQLite subscription starves all others.
 *
 * Inside the body `sql.withTransaction` makes savepoints, as usual; run them one after another, never side by side.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { dialectOf } from "../domain/Dialect.js"
import * as Fault from "../process/Fault.js"
import * as Errand from "./Errand.js"
import * as Flight from "./Flight.js"
import { Lease } from "./Lease.js"

/** COMMIT was sent and its answer was lost: the writes are in the database or they are not. Read before deciding. */
export class CommitUnknown extends Data.TaggedError("CommitUnknown")<{ readonly cause: unknown }> {
  override get message(): string {
    return `the outcome of COMMIT is not known: ${Fault.describe(this.cause)}`
  }
}

/** PostgreSQL answered COMMIT with ROLLBACK: a statement had failed, and the body went on as if it had not. */
export class RolledBack extends Data.TaggedError("RolledBack")<{}> {
  override get message(): string {
    return "the database rolled back instead of committing, because a statement had failed and its failure was swallowed"
  }
}

export type TransactionError = SqlError | CommitUnknown | RolledBack

/**
 * Runs `body` in a transaction of its own. Not to be used inside another one: it would wait for its own connection. An
 * `errand` is offered to whoever gives out the connection, and to nobody in the body.
 */
export const run = <A, E, R>(
  body: Effect.Effect<A, E, R>,
  errand?: Errand.Errand
): Effect.Effect<A, E | TransactionError, R | SqlClient.SqlClient> => Effect.ensuring(withoutTurn(body, errand), turn)

/** {@link run} for who tells others of it at once, and takes the turn at its end by itself. */
export const withoutTurn = <A, E, R>(
  body: Effect.Effect<A, E, R>,
  errand?: Errand.Errand
): Effect.Effect<A, E | TransactionError, R | SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.acquireUseRelease(
        Scope.make(),
        (scope) =>
          Effect.flatMap(
            restore(Scope.extend(
              errand === undefined ? sql.reserve : Effect.provideService(sql.reserve, Errand.Offered, errand),
              scope
            )),
            (connection) => onConnection(sql, connection, restore(body))
          ),
        (scope, exit) => Scope.close(scope, exit)
      )
    ))

/** Runs outside the transaction that is open around it, whose connection all clients of a fiber would use. */
export const outside = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.mapInputContext(
    effect,
    (context: Context.Context<R>) => Context.omit(SqlClient.TransactionConnection)(context) as Context.Context<R>
  )

const onConnection = Effect.fnUntraced(
  function*<A, E, R>(sql: SqlClient.SqlClient, connection: Connection, body: Effect.Effect<A, E, R>) {
    yield* begin(sql, connection)
    const lease = new Lease(connection, dialectOf(sql), isStillOpen(sql, connection))
    const exit = yield* Effect.exit(Effect.provideService(body, SqlClient.TransactionConnection, [lease, 0]))
    lease.end()
    if (Exit.isSuccess(exit) && lease.lost === undefined) {
      yield* commit(connection, lease.takeLast())
    } else {
      yield* rollback(connection)
    }
    return yield* Exit.isSuccess(exit) && lease.lost !== undefined ? Effect.fail(lease.lost) : exit
  }
)

/**
 * Whether a failed statement has left the transaction open. PostgreSQL keeps it, and refuses whatever follows; SQLite can
 * have rolled it back, and tells by refusing to begin another one, or not.
 */
const isStillOpen = (sql: SqlClient.SqlClient, connection: Connection): Effect.Effect<boolean> =>
  sql.onDialectOrElse({
    sqlite: () =>
      Effect.matchEffect(connection.executeRaw("BEGIN", []), {
        onFailure: () => Effect.succeed(true),
        onSuccess: () => Effect.as(rollback(connection), false)
      }),
    orElse: () => Effect.succeed(true)
  })

const begin = (sql: SqlClient.SqlClient, connection: Connection): Effect.Effect<void, SqlError> => {
  const statement = connection.executeRaw(
    sql.onDialectOrElse({ sqlite: () => "BEGIN IMMEDIATE", orElse: () => "BEGIN" }),
    []
  )
  // A connection that was left inside a transaction is put right rather than refused for ever.
  return Effect.catchIf(
    statement,
    (error) => /within a transaction/.test(Fault.describe(error)),
    () => Effect.zipRight(rollback(connection), statement)
  )
}

const commit = (
  connection: Connection,
  last: ReadonlyArray<Flight.Sent>
): Effect.Effect<void, TransactionError> =>
  (Flight.isCommitter(connection) && last.length > 0
    ? connection.commitTogether(last)
    : connection.executeRaw("COMMIT", [])).pipe(
      Effect.catchAll((error): Effect.Effect<never, SqlError | CommitUnknown> =>
        Effect.zipRight(
          rollback(connection),
          Effect.fail(Fault.leavesCommitUnknown(error) ? new CommitUnknown({ cause: error }) : error)
        )
      ),
      Effect.flatMap((result) => commandOf(result) === "ROLLBACK" ? Effect.fail(new RolledBack()) : Effect.void)
    )

/**
 * Leaves the transaction. A failure is logged and not raised: the caller already has the failure that matters, the server
 * rolls back by itself when the connection goes, and a pool that is guarded drops a connection in any other state.
 */
const rollback = (connection: Connection): Effect.Effect<void> =>
  connection.executeRaw("ROLLBACK", []).pipe(
    Effect.catchAll((error) => Effect.logDebug("ROLLBACK was not answered", Fault.describe(error))),
    Effect.asVoid
  )

/** The command tag of a `pg` result; SQLite's results have none. */
const commandOf = (result: unknown): unknown =>
  typeof result === "object" && result !== null && "command" in result ? result.command : undefined

/** A turn of the event loop for whoever else waits for one; SQLite takes none by itself. */
export const turn: Effect.Effect<void> = Effect.async((resume) => {
  const handle = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(handle))
})
