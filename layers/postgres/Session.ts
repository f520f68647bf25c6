/**
 * A session: the only way to a leased client, and the judge of whether that may be used again.
 *
 *     statement ──▶ sent ──▶ awaited, under a time-out ──▶ answered
 *     COMMIT ──▶ outside its namespace by then ──▶ refused
 *     given back ─┬ nothing awaited, and idle, says the server ──▶ pool
 *                 └ anything else ──────────────────────────────▶ destroyed
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type * as Pg from "pg"
import { taking } from "../../src/domain/Once.js"
import type { Committer, Sent } from "../../src/store/Flight.js"
import type { Teller } from "../../src/table/Bulk.js"
import type { Copying } from "../../src/table/Copy.js"
import { CopyIn, isCopyIn } from "./CopyIn.js"
import * as Int8 from "./Int8.js"
import * as Prepared from "./Prepared.js"
import * as SearchPath from "./SearchPath.js"
import { socketOf } from "./Sockets.js"

/** Rows read at a time by `stream`. */
const fetchRows = 128

/** Statements that may be told before the first is answered. */
const tellingMax = 16

/** What the protocol can count in one statement. */
const parametersMax = 65_535

/** program_limit_exceeded: what the server would say if the protocol let it see that many. */
const tooComplex = "54000"

/** Statements on it are not interrupted. Those sent after it was given back fail. */
export class Session implements Committer, Teller, Copying {
  readonly takesCopies = "alone"
  private awaited = 0
  private ended = false
  private cursors = 0
  /** Statements that were told and are not answered. */
  private telling = 0
  /** The first failure of what was told. */
  private toldFailure: SqlError | undefined = undefined
  private readonly hearing: Array<() => void> = []
  /** What waits for the server to be ready for more. */
  private readonly settling: Array<() => void> = []
  /** What goes before the next statement: where the session is to be, and then that a transaction begins. */
  private ahead: ReadonlyArray<string> = []
  /** Why that was not done: nothing may be sent any more but what ends it. */
  private aheadFailure: SqlError | undefined = undefined
  private readonly client: Pg.PoolClient
  private readonly prepared: Prepared.Prepared
  private readonly socketMillis: number
  private readonly path: SearchPath.SearchPath
  private readonly schema: SearchPath.Schema

  /** One whose unqualified names mean `schema`, once it has entered it. */
  constructor(
    client: Pg.PoolClient,
    options: {
      readonly socketMillis: number
      readonly path: SearchPath.SearchPath
      readonly schema: SearchPath.Schema
    }
  ) {
    this.client = client
    this.prepared = Prepared.of(client)
    this.socketMillis = options.socketMillis
    this.path = options.path
    this.schema = options.schema
  }

  /** Has it go to its schema if it is not there, with plans that are not too old. To be done before any statement. */
  enter(): void {
    const plans = this.prepared.isDue() ? ["DISCARD PLANS"] : []
    const path = this.path.isAt(this.client, this.schema) ? [] : [SearchPath.setting(this.schema)]
    this.ahead = [...plans, ...path]
  }

  /** Whether a transaction is to begin with the next statement. */
  private get isBeginning(): boolean {
    return this.ahead.at(-1) === beginning
  }

  /** What went ahead was done. */
  private wentAhead(ahead: ReadonlyArray<string>): void {
    if (ahead.includes(SearchPath.setting(this.schema))) this.path.settle(this.client, this.schema)
  }

  /**
   * Whether it is still there. A body that went elsewhere, on purpose or in a function, had the engine's own last
   * statements done in other tables: that is not to be committed.
   */
  private readonly stays: Effect.Effect<void, SqlError> = Effect.suspend(() => {
    const { schema } = this
    if (schema === undefined || this.isHome()) return Effect.void
    return Effect.flatMap(
      this.send("SELECT pg_catalog.current_setting('search_path') AS path", []),
      (answer) => {
        const [row] = rowsOf(answer) as ReadonlyArray<{ readonly path: string }>
        return row?.path === SearchPath.pathOf(schema) ? Effect.void : strayed(schema, row?.path)
      }
    )
  })

  /** Whether it is still there for all that it knows. */
  private isHome(): boolean {
    return this.schema === undefined || this.path.isStillAt(this.client, this.schema)
  }

  /** Ends the lease. The client is destroyed unless the server has said that it is idle. */
  giveBack(): void {
    this.ended = true
    this.client.release(!this.isIdle())
  }

  /** Whether the server's last word was that the session is outside a transaction, and nothing was asked since. */
  private isIdle(): boolean {
    return this.awaited === 0 && this.isReady() && this.client.getTransactionStatus() === "I"
  }

  /** Whether that last word has come: `pg` keeps note of it, which its types leave out. */
  private isReady(): boolean {
    return (this.client as unknown as { readonly readyForQuery?: boolean }).readyForQuery === true
  }

  private send(text: string, values: ReadonlyArray<unknown>, rowMode?: "array"): Effect.Effect<Answer, SqlError> {
    const sent = Effect.withFiberRuntime<Answer, SqlError>((fiber) => {
      const safeIntegers = Context.get(fiber.currentContext, SqlClient.SafeIntegers)
      return this.answerTo(taking([text, values]), { rowMode, safeIntegers })
    })
    return Effect.suspend(() => this.ahead.length > 0 ? Effect.zipRight(this.goAhead, sent) : sent)
  }

  /** By itself, so that what `Effect.async` is given does not reach the values. */
  private answerTo(taken: () => Sent | undefined, options: Asking): Effect.Effect<Answer, SqlError> {
    return Effect.uninterruptible(Effect.async<Answer, SqlError>((resume) =>
      this.ask(
        taken()!,
        options,
        (error, answer) => resume(error === undefined ? Effect.succeed(answer!) : Effect.fail(error))
      )
    ))
  }

  /** Sends what was to go before the next statement. */
  private readonly goAhead: Effect.Effect<void, SqlError> = Effect.suspend(() => {
    const { ahead } = this
    if (ahead.length === 0) return Effect.void
    this.ahead = []
    return Effect.map(this.sendTogether([], ahead), () => this.wentAhead(ahead))
  })

  /**
   * Sends all before the first is answered. What goes wrong with one does not keep the others from being sent; in a
   * transaction they fail as well, and the first failure is the one that tells. What goes `ahead` is not answered for.
   */
  private sendTogether(
    statements: ReadonlyArray<Sent>,
    ahead: ReadonlyArray<string> = []
  ): Effect.Effect<ReadonlyArray<Answer>, SqlError> {
    return Effect.withFiberRuntime((fiber) => {
      const safeIntegers = Context.get(fiber.currentContext, SqlClient.SafeIntegers)
      const all = [...ahead.map((text): Sent => [text, []]), ...statements]
      return this.answersTo(taking(all), { safeIntegers }, ahead.length)
    })
  }

  private answersTo(
    taken: () => ReadonlyArray<Sent> | undefined,
    options: Asking,
    ahead: number
  ): Effect.Effect<ReadonlyArray<Answer>, SqlError> {
    return Effect.uninterruptible(Effect.async<ReadonlyArray<Answer>, SqlError>((resume) => {
      const statements = taken()!
      const errors: Array<SqlError | undefined> = []
      const answers: Array<Answer> = []
      let left = statements.length
      this.pipeline(true)
      // One write for all of them: each would cost as much by itself.
      const socket = socketOf(this.client)
      socket?.cork()
      statements.forEach((statement, i) =>
        this.ask(statement, options, (error, answer) => {
          errors[i] = error
          if (answer !== undefined) answers[i] = answer
          if (--left > 0) return
          const first = errors.findIndex((each) => each !== undefined)
          if (first !== -1 && first < ahead) this.aheadFailure = errors[first]!
          resume(first === -1 ? Effect.succeed(answers.slice(ahead)) : Effect.fail(errors[first]!))
        })
      )
      socket?.uncork()
    }))
  }

  /** Where they cannot go at once, or too many are under way already, they are waited for all the same. */
  tell: Teller["tell"] = (statements) =>
    Effect.suspend(() => {
      if (this.ahead.length > 0 || this.telling + statements.length > tellingMax || !statements.every(isSendable)) {
        return Effect.asVoid(this.executeTogether(statements))
      }
      this.pipeline(true)
      this.telling += statements.length
      for (const statement of statements) {
        this.ask(statement, { safeIntegers: false }, (error) => {
          this.toldFailure ??= error
          if (--this.telling === 0) { for (const hear of this.hearing.splice(0)) hear() }
        })
      }
      return Effect.void
    })

  readonly told: Teller["told"] = Effect.uninterruptible(Effect.zipRight(
    Effect.async<void>((resume) => {
      if (this.telling === 0) resume(Effect.void)
      else this.hearing.push(() => resume(Effect.void))
    }),
    Effect.suspend(() => this.toldFailure === undefined ? Effect.void : Effect.fail(this.toldFailure))
  ))

  /** Whether `pg` sends what it is given at once, or waits for the answer to what it was given before. */
  private pipeline(isOn: boolean): void {
    ;(this.client as unknown as { pipeline: boolean }).pipeline = isOn
  }

  private ask(
    statement: Sent,
    { rowMode, safeIntegers }: Asking,
    told: (error: SqlError | undefined, answer?: Answer) => void
  ): void {
    const [text, values] = statement
    // What fails behind something that was told fails because of that.
    const fail = (cause: unknown) =>
      told(this.toldFailure ?? new SqlError({ cause, message: "Failed to execute statement" }))
    if (this.ended) return fail(new Error("the connection was used after it had been given back"))
    if (this.aheadFailure !== undefined && text !== "ROLLBACK") return told(this.aheadFailure)
    if (values.length > parametersMax) {
      return fail(Object.assign(new Error(`more than ${parametersMax} parameters`), { code: tooComplex }))
    }
    this.path.sent(this.client, text)
    // In a flight its transaction may be over by the time that it fails: asked again it would be kept by itself.
    const isAlone = this.isIdle()
    const ask = (name: string | undefined) => {
      this.await()
      let isTold = false
      const hear = (error: Error | null | undefined, answer: unknown) => {
        // `pg` reports a parameter that it cannot write as an error, and then once more as a success.
        if (isTold) return
        isTold = true
        this.settle(() => {
          this.answered()
          if (!error) return told(undefined, answer as Answer)
          if (name === undefined || !Prepared.isStale(error)) return fail(error)
          this.prepared.forget()
          if (isAlone && this.isIdle()) ask(undefined)
          else fail(Prepared.overtaken(error))
        })
      }
      if (isCopyIn(statement)) return void this.client.query(new CopyIn(text, statement[1][0], hear))
      const query = {
        text,
        values: values as Array<unknown>,
        ...(name === undefined ? {} : { name }),
        ...(rowMode === undefined ? {} : { rowMode }),
        ...(safeIntegers ? { types: Int8.typesSafe } : {})
      }
      this.client.query(query, hear)
    }
    ask(isCopyIn(statement) ? undefined : this.prepared.nameOf(text, values.length))
  }

  /** An error is reported before the server is ready for more, and in which state; so its word is waited for. */
  private settle(done: () => void): void {
    const socket = socketOf(this.client)
    if (this.isReady() || socket === undefined || socket.destroyed) return done()
    // One listener for all of a flight, of which Node would take more for a leak.
    if (this.settling.push(done) > 1) return
    const once = () => {
      this.client.off("drain", once).off("end", once)
      for (const each of this.settling.splice(0)) each()
    }
    this.client.on("drain", once).on("end", once)
  }

  private await(): void {
    this.awaited++
    socketOf(this.client)?.setTimeout(this.socketMillis)
  }

  private answered(): void {
    this.awaited--
    if (this.awaited > 0) return
    this.pipeline(false)
    socketOf(this.client)?.setTimeout(0)
  }

  execute: Connection["execute"] = (text, params, transformRows) => {
    const rows = Effect.map(this.run(text, params), rowsOf)
    return transformRows === undefined ? rows : Effect.map(rows, transformRows)
  }

  /** BEGIN goes with the first statement behind it; a transaction without one is not begun, and there is nothing to end. */
  executeRaw: Connection["executeRaw"] = (text, params) =>
    Effect.suspend((): Effect.Effect<unknown, SqlError> => {
      if (text === beginning) {
        this.ahead = [...this.ahead, beginning]
        return Effect.void
      }
      if (!this.isBeginning || !isEnd(text)) return this.run(text, params)
      this.ahead = this.ahead.slice(0, -1)
      return Effect.void
    })

  private run(text: string, params: ReadonlyArray<unknown>): Effect.Effect<Answer, SqlError> {
    return isCommit(text) ? Effect.zipRight(this.stays, this.send(text, params)) : this.send(text, params)
  }

  executeValues: Connection["executeValues"] = (text, params) =>
    Effect.map(this.send(text, params, "array"), (answer) => rowsOf(answer) as ReadonlyArray<ReadonlyArray<unknown>>)

  /** The BEGIN before them goes along if they only ask: if that fails, what came of them is nothing. */
  executeTogether: Committer["executeTogether"] = (statements) =>
    Effect.suspend(() => {
      // As long as it is not known that a transaction has begun, nothing but questions may be sent.
      if (!this.isBeginning || !statements.every(([text]) => isQuestion(text))) {
        return Effect.zipRight(this.goAhead, this.sendTogether(statements))
      }
      const { ahead } = this
      this.ahead = []
      return Effect.map(this.sendTogether(statements, ahead), (answers) => {
        this.wentAhead(ahead)
        return answers
      })
    }).pipe(Effect.map((answers) => answers.map(rowsOf)))

  /** Only where all is known to reach the server, which then takes no COMMIT behind a failure. */
  commitTogether: Committer["commitTogether"] = (statements) =>
    Effect.suspend(() =>
      this.ahead.length === 0 && this.isHome() && statements.every(isSendable)
        ? Effect.map(this.sendTogether([...statements, ["COMMIT", []]]), (answers) => answers.at(-1))
        : Effect.zipRight(this.executeTogether(statements), this.run("COMMIT", []))
    )

  executeUnprepared: Connection["executeUnprepared"] = (text, params, transformRows) =>
    this.execute(text, params, transformRows)

  executeStream: Connection["executeStream"] = (text, params, transformRows) =>
    Stream.unwrapScoped(Effect.gen(this, function*() {
      const name = `effect_processors_${++this.cursors}`
      yield* this.goAhead
      const isOwn = this.client.getTransactionStatus() === "I"
      if (isOwn) yield* this.send("BEGIN", [])
      // Ending the transaction, or the session, ends the cursor; that of somebody else's transaction is closed alone.
      yield* Effect.addFinalizer(() => Effect.ignore(this.send(isOwn ? "COMMIT" : `CLOSE ${name}`, [])))
      yield* this.send(`DECLARE ${name} NO SCROLL CURSOR FOR ${text}`, params)
      const fetch = this.execute(`FETCH FORWARD ${fetchRows} FROM ${name}`, [], transformRows)
      return Stream.repeatEffectChunkOption(fetch.pipe(
        Effect.mapError(Option.some),
        Effect.flatMap((rows) =>
          rows.length === 0 ? Effect.fail(Option.none()) : Effect.succeed(Chunk.unsafeFromArray(rows))
        )
      ))
    }))
}

/** `sql.withTransaction` and the engine send them like this. */
const beginning = "BEGIN"
const isCommit = (text: string): boolean => text === "COMMIT"

const isEnd = (text: string): boolean => isCommit(text) || text === "ROLLBACK"

/** Whether `pg` has nothing to say against it. */
const isSendable = ([, parameters]: Sent): boolean =>
  parameters.length <= parametersMax &&
  parameters.every((each) =>
    each === null || each === undefined || typeof each !== "object" && typeof each !== "symbol"
  )

/** Whether it locks or reads rows, and does nothing else. */
const isQuestion = (text: string): boolean => /^\s*SELECT\b/i.test(text)

/** SQLSTATE 3F000, invalid schema name: the code and the database disagree about where its tables are. */
const strayed = (schema: string, path: string | undefined) =>
  Effect.fail(
    new SqlError({
      message: "the transaction has left its namespace",
      cause: Object.assign(new Error(`search_path is ${String(path)} and has to be that of ${schema} before COMMIT`), {
        code: "3F000"
      })
    })
  )

/** How values are to come back. */
interface Asking {
  readonly rowMode?: "array" | undefined
  readonly safeIntegers: boolean
}

/** A `pg` result, or one for each statement of a text that holds several. */
type Answer = Pg.QueryResult | ReadonlyArray<Pg.QueryResult>

const rowsOf = (answer: Answer): ReadonlyArray<object> =>
  isMany(answer) ? answer.map((result) => result.rows) : answer.rows

const isMany = (answer: Answer): answer is ReadonlyArray<Pg.QueryResult> => Array.isArray(answer)
