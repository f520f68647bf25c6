/** A failure that nobody has decided about does not get into a subscription. */
import { Subscription } from "../../../src/index.js"
import { AlmostDecided } from "../Undecided.js"

export const commits = Subscription.commits(AlmostDecided)
