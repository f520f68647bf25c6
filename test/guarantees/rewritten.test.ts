/**
 * Killed at any statement while documents take operations back: rows and states are at every instant those of the operations
 * that survive up to the cursor, and come to the end once it goes on.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { spawn } from "node:child_process"
import * as Source from "../../src/ingest/Source.js"
import * as Reactor from "../../src/Reactor.js"
import * as Bundle from "../support/Bundle.js"
import * as Database from "../support/Database.js"
import * as Lists from "../support/Lists.js"
import { recorded } from "../support/RealHistories.js"
import * as Store from "../support/Store.js"
import type { Order } from "./rewriter.js"

/** One short history of each kind of document, with the most that is taken back. */
const histories = ["rebuild-2", "live-2", "live-1"].map((truth) =>
  recorded()
    .filter((each) => each.truth === truth && each.steps.length <= 7 && Lists.isWhole(each))
    .toSorted((a, b) =>
      b.steps.filter(([{ skip }]) => skip > 0).length - a.steps.filter(([{ skip }]) => skip > 0).length
    )[0]!
)
const world = Lists.worldOf(histories)

/** The statements that a child sent, or `undefined` when it was killed. */
const run = (file: string, order: Order): Effect.Effect<number | undefined> =>
  Effect.async((resume) => {
    const child = spawn(process.execPath, [file, JSON.stringify(order)], { stdio: ["ignore", "pipe", "pipe"] })
    let out = ""
    let err = ""
    child.stdout.on("data", (text) => out += String(text))
    child.stderr.on("data", (text) => err += String(text))
    child.once("close", (code, signal) => {
      if (signal === "SIGKILL") resume(Effect.succeed(undefined))
      else if (code === 0) resume(Effect.succeed(Number(out)))
      else resume(Effect.dieMessage(`the child ended with ${code ?? signal}: ${err}`))
    })
  })

/** The sessions of a killed child have ended. */
const quiet = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const others = sql.onDialectOrElse({
    sqlite: () => Effect.succeed<ReadonlyArray<unknown>>([]),
    orElse: () =>
      sql`SELECT pid FROM pg_stat_activity
          WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`
  })
  for (let i = 0; i < 2_000; i++) {
    if ((yield* others).length === 0) return
    yield* Effect.sleep(5)
  }
  return yield* Effect.dieMessage("the sessions of a killed child did not end")
})

/** What is wrong with the tables, in words. */
const violation = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const cursor = yield* Effect.either(sql<{ readonly position: number }>`SELECT position FROM processor_cursor`)
  if (cursor._tag === "Left") return undefined
  const lists = yield* Effect.either(Lists.lists)
  if (lists._tag === "Left") return undefined
  const position = BigInt(cursor.right[0]?.position ?? 0)
  const states = Lists.sorted(yield* Lists.states).join("; ")
  const found = Lists.sorted(lists.right).join("; ")
  const wanted = Lists.sorted(world.at(position)).join("; ")
  return found === wanted && states === wanted
    ? undefined
    : `at ${position} there is ${found}, the states are ${states}, and should be ${wanted}`
})

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  it.scopedLive.each(
    (["replay", "append"] as const).flatMap((history) =>
      (dialect === "sqlite" ? ["before"] as const : ["sent"] as const).map((moment) => [history, moment] as const)
    )
  )(
    "%s: killed %s each of its statements, the rows are those of the survivors up to the cursor",
    ([history, moment]) =>
      Effect.gen(function*() {
        const file = yield* Bundle.make(new URL("rewriter.ts", import.meta.url))
        const options = { history, wantsState: true, batch: { operations: 4 } } as const
        const found: Array<string> = []
        let kills = 0
        let last = Number.POSITIVE_INFINITY
        let next = 1
        const lane = Effect.gen(function*() {
          while (next <= last) {
            const killAt = next++
            yield* Effect.scoped(Effect.gen(function*() {
              const database = yield* fresh
              const target = database.dialect === "sqlite" ? database.filename : database.url
              const statements = yield* run(file, { dialect, target, options, strands: world.strands, killAt, moment })
              if (statements === undefined) kills++
              else last = Math.min(last, killAt)
              const store = Store.layerOf(database, "lists")
              const wrong = yield* Effect.gen(function*() {
                yield* quiet
                const atOnce = yield* violation
                const [outcome] = yield* Reactor.run(Lists.make(options)).pipe(
                  Effect.provide(Layer.succeed(Source.Source, Source.fromIterable("s", world.strands)))
                )
                expect(outcome?.position).toBe(BigInt(world.strands.length))
                return [atOnce, yield* violation]
              }).pipe(Effect.provide(Layer.merge(store, Logger.remove(Logger.defaultLogger))))
              found.push(...wrong.flatMap((what) => what === undefined ? [] : [`killed at ${killAt}: ${what}`]))
            }))
          }
        })
        yield* Effect.all([lane, lane, lane, lane], { concurrency: "unbounded", discard: true })
        expect(found).toEqual([])
        expect(kills).toBeGreaterThan(30)
      })
  )
})
