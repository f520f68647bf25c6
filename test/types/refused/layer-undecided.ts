/** A failure that nobody has decided about does not get into a reactor's layer. */
import { Policy, Processor, Reactor } from "../../../src/index.js"
import { AlmostDecided, Undecided } from "../Undecided.js"

export const one = Reactor.layer(AlmostDecided)

export const two = Reactor.layer(Undecided.pipe(Processor.withPolicy(Policy.standard)))

export const all = Reactor.layer(Undecided)
