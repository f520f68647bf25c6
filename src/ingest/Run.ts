/**
 * A run: one reading of a source on behalf of all followers that are near its place.
 *
 *     chunk ─▶ strand ─▶ routes: who wants it? ─┬─ all have room ───────────────▶ given to each, into the window
 *                                               ├─ one is full ─▶ wait ─▶ … ────▶ … and so on
 *                                               └─ for too long, while others want to go on ─▶ it is let go
 *
 * Who wants to go on and would then wait for a turn to commit, behind those that are full, is not held up by them: a crowd that
 * is slow together is read for together.
 *
 * Invariants: whoever is attached has been given everything wanted up to `position`; the window holds every strand above
 * `from`, up to `position`.
 */

import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Position } from "../domain/Position.js"
import type { Strand } from "../domain/Strand.js"
import type { Follower } from "./Follower.js"
import type { Hub } from "./Relay.js"
import { Routes } from "./Routes.js"
import type { SourceError } from "./Source.js"
import { Window } from "./Window.js"

const nobody: ReadonlyArray<Follower> = []

/**
 * How many times the patience a strand waits for a crowd at most. Longer than commits of a thousand in their turns take;
 * whoever is full for longer has something else to wait for than a turn.
 */
const crowdPatience = 150

export class Run {
  readonly attached = new Set<Follower>()
  private readonly routes = new Routes<Follower>()
  private readonly window: Window
  /** How far it has read. */
  position: Position
  /** How many strands it has read. */
  count = 0
  /** How many of the attached wait with nothing to do. */
  hungry = 0
  end: Exit.Exit<void, SourceError> | undefined = undefined
  /** The cursors of those who were attached when it ended. */
  lefts: ReadonlyArray<Position> = []
  private wanting: ReadonlyArray<Follower> = nobody
  /** How many of the attached do not want all that they are routed. */
  private choosy = 0
  /** Up to here somebody has had strands already when he joined. */
  private aheadTo: Position
  /** Since when the next strand has been held up, in milliseconds. */
  private heldUpSince: number | undefined = undefined
  /** When somebody last waited with nothing to do, and nobody who could have gone on, in milliseconds. */
  private crowdedAt = -Infinity
  private resume: (() => void) | undefined = undefined

  constructor(private readonly hub: Hub, from: Position) {
    this.position = from
    this.aheadTo = from
    this.window = new Window(from, hub.rooms, hub.windowStrands, hub.windowBytes)
  }

  /** The lowest position from which one can join. */
  get from(): Position {
    return this.window.from
  }

  /** Attaches the follower, unless it is below the window or too full for what it wants of it. */
  join(follower: Follower): boolean {
    if (follower.at < this.from) return false
    for (const strand of this.window.after(follower.at)) {
      if (follower.wants(strand)) {
        if (follower.room.isFull) return false
        follower.absorb(strand)
      } else {
        follower.room.put(strand, false)
      }
    }
    if (follower.at > this.aheadTo) this.aheadTo = follower.at
    if (follower.isChoosy) this.choosy++
    this.attached.add(follower)
    this.routes.add(follower.constraints, follower)
    follower.attached(this)
    this.hub.idle.enter(follower)
    this.changes()
    return true
  }

  leave(follower: Follower): void {
    if (!this.attached.delete(follower)) return
    if (follower.isChoosy) this.choosy--
    this.routes.remove(follower.constraints, follower)
    this.hub.idle.leave(follower)
    follower.detached()
    this.changes()
  }

  /** One more waits with nothing to do. */
  hungers(): void {
    if (this.hungry++ === 0) this.changes()
  }

  /** Somebody has made room, come or gone. */
  changes(): void {
    this.resume?.()
  }

  /** Passes a chunk on, strand by strand, waiting wherever one is held up. */
  readonly pass = (chunk: Chunk.Chunk<Strand>): Effect.Effect<void> => {
    const strands = Chunk.toReadonlyArray(chunk)
    let at = 0
    const on: Effect.Effect<void> = Effect.suspend(() => {
      const { passed } = this.hub
      if (passed !== undefined) this.window.pass(passed)
      while (at < strands.length && this.accept(strands[at]!)) at++
      this.hub.idle.advanced(this)
      this.hub.tell()
      return at < strands.length ? Effect.zipRight(this.change, on) : Effect.void
    })
    return on
  }

  /** The source has ended or failed. Whom it has not come to is not concerned, and asks the source from its own place. */
  finish(exit: Exit.Exit<void, SourceError>): void {
    this.end = exit
    const followers = Array.from(this.attached)
    // Who is at the end of a source does not come back.
    this.lefts = followers.filter((follower) => Exit.isFailure(exit) || this.isShortOf(follower))
      .map(({ committed }) => committed)
    for (const follower of followers) {
      if (this.isShortOf(follower)) {
        this.leave(follower)
        this.hub.place(follower)
      } else {
        this.hub.idle.leave(follower)
        follower.room.end = exit
      }
      follower.stir()
    }
    this.close()
  }

  /** Whether it has not come to where the follower stands. */
  private isShortOf(follower: Follower): boolean {
    return follower.at > this.position
  }

  /** Nobody will join it any more. */
  close(): void {
    this.window.clear()
  }

  /** Gives the strand to all who want it, or to nobody: not before all of them have room. */
  private accept(strand: Strand): boolean {
    if (this.attached.size === 0) return false
    this.wanting = this.wantedBy(strand)
    if (this.isHeldUp(strand) && !this.relieve(strand)) return false
    this.heldUpSince = undefined
    if (this.wanting.length > 0) this.hub.rooms.add(strand, this.wanting.length)
    for (const follower of this.wanting) follower.give(strand)
    if (this.window.makeRoom(strand)) this.window.add(strand)
    else this.window.skip(strand)
    this.position = strand.position
    this.count++
    return true
  }

  /** Those who want it; not asked one by one where the routes know, since they may be thousands. */
  private wantedBy(strand: Strand): ReadonlyArray<Follower> {
    if (strand.operations.length === 0) return nobody
    const routed = this.routes.wanting(strand)
    if (this.choosy === 0 && strand.position > this.aheadTo) return routed
    const mayWant = (follower: Follower) => follower.mayWant(strand)
    return routed.every(mayWant) ? routed : routed.filter(mayWant)
  }

  private isHeldUp(strand: Strand): boolean {
    const { parcels, rooms } = this.hub
    if (rooms.free < strand.bytes) parcels.settle()
    return this.wanting.some(({ room }) => room.isFull) ||
      (this.wanting.length > 0 && !this.window.makeRoom(strand))
  }

  /** Lets go of those who have held others up for too long. */
  private relieve(strand: Strand): boolean {
    const now = this.hub.now()
    this.heldUpSince ??= now
    if (this.hungry === 0) return false
    if (!this.isAnybodyHeldUp() && now - this.heldUpSince < crowdPatience * this.hub.patienceMillis) {
      this.crowdedAt = now
      return false
    }
    const overdue = now - this.hub.patienceMillis
    const stays = (follower: Follower) => !follower.room.isFull || this.slowSince(follower, now) > overdue
    for (const follower of this.wanting) if (!stays(follower)) this.letGo(follower)
    if (this.heldUpSince <= overdue && this.crowdedAt <= overdue) this.makeRoom(strand)
    this.wanting = this.wanting.filter(({ run }) => run === this)
    return !this.isHeldUp(strand)
  }

  private isAnybodyHeldUp(): boolean {
    for (const follower of this.attached) if (follower.isHeldUp) return true
    return false
  }

  /** Since when a full one has held others up. */
  private slowSince({ fullSinceMillis }: Follower, now: number): number {
    return Math.max(fullSinceMillis ?? now, this.crowdedAt)
  }

  /** Lets go of the furthest behind until there is room for the strand. */
  private makeRoom(strand: Strand): void {
    while (!this.window.makeRoom(strand)) {
      const last = furthestBehind(this.attached)
      if (last === undefined) return
      this.letGo(last)
    }
  }

  private letGo(follower: Follower): void {
    this.leave(follower)
    follower.drop()
  }

  /** Waits until somebody makes room, or others have been held up for long enough. */
  private readonly change: Effect.Effect<void> = Effect.suspend(() => {
    const change = Effect.async<void>((resume) => {
      this.resume = () => {
        this.resume = undefined
        resume(Effect.void)
      }
      return Effect.sync(() => {
        this.resume = undefined
      })
    })
    if (this.hungry === 0 || this.heldUpSince === undefined) return change
    return Effect.raceFirst(change, Effect.sleep(Math.max(1, this.nextOverdue())))
  })

  /** In how many milliseconds somebody will have held the others up for too long. */
  private nextOverdue(): number {
    const since = this.wanting.reduce(
      (first, follower) => Math.min(first, follower.fullSinceMillis ?? first),
      this.heldUpSince ?? Infinity
    )
    return Math.max(since, this.crowdedAt) + this.hub.patienceMillis - this.hub.now()
  }
}

const furthestBehind = (followers: Iterable<Follower>): Follower | undefined => {
  let last: Follower | undefined
  for (const follower of followers) {
    if (!follower.room.isEmpty && (last === undefined || follower.committed < last.committed)) last = follower
  }
  return last
}
