/**
 * Rebuild: a handler had a bug. Find the rows that are wrong, and project the processor anew while another goes on.
 */
import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Console, Effect, Layer, Logger, LogLevel, Schema } from "effect"
import * as Sqlite from "../layers/Sqlite.js"
import * as Test from "../layers/Test.js"
import { DocumentModel, Draft, Journal, Namespace, Policy, Processor, Reactor, Table } from "../src/index.js"
import type { Rebuild } from "../src/index.js"

const Shop = DocumentModel.make("acme/shop", {
  SELL: Schema.Struct({ id: Schema.String, cents: Schema.Int }),
  REFUND: Schema.Struct({ id: Schema.String })
})

// A table that says which document its rows are of can be projected anew for one document.
const Sales = Table.make(
  "sales",
  Schema.Struct({ id: Schema.String, shop: Schema.String, cents: Schema.Int }),
  { key: ["id"], document: "shop" }
)

const migrations = { "0001_sales": Draft.migration(Draft.initial([Sales])) }

const books = (refund: (id: string) => ReturnType<typeof Sales.delete>) =>
  Processor.make("books", {
    namespace: "books",
    migrations,
    tables: [Sales], // what it alone writes, and what is emptied when it is projected anew
    handler: Processor.onOperations(Shop, {
      SELL: ({ input, strand }) => Sales.insert({ ...input, shop: strand.documentId }),
      REFUND: ({ input }) => refund(input.id)
    })
  }).pipe(Processor.withPolicy(Policy.standard))

const Buggy = books((id) => Sales.update({ id }, { cents: -1 }))
const Books = books((id) => Sales.delete({ id }))

const Till = Processor.make("till", {
  namespace: "till",
  handler: Processor.onOperations(Shop, {
    SELL: ({ input }) => Console.log(`  till: ${input.id} ${(input.cents / 100).toFixed(2)}`)
  })
}).pipe(Processor.withPolicy(Policy.standard))

const strand = (shop: string, from: number, ...operations: ReadonlyArray<Test.OperationOptions>) =>
  Test.strand({ documentId: shop, documentType: Shop.type, from, operations })

const sell = (id: string, cents: number) => ({ type: "SELL", input: { id, cents } })

const total = Namespace.query(
  "books",
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) =>
      sql<{ shop: string; cents: number }>`SELECT shop, SUM(cents) AS cents FROM sales GROUP BY shop ORDER BY shop`
  )
).pipe(Effect.map((rows) => rows.map(({ cents, shop }) => `${shop} ${(cents / 100).toFixed(2)}`).join(", ")))

const tell = ({ isClean, tables }: Rebuild.Verdict) =>
  Effect.gen(function*() {
    yield* Console.log(isClean ? "verify: nothing differs" : "verify:")
    for (const { columns, key, table, where } of tables.flatMap(({ differences }) => differences)) {
      yield* Console.log(`  ${[where, table, key["id"] ?? key["document_id"], ...columns].map(String).join(" ")}`)
    }
  })

const program = Effect.gen(function*() {
  const journal = yield* Journal.Journal
  const { head } = yield* journal.append([
    strand("east", 0, sell("e1", 500), sell("e2", 250), { type: "REFUND", input: { id: "e1" } }),
    strand("west", 0, sell("w1", 900), sell("w2", 100), { type: "REFUND", input: { id: "w2" } })
  ]).pipe(Effect.zipRight(journal.bounds))

  yield* Effect.gen(function*() {
    const reactor = yield* Reactor.Reactor
    yield* reactor.waitFor(Buggy, { position: head })
    yield* Console.log(`with the bug: ${yield* total}`)
  }).pipe(Effect.provide(Reactor.layer(Buggy)))

  // The next release has the handler put right, and the rows as they were.
  yield* Effect.gen(function*() {
    const reactor = yield* Reactor.Reactor
    yield* reactor.waitFor(Books, { position: head })
    yield* tell(yield* reactor.verify(Books))

    // One shop, at once; its rows change in one commit.
    yield* reactor.rebuild(Books, { documentId: "east" })
    yield* Console.log(`east rebuilt: ${yield* total}`)

    // All of it, in the shadow: until it is done readers see what was there, and the till goes on.
    const { operations } = yield* reactor.rebuild(Books)
    yield* Console.log(`all rebuilt from ${operations} operations: ${yield* total}`)
    yield* journal.append([strand("west", 3, sell("w3", 42))])
    const { head: last } = yield* journal.bounds
    for (const each of [Books, Till]) yield* reactor.waitFor(each, { position: last })
    yield* Console.log(`and on: ${yield* total}`)
    yield* tell(yield* reactor.verify(Books))

    // Somebody who writes where nobody but the processor should is found out.
    yield* Namespace.within(
      "books",
      Effect.flatMap(SqlClient.SqlClient, (sql) =>
        Effect.all([
          sql`UPDATE sales SET cents = 1 WHERE id = 'w1'`,
          sql`DELETE FROM sales WHERE id = 'w3'`,
          sql`INSERT INTO sales ${sql.insert({ id: "x1", shop: "north", cents: 7 })}`
        ]))
    )
    yield* tell(yield* reactor.verify(Books))
  }).pipe(Effect.provide(Reactor.layer(Books, Till)))
})

program.pipe(
  Effect.provide(Layer.provideMerge(Journal.layer("shops"), Sqlite.layerMemory)),
  Logger.withMinimumLogLevel(LogLevel.Error),
  NodeRuntime.runMain
)

/* It prints:

with the bug: east 2.49, west 8.99
  till: e1 5.00
  till: e2 2.50
  till: w1 9.00
  till: w2 1.00
verify:
  extra sales e1
  extra sales w2
east rebuilt: east 2.50, west 8.99
all rebuilt from 6 operations: east 2.50, west 9.00
  till: w3 0.42
and on: east 2.50, west 9.42
verify: nothing differs
verify:
  changed sales w1 cents
  extra sales x1
  missing sales w3

*/
