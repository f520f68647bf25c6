/**
 * The journal: how fast operations of about 1 KB are appended, alone and by many at once, how fast they are read from the
 * start, and how long after its append an operation is read by somebody who waits for it.
 *
 *     npm run bench:journal
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Postgres from "../layers/Postgres.js"
import * as Sqlite from "../layers/Sqlite.js"
import * as Test from "../layers/Test.js"
import { Journal, Position } from "../src/index.js"
import * as PostgresServer from "../test/support/PostgresServer.js"
import * as Result from "./support/Result.js"

type Home = Context.Tag.Service<Journal.Journal>

const runs = 5
const body = "x".repeat(1_000)

let documents = 0

/** A document that nobody has written to. */
const fresh = () => `document ${documents++}`

const strand = (documentId: string, from: number, count: number) =>
  Test.strand({
    documentId,
    documentType: "bench/log",
    from,
    operations: Array.from({ length: count }, (_, i) => ({ type: "PUT", input: { body }, hash: String(from + i) }))
  })

/** Operations per second, after a run that is not counted. */
const speeds = <E>(operations: number, work: Effect.Effect<unknown, E>) =>
  Effect.map(
    Effect.replicateEffect(Effect.timed(work), runs + 1),
    (timed) => timed.slice(1).map(([elapsed]) => operations / Duration.toSeconds(elapsed))
  )

const each = 50

/** So many appenders at once, one operation after the other. */
const appenders = (journal: Home, count: number) =>
  Effect.suspend(() =>
    Effect.forEach(
      Array.from({ length: count }, fresh),
      (documentId) =>
        Effect.forEach(Array.from({ length: each }), (_, i) => journal.append([strand(documentId, i, 1)])),
      { concurrency: "unbounded", discard: true }
    )
  )

const millisNow = Effect.map(Clock.currentTimeNanos, (nanos) => Number(nanos) / 1e6)

/** For each of some operations, with pauses between, how long after its append began it was read. */
const latencies = (writer: Home, reader: Home) =>
  Effect.gen(function*() {
    const { head } = yield* writer.bounds
    const [documentId, count] = [fresh(), 100]
    const read: Array<number> = []
    const reading = yield* Effect.fork(
      reader.strands(head).pipe(
        Stream.take(count),
        Stream.runForEach(() => Effect.map(millisNow, (now) => read.push(now)))
      )
    )
    const begun: Array<number> = []
    for (let i = 0; i < count; i++) {
      begun.push(yield* millisNow)
      yield* writer.append([strand(documentId, i, 1)])
      yield* Effect.sleep("20 millis")
    }
    yield* reading
    return read.map((at, i) => at - begun[i]!)
  })

const measure = (dialect: Result.Row["dialect"], open: Effect.Effect<Home, unknown, Scope.Scope>) =>
  Effect.gen(function*() {
    const [here, there] = [yield* open, yield* open]
    const rows: Array<Result.Row> = []
    const row = (subject: string, unit: string, values: ReadonlyArray<number>) =>
      rows.push(Result.row({ subject, dialect, metric: unit === "ms" ? "latency" : "throughput", unit }, values))
    for (const count of [1, 8, 32, 128]) {
      const values = yield* speeds(count * each, appenders(here, count))
      row(`append, ${count} at once, an operation each`, "operations/s", values)
    }
    const many = Effect.suspend(() => here.append(Array.from({ length: 1_000 }, () => strand(fresh(), 0, 3))))
    row("append, one alone, 1,000 strands of 3", "operations/s", yield* speeds(3_000, many))
    const { head } = yield* here.bounds
    const all = there.pages(Position.origin).pipe(Stream.takeUntil(({ position }) => position >= head), Stream.runDrain)
    row("read from the start", "operations/s", yield* speeds(Number(head), all))
    row("append to read, same client", "ms", yield* latencies(here, here))
    row("append to read, another client", "ms", yield* latencies(here, there))
    return rows
  })

/** A journal with a client of its own, for as long as the benchmark runs. */
const journalOn = <A, E>(store: Layer.Layer<A | SqlClient.SqlClient, E>) =>
  Effect.map(
    Layer.build(Journal.layer("bench").pipe(Layer.provide(Layer.fresh(store)))),
    (context) => Context.get(context, Journal.Journal)
  )

const directory = mkdtempSync(join(tmpdir(), "effect-processors-bench-"))

const rows = await Effect.runPromise(
  Effect.scoped(Effect.gen(function*() {
    const { url } = yield* PostgresServer.make
    const sqlite = journalOn(Sqlite.layer({ filename: join(directory, "bench.db") }))
    const pg = journalOn(Postgres.layer({ url: Redacted.make(url) }))
    return [...yield* measure("sqlite", sqlite), ...yield* measure("pg", pg)]
  })).pipe(
    Logger.withMinimumLogLevel(LogLevel.Warning),
    Effect.ensuring(Effect.sync(() => rmSync(directory, { recursive: true, force: true })))
  )
)

Result.publish(Result.make("journal", rows, []))
