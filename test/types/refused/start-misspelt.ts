/** Places to start from, and to wait for, that there are not. */
import { Effect } from "effect"
import { Processor, Source, Wait } from "../../../src/index.js"
import { Undecided } from "../Undecided.js"

const handler = Processor.onBatch(() => Effect.void)

export const started = [
  Processor.make("now", { namespace: "todos", startFrom: "now", handler }),
  Processor.make("seven", { namespace: "todos", startFrom: 7n, handler })
]

export const waited = Wait.until(Undecided, Source.name("home"), { documentId: "todo-1", index: 3 })
