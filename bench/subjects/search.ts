/**
 * The work that every subject does: one row of a search index per operation, the last one of a key wins.
 */
import { createHash } from "node:crypto"

export interface SearchRow {
  readonly id: string
  readonly document_id: string
  readonly content: string
  readonly updated_at: string
}

/** The row of one operation. */
export const rowOf = (
  documentId: string,
  operation: { readonly type: string; readonly timestamp: string; readonly input?: unknown }
): SearchRow => {
  const input = operation.input
  const thing = typeof input === "object" && input !== null && "id" in input && typeof input.id === "string"
    ? input.id
    : operation.type
  return {
    id: `${documentId}/${thing}`,
    document_id: documentId,
    content: JSON.stringify(input ?? null),
    updated_at: operation.timestamp
  }
}

/** The last row of each key: PostgreSQL takes each key only once in a statement. */
export const fold = (rows: ReadonlyArray<SearchRow>): ReadonlyArray<SearchRow> =>
  Array.from(new Map(rows.map((row) => [row.id, row])).values())

/** The statements, and how the rows of a batch become the parameters of one. */
export interface Statements {
  readonly createTable: string
  /** Many rows, each key once. */
  readonly upsertMany: string
  readonly many: (rows: ReadonlyArray<SearchRow>) => ReadonlyArray<unknown>
  readonly upsertOne: string
}

const columns = "id, document_id, content, updated_at"
const onConflict = "ON CONFLICT (id) DO UPDATE SET content = excluded.content, updated_at = excluded.updated_at"
const tableOf = (options: string) => `
  CREATE TABLE search_index (
    id TEXT PRIMARY KEY, document_id TEXT NOT NULL, content TEXT NOT NULL, updated_at TEXT NOT NULL
  )${options}`

export const sqlite: Statements = {
  createTable: tableOf(" WITHOUT ROWID"),
  upsertMany: `
    INSERT INTO search_index (${columns})
    SELECT value ->> 'id', value ->> 'document_id', value ->> 'content', value ->> 'updated_at' FROM json_each(?)
    WHERE TRUE ${onConflict}`,
  many: (rows) => [JSON.stringify(rows)],
  upsertOne: `INSERT INTO search_index (${columns}) VALUES (?, ?, ?, ?) ${onConflict}`
}

export const pg: Statements = {
  createTable: tableOf(""),
  upsertMany: `
    INSERT INTO search_index (${columns})
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) ${onConflict}`,
  many: (rows) => [
    rows.map((row) => row.id),
    rows.map((row) => row.document_id),
    rows.map((row) => row.content),
    rows.map((row) => row.updated_at)
  ],
  upsertOne: `INSERT INTO search_index (${columns}) VALUES ($1, $2, $3, $4) ${onConflict}`
}

/** The values of a row, in the order of the statements. */
export const one = (row: SearchRow): ReadonlyArray<string> => [row.id, row.document_id, row.content, row.updated_at]

/** All of the table, in no order. */
export const selectAll = `SELECT ${columns} FROM search_index`

/** Keys to look up one by one: up to 5,000 of the table's, spread over it. */
export const keysOf = (rows: Iterable<SearchRow>): ReadonlyArray<string> => {
  const keys = Array.from(rows, (row) => row.id)
  return Array.from({ length: Math.min(5_000, keys.length) }, (_, i) => keys[i * 7_919 % keys.length]!)
}

/** Operations in a commit. */
export const batchOperations = 1_000

/** What a table holds, told in short: two tables are the same when these are. */
export interface Digest {
  readonly rows: number
  readonly sha256: string
}

export const digestOf = (rows: Iterable<SearchRow>): Digest => {
  const texts = Array.from(rows, (row) => JSON.stringify(one({ ...row, content: inOneOrder(row.content) }))).sort()
  const hash = createHash("sha256")
  for (const text of texts) hash.update(text).update("\n")
  return { rows: texts.length, sha256: hash.digest("hex") }
}

/** JSON text with the keys of its objects sorted: a peer that keeps events as jsonb loses their order. */
const inOneOrder = (json: string): string =>
  JSON.stringify(
    JSON.parse(json),
    (_, value: unknown) =>
      typeof value === "object" && value !== null && !Array.isArray(value)
        ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1))
        : value
  )
