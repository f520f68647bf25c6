/**
 * A store that cannot be opened: the file or the server is not there, does not let us in, or is not what it should be.
 *
 * Raised while a layer is built, never later: once a store is open, a failing statement is an `SqlError`.
 */

import * as Data from "effect/Data"

export class StoreUnavailable extends Data.TaggedError("StoreUnavailable")<{
  readonly store: "sqlite" | "pg"
  /** The file, or `host:port/database`. Never holds a password. */
  readonly target: string
  /** What is wrong, in words. */
  readonly reason: string
  /** What its operator can do about it. */
  readonly hint: string
  /** Whether waiting can help: a server that starts, a file that is locked. Worth a `Layer.retry` only if so. */
  readonly transient: boolean
  readonly cause: unknown
}> {
  override get message(): string {
    return `cannot open the ${this.store} store ${this.target}: ${this.reason}; ${this.hint}`
  }
}
