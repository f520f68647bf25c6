/**
 * No such start: a processor is to begin at a place that its source does not have.
 */

import * as Data from "effect/Data"
import type { Position } from "../domain/Position.js"
import type { StartFrom } from "../process/Processor.js"
import type { Key } from "./Cursors.js"

/** A source has no such place to begin at. Nothing was written: a later start decides anew. */
export class NoSuchStart extends Data.TaggedError("NoSuchStart")<
  Key & {
    readonly startFrom: StartFrom
    /** Where the source ends; `undefined` when it does not say. */
    readonly head: Position | undefined
  }
> {
  override get message(): string {
    const what = this.head === undefined
      ? "the source does not say where it ends; begin at a position"
      : `the source ends at position ${this.head}`
    const where = this.startFrom === "current" ? "the head" : `position ${this.startFrom}`
    return `${this.processor} cannot begin at ${where} of ${this.source}: ${what}`
  }
}
