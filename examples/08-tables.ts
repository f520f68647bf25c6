/**
 * Tables: one plain effect for each operation, typed to the columns, and a few statements for a whole batch of them.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Logger, LogLevel, Option, Schema } from "effect"
import * as Test from "../layers/Test.js"
import { DocumentModel, Draft, Namespace, Policy, Processor, Reactor, Table } from "../src/index.js"

const Order = DocumentModel.make("acme/order", {
  PLACE: Schema.Struct({ sku: Schema.String, pieces: Schema.Int }),
  RETURN: Schema.Struct({ sku: Schema.String, pieces: Schema.Int, reason: Schema.String })
})

// Rows of a Schema. What it encodes to has to fit columns on both databases; a Date, a bigint or JSON has its own.
const Stock = Table.make(
  "stock",
  Schema.Struct({
    sku: Schema.String,
    sold: Schema.Int,
    returned: Schema.Int,
    lastReason: Schema.NullOr(Schema.String)
  }),
  { key: ["sku"] }
)

const Returns = Table.make(
  "returns",
  Schema.Struct({ order: Schema.String, index: Schema.Int, sku: Schema.String, share: Schema.Number }),
  { key: ["order", "index"], indexes: [["sku"]] }
)

// The migration that makes them comes from the same types; 09 tells how it goes on from there.
const migrations = { "0001_stock": Draft.migration(Draft.initial([Stock, Returns])) }

const Warehouse = Processor.make("warehouse", {
  namespace: "warehouse",
  filter: { documentType: [Order.type] },
  migrations,
  handler: Processor.onOperations(Order, {
    // Adds to the row, or inserts it. A thousand of these for one product are one row of one statement.
    PLACE: ({ input }) =>
      Stock.increment({ sku: input.sku }, { sold: input.pieces }, { returned: 0, lastReason: null }),
    // Reads what the batch itself has written. Which rows an operation asks for is soon foreseen from its input.
    RETURN: ({ input, operation, strand }) =>
      Effect.gen(function*() {
        const stock = yield* Stock.get({ sku: input.sku })
        const sold = Option.match(stock, { onNone: () => 0, onSome: (row) => row.sold })
        yield* Stock.update({ sku: input.sku }, { lastReason: input.reason })
        yield* Stock.increment({ sku: input.sku }, { returned: input.pieces })
        yield* Returns.insert({
          order: strand.documentId,
          index: operation.index,
          sku: input.sku,
          share: sold === 0 ? 0 : input.pieces / sold
        })
      })
  })
}).pipe(Processor.withPolicy(Policy.standard))

const order = (documentId: string, ...operations: ReadonlyArray<Test.OperationOptions>) =>
  Test.strand({ documentId, documentType: Order.type, operations })

const strands = [
  order("o-1", { type: "PLACE", input: { sku: "lamp", pieces: 3 } }, {
    type: "PLACE",
    input: { sku: "rug", pieces: 1 }
  }),
  order("o-2", { type: "PLACE", input: { sku: "lamp", pieces: 1 } }),
  order("o-1", { index: 2, type: "RETURN", input: { sku: "lamp", pieces: 1, reason: "too bright" } }),
  order("o-3", { type: "PLACE", input: { sku: "lamp", pieces: 4 } })
]

const program = Effect.gen(function*() {
  const [outcome] = yield* Reactor.run(Warehouse)
  yield* Console.log(`${outcome?.totals.operations} operations, ${outcome?.totals.commits} commit`)

  // Outside a handler the same operations are statements of their own, at once.
  yield* Namespace.within(
    "warehouse",
    Effect.gen(function*() {
      const lamp = yield* Stock.get({ sku: "lamp" })
      yield* Console.log(Option.getOrThrow(lamp))
      yield* Console.log(yield* Returns.find({ sku: "lamp" }))

      // What does not fit its column is a failure that names it.
      const refused = yield* Effect.flip(Stock.update({ sku: "lamp" }, { sold: 0.5 }))
      yield* Console.log(refused.message.split("\n")[0])
    })
  )
})

program.pipe(Effect.provide(Test.layer(strands)), Logger.withMinimumLogLevel(LogLevel.Warning), NodeRuntime.runMain)

/* It prints:

5 operations, 1 commit
{ sku: 'lamp', sold: 8, returned: 1, lastReason: 'too bright' }
[ { order: 'o-1', index: 2, sku: 'lamp', share: 0.25 } ]
stock.sold does not take it: Expected an integer, actual 0.5

*/
