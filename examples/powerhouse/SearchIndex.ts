/**
 * A search index: the words of every document, found by full text. FTS5 on SQLite, a tsvector with a GIN index on
 * PostgreSQL.
 *
 *     batch ──fold──▶ what each entry holds after it ──▶ 3 statements at most, however many operations
 *
 * An entry is one thing of one document. The thing is the input's `id` where it has one (text of 1 to 512 characters),
 * and the operation's type otherwise: SET_TITLE has one entry a document, ADD_COMMENT one a comment. The last operation
 * on a thing says what its entry holds:
 *
 * | operation                                    | the entry                                  |
 * | with text in its input                       | holds that text                            |
 * | DELETE_… or REMOVE_… with an `id`            | is gone                                    |
 * | DELETE_DOCUMENT                              | is gone, with all others of its document   |
 * | refused by the document's reducer (`error`)  | stays as it is, as does the document       |
 * | any other                                    | stays as it is                             |
 *
 * Text is every string value of the input at any depth, in order, except the input's own `id` and any single word that
 * a machine has made: one with `://` in it (a URL), or one of 16 or more characters with a digit among them (an id, a
 * hash, an address, a timestamp).
 *
 * An operation that a later one takes back (`skip`) leaves its words until the thing is written again.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import { Policy, Processor, Rows } from "../../src/index.js"
import type { Migration, Operation, Strand } from "../../src/index.js"

/** The longest text that an entry keeps, in UTF-16 code units; PostgreSQL's tsvector ends at a megabyte. */
export const contentMax = 100_000

const thingMax = 512

/**
 * On SQLite the entries are an ordinary table, which a key finds by its index, and FTS5 keeps only the inverted index
 * beside it ("external content"), joined by the table's integer key. An FTS5 table has no index on other columns, so an
 * upsert by (document, thing) into it alone would read it from end to end. The triggers hand FTS5 the text that is to
 * be forgotten, which it cannot look up itself once the row has changed, and keep the two together whoever writes.
 */
const createSqlite = (sql: SqlClient.SqlClient) =>
  Effect.all([
    sql`
      CREATE TABLE search_entry (
        entry_id INTEGER PRIMARY KEY,
        document_id TEXT NOT NULL,
        thing TEXT NOT NULL,
        document_type TEXT NOT NULL,
        content TEXT NOT NULL,
        UNIQUE (document_id, thing)
      )`,
    sql`
      CREATE VIRTUAL TABLE search_words USING fts5 (
        content, content = 'search_entry', content_rowid = 'entry_id', tokenize = 'unicode61 remove_diacritics 0'
      )`,
    sql`
      CREATE TRIGGER search_entry_insert AFTER INSERT ON search_entry BEGIN
        INSERT INTO search_words (rowid, content) VALUES (new.entry_id, new.content);
      END`,
    sql`
      CREATE TRIGGER search_entry_delete AFTER DELETE ON search_entry BEGIN
        INSERT INTO search_words (search_words, rowid, content) VALUES ('delete', old.entry_id, old.content);
      END`,
    sql`
      CREATE TRIGGER search_entry_update AFTER UPDATE ON search_entry BEGIN
        INSERT INTO search_words (search_words, rowid, content) VALUES ('delete', old.entry_id, old.content);
        INSERT INTO search_words (rowid, content) VALUES (new.entry_id, new.content);
      END`
  ], { discard: true })

const createPostgres = (sql: SqlClient.SqlClient) =>
  Effect.all([
    sql`
      CREATE TABLE search_entry (
        document_id TEXT NOT NULL,
        thing TEXT NOT NULL,
        document_type TEXT NOT NULL,
        content TEXT NOT NULL,
        words TSVECTOR GENERATED ALWAYS AS (to_tsvector('simple', content)) STORED,
        PRIMARY KEY (document_id, thing)
      )`,
    sql`CREATE INDEX search_entry_words ON search_entry USING GIN (words)`
  ], { discard: true })

const migrations: Migration.Migrations = {
  "0001_search_entry": {
    up: Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => sql.onDialectOrElse({ sqlite: () => createSqlite(sql), orElse: () => createPostgres(sql) })
    ),
    down: Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`DROP TABLE search_entry`
      yield* sql.onDialectOrElse({
        sqlite: () => Effect.asVoid(sql`DROP TABLE search_words`),
        orElse: () => Effect.void
      })
    })
  }
}

/** Follows every document of the branch `main`. */
export const SearchIndex = Processor.make("search-index", {
  namespace: "search",
  filter: { branch: ["main"] },
  migrations,
  handler: Effect.map(SqlClient.SqlClient, (sql) => Processor.onBatch((strands) => write(sql, fold(strands))))
}).pipe(Processor.withPolicy(Policy.standard))

/** What a batch makes of one document's entries: the text of each thing, or `undefined` where the thing is gone. */
interface Change {
  readonly documentType: string
  /** Whether the entries from before the batch are gone too. */
  isDeleted: boolean
  readonly things: Map<string, string | undefined>
}

const fold = (strands: ReadonlyArray<Strand.Strand>): ReadonlyMap<string, Change> => {
  const changes = new Map<string, Change>()
  for (const { documentId, documentType, operations } of strands) {
    const change = changes.get(documentId) ?? { documentType, isDeleted: false, things: new Map() }
    changes.set(documentId, change)
    for (const operation of operations) apply(change, operation)
  }
  return changes
}

const apply = (change: Change, operation: Operation.Operation): void => {
  if (operation.error !== undefined) return
  if (operation.type === "DELETE_DOCUMENT") {
    change.isDeleted = true
    change.things.clear()
    return
  }
  const id = idOf(operation.input)
  if (/^(DELETE|REMOVE)_/.test(operation.type)) {
    if (id !== undefined) change.things.set(id, undefined)
    return
  }
  const content = textOf(operation.input)
  if (content !== "") change.things.set(id ?? operation.type, content)
}

const idOf = (input: unknown): string | undefined => {
  if (typeof input !== "object" || input === null || !("id" in input) || typeof input.id !== "string") return undefined
  return input.id.length >= 1 && input.id.length <= thingMax ? input.id : undefined
}

const machineMade = /^(?:\S*:\/\/\S*|(?=\S*\d)\S{16,})$/

const textOf = (input: unknown): string => {
  const found: Array<string> = []
  const visit = (value: unknown): void => {
    if (typeof value === "string") {
      const text = value.trim()
      if (text !== "" && !machineMade.test(text)) found.push(text)
    } else if (typeof value === "object" && value !== null) {
      for (const [key, member] of Object.entries(value)) {
        if (value !== input || key !== "id") visit(member)
      }
    }
  }
  visit(input)
  // Cutting may halve a surrogate pair, which PostgreSQL refuses.
  return found.join("\n").slice(0, contentMax).toWellFormed()
}

const write = (sql: SqlClient.SqlClient, changes: ReadonlyMap<string, Change>): Effect.Effect<void, SqlError> => {
  const documents: Array<{ document_id: string }> = []
  const gone: Array<{ document_id: string; thing: string }> = []
  const entries: Array<{ document_id: string; thing: string; document_type: string; content: string }> = []
  for (const [document_id, { documentType: document_type, isDeleted, things }] of changes) {
    if (isDeleted) documents.push({ document_id })
    for (const [thing, content] of things) {
      if (content === undefined) gone.push({ document_id, thing })
      else entries.push({ document_id, thing, document_type, content })
    }
  }
  const text = "text" as const
  return Effect.all([
    documents.length === 0 ? Effect.void : sql`
      DELETE FROM search_entry
      WHERE document_id IN (SELECT document_id FROM ${Rows.table(sql, "incoming", { document_id: text }, documents)})`,
    gone.length === 0 ? Effect.void : sql`
      DELETE FROM search_entry
      WHERE (document_id, thing) IN (
        SELECT document_id, thing FROM ${Rows.table(sql, "incoming", { document_id: text, thing: text }, gone)})`,
    // SQLite takes ON CONFLICT after a SELECT for a join constraint unless the SELECT has a WHERE.
    entries.length === 0 ? Effect.void : sql`
      INSERT INTO search_entry (document_id, thing, document_type, content)
      SELECT document_id, thing, document_type, content
      FROM ${
      Rows.table(sql, "incoming", { document_id: text, thing: text, document_type: text, content: text }, entries)
    }
      WHERE TRUE
      ON CONFLICT (document_id, thing)
      DO UPDATE SET document_type = excluded.document_type, content = excluded.content`
  ], { discard: true })
}

export interface Found {
  readonly document_id: string
  readonly thing: string
  readonly document_type: string
  /** The text around the words. */
  readonly excerpt: string
}

/**
 * The entries that hold all of the words, the best first, at most `limit`. Words are plain text, never query syntax.
 */
export const search = (
  words: string,
  limit: number
): Effect.Effect<ReadonlyArray<Found>, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql.onDialectOrElse({
      sqlite: () =>
        sql<Found>`
          SELECT e.document_id, e.thing, e.document_type, snippet(search_words, 0, '', '', '…', 12) AS excerpt
          FROM search_words
          JOIN search_entry AS e ON e.entry_id = search_words.rowid
          WHERE search_words MATCH ${phrases(words)}
          ORDER BY bm25(search_words), e.document_id, e.thing
          LIMIT ${limit}`,
      orElse: () =>
        sql<Found>`
          SELECT document_id, thing, document_type,
            ts_headline('simple', content, query, 'StartSel="", StopSel="", MinWords=6, MaxWords=12') AS excerpt
          FROM search_entry, plainto_tsquery('simple', ${words}) AS query
          WHERE words @@ query
          ORDER BY ts_rank(words, query) DESC, document_id, thing
          LIMIT ${limit}`
    }))

/** How many entries hold all of the words. */
export const count = (words: string): Effect.Effect<number, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql.onDialectOrElse({
        sqlite: () =>
          sql<{ readonly n: number }>`SELECT count(*) AS n FROM search_words WHERE search_words MATCH ${
            phrases(words)
          }`,
        orElse: () =>
          sql<{ readonly n: number }>`
            SELECT count(*) AS n FROM search_entry WHERE words @@ plainto_tsquery('simple', ${words})`
      }),
      ([row]) => row?.n ?? 0
    ))

/** Each word as an FTS5 phrase; several phrases are ANDed. No words are one empty phrase, which nothing matches. */
const phrases = (words: string): string =>
  words.trim().split(/\s+/).map((word) => `"${word.replaceAll("\"", "\"\"")}"`).join(" ")
