/** A policy that may leave a tag out decides nothing about it. */
import { Policy, Processor, Reactor } from "../../../src/index.js"
import { Undecided } from "../Undecided.js"

const policy: Policy.Policy<Processor.Failure<typeof Undecided>> = Policy.standard

export const layer = Reactor.layer(Undecided.pipe(Processor.withPolicy(policy)))
