/**
 * The watch: looking is the truth, and a hint only makes it sooner.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import { Position } from "../../src/index.js"
import * as Watch from "../../src/journal/Watch.js"
import * as Eventually from "../support/Eventually.js"

const at = (position: number) => Position.make(BigInt(position))

/** A log that a test moves, and that counts how often it was looked at. */
class Log {
  head = at(0)
  looks = 0
  failure: string | undefined = undefined
  readonly look = Effect.suspend(() => {
    this.looks++
    return this.failure === undefined ? Effect.succeed(this.head) : Effect.fail(this.failure)
  })
}

const isDone = (fiber: Fiber.Fiber<unknown>) => Effect.map(Fiber.poll(fiber), Option.isSome)

describe("a watch", () => {
  it.scoped("looks at no log while nobody waits", () =>
    Effect.gen(function*() {
      const log = new Log()
      yield* Watch.make(log.look, Stream.never)
      yield* Eventually.settled
      expect(log.looks).toBe(0)
    }))

  it.scoped("without any hint looks after 5 ms, then after twice as long each time, up to a second", () =>
    Effect.gen(function*() {
      const log = new Log()
      const watch = yield* Watch.make(log.look, Stream.never)
      const reader = yield* Effect.fork(watch.beyond(at(0)))
      const pauses: Array<number> = []
      for (let i = 0; i < 11; i++) pauses.push(yield* Eventually.nextSleep)
      expect(pauses).toEqual([5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000])
      expect(log.looks).toBe(11)
      expect(yield* isDone(reader)).toBe(false)
      log.head = at(1)
      yield* Eventually.nextSleep
      expect(yield* isDone(reader)).toBe(true)
    }))

  it.scoped("is quick again once there was something, and once somebody new begins to wait", () =>
    Effect.gen(function*() {
      const log = new Log()
      const watch = yield* Watch.make(log.look, Stream.never)
      for (const head of [1, 2, 3]) {
        const reader = yield* Effect.fork(watch.beyond(at(head - 1)))
        expect(yield* Eventually.nextSleep).toBe(5)
        expect(yield* Eventually.nextSleep).toBe(10)
        log.head = at(head)
        yield* Eventually.nextSleep
        yield* Fiber.join(reader)
      }
    }))

  it.scoped("a hint makes it look at once, and a hint for nothing wakes nobody", () =>
    Effect.gen(function*() {
      const log = new Log()
      const hints = yield* Queue.unbounded<void>()
      const watch = yield* Watch.make(log.look, Stream.fromQueue(hints))
      const reader = yield* Effect.fork(watch.beyond(at(0)))
      yield* Eventually.settled
      yield* Queue.offer(hints, undefined)
      yield* Eventually.settled
      expect(log.looks).toBe(1)
      expect(yield* isDone(reader)).toBe(false)
      log.head = at(1)
      yield* Queue.offer(hints, undefined)
      yield* Eventually.settled
      expect(log.looks).toBe(2)
      expect(yield* isDone(reader)).toBe(true)
    }))

  it.scoped("the hint of an append of this process is looked after 5 ms later, and the next one at once", () =>
    Effect.gen(function*() {
      const log = new Log()
      const hints = yield* Queue.unbounded<void>()
      const watch = yield* Watch.make(log.look, Stream.fromQueue(hints))
      const reader = yield* Effect.fork(Effect.zipRight(watch.beyond(at(0)), watch.beyond(at(1))))
      yield* Eventually.settled
      // What another process appends in that moment has one hint with it.
      log.head = at(2)
      yield* watch.tell(at(1))
      yield* Queue.offer(hints, undefined)
      yield* Eventually.settled
      expect(log.looks).toBe(0)
      expect(yield* isDone(reader)).toBe(false)
      expect(yield* Eventually.nextSleep).toBe(5)
      expect(log.looks).toBe(1)
      yield* Fiber.join(reader)
      yield* Effect.fork(watch.beyond(at(2)))
      yield* Eventually.settled
      yield* Queue.offer(hints, undefined)
      yield* Eventually.settled
      expect(log.looks).toBe(2)
    }))

  it.scoped("one look serves a thousand readers, and wakes those alone that it concerns", () =>
    Effect.gen(function*() {
      const log = new Log()
      const watch = yield* Watch.make(log.look, Stream.never)
      const readers = yield* Effect.forEach(
        Array.from({ length: 1_000 }, (_, i) => at(i)),
        (position) => Effect.fork(watch.beyond(position))
      )
      yield* Eventually.settled
      log.head = at(400)
      yield* Eventually.nextSleep
      expect(log.looks).toBe(1)
      const done = yield* Effect.forEach(readers, isDone)
      expect(done.filter((each) => each).length).toBe(400)
      expect(done.slice(0, 400).every((each) => each)).toBe(true)
    }))

  it.scoped("what this process has appended is known without a look", () =>
    Effect.gen(function*() {
      const log = new Log()
      const watch = yield* Watch.make(log.look, Stream.never)
      const reader = yield* Effect.fork(watch.beyond(at(0)))
      yield* Eventually.settled
      yield* watch.tell(at(1))
      yield* Fiber.join(reader)
      yield* watch.beyond(at(0))
      expect(log.looks).toBe(0)
    }))

  it.scoped("a look that fails sends every reader on to meet the failure itself", () =>
    Effect.gen(function*() {
      const log = new Log()
      log.failure = "the database is away"
      const watch = yield* Watch.make(log.look, Stream.never)
      const readers = yield* Effect.forEach([0, 9], (position) => Effect.fork(watch.beyond(at(position))))
      yield* Eventually.nextSleep
      yield* Fiber.joinAll(readers)
    }))
})
