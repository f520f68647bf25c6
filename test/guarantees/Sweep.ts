/**
 * Sweep: a program is killed at its first statement, at its second, …, until it is done before its turn to die has come.
 *
 *     empty database ─▶ child, SIGKILL at statement k ─▶ check ─▶ resume here, to the end ─▶ check
 *                                                   four lanes at a time, each with a database of its own
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import * as Reactor from "../../src/Reactor.js"
import * as Rebuild from "../../src/Rebuild.js"
import * as Namespaces from "../../src/store/Namespaces.js"
import * as Bundle from "../support/Bundle.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"
import * as Ledger from "./Ledger.js"
import * as Naive from "./Naive.js"
import * as World from "./World.js"

export type Moment = "before" | "sent" | "after"

/** What a child is told. */
export interface Order {
  readonly dialect: Database.Database["dialect"]
  /** A file name or a URL. */
  readonly target: string
  readonly seed: number
  readonly size: { readonly documents: number; readonly operations: number }
  readonly program: "reactor" | Naive.Program
  /** Into how many partitions the reactor divides its processor; default: 1. It is resumed with one. */
  readonly partitions?: number
  /** Whether its commits are errands from the first on, so that SQLite's run on a thread. */
  readonly errands?: boolean
  /** The statement to die at, from 1; 0: none. */
  readonly killAt: number
  readonly moment: Moment
}

export interface Result {
  readonly kills: number
  /** What was wrong, and after which kill. */
  readonly violations: ReadonlyArray<string>
}

export const lanes = 4

/** The child. */
export const program: Effect.Effect<string, never, Scope.Scope> = Bundle.make(new URL("child.ts", import.meta.url))

/** How a child ended: what it printed, or `undefined` when it was killed. Anything else is a defect. */
export const run = (file: string, order: object, killAfterMillis?: number): Effect.Effect<string | undefined> =>
  Effect.async((resume) => {
    const child = spawn(process.execPath, [file, JSON.stringify(order)], { stdio: ["ignore", "pipe", "pipe"] })
    let out = ""
    let err = ""
    child.stdout.on("data", (text) => out += String(text))
    child.stderr.on("data", (text) => err += String(text))
    const timer = killAfterMillis === undefined ? undefined : setTimeout(() => child.kill("SIGKILL"), killAfterMillis)
    child.once("close", (code, signal) => {
      clearTimeout(timer)
      if (signal === "SIGKILL") resume(Effect.succeed(undefined))
      else if (code === 0) resume(Effect.succeed(out))
      else resume(Effect.dieMessage(`the child ended with ${code ?? signal}: ${err}`))
    })
  })

/** Waits until the server has seen that the child is gone, and ended what it had sent. */
export const quiet: Effect.Effect<void, never, SqlClient.SqlClient> = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const others = sql.onDialectOrElse({
    sqlite: () => Effect.succeed<ReadonlyArray<unknown>>([]),
    orElse: () =>
      sql<{ readonly pid: number }>`
        SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`
  })
  for (let i = 0; i < 2_000; i++) {
    if ((yield* others).length === 0) return
    yield* Effect.sleep(5)
  }
  return yield* Effect.dieMessage("the sessions of a killed child did not end")
}).pipe(Effect.orDie)

const silent = Logger.remove(Logger.defaultLogger)

/** An empty database, over and over: a file is replaced, a PostgreSQL database emptied. */
export const lane = (
  dialect: Database.Database["dialect"],
  namespace = Ledger.namespace
): Effect.Effect<Effect.Effect<Database.Database, never, Scope.Scope>, never, Scope.Scope> =>
  dialect === "sqlite" ? Effect.succeed(Database.sqlite) : Effect.map(Database.postgres, (database) =>
    Effect.as(
      Effect.flatMap(SqlClient.SqlClient, (sql) =>
        Effect.zipRight(quiet, sql`DROP SCHEMA IF EXISTS ${sql(Namespaces.place(namespace))} CASCADE`)).pipe(
          Effect.provide(Store.layer(database)),
          Effect.orDie
        ),
      database
    ))

export const targetOf = (database: Database.Database): string =>
  database.dialect === "sqlite" ? database.filename : database.url

/** After so many kills of the sweep a replay is compared: it sends as many statements as the program. */
const replayedEvery = 12

/** Resumes in this process and says what is wrong in the end. `isReplayed`: also what a replay would have made of it. */
const resume = (world: World.World, order: Pick<Order, "program">, isReplayed: boolean) =>
  Effect.gen(function*() {
    if (order.program !== "reactor") {
      yield* Naive.run(world, order.program)
      const expected = JSON.stringify(Ledger.fold(world.delivery.flat()))
      return JSON.stringify(yield* Ledger.balances()) === expected ? [] : ["the tables are not the fold of the source"]
    }
    const outcomes = yield* Effect.provide(
      Reactor.run(World.processor(world)),
      Ledger.source("world", World.strands(world))
    )
    const found = [...(yield* World.violations(world))]
    if (outcomes.length !== 1) found.push(`there are ${outcomes.length} subscriptions`)
    if (outcomes[0]?.phase !== "ended") found.push(`the subscription is ${outcomes[0]?.phase}`)
    if (outcomes[0]?.position !== BigInt(world.delivery.length)) found.push(`it stands at ${outcomes[0]?.position}`)
    if (JSON.stringify(yield* Ledger.balances()) !== JSON.stringify(World.balances(world))) {
      found.push("the tables are not the fold of the source")
    }
    if (JSON.stringify(yield* World.letters) !== JSON.stringify(World.waiting(world))) {
      found.push("other operations wait than should")
    }
    if (isReplayed) {
      const { isClean } = yield* Effect.provide(
        Rebuild.verify(World.processor(world)),
        Ledger.source("world", World.strands(world))
      )
      if (!isClean) found.push("a rebuild does not equal live")
    }
    return found
  })

/** Kills at every statement, at each of these moments. */
export const everyStatement = (
  options: Pick<Order, "dialect" | "seed" | "size" | "program" | "partitions" | "errands"> & {
    readonly moments: ReadonlyArray<Moment>
  }
): Effect.Effect<Result, never, Scope.Scope> =>
  Effect.gen(function*() {
    const file = yield* program
    const world = World.make(options.seed, options.size)
    const violations: Array<string> = []
    let kills = 0
    for (const moment of options.moments) {
      let last = Number.POSITIVE_INFINITY
      let next = 1
      const work = Effect.scoped(Effect.gen(function*() {
        const empty = yield* lane(options.dialect)
        while (next <= last) {
          const killAt = next++
          yield* Effect.scoped(Effect.gen(function*() {
            const database = yield* empty
            const statements = yield* run(file, { ...options, target: targetOf(database), killAt, moment })
            if (statements === undefined) kills++
            else last = Math.min(last, killAt)
            const found = yield* Effect.gen(function*() {
              yield* quiet
              const atOnce = options.program === "reactor" ? yield* World.violations(world) : []
              return [...atOnce, ...(yield* resume(world, options, killAt % replayedEvery === 0))]
            }).pipe(Effect.provide(Layer.merge(Store.layerOf(database, Ledger.namespace), silent)))
            violations.push(...found.map((what) => `killed ${moment} statement ${killAt}: ${what}`))
          }))
        }
      }))
      yield* Effect.all(Array.from({ length: lanes }, () => work), { concurrency: lanes, discard: true })
    }
    return { kills, violations }
  }).pipe(Effect.orDie)

/**
 * Kills one run after another of a world at times nobody chose, each in other partitions than the one before, and goes on
 * with other worlds until `kills` have hit. A run
 * that ended before its time makes the times shorter, so that fast machines are hit as well.
 */
export const anyTime = (
  options: Pick<Order, "dialect" | "seed" | "size"> & { readonly worlds: number; readonly kills: number }
): Effect.Effect<Result, never, Scope.Scope> =>
  Effect.gen(function*() {
    const file = yield* program
    const violations: Array<string> = []
    let kills = 0
    let longestMillis = 520
    const one = (seed: number) =>
      Effect.scoped(Effect.gen(function*() {
        const world = World.make(seed, options.size)
        const database = yield* Effect.flatten(lane(options.dialect))
        const inDatabase = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient | Namespaces.Namespaces>) =>
          Effect.provide(effect, Layer.merge(Store.layerOf(database, Ledger.namespace), silent))
        for (let time = 1; time <= options.kills; time++) {
          const after = 60 + Math.floor(Math.random() * (longestMillis - 60))
          const order: Order = {
            ...options,
            seed,
            program: "reactor",
            partitions: 1 + (seed + time) % 4,
            target: targetOf(database),
            killAt: 0,
            moment: "before"
          }
          if ((yield* run(file, order, after)) !== undefined) {
            longestMillis = Math.max(120, longestMillis * 0.9)
            break
          }
          kills++
          const found = yield* inDatabase(Effect.zipRight(quiet, World.violations(world)))
          violations.push(...found.map((what) => `world ${seed}, kill ${time} after ${after} ms: ${what}`))
        }
        const found = yield* inDatabase(resume(world, { program: "reactor" }, true))
        violations.push(...found.map((what) => `world ${seed}, resumed: ${what}`))
      }))
    for (let round = 0; kills < options.kills && round < 20; round++) {
      const seeds = Array.from({ length: options.worlds }, (_, i) => options.seed + round * options.worlds + i)
      yield* Effect.forEach(seeds, one, { concurrency: lanes, discard: true })
    }
    return { kills, violations }
  }).pipe(Effect.orDie)
