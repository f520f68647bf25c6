/**
 * An outbox: the messages that a namespace's processors have sent, until they are delivered, and their ids for a while after.
 *
 *     commit ─▶ waiting ──▶ delivered ──▶ remembered for a week, then gone
 *                 │  ▲          ▲
 *       refused for good │ retry    │
 *                 ▼  │      drop │
 *               refused ────────▶ dropped
 *
 *     Outbox.summary               how much waits, and since when
 *     Outbox.list({ state })       what waits, was refused, or is remembered
 *     Outbox.retry(id)             a refused message is delivered again
 *     Outbox.drop(id)              one message is given up, for good
 *
 * They are those of the namespace whose client is in the context: `Namespace.query("todos", Outbox.summary)`, and
 * `Namespace.within` for the last two.
 *
 * Invariants: an id is written once, and as long as it is remembered never again; messages of one processor on one source
 * for one document are a lane, in which none is delivered before those that are there with lower ordinals.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { createHash } from "node:crypto"
import type { Message, Outbound } from "../process/Dispatcher.js"
import * as Rows from "./Rows.js"

export type State = "waiting" | "refused" | "delivered" | "dropped"

/** A message and what became of it. */
export interface Entry extends Message {
  /** Orders it among those that were sent on the same cursor; says nothing else. */
  readonly ordinal: bigint
  readonly state: State
  /** How often delivering it came to nothing. */
  readonly attempts: number
  /** Why, the last time; empty if it never did. */
  readonly reason: string
}

/** There is no such message, or it is not in a state in which that can be done. */
export class NoSuchMessage extends Data.TaggedError("NoSuchMessage")<{ readonly id: string }> {
  override get message(): string {
    return `the outbox has no message ${this.id} of which that can be said`
  }
}

/** What tells a message from all others, however often its operation is handled. */
export interface Identity extends Pick<Message, "processor" | "source" | "nth"> {
  readonly cause: Omit<Message["cause"], "timestamp">
}

/** The UUID of a message: of its whole key, so that it can be made anew from the operation alone. */
export const idOf = ({ cause, nth, processor, source }: Identity): string =>
  uuidOf([processor, source, cause.documentId, cause.scope, cause.branch, cause.index, cause.skip, cause.hash, nth])

/** The UUID of one of a message's actions. */
export const actionIdOf = (messageId: string, place: number): string => uuidOf([messageId, place])

/** Version 8: 122 bits of a SHA-256, in RFC 9562's form. */
const uuidOf = (parts: ReadonlyArray<string | number>): string => {
  const bytes = createHash("sha256").update(JSON.stringify(parts)).digest().subarray(0, 16)
  bytes[6] = (bytes[6]! & 0x0f) | 0x80
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  const hex = bytes.toString("hex")
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-")
}

/** The most messages of one commit. */
export const placesMax = 1 << 20

/**
 * A number for the messages of one commit, above those of all commits before it on its cursor. Commits on several cursors may
 * be at it at once, and order between those there is none.
 */
export const stamp: Effect.Effect<bigint, SqlError, SqlClient.SqlClient> = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    Effect.map(
      sql.onDialectOrElse({
        sqlite: () =>
          sql<{ readonly stamp: string }>`
            SELECT CAST(COALESCE(MAX(ordinal), 0) / ${placesMax} + 1 AS TEXT) AS stamp FROM processor_outbox`,
        orElse: () => sql<{ readonly stamp: string }>`SELECT CAST(nextval('processor_outbox_stamp') AS TEXT) AS stamp`
      }),
      ([row]) => BigInt(row?.stamp ?? 0)
    )
)

/** The ordinal of a message: its commit's stamp, and which of the commit's messages it is. */
export const ordinalOf = (stamped: bigint, place: number): bigint => stamped * BigInt(placesMax) + BigInt(place)

/** A message on its way into the outbox. */
export type Fresh = Omit<Entry, "state" | "attempts" | "reason">

/** Rows sent in one statement, at most, and the length of their actions beyond which no further row is added. */
const writeMax = { rows: 500, length: 4 * 1024 * 1024 }

/** Writes messages, but for those whose id is there already. */
export const write = (messages: ReadonlyArray<Fresh>): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  messages.length === 0 ? Effect.void : Effect.gen(function*() {
    const rows = messages.map(toRow)
    for (let at = 0; at < rows.length;) {
      const from = at
      for (let length = 0; at < rows.length && at - from < writeMax.rows && length < writeMax.length; at++) {
        length += rows[at]!.actions.length
      }
      yield* writeRows(rows.slice(from, at))
    }
  })

const toRow = (message: Fresh) => ({
  id: message.id,
  processor: message.processor,
  source: message.source,
  ordinal: String(message.ordinal),
  op_document_id: message.cause.documentId,
  op_scope: message.cause.scope,
  op_branch: message.cause.branch,
  op_index: message.cause.index,
  op_skip: message.cause.skip,
  op_hash: message.cause.hash,
  op_timestamp: message.cause.timestamp,
  nth: message.nth,
  document_id: message.documentId,
  scope: message.scope,
  branch: message.branch,
  actions: JSON.stringify(message.actions),
  sent_at_ms: String(message.sentAtMillis)
})

const columns = {
  id: "text",
  processor: "text",
  source: "text",
  ordinal: "text",
  op_document_id: "text",
  op_scope: "text",
  op_branch: "text",
  op_index: "integer",
  op_skip: "integer",
  op_hash: "text",
  op_timestamp: "text",
  nth: "integer",
  document_id: "text",
  scope: "text",
  branch: "text",
  actions: "text",
  sent_at_ms: "text"
} as const

const writeRows = (rows: ReadonlyArray<ReturnType<typeof toRow>>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql`
      INSERT INTO processor_outbox
        (id, processor, source, ordinal, op_document_id, op_scope, op_branch, op_index, op_skip, op_hash, op_timestamp,
         nth, document_id, scope, branch, actions, sent_at_ms, state, attempts, reason, due_at_ms)
      SELECT id, processor, source, CAST(ordinal AS BIGINT), op_document_id, op_scope, op_branch, op_index, op_skip,
        op_hash, op_timestamp, nth, document_id, scope, branch, actions, CAST(sent_at_ms AS BIGINT), 'waiting', 0, '', 0
      FROM ${Rows.table(sql, "fresh", columns, rows)}
      WHERE TRUE
      ON CONFLICT (id) DO NOTHING`)

/** The database's clock in milliseconds since 1970, as an expression. */
export const now = (sql: SqlClient.SqlClient) =>
  sql.literal(sql.onDialectOrElse({
    sqlite: () => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
    orElse: () => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
  }))

interface Row extends Omit<ReturnType<typeof toRow>, "sent_at_ms"> {
  readonly sent_at_ms: string
  readonly state: State
  readonly attempts: number
  readonly reason: string
}

const select = `o.id, o.processor, o.source, CAST(o.ordinal AS TEXT) AS ordinal, o.op_document_id, o.op_scope,
  o.op_branch, o.op_index, o.op_skip, o.op_hash, o.op_timestamp, o.nth, o.document_id, o.scope, o.branch, o.actions,
  CAST(o.sent_at_ms AS TEXT) AS sent_at_ms, o.state, o.attempts, o.reason`

const fromRow = (row: Row): Entry => ({
  id: row.id,
  processor: row.processor,
  source: row.source,
  ordinal: BigInt(row.ordinal),
  cause: {
    documentId: row.op_document_id,
    scope: row.op_scope,
    branch: row.op_branch,
    index: row.op_index,
    skip: row.op_skip,
    hash: row.op_hash,
    timestamp: row.op_timestamp
  },
  nth: row.nth,
  documentId: row.document_id,
  scope: row.scope,
  branch: row.branch,
  actions: JSON.parse(row.actions) as ReadonlyArray<Outbound>,
  sentAtMillis: Number(row.sent_at_ms),
  state: row.state,
  attempts: row.attempts,
  reason: row.reason
})

/** Whether a message was ever sent here, as far as is remembered. */
export const isUsed: Effect.Effect<boolean, SqlError, SqlClient.SqlClient> = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => Effect.map(sql`SELECT 1 FROM processor_outbox LIMIT 1`, (rows) => rows.length > 0)
)

/** The first message of a lane, and how many the lane has. */
export interface Lane {
  readonly first: Entry
  readonly messages: number
}

/** Lanes whose first message may be delivered now, the longest waiting ones first. At most `limit`. */
export const lanes = (limit: number): Effect.Effect<ReadonlyArray<Lane>, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<Row & { readonly messages: number }>`
        SELECT ${sql.literal(select)}, CAST(lane.messages AS INTEGER) AS messages
        FROM (
          SELECT processor, source, document_id, MIN(ordinal) AS ordinal, COUNT(*) AS messages
          FROM processor_outbox WHERE settled_at_ms IS NULL
          GROUP BY processor, source, document_id
        ) AS lane
        JOIN processor_outbox AS o
          ON o.processor = lane.processor AND o.source = lane.source AND o.ordinal = lane.ordinal
        WHERE o.state = 'waiting' AND o.due_at_ms <= ${now(sql)}
        ORDER BY o.due_at_ms, o.sent_at_ms, o.ordinal
        LIMIT ${limit}`,
      (rows) => rows.map((row) => ({ first: fromRow(row), messages: row.messages }))
    ))

/** In how many milliseconds the next lane is due that waits after a failure; `undefined` if none does. */
export const nextDue: Effect.Effect<number | undefined, SqlError, SqlClient.SqlClient> = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    Effect.map(
      sql<{ readonly due: string | null }>`
        SELECT CAST(MIN(due_at_ms) - ${now(sql)} AS TEXT) AS due FROM processor_outbox
        WHERE settled_at_ms IS NULL AND state = 'waiting' AND due_at_ms > ${now(sql)}`,
      ([row]) => row === undefined || row.due === null ? undefined : Number(row.due)
    )
)

/** The messages of a lane behind one of them, in order. At most `limit`. */
export const behind = (
  { documentId, ordinal, processor, source }: Entry,
  limit: number
): Effect.Effect<ReadonlyArray<Entry>, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<Row>`
        SELECT ${sql.literal(select)} FROM processor_outbox AS o
        WHERE o.processor = ${processor} AND o.source = ${source} AND o.document_id = ${documentId}
          AND o.ordinal > ${ordinal} AND o.settled_at_ms IS NULL
        ORDER BY o.ordinal
        LIMIT ${limit}`,
      (rows) => rows.map(fromRow)
    ))

/** Marks a message as delivered; its actions are needed no more. */
export const delivered = (id: string): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.asVoid(sql`
      UPDATE processor_outbox SET state = 'delivered', actions = '[]', settled_at_ms = ${now(sql)}
      WHERE id = ${id} AND settled_at_ms IS NULL`))

/** Notes that delivering came to nothing; the lane is due again after a pause. */
export const postpone = (
  id: string,
  reason: string,
  pauseMillis: number
): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.asVoid(sql`
      UPDATE processor_outbox
      SET attempts = attempts + 1, reason = ${clean(reason)}, due_at_ms = ${now(sql)} + CAST(${pauseMillis} AS BIGINT)
      WHERE id = ${id} AND state = 'waiting'`))

/** Sets a message aside that will never be taken as it is; its lane waits behind it. */
export const setAside = (id: string, reason: string): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.asVoid(sql`
      UPDATE processor_outbox SET state = 'refused', attempts = attempts + 1, reason = ${clean(reason)}
      WHERE id = ${id} AND state = 'waiting'`))

/** Forgets messages that were settled longer ago. At most a thousand; returns how many. */
export const forget = (olderThanMillis: number): Effect.Effect<number, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql`
        DELETE FROM processor_outbox WHERE id IN (
          SELECT id FROM processor_outbox WHERE settled_at_ms < ${now(sql)} - CAST(${olderThanMillis} AS BIGINT)
          ORDER BY settled_at_ms LIMIT 1000
        ) RETURNING id`,
      (rows) => rows.length
    ))

/**
 * Makes `holder` the one who delivers from this outbox for the next `leaseMillis`, unless somebody else is. Who already is
 * holds on.
 */
export const claim = (
  holder: string,
  leaseMillis: number
): Effect.Effect<boolean, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql`
        INSERT INTO processor_courier (name, holder, until_ms)
        VALUES ('outbox', ${holder}, ${now(sql)} + CAST(${leaseMillis} AS BIGINT))
        ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms
        WHERE processor_courier.holder = excluded.holder OR processor_courier.until_ms < ${now(sql)}
        RETURNING holder`,
      (rows) => rows.length > 0
    ))

/** Lets somebody else deliver. */
export const release = (holder: string): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => Effect.asVoid(sql`UPDATE processor_courier SET until_ms = 0 WHERE name = 'outbox' AND holder = ${holder}`)
  )

/** How an outbox stands. */
export interface Summary {
  /** Messages that are neither delivered nor given up, those included that were refused and those behind them. */
  readonly undelivered: number
  readonly refused: number
  /** When the first of them was sent that is not behind a refused one, in milliseconds since 1970. */
  readonly oldestSentAtMillis: number | undefined
}

/** How much waits, and since when. */
export const summary: Effect.Effect<Summary, SqlError, SqlClient.SqlClient> = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    Effect.map(
      sql<{ readonly undelivered: number; readonly refused: number; readonly oldest: string | null }>`
        SELECT CAST(COUNT(*) AS INTEGER) AS undelivered,
          CAST(COALESCE(SUM(CASE WHEN o.state = 'refused' THEN 1 ELSE 0 END), 0) AS INTEGER) AS refused,
          CAST(MIN(CASE WHEN NOT EXISTS (
            SELECT 1 FROM processor_outbox AS r
            WHERE r.settled_at_ms IS NULL AND r.state = 'refused' AND r.processor = o.processor
              AND r.source = o.source AND r.document_id = o.document_id
          ) THEN o.sent_at_ms END) AS TEXT) AS oldest
        FROM processor_outbox AS o WHERE o.settled_at_ms IS NULL`,
      ([row]) => ({
        undelivered: row?.undelivered ?? 0,
        refused: row?.refused ?? 0,
        oldestSentAtMillis: row === undefined || row.oldest === null ? undefined : Number(row.oldest)
      })
    )
)

/** Which messages to read. */
export interface Selection {
  readonly processor?: string | undefined
  readonly source?: string | undefined
  /** The document that they are for. */
  readonly documentId?: string | undefined
  readonly state?: State | undefined
  readonly id?: string | undefined
  /** At most so many, in the order of sending; 1,000 when left out. */
  readonly limit?: number | undefined
}

/** Messages in the order of sending, processor by processor. Those that are settled have lost their actions. */
export const list = (
  selection: Selection = {}
): Effect.Effect<ReadonlyArray<Entry>, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<Row>`
        SELECT ${sql.literal(select)} FROM processor_outbox AS o
        WHERE ${
        sql.and([
          sql`TRUE`,
          ...(selection.id === undefined ? [] : [sql`o.id = ${selection.id}`]),
          ...(selection.processor === undefined ? [] : [sql`o.processor = ${selection.processor}`]),
          ...(selection.source === undefined ? [] : [sql`o.source = ${selection.source}`]),
          ...(selection.documentId === undefined ? [] : [sql`o.document_id = ${selection.documentId}`]),
          ...(selection.state === undefined ? [] : [sql`o.state = ${selection.state}`])
        ])
      }
        ORDER BY o.processor, o.source, o.ordinal
        LIMIT ${selection.limit ?? 1_000}`,
      (rows) => rows.map(fromRow)
    ))

/** Has a refused message delivered again, and then those that waited behind it. */
export const retry = (id: string): Effect.Effect<void, NoSuchMessage | SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    one(
      id,
      sql`UPDATE processor_outbox SET state = 'waiting', due_at_ms = 0 WHERE id = ${id} AND state = 'refused'
          RETURNING id`
    ))

/**
 * Gives up a message that was not delivered; what waited behind it goes on. It may be on its way at this moment, and arrive
 * all the same.
 */
export const drop = (id: string): Effect.Effect<void, NoSuchMessage | SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    one(
      id,
      sql`UPDATE processor_outbox SET state = 'dropped', actions = '[]', settled_at_ms = ${now(sql)}
          WHERE id = ${id} AND settled_at_ms IS NULL RETURNING id`
    ))

const one = (
  id: string,
  update: Effect.Effect<ReadonlyArray<unknown>, SqlError>
): Effect.Effect<void, NoSuchMessage | SqlError> =>
  Effect.flatMap(update, (rows) => rows.length === 0 ? new NoSuchMessage({ id }) : Effect.void)

/** A reason may quote what a receiver said; both databases must be able to store it. */
const clean = (text: string): string => text.replaceAll("\u0000", "\\u0000").slice(0, 4_000).toWellFormed()
