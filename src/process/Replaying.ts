/**
 * Replaying: whether a handler repeats operations that it has handled before, to project them anew.
 *
 * Set around the handler by whoever replays: a rebuild, or the replay of one document. What must not happen twice outside
 * the processor's tables, such as sending an action, looks here.
 */

import * as Context from "effect/Context"

export class Replaying extends Context.Reference<Replaying>()("effect-processors/Replaying", {
  defaultValue: () => false
}) {}
