/**
 * appender: a process that appends to a journal, alone until it is killed, or beside others whose commits are slow and fail.
 *
 *     node appender.mjs '{"dialect":"sqlite","target":"file","work":{"kind":"script"},"killAt":17,"moment":"before"}'
 *
 * It writes a line for each append that was answered, at once, so that a kill cannot take it back.
 */
import Sqlite3 from "better-sqlite3"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import { writeSync } from "node:fs"
import { pathToFileURL } from "node:url"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import * as Test from "../../layers/Test.js"
import type { Unplaced } from "../../src/ingest/Source.js"
import * as Journal from "../../src/journal/Journal.js"
import type { Database } from "../support/Database.js"
import * as Mortal from "./Mortal.js"

export interface Order extends Mortal.Fate {
  readonly dialect: Database["dialect"]
  readonly target: string
  readonly work: { readonly kind: "script" } | Race
}

/** Writers, each with a client of its own, that append to documents of their own. */
export interface Race {
  readonly kind: "race"
  readonly writers: ReadonlyArray<number>
  readonly appends: number
}

const strand = (documentId: string, from: number, count: number): Unplaced =>
  Test.strand({
    documentId,
    documentType: "test/race",
    from,
    operations: Array.from({ length: count }, (_, i) => ({ type: "PUT", input: from + i }))
  })

/** The appends of the script; those of a round are made at once. */
export const script: ReadonlyArray<ReadonlyArray<ReadonlyArray<Unplaced>>> = [
  [[strand("a", 0, 2), strand("b", 0, 1)]],
  [[strand("a", 2, 3)], [strand("b", 1, 1), strand("c", 0, 2)], [strand("d", 0, 1)]],
  [[strand("a", 0, 5), strand("a", 5, 1)]],
  [[strand("c", 2, 40)], [strand("a", 6, 2)]]
]

/** What a writer appends, one after the other: one to three operations each, and now and then the last ones again. */
export const appendsOf = (writer: number, appends: number): ReadonlyArray<ReadonlyArray<Unplaced>> => {
  let from = 0
  return Array.from({ length: appends }, (_, i) => {
    const count = 1 + (writer * 7 + i * 5) % 3
    const again = i % 4 === 3 ? 1 : 0
    from += count
    return [strand(`writer ${writer}`, from - count - again, count + again)]
  })
}

/** SQLite has no trigger at COMMIT: here one takes its time, and one in eight is refused and rolled back. */
const slowDown = (): void => {
  const statement = Object.getPrototypeOf(new Sqlite3(":memory:").prepare("SELECT 1")) as {
    run: (...params: Array<unknown>) => unknown
  }
  const run = statement.run
  statement.run = function(this: { readonly source: string }, ...params) {
    if (this.source === "COMMIT") {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Math.random() * 4)
      if (Math.random() < 1 / 8) throw Object.assign(new Error("database is locked"), { code: "SQLITE_BUSY" })
    }
    return run.apply(this, params)
  }
}

/** The store as a program opens it: a file that others have locked is waited for. */
const store = (order: Order) =>
  (order.dialect === "sqlite"
    ? Sqlite.layer({ filename: order.target, synchronous: "normal", busyTimeoutMillis: 10 })
    : Postgres.layer({ url: Redacted.make(order.target), maxConnections: 2 })).pipe(
      Layer.retry(Schedule.spaced("20 millis").pipe(Schedule.jittered, Schedule.upTo("5 minutes")))
    )

const told = (what: string) => Effect.sync(() => writeSync(1, `${what}\n`))

const play = Effect.flatMap(Journal.Journal, (journal) =>
  Effect.forEach(
    script,
    (round, r) =>
      Effect.forEach(round, (strands, i) => Effect.zipRight(journal.append(strands), told(`${r} ${i}`)), {
        concurrency: "unbounded"
      })
  ))

const race = (order: Order, { appends, writers }: Race) =>
  Effect.forEach(
    writers,
    (writer) =>
      Effect.flatMap(Journal.Journal, (journal) => Effect.forEach(appendsOf(writer, appends), journal.append)).pipe(
        Effect.provide(Journal.layer("home", { patience: "25 seconds" }).pipe(Layer.provide(Layer.fresh(store(order)))))
      ),
    { concurrency: "unbounded" }
  )

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const order = JSON.parse(process.argv[2] ?? "{}") as Order
  const statements = Mortal.watch(order)
  if (order.work.kind === "race") slowDown()
  const work: Effect.Effect<unknown, unknown> = order.work.kind === "race"
    ? race(order, order.work)
    : Effect.provide(play, Journal.layer("home").pipe(Layer.provide(store(order))))
  await Effect.runPromise(Effect.provide(work, Logger.remove(Logger.defaultLogger)))
  writeSync(1, `${statements()} statements\n`)
}
