/** A misspelt operation. */
import * as Effect from "effect/Effect"
import { Processor } from "../../../src/index.js"
import { Todo } from "../Undecided.js"

export const handler = Processor.onOperations(Todo, {
  ADD: ({ input }) => Effect.log(input.title),
  COMPLET: () => Effect.void
})
