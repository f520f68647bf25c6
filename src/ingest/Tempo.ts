/**
 * A tempo: how many operations a batch may hold, so that a commit keeps to its time.
 *
 *     took too long ─▶ half of it        was full, and took less than a quarter of its time ─▶ twice as many
 *
 * Where a commit takes between a quarter of its time and all of it, batches stay as they are: followers whose batches are of
 * one size can share what they hold. Invariant: the bound is between the least and the most.
 */

import * as Effect from "effect/Effect"
import * as Elapsed from "../domain/Elapsed.js"

/** Bounds of a tempo. */
export interface Bounds {
  /** Operations that a batch may hold however long it takes. Default: 1. */
  readonly least?: number
  readonly most: number
  /** What a batch may take, in milliseconds; no bound when left out. */
  readonly budgetMillis?: number | undefined
}

export class Tempo {
  /** How many operations the next batch may hold. */
  operations: number
  private spentMillis = 0

  constructor(private readonly bounds: Bounds) {
    this.operations = bounds.most
  }

  /** Counts what this takes towards the batch that is being committed. */
  timed<A, E, R>(work: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    if (this.bounds.budgetMillis === undefined) return work
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
    const { budgetMillis, least = 1, most } = this.bounds
    if (budgetMillis === undefined) return
    if (this.spentMillis > budgetMillis) {
      this.operations = Math.max(Math.min(least, most), Math.floor(Math.min(this.operations, operations) / 2))
    } else if (operations >= this.operations && this.spentMillis < budgetMillis / 4) {
      this.operations = Math.min(most, 2 * this.operations)
    }
    this.spentMillis = 0
  }
}
