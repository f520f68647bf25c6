/** Who sends needs somebody to deliver it, an operation to send it for, and an action that the model has. */
import type * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import { Dispatch, Policy, Processor, Reactor } from "../../../src/index.js"
import type { Dispatcher, Namespace, Source } from "../../../src/index.js"
import { Todo } from "../Undecided.js"

const complete = Dispatch.send({ documentId: "d", actions: [Dispatch.action(Todo, "COMPLETE", { id: "1" })] })

const Sender = Processor.make("sender", {
  namespace: "todos",
  handler: Processor.onOperations(Todo, { ADD: () => complete })
}).pipe(Processor.withPolicy(Policy.standard))

export const layer: Layer.Layer<Reactor.Reactor, unknown, Source.Source | Namespace.Namespaces> = Reactor.layer(Sender)

const Nameless = Processor.make("nameless", {
  namespace: "todos",
  handler: Processor.onBatch(() => complete)
}).pipe(Processor.withPolicy(Policy.standard))

export const nameless: Effect.Effect<
  unknown,
  unknown,
  Source.Source | Namespace.Namespaces | Dispatcher.Dispatcher
> = Reactor.run(Nameless)

export const misspelt = Dispatch.action(Todo, "COMPLET", { id: "1" })

export const misused = Dispatch.action(Todo, "COMPLETE", { id: 1 })

export const outsideOfHandlers: Effect.Effect<void, unknown> = complete
