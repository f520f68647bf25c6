/**
 * A recorded file that is not what it was: whoever has read more of it halts and says so, and goes on once it is back.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Health, Ndjson, Reactor, Rebuild, Source } from "../src/index.js"
import * as Board from "./support/Board.js"
import * as Database from "./support/Database.js"
import * as Ledger from "./support/Ledger.js"
import * as Store from "./support/Store.js"

const line = (documentId: string, documentType: string, type: string, input: unknown): string => {
  const operation = { id: "", index: 0, skip: 0, type, timestamp: "2026-11-21T18:25:11.310Z", hash: "", input }
  const strand = { driveId: "drive", documentId, documentType, scope: "global", branch: "main" }
  return `${JSON.stringify({ ...strand, operations: [operation], state: {} })}\n`
}
const put = (documentId: string, text: string) => line(documentId, Ledger.Model.type, "PUT", { text })
const add = (documentId: string) =>
  line(documentId, Board.Model.type, "ADD", { id: `card of ${documentId}`, title: "milk" })

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "shortened-test-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

const lines = [put("d1", "a"), put("d2", "b"), put("d3", "c"), put("d4", "d")]

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  it.scopedLive("a rebuild over a file that was cut is refused before anything is emptied", () =>
    Effect.gen(function*() {
      const file = join(yield* temporary, "recorded.ndjson")
      const source = Ndjson.layer({ name: "recorded", files: [file] })
      const processor = Board.make("todo")
      const read = ["a", "b"].map(add)
      writeFileSync(file, read.join(""))
      yield* Effect.provide(Reactor.run(processor), source)
      const before = yield* Board.dump("todo")
      expect(before.some((row) => row.includes("card of b"))).toBe(true)
      writeFileSync(file, read.slice(0, 1).join(""))
      for (const how of ["in place", "shadow"] as const) {
        const failure = yield* Effect.flip(Effect.provide(Rebuild.run(processor, { how }), source))
        expect(failure.message).toContain(`${file} ends before line 2, so that it was cut off, or is another file`)
      }
      expect(yield* Board.dump("todo")).toEqual(before)
    }).pipe(
      Effect.provide(Logger.remove(Logger.defaultLogger)),
      (test) => Effect.flatMap(fresh, (database) => Effect.provide(test, Store.layerMany(database)))
    ))

  it.scopedLive("a file that was cut halts those who have read more of it, and no other, until it is put back", () =>
    Effect.gen(function*() {
      const file = join(yield* temporary, "recorded.ndjson")
      const source = Ndjson.layer({ name: "recorded", files: [file] })
      const behind = Ledger.make("behind")
      const ahead = Ledger.make("ahead")
      writeFileSync(file, lines.slice(0, 2).join(""))
      yield* Effect.provide(Reactor.run(behind), source)
      writeFileSync(file, lines.join(""))
      yield* Effect.provide(Reactor.run(ahead), source)

      truncateSync(file, lines.slice(0, 3).join("").length)
      yield* Effect.scoped(Effect.gen(function*() {
        const context = yield* Layer.build(
          Health.layer().pipe(Layer.provideMerge(Reactor.layer(behind, ahead)), Layer.provide(source))
        )
        const reactor = Context.get(context, Reactor.Reactor)
        yield* reactor.ended
        const [whole, cut] = yield* reactor.outcomes
        expect(whole).toMatchObject({ phase: "ended", failure: undefined })
        expect(cut).toMatchObject({ phase: "halted", totals: { commits: 0 } })
        expect(cut?.failure).toBeInstanceOf(Source.SourceShortened)
        const report = yield* Context.get(context, Health.Health).check
        expect(report.complaints).toEqual([
          expect.stringContaining(`ahead on recorded has halted: source recorded ends`)
        ])
        expect(report.complaints[0]).toContain(
          `${file} ends before line 4, so that it was cut off, or is another file`
        )
      }))
      expect(yield* Ledger.applied("behind")).toEqual(["a", "b", "c"])

      writeFileSync(file, [...lines, put("d5", "e")].join(""))
      const again = yield* Effect.provide(Reactor.run(behind, ahead), source)
      expect(again.map(({ phase }) => phase)).toEqual(["ended", "ended"])
      for (const name of ["behind", "ahead"]) {
        expect(yield* Ledger.applied(name)).toEqual(["a", "b", "c", "d", "e"])
      }
    }).pipe(
      Effect.provide(Logger.remove(Logger.defaultLogger)),
      (test) => Effect.flatMap(fresh, (database) => Effect.provide(test, Store.layerMany(database)))
    ))
})
