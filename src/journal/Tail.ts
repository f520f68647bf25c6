/**
 * The tail: what this process has appended last, for those of its readers that wait at the end of the log.
 *
 *     commit ──▶ tail ──▶ told of, woken ──▶ reader          without asking the database for what was just given to it
 *                  └ not all that the reader is short of ──▶ it reads a page
 *
 * Invariants: what is in it is committed, and follows each other without a gap, so whoever is at its beginning, or anywhere in
 * it, is given just what the database gave when that was committed; it is no more than {@link operationsMax} operations in {@link bytesMax}
 * bytes, and empty rather than that.
 */

import type { Position } from "../domain/Position.js"
import type { Constraint } from "../ingest/Filter.js"
import * as Filter from "../ingest/Filter.js"
import * as Log from "./Log.js"

/** What one transaction has put into a log. */
export interface Addition {
  /** Where the log began and ended before. */
  readonly before: Log.Bounds
  readonly entries: ReadonlyArray<Log.Entry>
  /** The position of each. */
  readonly positions: ReadonlyArray<Position>
}

/** The most operations that are kept. */
export const operationsMax = 1_000
/** The most bytes that are kept. */
export const bytesMax = 256 * 1024

interface Kept extends Addition {
  readonly head: Position
  readonly operations: number
  readonly bytes: number
}

export class Tail {
  private kept: Array<Kept> = []
  private operations = 0
  private bytes = 0

  /** Takes in what was committed. What came from elsewhere in between is not known, and nothing before it is kept then. */
  add(addition: Addition): void {
    const head = addition.positions.at(-1)
    if (head === undefined) return
    while (this.kept.length > 0 && this.kept.at(-1)!.head !== addition.before.head) this.forgetOldest()
    let operations = 0
    let bytes = 0
    for (const entry of addition.entries) {
      operations += entry.operationCount
      bytes += entry.bytes
    }
    const { before, entries, positions } = addition
    // Without a spread: objects that get other properties behind one share no shape, and are slow to read.
    this.kept.push({ before, entries, positions, head, operations, bytes })
    this.operations += operations
    this.bytes += bytes
    while (this.operations > operationsMax || this.bytes > bytesMax) this.forgetOldest()
  }

  /** All above a position that meets the constraints; `undefined` where it does not know all, or it is more than a page. */
  page(
    after: Position,
    constraints: ReadonlyArray<Constraint>,
    limits: Pick<Log.Limits, "operations" | "bytes">
  ): Log.Page | undefined {
    // Who waits at the end is short of little.
    const from = this.kept.findLastIndex(({ before, head }) => before.head <= after && after < head)
    if (from === -1) return undefined
    const strands: Array<Log.Page["strands"][number]> = []
    let operations = 0
    let bytes = 0
    for (const { entries, positions } of this.kept.slice(from)) {
      for (const [i, entry] of entries.entries()) {
        if (positions[i]! <= after || !Filter.meets(entry, constraints)) continue
        operations += entry.operationCount
        bytes += entry.bytes
        if (operations > limits.operations || bytes > limits.bytes) return undefined
        strands.push(Log.supplied(entry, positions[i]!))
      }
    }
    const last = this.kept.at(-1)!
    return { strands, position: last.head, head: last.head, floor: last.before.floor }
  }

  private forgetOldest(): void {
    const { bytes, operations } = this.kept.shift()!
    this.operations -= operations
    this.bytes -= bytes
  }
}
