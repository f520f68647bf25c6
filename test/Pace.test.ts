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
import { Reactor } from "../src/index.js"
import type { Processor } from "../src/index.js"
import * as Eventually from "./support/Eventually.js"
import * as Ledger from "./support/Ledger.js"

const paced = (
  options: Pick<Processor.Options<never, never, never>, "pace" | "batch" | "partitions">,
  millisEach = 0
) => Ledger.make("p", () => millisEach === 0 ? Effect.void : Effect.sleep(millisEach), options)

/** When each commit was told, and how many operations were in it, until there are so many of them. */
const commits = (processor: ReturnType<typeof paced>, operations: number) =>
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
    expect(sizes).toEqual([16, 8, 9, 4, 5, 6, 7, 8, 9, 4, 5, 6, 7, 6])
  }).pipe(Effect.provide(Test.layer(singles(100)))))

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
