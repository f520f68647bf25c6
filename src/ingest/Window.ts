/**
 * A window: the last strands that were read, for whoever comes up from behind, or comes back.
 *
 *     … │ strand · strand · strand │
 *      from                     position of the run
 *
 * Invariant: every strand of the source above `from` that was read is in it.
 */

import type { Position } from "../domain/Position.js"
import type { Strand } from "../domain/Strand.js"
import { Fifo } from "./Fifo.js"
import type { Holding } from "./Holding.js"

export class Window {
  private readonly strands = new Fifo<Strand>()
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
    let low = 0
    let high = this.strands.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.strands.at(middle).position > position) high = middle
      else low = middle + 1
    }
    return this.strands.from(low)
  }

  /** Adds a strand behind the others, and lets go of the first ones where there are too many. */
  add(strand: Strand): void {
    this.strands.push(strand)
    this.rooms.add(strand)
    this.bytes += strand.bytes
    while (this.strands.length > this.strandsMax || this.bytes > this.bytesMax) this.shift()
  }

  /** Begins behind a strand that is not in it. */
  skip({ position }: Strand): void {
    this.clear()
    this.from = position
  }

  /** Lets go of those up to a position. */
  pass(position: Position): void {
    while (!this.strands.isEmpty && this.strands.first!.position <= position) this.shift()
  }

  /** Whether there is room in memory for one more; what is only kept here gives way. */
  makeRoom({ bytes }: Strand): boolean {
    const { rooms } = this
    while (rooms.bytes > 0 && rooms.bytes + bytes > rooms.bytesMax && !this.strands.isEmpty) this.shift()
    return rooms.bytes === 0 || rooms.bytes + bytes <= rooms.bytesMax
  }

  /** Lets go of all. */
  clear(): void {
    while (!this.strands.isEmpty) this.shift()
  }

  private shift(): void {
    const strand = this.strands.shift()
    this.bytes -= strand.bytes
    this.from = strand.position
    this.rooms.release(strand)
  }
}
