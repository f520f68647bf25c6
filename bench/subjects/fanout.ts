/**
 * Many processors on one journal, in one reactor. Each wants one document type and writes a row for each operation.
 *
 *     node fanout.js sqlite|pg <directory or url> idle <processors>                           how much memory they hold
 *     node fanout.js sqlite|pg <directory or url> arriving <processors> <operations>          100 operations a second
 *     node fanout.js sqlite|pg <directory or url> burst <processors> <matching> <operations>  all at once, to the last commit
 *
 * `idle` and `arriving`: the processors share 1,000 types. `burst`: `matching` processors want the type of all operations, the
 * others types that never come; those have had one operation when the clock starts, the others are in the journal, and all
 * processors are idle.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import * as Test from "../../layers/Test.js"
import { Journal, Namespace, Policy, Processor, Pulse, Reactor, Source, Table } from "../../src/index.js"
import type { Position, Strand } from "../../src/index.js"
import * as Quantiles from "../support/Quantiles.js"
import * as Fanout from "./fanout-rows.js"

const [dialect = "", target = "", mode = "", ...numbers] = process.argv.slice(2)
const [count = 0, second = 0, third = 0] = numbers.map(Number)

if (dialect === "sqlite") mkdirSync(target, { recursive: true })

const types = 1_000
const perSecond = 100

const placeOf = (name: string): Effect.Effect<Layer.Layer<Namespace.Namespaces | SqlClient.SqlClient, unknown>> =>
  Effect.promise(async () =>
    dialect === "sqlite"
      ? (await import("../../layers/Sqlite.js")).layer({ filename: join(target, `${name}.db`) })
      : (await import("../../layers/Postgres.js")).layer({ url: Redacted.make(target) })
  )

const migrations = {
  "0001_entry": {
    up: Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => sql.unsafe(Fanout.createTable)
    ),
    down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE entry`)
  }
}

const Entries = Table.make("entry", Schema.Struct({ id: Schema.String, title: Schema.String }), { key: ["id"] })

const processor = (name: string, type: string) =>
  Processor.make(name, {
    namespace: "fanout",
    filter: { documentType: [type] },
    filterDialect: "reactor",
    migrations,
    handler: Effect.succeed(Processor.onBatch((strands) => Entries.insertAll(Fanout.rowsOf(name, strands))))
  }).pipe(Processor.withPolicy(Policy.standard))

const typeOf = (i: number) => `bench/type-${i % types}`

const operation = (documentId: string, documentType: string, index: number) =>
  Test.strand({
    documentId,
    documentType,
    from: index,
    operations: [{ type: "PUT", input: { body: "x".repeat(200) } }]
  })

const now = () => performance.now()

/**
 * The resident set in bytes: after everything that can go has gone, and after what is left was moved together besides, as it
 * never is by itself in a process that has memory enough.
 */
const memory = Effect.gen(function*() {
  setFlagsFromString("--expose-gc")
  const collect = runInNewContext("gc") as () => void
  const collected = Effect.gen(function*() {
    for (let i = 0; i < 4; i++) {
      collect()
      yield* Effect.sleep(100)
    }
    return process.memoryUsage()
  })
  const { heapUsed, rss } = yield* collected
  setFlagsFromString("--compact-on-every-full-gc")
  return { rss, heapUsed, compactRss: (yield* collected).rss }
})

/** Waits until every subscription says that it is idle. */
const allIdle = Effect.gen(function*() {
  const pulses = yield* Pulse.Pulses
  for (;;) {
    const phases = new Set((yield* pulses.all).map(({ phase }) => phase))
    if (phases.has("halted")) return yield* Effect.dieMessage("a subscription has halted")
    if (phases.size === 1 && phases.has("idle")) return
    yield* Effect.sleep(20)
  }
})

/** Waits until every cursor in the database has passed a position, and tells how long that took. */
const allAt = (position: bigint) =>
  Namespace.within(
    "fanout",
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const began = now()
      for (;;) {
        const [row] = yield* sql<{ readonly behind: number }>`
        SELECT CAST(COUNT(*) AS INTEGER) AS behind FROM processor_cursor WHERE position < ${position}`
        if (Number(row?.behind) === 0) return (now() - began) / 1_000
        yield* Effect.sleep(200)
      }
    })
  )

const idle = Effect.gen(function*() {
  const journal = yield* Journal.Journal
  yield* allIdle
  // Each has been through what idle processors go through.
  const { position } = yield* journal.append([operation("somebody else's", "bench/other", 0)])
  yield* allAt(position)
  return yield* memory
})

/**
 * Operations come at a steady pace, when each processor has had one; told is how long after its append was due each was
 * committed, by each who wants it. What is late itself is appended at once.
 */
const arriving = (operations: number) =>
  Effect.gen(function*() {
    const journal = yield* Journal.Journal
    const reactor = yield* Reactor.Reactor
    const pulses = yield* Pulse.Pulses
    yield* allIdle
    const next = (n: number) => {
      const type = (n * 7) % types
      return operation(`document ${type}`, typeOf(type), Math.floor(n / types))
    }
    const following = yield* pulses.all
    const cold = now()
    yield* journal.append(Array.from({ length: types }, (_, n) => next(n)))
    while (following.some(({ totals }) => totals.operations === 0)) yield* Effect.sleep(20)
    const firstSeconds = (now() - cold) / 1_000
    const due = new Map<string, Array<number>>()
    const millis: Array<number> = []
    const done = yield* Deferred.make<void>()
    const expected = operations * Math.floor(count / types)
    yield* Effect.forkScoped(Stream.runForEachChunk(reactor.commits, (commits) =>
      Effect.suspend(() => {
        for (const { operations: applied, processor: name } of commits) {
          for (const at of due.get(name)?.splice(0, applied) ?? []) millis.push(now() - at)
        }
        return millis.length >= expected ? Deferred.succeed(done, undefined) : Effect.void
      })))
    const cpu = process.cpuUsage()
    const began = now()
    for (let i = 0; i < operations; i++) {
      const at = began + i * 1_000 / perSecond
      if (at > now()) yield* Effect.sleep(at - now())
      for (let p = (i * 7) % types; p < count; p += types) {
        const line = due.get(`p${p}`) ?? []
        due.set(`p${p}`, line)
        line.push(at)
      }
      yield* Effect.fork(journal.append([next(types + i)]))
    }
    yield* Deferred.await(done)
    const seconds = (now() - began) / 1_000
    const { system, user } = process.cpuUsage(cpu)
    const { head } = yield* journal.bounds
    return {
      firstSeconds,
      commits: millis.length,
      latency: Quantiles.make(millis),
      cpuShare: (system + user) / 1e6 / seconds,
      caughtUpSeconds: yield* allAt(head)
    }
  })

/** What keeps a reactor from all that comes behind the first operation. */
interface Gate {
  readonly first: Deferred.Deferred<Position.Position>
  readonly rest: Deferred.Deferred<void>
}

/** Operations of the bench, from the one with this number on. */
const wanted = (from: number, many: number) =>
  Array.from({ length: many }, (_, k) => {
    const { documentId, index, ...recorded } = Fanout.operationOf(from + k)
    return Test.strand({ documentId, documentType: "bench/wanted", from: index, operations: [recorded] })
  })

const burst = (matching: number, operations: number, gate: Gate) =>
  Effect.gen(function*() {
    const journal = yield* Journal.Journal
    const pulses = yield* Pulse.Pulses
    yield* allIdle
    const wanting = (yield* pulses.all).slice(0, matching)
    const allHave = Effect.fnUntraced(function*(position: Position.Position) {
      while (wanting.some((pulse) => (pulse.position ?? 0n) < position)) yield* Effect.sleep(5)
    })
    const { position: first } = yield* journal.append(wanted(0, 1))
    yield* Deferred.succeed(gate.first, first)
    yield* allHave(first)
    for (let i = 1; i <= operations; i += 1_000) {
      yield* journal.append(wanted(i, Math.min(1_000, operations + 1 - i)))
    }
    const { head } = yield* journal.bounds
    const cpu = process.cpuUsage()
    const began = now()
    yield* Deferred.succeed(gate.rest, undefined)
    yield* allHave(head)
    const seconds = (now() - began) / 1_000
    const { system, user } = process.cpuUsage(cpu)
    const rows = yield* Namespace.query(
      "fanout",
      Effect.flatMap(SqlClient.SqlClient, (sql) =>
        sql<{ readonly n: number }>`SELECT CAST(COUNT(*) AS INTEGER) AS n FROM entry`)
    )
    const expected = matching * (operations + 1)
    if (Number(rows[0]?.n) !== expected) {
      return yield* Effect.dieMessage(`${rows[0]?.n} rows, not ${expected}`)
    }
    return { operations, seconds, cpuSeconds: (system + user) / 1e6 }
  })

const processors = Array.from(
  { length: count },
  (_, i) => processor(`p${i}`, mode === "burst" ? i < second ? "bench/wanted" : `bench/unwanted-${i}` : typeOf(i))
)

const program = Effect.gen(function*() {
  const gate = { first: yield* Deferred.make<Position.Position>(), rest: yield* Deferred.make<void>() }
  const [home, place] = [yield* placeOf("journal"), yield* placeOf("fanout")]
  const journal = yield* Layer.build(Journal.layer("home").pipe(Layer.provide(home)))
  const source = Context.get(journal, Source.Source)
  const gated = (chunk: Chunk.Chunk<Strand.Strand>) =>
    Effect.flatMap(
      Deferred.await(gate.first),
      (first) =>
        Chunk.some(chunk, ({ position }) => position > first)
          ? Effect.as(Deferred.await(gate.rest), chunk)
          : Effect.succeed(chunk)
    )
  const gatedSource: typeof source = {
    ...source,
    strands: (after) => Stream.mapChunksEffect(source.strands(after), gated)
  }
  const began = now()
  const reactor = yield* Layer.build(
    Reactor.layer(...processors).pipe(
      Layer.provide(Layer.succeed(Source.Source, mode === "burst" ? gatedSource : source)),
      Layer.provideMerge(place)
    )
  )
  const reading = mode === "idle" ? idle : mode === "arriving" ? arriving(second) : burst(second, third, gate)
  const found = yield* Effect.provide(
    Effect.gen(function*() {
      yield* allIdle
      const openSeconds = (now() - began) / 1_000
      return { openSeconds, ...(yield* reading) }
    }),
    Context.merge(journal, reactor)
  )
  process.stdout.write(`${JSON.stringify(found)}\n`)
})

await Effect.runPromise(program.pipe(Effect.scoped, Logger.withMinimumLogLevel(LogLevel.Warning)))
process.exit()
