/**
 * A pace: no more operations than its rate in any time, none lost for it, and batches that keep to their time.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/TestClock"
import { Position } from "../../src/index.js"
import type { Batch } from "../../src/ingest/Batch.js"
import * as Brake from "../../src/ingest/Brake.js"
import * as Pace from "../../src/ingest/Pace.js"
import { Tempo } from "../../src/ingest/Tempo.js"
import * as WallClock from "../support/WallClock.js"

const batch = (operations: number): Batch => ({ strands: [], position: Position.origin, operations })

describe("a rate", () => {
  it.effect("lets a full bucket go at once, and then as much as flows in", () =>
    Effect.gen(function*() {
      const brake = Pace.brake({ operations: 10, per: "1 second" })
      const told: Array<unknown> = []
      const times: Array<number> = []
      const fiber = yield* Effect.fork(Effect.forEach([6, 4, 1, 5, 10, 2], (operations) =>
        Effect.gen(function*() {
          yield* brake.release(batch(operations), (why) => Effect.sync(() => told.push(why)))
          times.push(yield* Clock.currentTimeMillis)
        })))
      yield* TestClock.adjust("99 millis")
      expect(times).toEqual([0, 0])
      yield* TestClock.adjust("10 seconds")
      expect(times).toEqual([0, 0, 100, 600, 1_600, 1_800])
      expect(told).toHaveLength(4)
      expect((told[0] as Pace.Paced).message).toBe("its rate is 10 operations in 1s")
      yield* Fiber.join(fiber)
    }))

  it.effect("keeps nobody waiting because the clock was set back", () =>
    Effect.gen(function*() {
      const { on, set } = yield* WallClock.make
      const brake = Pace.brake({ operations: 10, per: "1 second" })
      const release = (operations: number) => on(brake.release(batch(operations), () => Effect.void))
      yield* release(10)
      set(-3_600_000)
      const released = yield* Effect.fork(release(1))
      yield* TestClock.adjust("100 millis")
      expect(yield* Fiber.poll(released)).toMatchObject({ _tag: "Some" })
    }))

  it.effect("in no time lets more go than the bucket and what flowed in, and keeps nobody waiting who need not", () =>
    Effect.forEach(
      FastCheck.sample(
        FastCheck.record({
          operations: FastCheck.integer({ min: 1, max: 20 }),
          work: FastCheck.array(
            FastCheck.record({ size: FastCheck.integer({ min: 1, max: 20 }), pause: FastCheck.nat(900) }),
            {
              minLength: 1,
              maxLength: 20
            }
          )
        }),
        { numRuns: 30, seed: 1 }
      ),
      ({ operations, work }) =>
        Effect.gen(function*() {
          const brake = Pace.brake({ operations, per: "1 second" })
          const began = yield* Clock.currentTimeMillis
          const passed: Array<{ readonly at: number; readonly size: number }> = []
          const fiber = yield* Effect.fork(Effect.forEach(work, ({ pause, size }) =>
            Effect.gen(function*() {
              yield* Effect.sleep(pause)
              const least = Math.min(size, operations)
              yield* brake.release(batch(least), () => Effect.void)
              passed.push({ at: yield* Clock.currentTimeMillis, size: least })
            })))
          yield* TestClock.adjust("100 seconds")
          yield* Fiber.join(fiber)
          let bucket = operations
          let last = began
          for (const { at, size } of passed) {
            bucket = Math.min(operations, bucket + (at - last) * operations / 1_000) - size
            last = at
            // Waits are whole milliseconds.
            expect(bucket).toBeGreaterThan(-operations / 1_000 - 1e-9)
          }
          const idle = work.reduce((sum, { pause }) => sum + pause, 0)
          const sum = passed.reduce((all, { size }) => all + size, 0)
          expect(last - began).toBeLessThanOrEqual(idle + sum / operations * 1_000 + passed.length)
        }),
      { discard: true }
    ))

  it.effect("is one for all who share it", () =>
    Effect.gen(function*() {
      const brake = Pace.brake({ operations: 2, per: "1 second" })
      const times: Array<number> = []
      const fiber = yield* Effect.fork(Effect.forEach([1, 2, 3, 4], () =>
        Effect.gen(function*() {
          yield* brake.release(batch(2), () => Effect.void)
          times.push(yield* Clock.currentTimeMillis)
        }), { concurrency: "unbounded" }))
      yield* TestClock.adjust("10 seconds")
      expect(times).toEqual([0, 1_000, 2_000, 3_000])
      yield* Fiber.join(fiber)
    }))

  it("that nothing could keep is refused", () => {
    const refused: ReadonlyArray<Pace.Pace> = [
      { rate: { operations: 0, per: "1 second" } },
      { rate: { operations: 1, per: 0 } },
      { rate: { operations: 1.5, per: 1 } },
      { concurrency: 0 },
      { commitMillis: 0 }
    ]
    for (const pace of refused) expect(() => Pace.checked(pace)).toThrow(/Expected/)
    expect(Pace.checked({})).toEqual({})
  })
})

describe("a tempo", () => {
  const commit = (tempo: Tempo, millis: number, operations = tempo.operations) =>
    Effect.gen(function*() {
      const fiber = yield* Effect.fork(tempo.timed(Effect.sleep(millis)))
      yield* TestClock.adjust(millis)
      yield* Fiber.join(fiber)
      tempo.committed(operations)
      return tempo.operations
    })

  it.effect("halves a batch that took too long, and doubles full ones that took little, up to the most", () =>
    Effect.gen(function*() {
      const tempo = new Tempo({ most: 1_000, budgetMillis: 100 })
      expect(yield* commit(tempo, 100)).toBe(1_000)
      expect(yield* commit(tempo, 101)).toBe(500)
      expect(yield* commit(tempo, 300)).toBe(250)
      expect(yield* commit(tempo, 25)).toBe(250)
      expect(yield* commit(tempo, 24)).toBe(500)
      expect(yield* commit(tempo, 24, 499)).toBe(500)
      for (let i = 0; i < 3; i++) expect(yield* commit(tempo, 1)).toBe(1_000)
    }))

  it.effect("never goes below one operation, and comes back from there", () =>
    Effect.gen(function*() {
      const tempo = new Tempo({ most: 10, budgetMillis: 5 })
      for (let i = 0; i < 6; i++) yield* commit(tempo, 6)
      expect(tempo.operations).toBe(1)
      expect(yield* commit(tempo, 1)).toBe(2)
    }))

  it.effect("goes no further down than it is to", () =>
    Effect.gen(function*() {
      const tempo = new Tempo({ least: 100, most: 350, budgetMillis: 5 })
      expect(yield* commit(tempo, 6)).toBe(175)
      expect(yield* commit(tempo, 6)).toBe(100)
      expect(yield* commit(tempo, 6, 10)).toBe(100)
      const small = new Tempo({ least: 100, most: 7, budgetMillis: 5 })
      expect(yield* commit(small, 6)).toBe(7)
    }))

  it.effect("halves what the batch held where that was less than it might have", () =>
    Effect.gen(function*() {
      const tempo = new Tempo({ most: 1_000, budgetMillis: 5 })
      expect(yield* commit(tempo, 6, 10)).toBe(5)
    }))

  it.effect("settles where a commit takes its time, whatever an operation costs", () =>
    Effect.forEach([1, 3, 7], (cost) =>
      Effect.gen(function*() {
        const tempo = new Tempo({ most: 1_000, budgetMillis: 700 })
        for (let i = 0; i < 40; i++) yield* commit(tempo, cost * tempo.operations)
        const sizes: Array<number> = []
        for (let i = 0; i < 20; i++) {
          sizes.push(tempo.operations)
          yield* commit(tempo, cost * tempo.operations)
        }
        expect(new Set(sizes).size).toBe(1)
        expect(sizes[0]).toBeLessThanOrEqual(Math.min(1_000, 700 / cost))
        expect(sizes[0]).toBeGreaterThanOrEqual(Math.min(1_000, 700 / cost / 4))
      })))

  it("without a time for commits leaves batches alone", () => {
    const tempo = new Tempo({ most: 7 })
    tempo.committed(7)
    expect(tempo.operations).toBe(7)
  })
})

describe("two brakes", () => {
  it.effect("let go what both do, and what is left is the rest of the batch in order", () =>
    Effect.gen(function*() {
      const strand = (position: number) => ({ position }) as unknown as Batch["strands"][number]
      const cutAt = (at: number): Brake.Brake<never> => ({
        release: ({ operations, position, strands }) =>
          Effect.succeed({
            first: { strands: strands.slice(0, at), position, operations: Math.min(at, operations) },
            rest: strands.length <= at
              ? undefined
              : { strands: strands.slice(at), position, operations: operations - at }
          })
      })
      const whole = { strands: [1, 2, 3, 4, 5].map(strand), position: Position.origin, operations: 5 }
      for (const [one, other, left] of [[3, 2, 2], [2, 3, 2], [5, 5, 5], [1, 9, 1]] as const) {
        const { first, rest } = yield* Brake.both(cutAt(one), cutAt(other)).release(whole, () => Effect.void)
        expect(first.strands).toEqual(whole.strands.slice(0, left))
        expect(rest?.strands ?? []).toEqual(whole.strands.slice(left))
        expect(first.operations + (rest?.operations ?? 0)).toBe(5)
      }
    }))
})
