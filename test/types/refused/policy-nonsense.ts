/** A decision is skip, park, halt or a retry. */
import { Processor } from "../../../src/index.js"
import { Undecided } from "../Undecided.js"

export const policy = Undecided.pipe(Processor.withPolicy({ RateLimited: "ignore" }))
