/**
 * Tables: what the namespaces hold after a run, in a form that two of them, or one and a fold, can be compared in.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import { Namespace } from "../../src/index.js"
import type { Row, Tables } from "./fold.js"

const columns: { readonly [Table in keyof Tables]: ReadonlyArray<string> } = {
  search_entry: ["document_id", "thing", "document_type", "content"],
  drive_activity: ["day", "document_type", "document_id", "operations", "refused"],
  drive: ["drive_id", "name", "icon", "sharing_type", "available_offline"],
  drive_node: ["drive_id", "node_id", "parent_id", "kind", "name", "document_type"]
}

const namespaces: { readonly [Table in keyof Tables]: string } = {
  search_entry: "search",
  drive_activity: "analytics",
  drive: "node_tree",
  drive_node: "node_tree"
}

const names = Object.keys(columns) as ReadonlyArray<keyof Tables>

type Read<A> = Effect.Effect<A, SqlError | Namespace.NamespaceError, Namespace.Namespaces>

const rowsIn = (
  namespace: string,
  select: (sql: SqlClient.SqlClient) => Effect.Effect<ReadonlyArray<Row>, SqlError>
): Read<ReadonlyArray<Row>> => Namespace.query(namespace, Effect.flatMap(SqlClient.SqlClient, select))

/** Every row of the four tables. */
export const read: Read<Tables> = Effect.gen(function*() {
  const found = yield* Effect.forEach(names, (name) =>
    rowsIn(
      namespaces[name],
      (sql) => sql<Row>`SELECT ${sql.literal(columns[name].join(", "))} FROM ${sql(name)}`
    ))
  return sorted(Object.fromEntries(names.map((name, i) => [name, found[i] ?? []])) as unknown as Tables)
})

/** The same rows in one order, with their columns in one order. */
export const sorted = (tables: Tables): Tables =>
  Object.fromEntries(names.map((name) => [
    name,
    tables[name]
      .map((row) => Object.fromEntries(columns[name].map((column) => [column, row[column] ?? null])))
      .sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1))
  ])) as unknown as Tables

/** How many rows each table has: a check that a comparison compares something. */
export const sizes = (tables: Tables): { readonly [table: string]: number } =>
  Object.fromEntries(names.map((name) => [name, tables[name].length]))

/** The commits of each processor so far, over all its sources. */
export const commits: Read<ReadonlyArray<Row>> = Effect.map(
  Effect.forEach(["analytics", "node_tree", "search"], (namespace) =>
    rowsIn(namespace, (sql) =>
      sql<Row>`
        SELECT processor, source, CAST(sequence AS TEXT) AS commits, CAST(position AS TEXT) AS position, parked
        FROM processor_cursor ORDER BY processor, source`)),
  (found) => found.flat()
)

/** The dead letters of the search index, as text that identifies them, in one order. */
export const letters: Read<ReadonlyArray<Row>> = rowsIn("search", (sql) =>
  sql<Row>`
    SELECT document_id, document_type, scope, branch, op_index, op_skip, op_hash, cause, reason
    FROM processor_dead_letter WHERE processor = ${"search-index"} ORDER BY ordinal`)
