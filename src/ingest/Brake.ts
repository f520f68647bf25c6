/**
 * A brake: what keeps a batch from being committed yet, because others have to come first, or because enough was done.
 *
 *     batch ─▶ brake ─▶ all of it, or its beginning ─▶ commit
 *                └──────── what is left of it ◀───────────┘
 *
 * Invariant: what it lets go and what is left are the batch, in order; nothing is held while a connection or a turn is.
 */

import * as Effect from "effect/Effect"
import type { Batch } from "./Batch.js"

/** What may be committed now, and what is left of the batch. */
export interface Released {
  readonly first: Batch
  readonly rest: Batch | undefined
}

export interface Brake<out Why> {
  /** Waits until something of the batch may be committed. `held` is told why, once it is waited for. */
  readonly release: (batch: Batch, held: (why: Why) => Effect.Effect<void>) => Effect.Effect<Released>
}

/** Lets everything go at once. */
export const none: Brake<never> = { release: (first) => Effect.succeed({ first, rest: undefined }) }

/** One brake behind another: what the first lets go comes to the second. */
export const both = <A, B>(one: Brake<A>, other: Brake<B>): Brake<A | B> =>
  one === none ? other : other === none ? one : {
    release: (batch, held) =>
      Effect.flatMap(
        one.release(batch, held),
        (ahead) =>
          Effect.map(other.release(ahead.first, held), ({ first, rest }) => ({
            first,
            rest: rest === undefined ? ahead.rest : joined(rest, ahead.rest)
          }))
      )
  }

const joined = (a: Batch, b: Batch | undefined): Batch =>
  b === undefined ? a : {
    strands: [...a.strands, ...b.strands],
    position: b.position,
    operations: a.operations + b.operations
  }
