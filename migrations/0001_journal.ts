/**
 * The tables of journals, kept apart from those of processors since a database may hold either without the other.
 *
 * processor_journal         one row a journal: its name, the position of its last operation, and the position up to which
 *                           strands were removed. Whoever appends or truncates holds this row
 * processor_journal_strand  one row per strand that was appended; `position` is that of its last operation, `last_hash` the
 *                           hash of it, `first_index` the index of its first one, `protocol` the rule by which its operations
 *                           take others back, and `operations` a JSON list
 */

import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"

export const up = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`
    CREATE TABLE processor_journal (
      id INTEGER NOT NULL PRIMARY KEY,
      name TEXT NOT NULL UNIQUE,
      head BIGINT NOT NULL,
      floor BIGINT NOT NULL
    )`
  yield* sql`
    CREATE TABLE processor_journal_strand (
      journal INTEGER NOT NULL,
      position BIGINT NOT NULL,
      drive_id TEXT,
      document_id TEXT NOT NULL,
      document_type TEXT NOT NULL,
      scope TEXT NOT NULL,
      branch TEXT NOT NULL,
      first_index INTEGER NOT NULL,
      last_hash TEXT NOT NULL,
      operation_count INTEGER NOT NULL,
      bytes INTEGER NOT NULL,
      protocol INTEGER NOT NULL,
      operations TEXT NOT NULL,
      PRIMARY KEY (journal, position)
    )`
  yield* sql`
    CREATE INDEX processor_journal_strand_stream
      ON processor_journal_strand (journal, document_id, scope, branch, first_index, position)`
  yield* sql`
    CREATE INDEX processor_journal_strand_type
      ON processor_journal_strand (journal, document_type, position)`
})

export const down = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`DROP TABLE processor_journal_strand`
  yield* sql`DROP TABLE processor_journal`
})
