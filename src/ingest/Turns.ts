/**
 * Turns: so many may do something at a time, first come, first served, and nobody keeps the others waiting for long.
 *
 *     take ─▶ wait in line ─▶ turn ─▶ finish
 *                               └ kept for longer than the patience while others wait: it does not count any more
 */

import * as Effect from "effect/Effect"
import * as Elapsed from "../domain/Elapsed.js"

export interface Turn {
  readonly sinceMillis: number
}

/** Somebody in line; `begin` is told of the turn at the moment it begins, so that it is theirs whatever happens next. */
interface Waiter {
  readonly begin: (turn: Turn) => void
  readonly resume: () => void
}

export class Turns {
  private readonly held = new Set<Turn>()
  private readonly line = new Set<Waiter>()

  constructor(
    private readonly max: number,
    private readonly patienceMillis: number
  ) {}

  /** Waits for a turn, which `begin` is told of; whoever was told has to finish it. */
  take(begin: (turn: Turn) => void): Effect.Effect<void> {
    return Effect.clockWith((clock) => {
      const now = () => Elapsed.of(clock)
      return Effect.suspend(() => {
        if (this.held.size < this.max && this.line.size === 0) return Effect.sync(() => this.grant(begin, now()))
        const watch = Effect.suspend(() => Effect.sleep(this.untilOverdue(now()))).pipe(
          Effect.zipRight(Effect.sync(() => this.retire(now()))),
          Effect.forever
        )
        return Effect.raceFirst(this.wait(begin, now), watch)
      })
    })
  }

  /** Ends a turn; one that has ended already stays so. */
  finish(turn: Turn, nowMillis: number): void {
    if (this.held.delete(turn)) this.callNext(nowMillis)
  }

  private grant(begin: (turn: Turn) => void, sinceMillis: number): void {
    const turn: Turn = { sinceMillis }
    this.held.add(turn)
    begin(turn)
  }

  private wait(begin: (turn: Turn) => void, now: () => number): Effect.Effect<void> {
    return Effect.async((resume) => {
      const waiter: Waiter = { begin, resume: () => resume(Effect.void) }
      this.line.add(waiter)
      this.callNext(now())
      return Effect.sync(() => this.line.delete(waiter))
    })
  }

  private untilOverdue(nowMillis: number): number {
    const [oldest] = this.held
    return oldest === undefined
      ? this.patienceMillis
      : Math.max(1, oldest.sinceMillis + this.patienceMillis - nowMillis)
  }

  /** Turns that are overdue do not count any more. */
  private retire(nowMillis: number): void {
    const [oldest] = this.held
    if (oldest === undefined || oldest.sinceMillis + this.patienceMillis > nowMillis) return
    this.held.delete(oldest)
    this.callNext(nowMillis)
  }

  private callNext(nowMillis: number): void {
    const [first] = this.line
    if (first === undefined || this.held.size >= this.max) return
    this.line.delete(first)
    this.grant(first.begin, nowMillis)
    first.resume()
  }
}
