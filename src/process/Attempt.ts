/**
 * An attempt: one run of a handler over the strands of one commit.
 *
 * Invariant: while a handler works operation by operation, `current` is the one it works on, so a failure can be laid at
 * its door without trying the others again. Handlers that take whole batches leave it unset.
 */

import type { Operation } from "../domain/Operation.js"
import type { Retraction } from "../domain/Retraction.js"
import type { Stream } from "../domain/Strand.js"

export class Attempt {
  /** The operation being handled. */
  current: Operation | undefined = undefined
  /** The stream of the operation being handled. */
  stream: Stream | undefined = undefined
  /** The operation of each retraction that the handler may be given: it is to blame where that cannot be carried out. */
  readonly by = new Map<Retraction, Operation>()
  /** Handler times by operation type, in milliseconds. */
  readonly handled = new Map<string, Array<number>>()

  /** Adds one handled operation. */
  record(operationType: string, nanos: bigint): void {
    const millis = Number(nanos) / 1e6
    const times = this.handled.get(operationType)
    if (times === undefined) this.handled.set(operationType, [millis])
    else times.push(millis)
  }
}
