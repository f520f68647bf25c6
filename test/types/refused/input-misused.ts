/** An input is what the model's Schema says. */
import * as Effect from "effect/Effect"
import { Processor } from "../../../src/index.js"
import { Todo } from "../Undecided.js"

export const field = Processor.onOperations(Todo, {
  COMPLETE: ({ input }) => Effect.log(input.title)
})

export const type = Processor.onOperations(Todo, {
  ADD: (received: { readonly input: { readonly id: number } }) => Effect.log(received.input.id)
})
