/** Dead letters are tried again with a processor whose failures are decided. */
import { DeadLetters, Source } from "../../../src/index.js"
import { AlmostDecided } from "../Undecided.js"

export const retried = DeadLetters.retry(AlmostDecided, Source.name("test"), "todo-1")
