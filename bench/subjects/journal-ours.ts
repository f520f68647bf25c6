/**
 * Ours, from a journal: the search index as a processor of so many partitions that follows a journal in the same database
 * from its beginning to its head.
 *
 *     node journal-ours.js <strands.ndjson> <file or URL> fill|"1 many"|"4 many"|"1 one"|"4 one"
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Stream from "effect/Stream"
import { Journal, Namespace, Reactor } from "../../src/index.js"
import { report } from "../support/Subject.js"
import * as Home from "./journal.js"
import { processorOf } from "./processor.js"
import type { How } from "./processor.js"
import * as Search from "./search.js"

const [input = "", database = "", how = ""] = process.argv.slice(2)

const run = async () => {
  const started = performance.now()
  const [partitions = "1", statements = "many"] = how.split(" ")
  const processor = {
    ...processorOf(statements as How, database, Search.batchOperations),
    partitions: Number(partitions)
  }
  const store = Home.storeOf(database)
  const journal = Layer.provideMerge(Journal.layer(Home.name), store)
  const program = Effect.gen(function*() {
    const { bounds } = yield* Journal.Journal
    const reactor = yield* Reactor.Reactor
    // Positions of a journal count its operations.
    const head = Number((yield* bounds).head)
    let operations = 0
    let commits = 0
    yield* reactor.commits.pipe(
      Stream.takeUntil((commit) => {
        operations += commit.operations
        if (commit.operations > 0) commits++
        return operations >= head
      }),
      Stream.runDrain
    )
    const table = Namespace.query(
      processor.namespace,
      Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe<Search.SearchRow>(Search.selectAll))
    )
    const context = yield* Effect.context<Namespace.Namespaces>()
    yield* Effect.promise(() =>
      report({ operations, commits, started }, () => Effect.runPromise(Effect.provide(table, context)))
    )
  })
  await Effect.runPromise(program.pipe(
    Effect.provide(Layer.provideMerge(Reactor.layer(processor), journal)),
    Logger.withMinimumLogLevel(LogLevel.Warning)
  ))
}

await (how === "fill" ? Home.fill(input, database) : run())
