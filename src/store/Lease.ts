/**
 * A lease: a connection for the time of a transaction's body, and for nothing that would break the transaction.
 *
 *     statement ─┬─ the body has ended, or the transaction is lost ──▶ refused
 *                ├─ begins or ends a transaction ───────────────────▶ refused, and the transaction is lost
 *                └─ otherwise ──▶ connection, not to be interrupted
 *
 * Where the connection has a prompt, so has its lease, with the same rules.
 */

import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { Dialect } from "../domain/Dialect.js"
import { once } from "../domain/Once.js"
import * as Statements from "../process/Statements.js"
import type { Teller } from "../table/Bulk.js"
import * as Copy from "../table/Copy.js"
import type { Copying } from "../table/Copy.js"
import { isFailure, promptOf } from "../table/Prompt.js"
import type { Answer, Prompt, Prompting } from "../table/Prompt.js"
import * as Flight from "./Flight.js"

export class Lease implements Flight.Carrier, Flight.Departing, Prompting, Copying {
  private broke: SqlError | undefined = undefined
  private readonly parts: Array<Lease> = []
  /** What goes with COMMIT. */
  private last: ReadonlyArray<Flight.Sent> = []
  readonly prompt: Prompt | undefined
  private ended = false
  /** The text that was let through last: a handler sends the same one again and again. */
  private harmless: string | undefined = undefined

  constructor(
    private readonly connection: Connection,
    private readonly dialect: Dialect,
    /** Whether a failed statement has left the transaction open. */
    private readonly survives: Effect.Effect<boolean>,
    /** Whether it is for a part of the body. */
    private readonly isPart = false
  ) {
    const prompt = promptOf(connection)
    this.prompt = prompt === undefined ? undefined : {
      answer: (text, params, safeIntegers) => this.answer(prompt, text, params, safeIntegers),
      isInside: prompt.isInside
    }
  }

  /** Why nothing of the transaction may be committed any more: the database rolled it back, or the body meddled with it. */
  get lost(): SqlError | undefined {
    if (this.broke === undefined) { for (const { lost } of this.parts) if (lost !== undefined) return lost }
    return this.broke
  }

  /** Another lease for a part of the body, which ends with this one at the latest. */
  part(): Lease {
    const part = new Lease(this.connection, this.dialect, this.survives, true)
    this.parts.push(part)
    return part
  }

  /** What goes with COMMIT, for whoever sends it. */
  takeLast(): ReadonlyArray<Flight.Sent> {
    const { last } = this
    this.last = []
    return last
  }

  /** Refuses whatever comes from now on. */
  end(): void {
    this.ended = true
    for (const part of this.parts) part.end()
  }

  private guard<A>(text: string, statement: () => Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> {
    return Effect.suspend(() => {
      const refusal = this.refusal(text)
      return refusal === undefined
        ? Effect.uninterruptible(Effect.catchAllCause(once(statement()), this.broken))
        : Effect.fail(refusal)
    })
  }

  /** What {@link guard} comes to, where the answer is there at once. */
  private answer(
    prompt: Prompt,
    text: string,
    params: ReadonlyArray<unknown>,
    safeIntegers: boolean
  ): Answer | undefined {
    const refusal = this.refusal(text)
    if (refusal !== undefined) return refusal
    const answer = prompt.answer(text, params, safeIntegers)
    if (answer !== undefined && isFailure(answer) && !prompt.isInside()) this.broke = answer
    return answer
  }

  private refusal(text: string): SqlError | undefined {
    if (this.ended) return outlived()
    if (this.lost !== undefined || text === this.harmless) return this.lost
    if (controlsTransaction(text, this.dialect)) this.broke = meddling(text)
    else this.harmless = text
    return this.lost
  }

  private refusalOf(statements: ReadonlyArray<Flight.Sent>): SqlError | undefined {
    return statements.map(([text]) => this.refusal(text)).find((refused) => refused !== undefined)
  }

  /** `Effect.tapError` would cost each statement that succeeds a step as well. */
  private readonly broken = (cause: Cause.Cause<SqlError>): Effect.Effect<never, SqlError> =>
    Effect.zipRight(
      Option.match(Cause.failureOption(cause), { onNone: () => Effect.void, onSome: this.failed }),
      Effect.failCause(cause)
    )

  private readonly failed = (failure: SqlError): Effect.Effect<void> =>
    Effect.map(this.survives, (isOpen) => {
      if (!isOpen) this.broke = failure
    })

  execute: Connection["execute"] = (sql, params, transformRows) =>
    this.guard(sql, () => this.connection.execute(sql, params, transformRows))

  executeRaw: Connection["executeRaw"] = (sql, params) => this.guard(sql, () => this.connection.executeRaw(sql, params))

  executeValues: Connection["executeValues"] = (sql, params) =>
    this.guard(sql, () => this.connection.executeValues(sql, params))

  executeUnprepared: Connection["executeUnprepared"] = (sql, params, transformRows) =>
    this.guard(sql, () => this.connection.executeUnprepared(sql, params, transformRows))

  executeTogether: Flight.Carrier["executeTogether"] = (statements) =>
    Effect.suspend(() => {
      const { connection } = this
      const refusal = this.refusalOf(statements)
      if (refusal !== undefined) return Effect.fail(refusal)
      const sent = Flight.isCarrier(connection)
        ? connection.executeTogether(statements)
        : Effect.forEach(statements, ([text, parameters]) => connection.execute(text, parameters, undefined))
      return Effect.uninterruptible(Effect.catchAllCause(once(sent), this.broken))
    })

  /** What the parts of a body copy goes with COMMIT, together, unless a handler has to see it before. */
  get takesCopies(): Copying["takesCopies"] {
    const taken = Copy.takenBy(this.connection)
    return taken === "alone" && this.isPart ? "together" : taken
  }

  /**
   * What takes statements that are not waited for, where there is something that does. A part has none: what it writes goes
   * with COMMIT, in few large statements, and the database has others to work for meanwhile.
   */
  get teller(): Teller | undefined {
    const teller = this.isPart ? undefined : Flight.tellerOf(this.connection)
    return teller === undefined ? undefined : {
      tell: (statements) =>
        Effect.suspend(() => {
          const refusal = this.refusalOf(statements)
          return refusal === undefined ? teller.tell(statements) : Effect.fail(refusal)
        }),
      told: teller.told
    }
  }

  get departure(): Flight.Departing["departure"] {
    return !Flight.isCommitter(this.connection) ? undefined : (statements) => {
      this.last = statements
    }
  }

  executeStream: Connection["executeStream"] = (sql, params, transformRows) =>
    Stream.suspend(() => {
      const refusal = this.refusal(sql)
      return refusal === undefined
        ? Stream.tapError(this.connection.executeStream(sql, params, transformRows), this.failed)
        : Stream.fail(refusal)
    })
}

/**
 * Texts that were judged: programs send the same few again and again. At most {@link judgedMax} of each dialect, none longer
 * than {@link judgedLengthMax}.
 */
const judged = { sqlite: new Map<string, boolean>(), pg: new Map<string, boolean>() }
const judgedMax = 1_000
const judgedLengthMax = 10_000
const suspicious = /\b(?:begin|start|commit|end|abort|prepare|rollback)\b/i

/** Savepoints do not: `sql.withTransaction` makes them inside a body. */
const controlsTransaction = (text: string, dialect: Dialect): boolean => {
  const known = judged[dialect].get(text)
  if (known !== undefined) return known
  const controls = suspicious.test(text) && Statements.split(text, dialect).some(Statements.controlsTransaction)
  if (text.length > judgedLengthMax) return controls
  if (judged[dialect].size >= judgedMax) judged[dialect].clear()
  judged[dialect].set(text, controls)
  return controls
}

/** SQLSTATE 2D000, invalid transaction termination. */
const meddling = (text: string) => {
  const reason = "a handler may not begin or end a transaction; sql.withTransaction makes a part that can be taken back"
  const cause = Object.assign(new Error(`${JSON.stringify(text.trim().slice(0, 80))} was refused: ${reason}`), {
    code: "2D000"
  })
  return new SqlError({ message: reason, cause })
}

const outlived = () =>
  new SqlError({
    message: "the transaction of this connection has ended",
    cause: new Error("a fiber that outlived its handler used the handler's transaction")
  })
