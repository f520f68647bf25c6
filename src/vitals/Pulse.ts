/**
 * A pulse: what a subscription tells of itself while it runs, and the last thing it told when it does not.
 *
 *     opening ─▶ idle ⇄ working ─▶ ended
 *        ▲    └▶ held ─┘  │ an operation failed: retrying · the database is away: waiting
 *        └── reopening ◀──┴──▶ halted
 */

import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import type { Namespace } from "../domain/Namespace.js"
import * as Partition from "../domain/Partition.js"
import type { Position } from "../domain/Position.js"
import type { Paced } from "../ingest/Pace.js"
import type { Source, SourceError } from "../ingest/Source.js"
import type { Defect } from "../process/Failure.js"
import * as Fault from "../process/Fault.js"
import type { Commit, CommitError } from "../store/Commit.js"
import * as Cursors from "../store/Cursors.js"
import type { Retrying, Waiting } from "../store/Incident.js"
import type { NoSuchStart } from "../store/NoSuchStart.js"
import type { TransactionError } from "../store/Transaction.js"
import type { Behind } from "./Precedence.js"

export type Phase = State["phase"]

/** What ends a subscription before its source does. */
export type Failure = CommitError | SourceError | TransactionError | NoSuchStart

/** Why a batch is not committed yet. */
export type Held = Behind | Paced

/** What a subscription is at, and why, where it is not working. What a handler failed with is inside, as it is. */
export type State =
  | { readonly phase: "opening" | "idle" | "working" | "ended"; readonly failure: undefined }
  | { readonly phase: "held"; readonly failure: Held }
  | { readonly phase: "retrying"; readonly failure: Retrying }
  | { readonly phase: "waiting"; readonly failure: Waiting }
  | { readonly phase: "reopening"; readonly failure: Failure }
  /** A `Defect` where its fiber died or was interrupted from within. */
  | { readonly phase: "halted"; readonly failure: Failure | Defect }

export const opening: State = { phase: "opening", failure: undefined }
export const idle: State = { phase: "idle", failure: undefined }
export const working: State = { phase: "working", failure: undefined }
export const ended: State = { phase: "ended", failure: undefined }

/** Why it is not working, in one line; `undefined` while it is. */
export const inWords = ({ failure, phase }: State): string | undefined =>
  failure === undefined
    ? undefined
    : Fault.describe(phase === "retrying" || phase === "waiting" ? failure.failure : failure)

/** Counts since the subscription was started, over all its re-openings. */
export interface Totals {
  readonly commits: number
  readonly operations: number
  readonly redelivered: number
  readonly superseded: number
  readonly parked: number
  readonly skipped: number
  readonly released: number
}

const nothing: Totals = {
  commits: 0,
  operations: 0,
  redelivered: 0,
  superseded: 0,
  parked: 0,
  skipped: 0,
  released: 0
}

/** A rebuild that has begun. Its tables are whole meanwhile only where it is in the shadow. */
export interface Rebuild {
  readonly how: "shadow" | "in place"
  /** How far it has come, and how far it goes. */
  readonly position: Position
  readonly through: Position
}

/** One subscription's pulse. Written by the subscription alone, read by anyone. */
export class Pulse {
  state: State = opening
  /** When the phase began, in milliseconds since 1970. */
  sinceMillis: number
  /** When the loop last showed that it is alive. */
  beatMillis: number
  position: Position | undefined = undefined
  /** Dead letters that wait. */
  parked = 0
  totals: Totals = nothing
  /** What a replay in the shadow tells of itself; see {@link rebuild}. */
  replay: Omit<Rebuild, "how"> | undefined = undefined
  /** Why a rebuild or a comparison of it waits. */
  replayFailure: unknown = undefined
  /** Up to where it was handled once, before a rebuild in place. */
  private replayThrough: Position | undefined = undefined
  /** The timestamp of the oldest operation that was read and is not committed. */
  oldestWaiting: Effect.Effect<string | undefined> = Effect.succeed(undefined)
  /** The position up to which it has committed all that it wants: where its cursor is, or further. */
  passed: Effect.Effect<Position | undefined> = Effect.sync(() => this.position)
  /** The highest position of its source, where the source knows. */
  head: Effect.Effect<Option.Option<Position>, SourceError>
  /** Whether messages were ever sent from its namespace. */
  isDispatching: () => boolean = () => false
  /** Whether the fiber of the subscription has ended without saying so. */
  isGone: () => boolean = () => false

  constructor(
    readonly key: Cursors.Key,
    head: Effect.Effect<Option.Option<Position>, SourceError>,
    nowMillis: number,
    /** Where its processor writes. */
    readonly namespace: Namespace,
    /** Which of the processor's partitions it follows. */
    readonly partition: Partition.Partition = Partition.whole
  ) {
    this.head = head
    this.sinceMillis = nowMillis
    this.beatMillis = nowMillis
  }

  get phase(): Phase {
    return this.state.phase
  }

  enter(state: State, nowMillis: number): void {
    if (state.phase !== this.phase) this.sinceMillis = nowMillis
    this.state = state
    this.beatMillis = nowMillis
  }

  /** Set while its tables are projected anew. */
  get rebuild(): Rebuild | undefined {
    const { position, replayThrough } = this
    if (position !== undefined && replayThrough !== undefined && position < replayThrough) {
      return { how: "in place", position, through: replayThrough }
    }
    return this.replay === undefined ? undefined : { how: "shadow", ...this.replay }
  }

  /** Its cursor is known: it was claimed, or its rows were exchanged. */
  opened(cursor: Cursors.Cursor): void {
    this.replayThrough = Cursors.replayThrough(cursor)
    this.position = cursor.position
    this.parked = cursor.parked
    // What the subscription had passed before it was stopped counts no more.
    this.passed = Effect.sync(() => this.position)
  }

  committed(commit: Commit): void {
    this.position = commit.position
    this.parked = commit.waiting
    this.totals = {
      commits: this.totals.commits + 1,
      operations: this.totals.operations + commit.operations,
      redelivered: this.totals.redelivered + commit.redelivered,
      superseded: this.totals.superseded + commit.superseded,
      parked: this.totals.parked + commit.parked,
      skipped: this.totals.skipped + commit.skipped,
      released: this.totals.released + commit.released
    }
  }
}

/** The phase of a processor by its subscriptions, at least one: that of the first that is held up, if any is. */
export const phaseOf = (pulses: ReadonlyArray<Pulse>): Phase => {
  const phases = pulses.map(({ phase }) => phase)
  return phases.find((phase) => phase !== "idle" && phase !== "working" && phase !== "ended") ?? phases[0]!
}

/** The pulses of a reactor's subscriptions, and what these follow. */
export class Pulses extends Context.Tag("effect-processors/Pulses")<Pulses, {
  /** All subscriptions that were ever started, in the order they were. */
  readonly all: Effect.Effect<ReadonlyArray<Pulse>>
  readonly add: (pulse: Pulse) => Effect.Effect<void>
  /** The sources that are followed, each once. */
  readonly sources: Effect.Effect<ReadonlyArray<Context.Tag.Service<Source>>>
  readonly follow: (source: Context.Tag.Service<Source>) => Effect.Effect<void>
}>() {}

/** A service of its own, for a subscription that runs without a reactor. */
export const layer: Layer.Layer<Pulses> = Layer.suspend(() => Layer.effect(Pulses, make))

/** No pulses yet. */
export const make: Effect.Effect<Context.Tag.Service<Pulses>> = Effect.sync(() => {
  const pulses: Array<Pulse> = []
  const sources = new Set<Context.Tag.Service<Source>>()
  return {
    all: Effect.sync(() => pulses.slice()),
    add: (pulse) => Effect.sync(() => void pulses.push(pulse)),
    sources: Effect.sync(() => Array.from(sources)),
    follow: (source) => Effect.sync(() => void sources.add(source))
  }
})
