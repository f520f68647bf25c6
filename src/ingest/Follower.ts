/**
 * A follower: one subscription on a relay, near the head or behind it.
 *
 *     attached ──▶ given strands by the run ──▶ room ──▶ take, a batch
 *        ▲ │ full for too long: forgets what waits
 *        │ ▼
 *     laggard ───▶ reads a page when its turn comes, filtered by the source if it can
 *
 * Invariant: whoever takes a batch has committed the one before, so what that held is let go of.
 */

import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type { Position } from "../domain/Position.js"
import type { Strand } from "../domain/Strand.js"
import type { Batch, Batches, Limits } from "./Batch.js"
import * as Filter from "./Filter.js"
import type { Movable } from "./Idle.js"
import type { Parcel } from "./Parcel.js"
import * as Reading from "./Reading.js"
import type { Hub } from "./Relay.js"
import { Room } from "./Room.js"
import type { Run } from "./Run.js"
import { distance } from "./Source.js"
import type { Page, SourceError, Wanted } from "./Source.js"
import type { Turn } from "./Turns.js"

/** Who follows, from where, and what is wanted. */
export interface Following {
  readonly after: Position
  readonly filter: Filter.Filter
  readonly filterDialect: Filter.Dialect
  /** What else has to hold of a strand, beside the filter. */
  readonly alsoWanted?: ((strand: Strand) => boolean) | undefined
  readonly limits: Limits
  /** Whether others wait for their turn to commit where it would have to wait behind them. Default: nobody does. */
  readonly isCrowded?: (() => boolean) | undefined
  /** How its cursor is moved while nothing is wanted; without it, by batches of no strands. */
  readonly movable?: Movable | undefined
}

export class Follower {
  readonly room: Room
  readonly constraints: ReadonlyArray<Filter.Constraint>
  /** The run that it is attached to; it is a laggard without one. */
  run: Run | undefined = undefined
  /** Whether it was told where it belongs, so that it may read. */
  isPlaced = false
  /** Whether its cursor is being moved, so that it must not commit. */
  isMoving = false
  /** Since when its room has been full, in milliseconds. */
  fullSinceMillis: number | undefined = undefined
  /** How many strands the run had read when it was last at rest. */
  countAt = 0
  /** Where its cursor stands for certain. */
  committed: Position
  /** What waits for it to have something to do. */
  private resume: (() => void) | undefined = undefined
  /** Whether it waits for strands with nothing in its room, attached. */
  private isHungry = false
  /** What it was given last, and may not have committed. */
  private hand: Parcel | undefined = undefined
  private handPosition: Position
  /** How many of the first strands of the room it has read itself. */
  private owned = 0
  private turn: Turn | undefined = undefined
  private reading: Reading.Reading | undefined = undefined
  /** How far the reading has come. */
  private readTo: Position

  constructor(private readonly hub: Hub, readonly following: Following) {
    this.room = new Room(following.after, following.limits)
    this.constraints = Filter.constraints(following.filter, following.filterDialect)
    this.committed = following.after
    this.handPosition = following.after
    this.readTo = following.after
  }

  /** Everything wanted up to here was given. */
  get at(): Position {
    this.see()
    return this.room.seen
  }

  /** Whether it is on a run that has not ended. */
  get isFollowing(): boolean {
    return this.run !== undefined && this.room.end === undefined
  }

  /** Whether its cursor is behind what was looked at, with nothing to do about it but to move it. */
  get isBehind(): boolean {
    return this.isHungry && !this.isMoving && this.isFollowing && this.run!.position > this.handPosition
  }

  /** Whether it has passed by so many unwanted strands that its cursor should move. */
  get hasPassedMany(): boolean {
    return this.run !== undefined && this.run.count - this.countAt >= this.room.limits.unwanted
  }

  /** Whether it waits with nothing to do, and could commit at once. */
  get isHeldUp(): boolean {
    return this.isHungry && this.following.isCrowded?.() !== true
  }

  wants(strand: Strand): boolean {
    return strand.operations.length > 0 && this.mayWant(strand) && Filter.meets(strand, this.constraints)
  }

  /** Whether something else than the routes decides what it wants. */
  get isChoosy(): boolean {
    return this.following.alsoWanted !== undefined
  }

  /** What the routes do not know. */
  mayWant(strand: Strand): boolean {
    return strand.position > this.room.seen && (this.following.alsoWanted?.(strand) ?? true)
  }

  get take(): Batches<SourceError>["take"] {
    return Effect.suspend(() => {
      this.letGo()
      this.room.outstandingFrom = undefined
      return this.next
    })
  }

  get waiting(): Batches<SourceError>["waiting"] {
    return Effect.sync(() => ({
      operations: this.room.operations,
      oldest: this.room.oldest
    }))
  }

  get passed(): Batches<SourceError>["passed"] {
    return Effect.sync(() => this.passedBy)
  }

  /** The position up to which nothing wanted is left, nor being committed. */
  get passedBy(): Position {
    this.see()
    return this.room.passed
  }

  get close(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.resume = undefined
      this.run?.leave(this)
      const kept = this.drop()
      if (kept !== undefined) this.hub.hands.release(kept)
      this.owned = 0
      this.letGo()
      this.hub.forget(this)
      return this.closeReading
    })
  }

  /** Gives it a strand that the run has read, and has counted among those in the rooms. */
  give(strand: Strand): void {
    this.room.put(strand, true)
    if (this.room.isFull) this.fullSinceMillis ??= this.hub.now()
    this.stir()
  }

  /** Gives it a strand that it has read itself, or found in the window. */
  absorb(strand: Strand): void {
    this.room.put(strand, true)
    this.hub.hands.add(strand)
    this.owned++
  }

  /** Forgets what waits, to read it again. What has left in part stays, and is returned. */
  drop(): Strand | undefined {
    const { hands, rooms } = this.hub
    let own = this.room.isBroken ? this.owned - 1 : this.owned
    const kept = this.room.clear((strand) => own-- > 0 ? hands.release(strand) : rooms.release(strand))
    if (kept !== undefined && this.owned === 0) {
      rooms.release(kept)
      hands.add(kept)
    }
    this.owned = kept === undefined ? 0 : 1
    this.fullSinceMillis = undefined
    return kept
  }

  /** It is on a run, from where everything above `at` comes to it. */
  attached(run: Run): void {
    this.run = run
    this.countAt = run.count - (this.room.isEmpty ? this.room.unwanted : 0)
    this.fullSinceMillis = this.room.isFull ? this.hub.now() : undefined
    this.rest()
  }

  /** It is on no run any more. */
  detached(): void {
    this.see()
    this.rouse()
    this.run = undefined
  }

  /** Its cursor was moved, or was refused and is to learn why. */
  moved(to: Position, outcome: "moved" | "refused" | "failed"): void {
    this.isMoving = false
    if (outcome === "moved") {
      this.committed = to
      this.handPosition = to
      this.room.pass(to)
      if (this.run !== undefined) this.countAt = this.run.count
    }
    if (outcome === "refused") this.press()
    else if (!this.room.isEmpty || this.room.end !== undefined || this.run === undefined) this.stir()
  }

  /** Has it commit a batch of no strands. */
  press(): void {
    this.room.pressing = true
    this.stir()
  }

  /** Has it look whether there is something to do, unless its cursor is being moved. */
  stir(): void {
    if (this.isMoving || this.resume === undefined) return
    const { resume } = this
    this.resume = undefined
    this.rouse()
    resume()
  }

  /** How far its run has come is looked up when it matters, so that a run need not tell those who want nothing. */
  private see(): void {
    const { room, run } = this
    if (run === undefined) return
    if (run.position > room.seen) room.seen = run.position
    // A run may have come further while the cursor was being moved, which counts as one at least.
    if (room.isEmpty) room.unwanted = run.position > this.handPosition ? Math.max(1, run.count - this.countAt) : 0
  }

  private get next(): Effect.Effect<Option.Option<Batch>, SourceError> {
    return Effect.suspend(() => {
      const { hub, room } = this
      this.see()
      if (this.isMoving) return this.again(this.park)
      if (!room.isEmpty || (room.unwanted > 0 && this.isPressed)) return Effect.zipRight(this.linger, this.leave)
      if (room.end !== undefined) {
        const end = room.end as Exit.Exit<void, SourceError>
        return Exit.isSuccess(end) ? Effect.succeedNone : Effect.failCause(end.cause)
      }
      if (this.run === undefined) return this.again(this.isPlaced ? this.catchUp : this.park)
      if (this.reading !== undefined) return this.again(this.closeReading)
      if (this.hasPassedMany) hub.idle.ask(this)
      else if (room.unwanted > 0) hub.idle.lags(this)
      return this.again(this.park)
    })
  }

  private again<R>(first: Effect.Effect<void, SourceError, R>) {
    return Effect.zipRight(first, this.next)
  }

  /** Whether its cursor has to move by a batch of no strands. */
  private get isPressed(): boolean {
    const { room } = this
    return room.pressing || room.end !== undefined ||
      ((this.following.movable === undefined || this.run === undefined) && room.unwanted >= room.limits.unwanted)
  }

  /**
   * Waits to be stirred. Who is interrupted meanwhile is not noticed, since that would cost all that wait: being stirred then
   * does nothing, and being at rest ends with it, with the next batch, or when the follower closes.
   */
  private get park(): Effect.Effect<void> {
    return Effect.async((resume) => {
      this.resume = () => resume(Effect.void)
      this.rest()
    })
  }

  /** It waits, with nothing to do: others should not be held up on its behalf, nor it by them. */
  private rest(): void {
    if (this.isHungry || this.resume === undefined || this.run === undefined || !this.room.isEmpty) return
    this.isHungry = true
    this.run.hungers()
  }

  private rouse(): void {
    if (!this.isHungry) return
    this.isHungry = false
    if (this.run !== undefined) this.run.hungry--
  }

  /** Gives more strands some time to join a batch that is not full yet. */
  private get linger(): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { room } = this
      if (room.limits.lingerMillis === 0 || room.isEmpty || this.isFilled) return Effect.void
      return Effect.asVoid(Effect.timeoutOption(this.untilFilled(), room.limits.lingerMillis))
    })
  }

  private get isFilled(): boolean {
    return this.room.fillsBatch || this.room.end !== undefined
  }

  private untilFilled(): Effect.Effect<void> {
    return Effect.suspend(() => this.isFilled ? Effect.void : Effect.zipRight(this.park, this.untilFilled()))
  }

  private get leave(): Effect.Effect<Option.Option<Batch>> {
    return Effect.sync(() => {
      const { hub, room, run } = this
      this.see()
      const wasFull = room.isFull
      const batch = this.takeShared() ?? this.takeAlone()
      this.handPosition = batch.position
      if (run !== undefined) {
        if (room.isEmpty) {
          this.countAt = run.count
          hub.idle.settled(this)
        }
        if (wasFull && !room.isFull) this.fullSinceMillis = undefined
        run.changes()
      }
      return Option.some(batch)
    })
  }

  /** What another one has in hand, where that is about what would be taken. */
  private takeShared(): Batch | undefined {
    const parcel = this.owned === 0 ? this.hub.parcels.from(this.room.first) : undefined
    const batch = parcel && this.room.takeAs(parcel)
    if (parcel === undefined || batch === undefined) return undefined
    parcel.take()
    this.hand = parcel
    return batch
  }

  private takeAlone(): Batch {
    const { hub, room } = this
    const isWhole = !room.isBroken
    const allowance = {
      bytes: Math.max(1, hub.hands.free / 4),
      weigh: (strand: Strand) => this.owned > 0 || hub.hands.has(strand) ? 0 : strand.bytes
    }
    const left: Array<Strand> = []
    let own = 0
    const batch = room.take(allowance, (strand) => {
      left.push(strand)
      if (this.owned === 0) return
      this.owned--
      own++
    })
    const isShared = isWhole && own === 0 && left.length === batch.strands.length && left.length > 0 &&
      this.run !== undefined && this.run.attached.size > 1
    this.hand = isShared ? hub.parcels.share(batch) : hub.parcels.keep(left, batch.operations)
    for (const [i, strand] of left.entries()) (i < own ? hub.hands : hub.rooms).release(strand)
    return batch
  }

  private letGo(): void {
    this.committed = this.handPosition
    this.hand?.letGo()
    this.hand = undefined
    if (this.owned === 0) this.finishTurn()
  }

  private finishTurn(): void {
    if (this.turn !== undefined) this.hub.turns.finish(this.turn, this.hub.now())
    this.turn = undefined
  }

  /** Joins the run if it is in its window; otherwise reads a page, when its turn has come. */
  private get catchUp(): Effect.Effect<void, SourceError> {
    return Effect.suspend(() => {
      if (this.hub.place(this)) return Effect.void
      return this.hub.turns.take((turn) => {
        this.turn = turn
      }).pipe(
        Effect.zipRight(Effect.suspend(() => this.hub.place(this) ? Effect.void : this.read)),
        Effect.zipRight(Effect.sync(() => {
          if (this.owned === 0) this.finishTurn()
        }))
      )
    })
  }

  private get read(): Effect.Effect<void, SourceError> {
    return Effect.suspend(() => {
      const { following, hub, room } = this
      const { at } = this
      const bytes = Math.max(1, Math.min(room.limits.bytes, Math.floor(hub.hands.free / 4)))
      const { filter, filterDialect } = following
      const bounds = { operations: room.limits.operations, bytes }
      return Effect.map(
        hub.source.page?.(at, { filter, filterDialect, ...bounds }) ?? this.readThrough(at, bounds),
        ({ position, strands }) => {
          for (const strand of strands) if (this.wants(strand)) this.absorb(strand)
          if (room.isEmpty) room.unwanted += distance(hub.source, at, position)
          if (position > room.seen) room.seen = position
          hub.place(this)
        }
      )
    })
  }

  private readThrough(at: Position, bounds: Pick<Wanted, "operations" | "bytes">): Effect.Effect<Page, SourceError> {
    // What was read and has been forgotten since does not come again from a reading that is past it.
    const forgotten = this.readTo > at ? this.closeReading : Effect.void
    return forgotten.pipe(
      Effect.zipRight(
        Effect.suspend(() => this.reading === undefined ? this.openReading(at) : Effect.succeed(this.reading))
      ),
      Effect.flatMap((reading) => reading.page(bounds)),
      Effect.map(Option.match({
        onNone: (): Page => {
          this.room.end = Exit.void
          return { strands: [], position: at }
        },
        onSome: (page) => {
          this.readTo = page.position
          return page
        }
      }))
    )
  }

  private openReading(at: Position): Effect.Effect<Reading.Reading> {
    return Effect.uninterruptible(Effect.tap(Reading.open(this.hub.source, at), (reading) =>
      Effect.sync(() => {
        this.reading = reading
        this.readTo = at
      })))
  }

  private get closeReading(): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { reading } = this
      this.reading = undefined
      return reading?.close ?? Effect.void
    })
  }
}
