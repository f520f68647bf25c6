/**
 * A thread: a connection to a file of which the statements run on a thread of their own, while this one goes on.
 *
 *     BEGIN ─ kept ─┐
 *     SELECT ───────┴▶ message ──▶ `Worker` ──▶ message ──▶ rows
 *     INSERT ────────▶ message ──▶ …                          not waited for: the next answer tells if it failed
 *     COMMIT ────────▶ message ──▶ …       ──▶ message
 *
 * It is for transactions that are run again elsewhere if anything in them fails: a failure rolls back at once, and nothing is
 * answered after it but that failure. When the thread ends, whatever still waits for an answer fails with a code that is no
 * verdict of the database's, and its locks are gone by then.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import { Worker } from "node:worker_threads"
import { taking } from "../../src/domain/Once.js"
import type * as Flight from "../../src/store/Flight.js"
import { coded, codeOf } from "./Code.js"
import type { Pragma } from "./DatabaseFile.js"

/** What a thread is started with. */
export interface Start {
  /** The file, by its full path. */
  readonly filename: string
  /** How long it waits for a lock that another process holds, in milliseconds. */
  readonly timeout: number
  readonly pragmas: ReadonlyArray<Pragma>
}

/** A statement, and what is wanted of it. */
export interface Call {
  readonly how: "rows" | "values" | "result"
  readonly text: string
  readonly params: ReadonlyArray<unknown>
  readonly safeIntegers: boolean
}

/** Statements to run one after another. Nobody waits for the answer to a request 0. */
export interface Request {
  readonly id: number
  readonly calls: ReadonlyArray<Call>
}

/** What came of each of a request's statements, or why one failed. */
export interface Response {
  readonly id: number
  readonly answers: ReadonlyArray<unknown>
  /** Whether there are bytes in the answers. */
  readonly hasBytes: boolean
  readonly failure: { readonly code: string; readonly message: string } | undefined
}

/** Requests that nobody waits for, one after another, at most: their rows are in memory until they were run. */
const untoldMax = 64

type Waiter = (answers: Either.Either<ReadonlyArray<unknown>, SqlError>) => void

export class Thread implements Flight.Carrier {
  /** Whether it has ended. */
  isOver = false
  private readonly worker: Worker
  private readonly waiting = new Map<number, Waiter>()
  private readonly ended = new Set<() => void>()
  private last = 0
  private untold = 0
  /** A BEGIN that goes with the next statement. */
  private begin: Call | undefined = undefined
  private isInside = false
  private cause: unknown = undefined

  /** Throws where there can be no threads. One that cannot open the file ends by itself. */
  constructor(start: Start) {
    // What the program preloads is none of its business.
    this.worker = new Worker(new URL("./Worker.js", import.meta.url), { workerData: start, execArgv: [] })
    this.worker.unref()
    this.worker.on("message", (response: Response) => this.answered(response))
    this.worker.on("messageerror", (cause) => this.fails(cause))
    this.worker.on("error", (cause) => void (this.cause ??= cause))
    this.worker.once("exit", (code) => this.exited(code))
  }

  execute: Connection["execute"] = (text, params, transformRows) => {
    const rows = this.one("rows", text, params) as Effect.Effect<ReadonlyArray<object>, SqlError>
    return transformRows === undefined ? rows : Effect.map(rows, transformRows)
  }

  executeRaw: Connection["executeRaw"] = (text, params) =>
    Effect.withFiberRuntime((fiber) => {
      const call: Call = {
        how: "result",
        text,
        params,
        safeIntegers: Context.get(fiber.currentContext, SqlClient.SafeIntegers)
      }
      if (isBegin(call)) {
        this.begin = call
        this.isInside = true
        return Effect.succeed([])
      }
      return isEnd(call) ? this.end(call) : this.tell(call)
    })

  executeValues: Connection["executeValues"] = (text, params) =>
    this.one("values", text, params) as Effect.Effect<ReadonlyArray<ReadonlyArray<unknown>>, SqlError>

  executeUnprepared: Connection["executeUnprepared"] = (text, params, transformRows) =>
    this.execute(text, params, transformRows)

  executeStream: Connection["executeStream"] = (text, params, transformRows) =>
    Stream.fromIterableEffect(this.execute(text, params, transformRows))

  executeTogether: Flight.Carrier["executeTogether"] = (statements) =>
    Effect.withFiberRuntime<ReadonlyArray<unknown>, SqlError>((fiber) => {
      const safeIntegers = Context.get(fiber.currentContext, SqlClient.SafeIntegers)
      return this.ask(statements.map(([text, params]): Call => ({ how: "rows", text, params, safeIntegers })))
    }) as Effect.Effect<ReadonlyArray<ReadonlyArray<unknown>>, SqlError>

  /** Leaves a transaction that is still open. */
  readonly leave: Effect.Effect<void> = Effect.suspend(() =>
    this.isInside && !this.isOver
      ? Effect.zipRight(
        Effect.ignore(this.executeRaw("ROLLBACK", [])),
        Effect.logWarning("a thread was given back inside a transaction, which was rolled back")
      )
      : Effect.void
  )

  /** Ends it, and waits for its end. */
  readonly close: Effect.Effect<void> = Effect.async<void>((resume) => {
    if (this.isOver) return resume(Effect.void)
    this.ended.add(() => resume(Effect.void))
    this.worker.ref()
    this.worker.postMessage("close")
  })

  private one(how: Call["how"], text: string, params: ReadonlyArray<unknown>): Effect.Effect<unknown, SqlError> {
    return Effect.withFiberRuntime((fiber) => {
      const safeIntegers = Context.get(fiber.currentContext, SqlClient.SafeIntegers)
      return Effect.map(this.ask([{ how, text, params, safeIntegers }]), ([answer]) => answer)
    })
  }

  /** A transaction of which nothing was sent leaves nothing to end. */
  private end(call: Call): Effect.Effect<unknown, SqlError> {
    if (this.begin !== undefined) {
      this.begin = undefined
      this.isInside = false
      return Effect.succeed([])
    }
    return Effect.map(this.ask([call]), ([answer]) => answer)
  }

  private ask(calls: ReadonlyArray<Call>): Effect.Effect<ReadonlyArray<unknown>, SqlError> {
    return this.answersTo(taking(calls), calls.some(isEnd))
  }

  /** By itself, so that what `Effect.async` is given does not reach the parameters. */
  private answersTo(
    taken: () => ReadonlyArray<Call> | undefined,
    ends: boolean
  ): Effect.Effect<ReadonlyArray<unknown>, SqlError> {
    return Effect.async((resume) => {
      const id = ++this.last
      const isFirst = this.begin !== undefined
      const refusal = this.post(id, taken()!)
      if (refusal !== undefined) return resume(Effect.fail(refusal))
      this.untold = 0
      if (this.waiting.size === 0) this.worker.ref()
      this.isInside = true
      this.waiting.set(id, (answers) => {
        if (Either.isRight(answers) && ends) this.isInside = false
        resume(isFirst ? Either.map(answers, (all) => all.slice(1)) : answers)
      })
    })
  }

  private tell(call: Call): Effect.Effect<unknown, SqlError> {
    if (this.untold >= untoldMax) return Effect.map(this.ask([call]), ([answer]) => answer)
    const refusal = this.post(0, [call])
    if (refusal !== undefined) return Effect.fail(refusal)
    this.untold++
    return Effect.succeed([])
  }

  /** Why it could not be sent. */
  private post(id: number, calls: ReadonlyArray<Call>): SqlError | undefined {
    if (this.isOver) return failed(goneWith(this.cause))
    const sent = calls.map((call) => ({ ...call, params: call.params.map(portable) }))
    const request: Request = { id, calls: this.begin === undefined ? sent : [this.begin, ...sent] }
    try {
      this.worker.postMessage(request)
    } catch (cause) {
      return failed(coded(cause instanceof Error ? new TypeError(cause.message, { cause }) : cause))
    }
    this.begin = undefined
    return undefined
  }

  private answered({ answers, failure, hasBytes, id }: Response): void {
    const waiter = this.waiting.get(id)
    this.waiting.delete(id)
    if (this.waiting.size === 0) this.worker.unref()
    if (hasBytes) answers.forEach(restoreBytes)
    waiter?.(
      failure === undefined
        ? Either.right(answers)
        : Either.left(failed(Object.assign(new Error(failure.message), { code: failure.code })))
    )
  }

  private fails(cause: unknown): void {
    this.cause ??= cause
    void this.worker.terminate()
  }

  private exited(code: number): void {
    this.isOver = true
    this.isInside = false
    const failure = failed(goneWith(this.cause ?? new Error(`it ended with ${code}`)))
    const waiters = Array.from(this.waiting.values())
    this.waiting.clear()
    for (const waiter of waiters) waiter(Either.left(failure))
    for (const tell of this.ended) tell()
  }
}

const isBegin = ({ text }: Call): boolean => text === "BEGIN IMMEDIATE"

const isEnd = ({ text }: Call): boolean => text === "COMMIT" || text === "ROLLBACK"

const failed = (cause: unknown): SqlError => new SqlError({ cause, message: "Failed to execute statement" })

/** With a code that no database has, so that a COMMIT which it leaves without an answer is looked up. */
const goneWith = (cause: unknown): Error =>
  Object.assign(new Error(`the thread of the connection is gone: ${messageOf(cause)}`, { cause }), {
    code: codeOf(cause).startsWith("ERR_WORKER") ? codeOf(cause) : "ERR_WORKER_EXITED"
  })

const messageOf = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)

/** A view is sent with all that lies under it, so it is cut out first. */
const portable = (param: unknown): unknown =>
  ArrayBuffer.isView(param) && param.byteLength < param.buffer.byteLength
    ? new Uint8Array(param.buffer, param.byteOffset, param.byteLength).slice()
    : param

/** Bytes as the driver returns them. */
const restoreBytes = (rows: unknown): void => {
  if (!Array.isArray(rows)) return
  for (const row of rows as ReadonlyArray<Record<string, unknown>>) {
    for (const column in row) {
      const value = row[column]
      if (value instanceof Uint8Array) row[column] = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
    }
  }
}
