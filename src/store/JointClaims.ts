/**
 * Joint claims: cursors of one place that are claimed at the same time, in one transaction for all.
 * Each is of a processor that is not divided.
 *
 *     claim ─┐
 *     claim ─┼▶ wait for the transaction before ─▶ one transaction ─▶ each its cursor
 *     claim ─┘
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Crowd from "./Crowd.js"
import type * as Cursors from "./Cursors.js"
import * as Permits from "./Permits.js"
import type { TransactionError } from "./Transaction.js"

export type JointClaims = (claim: Crowd.Claim) => Effect.Effect<Cursors.Cursor, TransactionError, SqlClient.SqlClient>

/** So many are claimed in one transaction. */
const claimsMax = 1_000

interface Waiting {
  readonly claim: Crowd.Claim
  outcome: Exit.Exit<Cursors.Cursor, TransactionError> | undefined
}

/** The claims of one place. `turn` runs around each transaction. */
export const make = (turn: Permits.Permits): Effect.Effect<JointClaims> =>
  Effect.sync(() => {
    const alone = Permits.make(1)
    const line: Array<Waiting> = []
    const serve = Effect.suspend(() => {
      const some = line.splice(0, claimsMax)
      return Effect.exit(turn(Crowd.claimEach(some.map(({ claim }) => claim)))).pipe(
        Effect.map((exit) => {
          for (const [i, one] of some.entries()) one.outcome = Exit.map(exit, (cursors) => cursors[i]!)
        }),
        // Whoever serves may be called off; the others are then served by the next.
        Effect.onInterrupt(() => Effect.sync(() => line.unshift(...some)))
      )
    })
    return (claim) =>
      Effect.suspend(() => {
        const waiting: Waiting = { claim, outcome: undefined }
        const answer: ReturnType<JointClaims> = Effect.suspend(() => waiting.outcome ?? Effect.zipRight(serve, answer))
        line.push(waiting)
        return alone(answer)
      })
  })
