/**
 * Kills: a legacy processor is killed at its first statement, at its second, …, until it is done before its turn to die.
 *
 *     empty database ─▶ child, SIGKILL at statement k ─▶ rows and progress agree? ─▶ again, to the end ─▶ the same rows?
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { Powerhouse, Reactor, Source } from "../../src/index.js"
import type { Moment } from "../guarantees/Sweep.js"
import * as Bundle from "../support/Bundle.js"
import type * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"
import { balances, namespace, processor, strands } from "./Accounts.js"
import type { Order } from "./Accounts.js"
import { address } from "./Real.js"

/** How a child ended: the statements it sent, `undefined` when it was killed, or what it died of. */
const start = (file: string, order: Order): Effect.Effect<number | undefined | Error> =>
  Effect.async((resume) => {
    const child = spawn(process.execPath, [file, JSON.stringify(order)], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, POWERHOUSE_PROCESSORS: address }
    })
    let [out, err] = ["", ""]
    child.stdout.on("data", (text) => out += String(text))
    child.stderr.on("data", (text) => err += String(text))
    child.once("close", (code, signal) => {
      if (signal === "SIGKILL") resume(Effect.succeed(undefined))
      else if (code === 0) resume(Effect.succeed(Number(out)))
      else resume(Effect.succeed(new Error(`the child ended with ${code ?? signal}: ${err}`)))
    })
  })

type Fresh = Effect.Effect<Database.Database, never, Scope.Scope>

const silent = Logger.remove(Logger.defaultLogger)

const storeOf = (database: Database.Database) => Layer.merge(Store.layerOf(database, namespace), silent)

/** What is in a table of the class; `undefined` where there is none yet. */
const rowsOf = (table: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => {
    const schema = Powerhouse.HashNamespace.hashNamespace(namespace)
    const name = sql.onDialectOrElse({ sqlite: () => table, orElse: () => `${schema}.${table}` })
    return Effect.option(sql.unsafe<{ readonly [column: string]: unknown }>(`SELECT * FROM ${name} ORDER BY 1`))
  }).pipe(Effect.map((found) => found._tag === "Some" ? found.value : undefined))

/** Whether the rows are those of the operations that count as applied, no more and no fewer. */
const disagreement = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const applied = yield* Effect.option(sql<{ readonly document_id: string; readonly n: number }>`
    SELECT document_id, last_index + 1 AS n FROM processor_stream WHERE page = 2147483647 ORDER BY 1`)
  const counted = ((yield* rowsOf("balance")) ?? []).map((row) =>
    `${String(row["document_id"])} ${String(row["operations"])}`
  )
  const expected = (applied._tag === "Some" ? applied.value : []).map((row) => `${row.document_id} ${row.n}`)
  return JSON.stringify(counted) === JSON.stringify(expected) ? [] : [`${counted.join()} is not ${expected.join()}`]
})

const ending = (order: Order, file: string) =>
  Effect.gen(function*() {
    if (order.program === "theirs") {
      const ended = yield* start(file, { ...order, killAt: 0 })
      if (ended instanceof Error) return [`it cannot go on: ${/error: .*/.exec(ended.message)?.[0]}`]
    } else yield* Effect.provide(Reactor.run(processor), Source.layerIterable("strands", strands))
    const found = JSON.stringify(yield* rowsOf("balance"))
    const entries = (yield* rowsOf("entry"))?.length
    return [
      ...(found === JSON.stringify(balances) ? [] : [`in the end there is ${found} `]),
      ...(entries === 4 ? [] : [`in the end there are ${entries} entries`])
    ]
  })

/** The children's sessions end by themselves once the server has noticed; their locks would be waited for anyway. */
export const everyStatement = (
  options: Pick<Order, "dialect" | "program"> & { readonly fresh: Fresh; readonly moments: ReadonlyArray<Moment> }
): Effect.Effect<{ readonly kills: number; readonly violations: ReadonlyArray<string> }, never, Scope.Scope> =>
  Effect.gen(function*() {
    const file = yield* Bundle.make(new URL("child.ts", import.meta.url))
    const violations: Array<string> = []
    let kills = 0
    for (const moment of options.moments) {
      let last = Number.POSITIVE_INFINITY
      let next = 1
      const work = Effect.gen(function*() {
        while (next <= last) {
          const killAt = next++
          yield* Effect.scoped(Effect.gen(function*() {
            const database = yield* options.fresh
            const target = database.dialect === "sqlite" ? database.filename : database.url
            const order: Order = { dialect: options.dialect, program: options.program, target, killAt, moment }
            const ended = yield* start(file, order)
            if (ended instanceof Error) return yield* Effect.die(ended)
            if (ended === undefined) kills++
            else last = Math.min(last, killAt)
            const found = yield* Effect.gen(function*() {
              const atOnce = options.program === "ours" ? yield* disagreement : []
              return [...atOnce, ...(yield* ending(order, file))]
            }).pipe(Effect.provide(storeOf(database)))
            violations.push(...found.map((what) => `killed ${moment} statement ${killAt}: ${what}`))
          }))
        }
      })
      yield* Effect.all(Array.from({ length: 4 }, () => work), { concurrency: 4, discard: true })
    }
    return { kills, violations }
  }).pipe(Effect.orDie)
