/**
 * Moves: cursors of one place that go past what their processors did not want, many in one statement.
 *
 *     (cursor, position), … ─▶ compare-and-set each ─┬─ moved
 *                                                    ├─ refused: its owner finds out why, by a commit of its own
 *                                                    └─ the database is away: again when it is due again
 *
 * A COMMIT whose answer was lost is repeated until there is an answer: a cursor that has moved already counts as moved.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Partition from "../domain/Partition.js"
import type { Move, Mover } from "../ingest/Idle.js"
import * as Fault from "../process/Fault.js"
import * as Pauses from "../process/Pauses.js"
import { patience } from "./Commit.js"
import type { Commit, Owner } from "./Commit.js"
import * as Crowd from "./Crowd.js"
import type * as Cursors from "./Cursors.js"
import type * as Permits from "./Permits.js"
import { CommitUnknown } from "./Transaction.js"

/** Whose cursor it is, and who wants to know that it was moved. */
export interface Holder {
  readonly owner: Pick<Owner<never>, "cursor" | "partition">
  readonly moved: (commit: Commit) => Effect.Effect<void>
}

/** Moves the cursors of the place that the client in the context reaches. `turn` runs around each transaction. */
export const make = (
  turn: Permits.Permits
): Effect.Effect<Mover<Holder>, never, SqlClient.SqlClient> =>
  Effect.map(SqlClient.SqlClient, (sql) => ({
    move: (moves) => Effect.provideService(move(moves, turn), SqlClient.SqlClient, sql)
  }))

const move = (
  moves: ReadonlyArray<Move<Holder>>,
  turn: Permits.Permits
): Effect.Effect<void, never, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const pauses = yield* Pauses.make(patience)
    const passages = moves.map(({ cursor, position }) => ({ from: cursor.owner.cursor, position }))
    for (;;) {
      const [took, exit] = yield* Effect.timed(Effect.exit(turn(Crowd.moveAll(passages))))
      if (Exit.isSuccess(exit)) return yield* settleAll(moves, exit.value, Math.round(Duration.toMillis(took)))
      const failure = Option.getOrUndefined(Cause.failureOption(exit.cause))
      if (!(failure instanceof CommitUnknown)) {
        const outcome = failure !== undefined && Fault.isPassing(failure) ? "failed" : "refused"
        for (const each of moves) each.settle(outcome)
        return
      }
      yield* pauses.next(failure, () => Effect.void)
    }
  })

const settleAll = (
  moves: ReadonlyArray<Move<Holder>>,
  moved: ReadonlyArray<Cursors.Cursor | undefined>,
  durationMillis: number
) =>
  Effect.forEach(moves, ({ cursor: { moved: tell, owner }, settle }, i) => {
    const now = moved[i]
    if (now !== undefined) owner.cursor = now
    settle(now === undefined ? "refused" : "moved")
    return now === undefined
      ? Effect.void
      : tell(commitOf(now, owner.partition ?? Partition.whole, moves.length, durationMillis))
  }, { discard: true })

const commitOf = (
  cursor: Cursors.Cursor,
  partition: Partition.Partition,
  together: number,
  durationMillis: number
): Commit => ({
  processor: cursor.processor,
  source: cursor.source,
  partition,
  position: cursor.position,
  sequence: cursor.sequence,
  operations: 0,
  redelivered: 0,
  superseded: 0,
  parked: 0,
  queued: 0,
  skipped: 0,
  released: 0,
  dispatched: 0,
  together,
  replayed: 0,
  waiting: cursor.parked,
  durationMillis,
  handled: new Map()
})
