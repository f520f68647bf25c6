/**
 * Partitions: a processor's documents shared among several subscriptions, and another processor that goes after it.
 */
import { FileSystem } from "@effect/platform"
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Console, Effect, Logger, LogLevel, Option, Schema } from "effect"
import * as Sqlite from "../layers/Sqlite.js"
import * as Test from "../layers/Test.js"
import { DocumentModel, Draft, Namespace, Policy, Processor, Reactor, Source, Table } from "../src/index.js"

const Article = DocumentModel.make("acme/article", { RECEIVE: Schema.Struct({ pieces: Schema.Int }) })
const Order = DocumentModel.make("acme/order", {
  PLACE: Schema.Struct({ article: Schema.String, pieces: Schema.Int })
})

const Stock = Table.make("stock", Schema.Struct({ article: Schema.String, pieces: Schema.Int }), { key: ["article"] })
const Orders = Table.make(
  "orders",
  Schema.Struct({ id: Schema.String, article: Schema.String, pieces: Schema.Int, served: Schema.Boolean }),
  { key: ["id"] }
)

const namespace = "shop"
const migrations = {
  "0001_stock": Draft.migration(Draft.initial([Stock])),
  "0002_orders": Draft.migration(Draft.initial([Orders]))
}

// Each article is in one of the partitions, and what happens to it stays in order. Rows are written by one article alone.
const stock = (partitions: number) =>
  Processor.make("stock", {
    namespace,
    migrations,
    partitions,
    filter: { documentType: [Article.type] },
    // All partitions together: no more than two commits at once, and 10,000 operations a second.
    pace: { concurrency: 2, rate: { operations: 10_000, per: "1 second" } },
    handler: Processor.onOperations(Article, {
      RECEIVE: ({ input, strand }) => Stock.increment({ article: strand.documentId }, { pieces: input.pieces }, {})
    })
  }).pipe(Processor.withPolicy(Policy.standard))

// It reads the stock, so it never runs ahead of it: an order finds all that came in before it, and perhaps more.
const orders = Processor.make("orders", {
  namespace,
  migrations,
  after: [stock(1)],
  filter: { documentType: [Order.type] },
  handler: Processor.onOperations(Order, {
    PLACE: ({ input, strand }) =>
      Effect.flatMap(Stock.get({ article: input.article }), (found) =>
        Orders.insert({
          ...input,
          id: strand.documentId,
          served: Option.exists(found, (row) => row.pieces >= input.pieces)
        }))
  })
}).pipe(Processor.withPolicy(Policy.standard))

const articles = ["anvil", "bucket", "candle", "drill", "easel", "funnel"]

const receive = (from: number) =>
  articles.map((documentId) =>
    Test.strand({
      documentId,
      documentType: Article.type,
      from,
      operations: [{ type: "RECEIVE", input: { pieces: 10 } }]
    })
  )

const place = (number: number, article: string, pieces: number) =>
  Test.strand({
    documentId: `order-${number}`,
    documentType: Order.type,
    operations: [{ type: "PLACE", input: { article, pieces } }]
  })

const day = [...receive(0), place(1, "candle", 10), ...receive(1), place(2, "anvil", 20)]
const nextDay = [...day, ...receive(2), place(3, "funnel", 99)]

const run = (partitions: number, strands: Iterable<Source.Unplaced>) =>
  Effect.gen(function*() {
    const outcomes = yield* Effect.provide(
      Reactor.run(orders, stock(partitions)),
      Source.layerIterable("shop", strands)
    )
    for (const { partition, phase, position, processor, totals } of outcomes) {
      const which = partition.of === 1 ? processor : `${processor} ${partition.number} of ${partition.of}`
      yield* Console.log(`${which}: ${phase} at ${position}, ${totals.operations} operations`)
    }
  })

const placed = Namespace.query(
  namespace,
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql<{ id: string; served: unknown }>`SELECT id, served FROM orders ORDER BY id`
  )
)

Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const filename = `${yield* files.makeTempDirectoryScoped()}/shop.db`
  yield* Effect.gen(function*() {
    yield* run(4, day)
    // The next day two are enough. Nothing is lost, and nothing comes again.
    yield* run(2, nextDay)
    for (const { id, served } of yield* placed) yield* Console.log(`${id}: ${served ? "served" : "out of stock"}`)
  }).pipe(Effect.provide(Sqlite.layer({ filename })))
}).pipe(
  Effect.scoped,
  Effect.provide(NodeContext.layer),
  Logger.withMinimumLogLevel(LogLevel.Error),
  NodeRuntime.runMain
)

/* It prints:

orders: ended at 14, 2 operations
stock 1 of 4: ended at 14, 2 operations
stock 2 of 4: ended at 14, 2 operations
stock 3 of 4: ended at 14, 4 operations
stock 4 of 4: ended at 14, 4 operations
orders: ended at 21, 1 operations
stock 1 of 2: ended at 21, 2 operations
stock 2 of 2: ended at 21, 4 operations
order-1: served
order-2: served
order-3: out of stock

*/
