/**
 * Takeover: a process that owns subscriptions is stopped at a moment, another one starts and takes over, and then the first
 * goes on, which does not know of that.
 *
 *     first ─▶ SIGSTOP ······························ SIGCONT ─▶ refused, and gone
 *                 second ─▶ takes over ─▶ what the tables hold ─┴─▶ … must be what they hold then
 *                    └ waits for what the first holds, and says so ─▶ SIGCONT ─▶ both come to a right end
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import Sqlite3 from "better-sqlite3"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import * as Reactor from "../../src/Reactor.js"
import * as Cursors from "../../src/store/Cursors.js"
import type { Incident } from "../../src/store/Incident.js"
import * as Namespaces from "../../src/store/Namespaces.js"
import { StoreUnavailable } from "../../src/store/StoreUnavailable.js"
import type * as Database from "../support/Database.js"
import * as News from "../support/News.js"
import * as Standstill from "../support/Standstill.js"
import * as Store from "../support/Store.js"
import * as Ledger from "./Ledger.js"
import type * as Mortal from "./Mortal.js"
import { signalled } from "./Mortal.js"
import * as Scene from "./Scene.js"
import * as Sweep from "./Sweep.js"

/** What the first is told. */
export interface Order {
  readonly dialect: Database.Database["dialect"]
  /** A file name or a URL. */
  readonly target: string
  /** What the server calls its sessions. */
  readonly name: string
  readonly script: Scene.Script
  readonly fate: Mortal.Fate
  /** Whether it stops itself as it waits for its source, which is away when it goes on. */
  readonly isStoppedAtSource: boolean
  /** When PostgreSQL ends a session that holds a transaction open and says nothing. */
  readonly idleInTransactionMillis: number
}

/** What the first says in the end. */
export interface Ending {
  readonly outcomes: ReadonlyArray<
    { readonly processor: string; readonly phase: string; readonly failure: string | undefined }
  >
  readonly statements: number
  /** Why it did not start: its session was ended while it brought the tables up. */
  readonly refused: string | undefined
}

/** One takeover. */
export interface Plot {
  readonly script: Scene.Script
  /** The partitions of the second. */
  readonly partitions: number
  /**
   * When the first is stopped: at a statement, so many milliseconds after it has begun, or while it waits for its source, which
   * is away when it goes on.
   */
  readonly stop: Omit<Mortal.Fate, "signal"> | { readonly afterMillis: number } | "at its source"
  /** What the second does before the first goes on: claims what there is, or all of its work. */
  readonly second: "claims" | "ends"
  readonly idleInTransactionMillis: number
}

export interface Course {
  /** Whether the first was stopped before it came to its end; if not, there is nothing else to tell. */
  readonly isStopped: boolean
  /** What became of the second while the first stood still. */
  readonly second: "took over" | "waited"
  /** What the second has said of waiting before the first went on. */
  readonly said: ReadonlyArray<string>
  readonly first: Ending
  /** What was wrong, in words. */
  readonly violations: ReadonlyArray<string>
}

/** So long anything may take, in milliseconds; on a machine that is busy with other tests as well. */
const patienceMillis = 120_000
/** A second that has said nothing so long waits before it has subscriptions that could say something. */
const silentMillis = 4_000
const lookMillis = 10

const silent = Logger.remove(Logger.defaultLogger)

/** Runs one in an empty database; `file` is the bundle of `stopped.ts`. */
export const run = (
  file: string,
  database: Database.Database,
  plot: Plot,
  name: string
): Effect.Effect<Course, never, Scope.Scope> =>
  Effect.gen(function*() {
    const { stop } = plot
    const isTimed = typeof stop === "object" && "afterMillis" in stop
    const first = yield* start(file, {
      dialect: database.dialect,
      target: Sweep.targetOf(database),
      name,
      script: plot.script,
      fate: isTimed || stop === "at its source" ? never : { ...stop, signal: "SIGSTOP" },
      isStoppedAtSource: stop === "at its source",
      idleInTransactionMillis: plot.idleInTransactionMillis
    })
    const isStopped = isTimed ? yield* first.stopAfter(stop.afterMillis) : yield* first.stopsItself
    if (!isStopped) {
      return { isStopped, second: "took over", said: [], first: yield* first.ending, violations: [] } as const
    }
    const inDatabase = Effect.provide(Layer.merge(Store.layerOf(database, Ledger.namespace), silent))
    const scene = Scene.make({ ...plot.script, partitions: plot.partitions, errands: false })
    const violations: Array<string> = []
    const gate = yield* Deferred.make<void>()
    if (plot.second === "ends") yield* Deferred.succeed(gate, undefined)

    const { cursors, holds, sessions } = yield* eyes(database, name)
    const isOwner = (yield* cursors) >= scene.processors.length
    const second = yield* take(scene, Deferred.await(gate), database)
    const became = yield* until(Effect.gen(function*() {
      if (yield* second.hasTaken(plot.second)) return "took over" as const
      const isPatient = second.said.length > 0 || (yield* second.elapsedMillis) > silentMillis
      // A server that ends what says nothing is waited for, whatever it is waited with.
      const isEnded = database.dialect === "pg" && plot.idleInTransactionMillis < silentMillis
      return isPatient && !isEnded && (yield* holds) ? "waited" as const : undefined
    }))
    if (became === undefined) {
      violations.push(
        `the second has neither taken over nor waits for the first: it is ${(yield* second.phases).join()}`
      )
    }
    const said = second.said.slice()
    const before = became === "took over" ? yield* inDatabase(tables) : undefined
    yield* first.goOn
    if (became !== "took over") yield* Deferred.succeed(gate, undefined)

    const ending = yield* first.ending
    const { outcomes: firsts, refused } = ending
    const isFenced = firsts.length > 0 && firsts.every(({ failure }) => failure === "Fenced")
    if (refused !== undefined && (refused !== "MigrationFailed" || database.dialect !== "pg")) {
      violations.push(`the first has not started: ${refused}`)
    }
    if (before !== undefined && (isOwner || isFenced || plot.second === "ends")) {
      violations.push(...differences(before, yield* inDatabase(tables), isOwner || isFenced))
    }
    yield* Deferred.succeed(gate, undefined)
    const outcomes = yield* second.outcomes
    violations.push(
      ...outcomes.filter((each) => !isRight(each)).map(({ failure, phase }) => `the second ${phase}: ${failure}`),
      ...firsts.filter((each) => !isRight(each)).map(({ failure, phase }) => `the first ${phase}: ${failure}`),
      ...yield* inDatabase(Effect.gen(function*() {
        return [...(yield* scene.violations), ...(yield* scene.missing), ...(yield* halfWay(scene))]
      }))
    )
    // The server notices in its own time that a process has gone.
    const left = yield* until(Effect.map(sessions, (count) => count === 0 ? count : undefined))
    if (left === undefined || (yield* holds)) violations.push("the first is gone, and what it has held is not")
    return { isStopped, second: became ?? "waited", said, first: ending, violations }
  }).pipe(Effect.orDie)

const never: Mortal.Fate = { killAt: 0, moment: "before" }

/** A subscription comes to its end, or to be fenced. */
const isRight = ({ failure, phase }: { readonly phase: string; readonly failure: string | undefined }): boolean =>
  phase === "ended" || (phase === "halted" && failure === "Fenced")

/** The first process, which goes with the scope whatever state it is in. */
const start = (file: string, order: Order) =>
  Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => spawn(process.execPath, [file, JSON.stringify(order)], { stdio: ["ignore", "pipe", "pipe"] })),
      (it) => Effect.sync(() => void it.kill("SIGKILL"))
    )
    const lines: Array<string> = []
    let out = ""
    let err = ""
    let closed: string | undefined
    const news = News.make()
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      const parts = (out + text).split("\n")
      out = parts.pop()!
      lines.push(...parts)
      news.come()
    })
    child.stderr.on("data", (text) => err += String(text))
    child.once("close", (code, signal) => {
      closed = String(code ?? signal)
      news.come()
    })
    const heard = <A>(look: () => A | undefined): Effect.Effect<A> =>
      news.until(look).pipe(bounded(() => `the first says nothing: ${lines.join()} ${err}`))
    const isEnded = () => closed === undefined ? undefined : true
    return {
      stopsItself: Effect.tap(
        heard(() => lines.includes(signalled) ? true : closed === undefined ? undefined : false),
        (hasSaidSo) => hasSaidSo ? Standstill.of(child) : Effect.void
      ),
      stopAfter: (millis: number) =>
        heard(() => lines.includes("begun") ? true : isEnded()).pipe(
          Effect.zipRight(Effect.sleep(millis)),
          Effect.zipRight(Effect.suspend(() =>
            closed === undefined && !lines.some(isEnding) && child.kill("SIGSTOP")
              ? Effect.as(Standstill.of(child), true)
              : Effect.succeed(false)
          ))
        ),
      goOn: Effect.sync(() => void child.kill("SIGCONT")),
      /** What it says in the end, once it has ended by itself. */
      ending: Effect.flatMap(heard(isEnded), () => {
        const last = lines.find(isEnding)
        return closed === "0" && last !== undefined
          ? Effect.succeed(JSON.parse(last) as Ending)
          : Effect.dieMessage(`the first ended with ${closed}: ${err}`)
      })
    }
  })

const isEnding = (line: string): boolean => line.startsWith("{")

const bounded = (what: () => string) => <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.timeoutOption(effect, patienceMillis).pipe(
    Effect.flatMap((some) => some._tag === "Some" ? Effect.succeed(some.value) : Effect.dieMessage(what()))
  )

/** Looks again and again until there is something, or for as long as patience lasts. */
const until = <A, E, R>(look: Effect.Effect<A | undefined, E, R>): Effect.Effect<A | undefined, E, R> =>
  Effect.gen(function*() {
    const end = Date.now() + patienceMillis
    while (Date.now() < end) {
      const found = yield* look
      if (found !== undefined) return found
      yield* Effect.sleep(lookMillis)
    }
    return undefined
  })

/** Whether the store cannot be opened now. */
const isAway = (cause: Cause.Cause<never>): boolean => {
  const failure = Cause.squash(cause)
  return failure instanceof StoreUnavailable && failure.transient
}

const isWaiting = ({ _tag }: Incident): boolean => _tag === "Waiting" || _tag === "Reopening"

/** The second process, which is this one. */
const take = (scene: Scene.Scene, gate: Effect.Effect<void>, database: Database.Database) =>
  Effect.gen(function*() {
    const said: Array<string> = []
    let reactor: typeof Reactor.Reactor.Service | undefined
    const began = Date.now()
    const work = Effect.gen(function*() {
      const service = yield* Reactor.Reactor
      reactor = service
      yield* Effect.fork(
        Stream.runForEach(
          service.incidents,
          (incident) => Effect.sync(() => isWaiting(incident) && said.push(incident._tag))
        )
      )
      yield* service.ended
      return yield* service.outcomes
    }).pipe(
      Effect.provide(Scene.reactor(scene, gate)),
      Effect.map((all) =>
        all.map(({ failure, phase }) => ({
          phase,
          failure: failure?._tag
        }))
      )
    )
    const fiber = yield* (scene.script.kind === "naive" ? Effect.as(Scene.naive(scene), []) : work).pipe(
      Effect.provide(Layer.merge(
        Store.layerOf(database, Ledger.namespace, { lockTimeout: 200, applicationName: "second" }),
        silent
      )),
      Effect.orDie,
      // A file that is locked as a whole, as it is while it is made, cannot be opened; a program is started again then.
      Effect.sandbox,
      Effect.tapError((cause) => Effect.sync(() => isAway(cause) && said.push("StoreUnavailable"))),
      Effect.retry({ while: isAway, schedule: Schedule.spaced("50 millis") }),
      Effect.unsandbox,
      Effect.forkScoped
    )
    const phases = Effect.suspend(() =>
      reactor === undefined ? Effect.succeed([]) : Effect.map(reactor.outcomes, (all) => all.map(({ phase }) => phase))
    )
    return {
      said,
      phases,
      elapsedMillis: Effect.sync(() => Date.now() - began),
      hasTaken: (what: Plot["second"]) =>
        Effect.suspend(() => {
          const exit = fiber.unsafePoll()
          if (exit !== null) return Exit.isSuccess(exit) ? Effect.succeed(true) : Effect.failCause(exit.cause)
          return what === "ends"
            ? Effect.succeed(false)
            : Effect.map(phases, (all) => all.length > 0 && all.every((phase) => phase === "idle" || phase === "ended"))
        }),
      outcomes: Fiber.join(fiber).pipe(bounded(() => "the second does not end"))
    }
  })

/**
 * What the database sees without waiting for anybody: whether the process of this name holds a transaction open, how many
 * sessions it has, and how many cursors somebody has claimed.
 */
const eyes = (database: Database.Database, name: string) =>
  database.dialect === "sqlite"
    ? Effect.succeed({
      holds: Effect.sync(() => isLocked(database.filename)),
      sessions: Effect.succeed(0),
      cursors: Effect.sync(() => claimedIn(database.filename))
    })
    : Effect.map(Layer.build(Store.layer(database)), (context) => {
      const count = (from: string) =>
        Effect.flatMap(
          SqlClient.SqlClient,
          (sql) => sql<{ readonly n: number }>`SELECT COUNT(*) AS n FROM ${sql.literal(from)}`
        ).pipe(Effect.map(([row]) => row!.n), Effect.provide(context))
      const own = `pg_stat_activity WHERE application_name = '${name}'`
      return {
        holds: Effect.map(count(`${own} AND xact_start IS NOT NULL`), (held) => held > 0),
        sessions: count(own),
        cursors: Effect.orElseSucceed(count(`${Namespaces.place(Ledger.namespace)}.${claimed}`), () => 0)
      }
    })

const claimed = "processor_cursor WHERE epoch > 0"

/** None where there is no file yet, or it is locked as a whole, as it is while it is made. */
const claimedIn = (filename: string): number => {
  try {
    const db = new Sqlite3(filename, { timeout: 0, readonly: true })
    try {
      return (db.prepare(`SELECT COUNT(*) AS n FROM ${claimed}`).get() as { readonly n: number }).n
    } finally {
      db.close()
    }
  } catch {
    return 0
  }
}

const isLocked = (filename: string): boolean => {
  if (!existsSync(filename)) return false
  const db = new Sqlite3(filename, { timeout: 0 })
  try {
    db.exec("BEGIN IMMEDIATE")
    db.exec("ROLLBACK")
    return false
  } catch (cause) {
    if (cause instanceof Sqlite3.SqliteError && cause.code.startsWith("SQLITE_BUSY")) return true
    throw cause
  } finally {
    db.close()
  }
}

type Tables = ReadonlyMap<string, ReadonlyArray<string>>

const names = ["ledger_balance", "ledger_entry", "processor_cursor", "processor_stream", "processor_dead_letter"]

/** Every row of every table, as text. */
const tables: Effect.Effect<Tables, SqlError, SqlClient.SqlClient> = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const all = new Map<string, ReadonlyArray<string>>()
  for (const name of names) {
    const rows = yield* Effect.orElseSucceed(sql`SELECT * FROM ${sql(name)}`, () => [])
    all.set(
      name,
      rows.map((row) => JSON.stringify(row, (_, value: unknown) => typeof value === "bigint" ? `${value}` : value))
        .sort()
    )
  }
  return all
})

/** What was written in between. Who had no claim when it was stopped has made one since, which moves cursors nowhere. */
const differences = (before: Tables, after: Tables, hadClaim: boolean): ReadonlyArray<string> =>
  names.filter((name) => hadClaim || name !== "processor_cursor").flatMap((name) =>
    before.get(name)?.join("\n") === after.get(name)?.join("\n")
      ? []
      : [`the first has written to ${name} after it was taken over`]
  )

/** Cursors that are not at the end. */
const halfWay = (scene: Scene.Scene) =>
  scene.script.kind === "naive"
    ? Effect.succeed<ReadonlyArray<string>>([])
    : Effect.map(Effect.forEach(Scene.keys(scene), (key) => Cursors.all(key)), (all) =>
      all.flatMap((cursors) =>
        cursors.length > 0 && cursors.every(({ position }) =>
            position === BigInt(scene.strands.length)
          )
          ? []
          : [`the cursors are at ${cursors.map(({ position }) => position).join()}`]
      ))
