/**
 * An errand: a large transaction that writes through tables alone, and so asks nothing of its connection but the database.
 * Where the connection may come from elsewhere, as from a thread of its own, the event loop goes on meanwhile.
 *
 *     commit, large and calm ──▶ offered ─┬ nobody takes it ─▶ a transaction like any other
 *                                         └ taken ─┬─────────▶ committed
 *                                                  └ fails ──▶ run again like any other, and only that counts
 *
 * Invariant: of an errand that fails nothing is told, so that it makes no difference to anybody; only a COMMIT that was not
 * answered is looked up, as of any transaction. A handler that sends statements of its own has its errand fail: they may mean
 * something else on another connection.
 */

import { SqlError } from "@effect/sql/SqlError"
import * as Context from "effect/Context"

/** A transaction of an owner, and what its handler made of it. */
export class Errand {
  /** Whether somebody has taken it. */
  isTaken = false
  /** Statements that the handler has sent itself, and table operations that could not be put off. */
  statements = 0

  /** Why a statement of the handler's own is not let through. */
  get refusal(): SqlError | undefined {
    return this.isTaken ? refused : undefined
  }

  /** Why it cannot be committed, even if the handler made nothing of a refusal. */
  get failure(): SqlError | undefined {
    return this.isTaken && this.statements > 0 ? refused : undefined
  }
}

const refused = new SqlError({
  message: "a handler's own statement is not run on an errand",
  cause: Object.assign(new Error("the transaction is run again on the store's own connection"), { code: "0A000" })
})

/** What whoever gives out the connection of a transaction may take; `undefined`: nothing. */
export class Offered extends Context.Reference<Offered>()("effect-processors/Errand", {
  defaultValue: (): Errand | undefined => undefined
}) {}

/** From when on commits are offered. */
export interface Bounds {
  /** Operations in a commit, at least. */
  readonly operations: number
  /** Commits of that size, one after another, that wrote through tables alone before. */
  readonly calm: number
  /** After each errand that failed, or was not taken, so many times more of them are wanted, up to `calmMax`. */
  readonly factor: number
  readonly calmMax: number
}

export const defaults: Bounds = { operations: 200, calm: 3, factor: 8, calmMax: 4_096 }

/** The bounds of the owners that are made here; {@link defaults} unless given. */
export class Limits extends Context.Reference<Limits>()("effect-processors/Errand/Limits", {
  defaultValue: (): Bounds => defaults
}) {}

/** What was learned of an owner's commits. */
export class Habits {
  private calm = 0
  private wanted: number

  constructor(private readonly bounds: Bounds) {
    this.wanted = bounds.calm
  }

  /** Whether a commit of so many operations should be offered. */
  isOffered(operations: number): boolean {
    return operations >= this.bounds.operations && this.calm >= this.wanted
  }

  /** Learns from a commit that was made. */
  committed(errand: Errand, operations: number): void {
    if (operations < this.bounds.operations) return
    this.calm = errand.statements === 0 ? this.calm + 1 : 0
  }

  /** Learns from an errand that failed, or that nobody took: it could have gone with the commits of others. */
  failed(): void {
    this.calm = 0
    this.wanted = Math.min(this.bounds.calmMax, this.wanted * this.bounds.factor)
  }
}
