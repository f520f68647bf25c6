/**
 * A holding: the strands that are in memory, each counted once, however many hold it.
 */

import type { Strand } from "../domain/Strand.js"

export class Holding {
  /** What the strands occupy together, in bytes, as their sources estimate it. */
  bytes = 0
  private readonly times = new Map<Strand, number>()

  constructor(
    /** What they should occupy at most. Whoever adds looks first. */
    readonly bytesMax: number
  ) {}

  get free(): number {
    return Math.max(0, this.bytesMax - this.bytes)
  }

  has(strand: Strand): boolean {
    return this.times.has(strand)
  }

  /** So many more hold the strand. */
  add(strand: Strand, holders = 1): void {
    const known = this.times.get(strand)
    if (known === undefined) this.bytes += strand.bytes
    this.times.set(strand, (known ?? 0) + holders)
  }

  /** One of them lets go. */
  release(strand: Strand): void {
    const known = this.times.get(strand)
    if (known === undefined) return
    if (known > 1) {
      this.times.set(strand, known - 1)
    } else {
      this.times.delete(strand)
      this.bytes -= strand.bytes
    }
  }
}
