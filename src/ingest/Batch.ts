/**
 * A batch: the strands that are committed together.
 *
 *     source ──▶ filter ──▶ │ waiting strands │ ──▶ batch ──▶ commit
 *              (a fiber)      bounded room                     (the subscription)
 *
 * Strands gather while the last commit runs; when the subscription is free it takes what there is, so a lone strand waits
 * for nobody and a backlog fills batches to their bounds. When the room is full the source is not read any further.
 *
 * Invariants: strands leave in the order they came; `position` is that of the last strand that left whole, or further
 * where only unwanted strands follow it, so a cursor set to it never passes an operation that was not in a batch.
 */

import type * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as Elapsed from "../domain/Elapsed.js"
import type { Position } from "../domain/Position.js"
import type { Strand } from "../domain/Strand.js"
import * as Chunks from "./Chunks.js"
import { Room } from "./Room.js"

export interface Batch {
  readonly strands: ReadonlyArray<Strand>
  readonly position: Position
  /** How many operations the strands hold together. */
  readonly operations: number
}

/** The bounds of a batch and of what waits for the next one; read anew each time, so that they may change. */
export interface Limits {
  /**
   * Operations in a batch at most; a longer strand is committed in pieces. At least 1. Where it is left out, batches get smaller,
   * down to 1,000, where a commit takes longer than a quarter of a second; see `Pace`.
   */
  readonly operations: number
  /** Bytes that close a batch, as sources estimate them; the strand that reaches the bound may exceed it. At least 1. */
  readonly bytes: number
  /** How long a batch that is not full waits for more, in milliseconds; 0: a lone strand waits for nobody. */
  readonly lingerMillis: number
  /** Unwanted strands after which the cursor is to move although nothing matched. At least 1. */
  readonly unwanted: number
  /**
   * How long a cursor may stand behind unwanted strands, in milliseconds. In a reactor those that are to move wait for their
   * turn, at 2,500 a second.
   */
  readonly unwantedMillis: number
}

const Bound = Schema.Int.pipe(Schema.positive())
const Millis = Schema.Finite.pipe(Schema.nonNegative())

/** Limits that can be; throws a `ParseError` for others, such as a batch of no operations, which would never end. */
export const checked: (limits: Partial<Limits>) => Partial<Limits> = Schema.decodeUnknownSync(Schema.partialWith(
  Schema.Struct({ operations: Bound, bytes: Bound, lingerMillis: Millis, unwanted: Bound, unwantedMillis: Millis }),
  { exact: true }
))

export const defaults: Limits = {
  operations: 4_000,
  bytes: 8 * 1024 * 1024,
  lingerMillis: 0,
  unwanted: 10_000,
  unwantedMillis: 5_000
}

export interface Batches<E> {
  /** The next batch, as soon as there is anything to commit; `None` once the source has ended and all is taken. */
  readonly take: Effect.Effect<Option.Option<Batch>, E>
  /** The position up to which nothing wanted is left: who takes a batch has committed the one before. */
  readonly passed: Effect.Effect<Position>
  /** What waits to be taken. */
  readonly waiting: Effect.Effect<{ readonly operations: number; readonly oldest: string | undefined }>
}

/**
 * Starts reading `strands` in a fiber of the scope, keeping those that are `wanted`. The room holds two batches, so the
 * next one is read while the last one commits. A failure of the source is raised by `take` after everything read before it
 * has been taken.
 */
export const form = <E, R>(
  strands: Stream.Stream<Strand, E, R>,
  options: { readonly after: Position; readonly wanted: (strand: Strand) => boolean; readonly limits: Limits }
): Effect.Effect<Batches<E>, never, R | Scope.Scope> =>
  Effect.gen(function*() {
    const room = new Room(options.after, options.limits)
    const news = yield* Effect.makeLatch(false)
    const filled = yield* Effect.makeLatch(false)
    const space = yield* Effect.makeLatch(true)

    const put = (chunk: Chunk.Chunk<Strand>) =>
      Effect.suspend(() => {
        for (const strand of chunk) room.put(strand, options.wanted(strand))
        if (room.isFull) space.unsafeClose()
        if (room.fillsBatch) filled.unsafeOpen()
        news.unsafeOpen()
        return space.await
      })

    yield* Chunks.forEach(strands, put).pipe(
      Effect.exit,
      Effect.flatMap((exit) =>
        Effect.suspend(() => {
          room.end = exit
          return Effect.zipRight(filled.open, news.open)
        })
      ),
      Effect.forkScoped
    )

    const leave = Effect.sync(() => {
      const batch = room.take()
      if (!room.isFull) space.unsafeOpen()
      return Option.some(batch)
    })

    /** Gives more strands some time to join a batch that is not full yet; woken once, however many chunks they come in. */
    const linger = Effect.suspend(() => {
      if (options.limits.lingerMillis === 0 || room.isEmpty || room.fillsBatch || room.end !== undefined) {
        return Effect.void
      }
      filled.unsafeClose()
      return Effect.asVoid(Effect.timeoutOption(filled.await, options.limits.lingerMillis))
    })

    const next: Effect.Effect<Option.Option<Batch>, E> = Effect.suspend(() => {
      if (room.hasWork) return Effect.zipRight(linger, leave)
      const end = room.end as Exit.Exit<void, E> | undefined
      if (end !== undefined) return Exit.isSuccess(end) ? Effect.succeedNone : Effect.failCause(end.cause)
      news.unsafeClose()
      return Effect.zipRight(room.unwanted === 0 ? news.await : press, next)
    })

    /** Waits for news, but no longer than the cursor may stand behind unwanted strands, however steadily they come. */
    const press = Effect.flatMap(Elapsed.millis, (now) => {
      room.behindSince ??= now
      return news.await.pipe(
        Effect.timeoutTo({
          duration: Math.max(0, room.behindSince + options.limits.unwantedMillis - now),
          onSuccess: () => undefined,
          onTimeout: () => {
            room.pressing = true
          }
        })
      )
    })

    return {
      take: Effect.suspend(() => {
        room.outstandingFrom = undefined
        return next
      }),
      passed: Effect.sync(() => room.passed),
      waiting: Effect.sync(() => ({ operations: room.operations, oldest: room.oldest }))
    }
  })
