/**
 * A gate: a connection whose every statement is admitted before it is sent, or else refused.
 *
 *     statement ─▶ admit ─┬─ sent, as it is or as another text ─▶ connection
 *                         └─ a failure, nothing sent
 */

import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

/** Sends what is admitted; fails with why it is not. */
export type Admit = <A>(
  text: string,
  parameters: ReadonlyArray<unknown>,
  send: (text: string) => Effect.Effect<A, SqlError>
) => Effect.Effect<A, SqlError>

/** The connection behind a gate. */
export const make = (connection: Connection, admit: Admit): Connection => ({
  execute: (text, params, transform) => admit(text, params, (sent) => connection.execute(sent, params, transform)),
  executeRaw: (text, params) => admit(text, params, (sent) => connection.executeRaw(sent, params)),
  executeValues: (text, params) => admit(text, params, (sent) => connection.executeValues(sent, params)),
  executeUnprepared: (text, params, transform) =>
    admit(text, params, (sent) => connection.executeUnprepared(sent, params, transform)),
  executeStream: (text, params, transform) =>
    Stream.unwrap(
      admit(text, params, (sent) => Effect.succeed(connection.executeStream(sent, params, transform)))
    )
})
