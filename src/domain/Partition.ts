/**
 * A partition: the share of a processor's documents that one subscription follows, in order, with a cursor of its own.
 *
 *     1 of 4   slices   0–255      2 of 4   slices 256–511      3 of 4   …
 *
 * Invariant: the partitions of a number divide all slices among them, as evenly as they can, in order, none left over.
 */

import * as Schema from "effect/Schema"
import * as Slice from "./Slice.js"

/** The most partitions that a processor may have. */
export const max = 64

export interface Partition {
  /** Which one it is, from 1. */
  readonly number: number
  /** How many there are. */
  readonly of: number
}

/** How many partitions there may be. */
export const Count = Schema.Int.pipe(Schema.between(1, max)).annotations({
  message: ({ actual }) => ({
    message: `partitions is a whole number from 1 to ${max}; got ${String(actual)}`,
    override: true
  })
})

/** The only one of a processor that is not divided. */
export const whole: Partition = { number: 1, of: 1 }

/** All partitions of this number, in order. */
export const all = (of: number): ReadonlyArray<Partition> =>
  Array.from({ length: of }, (_, i) => ({ number: i + 1, of }))

/** The slices of a partition. */
export const slices = ({ number, of }: Partition): Slice.Range => ({
  first: Math.floor((number - 1) * Slice.count / of),
  last: Math.floor(number * Slice.count / of) - 1
})

/** How it is spoken of behind its processor's name: nothing where there is one only. */
export const show = ({ number, of }: Partition): string => of === 1 ? "" : ` (partition ${number} of ${of})`
