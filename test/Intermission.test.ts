import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Intermission from "../src/Intermission.js"
import * as Eventually from "./support/Eventually.js"

/** A play that performs for ever, and what happens on its stage. */
const stage = Effect.gen(function*() {
  const seen: Array<string> = []
  let acts = 0
  const play = (perform: Intermission.Perform) =>
    Effect.gen(function*() {
      for (;;) {
        const act = Effect.sync(() => seen.push(`act ${++acts}`))
        const exit = yield* perform(
          Effect.onInterrupt(Effect.zipRight(act, Effect.never), () => Effect.sync(() => seen.push("curtain")))
        )
        if (exit !== undefined) return
      }
    })
  return { seen, acts: () => acts, ...(yield* Intermission.make(play)) }
})

describe("an intermission", () => {
  it.scoped("begins once what is performed has ended, which begins again after it", () =>
    Effect.gen(function*() {
      const { acts, during, isOver, seen } = yield* stage
      yield* Eventually.until("the first act is on", Effect.sync(() => acts() === 1))
      yield* during(Effect.zipRight(Eventually.settled, Effect.sync(() => seen.push("work"))))
      yield* Eventually.until("the next act is on", Effect.sync(() => acts() === 2))
      expect(seen).toEqual(["act 1", "curtain", "work", "act 2"])
      expect(isOver()).toBe(false)
    }))

  it.scoped("comes to all who ask at once, one after the other, with or without an act between them", () =>
    Effect.gen(function*() {
      const { acts, during, seen } = yield* stage
      let inside = 0
      yield* Effect.forEach(Array.from({ length: 20 }), () =>
        during(Effect.gen(function*() {
          expect(++inside).toBe(1)
          yield* Eventually.turn
          inside--
          seen.push("work")
        })), { concurrency: "unbounded", discard: true })
      expect(seen.filter((what) => what === "work")).toHaveLength(20)
      const before = acts()
      yield* Eventually.until(
        "an act is on",
        Effect.sync(() => acts() > before || seen.at(-1)?.startsWith("act") === true)
      )
    }))

  it.scoped("that is given up, waiting or at work, lets the play go on", () =>
    Effect.gen(function*() {
      const { acts, during } = yield* stage
      const isHeld = yield* Deferred.make<void>()
      const first = yield* Effect.fork(during(Effect.zipRight(Deferred.succeed(isHeld, undefined), Effect.never)))
      yield* Deferred.await(isHeld)
      const second = yield* Effect.fork(during(Effect.void))
      yield* Eventually.settled
      const before = acts()
      yield* Fiber.interrupt(second)
      yield* Fiber.interrupt(first)
      yield* Eventually.until("the next act is on", Effect.sync(() => acts() > before))
    }))

  it.scoped("that fails lets the play go on, and tells its failure", () =>
    Effect.gen(function*() {
      const { acts, during } = yield* stage
      const before = acts()
      expect(yield* Effect.flip(during(Effect.fail("no")))).toBe("no")
      yield* Eventually.until("the next act is on", Effect.sync(() => acts() > before))
    }))

  it.scoped("begins a play again that was over, and whoever waits for its end waits for the new one", () =>
    Effect.gen(function*() {
      const gates = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      let plays = 0
      const { during, ended, isOver } = yield* Intermission.make((perform) =>
        Effect.asVoid(perform(Deferred.await(gates[plays++]!)))
      )
      yield* Deferred.succeed(gates[0]!, undefined)
      yield* ended
      expect(isOver()).toBe(true)
      yield* during(Effect.void)
      expect(isOver()).toBe(false)
      const waiting = yield* Effect.fork(ended)
      yield* Eventually.settled
      expect(waiting.unsafePoll()).toBe(null)
      yield* Deferred.succeed(gates[1]!, undefined)
      yield* Fiber.join(waiting)
      expect(plays).toBe(2)
    }))
})
