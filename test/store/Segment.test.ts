/**
 * The segment: however it is cut, every operation is in one part, in order, and no position runs ahead.
 */
import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import type { Operation } from "../../src/domain/Operation.js"
import type { Position } from "../../src/domain/Position.js"
import type { Strand } from "../../src/domain/Strand.js"
import type { Letter } from "../../src/store/Letters.js"
import * as Segment from "../../src/store/Segment.js"

/** A batch: how many operations each strand holds, whether the first is a remainder and whether the last is a piece. */
const batches = FastCheck.record({
  sizes: FastCheck.array(FastCheck.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 8 }),
  lastIsPiece: FastCheck.boolean()
})

const segmentOf = ({ lastIsPiece, sizes }: typeof batches extends FastCheck.Arbitrary<infer A> ? A : never) => {
  const strands = sizes.map((size, i) =>
    ({
      position: BigInt(10 + 2 * i),
      documentId: `d${i}`,
      operations: Array.from({ length: size }, (_, index) => ({ index }) as Operation)
    }) as unknown as Strand
  )
  // Behind the last whole strand there may be unwanted ones, which the position has passed already.
  const position = lastIsPiece
    ? strands.at(-2)?.position ?? (7n as Position)
    : (strands.at(-1)!.position + 1n) as Position
  return Segment.fromBatch(
    { strands, position, operations: sizes.reduce((a, b) => a + b, 0) },
    7n as Position
  )
}

const operationsOf = (segment: Segment.Segment) => segment.strands.flatMap((strand) => strand.operations)

/** Every way to take a segment apart, down to single operations. */
const expectSound = (whole: Segment.Segment, parts: ReadonlyArray<Segment.Segment>) => {
  expect(parts.flatMap(operationsOf)).toEqual(operationsOf(whole))
  expect(parts.every((part) => part.operations === operationsOf(part).length && part.operations > 0)).toBe(true)
  expect(parts[0]!.from).toBe(whole.from)
  expect(parts.at(-1)!.position).toBe(whole.position)
  parts.slice(1).forEach((part, i) => expect(part.from).toBe(parts[i]!.position))
  const all = operationsOf(whole)
  let done = 0
  for (const part of parts) {
    done += part.operations
    const untried = new Set(all.slice(done))
    // The strands that still hold an untried operation are not passed.
    for (const strand of whole.strands) {
      if (strand.operations.some((operation) => untried.has(operation))) {
        expect(part.position < strand.position).toBe(true)
      }
    }
    expect(part.position >= part.from && part.position <= whole.position).toBe(true)
  }
}

describe("a segment of a batch", () => {
  it("cut at any place keeps every operation once and in order, and no part's position passes an untried one", () => {
    FastCheck.assert(FastCheck.property(batches, FastCheck.nat(), (batch, n) => {
      const segment = segmentOf(batch)
      if (segment.operations < 2) return
      expectSound(segment, Segment.split(segment, 1 + n % (segment.operations - 1)))
    }))
  })

  it("halved again and again, down to single operations, it is still whole", () => {
    const down = (segment: Segment.Segment): ReadonlyArray<Segment.Segment> =>
      segment.operations === 1 ? [segment] : Segment.halves(segment).flatMap(down)
    FastCheck.assert(FastCheck.property(batches, (batch) => {
      const segment = segmentOf(batch)
      expectSound(segment, down(segment))
    }))
  })

  it("cut around an operation it has that one alone in the middle", () => {
    FastCheck.assert(FastCheck.property(batches, FastCheck.nat(), (batch, n) => {
      const segment = segmentOf(batch)
      const operation = operationsOf(segment)[n % segment.operations]!
      const { after, before, itself } = Segment.around(segment, operation)
      expect(operationsOf(itself)).toEqual([operation])
      expect(operationsOf(itself)[0]).toBe(operation)
      expectSound(segment, [...before, itself, ...after])
    }))
  })

  it("knows its own operations from equal ones", () => {
    const segment = segmentOf({ sizes: [2, 2], lastIsPiece: false })
    expect(Segment.holdsOnce(segment, operationsOf(segment)[3])).toBe(true)
    expect(Segment.holdsOnce(segment, { ...operationsOf(segment)[3]! })).toBe(false)
    expect(Segment.holdsOnce(segment, undefined)).toBe(false)
    const twice = { ...segment, strands: [...segment.strands, ...segment.strands] }
    expect(Segment.holdsOnce(twice, operationsOf(segment)[3])).toBe(false)
  })
})

describe("a segment of letters", () => {
  it("stays at its position however it is cut, and each part knows its letters", () => {
    const letters = Array.from({ length: 5 }, (_, i) => {
      const operation = { index: i } as Operation
      return { ordinal: BigInt(i + 1), operation, strand: { position: BigInt(i), operations: [operation] } }
    }) as unknown as ReadonlyArray<Letter>
    const segment = Segment.fromLetters(letters, 99n as Position)
    for (let at = 1; at < 5; at++) {
      const [before, after] = Segment.split(segment, at)
      expect([before.position, after.position]).toEqual([99n, 99n])
      expect(letters.map(({ ordinal }) => Segment.holds(before, ordinal))).toEqual(letters.map((_, i) => i < at))
      expect(letters.map(({ ordinal }) => Segment.holds(after, ordinal))).toEqual(letters.map((_, i) => i >= at))
      expect(Segment.isFromLetters(after)).toBe(true)
    }
  })
})
