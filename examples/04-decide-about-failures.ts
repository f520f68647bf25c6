/**
 * Every failure of a handler has a type, and a policy decides about each: this processor waits for a slow service, sets
 * aside what it cannot place until someone has put it right, and leaves out what nobody needs.
 */
import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Console, Context, Data, Effect, Layer, Logger, LogLevel, Ref, Schedule, Schema } from "effect"
import * as Test from "../layers/Test.js"
import { DeadLetters, DocumentModel, Namespace, Policy, Processor, Reactor, Source } from "../src/index.js"

class RateLimited extends Data.TaggedError("RateLimited")<{ readonly retryAfterMillis: number }> {}

class UnknownCustomer extends Data.TaggedError("UnknownCustomer")<{ readonly name: string }> {
  override get message() {
    return `nobody is called ${this.name}`
  }
}

class TooSmall extends Data.TaggedError("TooSmall")<{ readonly amount: number }> {}

// A service that the processor asks, and that has its moods.
class Rates extends Context.Tag("example/Rates")<Rates, {
  readonly toEuro: (currency: string) => Effect.Effect<number, RateLimited>
}>() {}

const Invoice = DocumentModel.make("acme/invoice", {
  BILL: Schema.Struct({ customer: Schema.String, amount: Schema.Number, currency: Schema.String })
})

// Processor<RateLimited | UnknownCustomer | TooSmall | …, Rates | SqlClient>: no reactor takes it yet.
const Undecided = Processor.make("revenue", {
  namespace: "revenue",
  filter: { documentType: [Invoice.type] },
  migrations: {
    "0001_revenue": {
      up: Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE customers (name TEXT PRIMARY KEY)`
        yield* sql`INSERT INTO customers (name) VALUES ('ada')`
        yield* sql`CREATE TABLE revenue (invoice TEXT NOT NULL, customer TEXT NOT NULL, euro DOUBLE PRECISION NOT NULL)`
      }),
      down: Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`DROP TABLE revenue`
        yield* sql`DROP TABLE customers`
      })
    }
  },
  handler: Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const rates = yield* Rates
    return Processor.onOperations(Invoice, {
      BILL: ({ input, strand }) =>
        Effect.gen(function*() {
          if (input.amount < 1) return yield* new TooSmall({ amount: input.amount })
          const known = yield* sql`SELECT 1 FROM customers WHERE name = ${input.customer}`
          if (known.length === 0) return yield* new UnknownCustomer({ name: input.customer })
          const euro = input.amount * (yield* rates.toEuro(input.currency))
          yield* sql`INSERT INTO revenue ${sql.insert({ invoice: strand.documentId, customer: input.customer, euro })}`
        })
    })
  })
})

// Each decision takes its failure out of the type. `Policy.standard` parks what the engine itself can raise.
const Revenue = Undecided.pipe(Processor.withPolicy({
  ...Policy.standard,
  RateLimited: (e) => Policy.retry(Schedule.spaced(e.retryAfterMillis), { otherwise: Policy.halt }),
  UnknownCustomer: Policy.park,
  TooSmall: Policy.skip
}))

const billed = (documentId: string, ...bills: ReadonlyArray<readonly [customer: string, amount: number]>) =>
  Test.strand({
    documentId,
    documentType: "acme/invoice",
    operations: bills.map(([customer, amount]) => ({ type: "BILL", input: { customer, amount, currency: "USD" } }))
  })

const strands = [
  billed("invoice-1", ["ada", 100]),
  // The second bill waits behind the first: a document is never applied out of order.
  billed("invoice-2", ["grace", 20], ["ada", 30]),
  billed("invoice-3", ["ada", 0.5]),
  billed("invoice-4", ["ada", 5])
]

/** Refuses the first two questions. */
const MoodyRates = Layer.effect(
  Rates,
  Effect.map(Ref.make(0), (asked) => ({
    toEuro: () =>
      Effect.flatMap(
        Ref.updateAndGet(asked, (n) => n + 1),
        (n) => n > 2 ? Effect.succeed(0.5) : new RateLimited({ retryAfterMillis: 20 })
      )
  }))
)

const revenue = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<{ invoice: string; euro: number }>`SELECT invoice, euro FROM revenue ORDER BY invoice`
)

const showRevenue = Effect.gen(function*() {
  const rows = yield* Namespace.query("revenue", revenue)
  yield* Console.log(`revenue: ${rows.map(({ euro, invoice }) => `${invoice} ${euro}`).join(", ")}`)
})

const program = Effect.gen(function*() {
  const [outcome] = yield* Reactor.run(Revenue)
  yield* Console.log(`${outcome?.phase}, skipped ${outcome?.totals.skipped}, waiting ${outcome?.waiting}`)
  yield* showRevenue

  // What waits, and why. Dead letters are kept in the processor's namespace.
  const source = yield* Source.Source
  const key = { processor: Revenue.name, source: source.name }
  for (const letter of yield* Namespace.query("revenue", DeadLetters.list(key))) {
    yield* Console.log(`letter ${letter.ordinal} of ${letter.strand.documentId}: ${letter.cause}, ${letter.reason}`)
  }

  // Put it right, and try the document again: its letters leave in order, through the same handler and policy.
  const grace = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO customers (name) VALUES ('grace')`)
  yield* Namespace.within("revenue", grace)
  const retried = yield* Namespace.within("revenue", DeadLetters.retry(Revenue, source.name, "invoice-2"))
  yield* Console.log(`released ${retried.released}, waiting ${retried.waiting}`)
  yield* showRevenue
})

program.pipe(
  Effect.provide(Layer.merge(Test.layer(strands), MoodyRates)),
  // Whatever is retried, skipped or parked is logged as well.
  Logger.withMinimumLogLevel(LogLevel.None),
  NodeRuntime.runMain
)

/* It prints:

ended, skipped 1, waiting 2
revenue: invoice-1 50, invoice-4 2.5
letter 1907 of invoice-2: UnknownCustomer, nobody is called grace
letter 2931 of invoice-2: Queued, waits for earlier operations of its document
released 2, waiting 0
revenue: invoice-1 50, invoice-2 10, invoice-2 15, invoice-4 2.5

*/
