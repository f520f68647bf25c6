/**
 * A tempo: how many operations a batch may hold, so that a commit keeps to its time.
 *
 *     took too long ─▶ half of it        kept to it, and was full ─▶ a twentieth of the most, more
 *
 * Invariant: the bound is between 1 and the most, and is the most again after so many full batches in time.
 */

import * as Effect from "effect/Effect"
import * as Elapsed from "../domain/Elapsed.js"

export class Tempo {
  /** How many operations the next batch may hold. */
  operations: number
  private spentMillis = 0

  constructor(
    private readonly most: number,
    /** What a batch may take, in milliseconds; no bound when left out. */
    private readonly budgetMillis: number | undefined
  ) {
    this.operations = most
  }

  /** Counts what this takes towards the batch that is being committed. */
  timed<A, E, R>(work: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    if (this.budgetMillis === undefined) return work
    return Effect.flatMap(Elapsed.millis, (started) =>
      Effect.ensuring(
        work,
        Effect.map(Elapsed.millis, (now) => {
          this.spentMillis += now - started
        })
      ))
  }

  /** A batch of so many operations is committed, with all that it took. */
  committed(operations: number): void {
    if (this.budgetMillis === undefined) return
    if (this.spentMillis > this.budgetMillis) {
      this.operations = Math.max(1, Math.floor(Math.min(this.operations, operations) / 2))
    } else if (operations >= this.operations) {
      this.operations = Math.min(this.most, this.operations + Math.max(1, Math.floor(this.most / 20)))
    }
    this.spentMillis = 0
  }
}
