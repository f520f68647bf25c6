/**
 * A journal is a live source in SQL: whoever has something to say appends it, processors follow, and nothing is missed.
 */
import { FileSystem } from "@effect/platform"
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Console, Effect, Either, Layer, Logger, LogLevel, Schema, Stream } from "effect"
import * as Sqlite from "../layers/Sqlite.js"
import * as Test from "../layers/Test.js"
import { DocumentModel, Journal, Policy, Position, Processor, Reactor } from "../src/index.js"

const Account = DocumentModel.make("acme/account", {
  DEPOSIT: Schema.Struct({ cents: Schema.Positive.pipe(Schema.int()) })
})

const Balances = Processor.make("balances", {
  namespace: "balances",
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
        sql`
          INSERT INTO balances ${sql.insert({ account: strand.documentId, cents: input.cents })}
          ON CONFLICT (account) DO UPDATE SET cents = balances.cents + excluded.cents`
    })
  })
}).pipe(Processor.withPolicy(Policy.standard))

const deposit = (account: string, index: number, ...cents: ReadonlyArray<number>) =>
  Test.strand({
    documentId: account,
    documentType: "acme/account",
    from: index,
    operations: cents.map((each) => ({ type: "DEPOSIT", input: { cents: each } }))
  })

/** Waits until the processor has applied what a journal holds up to a position. */
const applied = (position: Position.Position) =>
  Effect.flatMap(Reactor.Reactor, ({ commits }) =>
    commits.pipe(
      Stream.takeUntil((commit) => commit.position >= position),
      Stream.runDrain
    ))

const program = Effect.gen(function*() {
  const journal = yield* Journal.Journal
  const sql = yield* SqlClient.SqlClient

  // All of an append is stored, or nothing. Its receipt says how far a reader has to be to have seen it.
  const receipt = yield* journal.append([deposit("ada", 0, 500, 250), deposit("grace", 0, 70_000)])
  yield* Console.log(`${receipt.appended} operations, up to position ${receipt.position}`)

  // Whoever does not know whether an append has come through appends again: what is there is not stored twice.
  const again = yield* journal.append([deposit("ada", 0, 500, 250)])
  yield* Console.log(`again: ${again.appended} appended, ${again.redelivered} were there`)

  // What is out of order is refused as a typed failure, also where many append at once.
  const outcomes = yield* Effect.all(
    [deposit("ada", 2, 100), deposit("edsger", 1, 1), deposit("grace", 1, 5), deposit("grace", 0, 6)].map((strand) =>
      Effect.either(journal.append([strand]))
    ),
    { concurrency: "unbounded" }
  )
  for (const outcome of outcomes) {
    yield* Console.log(Either.match(outcome, {
      onLeft: (failure) => `refused: ${failure.message}`,
      onRight: ({ position }) => `stored at position ${position}`
    }))
  }

  const { head } = yield* journal.bounds
  yield* applied(head)
  const rows = yield* sql<{ account: string; cents: number }>`SELECT account, cents FROM balances ORDER BY account`
  for (const { account, cents } of rows) yield* Console.log(`${account} ${(cents / 100).toFixed(2)}`)

  // A reader of one account: the database leaves out the others.
  const graces = yield* journal.strands(Position.origin, { filter: { documentId: ["grace"] } }).pipe(
    Stream.take(2),
    Stream.runFold(0, (sum, { operations }) => sum + operations.length)
  )
  yield* Console.log(`grace has ${graces} operations`)

  // What every cursor has passed may go.
  yield* Console.log(`truncated up to position ${yield* journal.truncate()} of ${head}`)
})

const layer = Layer.unwrapScoped(Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const filename = `${yield* files.makeTempDirectoryScoped()}/bank.db`
  return Reactor.layer(Balances).pipe(
    Layer.provideMerge(Journal.layer("bank")),
    Layer.provideMerge(Sqlite.layer({ filename }))
  )
}))

program.pipe(
  Effect.provide(layer),
  Effect.provide(NodeContext.layer),
  Logger.withMinimumLogLevel(LogLevel.Warning),
  NodeRuntime.runMain
)

/* It prints:

3 operations, up to position 3
again: 0 appended, 2 were there
stored at position 4
refused: DEPOSIT at index 1 of document edsger (global, main): index 0 is missing before it
stored at position 5
refused: DEPOSIT at index 0 of document grace (global, main): a different operation was applied at this index, and the document stands at 1
ada 8.50
grace 700.05
grace has 2 operations
truncated up to position 5 of 5

*/
