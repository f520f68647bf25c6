/**
 * The batch: what is committed together, and how far the source is read meanwhile.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import type { Position } from "../../src/domain/Position.js"
import { origin } from "../../src/domain/Position.js"
import type { Strand } from "../../src/domain/Strand.js"
import * as Batch from "../../src/ingest/Batch.js"
import * as Eventually from "../support/Eventually.js"

const strand = (position: number, operations = 1, bytes = 10): Strand =>
  ({
    position: BigInt(position),
    documentId: `d${position}`,
    operations: Array.from({ length: operations }, (_, index) => ({ index, timestamp: `t${position}-${index}` })),
    bytes
  }) as unknown as Strand

const many = (count: number) => Array.from({ length: count }, (_, i) => strand(i + 1))

const form = <E>(
  strands: Stream.Stream<Strand, E>,
  limits: Partial<Batch.Limits> = {},
  wanted: (strand: Strand) => boolean = () => true
) => Batch.form(strands, { after: origin, wanted, limits: { ...Batch.defaults, ...limits } })

const next = <E>(batches: Batch.Batches<E>) => Effect.map(batches.take, Option.getOrThrow)

/** What a batch holds, as strand:operations, and its position. */
const shape = (batch: Batch.Batch) => [
  batch.strands.map((each) => `${each.position}:${each.operations.map((operation) => operation.index).join("")}`).join(
    " "
  ),
  Number(batch.position)
]

/** All that is left, taken when it is all there. */
const drain = <E>(batches: Batch.Batches<E>) =>
  Effect.gen(function*() {
    yield* Eventually.settled
    const shapes: Array<ReadonlyArray<unknown>> = []
    for (let batch = yield* batches.take; Option.isSome(batch); batch = yield* batches.take) {
      expect(batch.value.operations).toBe(batch.value.strands.reduce((sum, each) => sum + each.operations.length, 0))
      shapes.push(shape(batch.value))
      yield* Eventually.settled
    }
    return shapes
  })

describe("what is passed", () => {
  it.scoped("is what was looked at and not wanted, and of what was taken only what is committed, told by the next take", () =>
    Effect.gen(function*() {
      const queue = yield* Queue.unbounded<Strand>()
      const batches = yield* form(Stream.fromQueue(queue), { operations: 2 }, ({ position }) => position % 10n === 0n)
      const passed = Effect.zipRight(Eventually.settled, batches.passed)
      expect(yield* passed).toBe(0n)
      yield* Queue.offerAll(queue, [strand(1), strand(2)])
      expect(yield* passed).toBe(2n)
      yield* Queue.offerAll(queue, [strand(10, 3), strand(11)])
      expect(yield* passed).toBe(0n)
      expect(shape(yield* next(batches))).toEqual(["10:01", 0])
      expect(yield* passed).toBe(0n)
      expect(shape(yield* next(batches))).toEqual(["10:2", 11])
      expect(yield* passed).toBe(0n)
      const waiting = yield* Effect.fork(next(batches))
      expect(yield* passed).toBe(11n)
      yield* Queue.offer(queue, strand(12))
      expect(yield* passed).toBe(12n)
      yield* Queue.offer(queue, strand(20))
      expect(shape(yield* Fiber.join(waiting))).toEqual(["20:0", 20])
      expect(yield* passed).toBe(11n)
    }))
})

describe("limits that change", () => {
  it.scoped("count from the next batch on", () =>
    Effect.gen(function*() {
      let operations = 4
      const limits = {
        ...Batch.defaults,
        get operations() {
          return operations
        }
      }
      const batches = yield* Batch.form(Stream.fromIterable(many(12)), { after: origin, wanted: () => true, limits })
      const sizes: Array<number> = []
      for (const size of [4, 1, 2, 3]) {
        operations = size
        sizes.push((yield* next(batches)).operations)
        yield* Eventually.settled
      }
      expect(sizes).toEqual([4, 1, 2, 3])
      operations = 100
      expect(yield* drain(batches)).toEqual([["11:0 12:0", 12]])
    }))
})

describe("a batch", () => {
  it.scoped("has a lone strand in it at once, which waits for nobody and on no clock", () =>
    Effect.gen(function*() {
      const queue = yield* Queue.unbounded<Strand>()
      const batches = yield* form(Stream.fromQueue(queue))
      for (const position of [1, 2, 3]) {
        yield* Queue.offer(queue, strand(position))
        expect(shape(yield* next(batches))).toEqual([`${position}:0`, position])
      }
    }))

  it.scoped("has everything in it that gathered while the last one was at work", () =>
    Effect.gen(function*() {
      const queue = yield* Queue.unbounded<Strand>()
      const batches = yield* form(Stream.fromQueue(queue))
      yield* Queue.offer(queue, strand(1))
      yield* next(batches)
      for (const each of many(6).slice(1)) {
        yield* Queue.offer(queue, each)
        yield* Eventually.settled
      }
      expect(shape(yield* next(batches))).toEqual(["2:0 3:0 4:0 5:0 6:0", 6])
    }))

  it.scoped("holds no more operations than its bound, and the rest goes with the next", () =>
    Effect.gen(function*() {
      expect(yield* drain(yield* form(Stream.fromIterable(many(5)), { operations: 2 }))).toEqual([
        ["1:0 2:0", 2],
        ["3:0 4:0", 4],
        ["5:0", 5]
      ])
    }))

  it.scoped("ends with the strand that reaches its bound of bytes; one may exceed it alone", () =>
    Effect.gen(function*() {
      const strands = [strand(1, 1, 60), strand(2, 1, 60), strand(3, 1, 500), strand(4, 1, 1), strand(5, 1, 1)]
      expect(yield* drain(yield* form(Stream.fromIterable(strands), { bytes: 100 }))).toEqual([
        ["1:0 2:0", 2],
        ["3:0", 3],
        ["4:0 5:0", 5]
      ])
    }))

  it.scoped("takes a longer strand in pieces, and its position stays before that strand until the last", () =>
    Effect.gen(function*() {
      const strands = [strand(1), strand(2, 7), strand(3)]
      expect(yield* drain(yield* form(Stream.fromIterable(strands), { operations: 3 }))).toEqual([
        ["1:0 2:01", 1],
        ["2:234", 1],
        ["2:56 3:0", 3]
      ])
    }))

  it.scoped("a strand that is both too long and too large is taken in pieces all the same", () =>
    Effect.gen(function*() {
      const strands = [strand(1, 5, 1_000), strand(2)]
      expect(yield* drain(yield* form(Stream.fromIterable(strands), { operations: 2, bytes: 100 }))).toEqual([
        ["1:01", 0],
        ["1:23", 0],
        ["1:4", 1],
        ["2:0", 2]
      ])
    }))
})

describe("unwanted strands", () => {
  const odd = (each: Strand) => each.position % 2n === 1n

  it.scoped("are passed by the position of the batch before them, when nothing wanted is left", () =>
    Effect.gen(function*() {
      expect(yield* drain(yield* form(Stream.fromIterable(many(6)), { operations: 2 }, odd))).toEqual([
        ["1:0 3:0", 3],
        ["5:0", 6]
      ])
    }))

  it.scoped("alone move the cursor at the end of the source, once", () =>
    Effect.gen(function*() {
      expect(yield* drain(yield* form(Stream.fromIterable(many(4)), {}, () => false))).toEqual([["", 4]])
    }))

  it.scoped("move the cursor once there are many, and do not while they are few", () =>
    Effect.gen(function*() {
      const queue = yield* Queue.unbounded<Strand>()
      const batches = yield* form(Stream.fromQueue(queue), { unwanted: 3 }, () => false)
      const taken = yield* Effect.fork(next(batches))
      for (const position of [1, 2]) {
        yield* Queue.offer(queue, strand(position))
        yield* Eventually.settled
      }
      expect(Option.isNone(yield* Fiber.poll(taken))).toBe(true)
      yield* Queue.offer(queue, strand(3))
      expect(shape(yield* Fiber.join(taken))).toEqual(["", 3])
    }))

  it.scoped("move the cursor after a while, however steadily others follow them", () =>
    Effect.gen(function*() {
      const queue = yield* Queue.unbounded<Strand>()
      const batches = yield* form(Stream.fromQueue(queue), { unwantedMillis: 1_000 }, () => false)
      const taken = yield* Effect.fork(next(batches))
      yield* Queue.offer(queue, strand(1))
      yield* Eventually.settled
      for (let position = 2; position <= 4; position++) {
        yield* TestClock.adjust("400 millis")
        yield* Queue.offer(queue, strand(position))
        yield* Eventually.settled
      }
      expect(Option.isSome(yield* Fiber.poll(taken))).toBe(true)
    }))

  it.scoped("and empty ones never come out of a batch", () =>
    Effect.gen(function*() {
      const strands = [strand(1, 0), strand(2), strand(3, 0)]
      expect(yield* drain(yield* form(Stream.fromIterable(strands)))).toEqual([["2:0", 3]])
    }))
})

describe("the source", () => {
  it.scoped("that fails is heard of after everything that was read before", () =>
    Effect.gen(function*() {
      const batches = yield* form(Stream.concat(Stream.fromIterable(many(3)), Stream.fail("cut")), { operations: 2 })
      yield* Eventually.settled
      expect(shape(yield* next(batches))).toEqual(["1:0 2:0", 2])
      expect(shape(yield* next(batches))).toEqual(["3:0", 3])
      expect(yield* Effect.flip(batches.take)).toBe("cut")
    }))

  it.scoped("that dies ends the batches with its defect", () =>
    Effect.gen(function*() {
      const batches = yield* form(Stream.concat(Stream.fromIterable(many(1)), Stream.die("bug")))
      yield* Eventually.settled
      yield* next(batches)
      expect(yield* Effect.exit(batches.take)).toMatchObject({ _tag: "Failure", cause: { _tag: "Die", defect: "bug" } })
    }))

  it.scoped("is not read ahead beyond the room: two batches and what was on its way", () =>
    Effect.gen(function*() {
      let read = 0
      const endless = Stream.iterate(1, (n) => n + 1).pipe(
        Stream.rechunk(1),
        Stream.map((n) => {
          read = n
          return strand(n)
        })
      )
      const batches = yield* form(endless, { operations: 5 })
      yield* Eventually.settled
      const ahead = read
      expect(ahead).toBeLessThanOrEqual(12)
      yield* Eventually.settled
      expect(read).toBe(ahead)
      for (let i = 1; i <= 20; i++) {
        yield* next(batches)
        yield* Eventually.settled
        expect(read).toBeLessThanOrEqual(5 * i + 12)
      }
    }))

  it.scoped("is bounded by bytes as well", () =>
    Effect.gen(function*() {
      let read = 0
      const endless = Stream.iterate(1, (n) => n + 1).pipe(
        Stream.rechunk(1),
        Stream.map((n) => {
          read = n
          return strand(n, 1, 1_000)
        })
      )
      yield* form(endless, { bytes: 3_000 })
      yield* Eventually.settled
      expect(read).toBeLessThanOrEqual(8)
    }))

  it.scoped("is let go when the scope closes", () =>
    Effect.gen(function*() {
      let isOpen = true
      const held = Stream.ensuring(Stream.never, Effect.sync(() => void (isOpen = false)))
      yield* Effect.scoped(Effect.zipRight(form(held), Eventually.settled))
      expect(isOpen).toBe(false)
    }))

  it.scoped("whatever its chunks and the bounds, every operation comes once and in order, and no position runs ahead", () =>
    Effect.forEach([1, 2, 3, 5, 8, 13], (operations) =>
      Effect.gen(function*() {
        const strands = Array.from({ length: 30 }, (_, i) => strand(i + 1, i % 5, 1 + (i * 37) % 90))
        const chunks = Stream.fromChunks(...Chunk.chunksOf(Chunk.fromIterable(strands), 1 + operations % 4))
        const batches = yield* form(chunks, { operations, bytes: 100 })
        const seen: Array<string> = []
        let last = 0n as Position
        for (let batch = yield* batches.take; Option.isSome(batch); batch = yield* batches.take) {
          const { operations: count, position, strands: some } = batch.value
          expect(count).toBeLessThanOrEqual(operations)
          expect(position >= last).toBe(true)
          last = position
          for (const each of some) {
            seen.push(...each.operations.map((operation) => `${each.position}-${operation.index}`))
          }
          const passed = strands.filter((each) => each.position <= position)
          for (const each of passed) {
            for (const operation of each.operations) expect(seen).toContain(`${each.position}-${operation.index}`)
          }
        }
        expect(seen).toEqual(strands.flatMap((each) => each.operations.map((o) => `${each.position}-${o.index}`)))
        expect(last).toBe(30n)
      }), { discard: true }))
})

describe("what lingers", () => {
  it.scoped("waits for others until its time has come, or the batch is full", () =>
    Effect.gen(function*() {
      const queue = yield* Queue.unbounded<Strand>()
      const batches = yield* form(Stream.fromQueue(queue), { lingerMillis: 1_000, operations: 3 })
      const first = yield* Effect.fork(next(batches))
      yield* Queue.offer(queue, strand(1))
      yield* Eventually.settled
      yield* TestClock.adjust("999 millis")
      expect(Option.isNone(yield* Fiber.poll(first))).toBe(true)
      yield* Queue.offer(queue, strand(2))
      yield* Eventually.settled
      yield* TestClock.adjust("1 millis")
      expect(shape(yield* Fiber.join(first))).toEqual(["1:0 2:0", 2])
      const second = yield* Effect.fork(next(batches))
      for (const position of [3, 4, 5]) yield* Queue.offer(queue, strand(position))
      expect(shape(yield* Fiber.join(second))).toEqual(["3:0 4:0 5:0", 5])
    }))
})

describe("what waits", () => {
  it.scoped("is counted, and its oldest operation named", () =>
    Effect.gen(function*() {
      const batches = yield* form(Stream.fromIterable([strand(1, 3), strand(2)]), { operations: 2 })
      yield* Eventually.settled
      expect(yield* batches.waiting).toEqual({ operations: 4, oldest: "t1-0" })
      yield* next(batches)
      expect(yield* batches.waiting).toEqual({ operations: 2, oldest: "t1-2" })
      yield* next(batches)
      expect(yield* batches.waiting).toEqual({ operations: 0, oldest: undefined })
    }))
})
