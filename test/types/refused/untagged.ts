/** A failure without a tag cannot be decided about. */
import * as Effect from "effect/Effect"
import { Processor } from "../../../src/index.js"

export const processor = Processor.make("untagged", {
  namespace: "todos",
  handler: Processor.onBatch(() => Effect.fail("no tag"))
})
