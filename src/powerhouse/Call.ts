/**
 * A call: one run of a method of theirs, and the only time in which its queries reach the database.
 *
 *     transaction ─▶ onOperations(…) ─▶ query ─▶ query ─▶ its promise settles ─▶ over
 *                                                                                  └ a query from now on: refused
 *
 * Invariants:
 * - a query belongs to the call whose code sent it, however late it comes (`AsyncLocalStorage` carries the call along), so
 *   one that was not awaited cannot slip into the transaction of a later call;
 * - a call's statements run one at a time, on the connection of the transaction that is open around it, and none runs once
 *   the call is over;
 * - `db.transaction()` is a savepoint and has the connection to itself until it ends;
 * - work that a method does not await is a failure of the call, or is waited for: never written later, never lost unsaid;
 * - a statement's failure that means an outage or a lost race is the call's failure, whatever the method made of it. Any
 *   other may be swallowed, as it can be where each statement is a transaction of its own: PostgreSQL, which refuses the
 *   rest of a transaction after a failure, gets the call again with a savepoint around each statement.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { identity } from "effect/Function"
import * as Predicate from "effect/Predicate"
import * as Runtime from "effect/Runtime"
import * as Stream from "effect/Stream"
import { AsyncLocalStorage } from "node:async_hooks"
import { dialectOf } from "../domain/Dialect.js"
import * as Fault from "../process/Fault.js"
import * as KyselyDialect from "../process/KyselyDialect.js"
import * as Transaction from "../store/Transaction.js"

/**
 * A method of theirs threw, or its promise was rejected. What the database refused stays an `SqlError` where the method let
 * it through; where it wrapped it in an error of its own, that `SqlError` is the `cause`.
 */
export class LegacyFailure extends Data.TaggedError("LegacyFailure")<{
  /** Which method, of which class: `TodoList.onOperations`. */
  readonly method: string
  /** What was thrown, as it was thrown. */
  readonly thrown: unknown
  readonly cause: unknown
}> {
  override get message(): string {
    return `${this.method}: ${Fault.describe(this.thrown)}`
  }
}

/** A method's promise settled while queries of it were still to come or to be answered. Nothing of the call is kept. */
export class UnawaitedQuery extends Data.TaggedError("UnawaitedQuery")<{
  readonly method: string
  /** The first such query, at most 80 characters. */
  readonly statement: string
}> {
  override get message(): string {
    return `${this.method} did not await a query: ${this.statement}`
  }
}

/** What a query is rejected with that no call of the processor is there for. It was not sent. */
export class QueryOutsideCall extends Data.TaggedError("QueryOutsideCall")<{
  readonly statement: string
  readonly reason: string
}> {
  override get message(): string {
    return `${this.statement} was not sent: ${this.reason}`
  }
}

/** What a processor may not do with its database here. */
export class LegacyRefused extends Data.TaggedError("LegacyRefused")<{ readonly reason: string }> {
  override get message(): string {
    return this.reason
  }
}

export type CallError = SqlError | LegacyFailure | UnawaitedQuery

/** What becomes of queries that a method does not await: the call fails, or it waits until nothing is left to wait for. */
export type Unawaited = "fail" | "wait"

/** How the calls of one processor are made. */
export interface Manner {
  readonly unawaited: Unawaited
  /** How long a method may take. */
  readonly within: Duration.DurationInput
  /** Whether each statement has a savepoint of its own; set once a method has swallowed a failure on PostgreSQL. */
  isCareful: boolean
}

/** SQLSTATE of a transaction that takes no more statements. */
const abortedState = "25P02"

/** How long what is not awaited is waited for. */
const waitMax = "30 seconds"

/** More than can wait for a turn. */
const everybody = 1_000_000_000

/** One connection as Kysely holds it: it has the call to itself while it is in a transaction. */
export class Line {
  inTransaction = false
  /** Whether its transaction is inside another one. */
  isNested = false
}

export interface Rows {
  readonly rows: Array<never>
}

interface Place {
  readonly call: Call
  /** Whether the code is inside a `db.transaction()`, whose line has the call to itself. */
  readonly inTransaction: boolean
}

const places = new AsyncLocalStorage<Place>()

/** The call that the running code belongs to; a `QueryOutsideCall` where there is none. */
export const current = (statement: string): Call => {
  const place = places.getStore()
  if (place !== undefined) return place.call
  throw new QueryOutsideCall({
    statement: shorten(statement),
    reason: "a processor queries while it handles what it is given; elsewhere read through Powerhouse.RelationalDb"
  })
}

/** Runs what belongs to no call: a fiber goes on in the context of the code that it waited for. */
export const outside = <A>(body: () => A): A => places.exit(body)

/** Runs what a `db.transaction()` was given: the processor's own `db` is inside it too. */
export const insideTransaction = <A>(body: () => A): A => {
  const place = places.getStore()
  return place === undefined ? body() : places.run({ ...place, inTransaction: true }, body)
}

/** A method went on after a statement of it had failed, on a PostgreSQL that takes no more statements. */
class WentOn extends Data.TaggedError("WentOn")<{ readonly method: string }> {}

/** Makes calls, in the transaction that is open around them, and again with care where the first time they went on. */
export const all = <A, E, R>(
  manner: Manner,
  calls: Effect.Effect<A, E | WentOn, R>
): Effect.Effect<A, Exclude<E, WentOn> | SqlError, R | SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => {
    // With care nothing is swallowed that PostgreSQL would mind.
    const again = Effect.catchIf(calls, isWentOn, Effect.die)
    if (dialectOf(sql) === "sqlite" || manner.isCareful) return again
    return KyselyDialect.withConnection((connection) =>
      Effect.zipRight(connection.executeRaw("SAVEPOINT legacy_calls", []), calls).pipe(
        Effect.catchIf(
          isWentOn,
          ({ method }) =>
            Effect.logDebug(`${method} went on after a failed statement; it is called again, with savepoints`).pipe(
              Effect.zipRight(connection.executeRaw("ROLLBACK TO SAVEPOINT legacy_calls", [])),
              Effect.zipRight(Effect.sync(() => {
                manner.isCareful = true
              })),
              Effect.zipRight(again)
            )
        )
      )
    )
  })

const isWentOn = (failure: unknown): failure is WentOn => failure instanceof WentOn

/** Makes one call; to be run in {@link all}. */
export const run = <A>(
  method: string,
  invoke: () => A | PromiseLike<A>,
  manner: Manner
): Effect.Effect<A, CallError | WentOn, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    KyselyDialect.withConnection((connection) =>
      Effect.gen(function*() {
        const call = new Call(method, connection, yield* Effect.runtime(), manner.isCareful)
        const exit = yield* Effect.tryPromise({
          try: () => places.run({ call, inTransaction: false }, () => Promise.resolve(invoke())),
          catch: identity
        }).pipe(
          Effect.timeoutFail({ duration: manner.within, onTimeout: () => new Error("it did not end in time") }),
          Effect.exit,
          Effect.tap(manner.unawaited === "wait" ? call.quiet : call.close),
          Effect.map((ended) => call.judge(ended)),
          Effect.ensuring(call.end)
        )
        return dialectOf(sql) === "pg" && call.wentOn(exit) ? yield* new WentOn({ method }) : yield* exit
      })
    ))

export class Call {
  private isOver = false
  /** Statements and transactions that were begun and have not ended. */
  private open = 0
  /** How many statements came, and the last of them. */
  private arrived = 0
  private last = ""
  /** The first query that came, or was not answered, when the method's promise had settled. */
  private stray: string | undefined = undefined
  /** The first failure that waiting or trying again may cure. */
  private passing: SqlError | undefined = undefined
  /** Whether a statement has failed that no savepoint takes back. */
  private isAborted = false
  /** Whether another was sent after it. */
  private sawAborted = false
  private readonly failures = new Map<unknown, SqlError>()
  private readonly idle: Array<() => void> = []
  /** Who may send: whoever is in a transaction, or else one statement after another. */
  private readonly turn = Effect.unsafeMakeSemaphore(1)
  /** One statement at a time. */
  private readonly wire = Effect.unsafeMakeSemaphore(1)

  constructor(
    private readonly method: string,
    private readonly connection: Connection,
    private readonly runtime: Runtime.Runtime<never>,
    private readonly isCareful: boolean
  ) {}

  /** Sends a statement and answers as the driver does; rejects with the driver's own error. */
  execute(line: Line, text: string, parameters: ReadonlyArray<unknown>): Promise<unknown> {
    const has = line.inTransaction || places.getStore()?.inTransaction === true
    const statement = this.isCareful ? this.careful(text, parameters) : this.send(text, parameters, has)
    return this.promise(text, has ? statement : this.turn.withPermits(1)(statement))
  }

  /** Rows as they come, beside other statements: SQLite reads all at once, PostgreSQL through a cursor. */
  stream(text: string, parameters: ReadonlyArray<unknown>): AsyncIterable<Rows> {
    if (this.isOver) throw this.refused(text)
    this.arrived++
    this.last = text
    this.open++
    const rows = Stream.chunks(this.connection.executeStream(text, parameters, undefined)).pipe(
      Stream.map((chunk): Rows => ({ rows: [...chunk] as Array<never> })),
      Stream.mapError((failure) => this.thrownFor(failure)),
      Stream.ensuring(Effect.sync(() => this.left()))
    )
    return Stream.toAsyncIterableRuntime(rows, this.runtime)
  }

  begin(line: Line): Promise<void> {
    const isNested = places.getStore()?.inTransaction === true
    const begun = Effect.map(this.send("SAVEPOINT legacy_transaction", [], isNested), () => {
      line.inTransaction = true
      line.isNested = isNested
      this.open++
    })
    return this.promise(
      "BEGIN",
      isNested
        ? begun
        : Effect.zipRight(this.turn.take(1), Effect.tapErrorCause(begun, () => this.turn.release(1)))
    )
  }

  commit(line: Line): Promise<void> {
    const committed = Effect.map(this.send("RELEASE SAVEPOINT legacy_transaction", [], true), () => this.leave(line))
    return this.promise("COMMIT", committed)
  }

  rollback(line: Line): Promise<void> {
    const back = Effect.zipRight(
      this.send("ROLLBACK TO SAVEPOINT legacy_transaction", [], true),
      this.send("RELEASE SAVEPOINT legacy_transaction", [], true)
    )
    return this.promise("ROLLBACK", Effect.map(back, () => this.leave(line)))
  }

  /** Kysely gives a line back: one that never ended its transaction has it no longer. */
  release(line: Line): void {
    if (line.inTransaction) this.leave(line)
  }

  /** Nothing may come any more, and whatever is still to come shows within a turn of the event loop. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    if (this.open > 0) this.stray ??= this.last
    this.isOver = true
    return Transaction.turn
  })

  /** Waits until nothing is open and a turn of the event loop brings nothing new. */
  private readonly settled: Effect.Effect<void> = Effect.suspend(() => {
    const seen = this.arrived
    return Effect.zipRight(this.allAnswered, Transaction.turn).pipe(
      Effect.flatMap(() => this.open === 0 && this.arrived === seen ? Effect.void : this.settled)
    )
  })

  /** Waits for what the method has not awaited. */
  readonly quiet: Effect.Effect<void> = Effect.suspend(() =>
    Effect.zipRight(Effect.timeoutOption(this.settled, waitMax), this.close)
  )

  /** Waits for the statement that is being answered; those that wait for their turn are refused. */
  readonly end: Effect.Effect<void> = Effect.suspend(() => {
    this.isOver = true
    return Effect.zipRight(this.wire.withPermits(1)(Effect.void), this.turn.release(everybody))
  })

  /** What the call comes to. */
  judge<A>(exit: Exit.Exit<A, unknown>): Exit.Exit<A, CallError> {
    if (this.passing !== undefined) return Exit.fail(this.passing)
    return Exit.matchEffect(exit, {
      onFailure: (cause) =>
        cause._tag === "Fail"
          // Within a span Effect passes on a stand-in for what was thrown.
          ? Exit.fail(this.failureOf(Cause.originalError(cause.error)))
          : Exit.failCause(cause as Cause.Cause<never>),
      onSuccess: (value) =>
        this.stray === undefined
          ? Exit.succeed(value)
          : Exit.fail(new UnawaitedQuery({ method: this.method, statement: shorten(this.stray) }))
    }) as Exit.Exit<A, CallError>
  }

  /** Whether the method went on after a failure that PostgreSQL does not let anyone go on after. */
  wentOn(exit: Exit.Exit<unknown, CallError>): boolean {
    return this.passing === undefined && (this.sawAborted || (Exit.isSuccess(exit) && this.isAborted))
  }

  private failureOf(thrown: unknown): SqlError | LegacyFailure {
    const itself = this.failures.get(thrown)
    if (itself !== undefined) return itself
    let cause = thrown
    for (let depth = 0; depth < 8 && Predicate.hasProperty(cause, "cause"); depth++) {
      cause = cause.cause
      const found = this.failures.get(cause)
      if (found !== undefined) return new LegacyFailure({ method: this.method, thrown, cause: found })
    }
    return new LegacyFailure({ method: this.method, thrown, cause: thrown })
  }

  private send(
    text: string,
    parameters: ReadonlyArray<unknown>,
    isRecovered: boolean
  ): Effect.Effect<unknown, SqlError | QueryOutsideCall> {
    return this.wire.withPermits(1)(
      Effect.suspend((): Effect.Effect<unknown, SqlError | QueryOutsideCall> =>
        this.isOver
          ? this.refused(text)
          : Effect.tapError(this.connection.executeRaw(text, parameters), (failure) =>
            Effect.sync(() => {
              this.sawAborted ||= Fault.codeOf(failure) === abortedState
              this.isAborted ||= !isRecovered
            }))
      )
    )
  }

  /** With a savepoint of its own, so that a failure costs the statement and nothing else. */
  private careful(text: string, parameters: ReadonlyArray<unknown>) {
    return Effect.zipRight(
      this.send("SAVEPOINT legacy_statement", [], true),
      Effect.matchEffect(this.send(text, parameters, true), {
        onFailure: (failure) =>
          failure._tag === "QueryOutsideCall" || Fault.isPassing(failure)
            ? Effect.fail(failure)
            : Effect.zipRight(this.send("ROLLBACK TO SAVEPOINT legacy_statement", [], true), Effect.fail(failure)),
        onSuccess: (answer) => Effect.as(this.send("RELEASE SAVEPOINT legacy_statement", [], true), answer)
      })
    )
  }

  private promise<A>(
    text: string,
    statement: Effect.Effect<A, SqlError | QueryOutsideCall>
  ): Promise<A> {
    const refused = this.isOver ? this.refused(text) : Effect.void
    this.arrived++
    this.last = text
    this.open++
    return Runtime.runPromiseExit(this.runtime)(Effect.zipRight(refused, statement)).then((exit) => {
      this.left()
      return exit._tag === "Success" ? exit.value : Promise.reject<A>(this.rejection(exit.cause))
    })
  }

  /** The driver's own error, with its code, as it comes from any other driver of Kysely. */
  private rejection(cause: { readonly _tag: string; readonly error?: SqlError | QueryOutsideCall }): unknown {
    const failure = cause._tag === "Fail" ? cause.error : undefined
    return failure === undefined ? cause : failure._tag === "QueryOutsideCall" ? failure : this.thrownFor(failure)
  }

  /** The driver's error behind a failure, which is known again when the method throws it. */
  private thrownFor(failure: SqlError): unknown {
    const thrown = failure.cause instanceof Error ? failure.cause : failure
    this.failures.set(thrown, failure)
    if (Fault.isPassing(failure)) this.passing ??= failure
    return thrown
  }

  private refused(text: string): QueryOutsideCall {
    this.stray ??= text
    return new QueryOutsideCall({
      statement: shorten(text),
      reason: `${this.method} had ended, and its transaction with it; await every query`
    })
  }

  private leave(line: Line): void {
    if (!line.inTransaction) return
    line.inTransaction = false
    this.left()
    if (!line.isNested) Effect.runSync(this.turn.release(1))
  }

  private left(): void {
    if (--this.open === 0) { for (const resume of this.idle.splice(0)) resume() }
  }

  private readonly allAnswered: Effect.Effect<void> = Effect.async((resume) => {
    if (this.open === 0) resume(Effect.void)
    else this.idle.push(() => resume(Effect.void))
  })
}

const shorten = (text: string): string => text.trim().replaceAll(/\s+/g, " ").slice(0, 80)
