/**
 * A reading: a source that cannot leave strands out, as one laggard reads it: opened once, and read on page by page.
 */

import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Position } from "../domain/Position.js"
import type { Strand } from "../domain/Strand.js"
import type { Page, Source, SourceError, Wanted } from "./Source.js"

export interface Reading {
  /** The next strands, wanted or not; `None` once the source has ended. What came in one piece with them is kept. */
  readonly page: (bounds: Pick<Wanted, "operations" | "bytes">) => Effect.Effect<Option.Option<Page>, SourceError>
  readonly close: Effect.Effect<void>
}

/** Opens the source above a position. Whoever opens it closes it. */
export const open = (source: Source["Type"], after: Position): Effect.Effect<Reading> =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    const pull = yield* Scope.extend(Stream.toPull(source.strands(after)), scope)
    let strands: ReadonlyArray<Strand> = []
    let at = 0
    const more: Effect.Effect<boolean, SourceError> = Effect.suspend(() =>
      at < strands.length ? Effect.succeed(true) : Effect.matchEffect(pull, {
        onFailure: Option.match({ onNone: () => Effect.succeed(false), onSome: (error) => Effect.fail(error) }),
        onSuccess: (chunk) => {
          strands = Chunk.toReadonlyArray(chunk)
          at = 0
          return more
        }
      })
    )
    return {
      page: (bounds) =>
        Effect.map(more, (isThere) => {
          if (!isThere) return Option.none()
          const from = at
          for (let operations = 0, bytes = 0; at < strands.length; at++) {
            if (at > from && (operations >= bounds.operations || bytes >= bounds.bytes)) break
            operations += strands[at]!.operations.length
            bytes += strands[at]!.bytes
          }
          return Option.some({ strands: strands.slice(from, at), position: strands[at - 1]!.position })
        }),
      close: Scope.close(scope, Exit.void)
    }
  })
