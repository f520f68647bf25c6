/**
 * A source is asked for the strands of one document, whether it can look them up or has to be read through.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { Journal, Position, Source } from "../../src/index.js"
import type { Strand } from "../../src/index.js"
import { open, strand } from "../journal/Home.js"
import * as Database from "../support/Database.js"
import * as Feed from "../support/Feed.js"

const given = [strand("a", 0, 1), strand("b", 0, 1), strand("a", 1, 1), strand("b", 1, 1), strand("a", 2, 1)]

const read = (source: Source.Source["Type"], documentId: string, through: bigint) =>
  Source.documentOf(source, documentId as Strand.DocumentId, Position.make(through)).pipe(
    Stream.runCollect,
    Effect.map((strands) => Chunk.toReadonlyArray(strands).map(({ position }) => position))
  )

const reads = (source: Source.Source["Type"]) =>
  Effect.gen(function*() {
    expect(yield* read(source, "a", 5n)).toEqual([1n, 3n, 5n])
    expect(yield* read(source, "a", 4n)).toEqual([1n, 3n])
    expect(yield* read(source, "b", 2n)).toEqual([2n])
    expect(yield* read(source, "c", 5n)).toEqual([])
    expect(yield* read(source, "a", 0n)).toEqual([])
  })

describe("the strands of one document, up to a position", () => {
  it.effect("of a source that ends", () => reads(Source.fromIterable("iterable", given)))

  it.effect("of a source that never does", () =>
    Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* feed.push(...given)
      yield* reads(feed.source)
    }))

  it.scopedLive.each(Database.dialects)(
    "of a journal on $dialect, which looks them up",
    ({ fresh }) =>
      Effect.gen(function*() {
        const context = yield* open(yield* fresh)
        yield* Context.get(context, Journal.Journal).append(given)
        const source = Context.get(context, Source.Source)
        expect(source.document).toBeDefined()
        yield* reads(source)
      })
  )
})
