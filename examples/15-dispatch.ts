/**
 * Dispatch: a processor answers orders with actions on other documents, through an outbox, at least once.
 */
import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Console, Effect, Layer, Logger, LogLevel, Schedule, Schema } from "effect"
import * as Sqlite from "../layers/Sqlite.js"
import * as Test from "../layers/Test.js"
import {
  Dispatch,
  Dispatcher,
  DocumentModel,
  Journal,
  Namespace,
  Outbox,
  Policy,
  Processor,
  Reactor
} from "../src/index.js"

const Order = DocumentModel.make("acme/order", {
  PLACE: Schema.Struct({ item: Schema.String, quantity: Schema.Positive.pipe(Schema.int()) })
})

const Stock = DocumentModel.make("acme/stock", {
  RESERVE: Schema.Struct({ quantity: Schema.Positive.pipe(Schema.int()), order: Schema.String })
})

// What it sends is written in the transaction of the batch, and sent once that is committed: never for an order that failed.
const Reservations = Processor.make("reservations", {
  namespace: "sales",
  filter: { documentType: [Order.type] },
  handler: Processor.onOperations(Order, {
    PLACE: ({ input, strand }) =>
      Dispatch.send({
        documentId: input.item,
        actions: [Dispatch.action(Stock, "RESERVE", { quantity: input.quantity, order: strand.documentId })]
      })
  })
}).pipe(Processor.withPolicy(Policy.standard))

// It follows what the other one has caused.
const Shelf = Processor.make("shelf", {
  namespace: "stock",
  filter: { documentType: [Stock.type] },
  migrations: {
    "0001_reserved": {
      up: Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql`CREATE TABLE reserved (item TEXT PRIMARY KEY, quantity INTEGER NOT NULL)`
      ),
      down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE reserved`)
    }
  },
  handler: Effect.map(SqlClient.SqlClient, (sql) =>
    Processor.onOperations(Stock, {
      RESERVE: ({ input, strand }) =>
        sql`INSERT INTO reserved ${sql.insert({ item: strand.documentId, quantity: input.quantity })}
            ON CONFLICT (item) DO UPDATE SET quantity = reserved.quantity + excluded.quantity`
    }))
}).pipe(Processor.withPolicy(Policy.standard))

// Where messages go: here, into the journal that the orders come from. It knows what it has taken by the message's id, which
// is the same whenever one comes again. It is away at first.
const warehouse = { isOpen: false, taken: new Set<string>(), heads: new Map<string, number>() }

const Warehouse = Layer.effect(
  Dispatcher.Dispatcher,
  Effect.map(Journal.Journal, (journal) => ({
    deliver: ({ actions, documentId, id }) =>
      Effect.gen(function*() {
        if (!warehouse.isOpen) return yield* new Dispatcher.ReceiverUnavailable({ reason: "the warehouse is closed" })
        if (documentId === "unicorn") return yield* new Dispatcher.MessageRefused({ reason: "there is no unicorn" })
        if (warehouse.taken.has(id)) return
        const from = warehouse.heads.get(documentId) ?? 0
        yield* journal.append([
          Test.strand({
            documentId,
            documentType: Stock.type,
            from,
            operations: actions.map((action) => ({ ...action, hash: action.id }))
          })
        ]).pipe(Effect.mapError((cause) => new Dispatcher.ReceiverUnavailable({ reason: cause.message, cause })))
        warehouse.heads.set(documentId, from + actions.length)
        warehouse.taken.add(id)
      })
  }))
)

const place = (documentId: string, ...items: ReadonlyArray<readonly [item: string, quantity: number]>) =>
  Test.strand({
    documentId,
    documentType: Order.type,
    operations: items.map(([item, quantity]) => ({ type: "PLACE", input: { item, quantity } }))
  })

const outbox = Effect.flatMap(
  Namespace.query("sales", Outbox.summary),
  ({ refused, undelivered }) => Console.log(`outbox: ${undelivered} undelivered, ${refused} of them refused`)
)

const reserved = Namespace.query(
  "stock",
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql<{ item: string; quantity: number }>`SELECT item, quantity FROM reserved ORDER BY item`
  )
).pipe(
  Effect.flatMap((rows) =>
    Console.log(`reserved: ${rows.map(({ item, quantity }) => `${quantity} ${item}`).join(", ")}`)
  )
)

const program = Effect.gen(function*() {
  const journal = yield* Journal.Journal
  const reactor = yield* Reactor.Reactor

  const { position } = yield* journal.append([
    place("ada", ["tea", 2], ["kettle", 1]),
    place("grace", ["tea", 3], ["unicorn", 1])
  ])
  yield* reactor.waitFor(Reservations, { position })
  yield* outbox

  yield* Console.log("the warehouse opens")
  warehouse.isOpen = true
  yield* Effect.repeat(Namespace.query("sales", Outbox.summary), {
    schedule: Schedule.spaced("20 millis"),
    until: ({ refused, undelivered }) => undelivered === refused
  })
  yield* reactor.waitFor(Shelf, { position: (yield* journal.bounds).head })
  yield* reserved
  yield* outbox

  // What was refused can be looked at, tried again, or given up.
  for (const { cause, documentId, id, reason } of yield* Namespace.query("sales", Outbox.list({ state: "refused" }))) {
    yield* Console.log(`  ${cause.documentId}'s order of a ${documentId}: ${reason}`)
    yield* Namespace.within("sales", Outbox.drop(id))
  }
  yield* outbox
})

program.pipe(
  Effect.provide(Reactor.layer(Reservations, Shelf)),
  Effect.provide(Warehouse),
  Effect.provide(Layer.provideMerge(Journal.layer("home"), Sqlite.layerMemory)),
  Logger.withMinimumLogLevel(LogLevel.None),
  NodeRuntime.runMain
)

/* It prints:

outbox: 4 undelivered, 0 of them refused
the warehouse opens
reserved: 1 kettle, 5 tea
outbox: 1 undelivered, 1 of them refused
  grace's order of a unicorn: there is no unicorn
outbox: 0 undelivered, 0 of them refused

*/
