/**
 * A parcel: the strands of a batch in hand, as one list for all who were given the same.
 *
 *     room │ a · b · c │ d …  ──▶ parcel (a · b · c) ◀── room │ a · b · c │ d …  ◀── room …
 *
 * Of a thousand followers who want the same, one takes strand after strand; the others find that they would take about the
 * same, and take just that. What is counted of each strand, and worked out of all of them, is then done once.
 *
 * Invariant: while somebody holds it, its strands are counted among those in hand, once. In rooms they may be counted for
 * longer than they are there, until somebody needs the room.
 */

import type { Strand } from "../domain/Strand.js"
import type { Batch } from "./Batch.js"
import type { Holding } from "./Holding.js"

export class Parcel {
  private holders = 1
  /** So many have taken it out of their rooms, where its strands are still counted. */
  private moved = 0
  readonly bytes: number

  constructor(
    private readonly parcels: Parcels,
    readonly strands: ReadonlyArray<Strand>,
    readonly operations: number
  ) {
    let bytes = 0
    for (const strand of strands) {
      parcels.hands.add(strand)
      bytes += strand.bytes
    }
    this.bytes = bytes
  }

  /** One more holds it, who had its strands in a room. */
  take(): void {
    this.holders++
    if (this.moved++ === 0) this.parcels.unsettled.add(this)
    // One of those that are left in rooms may be the window.
    if (this.parcels.rooms.holders(this.strands.at(-1)!) <= this.moved + 1) this.settle()
  }

  /** One of them lets go. */
  letGo(): void {
    if (--this.holders > 0) return
    this.settle()
    this.parcels.forget(this)
    for (const strand of this.strands) this.parcels.hands.release(strand)
  }

  /** Counts its strands no more for the rooms that they have left. */
  settle(): void {
    const { moved, parcels, strands } = this
    if (moved === 0) return
    this.moved = 0
    parcels.unsettled.delete(this)
    for (const strand of strands) parcels.rooms.release(strand, moved)
  }
}

/** The parcels in hand. */
export class Parcels {
  private readonly byFirst = new WeakMap<Strand, Parcel>()
  /** Those whose strands are still counted for rooms that they have left. */
  readonly unsettled = new Set<Parcel>()

  constructor(
    readonly rooms: Holding,
    readonly hands: Holding
  ) {}

  /** Has the rooms count just what is in them: to be done before somebody waits for room. */
  settle(): void {
    for (const parcel of this.unsettled) parcel.settle()
  }

  /** A parcel for one alone. */
  keep(strands: ReadonlyArray<Strand>, operations: number): Parcel {
    return new Parcel(this, strands, operations)
  }

  /** A parcel of at least one strand, that others may find. */
  share({ operations, strands }: Batch): Parcel {
    const parcel = this.keep(strands, operations)
    this.byFirst.set(strands[0]!, parcel)
    return parcel
  }

  /** What somebody holds that begins with this strand. */
  from(first: Strand | undefined): Parcel | undefined {
    return first === undefined ? undefined : this.byFirst.get(first)
  }

  forget(parcel: Parcel): void {
    const [first] = parcel.strands
    if (first !== undefined && this.byFirst.get(first) === parcel) this.byFirst.delete(first)
  }
}
