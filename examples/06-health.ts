/**
 * Health says whether a reactor does its work, and if not, what is wrong: every 30 seconds by itself, and whenever it is
 * asked.
 */
import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Console, Effect, Fiber, Layer, Logger, LogLevel, Schema, Stream } from "effect"
import * as Test from "../layers/Test.js"
import { DocumentModel, Health, Namespace, Policy, Processor, Reactor } from "../src/index.js"

const Meter = DocumentModel.make("acme/meter", { READ: Schema.Struct({ value: Schema.NonNegative }) })

const Readings = Processor.make("readings", {
  namespace: "readings",
  migrations: {
    "0001_readings": {
      up: Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql`CREATE TABLE readings (meter TEXT NOT NULL, value INTEGER NOT NULL)`
      ),
      down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE readings`)
    }
  },
  handler: Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    return Processor.onOperations(Meter, {
      READ: ({ input, strand }) =>
        sql`INSERT INTO readings ${sql.insert({ meter: strand.documentId, value: input.value })}`
    })
  })
}).pipe(Processor.withPolicy(Policy.standard))

const strands = [
  Test.strand({ documentId: "m1", documentType: "acme/meter", operations: [{ type: "READ", input: { value: 7 } }] }),
  Test.strand({ documentId: "m2", documentType: "acme/meter", operations: [{ type: "READ", input: { value: -1 } }] })
]

const show = (report: Health.Report) =>
  Console.log(
    report.isHealthy
      ? `healthy, though ${report.notices.join("; ")}`
      : `unhealthy: ${report.complaints.join("; ")}`
  )

const program = Effect.gen(function*() {
  const reactor = yield* Reactor.Reactor
  const health = yield* Health.Health
  yield* reactor.ended

  // The specs' `healthCheck`: does the database answer, and does it have this table?
  for (const table of ["readings", "raedings"]) {
    yield* Console.log(`healthCheck("${table}"): ${yield* health.healthCheck(table)}`)
  }

  yield* show(yield* health.check)

  // The report is a Subscribable: the last one, and every one from now on. An endpoint reads it, an alarm follows it.
  const alarm = yield* health.report.changes.pipe(
    Stream.filter((report) => report.tables.some(({ isPresent }) => !isPresent)),
    Stream.take(1),
    Stream.runForEach(show),
    Effect.fork
  )
  yield* Namespace.within("readings", Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE readings`))
  yield* health.check
  yield* Fiber.join(alarm)

  const { subscriptions } = yield* health.report.get
  for (const { behindPositions, phase, processor } of subscriptions) {
    yield* Console.log(`${processor} has ${phase}, ${behindPositions} positions behind its source`)
  }
})

program.pipe(
  Effect.provide(
    Health.layer({ tables: { readings: ["readings"] }, every: "30 seconds" }).pipe(
      Layer.provideMerge(Reactor.layer(Readings)),
      Layer.provideMerge(Test.layer(strands))
    )
  ),
  Logger.withMinimumLogLevel(LogLevel.None),
  NodeRuntime.runMain
)

/* It prints:

healthCheck("readings"): true
healthCheck("raedings"): false
healthy, though readings on test has 1 dead letter
unhealthy: table readings is missing
readings has ended, 0 positions behind its source

*/
