/**
 * Read your own write: append, wait for the processor, read its table, in its process or in any other.
 */
import { FileSystem } from "@effect/platform"
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Console, Data, Effect, Layer, Logger, LogLevel, Schema } from "effect"
import * as Sqlite from "../layers/Sqlite.js"
import * as Test from "../layers/Test.js"
import { DocumentModel, Journal, Namespace, Policy, Processor, Reactor, Source, Wait } from "../src/index.js"

const Account = DocumentModel.make("acme/account", {
  DEPOSIT: Schema.Struct({ cents: Schema.Positive.pipe(Schema.int()) })
})

class Suspicious extends Data.TaggedError("Suspicious")<{ readonly cents: number }> {
  override get message(): string {
    return `a deposit of ${this.cents / 100} has to be looked at`
  }
}

const Balances = Processor.make("balances", {
  namespace: "bank",
  filter: { documentType: [Account.type] },
  migrations: {
    "0001_balances": {
      up: Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql`CREATE TABLE balances (account TEXT PRIMARY KEY, cents INTEGER NOT NULL)`
      ),
      down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE balances`)
    }
  },
  handler: Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    return Processor.onOperations(Account, {
      DEPOSIT: ({ input, strand }) =>
        input.cents > 1_000_000 ? new Suspicious(input) : sql`
          INSERT INTO balances ${sql.insert({ account: strand.documentId, cents: input.cents })}
          ON CONFLICT (account) DO UPDATE SET cents = balances.cents + excluded.cents`
    })
  })
}).pipe(Processor.withPolicy({ ...Policy.standard, Suspicious: Policy.park }))

// Added to a journal that has been there for years, it tells of what comes from now on.
const Bell = Processor.make("bell", {
  namespace: "bank",
  startFrom: "current",
  handler: Processor.onOperations(Account, {
    DEPOSIT: ({ input, strand }) => Console.log(`  ding: ${strand.documentId} ${(input.cents / 100).toFixed(2)}`)
  })
}).pipe(Processor.withPolicy(Policy.standard))

const deposit = (account: string, index: number, cents: number) =>
  Test.strand({
    documentId: account,
    documentType: "acme/account",
    from: index,
    operations: [{ type: "DEPOSIT", input: { cents } }]
  })

const place = (documentId: string, index: number) => ({ documentId, index, scope: "global", branch: "main" })

const balance = (account: string) =>
  Namespace.query(
    "bank",
    Effect.flatMap(SqlClient.SqlClient, (sql) =>
      sql<{ cents: number }>`SELECT cents FROM balances WHERE account = ${account}`)
  ).pipe(Effect.map(([row]) =>
    `${account} ${((row?.cents ?? 0) / 100).toFixed(2)}`
  ))

const tell = <A, E extends { readonly _tag: string; readonly message: string }, R>(wait: Effect.Effect<A, E, R>) =>
  Effect.flatMap(Effect.flip(wait), ({ _tag, message }) => Console.log(`${_tag}: ${message}`))

const program = (filename: string) =>
  Effect.gen(function*() {
    const journal = yield* Journal.Journal
    yield* journal.append([deposit("ada", 0, 500)])

    yield* Effect.gen(function*() {
      const reactor = yield* Reactor.Reactor

      // Whoever appends knows what to wait for. The reactor's own commits wake whoever waits in its process.
      yield* journal.append([deposit("ada", 1, 250)])
      yield* reactor.waitFor(Balances, place("ada", 1))
      yield* Console.log(yield* balance("ada"))

      // Another process, such as a web server, has the database and the journal's name, and asks the cursor.
      const receipt = yield* journal.append([deposit("ada", 2, 100), deposit("grace", 0, 70_000)])
      const elsewhere = Layer.fresh(Sqlite.layer({ filename }))
      yield* Wait.until(Balances, Source.name("bank"), { position: receipt.position }).pipe(
        Effect.zipRight(Effect.all([balance("ada"), balance("grace")])),
        Effect.flatMap((balances) => Console.log(`elsewhere: ${balances.join(", ")}`)),
        Effect.provide(elsewhere)
      )

      // What would be waited for in vain is told: set aside, behind what was, or not wanted.
      yield* journal.append([deposit("ada", 3, 2_000_000), deposit("ada", 4, 1)])
      yield* tell(reactor.waitFor(Balances, place("ada", 3)))
      yield* tell(reactor.waitFor(Balances, place("ada", 4)))
      yield* tell(reactor.waitFor(Balances, { ...place("tea", 0), documentType: "acme/shop" }))

      // What has not come yet is not waited for for ever.
      yield* tell(reactor.waitFor(Balances, place("grace", 9), { timeout: "200 millis" }))
    }).pipe(Effect.provide(Reactor.layer(Balances)))

    // From here on the bell rings, and not for what was there before.
    yield* Effect.gen(function*() {
      const reactor = yield* Reactor.Reactor
      const { head } = yield* journal.bounds
      yield* reactor.waitFor(Bell, { position: head })
      yield* journal.append([deposit("grace", 1, 4_200)])
      yield* reactor.waitFor(Bell, place("grace", 1))
    }).pipe(Effect.provide(Reactor.layer(Bell)))
  })

Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const filename = `${yield* files.makeTempDirectoryScoped()}/bank.db`
  yield* Effect.provide(
    program(filename),
    Layer.provideMerge(Journal.layer("bank"), Sqlite.layer({ filename }))
  )
}).pipe(
  Effect.scoped,
  Effect.provide(NodeContext.layer),
  Logger.withMinimumLogLevel(LogLevel.Error),
  NodeRuntime.runMain
)

/* It prints:

ada 7.50
elsewhere: ada 8.50, grace 700.00
OperationParked: index 3 of document ada (global, main) is dead letter 1496 of balances on bank: Suspicious: a deposit of 20000 has to be looked at
OperationParked: index 4 of document ada (global, main) waits behind dead letter 1496 of balances on bank: Suspicious: a deposit of 20000 has to be looked at
OperationUnwanted: balances on bank does not follow index 0 of document tea (global, main) (filter)
WaitTimedOut: balances on bank has not come to index 9 of document grace (global, main) in 200 ms: its cursor is at position 6, the stream at index 0, it is idle
  ding: grace 42.00

*/
