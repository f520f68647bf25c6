/**
 * An attempt: one run of a handler over the strands of one commit.
 *
 * Invariant: while a handler works operation by operation, `current` is the one it works on, so a failure can be laid at
 * its door without trying the others again. Handlers that take whole batches leave it unset.
 */

import type * as Either from "effect/Either"
import type { Operation } from "../domain/Operation.js"
import type { Retraction } from "../domain/Retraction.js"
import type { Strand, Stream } from "../domain/Strand.js"
import type { MalformedOperation } from "./Failure.js"

/** The state of a document before an operation and after it. */
export interface Change {
  readonly previous: unknown
  readonly state: unknown
}

/** The states of the documents of a run, as far as its handler wants any. */
export interface States {
  /** Folds up to the operation, which has to come in the order of the run. */
  readonly at: (strand: Strand, operation: Operation) => Either.Either<Change, MalformedOperation>
}

export class Attempt {
  /** The operation being handled. */
  current: Operation | undefined = undefined
  /** The stream of the operation being handled. */
  stream: Stream | undefined = undefined
  /** Set where the handler wants state. */
  states: States | undefined = undefined
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
