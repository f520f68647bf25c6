/**
 * A crowd: many cursors of one place at once, in one transaction and few statements.
 *
 *     claimEach ▶ epoch + 1 each        as their subscriptions open together
 *     moveAll ──▶ compare-and-set each  past strands that their processors did not want, so that there is nothing to write
 *     holding, advancing                what one commit holds and moves, for the commits of a `Convoy`
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { Statement } from "@effect/sql/Statement"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { dialectOf } from "../domain/Dialect.js"
import type * as Position from "../domain/Position.js"
import * as Slice from "../domain/Slice.js"
import type { SourceName } from "../ingest/Source.js"
import type { ProcessorName } from "../process/Processor.js"
import * as Bulk from "../table/Bulk.js"
import type { Kind } from "../table/Column.js"
import * as Cursors from "./Cursors.js"
import * as Transaction from "./Transaction.js"

/** A cursor to be claimed, and where it begins if there is none yet. */
export interface Claim extends Cursors.Key {
  readonly start: Position.Position
}

/** {@link Cursors.claim} for many, in one transaction; the cursors are in the order of the claims, whose keys differ. */
export const claimEach = (
  claims: ReadonlyArray<Claim>
): Effect.Effect<ReadonlyArray<Cursors.Cursor>, Transaction.TransactionError, SqlClient.SqlClient> =>
  Transaction.run(Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const now = yield* Clock.currentTimeMillis
    const { begin, own } = statementsOf(sql)
    const send = (text: string, cells: ReadonlyArray<unknown>) => sql.unsafe<Cursors.Row & KeyRow>(text, cells)
    yield* Bulk.run(begin, claims.map(({ processor, source, start }) => [processor, source, start, now]), send)
    const answers = yield* Bulk.run(own, claims.map(({ processor, source }) => [processor, source, now]), send)
    const cursors = new Keyed<Cursors.Cursor>()
    for (const row of answers.flat()) cursors.set(row, row.first_slice, Cursors.fromRow(row, row))
    // What is not among them is divided.
    return yield* Effect.forEach(claims, (key) => {
      const cursor = cursors.get(key, Slice.whole.first)
      return cursor === undefined
        ? Effect.map(Cursors.takeAll(key, [Slice.whole], key.start), ([one]) => one!)
        : Effect.succeed(cursor)
    })
  }))

/** Where a cursor is to be moved, nothing before that place having been wanted. */
export interface Passage {
  readonly from: Cursors.Cursor
  readonly position: Position.Position
}

/**
 * Moves cursors for which there is nothing to write, each by compare-and-set, and returns those that moved in the order of
 * the passages; `undefined` for one that is not where its owner left it. Doing it again after a COMMIT whose answer was lost
 * tells the same.
 */
export const moveAll = (
  passages: ReadonlyArray<Passage>
): Effect.Effect<ReadonlyArray<Cursors.Cursor | undefined>, Transaction.TransactionError, SqlClient.SqlClient> =>
  Transaction.run(moveEach(passages))

/** What {@link moveAll} does in its transaction. */
export const moveEach = (passages: ReadonlyArray<Passage>) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const answers = yield* Bulk.run(
      statementsOf(sql).move,
      rowsOf(passages, yield* Clock.currentTimeMillis),
      (text, cells) => sql.unsafe<KeyRow>(text, cells)
    )
    const moved = new Keyed<true>()
    for (const row of answers.flat()) moved.set(row, row.first_slice, true)
    return passages.map(({ from, position }) =>
      moved.get(from, from.slices.first) ? { ...from, position, sequence: from.sequence + 1n } : undefined
    )
  })

/**
 * The statements of {@link moveEach} for one who does not wait for their answers, on PostgreSQL: where any of the cursors is
 * not where it was they fail, with nothing that would tell.
 */
export const moving = (
  sql: SqlClient.SqlClient,
  passages: ReadonlyArray<Passage>,
  nowMillis: number
): ReadonlyArray<Statement<object>> =>
  Bulk.calls(moveOrFail, rowsOf(passages, nowMillis)).map(([text, cells]) => sql.unsafe(text, cells))

const rowsOf = (passages: ReadonlyArray<Passage>, nowMillis: number) =>
  passages.map(({ from, position }) => [
    from.processor,
    from.source,
    from.slices.first,
    from.epoch,
    from.sequence,
    from.position,
    position,
    nowMillis
  ])

/**
 * Locks cursors for the rest of a transaction: the statements that do, and what their answers come to, which is the cursors
 * as they stand, in the order of `expected`; `undefined` where any is not where its owner left it.
 */
export const holding = (sql: SqlClient.SqlClient, expected: ReadonlyArray<Cursors.Cursor>): {
  readonly statements: ReadonlyArray<Statement<object>>
  readonly heldOf: (answers: ReadonlyArray<ReadonlyArray<object>>) => ReadonlyArray<Cursors.Cursor> | undefined
} => {
  const keys = expected.map(({ processor, slices, source }) => [processor, source, slices.first])
  return {
    statements: Bulk.calls(statementsOf(sql).hold, keys).map(([text, cells]) => sql.unsafe(text, cells)),
    heldOf: (answers) => {
      const found = new Keyed<Cursors.Cursor>()
      for (const row of answers.flat() as ReadonlyArray<Cursors.Row & KeyRow>) {
        found.set(row, row.first_slice, Cursors.fromRow(row, row))
      }
      const held: Array<Cursors.Cursor> = []
      for (const each of expected) {
        const cursor = found.get(each, each.slices.first)
        if (cursor === undefined || !Cursors.isWhere(cursor, each)) return undefined
        held.push(cursor)
      }
      return held
    }
  }
}

interface KeyRow extends Cursors.Key {
  readonly first_slice: number
}

/** Values by cursor. */
class Keyed<A> {
  private readonly bySource = new Map<SourceName, Map<ProcessorName, Map<number, A>>>()

  get({ processor, source }: Cursors.Key, firstSlice: number): A | undefined {
    return this.bySource.get(source)?.get(processor)?.get(firstSlice)
  }

  set({ processor, source }: Cursors.Key, firstSlice: number, value: A): void {
    const some = this.bySource.get(source) ?? new Map<ProcessorName, Map<number, A>>()
    const ranges = some.get(processor) ?? new Map<number, A>()
    this.bySource.set(source, some.set(processor, ranges.set(firstSlice, value)))
  }
}

const statementsOf = (sql: SqlClient.SqlClient) => statements[dialectOf(sql)]

const moveKinds: ReadonlyArray<Kind> = [
  "text",
  "text",
  "integer",
  "bigint",
  "bigint",
  "bigint",
  "bigint",
  "bigint"
]

/**
 * Of keys for which that much is said, which holds for all, PostgreSQL expects few. So it has the index at hand in the plan
 * that it keeps, where it would otherwise read all cursors, or make a plan for each call.
 */
const ofFew = `v.column3 BETWEEN ${Slice.whole.first} AND ${Slice.whole.last}`

const move = (table: string) => `
    UPDATE processor_cursor SET position = v.column7, sequence = v.column5 + 1, updated_at_ms = v.column8 FROM ${table}
    WHERE processor = v.column1 AND source = v.column2 AND first_slice = v.column3 AND ${ofFew} AND epoch = v.column4
      AND ((sequence = v.column5 AND position = v.column6) OR (sequence = v.column5 + 1 AND position = v.column7))`

/** Fails by dividing by zero. */
const moveOrFail = Bulk.pg(moveKinds, moveKinds.map((_, i) => `column${i + 1}`), ({ table }) => `
    WITH moved AS (${move(table)} RETURNING 1)
    SELECT 1 / (CASE WHEN (SELECT COUNT(*) FROM moved) = (SELECT COUNT(*) FROM ${table}) THEN 1 ELSE 0 END)`)

const hold = (bulk: Bulk.Make, lock: string) =>
  bulk(["text", "text", "integer"], ({ table }) => `
    SELECT processor, source, ${Cursors.columns} FROM ${table} CROSS JOIN processor_cursor
    WHERE processor = v.column1 AND source = v.column2 AND first_slice = v.column3 AND ${ofFew}${lock}`)

const both = Bulk.both((bulk) => ({
  begin: bulk(["text", "text", "bigint", "bigint"], ({ table }) => `
    INSERT INTO processor_cursor
      (processor, source, first_slice, last_slice, start_position, position, sequence, epoch, parked, letters, ahead,
       replay_through, updated_at_ms)
    SELECT v.column1, v.column2, ${Slice.whole.first}, ${Slice.whole.last}, v.column3, v.column3, 0, 0, 0, 0, '', '',
      v.column4
    FROM ${table} WHERE TRUE
    ON CONFLICT (processor, source, first_slice) DO NOTHING`),
  own: bulk(["text", "text", "bigint"], ({ table }) => `
    UPDATE processor_cursor SET epoch = epoch + 1, updated_at_ms = v.column3 FROM ${table}
    WHERE processor = v.column1 AND source = v.column2
      AND first_slice = ${Slice.whole.first} AND last_slice = ${Slice.whole.last}
    RETURNING processor, source, ${Cursors.columns}`),
  move: bulk(moveKinds, ({ table }) => `${move(table)} RETURNING processor, source, first_slice`)
}))

const locking = Bulk.both((bulk) => bulk, { repeats: true })

const statements = {
  sqlite: { ...both.sqlite, hold: hold(locking.sqlite, "") },
  pg: { ...both.pg, hold: hold(locking.pg, " FOR UPDATE OF processor_cursor") }
}
