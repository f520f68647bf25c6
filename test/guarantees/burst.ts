/**
 * burst: a process in which a burst of operations is appended to a journal while a slow processor follows it, and a fast one.
 *
 *     node --max-old-space-size=… burst.mjs '{"dialect":"sqlite","target":"directory or url","operations":100000,"way":"reactor"}'
 *
 * It prints how many operations each has applied, and the most memory that it took, in megabytes. The way `naive` hands what
 * is appended to the slow one by a queue without bounds, as a program would that trusts in the consumer's speed.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import { writeSync } from "node:fs"
import { join } from "node:path"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import * as Test from "../../layers/Test.js"
import type { Strand } from "../../src/domain/Strand.js"
import type { Unplaced } from "../../src/ingest/Source.js"
import * as Journal from "../../src/journal/Journal.js"
import * as Policy from "../../src/process/Policy.js"
import * as Processor from "../../src/process/Processor.js"
import * as Reactor from "../../src/Reactor.js"
import * as Namespaces from "../../src/store/Namespaces.js"
import type { Database } from "../support/Database.js"

export interface Order {
  readonly dialect: Database["dialect"]
  /** A directory or a URL. */
  readonly target: string
  readonly operations: number
  readonly way: "reactor" | "naive"
}

const order = JSON.parse(process.argv[2] ?? "{}") as Order
const strandOperations = 10
const appendStrands = 100
const body = "x".repeat(500)

const store = (name: string) =>
  order.dialect === "sqlite"
    ? Sqlite.layer({ filename: join(order.target, `${name}.db`), synchronous: "normal" })
    : Postgres.layer({ url: Redacted.make(order.target) })

/** What one append holds: documents of their own. */
const part = (at: number): ReadonlyArray<Unplaced> =>
  Array.from({ length: appendStrands }, (_, i) =>
    Test.strand({
      documentId: `document ${at + i}`,
      documentType: "test/burst",
      operations: Array.from({ length: strandOperations }, () => ({ type: "PUT", input: { body } }))
    }))

const parts = Array.from(
  { length: order.operations / (appendStrands * strandOperations) },
  (_, i) => i * appendStrands
)

const migrations = {
  "0001_applied": {
    up: Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => sql`CREATE TABLE applied (name TEXT PRIMARY KEY, operations BIGINT NOT NULL)`
    ),
    down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE applied`)
  }
}

const count = (strands: ReadonlyArray<Strand>) => strands.reduce((sum, { operations }) => sum + operations.length, 0)

/** Counts what it applies, and takes its time about it. */
const processor = (name: string, pauseMillis: number) =>
  Processor.make(name, {
    namespace: name,
    migrations,
    handler: Processor.onBatch((strands) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`
          INSERT INTO applied (name, operations) VALUES (${name}, ${count(strands)})
          ON CONFLICT (name) DO UPDATE SET operations = applied.operations + excluded.operations`
        yield* Effect.sleep(pauseMillis)
      })
    )
  }).pipe(Processor.withPolicy(Policy.standard))

const slow = processor("slow", 20)
const fast = processor("fast", 0)

const applied = (name: string) =>
  Namespaces.query(
    name,
    Effect.flatMap(SqlClient.SqlClient, (sql) =>
      sql<{ readonly operations: number }>`SELECT CAST(operations AS INTEGER) AS operations FROM applied`)
  ).pipe(Effect.map((rows) =>
    rows[0]?.operations ?? 0
  ))

/** The journal and both processors, each with a database of its own on SQLite and a schema on PostgreSQL. */
const places = order.dialect === "sqlite"
  ? Sqlite.layerDirectory({ directory: join(order.target, "namespaces") })
  : Postgres.layer({ url: Redacted.make(order.target) })

const follow = Effect.gen(function*() {
  const context = yield* Layer.build(Journal.layer("home").pipe(Layer.provide(store("journal"))))
  const journal = Context.get(context, Journal.Journal)
  const reactor = Context.get(
    yield* Layer.build(Reactor.layer(slow, fast).pipe(Layer.provide(Layer.succeedContext(context)))),
    Reactor.Reactor
  )
  for (const at of parts) yield* journal.append(part(at))
  const { head } = yield* journal.bounds
  yield* reactor.waitFor(fast, { position: head }, { timeout: "1 hour" })
  yield* reactor.waitFor(slow, { position: head }, { timeout: "1 hour" })
  return { slow: yield* applied("slow"), fast: yield* applied("fast") }
}).pipe(Effect.scoped, Effect.provide(places))

const naive = Effect.gen(function*() {
  const queue = yield* Queue.unbounded<ReadonlyArray<Unplaced>>()
  for (const at of parts) yield* Queue.offer(queue, part(at))
  let operations = 0
  for (let i = 0; i < parts.length; i++) {
    operations += count(yield* Queue.take(queue) as Effect.Effect<ReadonlyArray<Strand>>)
    yield* Effect.sleep(20)
  }
  return { slow: operations, fast: operations }
})

const done = await Effect.runPromise(
  (order.way === "reactor" ? follow : naive).pipe(Effect.provide(Logger.remove(Logger.defaultLogger)))
)
writeSync(1, JSON.stringify({ ...done, peakMegabytes: process.resourceUsage().maxRSS / 1_024 }))
process.exit()
