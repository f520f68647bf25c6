/**
 * A folding connection: the connection of a handler's transaction, on which a statement sees what table operations wrote.
 *
 *     table operation ──▶ fold
 *     statement ──▶ flush the fold ──▶ connection ──▶ forget what was read
 *
 * SAVEPOINT flushes like any statement, so what is pending at a ROLLBACK TO was written after it. That is flushed as well,
 * to be taken back by the database: it might have been refused, and the program would have been told.
 *
 * Where the connection has a prompt, so has this one, which passes while there is something to flush.
 *
 * Statements are counted, and where the transaction is not to have any of the handler's own, they are refused.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type { RuntimeFiber } from "effect/Fiber"
import * as Stream from "effect/Stream"
import { dialectOf } from "../domain/Dialect.js"
import { once } from "../domain/Once.js"
import { Fold } from "./Fold.js"
import { promptOf } from "./Prompt.js"
import type { Answer, Prompt, Prompting } from "./Prompt.js"
import * as Reach from "./Reach.js"

/** Counts what a handler sends by itself. */
export interface Counter {
  statements: number
  /** Why such a statement is not let through; `undefined`: it is. */
  readonly refusal: SqlError | undefined
}

export class FoldingConnection implements Prompting {
  readonly prompt: Prompt | undefined

  constructor(private readonly connection: Connection, readonly fold: Fold, private readonly counter: Counter) {
    const prompt = promptOf(connection)
    this.prompt = prompt === undefined ? undefined : {
      answer: (text, parameters, safeIntegers) => this.answer(prompt, text, parameters, safeIntegers),
      isInside: prompt.isInside
    }
  }

  /** What {@link around} comes to, where the answer is there at once. Whatever has to be flushed is not. */
  private answer(
    prompt: Prompt,
    text: string,
    parameters: ReadonlyArray<unknown>,
    safeIntegers: boolean
  ): Answer | undefined {
    if (this.fold.hasNews) return undefined
    this.counter.statements++
    if (this.counter.refusal !== undefined) return this.counter.refusal
    const answer = prompt.answer(text, parameters, safeIntegers)
    this.fold.forget()
    return answer
  }

  private around<A>(statement: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> {
    this.counter.statements++
    return this.counter.refusal === undefined ? this.fold.around(statement) : Effect.fail(this.counter.refusal)
  }

  execute: Connection["execute"] = (text, parameters, transformRows) =>
    this.around(this.connection.execute(text, parameters, transformRows))

  executeRaw: Connection["executeRaw"] = (text, parameters) => this.around(this.connection.executeRaw(text, parameters))

  executeValues: Connection["executeValues"] = (text, parameters) =>
    this.around(this.connection.executeValues(text, parameters))

  executeUnprepared: Connection["executeUnprepared"] = (text, parameters, transformRows) =>
    this.around(this.connection.executeUnprepared(text, parameters, transformRows))

  executeStream: Connection["executeStream"] = (text, parameters, transformRows) =>
    Stream.unwrap(Effect.as(
      this.around(Effect.void),
      Stream.ensuring(
        this.connection.executeStream(text, parameters, transformRows),
        Effect.sync(() => this.fold.forget())
      )
    ))
}

/** The fold of the transaction that a fiber is in, if table operations are held back there. */
export const foldOf = (fiber: RuntimeFiber<unknown, unknown>): Fold | undefined => {
  const connection = transactionOf(fiber)?.[0]
  return connection instanceof FoldingConnection ? connection.fold : undefined
}

const transactionOf = (fiber: RuntimeFiber<unknown, unknown>) =>
  fiber.currentContext.unsafeMap.get(SqlClient.TransactionConnection.key) as readonly [Connection, number] | undefined

/**
 * Runs a handler in the transaction that it is in, with its table operations held back, and flushes what is left, or what
 * else is to be done at the `end`. When the handler fails it is flushed as well, since only then is it known that nothing
 * before was to blame. See `Fold.failure`. What the handler sends by itself is counted by `counter`.
 */
export const folding = <A, E, R>(
  handler: Effect.Effect<A, E, R>,
  begun: (fold: Fold) => void,
  { counter = { statements: 0, refusal: undefined }, end = (fold) => fold.close }: {
    readonly counter?: Counter
    readonly end?: (fold: Fold) => Effect.Effect<void, SqlError>
  } = {}
): Effect.Effect<A, E | SqlError, R | SqlClient.SqlClient> => {
  const handled = once(handler)
  return Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.withFiberRuntime((fiber) => {
      const transaction = transactionOf(fiber)
      if (transaction === undefined) return handled
      const [connection, depth] = transaction
      return Effect.flatMap(Reach.of(sql, connection), (reach) => {
        const fold = new Fold(connection, dialectOf(sql), reach)
        begun(fold)
        const connected = new FoldingConnection(connection, fold, counter)
        return Effect.provideService(handled, SqlClient.TransactionConnection, [connected, depth]).pipe(
          Effect.onError((cause) => Cause.isInterrupted(cause) ? Effect.void : Effect.ignore(fold.close)),
          Effect.zipLeft(Effect.suspend(() => end(fold)))
        )
      })
    }))
}
