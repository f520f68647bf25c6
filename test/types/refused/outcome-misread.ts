/** What no outcome fails with, and what one does that is forgotten. */
import * as Match from "effect/Match"
import type { Pulse, Reactor } from "../../../src/index.js"

export const misspelt = (outcome: Reactor.Outcome) => outcome.failure?._tag === "Halt"

export const forgotten = (failure: Pulse.Held) => Match.valueTags(failure, { Behind: ({ before }) => before })

export const tooEarly = (outcome: Reactor.Outcome) => outcome.failure?.message
