/**
 * Receiver: a dispatcher that keeps what it was given, and refuses or is away when a test says so.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import { Dispatcher } from "../../src/index.js"
import type { Courier } from "../../src/index.js"

export interface Receiver {
  readonly layer: Layer.Layer<Dispatcher.Dispatcher>
  /** Everything that was taken, in order, what came twice included. */
  readonly taken: ReadonlyArray<Dispatcher.Message>
  /** How often it was asked. */
  readonly asked: () => number
  /** From now on this decides what becomes of a message. */
  readonly answer: (answer: (message: Dispatcher.Message) => Answer) => void
  /** Waits until so many were taken. */
  readonly takes: (count: number) => Effect.Effect<void>
}

export type Answer = Effect.Effect<void, Dispatcher.MessageRefused | Dispatcher.ReceiverUnavailable>

export const make = (): Receiver => {
  const taken: Array<Dispatcher.Message> = []
  const waiting: Array<{ readonly count: number; readonly done: Deferred.Deferred<void> }> = []
  let asked = 0
  let current: (message: Dispatcher.Message) => Answer = () => Effect.void
  return {
    layer: Dispatcher.layer((message) =>
      Effect.suspend(() => {
        asked++
        return current(message)
      }).pipe(Effect.tap(() => {
        taken.push(message)
        return Effect.forEach(
          waiting.filter(({ count }) => taken.length >= count),
          ({ done }) => Deferred.succeed(done, undefined),
          { discard: true }
        )
      }))
    ),
    taken,
    asked: () => asked,
    answer: (answer) => {
      current = answer
    },
    takes: (count) =>
      Effect.flatMap(Deferred.make<void>(), (done) =>
        Effect.suspend(() => {
          if (taken.length >= count) return Effect.void
          waiting.push({ count, done })
          return Deferred.await(done)
        }))
  }
}

/** Pauses short enough for a test. */
export const impatient: Courier.Settings.Values = {
  concurrency: 4,
  leaseMillis: 3_000,
  answerWithin: "5 seconds",
  pauseMinMillis: 5,
  pauseMaxMillis: 40,
  lookMaxMillis: 50,
  rememberFor: "7 days"
}
