/**
 * A relay: reads a source once for all who follow it, and gives each what it wants.
 *
 *                        ┌▶ a run: one reader ─▶ routes ─▶ followers near the head
 *     source ────────────┤        └ window: the last strands, for who comes up from behind
 *                        └▶ pages, so many at a time ────▶ laggards, each with its own filter
 *
 * A follower that is full is waited for. One that has kept the reader waiting for longer than the patience, while others want
 * to go on, is let go: it forgets what waits and reads pages of its own until it is back in the window. So a slow one holds
 * nobody up, and where all are slow the reader is slow with them. Where commits wait for their turn, nobody is held up who would
 * have to wait there too: a crowd that has fallen behind would otherwise read the same pages a thousand times.
 *
 * Invariants: each follower is given exactly the strands that it wants, each once and in order; joining and leaving a run
 * happen in one turn, so nothing falls between; strands in memory occupy no more than `bytesMax`, and for each follower at
 * most one strand beyond it.
 */

import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Elapsed from "../domain/Elapsed.js"
import type { Position } from "../domain/Position.js"
import { origin } from "../domain/Position.js"
import type { Batches } from "./Batch.js"
import * as Chunks from "./Chunks.js"
import { Follower } from "./Follower.js"
import type { Following } from "./Follower.js"
import { Holding } from "./Holding.js"
import * as Idle from "./Idle.js"
import { Parcels } from "./Parcel.js"
import { Run } from "./Run.js"
import { distance } from "./Source.js"
import type { Source, SourceError } from "./Source.js"
import { Turns } from "./Turns.js"

export type { Following } from "./Follower.js"
export type { Movable, Move, Mover } from "./Idle.js"

export interface Options {
  /** What strands in memory may occupy, in bytes, as sources estimate it. Default: 64 MiB. */
  readonly bytesMax?: number | undefined
  /** How many laggards read at a time. Default: 16. */
  readonly laggardsMax?: number | undefined
  /** How long a full follower may hold up others that want to go on, in milliseconds. Default: 200. */
  readonly patienceMillis?: number | undefined
  /** How long is waited for followers that were announced and do not come, in milliseconds. Default: 1 second. */
  readonly gatherMillis?: number | undefined
  /** Strands that the window keeps for who comes up from behind. Default: 4,096, in at most an eighth of `bytesMax`. */
  readonly windowStrands?: number | undefined
  /** Told of how it stands whenever that may have changed. */
  readonly tell?: ((standing: Standing) => void) | undefined
}

/** How a relay stands. */
export interface Standing {
  /** Followers that are given what the one reader reads. */
  readonly attached: number
  /** Followers that read by themselves. */
  readonly laggards: number
  /** What the strands in memory occupy, in bytes, as sources estimate it. */
  readonly bytes: number
}

export interface Relay {
  /** What one follower is given from now on, until the scope closes. */
  readonly follow: (following: Following) => Effect.Effect<Batches<SourceError>, never, Scope.Scope>
  /**
   * Announces a follower. Nothing is read before all who were announced have come or given up, so that those who start
   * together read together; calling what it returns again does nothing.
   */
  readonly expect: () => () => void
  readonly standing: Effect.Effect<Standing>
}

/** A relay for as long as the scope lasts. It reads while somebody follows. */
export const make = (
  source: Source["Type"],
  options: Options = {}
): Effect.Effect<Relay, never, Scope.Scope> =>
  Effect.gen(function*() {
    const clock = yield* Effect.clock
    const relay = new Hub(source, () => Elapsed.of(clock), options)
    yield* Effect.forkScoped(relay.idle.work)
    yield* Effect.forkScoped(relay.read)
    yield* Effect.forkScoped(relay.gathering(options.gatherMillis ?? 1_000))
    return {
      // The finalizer needs nothing from its context, which `acquireRelease` would keep for each.
      follow: (following) =>
        Effect.uninterruptible(Effect.flatMap(Effect.scope, (scope) => {
          const follower = relay.follow(following)
          return Effect.as(Scope.addFinalizer(scope, follower.close), follower)
        })),
      expect: () => relay.expect(),
      standing: Effect.sync(() => relay.standing)
    }
  })

/** How many strands below the furthest cursor a run begins for anybody, so that who is in between joins it at once. */
const near = 10_000
/** How many strands below it a run begins for many who would read one by one: those at the head wait meanwhile. */
const far = 250_000
/** Followers that are looked at for each chunk. */
const lookedAtMax = 64
/** What a page of so many strands as are {@link near} costs that one reads for itself, in strands that are read for all. */
const pageStrands = 100

/** What followers and the run share. */
export class Hub {
  readonly turns: Turns
  /** What waits for followers that are near the head, and the window. */
  readonly rooms: Holding
  /** What laggards have read, and what is being committed. */
  readonly hands: Holding
  /** What followers have in hand, found by those who would take the same. */
  readonly parcels: Parcels
  readonly idle: Idle.Idle
  readonly patienceMillis: number
  readonly windowStrands: number
  readonly windowBytes: number
  private run: Run | undefined = undefined
  private readonly followers = new Set<Follower>()
  /** How many are announced and have not come. */
  private expected = 0
  /** Those who have come while others were expected; `undefined` once reading has begun. */
  private gathered: Array<Follower> | undefined = []
  private arrivals = 0
  private announced: (() => void) | undefined = undefined
  private opened: (() => void) | undefined = undefined
  private begun: (() => void) | undefined = undefined

  constructor(
    readonly source: Source["Type"],
    readonly now: () => number,
    private readonly options: Options
  ) {
    const { bytesMax = 64 * 1024 * 1024, laggardsMax = 16, patienceMillis = 200, windowStrands = 4_096 } = options
    this.patienceMillis = patienceMillis
    this.windowStrands = windowStrands
    this.windowBytes = Math.floor(bytesMax / 8)
    this.turns = new Turns(Math.max(1, laggardsMax), patienceMillis)
    this.rooms = new Holding(Math.floor(bytesMax / 2))
    this.hands = new Holding(Math.floor(bytesMax / 2))
    this.parcels = new Parcels(this.rooms, this.hands)
    this.idle = new Idle.Idle(now)
  }

  get standing(): Standing {
    const attached = this.run?.attached.size ?? 0
    return {
      attached,
      laggards: this.followers.size - attached,
      bytes: this.rooms.bytes + this.hands.bytes
    }
  }

  /**
   * Up to here everybody has had everything and has committed it, so that nobody comes back for it; `undefined` where there
   * are too many to look. What is kept longer than it takes to commit is copied by collections of garbage, again and again.
   */
  get passed(): Position | undefined {
    if (this.followers.size > lookedAtMax) return undefined
    let lowest: Position | undefined
    for (const follower of this.followers) {
      const passed = follower.passedBy
      if (lowest === undefined || passed < lowest) lowest = passed
    }
    return lowest
  }

  tell(): void {
    this.options.tell?.(this.standing)
  }

  follow(following: Following): Follower {
    const follower = new Follower(this, following)
    this.followers.add(follower)
    if (this.gathered === undefined) {
      this.settle(follower)
    } else {
      this.gathered.push(follower)
      if (this.expected === 0) this.open()
    }
    return follower
  }

  forget(follower: Follower): void {
    this.followers.delete(follower)
    this.gathered = this.gathered?.filter((other) => other !== follower)
    this.tell()
  }

  expect(): () => void {
    if (this.gathered === undefined) return () => undefined
    this.expected++
    let isPending = true
    return () => {
      if (!isPending) return
      isPending = false
      this.expected--
      this.arrivals++
      if (this.expected === 0) this.open()
      else this.announced?.()
    }
  }

  /** Waits no longer for those who do not come, once nobody has come for a while. */
  gathering(millis: number): Effect.Effect<void> {
    const announced = Effect.async<void>((resume) => {
      this.announced = () => resume(Effect.void)
      if (this.arrivals > 0 || this.gathered === undefined) this.announced()
    })
    const opened = Effect.async<void>((resume) => {
      this.opened = () => resume(Effect.void)
      if (this.gathered === undefined) this.opened()
    })
    const quiet: Effect.Effect<void> = Effect.suspend(() => {
      const before = this.arrivals
      return Effect.zipRight(
        Effect.sleep(millis),
        Effect.suspend(() => {
          if (this.arrivals !== before) return quiet
          this.open()
          return this.gathered === undefined ? Effect.void : quiet
        })
      )
    })
    return Effect.zipRight(announced, Effect.raceFirst(opened, quiet))
  }

  /**
   * Lets the follower join the run if it is in the window, or a new run if nobody is in this one and it is elsewhere. Otherwise
   * it stays a laggard.
   */
  place(follower: Follower): boolean {
    const { run } = this
    if (run === undefined || run.end !== undefined) {
      this.begin(startFor(this.source, [follower.at, ...run?.lefts ?? []], follower.at))
    } else if (run.attached.size === 0 && (follower.at < run.from || follower.at > run.position)) {
      this.begin(follower.at)
    }
    const hasJoined = this.run!.join(follower)
    this.tell()
    return hasJoined
  }

  /** Reads one run after another, each until it ends or another begins. */
  readonly read: Effect.Effect<never> = Effect.forever(Effect.suspend(() => {
    const run = this.run
    const another = Effect.async<void>((resume) => {
      this.begun = () => resume(Effect.void)
      if (this.run !== run) this.begun()
    })
    if (run === undefined || run.end !== undefined) return another
    const reading = Chunks.forEach(Stream.suspend(() => this.source.strands(run.position)), run.pass).pipe(
      Effect.exit,
      Effect.flatMap((exit) => Effect.sync(() => run.finish(exit)))
    )
    return Effect.raceFirst(reading, another)
  }))

  /** Begins to read: as low as those want it who are near the furthest of all, or as many want it who are not. */
  private open(): void {
    const all = this.gathered ?? []
    if (all.length === 0) return
    this.gathered = undefined
    this.opened?.()
    const from = startFor(this.source, all.map(({ at }) => at))
    this.begin(from)
    // Who is there where it begins comes first: a run that nobody is on gives way to whoever is elsewhere.
    const first = all.find(({ at }) => at === from)
    if (first !== undefined) this.settle(first)
    for (const follower of all) if (follower !== first) this.settle(follower)
  }

  private settle(follower: Follower): void {
    follower.isPlaced = true
    this.place(follower)
    follower.stir()
  }

  /** A run that begins here; the one before has ended, or nobody is in it. */
  private begin(from: Position): void {
    this.run?.close()
    this.run = new Run(this, from)
    this.begun?.()
  }
}

/**
 * From which of some cursors a run begins best, that ends at the highest, or `of`: the lower it begins, the more is read for
 * all, and the fewer read by themselves, in pages of what they want or, where the source has none, all there is. Cursors of
 * followers for whom nothing comes stand far apart where much is read, since they are moved in turns.
 */
const startFor = (source: Source["Type"], cursors: ReadonlyArray<Position>, of?: Position): Position => {
  const highest = of ?? cursors.reduce((high, each) => each > high ? each : high, origin)
  const behind = cursors
    .filter((from) => from < highest)
    .map((from) => ({ from, strands: distance(source, from, highest) }))
    .toSorted((a, b) => a.from < b.from ? -1 : a.from > b.from ? 1 : 0)
  // Who is further behind reads by himself wherever it begins.
  const further = behind.filter(({ strands }) => strands > near && strands <= far)
  const alone = further.map(({ strands }) =>
    source.page === undefined ? strands : Math.ceil(strands / near) * pageStrands
  )
  const nearest = behind.find(({ strands }) => strands <= near)
  let best = { from: nearest?.from ?? highest, cost: alone.reduce((sum, each) => sum + each, 0) }
  let cost = 0
  for (const [i, { from, strands }] of further.entries()) {
    if (strands + cost <= best.cost) best = { from, cost: strands + cost }
    cost += alone[i]!
  }
  return best.from
}
