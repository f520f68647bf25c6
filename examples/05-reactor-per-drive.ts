/**
 * A reactor per drive: what the specs call a `ProcessorFactory`, from a drive to its processors, is a function from a drive
 * to a Layer; a `LayerMap` opens each on first use and closes it when nobody has used it for a while.
 */
import { FileSystem } from "@effect/platform"
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Console, Context, Effect, Layer, LayerMap, Logger, LogLevel, Queue, Schema } from "effect"
import * as Sqlite from "../layers/Sqlite.js"
import * as Test from "../layers/Test.js"
import { DocumentModel, Namespace, Policy, Processor, Reactor, Source } from "../src/index.js"

const File = DocumentModel.make("acme/file", {
  UPLOAD: Schema.Struct({ name: Schema.String, bytes: Schema.NonNegativeInt })
})

/** Where the drives keep their databases. */
class Directory extends Context.Tag("example/Directory")<Directory, string>() {}

const createTable = (name: string, columns: string) => ({
  [`0001_${name}`]: {
    up: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE ${sql(name)} (${sql.literal(columns)})`),
    down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE ${sql(name)}`)
  }
})

// The factory: the processors of a drive. Each sees the strands of that drive and of no other.
const processorsOf = (driveId: string) => [
  Processor.make("names", {
    namespace: "names",
    filter: { driveId: [driveId], documentType: [File.type] },
    migrations: createTable("names", "id TEXT PRIMARY KEY, name TEXT NOT NULL"),
    handler: Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      return Processor.onOperations(File, {
        UPLOAD: ({ input, strand }) =>
          sql`
            INSERT INTO names ${sql.insert({ id: strand.documentId, name: input.name })}
            ON CONFLICT (id) DO UPDATE SET name = excluded.name`
      })
    })
  }).pipe(Processor.withPolicy(Policy.standard)),
  Processor.make("sizes", {
    namespace: "sizes",
    filter: { driveId: [driveId], documentType: [File.type] },
    migrations: createTable("sizes", "bytes INTEGER NOT NULL"),
    handler: Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      return Processor.onOperations(File, {
        UPLOAD: ({ input }) => sql`INSERT INTO sizes ${sql.insert({ bytes: input.bytes })}`
      })
    })
  }).pipe(Processor.withPolicy(Policy.standard))
]

/** Which drives have been closed. */
const closed = Effect.runSync(Queue.unbounded<string>())

// From a drive to a Layer: its processors, over a directory of its own with a file for each of their namespaces.
const reactorOf = (driveId: string) =>
  Layer.unwrapEffect(Effect.map(Directory, (directory) =>
    Reactor.layer(...processorsOf(driveId)).pipe(
      Layer.provideMerge(Sqlite.layerDirectory({ directory: `${directory}/${driveId}` })),
      // Built first, so released last: when the reactor and its database are closed.
      Layer.provide(Layer.scopedDiscard(Effect.acquireRelease(
        Console.log(`${driveId} opens`),
        () => Effect.zipRight(Console.log(`${driveId} closes`), Queue.offer(closed, driveId))
      )))
    )))

class Drives extends LayerMap.Service<Drives>()("example/Drives", {
  lookup: reactorOf,
  idleTimeToLive: "50 millis"
}) {}

const upload = (driveId: string, documentId: string, name: string, bytes: number) =>
  Test.strand({
    driveId,
    documentId,
    documentType: "acme/file",
    operations: [{ type: "UPLOAD", input: { name, bytes } }]
  })

const strands = [
  upload("red", "f1", "rose.png", 2_000),
  upload("blue", "f2", "sky.png", 3_000),
  upload("red", "f3", "fire.png", 500)
]

const names = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<{ name: string }>`SELECT name FROM names ORDER BY id`
)
const total = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<{ bytes: number }>`SELECT CAST(SUM(bytes) AS INTEGER) AS bytes FROM sizes`
)

/** What a drive holds. It opens the drive's reactor, or finds it open. */
const show = (driveId: string) =>
  Effect.gen(function*() {
    const reactor = yield* Reactor.Reactor
    yield* reactor.ended
    const found = yield* Namespace.query("names", names)
    const [sizes] = yield* Namespace.query("sizes", total)
    yield* Console.log(`  ${driveId}: ${found.map(({ name }) => name).join(", ")}, ${sizes?.bytes} bytes`)
  }).pipe(Effect.provide(Drives.get(driveId)))

const program = Effect.gen(function*() {
  // Two who ask at the same time share one reactor.
  yield* Effect.all([show("red"), show("red")], { concurrency: 2 })
  // Nobody has used it for 50 milliseconds.
  yield* Queue.take(closed)
  yield* show("blue")
  yield* Queue.take(closed)
  // Opened again, it goes on from its cursors: nothing is counted twice.
  yield* show("red")
})

const directory = Layer.scoped(
  Directory,
  Effect.flatMap(FileSystem.FileSystem, (files) => files.makeTempDirectoryScoped())
).pipe(Layer.provide(NodeContext.layer))

program.pipe(
  Effect.provide(Drives.Default.pipe(
    Layer.provide([Source.layerIterable("home", strands), directory])
  )),
  Logger.withMinimumLogLevel(LogLevel.Warning),
  NodeRuntime.runMain
)

/* It prints:

red opens
  red: rose.png, fire.png, 2500 bytes
  red: rose.png, fire.png, 2500 bytes
red closes
blue opens
  blue: sky.png, 3000 bytes
blue closes
red opens
  red: rose.png, fire.png, 2500 bytes
red closes

*/
