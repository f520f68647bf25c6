/**
 * A cursor: how far a subscription has come, and whose commits count.
 *
 *     claim ──▶ epoch + 1        opening a subscription; whoever held it before is fenced from here on
 *     hold  ──▶ row locked       first statement of a commit
 *     advance ▶ compare-and-set  last statement of the same commit
 *
 * Invariants: the position after which it began never changes; position, sequence and epoch never go down; sequence counts commits, so that a commit whose answer was lost
 * can be told from one that never happened even where the position did not move. There is no way to move a cursor outside
 * a transaction that also holds the writes.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Position from "../domain/Position.js"
import type { SourceName } from "../ingest/Source.js"
import type { ProcessorName } from "../process/Processor.js"
import * as Transaction from "./Transaction.js"

/** One processor on one source. */
export interface Key {
  readonly processor: ProcessorName
  readonly source: SourceName
}

export interface Cursor extends Key {
  /** The position after which it began, for good. What came before it was never seen. */
  readonly start: Position.Position
  readonly position: Position.Position
  /** Commits so far. */
  readonly sequence: bigint
  readonly epoch: bigint
  /** Dead letters that wait. */
  readonly parked: number
  /** The ordinal of the last dead letter ever written. */
  readonly ordinal: bigint
}

/** Another owner has claimed the subscription. Its commits count from now on; ours are refused. */
export class Fenced extends Data.TaggedError("Fenced")<Key & { readonly epoch: bigint; readonly owner: bigint }> {
  override get message(): string {
    return `${this.processor} on ${this.source}: claimed by another owner (epoch ${this.owner}, ours is ${this.epoch})`
  }
}

/** The cursor is not where this owner left it, though nobody has claimed it: the row was edited, or restored from a backup. */
export class CursorConflict extends Data.TaggedError("CursorConflict")<
  Key & { readonly expected: string; readonly found: string }
> {
  override get message(): string {
    return `${this.processor} on ${this.source}: the cursor is at ${this.found} and should be at ${this.expected}`
  }
}

interface Row {
  readonly start_position: string
  readonly position: string
  readonly sequence: string
  readonly epoch: string
  readonly parked: number
  readonly ordinal: string
}

const fromRow = (key: Key, row: Row): Cursor => ({
  processor: key.processor,
  source: key.source,
  start: Position.fromSql(row.start_position),
  position: Position.fromSql(row.position),
  sequence: BigInt(row.sequence),
  epoch: BigInt(row.epoch),
  parked: row.parked,
  ordinal: BigInt(row.ordinal)
})

const columns = `CAST(start_position AS TEXT) AS start_position, CAST(position AS TEXT) AS position,
  CAST(sequence AS TEXT) AS sequence, CAST(epoch AS TEXT) AS epoch, parked, CAST(ordinal AS TEXT) AS ordinal`

const select = (key: Key, lock: boolean) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<Row>`
        SELECT ${sql.literal(columns)}
        FROM processor_cursor
        WHERE processor = ${key.processor} AND source = ${key.source}
        ${sql.literal(sql.onDialectOrElse({ sqlite: () => "", orElse: () => lock ? "FOR UPDATE" : "" }))}`,
      ([row]) => row === undefined ? undefined : fromRow(key, row)
    ))

/** The cursor as it stands, without claiming or locking it; `undefined` before the first claim. */
export const peek = (key: Key): Effect.Effect<Cursor | undefined, SqlError, SqlClient.SqlClient> => select(key, false)

/**
 * The cursor once every commit that was still open on it has ended, whoever owns it; locked for the rest of a transaction.
 * How an unknown COMMIT is resolved, and how work on dead letters goes on beside a running subscription.
 */
export const settled = (key: Key): Effect.Effect<Cursor | undefined, SqlError, SqlClient.SqlClient> => select(key, true)

/** Makes the caller the owner. A cursor that does not exist yet begins after `start`; one that does stays where it is. */
export const claim = (
  key: Key,
  start: Position.Position = Position.origin
): Effect.Effect<Cursor, Transaction.TransactionError, SqlClient.SqlClient> =>
  Transaction.run(Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const now = yield* Clock.currentTimeMillis
    yield* sql`
      INSERT INTO processor_cursor
        (processor, source, start_position, position, sequence, epoch, parked, ordinal, updated_at_ms)
      VALUES (${key.processor}, ${key.source}, ${start}, ${start}, 0, 0, 0, 0, ${now})
      ON CONFLICT (processor, source) DO NOTHING`
    const [row] = yield* sql<Row>`
      UPDATE processor_cursor SET epoch = epoch + 1, updated_at_ms = ${now}
      WHERE processor = ${key.processor} AND source = ${key.source}
      RETURNING ${sql.literal(columns)}`
    return yield* row === undefined
      ? Effect.dieMessage("the cursor row that was just written is not there")
      : Effect.succeed(fromRow(key, row))
  }))

/**
 * Locks the cursor for the rest of the transaction and checks that it is where `expected` says. Returns it as it stands.
 */
export const hold = (
  expected: Cursor
): Effect.Effect<Cursor, SqlError | Fenced | CursorConflict, SqlClient.SqlClient> =>
  Effect.flatMap(select(expected, true), (found) => {
    if (found !== undefined && found.epoch === expected.epoch && isSame(found, expected)) return Effect.succeed(found)
    return Effect.fail(refusal(expected, found))
  })

/**
 * Moves the cursor to `position` and counts dead letters that came and went, if it is still where `held` says. The last
 * statement of a commit: a transaction that has failed without anyone noticing fails here.
 */
export const advance = (
  held: Cursor,
  position: Position.Position,
  letters: { readonly written: number; readonly removed: number }
): Effect.Effect<Cursor, SqlError | Fenced | CursorConflict, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const now = yield* Clock.currentTimeMillis
    const rows = yield* sql<{ readonly parked: number }>`
      UPDATE processor_cursor
      SET position = ${position}, sequence = sequence + 1, parked = parked + ${letters.written - letters.removed},
        ordinal = ordinal + ${letters.written}, updated_at_ms = ${now}
      WHERE processor = ${held.processor} AND source = ${held.source}
        AND epoch = ${held.epoch} AND sequence = ${held.sequence} AND position = ${held.position}
      RETURNING parked`
    const row = rows[0]
    if (row === undefined) {
      return yield* Effect.flatMap(select(held, false), (found) => Effect.fail(refusal(held, found)))
    }
    return {
      ...held,
      position,
      sequence: held.sequence + 1n,
      parked: row.parked,
      ordinal: held.ordinal + BigInt(letters.written)
    }
  })

/**
 * Counts dead letters that came or went beside the owner, who does not notice: neither position nor sequence moves. The last
 * statement of such a transaction.
 */
export const countParked = (held: Cursor, parkedDelta: number): Effect.Effect<Cursor, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.as(
      sql`
        UPDATE processor_cursor SET parked = parked + ${parkedDelta}
        WHERE processor = ${held.processor} AND source = ${held.source}`,
      { ...held, parked: held.parked + parkedDelta }
    ))

const isSame = (a: Cursor, b: Cursor) => a.sequence === b.sequence && a.position === b.position

const show = (cursor: Cursor | undefined) =>
  cursor === undefined ? "nothing" : `position ${cursor.position}, commit ${cursor.sequence}, epoch ${cursor.epoch}`

const refusal = (expected: Cursor, found: Cursor | undefined): Fenced | CursorConflict => {
  const key = { processor: expected.processor, source: expected.source }
  return found !== undefined && found.epoch > expected.epoch
    ? new Fenced({ ...key, epoch: expected.epoch, owner: found.epoch })
    : new CursorConflict({ ...key, expected: show(expected), found: show(found) })
}
