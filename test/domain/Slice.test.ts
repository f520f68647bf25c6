/**
 * A slice: the same for ever, and no slice has much more than its share.
 */
import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as Partition from "../../src/domain/Partition.js"
import * as Slice from "../../src/domain/Slice.js"

describe("a slice", () => {
  it.each([
    ["", 684],
    ["a", 106],
    ["b", 523],
    ["document-1", 863],
    ["document-2", 675],
    ["59a0de7f-64ae-47cd-907a-67445d2d457c", 189],
    ["d878ff67-a34f-4032-a99b-a1666805a0d0", 105],
    ["Größe 丈 😀", 542]
  ])("of the document %j is %i, in every version", (documentId, slice) => {
    expect(Slice.of(documentId)).toBe(slice)
  })

  it.each(
    [
      ["numbered", (i: number) => `document-${i}`],
      ["numbered, short", (i: number) => String(i)],
      ["alike but for their beginning", (i: number) => `${i}-0000-4000-8000-000000000000`],
      ["of hexadecimal digits", (i: number) => (i * 0x9e3779b1 >>> 0).toString(16).padStart(8, "0")]
    ] as const
  )("has its share of documents that are %s", (_, name) => {
    const shares = new Array<number>(Slice.count).fill(0)
    const documents = 100 * Slice.count
    for (let i = 0; i < documents; i++) shares[Slice.of(name(i))]!++
    // Of so many, a fair die gives each slice 100 with a deviation of 10.
    const deviation = Math.sqrt(shares.reduce((sum, share) => sum + (share - 100) ** 2, 0) / Slice.count)
    expect(deviation).toBeLessThan(12)
    expect(Math.max(...shares)).toBeLessThan(160)
    expect(Math.min(...shares)).toBeGreaterThan(50)
  })

  it("is one of 1,024, whatever the document is called", () => {
    FastCheck.assert(FastCheck.property(FastCheck.fullUnicodeString(), (documentId) => {
      const slice = Slice.of(documentId)
      expect(Number.isInteger(slice) && slice >= 0 && slice < Slice.count).toBe(true)
    }))
  })
})

describe("partitions", () => {
  it("hold all slices, each once, and none has two more than another, whatever their number", () => {
    for (let of = 1; of <= Partition.max; of++) {
      const ranges = Partition.all(of).map(Partition.slices)
      expect(ranges.flatMap(({ first, last }) => Array.from({ length: last - first + 1 }, (_, i) => first + i)))
        .toEqual(
          Array.from({ length: Slice.count }, (_, i) => i)
        )
      const sizes = ranges.map(({ first, last }) => last - first + 1)
      expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1)
    }
  })

  it("of one number are the same for ever", () => {
    expect(Partition.all(3).map(Partition.slices)).toEqual([
      { first: 0, last: 340 },
      { first: 341, last: 681 },
      { first: 682, last: 1_023 }
    ])
  })
})
