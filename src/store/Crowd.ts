/**
 * A crowd: many cursors of one place at once, in one transaction and few statements.
 *
 *     claimEach ▶ epoch + 1 each        as their subscriptions open together
 *     moveAll ──▶ compare-and-set each  past strands that their processors did not want, so that there is nothing to write
 */

import * as SqlClient from "@effect/sql/SqlClient"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { dialectOf } from "../domain/Dialect.js"
import type * as Position from "../domain/Position.js"
import * as Slice from "../domain/Slice.js"
import type { SourceName } from "../ingest/Source.js"
import type { ProcessorName } from "../process/Processor.js"
import * as Bulk from "../table/Bulk.js"
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
  Transaction.run(Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const now = yield* Clock.currentTimeMillis
    const answers = yield* Bulk.run(
      statementsOf(sql).move,
      passages.map(({ from, position }) => [
        from.processor,
        from.source,
        from.slices.first,
        from.epoch,
        from.sequence,
        from.position,
        position,
        now
      ]),
      (text, cells) => sql.unsafe<KeyRow>(text, cells)
    )
    const moved = new Keyed<true>()
    for (const row of answers.flat()) moved.set(row, row.first_slice, true)
    return passages.map(({ from, position }) =>
      moved.get(from, from.slices.first) ? { ...from, position, sequence: from.sequence + 1n } : undefined
    )
  }))

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

const statements = Bulk.both((bulk) => ({
  begin: bulk(["text", "text", "bigint", "bigint"], ({ table }) => `
    INSERT INTO processor_cursor
      (processor, source, first_slice, last_slice, start_position, position, sequence, epoch, parked, letters, ahead,
       replay_through, updated_at_ms)
    SELECT v.column1, v.column2, ${Slice.whole.first}, ${Slice.whole.last}, v.column3, v.column3, 0, 0, 0, 0, '', 0,
      v.column4
    FROM ${table} WHERE TRUE
    ON CONFLICT (processor, source, first_slice) DO NOTHING`),
  own: bulk(["text", "text", "bigint"], ({ table }) => `
    UPDATE processor_cursor SET epoch = epoch + 1, updated_at_ms = v.column3 FROM ${table}
    WHERE processor = v.column1 AND source = v.column2
      AND first_slice = ${Slice.whole.first} AND last_slice = ${Slice.whole.last}
    RETURNING processor, source, ${Cursors.columns}`),
  move: bulk(["text", "text", "integer", "bigint", "bigint", "bigint", "bigint", "bigint"], ({ table }) => `
    UPDATE processor_cursor SET position = v.column7, sequence = v.column5 + 1, updated_at_ms = v.column8 FROM ${table}
    WHERE processor = v.column1 AND source = v.column2 AND first_slice = v.column3 AND epoch = v.column4
      AND ((sequence = v.column5 AND position = v.column6) OR (sequence = v.column5 + 1 AND position = v.column7))
    RETURNING processor, source, first_slice`)
}))
