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
import { Health, Ndjson, Reactor, Source } from "../src/index.js"
import * as Database from "./support/Database.js"
import * as Ledger from "./support/Ledger.js"
import * as Store from "./support/Store.js"

const line = (document: string, text: string): string =>
  `${
    JSON.stringify({
      driveId: "drive",
      documentId: document,
      documentType: Ledger.Model.type,
      scope: "global",
      branch: "main",
      operations: [{
        id: text,
        index: 0,
        skip: 0,
        type: "PUT",
        timestamp: "2026-11-21T18:25:11.310Z",
        hash: "",
        input: { text }
      }],
      state: {}
    })
  }\n`

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "shortened-test-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

const lines = [line("d1", "a"), line("d2", "b"), line("d3", "c"), line("d4", "d")]

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
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

      writeFileSync(file, [...lines, line("d5", "e")].join(""))
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
