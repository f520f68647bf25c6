/**
 * A cursor: how far a subscription has come, and whose commits count.
 *
 *     claim ──▶ a new epoch      opening a subscription; whoever held it before is fenced from here on
 *     hold  ──▶ row locked       first statement of a commit
 *     advance ▶ compare-and-set  last statement of the same commit
 *
 * A processor has a row for each of its partitions, which is a range of slices:
 *
 *     0 ──────── 1,023        one, not divided
 *     0 ─ 511 · 512 ─ 1,023   two: a claim with other partitions makes the rows anew, see `Ranges`
 *
 * Invariants: the ranges of a processor lie side by side and hold all slices, and the row of slice 0 is never deleted: who
 * makes the rows anew holds it. The position after which it began never changes; of any slice, sequence and epoch never go down, and
 * position only where a rebuild in place begins anew; an epoch is higher than any before it, whatever the ranges were; sequence counts commits, so that a
 * commit whose answer was lost can be told from one that never happened even where the position did not move. There is no
 * way to move a cursor outside a transaction that also holds the writes, if there are any.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type { Statement } from "@effect/sql/Statement"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Position from "../domain/Position.js"
import * as Slice from "../domain/Slice.js"
import type { SourceName } from "../ingest/Source.js"
import type { ProcessorName } from "../process/Processor.js"
import * as Flight from "./Flight.js"
import * as Ranges from "./Ranges.js"
import * as Transaction from "./Transaction.js"

/** One processor on one source. */
export interface Key {
  readonly processor: ProcessorName
  readonly source: SourceName
}

export interface Cursor extends Key, Ranges.Standing {
  /** The position after which it began, for good. What came before it was never seen. */
  readonly start: Position.Position
  readonly epoch: bigint
  /** Dead letters that wait. */
  readonly parked: number
}

/** Whether its operations are handled for another time, since a rebuild in place has begun and not come to its end. */
export const isReplaying = ({ handled, position }: Pick<Cursor, "position" | "handled">): boolean =>
  handled.some((part) => position < part.position)

/** Up to where any of its operations were handled once before its rows were emptied; the origin where none were. */
export const replayThrough = ({ handled }: Pick<Cursor, "handled">): Position.Position =>
  handled.length === 0 ? Position.origin : Ranges.bounds(handled).highest

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

/** A cursor as a statement returns it. */
export interface Row {
  readonly first_slice: number
  readonly last_slice: number
  readonly start_position: string
  readonly position: string
  readonly sequence: string
  readonly epoch: string
  readonly parked: number
  readonly letters: string
  readonly ahead: string
  readonly replay_through: string
}

export const fromRow = (key: Key, row: Row): Cursor => {
  const position = Position.fromSql(row.position)
  return {
    processor: key.processor,
    source: key.source,
    slices: { first: row.first_slice, last: row.last_slice },
    start: Position.fromSql(row.start_position),
    position,
    ahead: Ranges.fromText(row.ahead, position),
    sequence: BigInt(row.sequence),
    epoch: BigInt(row.epoch),
    parked: row.parked,
    letters: BigInt(row.letters),
    handled: Ranges.fromText(row.replay_through, position)
  }
}

/** What a statement returns of a cursor. */
export const columns = `first_slice, last_slice, CAST(start_position AS TEXT) AS start_position,
  CAST(position AS TEXT) AS position, CAST(sequence AS TEXT) AS sequence, CAST(epoch AS TEXT) AS epoch, parked,
  CAST(letters AS TEXT) AS letters, ahead, replay_through`

/** The cursors of these slices, or those that have any of them, in their order. */
const selection = (sql: SqlClient.SqlClient, key: Key, { first, last }: Slice.Range, lock: boolean) =>
  sql<Row>`
    SELECT ${sql.literal(columns)}
    FROM processor_cursor
    WHERE processor = ${key.processor} AND source = ${key.source} AND first_slice <= ${last} AND last_slice >= ${first}
    ORDER BY first_slice
    ${sql.literal(sql.onDialectOrElse({ sqlite: () => "", orElse: () => lock ? "FOR UPDATE" : "" }))}`

const select = (key: Key, slices: Slice.Range, lock: boolean) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => Effect.map(selection(sql, key, slices, lock), (rows) => rows.map((row) => fromRow(key, row)))
  )

const selectOne = (key: Key, slice: number, lock: boolean) =>
  Effect.map(select(key, { first: slice, last: slice }, lock), ([found]) => found)

/**
 * The cursor of a slice as it stands, of slice 0 when left out, without claiming or locking it; `undefined` before the first
 * claim. A processor that is not divided has one for all slices.
 */
export const peek = (key: Key, slice = 0): Effect.Effect<Cursor | undefined, SqlError, SqlClient.SqlClient> =>
  selectOne(key, slice, false)

/** The cursors of all partitions, or of those that have any of these slices, in their order; none before the first claim. */
export const all = (
  key: Key,
  slices: Slice.Range = Slice.whole
): Effect.Effect<ReadonlyArray<Cursor>, SqlError, SqlClient.SqlClient> => select(key, slices, false)

/** {@link all} once every commit that was still open on them has ended; locked for the rest of a transaction. */
export const allSettled = (
  key: Key,
  slices: Slice.Range = Slice.whole
): Effect.Effect<ReadonlyArray<Cursor>, SqlError, SqlClient.SqlClient> =>
  // Whoever divides them holds the first; a statement that began before it was free would not see what was made of them.
  Effect.zipRight(selectOne(key, slices.first, true), select(key, slices, true))

/**
 * The cursor of a slice once every commit that was still open on it has ended, whoever owns it; locked for the rest of a
 * transaction. How an unknown COMMIT is resolved, and how work on dead letters goes on beside a running subscription.
 */
export const settled = (key: Key, slice = 0): Effect.Effect<Cursor | undefined, SqlError, SqlClient.SqlClient> =>
  // A row that was divided while it was waited for is not found; a second look sees those that were made of it.
  Effect.flatMap(
    selectOne(key, slice, true),
    (found) => found === undefined ? selectOne(key, slice, true) : Effect.succeed(found)
  )

/**
 * Makes the caller the owner of all slices, in one cursor. What does not exist yet begins after `start`; what does stays
 * where it is.
 */
export const claim = (
  key: Key,
  start: Position.Position = Position.origin
): Effect.Effect<Cursor, Transaction.TransactionError, SqlClient.SqlClient> =>
  Effect.map(claimAll(key, [Slice.whole], start), ([cursor]) => cursor!)

/**
 * {@link claim} in a cursor for each of these ranges, which lie side by side and hold all slices: all of them, or none. They
 * are returned in their order, with one epoch.
 */
export const claimAll = (
  key: Key,
  ranges: ReadonlyArray<Slice.Range>,
  start: Position.Position = Position.origin
): Effect.Effect<ReadonlyArray<Cursor>, Transaction.TransactionError, SqlClient.SqlClient> =>
  Transaction.run(takeAll(key, ranges, start))

/** What {@link claimAll} does in its transaction. */
export const takeAll = (key: Key, ranges: ReadonlyArray<Slice.Range>, start: Position.Position) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const now = yield* Clock.currentTimeMillis
    const { first, last } = Slice.whole
    yield* sql`
      INSERT INTO processor_cursor
        (processor, source, first_slice, last_slice, start_position, position, sequence, epoch, parked, letters, ahead,
         replay_through, updated_at_ms)
      VALUES (${key.processor}, ${key.source}, ${first}, ${last}, ${start}, ${start}, 0, 0, 0, 0, '', '', ${now})
      ON CONFLICT (processor, source, first_slice) DO NOTHING`
    // Whoever holds this row makes the others; a statement that began before it was free would not see them all.
    yield* selectOne(key, first, true)
    const found = yield* select(key, Slice.whole, true)
    if (!Ranges.areSame(found.map(({ slices }) => slices), ranges)) yield* divide(key, found, ranges)
    const epoch = found.reduce((highest, cursor) => cursor.epoch > highest ? cursor.epoch : highest, 0n) + 1n
    yield* sql`
      UPDATE processor_cursor SET epoch = ${epoch}, updated_at_ms = ${now}
      WHERE processor = ${key.processor} AND source = ${key.source}`
    return yield* select(key, Slice.whole, false)
  })

/**
 * Makes the caller the owner of one range again that it has owned up to this `epoch`. Fails with {@link Fenced} where somebody
 * has claimed it since, or there is no such range any more; `undefined` where there is no cursor at all.
 */
export const reclaim = (
  key: Key,
  { first, last }: Slice.Range,
  epoch: bigint
): Effect.Effect<Cursor | undefined, Fenced | Transaction.TransactionError, SqlClient.SqlClient> =>
  Transaction.run(Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const now = yield* Clock.currentTimeMillis
    // A row that was restored from a backup has an epoch of before, and is nobody else's.
    const [row] = yield* sql<Row>`
      UPDATE processor_cursor SET epoch = epoch + 1, updated_at_ms = ${now}
      WHERE processor = ${key.processor} AND source = ${key.source}
        AND first_slice = ${first} AND last_slice = ${last} AND epoch <= ${epoch}
      RETURNING ${sql.literal(columns)}`
    if (row !== undefined) return fromRow(key, row)
    const owner = yield* highestEpoch(key)
    return owner === undefined ? undefined : yield* new Fenced({ ...key, epoch, owner })
  }))

/** Makes the rows of other ranges out of those there are, which are locked. */
const divide = (key: Key, found: ReadonlyArray<Cursor>, ranges: ReadonlyArray<Slice.Range>) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const parkedIn = yield* countsOfParked(key)
    yield* sql`
      DELETE FROM processor_cursor
      WHERE processor = ${key.processor} AND source = ${key.source} AND first_slice > ${Slice.whole.first}`
    for (const { ahead, handled, letters, position, sequence, slices } of Ranges.divide(found, ranges)) {
      yield* sql`
        INSERT INTO processor_cursor
          (processor, source, first_slice, last_slice, start_position, position, sequence, epoch, parked, letters, ahead,
           replay_through, updated_at_ms)
        VALUES (${key.processor}, ${key.source}, ${slices.first}, ${slices.last}, ${found[0]!.start}, ${position},
          ${sequence}, 0, ${parkedIn(slices)}, ${letters}, ${Ranges.toText(ahead)}, ${Ranges.toText(handled)}, 0)
        ON CONFLICT (processor, source, first_slice) DO UPDATE SET
          last_slice = excluded.last_slice, position = excluded.position, sequence = excluded.sequence,
          parked = excluded.parked, letters = excluded.letters, ahead = excluded.ahead,
          replay_through = excluded.replay_through`
    }
  })

/** How many dead letters wait in any range of slices. */
const countsOfParked = (key: Key) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<{ readonly slice: number; readonly parked: number }>`
        SELECT CAST(ordinal % ${sql.literal(String(Slice.count))} AS INTEGER) AS slice,
          CAST(COUNT(*) AS INTEGER) AS parked
        FROM processor_dead_letter
        WHERE processor = ${key.processor} AND source = ${key.source}
        GROUP BY 1`,
      (counts) => (slices: Slice.Range): number =>
        counts.reduce((sum, each) => Slice.isIn(slices, each.slice) ? sum + each.parked : sum, 0)
    ))

/** The highest epoch of any range; `undefined` where there is no cursor. */
const highestEpoch = (key: Key) =>
  Effect.map(
    all(key),
    (cursors) =>
      cursors.reduce<bigint | undefined>(
        (highest, { epoch }) => highest === undefined || epoch > highest ? epoch : highest,
        undefined
      )
  )

/**
 * Locks the cursor for the rest of the transaction and checks that it is where `expected` says. Returns it as it stands.
 */
export const hold = (
  expected: Cursor
): Effect.Effect<Cursor, SqlError | Fenced | CursorConflict, SqlClient.SqlClient> =>
  Effect.map(holdAnd(expected, []), ([held]) => held)

/** {@link hold}, with the answers to `others`: questions that are asked as soon as it is locked, wherever it may be. */
export const holdAnd = Effect.fnUntraced(function*(
  expected: Cursor,
  others: ReadonlyArray<Statement<object>>
) {
  const { first } = expected.slices
  const [rows, ...answers] = yield* Flight.send([
    selection(yield* SqlClient.SqlClient, expected, { first, last: first }, true),
    ...others
  ])
  const row = (rows as ReadonlyArray<Row> | undefined)?.[0]
  const found = row === undefined ? undefined : fromRow(expected, row)
  return found !== undefined && isWhere(found, expected)
    ? [found, answers] as const
    : yield* Effect.flatMap(refusal(expected, found), Effect.fail)
})

/**
 * {@link hold} for cursors that lie side by side: all of them, or none. Where there are others now than `expected` names,
 * somebody has divided them.
 */
export const holdAll = (
  expected: ReadonlyArray<Cursor>
): Effect.Effect<ReadonlyArray<Cursor>, SqlError | Fenced | CursorConflict, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const [first, last] = [expected[0]!, expected.at(-1)!]
    const found = yield* allSettled(first, { first: first.slices.first, last: last.slices.last })
    for (const [i, each] of expected.entries()) {
      const now = found[i]
      if (now === undefined || !isWhere(now, each)) return yield* Effect.flatMap(refusal(each, now), Effect.fail)
    }
    return found
  })

/**
 * Moves the cursor to `position` and counts dead letters that came and went, if it is still where `held` says. The last
 * statement of a commit: a transaction that has failed without anyone noticing fails here. `others` are sent right before it.
 */
export const advance = Effect.fnUntraced(function*(
  held: Cursor,
  position: Position.Position,
  letters: Letters,
  others: ReadonlyArray<Statement<object>> = []
) {
  const sql = yield* SqlClient.SqlClient
  const now = yield* Clock.currentTimeMillis
  const moved = sql<{ readonly parked: number }>`
      UPDATE processor_cursor
      SET position = ${position}, sequence = sequence + 1, parked = parked + ${letters.written - letters.removed},
        letters = letters + ${letters.written}, updated_at_ms = ${now}
      WHERE processor = ${held.processor} AND source = ${held.source} AND first_slice = ${held.slices.first}
        AND epoch = ${held.epoch} AND sequence = ${held.sequence} AND position = ${held.position}
      RETURNING parked`
  const answers = yield* Flight.send([...others, moved])
  const row = (answers.at(-1) as ReadonlyArray<{ readonly parked: number }> | undefined)?.[0]
  if (row === undefined) {
    const found = yield* selectOne(held, held.slices.first, false)
    return yield* Effect.flatMap(refusal(held, found), Effect.fail)
  }
  const cursor: Cursor = { ...movedTo(held, position, letters), parked: row.parked }
  return cursor
})

/**
 * The statement of {@link advance} for one who does not wait for its answer, and the cursor as it is after it. Where the
 * cursor is not where `held` says it fails, with nothing that would tell: only the transaction's own body could have moved it.
 */
export const advancing = Effect.fnUntraced(function*(
  held: Cursor,
  position: Position.Position,
  letters: Letters
) {
  const sql = yield* SqlClient.SqlClient
  const now = yield* Clock.currentTimeMillis
  const parked = letters.written - letters.removed
  const isThere = sql`epoch = ${held.epoch} AND sequence = ${held.sequence} AND position = ${held.position}`
  const where = sql`
      processor = ${held.processor} AND source = ${held.source} AND first_slice = ${held.slices.first}`
  const rest = sql`
      position = ${position}, parked = parked + ${parked}, letters = letters + ${letters.written}, updated_at_ms = ${now}`
  const moving = sql.onDialectOrElse({
    // Fails by the column that takes no NULL; a row that was locked by BEGIN IMMEDIATE is there.
    sqlite: () =>
      sql`UPDATE processor_cursor SET sequence = CASE WHEN ${isThere} THEN sequence + 1 END, ${rest} WHERE ${where}`,
    // Fails by dividing by zero.
    orElse: () =>
      sql`
        WITH moved AS (
          UPDATE processor_cursor SET sequence = sequence + 1, ${rest} WHERE ${where} AND ${isThere} RETURNING 1
        )
        SELECT 1 / COUNT(*) FROM moved`
  })
  return [moving, movedTo(held, position, letters)] as const
})

/** Dead letters that came and went. */
interface Letters {
  readonly written: number
  readonly removed: number
}

/** The cursor as {@link advance} leaves it. */
export const movedTo = (held: Cursor, position: Position.Position, { removed, written }: Letters): Cursor => ({
  ...held,
  position,
  sequence: held.sequence + 1n,
  parked: held.parked + written - removed,
  letters: held.letters + BigInt(written)
})

/** What a rebuild makes of a cursor: the rest of it stays. */
export type Rebuilt = Pick<Cursor, "position" | "ahead" | "handled" | "letters">

/**
 * Says where cursors stand once their rows have been put in place of others, and counts the dead letters that wait now. It
 * counts as a commit of each, so that an owner elsewhere is told by a {@link CursorConflict} that what it knew is no more.
 * The last statements of such a transaction.
 */
export const rebuilt = (
  held: ReadonlyArray<Cursor>,
  next: (held: Cursor) => Rebuilt
): Effect.Effect<ReadonlyArray<Cursor>, SqlError | Fenced | CursorConflict, SqlClient.SqlClient> =>
  Effect.flatMap(
    countsOfParked(held[0]!),
    (parkedIn) => Effect.forEach(held, (each) => put(each, { ...each, ...next(each), parked: parkedIn(each.slices) }))
  )

/** Writes what {@link rebuilt} makes of one cursor. */
const put = (held: Cursor, next: Cursor) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const rows = yield* sql`
      UPDATE processor_cursor
      SET position = ${next.position}, parked = ${next.parked}, letters = ${next.letters},
        ahead = ${Ranges.toText(next.ahead)}, replay_through = ${Ranges.toText(next.handled)},
        sequence = sequence + 1, updated_at_ms = ${yield* Clock.currentTimeMillis}
      WHERE processor = ${held.processor} AND source = ${held.source} AND first_slice = ${held.slices.first}
        AND epoch = ${held.epoch} AND sequence = ${held.sequence} AND position = ${held.position}
      RETURNING parked`
    return rows.length === 0
      ? yield* Effect.flatMap(
        Effect.flatMap(selectOne(held, held.slices.first, false), (found) => refusal(held, found)),
        Effect.fail
      )
      : { ...next, sequence: held.sequence + 1n }
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
        WHERE processor = ${held.processor} AND source = ${held.source} AND first_slice = ${held.slices.first}`,
      { ...held, parked: held.parked + parkedDelta }
    ))

/** Whether a cursor is where its owner left it, and still the owner's. */
export const isWhere = (found: Cursor, expected: Cursor): boolean =>
  found.epoch === expected.epoch && found.sequence === expected.sequence && found.position === expected.position &&
  Slice.isSame(found.slices, expected.slices)

const show = (cursor: Cursor | undefined) =>
  cursor === undefined ? "nothing" : `position ${cursor.position}, commit ${cursor.sequence}, epoch ${cursor.epoch}`

/** Why `found` is not what was expected. A range that is gone was taken by who has made others of it. */
const refusal = (
  expected: Cursor,
  found: Cursor | undefined
): Effect.Effect<Fenced | CursorConflict, SqlError, SqlClient.SqlClient> => {
  const key = { processor: expected.processor, source: expected.source }
  return Effect.map(
    found === undefined ? highestEpoch(key) : Effect.succeed(found.epoch),
    (owner) =>
      owner !== undefined && owner > expected.epoch
        ? new Fenced({ ...key, epoch: expected.epoch, owner })
        : new CursorConflict({ ...key, expected: show(expected), found: show(found) })
  )
}
