/**
 * A flight: statements of a transaction that are sent one right after the other, without waiting for an answer in between.
 *
 *     hold the cursor, load progress            ──▶  both answers       one way there and back instead of two
 *     table rows, progress, cursor and COMMIT   ──▶  whether it is done   likewise
 *
 * The database runs them one after the other, each as if it had been sent alone, so a statement sees what those before it
 * have locked and written. None may depend on the answer to another, and after one that fails the others fail as well: what
 * is told is the first failure. Where a connection cannot do that, or somebody traces statements, each waits for its answer.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Effect from "effect/Effect"
import type { RuntimeFiber } from "effect/Fiber"
import * as Tracer from "effect/Tracer"
import type { Sent, Teller } from "../table/Bulk.js"

export type { Sent } from "../table/Bulk.js"

/** A connection that can send several statements at once. */
export interface Carrier extends Connection {
  /** The rows of each, in order. */
  readonly executeTogether: (
    statements: ReadonlyArray<Sent>
  ) => Effect.Effect<ReadonlyArray<ReadonlyArray<unknown>>, SqlError>
}

/** A connection that may be told statements before the answers to others have come. */
export const tellerOf = (connection: Connection): Teller | undefined =>
  "tell" in connection && "told" in connection ? connection as Connection & Teller : undefined

/** A connection of which COMMIT goes with the statements before it. */
export interface Committer extends Carrier {
  /**
   * Sends all with COMMIT behind them, and tells what that was answered. Fails with the first failure; then nothing of the
   * transaction is committed, unless it leaves that open as one of COMMIT alone would.
   */
  readonly commitTogether: (statements: ReadonlyArray<Sent>) => Effect.Effect<unknown, SqlError>
}

/** The connection of a transaction that takes statements along to its COMMIT. */
export interface Departing extends Connection {
  /** Takes what is sent with COMMIT, as the last statements of the transaction; `undefined` where nothing can be. */
  readonly departure: ((statements: ReadonlyArray<Sent>) => void) | undefined
}

export const isCarrier = (connection: Connection): connection is Carrier => "executeTogether" in connection

export const isCommitter = (connection: Connection): connection is Committer => "commitTogether" in connection

const isDeparting = (connection: Connection): connection is Departing => "departure" in connection

/** The rows of each statement, in order. */
export const send = (
  statements: ReadonlyArray<Statement.Statement<object>>
): Effect.Effect<ReadonlyArray<ReadonlyArray<object>>, SqlError> =>
  Effect.withFiberRuntime((fiber) => {
    const connection = unwatched(fiber)
    return connection === undefined || !isCarrier(connection) || statements.length < 2
      ? Effect.forEach(statements, (statement) => statement)
      : connection.executeTogether(statements.map((statement) => statement.compile())) as Effect.Effect<
        ReadonlyArray<ReadonlyArray<object>>,
        SqlError
      >
  })

/** What takes the last statements of this transaction to its COMMIT, where anything can; otherwise they are to be sent. */
export const departure: Effect.Effect<((statements: ReadonlyArray<Sent>) => void) | undefined> = Effect
  .withFiberRuntime((fiber) => {
    const connection = unwatched(fiber)
    return Effect.succeed(connection !== undefined && isDeparting(connection) ? connection.departure : undefined)
  })

/** The connection of the transaction that a fiber is in, where nobody wants to see each statement. */
const unwatched = (fiber: RuntimeFiber<unknown, unknown>): Connection | undefined => {
  const [connection] = (fiber.currentContext.unsafeMap.get(SqlClient.TransactionConnection.key) ?? []) as
    | Context.Tag.Service<typeof SqlClient.TransactionConnection>
    | []
  return fiber.getFiberRef(Statement.currentTransformer)._tag === "Some" ||
      Context.get(fiber.currentDefaultServices, Tracer.Tracer) !== nobodyTraces
    ? undefined
    : connection
}

const nobodyTraces = Context.get(DefaultServices.liveServices, Tracer.Tracer)
