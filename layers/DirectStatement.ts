/**
 * A direct statement: one that runs on the connection of the transaction around it, with nothing in between, so that it
 * costs little more than the driver's own work.
 *
 *     sql`…` ─┬ inside a transaction, and nobody traces or transforms statements ──▶ compiled ─┬ prompt ───▶ answered
 *             │                                                                                 └ it has none, or passes
 *             │                                                                                      └▶ the connection
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
import * as Fiber from "effect/Fiber"
import * as Tracer from "effect/Tracer"
import { isFailure, promptOf } from "../src/table/Prompt.js"

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

/** Called by the fiber that runs the statement, and asks for that: an Effect to be given it would be one more step. */
function run(this: Runnable): Rows {
  const running = Fiber.getCurrentFiber()
  if (running._tag === "None") return prototypeOf(this).commit.call(this)
  const fiber = running.value
  const services = fiber.currentContext.unsafeMap
  const transaction = services.get(SqlClient.TransactionConnection.key) as
    | Context.Tag.Service<typeof SqlClient.TransactionConnection>
    | undefined
  if (
    transaction === undefined || fiber.getFiberRef(Statement.currentTransformer)._tag === "Some" ||
    fiber.currentDefaultServices.unsafeMap.get(Tracer.Tracer.key) !== nobodyTraces
  ) {
    return prototypeOf(this).commit.call(this)
  }
  const [connection] = transaction
  const prompt = promptOf(connection)
  if (prompt !== undefined) {
    const [text, params] = plainly(this) ?? this.compile()
    const answer = prompt.answer(text, params, services.get(SqlClient.SafeIntegers.key) === true)
    if (answer !== undefined) return isFailure(answer) ? Effect.fail(answer) : Effect.succeed(answer)
  }
  const [text, params] = this.compile()
  return connection.execute(text, params, undefined) as Rows
}

/** What `sql.unsafe` was given, which the compiler would put together again. */
const plainly = ({ segments }: Runnable): readonly [string, ReadonlyArray<unknown>] | undefined => {
  const first = segments[0]
  return segments.length === 1 && first?._tag === "Literal" ? [first.value, first.params ?? none] : undefined
}

const none: ReadonlyArray<unknown> = []

const prototypeOf = (statement: Runnable): Runnable => Object.getPrototypeOf(statement) as Runnable
