import type * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type * as Scope from "effect/Scope"
import { Reactor, Source } from "../src/index.js"
import type { Cursors, Namespace, Processor, Rebuild } from "../src/index.js"
import * as Board from "./support/Board.js"
import * as Database from "./support/Database.js"
import * as Store from "./support/Store.js"

const silent = Logger.remove(Logger.defaultLogger)

type Fresh = typeof Database.dialects[number]["fresh"]
type Todos = Processor.Processor<never, SqlClient.SqlClient>

/** Runs in the namespaces of an empty database. */
const onFresh = (fresh: Fresh) => <A, E>(effect: Effect.Effect<A, E, Namespace.Namespaces | Scope.Scope>) =>
  Effect.flatMap(fresh, (database) => Effect.provide(effect, Layer.merge(Store.layerMany(database), silent)))

/** A reactor over a source, for as long as the scope lasts. */
const react = (source: Context.Tag.Service<typeof Source.Source>, ...processors: ReadonlyArray<Todos>) =>
  Effect.map(
    Layer.build(Reactor.layer(...processors).pipe(Layer.provide(Layer.succeed(Source.Source, source)))),
    (context) => Context.get(context, Reactor.Reactor)
  )

/** What differs, in words. */
const told = (verdict: Rebuild.Verdict) =>
  verdict.tables.flatMap(({ differences }) =>
    differences.map(({ columns, key, table, where }) =>
      [where, table, ...Object.values(key), ...columns].map(String).join(" ")
    )
  )

const keyOf = (processor: Todos, source = "s"): Cursors.Key => ({
  processor: processor.name,
  source: Source.name(source)
})

/** Two boards, one of them in two strands. */
const boards = [
  Board.strand("a", 0, "milk", "oat milk"),
  Board.strand("b", 0, "tea"),
  Board.strand("a", 2, "soy milk", "no milk")
]

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  describe("a comparison", () => {
    it.scopedLive("finds a changed, a missing and an extra row by table and key, and changes nothing", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const processor = Board.make("todo")
        const reactor = yield* react(Source.fromIterable("s", boards), processor)
        yield* reactor.ended
        const clean = yield* reactor.verify(processor)
        expect(clean).toMatchObject({ ...keyOf(processor), position: 3n, isClean: true })
        expect(
          clean.tables.map((
            { hash, replayedHash, replayedRows, rows, table }
          ) => [table, rows, replayedRows, hash === replayedHash])
        ).toEqual([
          ["card", 2, 2, true],
          ["entry", 5, 5, true],
          ["processor_stream", 2, 2, true],
          ["processor_dead_letter", 0, 0, true]
        ])

        yield* Board.meddle("todo", "UPDATE card SET title = 'gin', edits = 7 WHERE board = 'a'")
        yield* Board.meddle("todo", "DELETE FROM entry WHERE board = 'b'")
        yield* Board.meddle("todo", "INSERT INTO entry VALUES ('c', 0, 'nobody wrote this')")
        const before = yield* Board.dump("todo")
        const found = yield* reactor.verify(processor)
        expect(found.isClean).toBe(false)
        expect(told(found)).toEqual([
          "changed card card of a title edits",
          "extra entry c 0",
          "missing entry b 0"
        ])
        expect(found.tables[0]?.hash).not.toBe(found.tables[0]?.replayedHash)
        expect(yield* Board.dump("todo")).toEqual(before)
      })))

    it.scopedLive("keeps the first differences of a table and counts them all, however many pages there are", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const processor = Board.make("todo")
        const many = Array.from({ length: 1_700 }, (_, i) => Board.strand(`d${String(i).padStart(4, "0")}`, 0, "x"))
        const reactor = yield* react(Source.fromIterable("s", many), processor)
        yield* reactor.ended
        expect((yield* reactor.verify(processor)).isClean).toBe(true)
        yield* Board.meddle("todo", "DELETE FROM card WHERE board < 'd1200'")
        yield* Board.meddle("todo", "UPDATE card SET edits = 1 WHERE board >= 'd1600'")
        const { tables } = yield* reactor.verify(processor, { differencesMax: 3 })
        expect(tables[0]).toMatchObject({ rows: 500, replayedRows: 1_700, different: 1_300 })
        expect(tables[0]?.differences.map(({ key, where }) => `${where} ${String(key["id"])}`)).toEqual([
          "missing card of d0000",
          "missing card of d0001",
          "missing card of d0002"
        ])
        const wide = yield* reactor.verify(processor, { differencesMax: 10_000 })
        expect(wide.tables[0]?.differences.filter(({ where }) => where === "changed")).toHaveLength(100)
      })))

    it.scopedLive("of one document sees neither rows nor operations of others", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const on = Board.switches()
        const processor = Board.make("todo", on)
        const reactor = yield* react(Source.fromIterable("s", boards), processor)
        yield* reactor.ended
        yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
        on.seen.length = 0
        expect(told(yield* reactor.verify(processor, { documentId: "b" }))).toEqual(["changed card card of b title"])
        expect(on.seen).toEqual([{ isReplaying: true, operation: "b 0" }])
      })))
  })
})
