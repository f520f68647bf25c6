/**
 * A window: the last strands that were read, for whoever comes up from behind.
 *
 *     … │ strand · strand · strand │
 *      from                     position of the run
 *
 * Invariant: every strand of the source above `from` that was read is in it.
 */

import type { Position } from "../domain/Position.js"
import type { Strand } from "../domain/Strand.js"
import type { Holding } from "./Holding.js"

export class Window {
  private strands: Array<Strand> = []
  private start = 0
  private bytes = 0

  constructor(
    /** Where it begins. */
    public from: Position,
    private readonly rooms: Holding,
    private readonly strandsMax: number,
    private readonly bytesMax: number
  ) {}

  /** Those above a position, in order. */
  after(position: Position): ReadonlyArray<Strand> {
    let low = this.start
    let high = this.strands.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.strands[middle]!.position > position) high = middle
      else low = middle + 1
    }
    return this.strands.slice(low)
  }

  /** Adds a strand behind the others, and lets go of the first ones where there are too many. */
  add(strand: Strand): void {
    this.strands.push(strand)
    this.rooms.add(strand)
    this.bytes += strand.bytes
    while (this.strands.length - this.start > this.strandsMax || this.bytes > this.bytesMax) this.shift()
  }

  /** Begins behind a strand that is not in it. */
  skip({ position }: Strand): void {
    this.clear()
    this.from = position
  }

  /** Whether there is room in memory for one more; what is only kept here gives way. */
  makeRoom({ bytes }: Strand): boolean {
    const { rooms } = this
    while (rooms.bytes > 0 && rooms.bytes + bytes > rooms.bytesMax && this.start < this.strands.length) this.shift()
    return rooms.bytes === 0 || rooms.bytes + bytes <= rooms.bytesMax
  }

  /** Lets go of all. */
  clear(): void {
    while (this.start < this.strands.length) this.shift()
  }

  private shift(): void {
    const strand = this.strands[this.start++]!
    this.bytes -= strand.bytes
    this.from = strand.position
    this.rooms.release(strand)
    if (this.start < 1_024 && this.start < this.strands.length) return
    this.strands = this.strands.slice(this.start)
    this.start = 0
  }
}
