/**
 * A group: appends that are committed together, each with an outcome of its own.
 *
 *     BEGIN
 *       lock the log                      whoever else appends waits here
 *       read what is known of the streams
 *       decide about each append          refused → answered, and the others go on without it
 *       write entries and progress, move the head, leave word
 *     COMMIT
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Position from "../domain/Position.js"
import type { Stream } from "../domain/Strand.js"
import type { ProcessorName } from "../process/Processor.js"
import type { Key } from "../store/Cursors.js"
import * as Progress from "../store/Progress.js"
import type { StreamProgress } from "../store/Progress.js"
import * as Admission from "./Admission.js"
import * as Log from "./Log.js"

/** What an append came to. */
export interface Receipt {
  /**
   * A reader that has passed this position has seen every operation of the append; `origin` when there was nothing in it
   * to be seen.
   */
  readonly position: Position.Position
  /** Operations that are in the journal by this append. */
  readonly appended: number
  /** Operations that were there already; after an outage also those of which this append did not hear that they were stored. */
  readonly redelivered: number
  /** Operations that came after a later one had taken their place; they are not stored. */
  readonly superseded: number
}

export type Outcome = Either.Either<Receipt, Admission.Refusal>

export interface Written {
  /** One for each append, in their order. */
  readonly outcomes: ReadonlyArray<Outcome>
  /** Where the log ends once this is committed. */
  readonly head: Position.Position
}

/** The body of a group's transaction. */
export const write = (
  log: Log.Log,
  appends: ReadonlyArray<Admission.Prepared>
): Effect.Effect<Written, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const bounds = yield* Log.lock(log)
    const key = keyOf(log)
    const { decisions, progress } = yield* decide(log, key, appends)
    const admitted = decisions.flatMap(Either.match({ onLeft: () => [], onRight: (one) => [one] }))
    const entries = admitted.flatMap((one) => one.entries)
    const positions = entries.length === 0 ? [] : yield* Log.write(log, bounds.head, entries)
    if (entries.length > 0) yield* Progress.save(key, progress)
    const known = yield* Log.positionsOf(log, admitted.flatMap((one) => one.known))
    // What was removed is below the floor.
    const take = inTurn(positions, known.map((position) => position ?? bounds.floor))
    return {
      outcomes: decisions.map(Either.map((one) => receiptOf(one, take(one)))),
      head: positions.at(-1) ?? bounds.head
    }
  })

/** Deals out to each admitted append, in their order, the positions of what it wrote and of what was there already. */
const inTurn = (written: ReadonlyArray<Position.Position>, known: ReadonlyArray<Position.Position>) => {
  let entry = 0
  let place = 0
  return (one: Admission.Admitted): ReadonlyArray<Position.Position> => [
    ...written.slice(entry, entry += one.entries.length),
    ...known.slice(place, place += one.known.length)
  ]
}

const receiptOf = (
  { entries, redelivered, superseded }: Admission.Admitted,
  positions: ReadonlyArray<Position.Position>
): Receipt => ({
  position: positions.reduce((highest, position) => position > highest ? position : highest, Position.origin),
  appended: entries.reduce((sum, entry) => sum + entry.operationCount, 0),
  redelivered,
  superseded
})

interface Decided {
  readonly decisions: ReadonlyArray<Either.Either<Admission.Admitted, Admission.Refusal>>
  /** What is known of the streams once all that was admitted is written. */
  readonly progress: Progress.Progress
}

/** Decides about all, one after another: who was refused has left no trace in what is known. */
const decide = (
  log: Log.Log,
  key: Key,
  appends: ReadonlyArray<Admission.Prepared>
): Effect.Effect<Decided, SqlError, SqlClient.SqlClient> =>
  Effect.map(stand(log, key, appends), (standing) => ({
    decisions: appends.map((append) => Admission.admit(append, standing)),
    progress: standing.progress
  }))

/** What the database knows of the streams of these appends. */
const stand = (
  log: Log.Log,
  key: Key,
  appends: ReadonlyArray<Admission.Prepared>
): Effect.Effect<Admission.Standing, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const strands = appends.flatMap(({ drafts }) => drafts.map(({ strand }) => strand))
    const progress = yield* Progress.load(key, strands)
    const streams = appends.flatMap(Admission.chained)
    const found = yield* Log.lastHashes(log, streams)
    const hashes = new Map<StreamProgress, string>()
    for (const [i, stream] of streams.entries()) {
      if (found[i] !== undefined) hashes.set(progress.of(stream), found[i])
    }
    return { progress, hashes }
  })

/** The end of a stream. */
export interface Head {
  /** The highest index that there has ever been; -1 before the first. */
  readonly index: number
  /** The hash of that operation, while it is in the log. */
  readonly hash: string | undefined
}

/** Where each of these streams ends. */
export const heads = (
  log: Log.Log,
  streams: ReadonlyArray<Stream>
): Effect.Effect<ReadonlyArray<Head>, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const progress = yield* Progress.load(keyOf(log), streams.map((stream) => ({ ...stream, operations: [] })))
    const hashes = yield* Log.lastHashes(log, streams)
    return streams.map((stream, i) => ({ index: progress.of(stream).head, hash: hashes[i] }))
  })

/** A journal remembers its streams where processors do, under a name that none of them can have. */
const keyOf = (log: Log.Log): Key => ({ processor: "(journal)" as ProcessorName, source: log.name })
