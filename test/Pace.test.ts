/**
 * The pace of a processor, from its options to its commits.
 */
import { expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import * as Test from "../layers/Test.js"
import { Policy, Processor, Reactor } from "../src/index.js"
import * as Eventually from "./support/Eventually.js"
import * as Ledger from "./support/Ledger.js"

const paced = (
  options: Pick<Processor.Options<never, never, never>, "pace" | "batch" | "partitions">,
  millisEach = 0
) => Ledger.make("p", () => millisEach === 0 ? Effect.void : Effect.sleep(millisEach), options)

/** When each commit was told, and how many operations were in it, until there are so many of them. */
const commits = <R>(processor: Processor.Processor<never, R>, operations: number) =>
  Effect.gen(function*() {
    let left = operations
    const reactor = Layer.provide(
      Reactor.layer(processor),
      Logger.remove(Logger.defaultLogger)
    )
    const fiber = yield* Effect.fork(
      Effect.flatMap(Reactor.Reactor, (running) =>
        running.commits.pipe(
          Stream.takeUntil((commit) => (left -= commit.operations) <= 0),
          Stream.mapEffect((commit) => Effect.map(Clock.currentTimeMillis, (now) => [now, commit.operations] as const)),
          Stream.runCollect
        )).pipe(Effect.provide(reactor))
    )
    const began = yield* Clock.currentTimeMillis
    while ((yield* Fiber.poll(fiber))._tag === "None") {
      yield* Eventually.settled
      yield* TestClock.adjust(1)
    }
    return Chunk.toReadonlyArray(yield* Fiber.join(fiber)).map(([at, count]) => [at - began, count] as const)
  })

const singles = (count: number) => Array.from({ length: count }, (_, i) => Ledger.strand(`doc-${i}`, String(i)))

it.effect("a commit that took too long makes the next batches smaller, until they keep to their time", () =>
  Effect.gen(function*() {
    const sizes = (yield* commits(paced({ pace: { commitMillis: 8 }, batch: { operations: 16 } }, 1), 100)).map((
      [, operations]
    ) => operations)
    expect(sizes).toEqual([16, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 4])
  }).pipe(Effect.provide(Test.layer(singles(100)))))

/** The sizes of batches that come to so many operations, each of which is committed in 300 ms. */
const slowly = (options: Pick<Processor.Options<never, never, never>, "batch">, operations: number) =>
  Effect.map(
    commits(
      Processor.make("slow", {
        ...options,
        namespace: "slow",
        migrations: {},
        handler: Processor.onBatch(() => Effect.sleep(300))
      }).pipe(Processor.withPolicy(Policy.standard)),
      operations
    ),
    (all) => all.map(([, size]) => size)
  )

it.effect("where nothing is said of them, batches are large, until a commit takes longer than a quarter of a second", () =>
  Effect.gen(function*() {
    expect(yield* slowly({}, 9_000)).toEqual([4_000, 2_000, 1_000, 1_000, 1_000])
  }).pipe(Effect.provide(Test.layer(singles(9_000)))))

it.effect("what is said of a batch holds, however long it takes", () =>
  Effect.gen(function*() {
    expect(yield* slowly({ batch: { operations: 1_500 } }, 4_500)).toEqual([1_500, 1_500, 1_500])
  }).pipe(Effect.provide(Test.layer(singles(4_500)))))

it.effect("a rate holds batches back, all partitions together, and makes none larger than itself", () =>
  Effect.gen(function*() {
    const rate = { operations: 10, per: "20 millis" } as const
    const all = yield* commits(paced({ pace: { rate }, partitions: 3 }), 60)
    expect(all.reduce((sum, [, operations]) => sum + operations, 0)).toBe(60)
    expect(Math.max(...all.map(([, operations]) => operations))).toBeLessThanOrEqual(10)
    // The bucket, and half an operation a millisecond since: what was committed by a moment is never more.
    for (const [at] of all) {
      const sum = all.filter(([then]) => then <= at).reduce((total, [, operations]) => total + operations, 0)
      expect(sum).toBeLessThanOrEqual(rate.operations + at / 2 + 1)
    }
  }).pipe(Effect.provide(Test.layer(singles(60)))))
