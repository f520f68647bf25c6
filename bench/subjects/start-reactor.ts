/**
 * The start of a reactor: one processor, whose tables are there, over a source of one strand, to its first commit.
 *
 *     node start-reactor.js sqlite|pg <file or url> <name>
 */
import { SqlClient } from "@effect/sql"
import { Effect, Either, Layer, Logger, LogLevel, Redacted, Stream } from "effect"
import { Envelope, Policy, Processor, Reactor, Source } from "../../src/index.js"
import type { Namespace } from "../../src/index.js"

const [dialect = "", target = "", name = ""] = process.argv.slice(2)

const store: Layer.Layer<Namespace.Namespaces, unknown> = dialect === "sqlite"
  ? (await import("../../layers/Sqlite.js")).layer({ filename: target })
  : (await import("../../layers/Postgres.js")).layer({ url: Redacted.make(target) })

const processor = Processor.make("start", {
  namespace: "start",
  migrations: {
    "0001_started": {
      up: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE started (name TEXT PRIMARY KEY)`),
      down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE started`)
    }
  },
  handler: Effect.map(
    SqlClient.SqlClient,
    (sql) => Processor.onBatch(() => sql`INSERT INTO started ${sql.insert({ name })}`)
  )
}).pipe(Processor.withPolicy(Policy.standard))

const strands = Either.getOrThrow(Envelope.decode({
  documentId: name,
  documentType: "bench/start",
  scope: "global",
  branch: "main",
  operations: [{
    id: name,
    index: 0,
    skip: 0,
    type: "START",
    timestamp: "2026-01-01T00:00:00.000Z",
    hash: "",
    input: {}
  }]
}))

await Effect.runPromise(
  Effect.gen(function*() {
    const reactor = yield* Reactor.Reactor
    yield* Stream.runHead(reactor.commits)
    process.stdout.write(`${JSON.stringify({ startMillis: performance.now() })}\n`)
  }).pipe(
    Effect.provide(Reactor.layer(processor)),
    Effect.provide(Layer.merge(store, Source.layerIterable(name, strands))),
    Logger.withMinimumLogLevel(LogLevel.Warning)
  )
)
