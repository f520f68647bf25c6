/**
 * A room: the strands that wait for one subscription, and how far its source has been read.
 *
 *     put ──▶ │ waiting strands │ ──▶ take, a batch
 *
 * Invariants: strands leave in the order they came; `position` of a batch is that of the last strand that left whole, or
 * further where only unwanted strands follow it.
 */

import type * as Exit from "effect/Exit"
import type { Position } from "../domain/Position.js"
import type { Strand } from "../domain/Strand.js"
import type { Batch, Limits } from "./Batch.js"
import { Fifo } from "./Fifo.js"
import type { Parcel } from "./Parcel.js"

/** What may be taken at once beside the limits of a batch. */
export interface Allowance {
  /** Bytes; the strand that reaches the bound may exceed it. */
  readonly bytes: number
  /** What a strand counts towards them. */
  readonly weigh: (strand: Strand) => number
}

export class Room {
  private readonly strands = new Fifo<Strand>()
  /** How many operations of the first waiting strand have left. */
  private offset = 0
  private bytes = 0
  /** The position up to which everything wanted has left. */
  private left: Position
  /** The position up to which everything wanted has come. */
  seen: Position
  /** Where the batch began that was taken last, until the next one is asked for. */
  outstandingFrom: Position | undefined = undefined
  operations = 0
  unwanted = 0
  /** Whether unwanted strands have waited long enough for the cursor to move past them. */
  pressing = false
  /** Since when the cursor has stood behind unwanted strands alone, in milliseconds. */
  behindSince: number | undefined = undefined
  end: Exit.Exit<void, unknown> | undefined = undefined

  /** Operations that may wait: those of two batches, as large as they are in the beginning. */
  private readonly operationsMax: number

  constructor(after: Position, readonly limits: Limits) {
    this.operationsMax = 2 * limits.operations
    this.left = after
    this.seen = after
  }

  get isEmpty(): boolean {
    return this.strands.isEmpty
  }

  /** Whether the first strand has left in part. */
  get isBroken(): boolean {
    return this.offset > 0
  }

  get fillsBatch(): boolean {
    return this.operations >= this.limits.operations || this.bytes >= this.limits.bytes
  }

  get isFull(): boolean {
    return this.operations >= this.operationsMax || this.bytes >= 2 * this.limits.bytes
  }

  /** Whether there is a batch to take: strands, or an overdue move of the cursor past unwanted ones. */
  get hasWork(): boolean {
    return !this.isEmpty ||
      (this.unwanted > 0 && (this.pressing || this.unwanted >= this.limits.unwanted || this.end !== undefined))
  }

  /** Where everything wanted has left, and is not outstanding. */
  get passed(): Position {
    return this.outstandingFrom ?? (this.isEmpty ? this.seen : this.left)
  }

  get first(): Strand | undefined {
    return this.strands.first
  }

  get oldest(): string | undefined {
    return this.strands.first?.operations[this.offset]?.timestamp
  }

  put(strand: Strand, wanted: boolean): void {
    this.seen = strand.position
    if (!wanted || strand.operations.length === 0) {
      this.unwanted++
      return
    }
    this.strands.push(strand)
    this.operations += strand.operations.length
    this.bytes += strand.bytes
  }

  /** Takes what fits a batch, at least one operation if there is any; `leaves` is told of each strand that leaves whole. */
  take(allowance?: Allowance, leaves?: (strand: Strand) => void): Batch {
    const { limits } = this
    const weightMax = allowance?.bytes ?? Infinity
    const strands: Array<Strand> = []
    let operations = 0
    let bytes = 0
    let weight = 0
    this.outstandingFrom = this.left
    while (
      !this.isEmpty && operations < limits.operations && (bytes === 0 || bytes < limits.bytes) &&
      (strands.length === 0 || weight < weightMax)
    ) {
      const strand = this.strands.first!
      const take = Math.min(strand.operations.length - this.offset, limits.operations - operations)
      const whole = this.offset + take === strand.operations.length
      strands.push(
        whole && this.offset === 0
          ? strand
          : { ...strand, operations: strand.operations.slice(this.offset, this.offset + take) }
      )
      operations += take
      bytes += strand.bytes
      if (allowance !== undefined) weight += allowance.weigh(strand)
      if (whole) {
        this.strands.shift()
        this.offset = 0
        this.left = strand.position
        this.bytes -= strand.bytes
        leaves?.(strand)
      } else {
        this.offset += take
      }
    }
    this.operations -= operations
    if (this.isEmpty) this.pass(this.seen)
    return { strands, position: this.left, operations }
  }

  /**
   * Takes the strands of this parcel, where they are the first ones and all that there is or half a batch at least; otherwise
   * `undefined`.
   */
  takeAs(parcel: Parcel): Batch | undefined {
    const { bytes, operations, strands } = parcel
    const { limits } = this
    const fits = this.offset === 0 && operations <= limits.operations && bytes <= limits.bytes &&
      (operations >= limits.operations / 2 || strands.length === this.strands.length) &&
      this.strands.startsWith(strands)
    if (!fits) return undefined
    this.outstandingFrom = this.left
    this.strands.drop(strands.length)
    this.operations -= operations
    this.bytes -= bytes
    this.left = strands.at(-1)!.position
    if (this.isEmpty) this.pass(this.seen)
    return { strands, position: this.left, operations }
  }

  /** The cursor has moved: nothing up to this position was wanted. */
  pass(position: Position): void {
    if (position > this.left) this.left = position
    this.unwanted = this.seen > position ? 1 : 0
    this.pressing = false
    this.behindSince = undefined
  }

  /**
   * Forgets what waits, as if it had not come: `seen` goes back. A strand that has left in part stays, and is returned. `drops`
   * is told of each strand that goes, in their order.
   */
  clear(drops: (strand: Strand) => void): Strand | undefined {
    const kept = this.offset > 0 ? this.strands.shift() : undefined
    while (!this.strands.isEmpty) drops(this.strands.shift())
    if (kept !== undefined) this.strands.push(kept)
    this.operations = kept === undefined ? 0 : kept.operations.length - this.offset
    this.bytes = kept?.bytes ?? 0
    this.seen = kept?.position ?? this.left
    this.unwanted = 0
    return kept
  }
}
