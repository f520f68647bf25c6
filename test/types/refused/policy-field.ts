/** A policy's function is given the failure of its tag. */
import * as Schedule from "effect/Schedule"
import { Policy, Processor } from "../../../src/index.js"
import { Undecided } from "../Undecided.js"

export const policy = Undecided.pipe(Processor.withPolicy({
  RateLimited: (e) => Policy.retry(Schedule.spaced(e.retryAfterMilis), { otherwise: Policy.halt })
}))
