/**
 * Retention: what all readers have passed is removed, and nothing else.
 *
 *     floor ─────────── removed ──────────▶ new floor ≤ lowest cursor ──── kept ────▶ head
 *
 * The cursors of processors in the journal's own database are looked up under its lock; those that are kept elsewhere have
 * to be given. Where there is no cursor at all nothing is removed. A reader that comes from below the floor, such as a new
 * subscription, is told so by a `SourceTruncated`.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Position from "../domain/Position.js"
import type { SourceName } from "../ingest/Source.js"
import type { TransactionError } from "../store/Transaction.js"
import * as Transaction from "../store/Transaction.js"
import * as Log from "./Log.js"

export interface Options {
  /** Keeps what is above it, even where every cursor has passed it. Default: the head. */
  readonly through?: Position.Position | undefined
  /** Where readers stand whose cursors are not in the journal's database: those of other namespaces, or of no processor. */
  readonly cursors?: ReadonlyArray<Position.Position> | undefined
}

/** Strands removed in one transaction, during which nobody appends. */
const stepStrands = 2_000

/** Removes what may be removed, step by step, and returns the floor. */
export const truncate = (
  log: Log.Log,
  options: Options = {}
): Effect.Effect<Position.Position, TransactionError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    for (;;) {
      const { floor, isDone } = yield* Transaction.run(step(log, options))
      if (isDone) return floor
    }
  })

const step = (log: Log.Log, options: Options) =>
  Effect.gen(function*() {
    const { floor } = yield* Log.lock(log)
    const cursors = [...options.cursors ?? [], ...yield* cursorsOf(log.name)]
    if (cursors.length === 0) return { floor, isDone: true }
    const limit = [...cursors, ...options.through === undefined ? [] : [options.through]]
      .reduce((lowest, position) => position < lowest ? position : lowest)
    const next = yield* Log.boundary(log, limit, stepStrands)
    if (next === undefined) return { floor, isDone: true }
    yield* Log.remove(log, next)
    return { floor: next, isDone: false }
  })

/** The lowest cursor of this database that follows the journal. */
const cursorsOf = (
  source: SourceName
): Effect.Effect<ReadonlyArray<Position.Position>, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<{ readonly lowest: string | null }>`
        SELECT CAST(MIN(position) AS TEXT) AS lowest FROM processor_cursor WHERE source = ${source}`,
      ([row]) => row === undefined || row.lowest === null ? [] : [Position.fromSql(row.lowest)]
    ))
