/** A turnstile: in the order of arrival, and nobody waits for ever or takes a turn along when he leaves. */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { make } from "../../layers/sqlite/Turnstile.js"
import * as Eventually from "../support/Eventually.js"

describe("a turnstile", () => {
  it.live("lets those in first who came first, before one who leaves and comes again at once", () =>
    Effect.gen(function*() {
      const turnstile = make(1, 10_000, "it")
      const order: Array<string> = []
      const enter = (name: string) => Effect.zipRight(turnstile.take, Effect.sync(() => order.push(name)))
      yield* enter("first")
      const others = yield* Effect.forEach(
        ["second", "third"],
        (name) => Effect.fork(Effect.zipRight(enter(name), turnstile.release))
      )
      yield* Eventually.settled
      yield* turnstile.release
      yield* enter("first again")
      yield* Fiber.joinAll(others)
      expect(order).toEqual(["first", "second", "third", "first again"])
    }))

  it.live("keeps no more in than it has turns for", () =>
    Effect.gen(function*() {
      const turnstile = make(3, 10_000, "it")
      const inside = { now: 0, most: 0 }
      const visit = Effect.acquireUseRelease(
        turnstile.take,
        () =>
          Effect.zipRight(
            Effect.sync(() => {
              inside.most = Math.max(inside.most, ++inside.now)
            }),
            Effect.zipRight(Eventually.turn, Effect.sync(() => inside.now--))
          ),
        () => turnstile.release
      )
      yield* Effect.forEach(Array.from({ length: 50 }), () => visit, { concurrency: "unbounded" })
      expect(inside).toEqual({ now: 0, most: 3 })
    }))

  it.live("gives up with SQLITE_BUSY when it takes too long", () =>
    Effect.gen(function*() {
      const turnstile = make(1, 5, "the file")
      yield* turnstile.take
      const failure = yield* Effect.flip(turnstile.take)
      expect(failure.cause).toMatchObject({ code: "SQLITE_BUSY", message: "the file was not free within 5 ms" })
      yield* turnstile.release
      yield* turnstile.take
    }))

  it.live("loses no turn to those who are interrupted, while they wait or as it is their turn", () =>
    Effect.gen(function*() {
      const turnstile = make(1, 10_000, "it")
      for (let round = 0; round < 50; round++) {
        yield* turnstile.take
        const waiting = yield* Effect.fork(turnstile.take)
        yield* Eventually.turn
        // Both in one step: his turn comes, and then he is gone.
        if (round % 2 === 0) yield* turnstile.release
        const exit = yield* Fiber.interrupt(waiting)
        if (round % 2 === 1 || exit._tag === "Success") yield* turnstile.release
        yield* turnstile.take
        yield* turnstile.release
      }
    }))
})
