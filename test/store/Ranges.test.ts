/**
 * Ranges, held against what they say of each slice by itself.
 */
import { describe, expect, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Partition from "../../src/domain/Partition.js"
import * as Position from "../../src/domain/Position.js"
import * as Slice from "../../src/domain/Slice.js"
import * as Ranges from "../../src/store/Ranges.js"

const at = (value: number) => Position.make(BigInt(value))

/** Ends of stretches, and where each stretch is; every second one may be missing. */
const cuts = fc.array(fc.tuple(fc.integer({ min: 0, max: Slice.count - 2 }), fc.nat(9)), { maxLength: 6 })

const stretchesOf = (ends: ReadonlyArray<readonly [number, number]>, last: number): ReadonlyArray<Ranges.Ahead> => {
  const parts: Array<Ranges.Ahead> = []
  let first = 0
  const all = new Map([...ends.toSorted(([one], [other]) => one - other), [Slice.count - 1, last] as const])
  for (const [end, position] of all) {
    parts.push({ slices: { first, last: end }, position: at(position) })
    first = end + 1
  }
  return parts
}

const whole = fc.tuple(cuts, fc.nat(9)).map(([ends, last]) => stretchesOf(ends, last))
const some = fc.tuple(whole, fc.array(fc.boolean(), { minLength: 7, maxLength: 7 })).map(([parts, kept]) =>
  parts.filter((_, i) => kept[i])
)

/** The position of each slice; `undefined` where it is in no stretch. */
const bySlice = (parts: ReadonlyArray<Ranges.Ahead>): ReadonlyArray<Position.Position | undefined> =>
  Array.from({ length: Slice.count }, (_, slice) => parts.find(({ slices }) => Slice.isIn(slices, slice))?.position)

describe("stretches", () => {
  it("the further of two is that of each slice, side by side and in order", () => {
    fc.assert(fc.property(whole, some, (parts, others) => {
      const found = Ranges.furthest(parts, others)
      const theirs = bySlice(others)
      expect(bySlice(found)).toEqual(
        bySlice(parts).map((position, slice) => {
          const other = theirs[slice]
          return other !== undefined && other > position! ? other : position
        })
      )
      expect(found.map(({ slices }) => slices.first)).toEqual([
        0,
        ...found.slice(0, -1).map((part) => part.slices.last + 1)
      ])
    }))
  })

  it("that are behind are those slices alone, where they are", () => {
    fc.assert(fc.property(whole, some, (parts, others) => {
      const theirs = bySlice(others)
      expect(bySlice(Ranges.behind(parts, others))).toEqual(
        bySlice(parts).map((position, slice) => {
          const other = theirs[slice]
          return other !== undefined && other > position! ? position : undefined
        })
      )
    }))
  })
})

describe("a division", () => {
  it("keeps of each slice how far it has come, and how far it was handled once, also as a row has it", () => {
    const count = fc.integer({ min: 1, max: 9 })
    fc.assert(
      fc.property(whole, some, fc.array(count, { minLength: 1, maxLength: 4 }), (come, handled, counts) => {
        let standings: ReadonlyArray<Ranges.Standing> = [{
          slices: Slice.whole,
          position: Ranges.bounds(come).lowest,
          ahead: come.filter(({ position }) => position > Ranges.bounds(come).lowest),
          handled,
          sequence: 0n,
          letters: 0n
        }]
        for (const partitions of counts) {
          standings = Ranges.divide(standings, Partition.all(partitions).map(Partition.slices)).map((standing) => ({
            ...standing,
            ahead: Ranges.fromText(Ranges.toText(standing.ahead), standing.position),
            handled: Ranges.fromText(Ranges.toText(standing.handled), standing.position)
          }))
        }
        const stand = bySlice(come)
        const once = bySlice(handled)
        expect(bySlice(standings.flatMap(Ranges.stretches))).toEqual(stand)
        for (const [slice, position] of stand.entries()) {
          const own = standings.find(({ slices }) => Slice.isIn(slices, slice))!
          for (const value of [0, 4, 9, 10]) {
            // What it has passed never comes again.
            if (at(value) <= position!) continue
            expect(Ranges.wasHandled(own, slice, at(value))).toBe(once[slice] !== undefined && at(value) <= once[slice])
          }
        }
      }),
      { numRuns: 50 }
    )
  })
})
