/**
 * A processor says in which namespace it writes and never in which database: a Layer does, so that the namespace is in memory
 * in a test, a SQLite file on a laptop, and a schema of PostgreSQL where `DATABASE_URL` names one.
 */
import { FileSystem } from "@effect/platform"
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Config, Console, Effect, Layer, Logger, LogLevel, Option, Schema } from "effect"
import * as Postgres from "../layers/Postgres.js"
import * as Sqlite from "../layers/Sqlite.js"
import * as Test from "../layers/Test.js"
import { DocumentModel, Namespace, Policy, Processor, Reactor, Source } from "../src/index.js"

const Account = DocumentModel.make("acme/account", {
  DEPOSIT: Schema.Struct({ cents: Schema.Positive.pipe(Schema.int()) }),
  WITHDRAW: Schema.Struct({ cents: Schema.Positive.pipe(Schema.int()) })
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
    const book = (account: string, cents: number) =>
      sql`
        INSERT INTO balances ${sql.insert({ account, cents })}
        ON CONFLICT (account) DO UPDATE SET cents = balances.cents + excluded.cents`
    return Processor.onOperations(Account, {
      DEPOSIT: ({ input, strand }) => book(strand.documentId, input.cents),
      WITHDRAW: ({ input, strand }) => book(strand.documentId, -input.cents)
    })
  })
}).pipe(Processor.withPolicy(Policy.standard))

const balances = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<{ account: string; cents: number }>`SELECT account, cents FROM balances ORDER BY account`
)

// What the program does, in need of namespaces and a source: `Effect<void, …, Namespaces | Source>`.
const follow = Effect.gen(function*() {
  const [outcome] = yield* Reactor.run(Balances)
  const rows = yield* Namespace.query("balances", balances)
  yield* Console.log(`  ${outcome?.totals.operations} operations applied`)
  for (const { account, cents } of rows) yield* Console.log(`  ${account} ${(cents / 100).toFixed(2)}`)
})

const strand = (account: string, ...amounts: ReadonlyArray<number>) =>
  Test.strand({
    documentId: account,
    documentType: "acme/account",
    operations: amounts.map((cents) => ({
      type: cents > 0 ? "DEPOSIT" : "WITHDRAW",
      input: { cents: Math.abs(cents) }
    }))
  })

// A test: nothing to install, nothing left behind.
const inTest = follow.pipe(Effect.provide(Test.layer([strand("ada", 500, -150)])))

// Production: PostgreSQL where its URL is set, and otherwise a file for each namespace in the directory.
const database = (directory: string) =>
  Config.redacted("DATABASE_URL").pipe(
    Config.option,
    Effect.map(Option.match({
      onNone: () => Sqlite.layerDirectory({ directory }),
      onSome: (url) => Postgres.layer({ url })
    })),
    Layer.unwrapEffect
  )

const inProduction = (directory: string) =>
  follow.pipe(
    Effect.provide(Layer.merge(
      database(directory),
      Source.layerIterable("bank", [strand("ada", 500, -150), strand("grace", 70_000)])
    ))
  )

const program = Effect.gen(function*() {
  yield* Console.log("in a test:")
  yield* inTest

  const files = yield* FileSystem.FileSystem
  const directory = yield* files.makeTempDirectoryScoped()
  yield* Console.log("in production:")
  yield* inProduction(directory)
  yield* Console.log("in production, started again:")
  yield* inProduction(directory)
})

program.pipe(
  Effect.scoped,
  Effect.provide(NodeContext.layer),
  Logger.withMinimumLogLevel(LogLevel.Warning),
  NodeRuntime.runMain
)

/* It prints:

in a test:
  2 operations applied
  ada 3.50
in production:
  3 operations applied
  ada 3.50
  grace 700.00
in production, started again:
  0 operations applied
  ada 3.50
  grace 700.00

*/
