/** A standard failure that is decided again is decided by the same rules. */
import * as Schedule from "effect/Schedule"
import { Policy, Processor } from "../../../src/index.js"
import { Undecided } from "../Undecided.js"

const Standard = Undecided.pipe(Processor.withPolicy(Policy.standard))

export const nonsense = Standard.pipe(Processor.withPolicy({ SqlError: "ignore" }))

export const retried = Standard.pipe(
  Processor.withPolicy({ StrandGap: Policy.retry(Schedule.recurs(3), { otherwise: Policy.park }) })
)
