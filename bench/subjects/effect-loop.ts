/**
 * A loop by hand in Effect: the same lines, batches and statements as ours on the same layer, a cursor row in the same
 * transaction, and no engine. What ours costs beyond it is the engine; it checks nothing, like `by-hand.ts`.
 *
 *     node effect-loop.js <strands.ndjson> <file or URL>
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Strands from "../support/Strands.js"
import { report } from "../support/Subject.js"
import { databaseOf, statementsOf } from "./processor.js"
import * as Search from "./search.js"

const [input = "", database = ""] = process.argv.slice(2)
const { createTable, upsertOne } = statementsOf(database)

/** The rows of each batch, and the line that it comes to. */
async function* batches() {
  let rows: Array<Search.SearchRow> = []
  let line = 0
  for await (const strand of Strands.read(input)) {
    line++
    for (const operation of strand.operations) {
      rows.push(Search.rowOf(strand.documentId, operation))
      if (rows.length < Search.batchOperations) continue
      yield { rows, line }
      rows = []
    }
  }
  if (rows.length > 0) yield { rows, line }
}

const started = performance.now()
let operations = 0
let commits = 0

await Effect.runPromise(
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql.unsafe(createTable)
    yield* sql`CREATE TABLE cursor (source TEXT PRIMARY KEY, line INTEGER NOT NULL)`
    yield* sql`INSERT INTO cursor VALUES ('bench', 0)`
    const source = batches()
    for (;;) {
      const next = yield* Effect.promise(() => source.next())
      if (next.done === true) break
      const { line, rows } = next.value
      yield* sql.withTransaction(Effect.zipRight(
        Effect.forEach(rows, (row) => sql.unsafe(upsertOne, Search.one(row)), { discard: true }),
        sql`UPDATE cursor SET line = ${line} WHERE source = 'bench'`
      ))
      operations += rows.length
      commits++
    }
    const done = { operations, commits, started }
    yield* Effect.promise(() => report(done, () => Effect.runPromise(sql.unsafe<Search.SearchRow>(Search.selectAll))))
  }).pipe(Effect.provide(databaseOf(database)))
)
