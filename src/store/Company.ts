/**
 * A company: the subscriptions of one place, whose cursors are claimed together when they start together, and moved together
 * while nothing comes for them; where they would wait for each other, they commit together.
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import type { Mover } from "../ingest/Idle.js"
import * as Convoy from "./Convoy.js"
import * as JointClaims from "./JointClaims.js"
import * as Moves from "./Moves.js"
import type * as Permits from "./Permits.js"

export interface Company {
  readonly claim: JointClaims.JointClaims
  readonly mover: Mover<Moves.Holder>
  readonly convoy: Convoy.Convoy
}

/**
 * The company of the place that the client in the context reaches. `turn` runs around each transaction, of which so many are
 * let in at once.
 */
export const make = (
  turn: Permits.Permits,
  concurrency: number
): Effect.Effect<Company, never, SqlClient.SqlClient> =>
  Effect.all({ claim: JointClaims.make(turn), mover: Moves.make(turn), convoy: Convoy.make(concurrency) })
