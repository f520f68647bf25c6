/** A service that nobody provides is named. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Test from "../../../layers/Test.js"
import { Policy, Processor, Reactor } from "../../../src/index.js"
import { AlmostDecided } from "../Undecided.js"

const Decided = AlmostDecided.pipe(Processor.withPolicy({ RateLimited: Policy.halt }))

export const run: Promise<unknown> = Reactor.run(Decided).pipe(Effect.provide(Test.layer([])), Effect.runPromise)

export const layer: Layer.Layer<never, unknown> = Layer.discard(Layer.provide(Reactor.layer(Decided), Test.layer([])))
