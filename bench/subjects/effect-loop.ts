/**
 * A loop by hand in Effect: the same lines, batches and statements as ours on the same SQLite layer, a cursor row in the same
 * transaction, and no engine. What ours costs beyond it is the engine; it checks nothing, like `by-hand.ts`.
 *
 *     node effect-loop.js <strands.ndjson> <database>
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Sqlite from "../../layers/Sqlite.js"
import { lines } from "../support/Strands.js"
import type { RecordedStrand } from "../support/Strands.js"
import { report } from "../support/Subject.js"
import { batchOperations, createTable, rowOf, upsert } from "./search.js"
import type { SearchRow } from "./search.js"

const [input = "", filename = ""] = process.argv.slice(2)

/** The rows of each batch, and the line that it comes to. */
async function* batches() {
  let rows: Array<SearchRow> = []
  let line = 0
  for await (const text of lines(input)) {
    const strand = JSON.parse(text) as RecordedStrand
    line++
    for (const operation of strand.operations) {
      rows.push(rowOf(strand.documentId, operation))
      if (rows.length < batchOperations) continue
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
      if (next.done === true) return
      const { line, rows } = next.value
      yield* sql.withTransaction(Effect.zipRight(
        Effect.forEach(rows, (row) => upsert(sql, row), { discard: true }),
        sql`UPDATE cursor SET line = ${line} WHERE source = 'bench'`
      ))
      operations += rows.length
      commits++
    }
  }).pipe(Effect.provide(Sqlite.layer({ filename })))
)
report({ operations, commits, seconds: (performance.now() - started) / 1000 })
