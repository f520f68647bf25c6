/**
 * An incident: something that did not go as it should, told once it is settled what became of it.
 */

import * as Data from "effect/Data"
import type { Subject } from "../process/Failure.js"
import type { Fault } from "../process/Fault.js"
import type { Key } from "./Cursors.js"

export type Incident = Data.TaggedEnum<{
  /** An operation was set aside with its failure; its document waits behind it. */
  Parked: Key & { readonly subject: Subject; readonly failure: unknown }
  /** An operation was left out. */
  Skipped: Key & { readonly subject: Subject; readonly failure: unknown }
  /** An operation failed and is tried again on its policy's schedule. */
  Retrying: Key & { readonly subject: Subject; readonly failure: unknown; readonly attempt: number }
  /** The database cannot be worked with; the same commit is tried again after a pause, for as long as it takes. */
  Waiting: Key & { readonly fault: Fault; readonly failure: unknown; readonly attempt: number }
  /** The subscription failed and is opened again from its cursor after a pause. */
  Reopening: Key & { readonly failure: unknown; readonly attempt: number }
  /** The subscription has stopped, its cursor before what stopped it, and does not start again by itself. */
  Halted: Key & { readonly failure: unknown }
}>

export const { $is: is, $match: match, Halted, Parked, Reopening, Retrying, Skipped, Waiting } = Data.taggedEnum<
  Incident
>()
