/**
 * Feed: a live source that a test writes to while subscriptions follow it, and that fails when the test says so.
 */
import * as Chunk from "effect/Chunk"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { Position, Source } from "../../src/index.js"
import type { Strand } from "../../src/index.js"

export interface Feed {
  readonly source: Context.Tag.Service<Source.Source>
  /** Adds strands behind those that there are. */
  readonly push: (...strands: ReadonlyArray<Source.Unplaced>) => Effect.Effect<void>
  /** From now on whoever reads gets the strands there are and then this failure; `undefined`: no failure any more. */
  readonly fail: (failure: Source.SourceError | undefined) => Effect.Effect<void>
  /** How often the source was opened. */
  readonly opened: Effect.Effect<number>
}

interface State {
  readonly strands: ReadonlyArray<Strand.Strand>
  readonly failure: Source.SourceError | undefined
}

export const make = (name: string): Effect.Effect<Feed> =>
  Effect.gen(function*() {
    const state = yield* SubscriptionRef.make<State>({ strands: [], failure: undefined })
    const opened = yield* Ref.make(0)
    const strands = (after: Position.Position): Stream.Stream<Strand.Strand, Source.SourceError> =>
      Stream.unwrap(Effect.as(
        Ref.update(opened, (n) => n + 1),
        state.changes.pipe(
          Stream.mapAccum(
            Number(after),
            (seen, now) => [now.strands.length, { fresh: now.strands.slice(seen), ...now }]
          ),
          Stream.flatMap(({ failure, fresh }) =>
            Stream.concat(
              Stream.fromChunk(Chunk.unsafeFromArray(fresh)),
              failure === undefined ? Stream.empty : Stream.fail(failure)
            )
          )
        )
      ))
    return {
      source: {
        name: Source.name(name),
        strands,
        head: Effect.map(state.get, (now) => Option.some(Position.make(BigInt(now.strands.length))))
      },
      push: (...more) =>
        SubscriptionRef.update(state, (now) => ({
          ...now,
          strands: [
            ...now.strands,
            ...more.map((each, i) => ({ ...each, position: Position.make(BigInt(now.strands.length + i + 1)) }))
          ]
        })),
      fail: (failure) => SubscriptionRef.update(state, (now) => ({ ...now, failure })),
      opened: Ref.get(opened)
    }
  })
