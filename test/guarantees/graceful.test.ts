/**
 * Guarantee 9: SIGTERM drains or rolls back and releases everything within a bound, wherever it finds a program and whatever
 * has become of the network; a second signal leaves at once.
 *
 *     GRACE_ROUNDS=500 GRACE_SEED=1 npx vitest run test/guarantees/graceful.test.ts     a campaign, of so many a dialect
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import Sqlite3 from "better-sqlite3"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import * as Reactor from "../../src/Reactor.js"
import * as Bundle from "../support/Bundle.js"
import * as Database from "../support/Database.js"
import * as HttpProxy from "../support/HttpProxy.js"
import * as News from "../support/News.js"
import * as Proxy from "../support/Proxy.js"
import * as Store from "../support/Store.js"
import * as Ledger from "./Ledger.js"
import { signalled } from "./Mortal.js"
import type { Fate } from "./Mortal.js"
import * as Sweep from "./Sweep.js"
import type { Order } from "./terminated.js"
import * as World from "./World.js"

const isCampaign = process.env["GRACE_ROUNDS"] !== undefined
const rounds = Number(process.env["GRACE_ROUNDS"] ?? 24)
const seed = Number(process.env["GRACE_SEED"] ?? 1)
const testMillis = Math.max(600_000, rounds * 3_000)
const lanes = 4

/** So long a program may take to end, in milliseconds: several times what its own bounds come to, for a machine that is busy. */
const boundMillis = 20_000
/** So long the server may be at a statement; it is waited for twice as long. */
const statementMillis = 1_000

const size = { documents: 4, operations: 6 }

const silent = Logger.remove(Logger.defaultLogger)

interface End {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly lines: ReadonlyArray<string>
}

const program = Bundle.make(new URL("terminated.ts", import.meta.url))

/** A program under way; killed with the scope if it has not ended. */
const start = (order: Order) => Effect.flatMap(program, (file) => startOf(file, order))

const startOf = (file: string, order: Order) =>
  Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => spawn(process.execPath, [file, JSON.stringify(order)], { stdio: ["pipe", "pipe", "pipe"] })),
      (spawned) => Effect.sync(() => void spawned.kill("SIGKILL"))
    )
    let out = ""
    let err = ""
    let end: End | undefined
    const news = News.make()
    const lines = () => out.split("\n").slice(0, -1)
    child.stdin.on("error", () => undefined)
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      out += text
      news.come()
    })
    child.stderr.on("data", (text) => err += String(text))
    child.once("close", (code, signal) => {
      end = { code, signal, lines: lines() }
      news.come()
    })
    const heard = <A>(what: string, look: () => A | undefined): Effect.Effect<A> =>
      news.until(look).pipe(
        Effect.timeoutOption(boundMillis),
        Effect.flatMap((some) =>
          some._tag === "Some" ? Effect.succeed(some.value) : Effect.dieMessage(`${what}: ${out} ${err}`)
        )
      )
    return {
      says: (line: string) =>
        Effect.flatMap(
          heard(`it does not say ${line}`, () =>
            lines().includes(line) ? "said" : end === undefined ? undefined : "ended"),
          (how) =>
            how === "said" ? Effect.void : Effect.dieMessage(`it ended before it said ${line}: ${out} ${err}`)
        ),
      /** Whether it has asked itself to end before it said this. */
      hasSignalled: (line: string) =>
        heard(
          `it does not say ${line}`,
          () => lines().includes(signalled) ? true : lines().includes(line) ? false : undefined
        ),
      terminate: Effect.sync(() => void child.kill("SIGTERM")),
      kill: Effect.sync(() => void child.kill("SIGKILL")),
      goOn: Effect.sync(() => void child.stdin.write("go\n")),
      isUp: Effect.sync(() => end === undefined),
      end: heard("it has not ended within its bound", () => end)
    }
  })

const never: Fate = { killAt: 0, moment: "before" }

const orderOf = (database: Database.Database, stay: Order["stay"], more: Partial<Order> = {}): Order => ({
  dialect: database.dialect,
  target: Sweep.targetOf(database),
  name: "graceful",
  seed: 7,
  size,
  stay,
  fate: never,
  statementMillis,
  ...more
})

const inDatabase = (database: Database.Database) =>
  Effect.provide(Layer.merge(Store.layerOf(database, Ledger.namespace), silent))

/** It has ended by itself, as one that was interrupted does. */
const gracefully = { code: 0, signal: null }

/** What a program has left behind, in words. `isCut`: its last word to the server did not come through. */
const left = (database: Database.Database, isCut = false) =>
  database.dialect === "sqlite"
    // The last connection to a file that is closed takes its log away.
    ? Effect.sync(() => existsSync(`${database.filename}-wal`) ? ["a connection that was not closed"] : [])
    : Effect.gen(function*() {
      yield* Sweep.quiet
      const sql = yield* SqlClient.SqlClient
      const [found] = yield* sql<{ readonly abandoned: number; readonly locks: number; readonly temporary: number }>`
        SELECT
          (SELECT sessions_abandoned FROM pg_stat_database WHERE datname = current_database()) AS abandoned,
          (SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
            WHERE d.datname = current_database() AND l.pid <> pg_backend_pid()) AS locks,
          (SELECT count(*) FROM pg_class WHERE relpersistence = 't') AS temporary`
      return [
        ...(found!.abandoned > 0 && !isCut ? [`${found!.abandoned} sessions that were not closed`] : []),
        ...(found!.locks > 0 ? [`${found!.locks} locks`] : []),
        ...(found!.temporary > 0 ? [`${found!.temporary} temporary tables`] : [])
      ]
    }).pipe(Effect.provide(Store.layer(database)), Effect.orDie)

/** What is wrong at once, and once another has gone on to the end. */
const wrong = (database: Database.Database, worldSeed = 7) =>
  Effect.gen(function*() {
    const world = World.make(worldSeed, size)
    const atOnce = yield* World.violations(world)
    yield* Effect.provide(Reactor.run(World.processor(world)), Ledger.source("world", World.strands(world)))
    const isRight = JSON.stringify(yield* Ledger.balances()) === JSON.stringify(World.balances(world))
    return isRight ? atOnce : [...atOnce, "the tables are not the fold of the source"]
  }).pipe(inDatabase(database), Effect.orDie)

const isThere = (table: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.isSuccess(sql`SELECT * FROM ${sql(table)}`))

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  describe("Graceful. SIGTERM drains or rolls back and releases everything within a bound; a second signal leaves at once", () => {
    const phases: ReadonlyArray<Order["stay"]> = [
      "opening",
      "in a migration",
      "in a handler",
      "between commits",
      "at the end",
      // The server bounds a statement that is under way; SQLite has none that could be.
      ...dialect === "pg" ? ["in a migration's statement", "in a statement"] as const : []
    ]
    it.scopedLive.each(phases)("it is ended %s", (stay) =>
      Effect.gen(function*() {
        const database = yield* fresh
        const child = yield* start(orderOf(database, stay))
        yield* child.says("here")
        yield* child.terminate
        const end = yield* child.end
        expect(end).toMatchObject(gracefully)
        expect(end.lines.includes("released")).toBe(!stay.startsWith("in a migration"))
        expect(yield* left(database)).toEqual([])
        expect(yield* Effect.provide(isThere("half"), Store.layerOf(database, Ledger.namespace)))
          .toBe(!stay.startsWith("in a migration"))
        expect(yield* wrong(database)).toEqual([])
      }), testMillis)

    it.scopedLive("it is ended while it waits for a database that is away", () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const away = yield* awayFrom(database)
        const child = yield* start(orderOf(database, "between commits", { target: away.target }))
        yield* child.says("here")
        yield* away.begin
        yield* child.goOn
        yield* child.says("waiting")
        yield* child.terminate
        const end = yield* child.end
        expect(end).toMatchObject(gracefully)
        expect(end.lines).toContain("released")
        yield* away.end
        expect(yield* left(database, true)).toEqual([])
        expect(yield* wrong(database)).toEqual([])
      }), testMillis)

    it.scopedLive("a second signal leaves at once, and nothing is lost or applied twice", () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const child = yield* start(orderOf(database, "in a statement", { statementMillis: 50_000 }))
        yield* child.says("here")
        yield* child.terminate
        yield* Effect.sleep(500)
        expect(yield* child.isUp).toBe(true)
        yield* child.terminate
        expect(yield* child.end).toMatchObject({ code: null, signal: "SIGTERM" })
        if (database.dialect === "pg") yield* endSessions(database)
        expect(yield* wrong(database)).toEqual([])
      }), testMillis)

    it.scopedLive("control: what a program leaves that is killed is found", () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const child = yield* start(orderOf(database, "at the end"))
        yield* child.says("here")
        yield* child.kill
        yield* child.end
        expect((yield* left(database)).length).toBeGreaterThan(0)
      }), testMillis)

    it.scopedLive("it is ended at statements nobody chose, round after round", () =>
      Effect.gen(function*() {
        const file = yield* program
        const told = { rounds: 0, inTheMidst: 0, violations: [] as Array<string> }
        const round = (number: number) =>
          Effect.scoped(Effect.gen(function*() {
            const database = yield* fresh
            const random = HttpProxy.chances(number * 104_729)
            const killAt = 1 + Math.floor(random() * 150)
            const moment = random() < 0.5 ? "before" : dialect === "sqlite" ? "after" : "sent"
            const child = yield* startOf(
              file,
              orderOf(database, "at the end", { seed: number, fate: { killAt, moment, signal: "SIGTERM" } })
            )
            if (!(yield* child.hasSignalled("here"))) yield* child.terminate
            const end = yield* child.end
            told.rounds++
            if (end.lines.includes(signalled)) told.inTheMidst++
            const found = [
              ...(end.code === 0 ? [] : [`it ended with ${end.code ?? end.signal}`]),
              ...(yield* left(database)),
              ...(yield* wrong(database, number))
            ]
            told.violations.push(...found.map((what) => `round ${number}, ${moment} statement ${killAt}: ${what}`))
          }))
        const numbers = Array.from({ length: rounds }, (_, i) => seed + i)
        yield* Effect.forEach(numbers, round, { concurrency: lanes, discard: true })
        if (isCampaign) {
          process.stdout.write(`${dialect}: ${JSON.stringify({ ...told, violations: told.violations.length })}\n`)
        }
        expect(told.violations).toEqual([])
        expect(told.inTheMidst).toBeGreaterThan(rounds / 4)
      }), testMillis)
  })
})

describe("on 'pg', with the network a black hole", () => {
  describe("Graceful. SIGTERM drains or rolls back and releases everything within a bound", () => {
    it.scopedLive.each(["opening", "in a handler", "between commits", "at the end"] as const)(
      "it is ended %s",
      (stay) =>
        Effect.gen(function*() {
          const database = yield* Database.postgres
          const proxy = yield* Proxy.make(database.url)
          const child = yield* start(orderOf(database, stay, { target: proxy.url }))
          yield* child.says("here")
          yield* proxy.setMode("blackhole")
          yield* child.terminate
          expect(yield* child.end).toMatchObject(gracefully)
          yield* proxy.setMode("pass")
          expect(yield* left(database, true)).toEqual([])
          expect(yield* wrong(database)).toEqual([])
        }),
      testMillis
    )

    it.scopedLive("it is ended with a commit on its way into it", () =>
      Effect.gen(function*() {
        const database = yield* Database.postgres
        const proxy = yield* Proxy.make(database.url)
        const child = yield* start(orderOf(database, "between commits", { target: proxy.url }))
        yield* child.says("here")
        const held = yield* proxy.holdCommit
        yield* child.goOn
        yield* held
        yield* child.terminate
        expect(yield* child.end).toMatchObject(gracefully)
        yield* proxy.setMode("pass")
        expect(yield* left(database, true)).toEqual([])
        expect(yield* wrong(database)).toEqual([])
      }), testMillis)

    it.scopedLive(
      "control: whose bounds are longer than anybody waits is still there, until a second signal comes",
      () =>
        Effect.gen(function*() {
          const database = yield* Database.postgres
          const proxy = yield* Proxy.make(database.url)
          const child = yield* start(
            orderOf(database, "in a handler", { target: proxy.url, statementMillis: 50_000 })
          )
          yield* child.says("here")
          yield* proxy.setMode("blackhole")
          yield* child.terminate
          yield* Effect.sleep(5_000)
          expect(yield* child.isUp).toBe(true)
          yield* child.terminate
          expect(yield* child.end).toMatchObject({ code: null, signal: "SIGTERM" })
          yield* proxy.setMode("pass")
          yield* Effect.provide(Sweep.quiet, Store.layer(database))
          expect(yield* wrong(database)).toEqual([])
        }),
      testMillis
    )

    it.scopedLive("it is ended before it has reached its database", () =>
      Effect.gen(function*() {
        const database = yield* Database.postgres
        const proxy = yield* Proxy.make(database.url)
        yield* proxy.setMode("blackhole")
        const child = yield* start(orderOf(database, "at the end", { target: proxy.url, statementMillis: 5_000 }))
        yield* child.says("begun")
        yield* Effect.sleep(300)
        yield* child.terminate
        expect(yield* child.end).toMatchObject(gracefully)
        yield* proxy.setMode("pass")
        expect(yield* left(database, true)).toEqual([])
      }), testMillis)
  })
})

/** A way to a database that can be taken away: another process's lock on a file, a proxy that refuses. */
const awayFrom = (database: Database.Database) =>
  database.dialect === "sqlite"
    ? Effect.sync(() => {
      let db: Sqlite3.Database | undefined
      return {
        target: database.filename,
        begin: Effect.sync(() => {
          db = new Sqlite3(database.filename)
          db.exec("BEGIN IMMEDIATE")
        }),
        end: Effect.sync(() => void db?.close())
      }
    })
    : Effect.map(Proxy.make(database.url), (proxy) => ({
      target: proxy.url,
      begin: Effect.zipRight(proxy.setMode("refuse"), proxy.cutAll),
      end: proxy.setMode("pass")
    }))

/** The server is at a statement for whom nobody waits any more. */
const endSessions = (database: Database.Database) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'graceful'`
  ).pipe(
    Effect.provide(Store.layerOf(database, Ledger.namespace)),
    Effect.orDie
  )
