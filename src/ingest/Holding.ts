/**
 * A holding: the strands that are in memory, each counted once, however many hold it.
 */

import type { Strand } from "../domain/Strand.js"

export class Holding {
  /** What the strands occupy together, in bytes, as their sources estimate it. */
  bytes = 0
  /** Weak, since old tables of a map that much comes to and leaves would keep what was in them, and each other. */
  private readonly held = new WeakMap<Strand, { times: number }>()

  constructor(
    /** What they should occupy at most. Whoever adds looks first. */
    readonly bytesMax: number
  ) {}

  get free(): number {
    return Math.max(0, this.bytesMax - this.bytes)
  }

  has(strand: Strand): boolean {
    return this.held.has(strand)
  }

  /** So many more hold the strand. */
  add(strand: Strand, holders = 1): void {
    const known = this.held.get(strand)
    if (known !== undefined) {
      known.times += holders
      return
    }
    this.bytes += strand.bytes
    this.held.set(strand, { times: holders })
  }

  /** How many hold the strand. */
  holders(strand: Strand): number {
    return this.held.get(strand)?.times ?? 0
  }

  /** So many of them let go. */
  release(strand: Strand, holders = 1): void {
    const known = this.held.get(strand)
    if (known === undefined) return
    known.times -= holders
    if (known.times > 0) return
    this.held.delete(strand)
    this.bytes -= strand.bytes
  }
}
