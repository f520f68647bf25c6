/**
 * Recorded strands of the real system, appended to a journal and followed live, end in the same tables as read from a file.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { DriveAnalytics } from "../../examples/powerhouse/DriveAnalytics.js"
import { NodeTree } from "../../examples/powerhouse/NodeTree.js"
import * as SearchIndex from "../../examples/powerhouse/SearchIndex.js"
import { Journal, Ndjson, Position, Reactor } from "../../src/index.js"
import { dataFile } from "../examples/Program.js"
import * as Tables from "../examples/Tables.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"
import { flat, open, silent } from "./Home.js"

/** A cursor that moves at once over what its processor does not want, so that its end can be waited for. */
const processors = [SearchIndex.SearchIndex, DriveAnalytics, NodeTree].map((processor) => ({
  ...processor,
  limits: { operations: 200, unwanted: 1 }
}))

const strandsOf = (name: string) =>
  Effect.flatMap(
    Ndjson.make({ name, files: [dataFile(name)] }),
    (source) => Effect.map(Stream.runCollect(source.strands(Position.origin)), (strands) => Array.from(strands))
  )

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  it.scopedLive.each([
    "g1-strands.ndjson.gz",
    "g2-strands.ndjson.gz",
    "g3-operations.ndjson.gz",
    "g3-reshuffle.ndjson.gz"
  ])(
    "%s",
    (name) =>
      Effect.gen(function*() {
        const strands = yield* strandsOf(name)
        const fromFile = yield* Reactor.run(...processors).pipe(
          Effect.zipRight(Tables.read),
          Effect.provide(
            Layer.mergeAll(Store.layerMany(yield* fresh), Ndjson.layer({ name, files: [dataFile(name)] }), silent)
          )
        )
        expect(Tables.sizes(fromFile)["drive_activity"]).toBeGreaterThan(0)

        const database = yield* fresh
        const context = yield* open(database)
        const journal = Context.get(context, Journal.Journal)
        yield* Effect.gen(function*() {
          const reactor = Context.get(yield* Layer.build(Reactor.layer(...processors)), Reactor.Reactor)
          const reached = new Map<string, bigint>()
          const end = yield* Deferred.make<bigint>()
          const isThere = yield* Deferred.make<void>()
          yield* Effect.forkScoped(Stream.runForEach(reactor.commits, ({ position, processor }) =>
            Effect.gen(function*() {
              reached.set(processor, position)
              if (!(yield* Deferred.isDone(end))) return
              const last = yield* Deferred.await(end)
              if (processors.every((each) => reached.get(each.name) === last)) {
                yield* Deferred.succeed(isThere, undefined)
              }
            })))
          const appended = yield* Effect.forEach(strands.slice(0, -1), (strand) =>
            journal.append([strand]))
          const counts = appended.reduce((sum, receipt) => sum + receipt.appended, 0)
          expect(counts).toBeGreaterThan(strands.length / 2)
          // The last one tells that all that was before it has been read.
          const { head } = yield* journal.bounds
          const last = strands.at(-1)!
          yield* Deferred.succeed(end, head + BigInt(last.operations.length))
          yield* journal.append([last])
          yield* Deferred.await(isThere)
          expect(yield* Tables.read).toEqual(fromFile)
        }).pipe(Effect.provide(Store.layerMany(database)), Effect.provide(context))
      })
  )
})

describe("what was delivered with operations missing", () => {
  it.scopedLive("is refused from the gap on, document by document", () =>
    Effect.gen(function*() {
      const strands = yield* strandsOf("g3-concurrent.delivered.ndjson.gz")
      const journal = Context.get(yield* open(yield* Database.sqlite), Journal.Journal)
      const refused = new Set<string>()
      for (const strand of strands) {
        const outcome = yield* Effect.either(journal.append([strand]))
        if (Either.isLeft(outcome)) {
          expect(outcome.left._tag).toBe("StrandGap")
          refused.add(strand.documentId)
        }
      }
      expect(refused.size).toBe(37)
      const { head } = yield* journal.bounds
      const read = flat((yield* journal.page(Position.origin, { operations: 100_000, bytes: 2 ** 30 })).strands)
      expect(read).toHaveLength(Number(head))
      const heads = new Map<string, number>()
      for (const { branch, documentId, index, scope, skip } of read) {
        const stream = JSON.stringify([documentId, scope, branch])
        expect(index - skip).toBeLessThanOrEqual((heads.get(stream) ?? -1) + 1)
        heads.set(stream, index)
      }
    }))
})
