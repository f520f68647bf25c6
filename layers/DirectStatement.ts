/**
 * A direct statement: one that runs on the connection of the transaction around it, with nothing in between, so that it
 * costs little more than the driver's own work.
 *
 *     sql`…` ─┬ inside a transaction, and nobody traces or transforms statements ──▶ compiled ──▶ the transaction's connection
 *             └ otherwise ──▶ as `@effect/sql` runs it: a span, a scope, a connection
 *
 * `@effect/sql` makes a span and a scope for each statement, five times the price of a row on SQLite. A scope is for a
 * connection that has to be given back, and a transaction's has not; a span of Effect's own tracer is thrown away. With any
 * other tracer every statement has its span.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Effect from "effect/Effect"
import * as Tracer from "effect/Tracer"

type Rows = Effect.Effect<ReadonlyArray<object>, SqlError>

/** A statement as an Effect: `commit` is what `effect/Effectable` runs when the statement is. */
interface Runnable extends Statement.Statement<object> {
  commit(): Rows
}

/** `client`, whose statements inside a transaction are direct. */
export const required = <Client extends SqlClient.SqlClient>(client: Client): Client => {
  const construct: (...args: ReadonlyArray<never>) => unknown = client
  const sql = Object.assign(
    (...args: ReadonlyArray<never>) => {
      const made = construct(...args)
      return isStatement(made) ? directly(made) : made
    },
    client,
    { unsafe: (text: string, params?: ReadonlyArray<unknown>) => directly(client.unsafe(text, params) as Runnable) }
  ) as unknown as Client
  return Object.assign(sql, { safe: sql })
}

/** Fragments and identifiers are no Effects. */
const isStatement = (made: unknown): made is Runnable => Effect.isEffect(made)

const directly = (statement: Runnable): Runnable => {
  statement.commit = run
  return statement
}

const nobodyTraces = Context.get(DefaultServices.liveServices, Tracer.Tracer)

function run(this: Runnable): Rows {
  return Effect.withFiberRuntime((fiber) => {
    const transaction = fiber.currentContext.unsafeMap.get(SqlClient.TransactionConnection.key) as
      | Context.Tag.Service<typeof SqlClient.TransactionConnection>
      | undefined
    if (
      transaction === undefined || fiber.getFiberRef(Statement.currentTransformer)._tag === "Some" ||
      Context.get(fiber.currentDefaultServices, Tracer.Tracer) !== nobodyTraces
    ) {
      return prototypeOf(this).commit.call(this)
    }
    const [text, params] = this.compile()
    return transaction[0].execute(text, params, undefined) as Rows
  })
}

const prototypeOf = (statement: Runnable): Runnable => Object.getPrototypeOf(statement) as Runnable
