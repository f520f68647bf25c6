/**
 * The processor of every subject that is ours, and the layer of the database that it is given.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import { Namespace, Policy, Processor, Table } from "../../src/index.js"
import type { StoreUnavailable } from "../../src/index.js"
import * as Search from "./search.js"

export const isPostgres = (database: string): boolean => database.startsWith("postgres")

export const statementsOf = (database: string): Search.Statements => isPostgres(database) ? Search.pg : Search.sqlite

/** The namespace of every subject, as a schema of a URL or as all of a file, by the layers' defaults. */
export const databaseOf = (
  database: string
): Layer.Layer<
  SqlClient.SqlClient | Namespace.Namespaces,
  StoreUnavailable.StoreUnavailable | ConfigError.ConfigError | Namespace.OpenError
> =>
  Layer.provideMerge(
    Namespace.layer("bench"),
    isPostgres(database) ? Postgres.layer({ url: Redacted.make(database) }) : Sqlite.layer({ filename: database })
  )

/** One statement for all operations of a commit, or one for each; a table operation for each, or one for all. */
export type How = "many" | "one" | "table" | "tableMany"

const SearchIndex = Table.make(
  "search_index",
  Schema.Struct({ id: Schema.String, document_id: Schema.String, content: Schema.String, updated_at: Schema.String }),
  { key: ["id"] }
)

/** The search index. */
export const processorOf = (
  how: How,
  database: string,
  batchOperations: number,
  lingerMillis = 20
): Processor.Processor<never, SqlClient.SqlClient> => {
  const { createTable, many, upsertMany, upsertOne } = statementsOf(database)
  return Processor.make("search", {
    namespace: "bench",
    batch: { operations: batchOperations, bytes: 256 * 1024 * 1024, lingerMillis },
    migrations: {
      "0001_search": {
        up: Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(createTable)),
        down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE search_index`)
      }
    },
    handler: Effect.map(SqlClient.SqlClient, (sql) =>
      Processor.onBatch((strands) => {
        const rows = strands.flatMap((strand) =>
          strand.operations.map((operation) => Search.rowOf(strand.documentId, operation))
        )
        const done: Effect.Effect<unknown, SqlError, SqlClient.SqlClient> = how === "table"
          ? Effect.forEach(rows, SearchIndex.upsert, { discard: true })
          : how === "tableMany"
          ? SearchIndex.upsertAll(rows)
          : how === "many"
          ? sql.unsafe(upsertMany, many(Search.fold(rows)))
          : Effect.forEach(rows, (row) => sql.unsafe(upsertOne, Search.one(row)), { discard: true })
        return done
      }))
  }).pipe(Processor.withPolicy(Policy.standard))
}
