/**
 * A guard: the connection a migration is given, which keeps it inside its transaction and knows what it sent.
 *
 *     SAVEPOINT ─▶ statement ─▶ does it end the transaction? ─▶ no: sent      ─▶ is the savepoint still there?
 *                                        └ yes: refused, nothing sent                └ no: it ended the transaction
 *
 * Text is judged before it is sent, and the savepoint proves it afterwards, whatever the text looked like.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Stream from "effect/Stream"
import * as Fault from "../process/Fault.js"
import * as Migration from "../process/Migration.js"
import * as Statements from "../process/Statements.js"

/** A statement as it was sent, or as it would have been. */
export interface Sent {
  readonly text: string
  readonly parameters: ReadonlyArray<unknown>
}

/** The body began or ended a transaction by itself. */
export class EndedTransaction extends Data.TaggedError("EndedTransaction")<{
  /** The statement that was refused; `undefined` when it was not known for what it is and did end the transaction. */
  readonly statement: string | undefined
}> {}

export interface Options {
  /** Called with each statement before it is sent. */
  readonly onStatement?: ((sent: Sent) => void) | undefined
  /** What is sent in place of a statement. */
  readonly rewrite?: ((text: string, dialect: Statements.Dialect) => string) | undefined
}

/** Runs `body` in the transaction that is open; nothing but savepoints is allowed to touch it. */
export const run = <A, E, R>(
  body: Effect.Effect<A, E, R>,
  options: Options = {}
): Effect.Effect<A, E | SqlError | EndedTransaction, R | SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const transaction = yield* Effect.serviceOption(SqlClient.TransactionConnection)
    if (transaction._tag === "None") return yield* Effect.dieMessage("a guard needs a transaction around it")
    const [connection, depth] = transaction.value
    const refused: Array<string> = []
    const guarded = guard(connection, Migration.dialectOf(sql), options, (text) => refused.push(text))
    yield* connection.executeRaw(`SAVEPOINT ${savepoint}`, [])
    const exit = yield* Effect.exit(Effect.provideService(body, SqlClient.TransactionConnection, [guarded, depth]))
    if (Exit.isInterrupted(exit)) return yield* exit
    // After a failure PostgreSQL takes nothing but a rollback, even one to the savepoint.
    const probe = Exit.isSuccess(exit) ? `RELEASE SAVEPOINT ${savepoint}` : `ROLLBACK TO SAVEPOINT ${savepoint}`
    yield* connection.executeRaw(probe, []).pipe(
      Effect.catchIf(isNoSavepoint, () => Effect.fail(new EndedTransaction({ statement: undefined }))),
      // A connection that is gone says nothing about the savepoint: then what the body failed with is what counts.
      Effect.catchTag("SqlError", (failure) => Exit.isSuccess(exit) ? Effect.fail(failure) : Effect.void)
    )
    // A refusal counts even if the body swallowed it.
    if (refused.length > 0) return yield* new EndedTransaction({ statement: refused[0] })
    return yield* exit
  })

/** Runs `body` with nothing sent at all: each statement is answered with no rows. */
export const pretend = <A, E, R>(
  body: Effect.Effect<A, E, R>,
  options: Options
): Effect.Effect<A, E, R | SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.provideService(body, SqlClient.TransactionConnection, [
      guard(nowhere, Migration.dialectOf(sql), options, undefined),
      0
    ]))

const savepoint = "processor_migration"

const isNoSavepoint = (failure: SqlError): boolean => {
  const code = Fault.codeOf(failure)
  return code === "3B001" || code === "25P01" || /no such savepoint/.test(Fault.describe(failure))
}

const guard = (
  connection: Connection,
  dialect: Statements.Dialect,
  options: Options,
  onRefused: ((text: string) => void) | undefined
): Connection => {
  const admit = <A>(
    text: string,
    parameters: ReadonlyArray<unknown>,
    send: (text: string) => Effect.Effect<A, SqlError>
  ): Effect.Effect<A, SqlError> =>
    Effect.suspend(() => {
      const ends = onRefused && Statements.split(text, dialect).find(Statements.controlsTransaction)
      if (onRefused !== undefined && ends !== undefined) {
        onRefused(ends.text)
        return Effect.fail(new SqlError({ cause: undefined, message: `a migration may not ${ends.text}` }))
      }
      options.onStatement?.({ text, parameters })
      return send(options.rewrite === undefined ? text : options.rewrite(text, dialect))
    })
  return {
    execute: (text, params, transform) => admit(text, params, (sent) => connection.execute(sent, params, transform)),
    executeRaw: (text, params) => admit(text, params, (sent) => connection.executeRaw(sent, params)),
    executeValues: (text, params) => admit(text, params, (sent) => connection.executeValues(sent, params)),
    executeUnprepared: (text, params, transform) =>
      admit(text, params, (sent) => connection.executeUnprepared(sent, params, transform)),
    executeStream: (text, params, transform) =>
      Stream.unwrap(
        admit(text, params, (sent) => Effect.succeed(connection.executeStream(sent, params, transform)))
      )
  }
}

const nowhere: Connection = {
  execute: () => Effect.succeed([]),
  executeRaw: () => Effect.succeed([]),
  executeValues: () => Effect.succeed([]),
  executeUnprepared: () => Effect.succeed([]),
  executeStream: () => Stream.empty
}
