/**
 * The framework's own tables: where each subscription stands, where each document stands, what was set
 * aside, and what is to be sent.
 *
 * processor_cursor       one row per (processor, source) and range of slices, the ranges side by side from slice 0 to 1,023, one
 *                        of all slices where the processor is not divided: the position after which it began, the last
 *                        committed position, how many commits led there, the epoch of the owner whose commits count, how many
 *                        dead letters wait, how many were ever written, and when the row was last claimed or moved. `ahead`
 *                        is a JSON list of [first slice, last slice, position] of slices that had come further than the row
 *                        when it was made of others, `replay_through` one of how far slices had come, and their operations
 *                        had been handled once, when they were projected anew in place; each is empty where there are none
 * processor_stream       one row per (processor, source, document, scope, branch) and page of 32 indexes: which operation was
 *                        applied at each of them, as 8 characters, blank where none was. The page with the highest index
 *                        goes by the number 2147483647 and has that index and its skip; on other pages these two are stale.
 *                        An operation that was left out has `!` for its first character. `history` says what survives of
 *                        the stream, on the newest page, where the processor asks for it
 * processor_state        one row per (processor, source, document, branch) whose state a processor wants: the state, as
 *                        JSON, that its model folds from the operations that survive
 * processor_dead_letter  one row per operation that was set aside. Its ordinal is n * 1,024 + s, s being the slice of its
 *                        document and n counting letters in the order of arrival at their range of slices
 * processor_outbox       one row per message that a handler has sent, by the id that its key gives it: the operation that it
 *                        was sent for and which of that operation's messages it is; whom it goes to; and what became of
 *                        it. Ordinals are in the order of sending. A settled one is remembered without its actions
 * processor_courier      one row: which process delivers what is in the outbox, and until when, by the database's clock
 */

import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"

export const up = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`
    CREATE TABLE processor_cursor (
      processor TEXT NOT NULL,
      source TEXT NOT NULL,
      first_slice INTEGER NOT NULL,
      last_slice INTEGER NOT NULL,
      start_position BIGINT NOT NULL,
      position BIGINT NOT NULL,
      sequence BIGINT NOT NULL,
      epoch BIGINT NOT NULL,
      parked INTEGER NOT NULL,
      letters BIGINT NOT NULL,
      ahead TEXT NOT NULL,
      replay_through TEXT NOT NULL,
      updated_at_ms BIGINT NOT NULL,
      PRIMARY KEY (processor, source, first_slice)
    )`
  // A newest page that has grown goes beside the one that it takes the place of, in what is left free: the index need not know.
  const storage = sql.onDialectOrElse({ sqlite: () => "WITHOUT ROWID", orElse: () => "WITH (fillfactor = 80)" })
  yield* sql`
    CREATE TABLE processor_stream (
      processor TEXT NOT NULL,
      source TEXT NOT NULL,
      document_id TEXT NOT NULL,
      scope TEXT NOT NULL,
      branch TEXT NOT NULL,
      page INTEGER NOT NULL,
      last_index INTEGER NOT NULL,
      last_skip INTEGER NOT NULL,
      history TEXT,
      slots TEXT NOT NULL,
      PRIMARY KEY (processor, source, document_id, scope, branch, page)
    ) ${sql.literal(storage)}`
  yield* sql`
    CREATE TABLE processor_state (
      processor TEXT NOT NULL,
      source TEXT NOT NULL,
      document_id TEXT NOT NULL,
      branch TEXT NOT NULL,
      state TEXT NOT NULL,
      PRIMARY KEY (processor, source, document_id, branch)
    )`
  yield* sql`
    CREATE TABLE processor_dead_letter (
      processor TEXT NOT NULL,
      source TEXT NOT NULL,
      ordinal BIGINT NOT NULL,
      position BIGINT NOT NULL,
      drive_id TEXT,
      document_id TEXT NOT NULL,
      document_type TEXT NOT NULL,
      scope TEXT NOT NULL,
      branch TEXT NOT NULL,
      op_index INTEGER NOT NULL,
      op_skip INTEGER NOT NULL,
      op_hash TEXT NOT NULL,
      protocol INTEGER NOT NULL,
      operation TEXT NOT NULL,
      cause TEXT NOT NULL,
      reason TEXT NOT NULL,
      attempts INTEGER NOT NULL,
      parked_at_ms BIGINT NOT NULL,
      PRIMARY KEY (processor, source, ordinal)
    )`
  yield* sql`
    CREATE INDEX processor_dead_letter_document
      ON processor_dead_letter (processor, source, document_id, ordinal)`
  yield* sql`
    CREATE TABLE processor_outbox (
      id TEXT NOT NULL PRIMARY KEY,
      processor TEXT NOT NULL,
      source TEXT NOT NULL,
      ordinal BIGINT NOT NULL,
      op_document_id TEXT NOT NULL,
      op_scope TEXT NOT NULL,
      op_branch TEXT NOT NULL,
      op_index INTEGER NOT NULL,
      op_skip INTEGER NOT NULL,
      op_hash TEXT NOT NULL,
      op_timestamp TEXT NOT NULL,
      nth INTEGER NOT NULL,
      document_id TEXT NOT NULL,
      scope TEXT NOT NULL,
      branch TEXT NOT NULL,
      actions TEXT NOT NULL,
      sent_at_ms BIGINT NOT NULL,
      state TEXT NOT NULL,
      attempts INTEGER NOT NULL,
      reason TEXT NOT NULL,
      due_at_ms BIGINT NOT NULL,
      settled_at_ms BIGINT,
      UNIQUE (processor, source, ordinal)
    )`
  // A number for each commit that sends, since several may at once; SQLite has one writer, and needs none.
  yield* sql.onDialectOrElse({
    sqlite: () => Effect.void,
    orElse: () => Effect.asVoid(sql`CREATE SEQUENCE processor_outbox_stamp`)
  })
  yield* sql`
    CREATE INDEX processor_outbox_open
      ON processor_outbox (processor, source, document_id, ordinal) WHERE settled_at_ms IS NULL`
  yield* sql`
    CREATE INDEX processor_outbox_settled
      ON processor_outbox (settled_at_ms) WHERE settled_at_ms IS NOT NULL`
  yield* sql`
    CREATE TABLE processor_courier (
      name TEXT NOT NULL PRIMARY KEY,
      holder TEXT NOT NULL,
      until_ms BIGINT NOT NULL
    )`
})

export const down = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`DROP TABLE processor_courier`
  yield* sql`DROP TABLE processor_outbox`
  yield* sql.onDialectOrElse({
    sqlite: () => Effect.void,
    orElse: () => Effect.asVoid(sql`DROP SEQUENCE processor_outbox_stamp`)
  })
  yield* sql`DROP TABLE processor_dead_letter`
  yield* sql`DROP TABLE processor_state`
  yield* sql`DROP TABLE processor_stream`
  yield* sql`DROP TABLE processor_cursor`
})
