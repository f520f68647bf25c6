/**
 * Ours: the search index as a processor, on the layers with their default durability: SQLite with WAL and synchronous=FULL,
 * PostgreSQL with the server's own.
 *
 *     node framework.js <strands.ndjson> <file or URL> many|one|table|tableMany
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import { Ndjson, Pulse, Reactor } from "../../src/index.js"
import { report } from "../support/Subject.js"
import { databaseOf, processorOf } from "./processor.js"
import type { How } from "./processor.js"
import * as Search from "./search.js"

const [input = "", database = "", how = "many"] = process.argv.slice(2)

const started = performance.now()
const program = Effect.gen(function*() {
  const [outcome] = yield* Reactor.run(processorOf(how as How, database, Search.batchOperations))
  if (outcome === undefined || outcome.phase !== "ended") {
    return yield* Effect.dieMessage(`the subscription is ${outcome?.phase}: ${outcome && Pulse.inWords(outcome)}`)
  }
  const sql = yield* SqlClient.SqlClient
  yield* Effect.promise(() =>
    report({
      operations: outcome.totals.operations + outcome.totals.redelivered,
      commits: outcome.totals.commits,
      started
    }, () => Effect.runPromise(sql.unsafe<Search.SearchRow>(Search.selectAll)))
  )
})

await Effect.runPromise(program.pipe(
  Effect.provide(Layer.merge(databaseOf(database), Ndjson.layer({ name: "bench", files: [input] }))),
  Logger.withMinimumLogLevel(LogLevel.Warning)
))
