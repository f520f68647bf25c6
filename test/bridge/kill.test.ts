/**
 * End to end with the real packages: a process runs a real reactor with our processors in it, creates drives and documents
 * of real document models, dispatches actions, and is killed again and again, at any time. Once it has come to its end,
 * our tables are the fold of what the reactor has stored.
 *
 * `BRIDGE_KILLS` and `BRIDGE_OPERATIONS` make it a campaign, whose moments of chance are those of `BRIDGE_SEED`.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import * as Bundle from "../support/Bundle.js"
import * as Database from "../support/Database.js"
import * as Directory from "../support/Directory.js"
import * as HttpProxy from "../support/HttpProxy.js"
import * as Store from "../support/Store.js"
import * as Drive5 from "./Drive5.js"
import * as Host from "./Host.js"
import * as Reactor6 from "./Reactor6.js"
import * as Tally from "./Tally.js"

const killsMin = Number(process.env["BRIDGE_KILLS"] ?? 3)
const seed = Number(process.env["BRIDGE_SEED"] ?? Math.floor(Math.random() * 1_000_000))
/** What each run adds to what is written, at least. */
const operations = { 2: 40, 3: 375, ...given("BRIDGE_OPERATIONS") }

function given(name: string) {
  const value = process.env[name]
  return value === undefined ? {} : { 2: Number(value), 3: Number(value) }
}

const packages = {
  2: new URL("../powerhouse/drive/server.mjs", import.meta.url).href,
  3: new URL("../powerhouse/reactor.mjs", import.meta.url).href
}

interface End {
  readonly killed: boolean
  /** For how long it worked. */
  readonly millis: number
  readonly out: string
}

/** Runs a host until it ends, or is killed so many milliseconds after it has begun to work. */
const run = (file: string, order: Host.Order, killAfterMillis: number | undefined): Effect.Effect<End> =>
  Effect.async((resume) => {
    const child = spawn(process.execPath, [file, JSON.stringify(order)], { stdio: ["ignore", "pipe", "pipe"] })
    let out = ""
    let err = ""
    let timer: NodeJS.Timeout | undefined
    let began: number | undefined
    child.stdout.on("data", (text) => {
      out += String(text)
      began ??= performance.now()
      if (killAfterMillis !== undefined) timer ??= setTimeout(() => child.kill("SIGKILL"), killAfterMillis)
    })
    child.stderr.on("data", (text) => err += String(text))
    child.once("close", (code, signal) => {
      clearTimeout(timer)
      const millis = began === undefined ? 0 : performance.now() - began
      if (signal === "SIGKILL" || code === 0) resume(Effect.succeed({ killed: signal === "SIGKILL", millis, out }))
      else resume(Effect.dieMessage(`the host ended with ${code ?? signal}: ${err}`))
    })
    return Effect.sync(() => void child.kill("SIGKILL"))
  })

/**
 * Kills it at random times, and lets it come to its end. More and more is there to be written, and one that ended before its
 * time shows how long there is to kill the next. Returns the last order, and how often it was killed.
 */
const campaign = (file: string, first: Host.Order) =>
  Effect.gen(function*() {
    const random = HttpProxy.chances(seed)
    let order = first
    let kills = 0
    let spanMillis = 700
    for (let tries = 0; kills < killsMin && tries < 4 * killsMin; tries++) {
      const { killed, millis } = yield* run(file, order, Math.floor(random() * spanMillis))
      if (killed) kills++
      else spanMillis = Math.max(20, millis)
      order = { ...order, operations: order.operations + first.operations }
    }
    const { out } = yield* run(file, order, undefined)
    expect(out).toContain("done")
    expect(kills).toBe(killsMin)
    return order
  })

/** Each table is the fold of what is stored of its drive, and enough is stored. */
const holds = (order: Host.Order, stored: ReadonlyArray<Tally.Placed>) =>
  Effect.gen(function*() {
    for (const drive of Host.drives) {
      const own = stored.filter(({ documentId }) => Host.isOf(drive)(documentId))
      expect(yield* Tally.rows(`tally_${drive}`)).toEqual(Tally.fold(own))
      expect(yield* Tally.rows(`names_${drive}`)).toEqual(Tally.fold(own.filter(({ scope }) => scope === "global")))
    }
    // A document that was created and, for a kill, never became the drive's is written to all the same.
    expect(stored.filter(({ scope }) => scope === "global").length).toBeGreaterThan(order.operations / 2)
  })

const oursIn = (database: Database.Database): Host.Order["ours"] =>
  database.dialect === "sqlite"
    ? { dialect: "sqlite", target: Store.directoryOf(database) }
    : { dialect: "pg", target: database.url }

const currentTruth = (database: Database.PostgresDatabase) =>
  Effect.scoped(
    Effect.flatMap(Reactor6.open(database), (reactor) =>
      Effect.map(
        Effect.promise(() => reactor.stored()),
        (all) =>
          all.map(({ context, operation }) => ({
            ...operation,
            ...context,
            type: operation.action.type,
            input: operation.action.input
          }))
      ))
  )

const formerTruth = (directory: string) =>
  Effect.promise(async () => {
    const { open } = await Drive5.load()
    const server = await open({ directory })
    const all = await Promise.all(Host.drives.map((drive) => server.stored(drive)))
    return all.flat().map(({ operation, ...place }) => ({ ...place, ...operation }))
  })

describe.each(Database.dialects)(
  `killed at any time (by the seed ${seed}), with our tables on $dialect`,
  ({ fresh }) => {
    const within = <A>(test: (database: Database.Database, file: string) => Effect.Effect<A, never, Scope.Scope>) =>
      Effect.gen(function*() {
        const file = yield* Bundle.make(new URL("hosted.ts", import.meta.url))
        return yield* test(yield* fresh, file)
      })

    it.scopedLive(
      "the tables are the fold of what the current reactor has stored",
      () =>
        within((database, file) =>
          Effect.gen(function*() {
            const theirs = yield* Database.postgres
            const order: Host.Order = {
              generation: 3,
              program: packages[3],
              theirs: theirs.url,
              ours: oursIn(database),
              documents: 8,
              operations: operations[3]
            }
            const last = yield* campaign(file, order)
            yield* Effect.provide(holds(last, yield* currentTruth(theirs)), Store.layerMany(database))
          })
        )
    )

    it.scopedLive(
      "the tables are the fold of what document-drive has stored",
      () =>
        within((database, file) =>
          Effect.gen(function*() {
            const directory = yield* Directory.make()
            const order: Host.Order = {
              generation: 2,
              program: packages[2],
              theirs: directory,
              ours: oursIn(database),
              documents: 4,
              operations: operations[2]
            }
            const last = yield* campaign(file, order)
            yield* Effect.provide(holds(last, yield* formerTruth(directory)), Store.layerMany(database))
          })
        )
    )
  }
)
