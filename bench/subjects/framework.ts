/**
 * Ours: the search index as a processor, on the SQLite layer with its default durability (WAL, synchronous=FULL).
 *
 *     node framework.js <strands.ndjson> <database> many|one
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Sqlite from "../../layers/Sqlite.js"
import { Ndjson, Policy, Processor, Reactor } from "../../src/index.js"
import { report } from "../support/Subject.js"
import { batchOperations, createTable, rowOf, upsertMany, upsertOne } from "./search.js"

const [input = "", filename = "", how = "many"] = process.argv.slice(2)

const search = Processor.make("search", {
  namespace: "bench",
  batch: { operations: batchOperations, bytes: 256 * 1024 * 1024, lingerMillis: 20 },
  migrations: {
    "0001_search": {
      up: Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(createTable)),
      down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE search_index`)
    }
  },
  handler: Effect.map(SqlClient.SqlClient, (sql) =>
    Processor.onBatch((strands) => {
      const rows = strands.flatMap((strand) =>
        strand.operations.map((operation) => rowOf(strand.documentId, operation))
      )
      return how === "many"
        ? sql.unsafe(upsertMany, [JSON.stringify(rows)])
        : Effect.forEach(rows, (row) => sql.unsafe(upsertOne, [row.id, row.document_id, row.content, row.updated_at]), {
          discard: true
        })
    }))
}).pipe(Processor.withPolicy(Policy.standard))

const started = performance.now()
const [outcome] = await Effect.runPromise(
  Reactor.run(search).pipe(
    Effect.provide(Layer.merge(Sqlite.layer({ filename }), Ndjson.layer({ name: "bench", files: [input] })))
  )
)
if (outcome?.phase !== "ended") throw new Error(`the subscription ${outcome?.phase}: ${String(outcome?.failure)}`)
report({
  operations: outcome.totals.operations + outcome.totals.redelivered,
  commits: outcome.totals.commits,
  seconds: (performance.now() - started) / 1000
})
