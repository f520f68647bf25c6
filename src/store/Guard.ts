/**
 * A guard: the connection a migration is given, which keeps it inside its transaction and its permit, and knows what it sent.
 *
 *     SAVEPOINT ─▶ statement ─▶ does it end the transaction? ─▶ no: sent      ─▶ is the savepoint still there?
 *                               is it not permitted?                                 └ no: it ended the transaction
 *                                        └ yes: refused, nothing sent
 *
 * Text is judged before it is sent, and the savepoint proves it afterwards, whatever the text looked like. A refusal counts
 * even if the migration swallowed it.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Stream from "effect/Stream"
import { dialectOf } from "../domain/Dialect.js"
import type { Dialect } from "../domain/Dialect.js"
import * as Fault from "../process/Fault.js"
import * as Permit from "../process/Permit.js"
import * as Statements from "../process/Statements.js"
import * as Gate from "./Gate.js"
import * as Transaction from "./Transaction.js"

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

/** The body sent a statement that is not permitted. */
export class StatementRefused extends Data.TaggedError("StatementRefused")<Permit.Refusal> {
  override get message(): string {
    return `may not run ${this.statement}: ${this.needs} is not permitted`
  }
}

export interface Options {
  /** What may be sent. Default: any statement. */
  readonly permit?: Permit.Permit | undefined
  /** Called with each statement before it is sent. */
  readonly onStatement?: ((sent: Sent) => void) | undefined
  /** What is sent in place of a statement. */
  readonly rewrite?: ((text: string, dialect: Dialect) => string) | undefined
}

/** Runs `body` in the transaction that is open; nothing but savepoints is allowed to touch it. */
export const run = <A, E, R>(
  body: Effect.Effect<A, E, R>,
  options: Options = {}
): Effect.Effect<A, E | SqlError | EndedTransaction | StatementRefused, R | SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const transaction = yield* Effect.serviceOption(SqlClient.TransactionConnection)
    if (transaction._tag === "None") return yield* Effect.dieMessage("a guard needs a transaction around it")
    const [connection, depth] = transaction.value
    const watch = watching(dialectOf(sql), options, true)
    yield* connection.executeRaw(`SAVEPOINT ${savepoint}`, [])
    // Where everything is permitted, a connection of one's own may be had.
    const client = isUnlimited(options) ? sql : clientOf(sql, { reserve: Effect.map(sql.reserve, watch.guard) })
    const exit = yield* Effect.exit(provided(body, client, [watch.guard(connection), depth]))
    if (Exit.isInterrupted(exit)) return yield* exit
    // After a failure PostgreSQL takes nothing but a rollback, even one to the savepoint.
    const probe = Exit.isSuccess(exit) ? `RELEASE SAVEPOINT ${savepoint}` : `ROLLBACK TO SAVEPOINT ${savepoint}`
    yield* connection.executeRaw(probe, []).pipe(
      Effect.catchIf(isNoSavepoint, () => Effect.fail(new EndedTransaction({ statement: undefined }))),
      // A connection that is gone says nothing about the savepoint: then what the body failed with is what counts.
      Effect.catchTag("SqlError", (failure) => Exit.isSuccess(exit) ? Effect.fail(failure) : Effect.void)
    )
    yield* watch.verdict
    return yield* exit
  })

/** Runs `body` with nothing sent at all: each statement is answered with no rows. */
export const pretend = <A, E, R>(
  body: Effect.Effect<A, E, R>,
  options: Options
): Effect.Effect<A, E | EndedTransaction | StatementRefused, R | SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => {
    const watch = watching(dialectOf(sql), options, false)
    const answering = watch.guard(nowhere)
    return judged(watch, provided(body, clientOf(sql, { reserve: Effect.succeed(answering) }), [answering, 0]))
  })

/**
 * Runs `body` outside a transaction, with any statement permitted as it is. Otherwise each statement is judged, on whichever
 * connection it would be sent, and in the transactions that the body makes for itself with `sql.withTransaction`.
 */
export const outside = <A, E, R>(
  body: Effect.Effect<A, E, R>,
  options: Options
): Effect.Effect<A, E | EndedTransaction | StatementRefused, R | SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql): Effect.Effect<A, E | EndedTransaction | StatementRefused, R> => {
    if (isUnlimited(options)) return body
    const watch = watching(dialectOf(sql), options, false)
    const alone = watch.guard(unreserved(sql))
    const client = clientOf(sql, {
      reserve: Effect.map(sql.reserve, watch.guard),
      withTransaction: (part) =>
        Effect.flatMap(
          Effect.serviceOption(SqlClient.TransactionConnection),
          (current) =>
            current._tag === "Some" && current.value[0] !== alone
              ? sql.withTransaction(part)
              : Transaction.outside(sql.withTransaction(guarded(watch, part)))
        )
    })
    return judged(watch, provided(body, client, [alone, 0]))
  })

const isUnlimited = ({ permit = "any" }: Options): boolean => permit === "any"

/** The client with other ways to a connection. */
const clientOf = (
  sql: SqlClient.SqlClient,
  ways: Partial<Pick<SqlClient.SqlClient, "reserve" | "withTransaction">>
): SqlClient.SqlClient =>
  Object.assign(((...args: Parameters<typeof sql>) => sql(...args)) as SqlClient.SqlClient, sql, ways)

const provided = <A, E, R>(
  body: Effect.Effect<A, E, R>,
  client: SqlClient.SqlClient,
  connection: readonly [Connection, number]
): Effect.Effect<A, E, R> =>
  body.pipe(
    Effect.provideService(SqlClient.TransactionConnection, connection),
    Effect.provideService(SqlClient.SqlClient, client)
  ) as Effect.Effect<A, E, R>

/** The transaction's connection, watched. */
const guarded = <A, E, R>(watch: Watch, body: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(Effect.serviceOption(SqlClient.TransactionConnection), (transaction) =>
    transaction._tag === "None"
      ? body
      : Effect.mapInputContext(body, (context: Context.Context<R>) =>
        Context.add(context, SqlClient.TransactionConnection, [
          watch.guard(transaction.value[0]),
          transaction.value[1]
        ])))

/** A connection of its own for each statement. */
const unreserved = (sql: SqlClient.SqlClient): Connection => {
  const use = <A>(send: (connection: Connection) => Effect.Effect<A, SqlError>) =>
    Effect.scoped(Effect.flatMap(sql.reserve, send))
  return {
    execute: (text, params, transform) => use((connection) => connection.execute(text, params, transform)),
    executeRaw: (text, params) => use((connection) => connection.executeRaw(text, params)),
    executeValues: (text, params) => use((connection) => connection.executeValues(text, params)),
    executeUnprepared: (text, params, transform) =>
      use((connection) => connection.executeUnprepared(text, params, transform)),
    executeStream: (text, params, transform) =>
      Stream.unwrapScoped(Effect.map(sql.reserve, (connection) => connection.executeStream(text, params, transform)))
  }
}

/** A refusal counts even if the body swallowed it. */
const judged = <A, E, R>(watch: Watch, body: Effect.Effect<A, E, R>) =>
  Effect.flatMap(Effect.exit(body), (exit) => Exit.isInterrupted(exit) ? exit : Effect.zipRight(watch.verdict, exit))

const savepoint = "processor_migration"

const isNoSavepoint = (failure: SqlError): boolean => {
  const code = Fault.codeOf(failure)
  return code === "3B001" || code === "25P01" || /no such savepoint/.test(Fault.describe(failure))
}

/** What was refused on any of the connections that it guards. */
interface Watch {
  readonly guard: (connection: Connection) => Connection
  readonly verdict: Effect.Effect<void, EndedTransaction | StatementRefused>
}

const watching = (dialect: Dialect, options: Options, isInside: boolean): Watch => {
  let first: EndedTransaction | StatementRefused | undefined
  const refusal = (text: string): EndedTransaction | StatementRefused | undefined => {
    const ends = isInside ? Statements.split(text, dialect).find(Statements.controlsTransaction) : undefined
    if (ends !== undefined) return new EndedTransaction({ statement: ends.text })
    const refused = Permit.refusal(options.permit ?? "any", text, dialect)
    return refused === undefined ? undefined : new StatementRefused(refused)
  }
  const admit: Gate.Admit = (text, parameters, send) =>
    Effect.suspend(() => {
      const refused = refusal(text)
      if (refused !== undefined) {
        first ??= refused
        return Effect.fail(new SqlError({ cause: refused, message: `a migration may not run ${refused.statement}` }))
      }
      options.onStatement?.({ text, parameters })
      return send(options.rewrite === undefined ? text : options.rewrite(text, dialect))
    })
  return {
    guard: (connection) => Gate.make(connection, admit),
    verdict: Effect.suspend(() => first === undefined ? Effect.void : Effect.fail(first))
  }
}

const nowhere: Connection = {
  execute: () => Effect.succeed([]),
  executeRaw: () => Effect.succeed([]),
  executeValues: () => Effect.succeed([]),
  executeUnprepared: () => Effect.succeed([]),
  executeStream: () => Stream.empty
}
