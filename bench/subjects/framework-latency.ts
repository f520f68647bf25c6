/**
 * Ours: how long each commit of a subscription takes, from before BEGIN to the answer to COMMIT, and each read of a row
 * through `SqlClient`.
 *
 *     node framework-latency.js <strands.ndjson> <file or URL> "<operations in a commit> [many|table]"
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Runtime from "effect/Runtime"
import * as Stream from "effect/Stream"
import { Migrator, Ndjson, Subscription } from "../../src/index.js"
import * as Effort from "../support/Effort.js"
import * as Quantiles from "../support/Quantiles.js"
import { report } from "../support/Subject.js"
import { databaseOf, isPostgres, processorOf } from "./processor.js"
import type { How } from "./processor.js"
import * as Search from "./search.js"

const [input = "", database = "", how = "1"] = process.argv.slice(2)
const [batchOperations, handler = "many"] = how.split(" ")

const commitMillis: Array<number> = []

const timed = <A, E, R>(millis: Array<number>, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    const begun = performance.now()
    return Effect.tap(self, () => {
      millis.push(performance.now() - begun)
    })
  })

const reads = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const keys = Search.keysOf(yield* sql.unsafe<Search.SearchRow>(Search.selectAll))
  const find = `${Search.selectAll} WHERE id = ${isPostgres(database) ? "$1" : "?"}`
  const millis: Array<number> = []
  yield* Effect.forEach(keys, (key) =>
    Effect.map(timed(millis, sql.unsafe<Search.SearchRow>(find, [key])), ([row]) => {
      if (row?.id !== key) throw new Error(`${key} is not in the table`)
    }), { discard: true })
  return Quantiles.make(millis)
})

const program = Effect.gen(function*() {
  const started = performance.now()
  const search = processorOf(handler as How, database, Number(batchOperations))
  yield* Migrator.prepare
  yield* Migrator.upAll([search])
  const turn = <A, E, R>(commit: Effect.Effect<A, E, R>) => timed(commitMillis, commit)
  let operations = 0
  let commits = 0
  yield* Stream.runForEach(Subscription.commits(search, { turn }), (commit) =>
    Effect.sync(() => {
      operations += commit.operations + commit.redelivered
      commits++
    }))
  const latency = { commit: Quantiles.make(commitMillis, Effort.countedCommits), read: yield* reads }
  const runtime = yield* Effect.runtime<SqlClient.SqlClient>()
  const table = Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe<Search.SearchRow>(Search.selectAll))
  yield* Effect.promise(() =>
    report({ operations, commits, started, latency }, () => Runtime.runPromise(runtime)(table))
  )
})

await Effect.runPromise(program.pipe(
  Effect.provide(Layer.merge(databaseOf(database), Ndjson.layer({ name: "bench", files: [input] }))),
  Logger.withMinimumLogLevel(LogLevel.Warning)
))
