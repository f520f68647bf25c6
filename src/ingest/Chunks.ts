/**
 * Chunks: those of a stream, given to an effect one after another.
 *
 * `Stream.runForEachChunk` does the same, and links what it has done with to what comes: once a link is old, garbage
 * collections of the young copy every chunk that follows it, though nobody has them any more. Here each is let go of.
 */

import type * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

/** Runs `each` for every chunk, and waits for it before the next. Ends when the stream does. */
export const forEach = <A, E, R, E2, R2>(
  stream: Stream.Stream<A, E, R>,
  each: (chunk: Chunk.Chunk<A>) => Effect.Effect<unknown, E2, R2>
): Effect.Effect<void, E | E2, Exclude<R, Scope.Scope> | Exclude<R2, Scope.Scope>> =>
  Effect.scoped(Effect.flatMap(Stream.toPull(stream), (pull) => {
    const next: Effect.Effect<void, E | E2, R | R2> = Effect.matchEffect(pull, {
      onFailure: Option.match({ onNone: () => Effect.void, onSome: (error) => Effect.fail(error) }),
      onSuccess: (chunk) => Effect.zipRight(each(chunk), next)
    })
    return next
  }))
