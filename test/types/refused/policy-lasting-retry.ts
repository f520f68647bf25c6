/** What stays the same however often it is tried is not retried. */
import * as Schedule from "effect/Schedule"
import { Policy, Processor } from "../../../src/index.js"
import { Undecided } from "../Undecided.js"

const again = Policy.retry(Schedule.recurs(3), { otherwise: Policy.park })

export const malformed = Undecided.pipe(Processor.withPolicy({ MalformedOperation: again }))

export const gap = Undecided.pipe(Processor.withPolicy({ ...Policy.standard, StrandGap: again }))

export const rewritten = Undecided.pipe(Processor.withPolicy({ HistoryRewritten: () => again }))

export const unknown = Undecided.pipe(Processor.withPolicy({ UnknownOperation: again }))
