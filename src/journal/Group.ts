/**
 * A group: appends that are committed together, each with an outcome of its own.
 *
 *     BEGIN
 *       lock the log                      whoever else appends waits here
 *       read what is known of the streams
 *       decide about each append          refused → answered, and the others go on without it
 *       write entries and progress, move the head, leave word
 *     COMMIT
 *
 * Where the connection can, the first three go in one flight, and what is written goes with COMMIT, unless an append asks
 * for what is there already.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Position from "../domain/Position.js"
import type { Stream } from "../domain/Strand.js"
import type { ProcessorName } from "../process/Processor.js"
import type { Key } from "../store/Cursors.js"
import * as Flight from "../store/Flight.js"
import * as Outline from "../store/Outline.js"
import * as Progress from "../store/Progress.js"
import type { StreamProgress } from "../store/Progress.js"
import * as Admission from "./Admission.js"
import * as Log from "./Log.js"
import type * as Tail from "./Tail.js"

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

export interface Written extends Tail.Addition {
  /** One for each append, in their order. */
  readonly outcomes: ReadonlyArray<Outcome>
}

/** The body of a group's transaction. */
export const write = (
  log: Log.Log,
  appends: ReadonlyArray<Admission.Prepared>
): Effect.Effect<Written, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const key = keyOf(log)
    const { before, standing } = yield* stand(sql, log, key, appends)
    // One after another: who was refused has left no trace in what is known.
    const decisions = appends.map((append) => Admission.admit(append, standing))
    const admitted = decisions.flatMap(Either.match({ onLeft: () => [], onRight: (one) => [one] }))
    const entries = admitted.flatMap((one) => one.entries)
    const positions = Log.positionsOf(before.head, entries)
    const sought = admitted.flatMap((one) => one.known)
    if (entries.length > 0) {
      const statements = [
        ...Log.writing(sql, log, entries, positions),
        ...Progress.saving(sql, key, standing.progress)
      ]
      // What is there already may be what another append of the group has just brought: that has to be written by then.
      const departure = sought.length === 0 ? yield* Flight.departure : undefined
      if (departure === undefined) yield* Flight.send(statements)
      else departure(statements.map((statement) => statement.compile()))
    }
    const known = yield* Log.find(log, sought)
    // What was removed is below the floor.
    const take = inTurn(positions, known.map((position) => position ?? before.floor))
    return { before, entries, positions, outcomes: decisions.map(Either.map((one) => receiptOf(one, take(one)))) }
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

/** Locks the log, and asks what the database knows of the streams of these appends. */
const stand = (
  sql: SqlClient.SqlClient,
  log: Log.Log,
  key: Key,
  appends: ReadonlyArray<Admission.Prepared>
): Effect.Effect<
  { readonly before: Log.Bounds; readonly standing: Admission.Standing },
  SqlError,
  SqlClient.SqlClient
> =>
  Effect.gen(function*() {
    const strands = appends.flatMap(({ drafts }) => drafts.map(({ strand }) => strand))
    const streams = appends.flatMap(Admission.chained)
    const locking = Log.locking(sql, log)
    const loading = Progress.loading(sql, key, Outline.make(strands))
    const hashing = Log.hashing(sql, log, streams)
    const answers = yield* Flight.send([locking.statement, ...loading.statements, ...hashing.statements])
    const before = yield* locking.boundsOf(answers[0]!)
    const progress = loading.progressOf(answers.slice(1, 1 + loading.statements.length))
    const found = hashing.foundOf(answers.slice(1 + loading.statements.length))
    const hashes = new Map<StreamProgress, string>()
    for (const [i, stream] of streams.entries()) {
      if (found[i] !== undefined) hashes.set(progress.of(stream), found[i])
    }
    return { before, standing: { progress, hashes } }
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
    const hashing = Log.hashing(yield* SqlClient.SqlClient, log, streams)
    const hashes = hashing.foundOf(yield* Flight.send(hashing.statements))
    return streams.map((stream, i) => ({ index: progress.of(stream).head, hash: hashes[i] }))
  })

/** A journal remembers its streams where processors do, under a name that none of them can have. */
const keyOf = (log: Log.Log): Key => ({ processor: "(journal)" as ProcessorName, source: log.name })
