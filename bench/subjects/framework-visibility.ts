/**
 * Ours: from the append to a journal until a processor that follows it has committed, and until its row can be read, both in
 * one database. The processor commits what there is, without waiting for more; its reactor tells of the commit.
 *
 *     node framework-visibility.js <strands.ndjson> <file or URL> many|table
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Redacted from "effect/Redacted"
import * as Runtime from "effect/Runtime"
import * as Stream from "effect/Stream"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import { Envelope, Journal, Migrator, Namespace, Reactor } from "../../src/index.js"
import { report } from "../support/Subject.js"
import { isPostgres, processorOf } from "./processor.js"
import type { How } from "./processor.js"
import * as Search from "./search.js"
import * as Visibility from "./visibility.js"

const [input = "", database = "", how = "many"] = process.argv.slice(2)

const store = isPostgres(database)
  ? Postgres.layer({ url: Redacted.make(database) })
  : Sqlite.layer({ filename: database })
/** As others find it: outside its namespace, the schema is part of its name. */
const table = isPostgres(database) ? `${Namespace.place(Namespace.make("bench"))}.search_index` : "search_index"
const processor = processorOf(how as How, database, Search.batchOperations, 0)

const measuring = Effect.gen(function*() {
  const started = performance.now()
  const journal = yield* Journal.Journal
  const reactor = yield* Reactor.Reactor
  const runtime = yield* Effect.runtime()
  const commits = new Visibility.Commits()
  yield* Effect.forkScoped(Stream.runForEachChunk(reactor.commits, (told) =>
    Effect.sync(() => {
      for (const { operations } of told) commits.tell(operations)
    })))
  yield* Effect.promise(async () => {
    const reader = await Visibility.reader(database, table)
    const { latency, operations } = await Visibility.measure(
      input,
      (strand) => Runtime.runPromise(runtime)(journal.append(Either.getOrThrow(Envelope.decode(strand)))),
      reader.find,
      commits
    )
    await report({ operations, commits: 2 * operations, started, latency }, reader.table)
    await reader.close()
  })
}).pipe(Effect.scoped)

/** The tables are there before the reader looks: a reactor makes them after its layer is there. */
const program = Effect.zipRight(
  Migrator.upAll([processor]),
  Effect.provide(measuring, Layer.provideMerge(Reactor.layer(processor), Journal.layer("bench")))
)

await Effect.runPromise(program.pipe(Effect.provide(store), Logger.withMinimumLogLevel(LogLevel.Warning)))
