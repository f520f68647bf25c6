/** A failure that nobody has decided about does not get into a run. */
import { Reactor } from "../../../src/index.js"
import { AlmostDecided, Undecided } from "../Undecided.js"

export const one = Reactor.run(AlmostDecided)

export const two = Reactor.run(AlmostDecided, Undecided)
