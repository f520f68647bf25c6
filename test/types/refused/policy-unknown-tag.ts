/** A policy about a tag that the processor cannot fail with. */
import { Policy, Processor } from "../../../src/index.js"
import { Undecided } from "../Undecided.js"

export const piped = Undecided.pipe(Processor.withPolicy({ ...Policy.standard, RateLimitd: Policy.skip }))

export const alone = Undecided.pipe(Processor.withPolicy({ RateLimitd: Policy.skip }))
