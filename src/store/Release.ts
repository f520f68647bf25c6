/**
 * A release: which letters of a document may leave, and in which order.
 *
 * Each stream's letters leave in index order, as far as they are contiguous with what was applied; one that takes missing
 * operations back goes before those that wait for them. A stream that waits for missing operations goes first; a letter
 * that only waits behind others leaves once all that came before it have.
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type { Cursor } from "./Cursors.js"
import * as Letters from "./Letters.js"
import * as Progress from "./Progress.js"

/**
 * The letters of a document that missing operations have set free, the first `limit` in the order to apply them; none while
 * one blocks.
 */
export const free = (
  cursor: Cursor,
  documentId: string,
  limit: number
): Effect.Effect<ReadonlyArray<Letters.Letter>, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const headers = yield* Letters.headers(cursor, documentId)
    if (headers.some(Letters.blocks)) return []
    return yield* Letters.readAll(cursor, (yield* inOrder(cursor, headers)).slice(0, limit))
  })

/** The ordinals of letters of one document in the order to apply them, as far as they are contiguous with what was applied. */
export const inOrder = (
  cursor: Cursor,
  letters: ReadonlyArray<Letters.Header>
): Effect.Effect<ReadonlyArray<bigint>, SqlError, SqlClient.SqlClient> =>
  Effect.map(progressOf(cursor, letters), (progress) => arrange(letters, progress).map((letter) => letter.ordinal))

/** The progress of the streams of letters. */
export const progressOf = (
  cursor: Cursor,
  letters: ReadonlyArray<Letters.Header>
): Effect.Effect<Progress.Progress, SqlError, SqlClient.SqlClient> =>
  letters.length === 0
    ? Effect.succeed(new Progress.Progress())
    : Progress.load(cursor, letters.map(({ operation, strand }) => ({ ...strand, operations: [operation] })))

/** One stream's letters, in index order, those that have left behind {@link next} or in {@link gone}. */
interface Lane {
  readonly stream: Progress.StreamProgress
  readonly letters: Array<Letters.Header>
  next: number
  readonly gone: Set<Letters.Header>
  /** Those that take others back, and so need not wait for them. */
  readonly skips: Array<Letters.Header>
  hasGap: boolean
}

const arrange = (
  letters: ReadonlyArray<Letters.Header>,
  progress: Progress.Progress
): ReadonlyArray<Letters.Header> => {
  const lanes = lanesOf(letters, progress)
  const left = new Set(letters)
  const arranged: Array<Letters.Header> = []
  for (;;) {
    const oldest = left.values().next().value
    if (oldest === undefined) return arranged
    const own = progress.of(oldest.strand)
    const ready = lanes.filter((lane) => nextOf(lane) !== undefined)
    const lane = ready.find((each) => each.hasGap) ?? ready.find((each) => each.stream === own)
    const letter = lane === undefined ? undefined : nextOf(lane)
    if (lane === undefined || letter === undefined) return arranged
    lane.gone.add(letter)
    left.delete(letter)
    if (lane.stream.place(letter.operation) === "next") lane.stream.advance(letter.operation)
    arranged.push(letter)
  }
}

const lanesOf = (letters: ReadonlyArray<Letters.Header>, progress: Progress.Progress): ReadonlyArray<Lane> => {
  const lanes = new Map<Progress.StreamProgress, Lane>()
  for (const letter of letters) {
    const stream = progress.of(letter.strand)
    const lane = lanes.get(stream) ?? { stream, letters: [], next: 0, gone: new Set(), skips: [], hasGap: false }
    lane.letters.push(letter)
    lane.hasGap = lane.hasGap || letter.cause === Letters.gap
    lanes.set(stream, lane)
  }
  for (const lane of lanes.values()) {
    lane.letters.sort((a, b) => a.operation.index - b.operation.index || a.operation.skip - b.operation.skip)
    lane.skips.push(...lane.letters.filter((letter) => letter.operation.skip > 0))
  }
  return Array.from(lanes.values())
}

/** The lane's next letter, or `undefined` while all that are left wait for missing operations. */
const nextOf = (lane: Lane): Letters.Header | undefined => {
  const canGo = (letter: Letters.Header) => !lane.gone.has(letter) && lane.stream.place(letter.operation) !== "gap"
  while (lane.next < lane.letters.length && lane.gone.has(lane.letters[lane.next]!)) lane.next++
  const first = lane.letters[lane.next]
  return first === undefined || canGo(first) ? first : lane.skips.find(canGo)
}
