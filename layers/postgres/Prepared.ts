/**
 * Prepared: the statements that a session keeps on the server under names, so that each is parsed and planned once.
 *
 *     text, sent for the third time ──▶ name ──▶ parsed once, then only bound
 *     stale ──▶ all names of the session forgotten ──▶ sent without one
 *     8, 16, 32, 64, 128, 128, … leases ──▶ all planned anew
 *
 * The server keeps the plan that it made while a table was small: a statement that joins a list to it goes on reading the whole
 * table, however large that has become, until somebody analyses it. So plans are not kept for longer than that.
 *
 * A name goes stale when a migration changes what its statement returns, or when something on the way to the server has
 * discarded it. Outside a transaction the statement is sent again and nobody notices; inside one the server has given the
 * transaction up, which is a conflict: run again, it succeeds.
 *
 * Invariant: a session is never given more than {@link namesMax} names, forgotten ones included.
 */

import { randomUUID } from "node:crypto"
import type * as Pg from "pg"

/** So many names at most in the life of a session; later texts go without. */
const namesMax = 256

/** A text is given a name when it is sent for this time. */
const worthIt = 3

/** So many leases go by with the plans that the server has made: twice as many each time, up to a bound. */
const plannedLeases = { first: 8, most: 128 }

/** So many texts at most are counted at a time, and none that is longer than `textMax`. */
const countedMax = 1_000
const textMax = 10_000

export class Prepared {
  private readonly times = new Map<string, number>()
  private readonly names = new Map<string, string>()
  private readonly prefix = `ep_${randomUUID().slice(0, 8)}`
  private given = 0
  /** Leases until plans are made anew, and how many that were to begin with. */
  private left = plannedLeases.first
  private leases = plannedLeases.first

  /** Whether a lease, which this counts, is to begin with new plans. */
  isDue(): boolean {
    if (this.names.size === 0 || --this.left > 0) return false
    this.leases = Math.min(2 * this.leases, plannedLeases.most)
    this.left = this.leases
    return true
  }

  /** The name to send `text` under, or `undefined` when it goes without. */
  nameOf(text: string, parameters: number): string | undefined {
    // Without parameters a text may hold several statements, which cannot be prepared.
    if (parameters === 0) return undefined
    return this.names.get(text) ?? (this.isWorthIt(text) ? this.name(text) : undefined)
  }

  /** Every text starts anew, as an unknown one. */
  forget(): void {
    this.names.clear()
    this.times.clear()
  }

  private isWorthIt(text: string): boolean {
    if (this.given >= namesMax || text.length > textMax) return false
    const times = (this.times.get(text) ?? 0) + 1
    if (this.times.size >= countedMax) this.times.clear()
    this.times.set(text, times)
    return times >= worthIt
  }

  private name(text: string): string {
    const name = `${this.prefix}_${++this.given}`
    this.names.set(text, name)
    this.times.delete(text)
    return name
  }
}

const known = new WeakMap<Pg.Client, Prepared>()

/** What this client has prepared, whoever it is lent to. */
export const of = (client: Pg.Client): Prepared => {
  const found = known.get(client) ?? new Prepared()
  known.set(client, found)
  return found
}

/** Whether a named statement failed because of its name: its result has changed, it is gone, or somebody else's. */
export const isStale = (error: Error): boolean => {
  const code = "code" in error ? error.code : undefined
  return code === "26000" || code === "42P05" || (code === "0A000" && /cached plan/.test(error.message))
}

/** What a transaction is told whose statement was stale: a serialization failure, to be run again. */
export const overtaken = (error: Error): Error =>
  Object.assign(new Error(`${error.message}; the transaction can be run again`, { cause: error }), { code: "40001" })
