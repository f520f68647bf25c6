/**
 * Idle followers: those for which nothing comes, whose cursors are moved all the same, many at once.
 *
 *     a run reads on ─▶ a follower has passed `unwanted` strands ─┐
 *                       `unwantedMillis` have gone by ────────────┴▶ due ─▶ move, so many at once ─▶ followers at rest again
 *                                                                            └ pause, as long as they are many
 *
 * Invariants: a follower whose cursor is being moved takes no batch, so nobody else moves it meanwhile; no more cursors are
 * moved in a second than {@link movesPerSecond}, and moving takes no more than a {@link share} of the time, however fast
 * strands come and however many followers want none of them, so that followers at rest cost no more the more is read.
 */

import * as Effect from "effect/Effect"
import type { Position } from "../domain/Position.js"
import type { Follower } from "./Follower.js"
import type { Run } from "./Run.js"

/** A cursor that is to be moved up to a position, since nothing before it was wanted. */
export interface Move<out Cursor = unknown> {
  readonly cursor: Cursor
  readonly position: Position
  /** Has to be called, once: a refused one learns why by itself, a failed one is tried again when it is due again. */
  readonly settle: (outcome: "moved" | "refused" | "failed") => void
}

/** Moves cursors that are in one place together. Never fails: what becomes of each is told by its `settle`. */
export interface Mover<in Cursor> {
  readonly move: (moves: ReadonlyArray<Move<Cursor>>) => Effect.Effect<void>
}

/** One follower's cursor, and who moves it. */
export interface Movable {
  readonly mover: Mover<never>
  readonly cursor: unknown
}

/** Those that share their limits. */
interface Kind {
  readonly unwanted: number
  readonly millis: number
  /** Those that are neither due nor being moved, the one that has rested for longest first. */
  readonly members: Set<Follower>
  /** When those that are behind will have been for long enough. */
  dueMillis: number | undefined
}

/** Cursors that are moved at once: few enough for others to get at the database in between. */
export const movesMax = 500

/** So many cursors are moved in a second at most. */
export const movesPerSecond = 2_500

/** Of the time, so much is spent on moves at most, waiting for others to let the database go included. */
const share = 1 / 50

export class Idle {
  private readonly kinds: Array<Kind> = []
  private readonly due = new Set<Follower>()
  private wake: (() => void) | undefined = undefined
  /** When cursors may be moved again. */
  private restedMillis = -Infinity

  constructor(private readonly now: () => number) {}

  enter(follower: Follower): void {
    this.kindOf(follower).members.add(follower)
  }

  leave(follower: Follower): void {
    const kind = this.kindOf(follower)
    kind.members.delete(follower)
    this.due.delete(follower)
    if (kind.members.size > 0 || kind.dueMillis === undefined) return
    kind.dueMillis = undefined
    this.wake?.()
  }

  /** It has nothing behind it: the last of its kind to become due. */
  settled(follower: Follower): void {
    const { members } = this.kindOf(follower)
    if (this.due.delete(follower) || members.delete(follower)) members.add(follower)
  }

  /** It asks by itself to be moved. */
  ask(follower: Follower): void {
    if (!this.kindOf(follower).members.delete(follower)) return
    this.due.add(follower)
    this.wake?.()
  }

  /** A run has come further. */
  advanced(run: Run): void {
    for (const kind of this.kinds) {
      if (kind.members.size === 0) continue
      // Who waits with nothing to do was given nothing.
      if (run.hungry > 0) this.arm(kind)
      const passed: Array<Follower> = []
      for (const follower of kind.members) {
        if (follower.run !== run || !follower.hasPassedMany) break
        passed.push(follower)
      }
      for (const follower of passed) {
        if (follower.isBehind) this.ask(follower)
        else this.settled(follower)
      }
    }
  }

  /** It waits behind strands that it did not want. */
  lags(follower: Follower): void {
    this.arm(this.kindOf(follower))
  }

  private arm(kind: Kind): void {
    if (kind.dueMillis !== undefined) return
    kind.dueMillis = this.now() + kind.millis
    this.wake?.()
  }

  /** Moves what is due, for ever. */
  readonly work: Effect.Effect<never> = Effect.forever(Effect.suspend(() => {
    this.collect()
    const pauseMillis = this.due.size === 0 ? 0 : this.restedMillis - this.now()
    if (pauseMillis > 0) return Effect.sleep(pauseMillis)
    const chosen = this.choose()
    if (chosen.length > 0) return this.move(chosen)
    const waking = Effect.async<void>((resume) => {
      this.wake = () => resume(Effect.void)
      if (this.due.size > 0) this.wake()
      return Effect.sync(() => {
        this.wake = undefined
      })
    })
    const next = Math.min(...this.kinds.map(({ dueMillis }) => dueMillis ?? Infinity))
    return next === Infinity ? waking : Effect.raceFirst(waking, Effect.sleep(Math.max(0, next - this.now())))
  }))

  /** Whoever is behind when the time of its kind has come is due. */
  private collect(): void {
    const now = this.now()
    for (const kind of this.kinds) {
      if (kind.dueMillis === undefined || kind.dueMillis > now) continue
      kind.dueMillis = undefined
      for (const follower of kind.members) if (follower.isBehind) this.ask(follower)
    }
  }

  /** Some that are moved together. Those that move by themselves are told to. */
  private choose(): ReadonlyArray<Follower> {
    const chosen: Array<Follower> = []
    let mover: Mover<never> | undefined
    for (const follower of this.due) {
      if (chosen.length === movesMax) break
      const { movable } = follower.following
      if (movable !== undefined && mover !== undefined && movable.mover !== mover) continue
      this.due.delete(follower)
      if (movable === undefined || !follower.isBehind) {
        this.rests(follower)
        if (follower.isBehind) follower.press()
      } else {
        mover = movable.mover
        chosen.push(follower)
      }
    }
    return chosen
  }

  private move(chosen: ReadonlyArray<Follower>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const open = new Set(chosen)
      const began = this.now()
      const moves = chosen.map((follower): Move<never> => {
        follower.isMoving = true
        const position = follower.at
        return {
          cursor: follower.following.movable!.cursor as never,
          position,
          settle: (outcome) => {
            if (!open.delete(follower)) return
            follower.moved(position, outcome)
            this.rests(follower)
          }
        }
      })
      return chosen[0]!.following.movable!.mover.move(moves).pipe(
        Effect.ensuring(Effect.sync(() => {
          for (const move of moves) move.settle("failed")
          const ended = this.now()
          this.restedMillis = ended + Math.max(moves.length * 1_000 / movesPerSecond, (ended - began) * (1 / share - 1))
        }))
      )
    })
  }

  /** It is not due any more, if it is still there; behind again, if its run has gone on or nothing was moved. */
  private rests(follower: Follower): void {
    if (!follower.isFollowing) return
    const kind = this.kindOf(follower)
    kind.members.add(follower)
    if (follower.isBehind) this.arm(kind)
  }

  private kindOf({ room: { limits } }: Follower): Kind {
    const known = this.kinds.find((kind) => kind.unwanted === limits.unwanted && kind.millis === limits.unwantedMillis)
    if (known !== undefined) return known
    const kind: Kind = {
      unwanted: limits.unwanted,
      millis: limits.unwantedMillis,
      members: new Set(),
      dueMillis: undefined
    }
    this.kinds.push(kind)
    return kind
  }
}
