/**
 * An attempt: one run of a handler over the strands of one commit.
 *
 * Invariant: while a handler works operation by operation, `current` is the one it works on, so a failure can be laid at
 * its door without trying the others again. Handlers that take whole batches leave it unset.
 */
import type { Operation } from "../domain/Operation.js"
import type { Strand } from "../domain/Strand.js"

export class Attempt {
  /** The operation being handled, and its strand. */
  current: { readonly strand: Strand; readonly operation: Operation } | undefined = undefined
  /** Handler time by operation type: how many, and nanoseconds together. */
  readonly handled = new Map<string, { count: number; nanos: bigint }>()

  /** Adds one handled operation. */
  record(operationType: string, nanos: bigint): void {
    const entry = this.handled.get(operationType)
    if (entry === undefined) {
      this.handled.set(operationType, { count: 1, nanos })
    } else {
      entry.count++
      entry.nanos += nanos
    }
  }
}
