/**
 * A flight: statements of a transaction that are sent one right after the other, without waiting for an answer in between.
 *
 *     hold the cursor, load progress  ──▶  both answers        one way there and back instead of two
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
import * as Tracer from "effect/Tracer"

/** A statement as its connection is given it. */
export type Sent = readonly [text: string, parameters: ReadonlyArray<unknown>]

/** A connection that can send several statements at once. */
export interface Carrier extends Connection {
  /** The rows of each, in order. */
  readonly executeTogether: (
    statements: ReadonlyArray<Sent>
  ) => Effect.Effect<ReadonlyArray<ReadonlyArray<unknown>>, SqlError>
}

export const isCarrier = (connection: Connection): connection is Carrier => "executeTogether" in connection

/** The rows of each statement, in order. */
export const send = (
  statements: ReadonlyArray<Statement.Statement<object>>
): Effect.Effect<ReadonlyArray<ReadonlyArray<object>>, SqlError> =>
  Effect.withFiberRuntime((fiber) => {
    const [connection] = (fiber.currentContext.unsafeMap.get(SqlClient.TransactionConnection.key) ?? []) as
      | Context.Tag.Service<typeof SqlClient.TransactionConnection>
      | []
    return connection === undefined || !isCarrier(connection) || statements.length < 2 ||
        fiber.getFiberRef(Statement.currentTransformer)._tag === "Some" ||
        Context.get(fiber.currentDefaultServices, Tracer.Tracer) !== nobodyTraces
      ? Effect.forEach(statements, (statement) => statement)
      : connection.executeTogether(statements.map((statement) => statement.compile())) as Effect.Effect<
        ReadonlyArray<ReadonlyArray<object>>,
        SqlError
      >
  })

const nobodyTraces = Context.get(DefaultServices.liveServices, Tracer.Tracer)
