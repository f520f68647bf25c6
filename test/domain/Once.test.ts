/**
 * Once: run a single time, and then nothing is left of it.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { once, taking } from "../../src/domain/Once.js"

describe("an effect that is run once", () => {
  it.effect("is the effect: its value, its failure, its interruptibility", () =>
    Effect.gen(function*() {
      expect(yield* once(Effect.succeed(1))).toBe(1)
      expect(yield* Effect.flip(once(Effect.fail("no")))).toBe("no")
      expect(yield* Effect.exit(Effect.interruptible(once(Effect.interrupt)))).toSatisfy(Exit.isInterrupted)
    }))

  it.effect("dies when it is run again, whatever the first run has come to", () =>
    Effect.gen(function*() {
      let runs = 0
      const effect = once(Effect.suspend(() => ++runs === 1 ? Effect.fail("no") : Effect.void))
      yield* Effect.flip(effect)
      const again = yield* Effect.exit(effect)
      expect(Exit.isFailure(again) && Cause.isDie(again.cause)).toBe(true)
      expect(runs).toBe(1)
    }))

  it("gives a value out a single time, and keeps none of it", () => {
    const take = taking({ rows: 3 })
    expect(take()).toEqual({ rows: 3 })
    expect(take()).toBeUndefined()
  })
})
