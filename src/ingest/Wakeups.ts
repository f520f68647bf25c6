/**
 * Wake-ups: what a database tells its readers when there may be news, so that they need not wait for their next poll.
 *
 *     NOTIFY (PostgreSQL), data_version (SQLite) ──▶ hint ──▶ look
 *
 * A hint may come for nothing, and may be lost. Whoever waits for one polls as well, and a lost hint costs only time.
 */

import * as Context from "effect/Context"
import * as Stream from "effect/Stream"

/** Offered by the layer of a database beside its `SqlClient`; without one there are no hints. */
export class Wakeups extends Context.Reference<Wakeups>()("effect-processors/Wakeups", {
  defaultValue: (): {
    /** Hints about a topic, of at most 63 ASCII characters, from now on, for ever. */
    readonly hints: (topic: string) => Stream.Stream<void>
  } => ({ hints: () => Stream.never })
}) {}
