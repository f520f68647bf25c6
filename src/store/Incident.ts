/**
 * An incident: something that did not go as it should, told once it is settled what became of it.
 */

import * as Data from "effect/Data"
import type { Partition } from "../domain/Partition.js"
import type { Subject } from "../process/Failure.js"
import type { Fault } from "../process/Fault.js"
import type { Key } from "./Cursors.js"

/** Whose incident it is. */
export interface Whose extends Key {
  /** Which of the processor's partitions met it. */
  readonly partition: Partition
}

export type Incident = Data.TaggedEnum<{
  /** An operation was set aside with its failure; its document waits behind it. */
  Parked: Whose & { readonly subject: Subject; readonly failure: unknown }
  /** An operation was left out. */
  Skipped: Whose & { readonly subject: Subject; readonly failure: unknown }
  /** An operation failed and is tried again on its policy's schedule. */
  Retrying: Whose & { readonly subject: Subject; readonly failure: unknown; readonly attempt: number }
  /**
   * The database cannot be worked with, or a source that is needed once more is away; the same is tried again after a pause,
   * for as long as it takes.
   */
  Waiting: Whose & {
    readonly fault: Fault
    readonly failure: unknown
    readonly attempt: number
    /** Whether a rebuild or a comparison of the processor waits, and its subscription goes on meanwhile. */
    readonly isReplay: boolean
  }
  /** The subscription failed and is opened again from its cursor after a pause. */
  Reopening: Whose & { readonly failure: unknown; readonly attempt: number }
  /** The subscription has stopped, its cursor before what stopped it, and does not start again by itself. */
  Halted: Whose & { readonly failure: unknown }
  /** A message was refused for good; it waits in the outbox with those behind it for the same document. */
  Undeliverable: Key & { readonly id: string; readonly documentId: string; readonly failure: unknown }
}>

/** An operation that is tried again, with what it failed with last. */
export type Retrying = Extract<Incident, { readonly _tag: "Retrying" }>

/** What is waited for. */
export type Waiting = Extract<Incident, { readonly _tag: "Waiting" }>

export const { $is: is, $match: match, Halted, Parked, Reopening, Retrying, Skipped, Undeliverable, Waiting } = Data
  .taggedEnum<Incident>()
