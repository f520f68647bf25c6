/**
 * The work that every throughput subject does: one row of a search index per operation, the last one of a key wins.
 */
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

export const createTable = `
  CREATE TABLE search_index (
    id TEXT PRIMARY KEY, document_id TEXT NOT NULL, content TEXT NOT NULL, updated_at TEXT NOT NULL
  ) WITHOUT ROWID`

/** Many rows in one statement: a JSON array of them is its only parameter. */
export const upsertMany = `
  INSERT INTO search_index (id, document_id, content, updated_at)
  SELECT value ->> 'id', value ->> 'document_id', value ->> 'content', value ->> 'updated_at' FROM json_each(?)
  WHERE TRUE
  ON CONFLICT (id) DO UPDATE SET content = excluded.content, updated_at = excluded.updated_at`

/** One row. */
export const upsertOne = `
  INSERT INTO search_index (id, document_id, content, updated_at) VALUES (?, ?, ?, ?)
  ON CONFLICT (id) DO UPDATE SET content = excluded.content, updated_at = excluded.updated_at`

/** Operations in a commit. */
export const batchOperations = 1_000
