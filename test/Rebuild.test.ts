import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Postgres from "../layers/Postgres.js"
import * as Sqlite from "../layers/Sqlite.js"
import * as Slice from "../src/domain/Slice.js"
import {
  Cursors,
  DeadLetters,
  Health,
  Journal,
  Namespace,
  Policy,
  Position,
  Reactor,
  Rebuild,
  Source,
  Table
} from "../src/index.js"
import type { Migration } from "../src/index.js"
import * as Board from "./support/Board.js"
import * as Database from "./support/Database.js"
import * as Feed from "./support/Feed.js"
import * as Proxy from "./support/Proxy.js"
import { onFresh, react, silent, told } from "./support/Rebuilds.js"
import type { Todos } from "./support/Rebuilds.js"

const letters = (namespace: string, key: Cursors.Key) =>
  Effect.map(
    Namespace.query(namespace, DeadLetters.list(key)),
    (all) =>
      all.map(({ cause, operation, ordinal, strand }) =>
        `${ordinal / BigInt(Slice.count)} ${strand.documentId} ${operation.index} ${cause}`
      )
  )

/** Schemas that a replay has left; none on SQLite, where it can leave nothing. */
const leftovers = (dialect: string) =>
  Namespace.within(
    "leftovers",
    Effect.flatMap(SqlClient.SqlClient, (sql) =>
      dialect === "sqlite"
        ? Effect.succeed([])
        : sql`SELECT nspname FROM pg_namespace WHERE nspname LIKE 'processor\\_shadow\\_%'`)
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

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
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
          ["processor_state", 0, 0, true],
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

    it.scopedLive(
      "keeps the first differences of a table and counts them all, however many pages there are",
      () =>
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
        }))
    )

    it.scopedLive("lets its processor go on while it replays, and stops it to compare", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const feed = yield* Feed.make("s")
        const on = Board.switches()
        const processor = Board.make("todo", on)
        const reactor = yield* react(feed.source, processor)
        yield* feed.push(...boards)
        yield* reactor.waitFor(processor, { position: Position.make(3n) })
        yield* Board.meddle("todo", "UPDATE card SET title = 'gin' WHERE board = 'b'")
        const gate = yield* Board.gate(on, (strand) => strand.position === 3n)
        const verify = yield* Effect.fork(reactor.verify(processor))
        yield* gate.held
        yield* feed.push(Board.strand("c", 0, "coffee"))
        yield* reactor.waitFor(processor, { position: Position.make(4n) })
        yield* gate.open
        const verdict = yield* Fiber.join(verify)
        expect(verdict.position).toBe(4n)
        expect(told(verdict)).toEqual(["changed card card of b title"])
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

  describe("a rebuild in the shadow", () => {
    it.scopedLive("heals rows, leaves everything else as it was, and is heard of as a commit", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const processor = Board.make("todo")
        const reactor = yield* react(Source.fromIterable("s", boards), processor)
        yield* reactor.ended
        const before = yield* Board.dump("todo")
        yield* Board.meddle("todo", "UPDATE card SET title = 'gin', edits = 7 WHERE board = 'a'")
        yield* Board.meddle("todo", "DELETE FROM entry WHERE board = 'b'")
        yield* Board.meddle("todo", "INSERT INTO entry VALUES ('c', 0, 'nobody wrote this')")
        yield* Board.meddle("todo", "DELETE FROM processor_stream WHERE document_id = 'b'")
        expect(yield* reactor.rebuild(processor)).toEqual({
          ...keyOf(processor),
          position: 3n,
          through: 3n,
          operations: 5,
          waiting: 0
        })
        const [cursor, ...rows] = before.toReversed()
        expect(yield* Board.dump("todo")).toEqual([...rows.toReversed(), cursor?.replace("todo 3 1 ", "todo 3 2 ")])
        expect((yield* reactor.verify(processor)).isClean).toBe(true)
        expect(yield* leftovers(dialect)).toEqual([])
      })))

    it.scopedLive("runs the handler as it is now, in Replaying, on what the cursor has passed and nothing else", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const on = Board.switches()
        const processor = Board.make("todo", on, { filter: { documentId: ["a"] } })
        const reactor = yield* react(Source.fromIterable("s", boards), processor)
        yield* reactor.ended
        expect(on.seen.map(({ isReplaying }) => isReplaying)).toEqual([false, false, false, false])
        on.seen.length = 0
        on.title = (title) => title.toUpperCase()
        expect(told(yield* reactor.verify(processor))).toEqual(["changed card card of a title"])
        yield* reactor.rebuild(processor)
        expect(yield* Board.rows("todo")).toContain("card card of a a NO MILK 3")
        const once = ["a 0", "a 1", "a 2", "a 3"].map((operation) => ({ isReplaying: true, operation }))
        expect(on.seen).toEqual([...once, ...once])
      })))

    it.scopedLive("lets readers see the old rows, its processor go on, and others too, until it is done", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const feed = yield* Feed.make("s")
        const on = Board.switches()
        const processor = Board.make("todo", on)
        const other = Board.make("other")
        const reactor = yield* react(feed.source, processor, other)
        yield* feed.push(...boards)
        yield* reactor.waitFor(processor, { position: Position.make(3n) })

        on.title = (title) => title.toUpperCase()
        const gate = yield* Board.gate(on, (strand) => strand.position === 2n && on.seen.at(-1)?.isReplaying === true)
        const rebuild = yield* Effect.fork(reactor.rebuild(processor))
        yield* gate.held

        yield* feed.push(Board.strand("c", 0, "coffee"))
        for (const each of [processor, other]) yield* reactor.waitFor(each, { position: Position.make(4n) })
        expect(yield* Board.rows("todo")).toContain("card card of a a no milk 3")
        expect(yield* Board.rows("todo")).toContain("card card of c c COFFEE 0")
        const outcomes = yield* reactor.outcomes
        expect(outcomes[0]?.rebuild).toMatchObject({ how: "shadow", through: 3n })
        expect(outcomes[1]?.rebuild).toBeUndefined()

        yield* gate.open
        expect(yield* Fiber.join(rebuild)).toMatchObject({ position: 4n, operations: 6 })
        expect(yield* Board.rows("todo")).toContain("card card of a a NO MILK 3")
        expect(yield* Board.rows("other")).toContain("card card of a a no milk 3")
        yield* feed.push(Board.strand("a", 4, "yes"))
        for (const each of [processor, other]) yield* reactor.waitFor(each, { position: Position.make(5n) })
        expect(yield* Board.rows("todo")).toContain("card card of a a YES 4")
        expect((yield* reactor.verify(processor)).isClean).toBe(true)
        const surprised = yield* Effect.timeoutOption(Stream.runHead(reactor.incidents), "200 millis")
        expect(Option.isNone(surprised)).toBe(true)
        expect((yield* reactor.outcomes).map(({ failure, rebuild: how }) => [failure, how])).toEqual([
          [undefined, undefined],
          [undefined, undefined]
        ])
      })))

    it.scopedLive("sets aside what fails now, applies what failed then, and gives no letter a number twice", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const on = Board.switches()
        const processor = Board.make("todo", on)
        const refusing = (title: string) => {
          on.before = (_, { input }) =>
            (input as { readonly title: string }).title === title ? new Board.Refused({ text: title }) : Effect.void
        }
        refusing("oat milk")
        const reactor = yield* react(Source.fromIterable("s", boards), processor)
        yield* reactor.ended
        const key = keyOf(processor)
        expect(yield* letters("todo", key)).toEqual(["1 a 1 Refused", "2 a 2 Queued", "3 a 3 Queued"])
        expect((yield* reactor.verify(processor)).isClean).toBe(true)

        refusing("soy milk")
        expect((yield* reactor.rebuild(processor)).waiting).toBe(2)
        expect(yield* letters("todo", key)).toEqual(["4 a 2 Refused", "5 a 3 Queued"])
        expect(yield* Board.rows("todo")).toContain("card card of a a oat milk 1")

        refusing("nothing")
        expect(yield* reactor.rebuild(processor, { documentId: "a" })).toMatchObject({ operations: 4, waiting: 0 })
        expect(yield* letters("todo", key)).toEqual([])
        expect(yield* Board.rows("todo")).toContain("card card of a a no milk 3")
        refusing("tea")
        yield* reactor.rebuild(processor, { documentId: "b" })
        expect(yield* letters("todo", key)).toEqual(["6 b 0 Refused"])
        expect((yield* reactor.outcomes)[0]?.waiting).toBe(1)
        expect((yield* reactor.verify(processor)).isClean).toBe(true)
      })))

    it.scopedLive("cures a processor that has halted", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const on = Board.switches()
        const processor = Board.make("todo", on, { policy: { Refused: Policy.halt } })
        on.title = (title) => title === "milk" ? "mlk" : title
        on.before = (_, { input }) =>
          (input as { readonly title: string }).title === "no milk" ? new Board.Refused({ text: "" }) : Effect.void
        const reactor = yield* react(Source.fromIterable("s", boards), processor)
        yield* reactor.ended
        expect((yield* reactor.outcomes)[0]).toMatchObject({ phase: "halted", position: 2n })
        // The strand behind the cursor is half in the tables, which is as it should be.
        expect(yield* Board.rows("todo")).toContain("card card of a a soy milk 2")
        expect((yield* reactor.verify(processor)).isClean).toBe(true)
        yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
        expect(told(yield* reactor.verify(processor))).toEqual([
          "changed card card of a title",
          "changed card card of b title"
        ])
        on.before = () => Effect.void
        on.title = (title) => title
        yield* reactor.rebuild(processor)
        yield* reactor.ended
        expect((yield* reactor.outcomes)[0]).toMatchObject({ phase: "ended", position: 3n, failure: undefined })
        expect(yield* Board.rows("todo")).toContain("card card of a a no milk 3")
        expect((yield* reactor.verify(processor)).isClean).toBe(true)
      })))

    it.scopedLive("that its own handler halts leaves the tables, the processor and no schema behind", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const on = Board.switches()
        const feed = yield* Feed.make("s")
        const processor = Board.make("todo", on, { policy: { Refused: Policy.halt } })
        const reactor = yield* react(feed.source, processor)
        yield* feed.push(...boards)
        yield* reactor.waitFor(processor, { position: Position.make(3n) })
        const before = yield* Board.dump("todo")
        on.before = (strand) => strand.documentId === "b" ? new Board.Refused({ text: "b" }) : Effect.void
        const failure = yield* Effect.flip(reactor.rebuild(processor))
        expect(failure).toMatchObject({ _tag: "RebuildFailed", cause: { _tag: "Halted" } })
        expect(failure.message).toMatch(/^todo on s was not projected anew: ADD at index 0 of document b/)
        expect(yield* Board.dump("todo")).toEqual(before)
        expect(yield* leftovers(dialect)).toEqual([])
        yield* feed.push(Board.strand("c", 0, "coffee"))
        yield* reactor.waitFor(processor, { position: Position.make(4n) })
      })))

    it.scopedLive("begins where the cursor began", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const processor = Board.make("todo", undefined, { startFrom: Position.make(1n) })
        const reactor = yield* react(Source.fromIterable("s", boards.slice(1)), processor)
        yield* reactor.ended
        expect(yield* Board.rows("todo")).toEqual(["entry a 2 soy milk", "entry a 3 no milk"])
        expect((yield* reactor.verify(processor)).isClean).toBe(true)
        yield* reactor.rebuild(processor)
        expect(yield* Board.rows("todo")).toEqual(["entry a 2 soy milk", "entry a 3 no milk"])
        yield* reactor.rebuild(processor, { documentId: "a" })
        expect(yield* Board.rows("todo")).toEqual(["entry a 2 soy milk", "entry a 3 no milk"])
      })))

    it.scopedLive("is done twice when it is asked for twice at once", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const on = Board.switches()
        const processor = Board.make("todo", on)
        const reactor = yield* react(Source.fromIterable("s", boards), processor)
        yield* reactor.ended
        on.seen.length = 0
        yield* Board.meddle("todo", "DELETE FROM card")
        const done = yield* Effect.all(
          [reactor.rebuild(processor), reactor.rebuild(processor, { documentId: "a" }), reactor.verify(processor)],
          { concurrency: "unbounded" }
        )
        expect(done[2].isClean).toBe(true)
        // One after the other, and none in the middle of another.
        const all = ["a 0", "a 1", "b 0", "a 2", "a 3"]
        const ofA = all.filter((operation) => operation.startsWith("a"))
        expect(on.seen.map(({ operation }) => operation)).toEqual([...all, ...ofA, ...all])
        expect((yield* reactor.verify(processor)).isClean).toBe(true)
      })))

    it.scopedLive("ends with its reactor, having changed nothing", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const on = Board.switches()
        const processor = Board.make("todo", on)
        const scope = yield* Scope.make()
        const reactor = yield* Scope.extend(react(Source.fromIterable("s", boards), processor), scope)
        yield* reactor.ended
        yield* Board.meddle("todo", "DELETE FROM card")
        const before = yield* Board.dump("todo")
        const isHeld = yield* Deferred.make<void>()
        on.before = () => Effect.zipRight(Deferred.succeed(isHeld, undefined), Effect.never)
        const rebuild = yield* Effect.fork(Effect.flip(reactor.rebuild(processor)))
        yield* Deferred.await(isHeld)
        yield* Scope.close(scope, Exit.void)
        const failure = yield* Fiber.join(rebuild)
        expect(failure).toMatchObject({ _tag: "RebuildFailed" })
        expect(failure.message).toMatch(/the reactor was closed/)
        expect(yield* Board.dump("todo")).toEqual(before)
        expect(yield* leftovers(dialect)).toEqual([])
      })))

    it.scopedLive("can be given up by whoever asked for it", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const on = Board.switches()
        const feed = yield* Feed.make("s")
        const processor = Board.make("todo", on)
        const reactor = yield* react(feed.source, processor)
        yield* feed.push(...boards)
        yield* reactor.waitFor(processor, { position: Position.make(3n) })
        const isHeld = yield* Deferred.make<void>()
        on.before = () =>
          on.seen.at(-1)?.isReplaying === true
            ? Effect.zipRight(Deferred.succeed(isHeld, undefined), Effect.never)
            : Effect.void
        const rebuild = yield* Effect.fork(reactor.rebuild(processor))
        yield* Deferred.await(isHeld)
        yield* Fiber.interrupt(rebuild)
        expect(yield* leftovers(dialect)).toEqual([])
        yield* feed.push(Board.strand("c", 0, "coffee"))
        yield* reactor.waitFor(processor, { position: Position.make(4n) })
        on.before = () => Effect.void
        yield* reactor.rebuild(processor)
      })))

    it.scopedLive("beside an owner elsewhere takes the rows from under it, which opens again and goes on", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const feed = yield* Feed.make("s")
        const processor = Board.make("todo")
        const reactor = yield* react(feed.source, processor)
        yield* feed.push(...boards)
        yield* reactor.waitFor(processor, { position: Position.make(3n) })
        yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
        const alone = <A, E>(work: Effect.Effect<A, E, Source.Source | Namespace.Namespaces>) =>
          Effect.provideService(work, Source.Source, feed.source)
        expect(told(yield* alone(Rebuild.verify(processor)))).toHaveLength(2)
        yield* alone(Rebuild.run(processor))
        yield* feed.push(Board.strand("c", 0, "coffee"))
        yield* reactor.waitFor(processor, { position: Position.make(4n) })
        expect((yield* reactor.verify(processor)).isClean).toBe(true)
        yield* feed.push(Board.strand("c", 1, "cold coffee"))
        yield* reactor.waitFor(processor, { position: Position.make(5n) })
        expect((yield* reactor.outcomes)[0]?.failure).toBeUndefined()
      })))
  })

  describe("an owner elsewhere that commits meanwhile", () => {
    /** A live reactor, and a replay beside it that pushes a strand with every operation of `c` that it repeats. */
    const outpaced = (pushesMax: number) =>
      Effect.gen(function*() {
        const feed = yield* Feed.make("s")
        const on = Board.switches()
        const replaying = Board.switches()
        const reactor = yield* react(feed.source, Board.make("todo", on))
        const processor = Board.make("todo", replaying)
        yield* feed.push(...boards, Board.strand("c", 0, "0"))
        yield* reactor.waitFor(processor, { position: Position.make(4n) })
        yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
        let pushes = 0
        replaying.before = (strand) =>
          strand.documentId !== "c" || pushes >= pushesMax ? Effect.void : Effect.gen(function*() {
            pushes++
            yield* feed.push(Board.strand("c", pushes, String(pushes)))
            yield* reactor.waitFor(processor, { position: Position.make(4n + BigInt(pushes)) }, {
              timeout: "5 minutes"
            })
          }).pipe(Effect.orDie)
        const rebuilt = yield* Effect.either(
          Effect.provideService(Rebuild.run(processor), Source.Source, feed.source)
        )
        return { feed, reactor, processor, rebuilt, pushes: () => pushes }
      })

    it.scopedLive("is caught up with, and none of its operations is lost", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const { feed, processor, pushes, reactor, rebuilt } = yield* outpaced(4)
        expect(pushes()).toBe(4)
        expect(rebuilt).toMatchObject({ _tag: "Right", right: { position: 8n, through: 8n } })
        expect(yield* Board.rows("todo")).toContain("card card of c c 4 4")
        yield* feed.push(Board.strand("c", 5, "last"))
        yield* reactor.waitFor(processor, { position: Position.make(9n) }, { timeout: "5 minutes" })
        expect(yield* Board.rows("todo")).toContain("card card of c c last 5")
        expect((yield* reactor.verify(processor)).isClean).toBe(true)
      })))

    it.scopedLive("for ever is given up on, with the rows as they were", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const { processor, rebuilt } = yield* outpaced(100)
        expect(rebuilt).toMatchObject({ _tag: "Left", left: { _tag: "RebuildFailed", cause: { _tag: "Outrun" } } })
        expect(yield* Board.rows("todo")).toContain("card card of a a gin 3")
        void processor
      })))
  })

  describe("one document", () => {
    it.scopedLive("is projected anew while rows of others stay as they are, right or wrong", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const on = Board.switches()
        const feed = yield* Feed.make("s")
        const processor = Board.make("todo", on)
        const reactor = yield* react(feed.source, processor)
        yield* feed.push(...boards)
        yield* reactor.waitFor(processor, { position: Position.make(3n) })
        yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
        yield* Board.meddle("todo", "DELETE FROM entry WHERE n > 0")
        on.seen.length = 0
        expect(yield* reactor.rebuild(processor, { documentId: "a" })).toMatchObject({ position: 3n, operations: 4 })
        expect(on.seen.map(({ operation }) => operation)).toEqual(["a 0", "a 1", "a 2", "a 3"])
        expect(yield* Board.rows("todo")).toEqual([
          "card card of a a no milk 3",
          "card card of b b gin 0",
          ...["milk", "oat milk", "soy milk", "no milk"].map((text, n) => `entry a ${n} ${text}`),
          "entry b 0 tea"
        ])
        yield* feed.push(Board.strand("a", 4, "rice milk"), Board.strand("b", 1, "green tea"))
        yield* reactor.waitFor(processor, { position: Position.make(5n) })
        expect((yield* reactor.verify(processor)).isClean).toBe(true)
      })))

    it.scopedLive("whose strand is half committed is whole in the end", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const on = Board.switches()
        const feed = yield* Feed.make("s")
        const processor = Board.make("todo", on, {
          batch: { operations: 2 },
          policy: { Refused: Policy.retry(Schedule.spaced("20 millis"), { otherwise: Policy.halt }) }
        })
        const isHeld = yield* Deferred.make<void>()
        on.before = (_, { index }) =>
          index === 5
            ? Effect.zipRight(Deferred.succeed(isHeld, undefined), new Board.Refused({ text: "not yet" }))
            : Effect.void
        const reactor = yield* react(feed.source, processor)
        yield* feed.push(Board.strand("b", 0, "tea"), Board.strand("a", 0, "0", "1", "2", "3", "4", "5", "6", "7", "8"))
        yield* Deferred.await(isHeld)
        expect((yield* reactor.verify(processor)).isClean).toBe(true)
        expect(yield* Board.rows("todo")).toContain("card card of a a 4 4")
        expect(yield* reactor.rebuild(processor, { documentId: "a" })).toMatchObject({ operations: 0, position: 1n })
        on.before = () => Effect.void
        yield* reactor.waitFor(processor, { position: Position.make(2n) })
        expect(yield* Board.rows("todo")).toContain("card card of a a 8 8")
        expect((yield* reactor.verify(processor)).isClean).toBe(true)
        expect(yield* letters("todo", keyOf(processor))).toEqual([])
      })))

    it.scopedLive("that the source does not know loses its rows", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const processor = Board.make("todo")
        const reactor = yield* react(Source.fromIterable("s", boards), processor)
        yield* reactor.ended
        yield* Board.meddle("todo", "INSERT INTO entry VALUES ('c', 0, 'nobody wrote this')")
        expect(yield* reactor.rebuild(processor, { documentId: "c" })).toMatchObject({ operations: 0 })
        expect((yield* reactor.verify(processor)).isClean).toBe(true)
      })))
  })

  describe("a rebuild in place", () => {
    it.scopedLive("begins anew, complains until it is whole, and knows which operations it has handled before", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const on = Board.switches()
        const feed = yield* Feed.make("s")
        const processor = Board.make("todo", on)
        yield* feed.push(...boards)
        yield* Effect.gen(function*() {
          const reactor = yield* Reactor.Reactor
          const health = yield* Health.Health
          yield* reactor.waitFor(processor, { position: Position.make(3n) })
          on.seen.length = 0
          const gate = yield* Board.gate(on, (strand) => strand.position === 3n)
          const begun = yield* reactor.rebuild(processor, { how: "in place" })
          expect(begun).toEqual({ ...keyOf(processor), position: 0n, through: 3n, operations: 0, waiting: 0 })
          // Whoever truncates a journal by it must not remove what is yet to be read again.
          expect((yield* reactor.outcomes)[0]).toMatchObject({
            position: 0n,
            rebuild: { how: "in place", position: 0n, through: 3n }
          })
          // What comes meanwhile joins the batch, and is not repeated.
          yield* feed.push(Board.strand("c", 0, "coffee"))
          yield* gate.held
          expect((yield* reactor.outcomes)[0]?.rebuild).toEqual({ how: "in place", position: 0n, through: 3n })
          if (dialect === "pg") {
            const report = yield* health.check
            expect(report.isHealthy).toBe(false)
            expect(report.complaints).toEqual([
              "todo on s is rebuilt in place, at position 0 of 3: its tables are not whole yet"
            ])
          }
          yield* gate.open
          yield* reactor.waitFor(processor, { position: Position.make(4n) })
          expect(on.seen).toEqual([
            ...["a 0", "a 1", "b 0", "a 2", "a 3"].map((operation) => ({ isReplaying: true, operation })),
            { isReplaying: false, operation: "c 0" }
          ])
          expect((yield* health.check).complaints).toEqual([])
          expect((yield* reactor.outcomes)[0]?.rebuild).toBeUndefined()
          expect((yield* reactor.verify(processor)).isClean).toBe(true)
        }).pipe(
          Effect.provide(Layer.provideMerge(Health.layer(), Reactor.layer(processor))),
          Effect.provideService(Source.Source, feed.source)
        )
      })))

    it.scopedLive("goes on after a restart where it was", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const on = Board.switches()
        const processor = Board.make("todo", on, { batch: { operations: 1 } })
        const scope = yield* Scope.make()
        const first = yield* Scope.extend(react(Source.fromIterable("s", boards), processor), scope)
        yield* first.ended
        const before = yield* Board.rows("todo")
        yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
        on.seen.length = 0
        const isHeld = yield* Deferred.make<void>()
        on.before = (_, { index }) =>
          index === 2
            ? Effect.zipRight(Deferred.succeed(isHeld, undefined), Effect.never)
            : Effect.void
        yield* first.rebuild(processor, { how: "in place" })
        yield* Deferred.await(isHeld)
        yield* Scope.close(scope, Exit.void)
        on.before = () => Effect.void
        const second = yield* react(Source.fromIterable("s", boards), processor)
        yield* second.ended
        expect(on.seen.map(({ isReplaying, operation }) => `${operation} ${isReplaying}`)).toEqual(
          ["a 0", "a 1", "b 0", "a 2", "a 2", "a 3"].map((operation) => `${operation} true`)
        )
        expect(yield* Board.rows("todo")).toEqual(before)
        expect(yield* Namespace.query("todo", Cursors.peek(keyOf(processor)))).toMatchObject({
          position: 3n,
          epoch: 3n
        })
      })))

    it.scopedLive("keeps the rows that migrations put there", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const steps: Migration.Migrations = {
          ...Board.migrations,
          "0002_first": {
            up: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO card VALUES ('first', 'none', '', 0)`),
            down: Effect.void
          }
        }
        const processor = Board.make("todo", undefined, { migrations: steps })
        const reactor = yield* react(Source.fromIterable("s", boards), processor)
        yield* reactor.ended
        for (const how of ["in place", "shadow"] as const) {
          const before = yield* Board.rows("todo")
          expect(before).toContain("card first none  0")
          yield* Board.meddle("todo", "DELETE FROM card WHERE id = 'first'")
          expect(told(yield* reactor.verify(processor))).toEqual(["missing card first"])
          yield* reactor.rebuild(processor, { how })
          yield* reactor.ended
          expect(yield* Board.rows("todo")).toEqual(before)
        }
      })))
  })

  describe("what cannot be", () => {
    const refused = (processor: Todos, options?: Rebuild.Options) =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const reactor = yield* Scope.extend(react(Source.fromIterable("s", boards), processor), scope)
        yield* reactor.ended
        const failure = yield* Effect.flip(reactor.rebuild(processor, options))
        yield* Scope.close(scope, Exit.void)
        return `${failure._tag}: ${failure.message}`
      })

    const with_ = (...statements: ReadonlyArray<string>): Migration.Migrations => ({
      ...Board.migrations,
      "0002_more": {
        up: Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.forEach(statements, (text) => sql.unsafe(text))),
        down: Effect.void
      }
    })

    it.scopedLive("is refused with what to do about it, and nothing is touched", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const Whole = Table.make("card", Schema.Struct({ id: Schema.String }), { key: ["id"] })
        const Absent = Table.make("absent", Schema.Struct({ id: Schema.String }), { key: ["id"] })
        const Wrong = Table.make("card", Schema.Struct({ id: Schema.String, colour: Schema.String }), { key: ["id"] })
        expect(yield* refused(Board.make("none", undefined, { tables: [] }))).toMatch(
          /^NotRebuildable: none cannot .* does not say which tables it alone writes; name them: Processor.make/
        )
        expect(yield* refused(Board.make("whole", undefined, { tables: [Whole, Board.Entries] }), { documentId: "a" }))
          .toMatch(
            /^NotRebuildable: .* table card does not say which document a row is of; name the column: Table.make/
          )
        expect(yield* refused(Board.make("both"), { documentId: "a", how: "in place" })).toMatch(/^NotRebuildable/)
        for (const how of ["shadow", "in place"] as const) {
          expect(yield* refused(Board.make("absent", undefined, { tables: [Absent] }), { how })).toMatch(
            /^NotRebuildable: .* there is no table absent$/
          )
          expect(yield* refused(Board.make("wrong", undefined, { tables: [Wrong] }), { how })).toMatch(
            /^NotRebuildable: .* table card has no column colour; see Drift.verify$/
          )
          const migrations = with_("CREATE TABLE pin (card TEXT REFERENCES card (id))")
          expect(yield* refused(Board.make("pinned", undefined, { migrations }), { how })).toMatch(
            /^NotRebuildable: .* table pin, which is not among its tables, refers to card/
          )
        }
        const empty = Board.make("empty")
        const failure = yield* Effect.flip(
          Effect.zipRight(
            Namespace.within("empty", Effect.void),
            Effect.provideService(Rebuild.run(empty), Source.Source, Source.fromIterable("s", boards))
          )
        )
        expect(failure._tag).toBe("RebuildFailed")
      })))

    it.scopedLive("a trigger would be set off again by copied rows, and is not in place", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const migrations = with_(
          "CREATE TABLE tally (board TEXT PRIMARY KEY, n BIGINT NOT NULL)",
          ...(dialect === "sqlite"
            ? [
              "CREATE TRIGGER tallied AFTER INSERT ON entry BEGIN INSERT INTO tally VALUES (new.board, 1) " +
              "ON CONFLICT (board) DO UPDATE SET n = n + 1; END"
            ]
            : [
              "CREATE FUNCTION tallied() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO tally VALUES " +
              "(new.board, 1) ON CONFLICT (board) DO UPDATE SET n = tally.n + 1; RETURN NULL; END $$",
              "CREATE TRIGGER tallied AFTER INSERT ON entry FOR EACH ROW EXECUTE FUNCTION tallied()"
            ])
        )
        const Tally = Table.make("tally", Schema.Struct({ board: Schema.String, n: Schema.Int }), { key: ["board"] })
        const processor = Board.make("todo", undefined, { migrations, tables: [Board.Cards, Board.Entries, Tally] })
        expect(yield* refused(processor)).toMatch(
          /^NotRebuildable: .* table entry has a trigger, .*; rebuild it in place$/
        )
        const reactor = yield* react(Source.fromIterable("s", boards), processor)
        yield* reactor.ended
        yield* Board.meddle("todo", "UPDATE tally SET n = 99")
        yield* reactor.rebuild(processor, { how: "in place" })
        yield* reactor.ended
        const tallies = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT board, n FROM tally ORDER BY board`)
        expect(yield* Namespace.query("todo", tallies)).toEqual([{ board: "a", n: 4 }, { board: "b", n: 1 }])
      })))

    it.scopedLive("a handler that asks tables of others fails in the shadow, and does not in place", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const on = Board.switches()
        const look = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT * FROM rate`)
        const migrations = with_("CREATE TABLE rate (n BIGINT)")
        const plain = Board.make("todo", on, { migrations })
        const processor: Todos = {
          ...plain,
          handler: Effect.map(plain.handler, ({ run }) => ({
            run: (strands, attempt) => Effect.zipRight(look, run(strands, attempt))
          }))
        }
        expect(yield* refused(processor)).toMatch(
          /^RebuildFailed: .*(no such table: rate|relation "rate" does not exist)/
        )
        const reactor = yield* react(Source.fromIterable("s", boards), processor)
        yield* reactor.ended
        yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
        yield* reactor.rebuild(processor, { how: "in place" })
        yield* reactor.ended
        expect(yield* Board.rows("todo")).toContain("card card of a a no milk 3")
      })))

    it.scopedLive("a source that was truncated is told before anything is emptied", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const truncated = new Source.SourceTruncated({ source: "s", after: Position.origin, floor: Position.make(1n) })
        const whole = Source.fromIterable("s", boards)
        let isTruncated = false
        const source: Context.Tag.Service<typeof Source.Source> = {
          ...whole,
          strands: (after) => isTruncated && after < 1n ? Stream.fail(truncated) : whole.strands(after)
        }
        const processor = Board.make("todo")
        const reactor = yield* react(source, processor)
        yield* reactor.ended
        const before = yield* Board.dump("todo")
        isTruncated = true
        for (const options of [{}, { how: "in place" }, { documentId: "a" }] as const) {
          expect(yield* Effect.flip(reactor.rebuild(processor, options))).toBe(truncated)
        }
        expect(yield* Effect.flip(reactor.verify(processor))).toBe(truncated)
        expect(yield* Board.dump("todo")).toEqual(before)
      })))

    it.scopedLive("a source that ends before the cursor is told too", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const processor = Board.make("todo")
        const reactor = yield* react(Source.fromIterable("s", boards), processor)
        yield* reactor.ended
        const before = yield* Board.dump("todo")
        const { head: _, ...endless } = Source.fromIterable("s", boards.slice(0, 2))
        for (const source of [Source.fromIterable("s", boards.slice(0, 2)), { ...endless, head: Effect.succeedNone }]) {
          const failure = yield* Effect.flip(Effect.provideService(Rebuild.run(processor), Source.Source, source))
          expect(failure.message).toMatch(
            /the source ends at position 2, before the cursor at 3$|source s ends before position 3, to which it was read/
          )
        }
        expect(yield* Board.dump("todo")).toEqual(before)
      })))
  })
})

describe("beside a journal in the same SQLite file", () => {
  it.scopedLive("a rebuild reads it while nothing holds the file, and a truncated one is told", () =>
    Effect.flatMap(Database.sqlite, (database) =>
      Effect.gen(function*() {
        const journal = yield* Journal.Journal
        const processor = Board.make("todo")
        const source = yield* Source.Source
        yield* journal.append(boards)
        const reactor = yield* react(source, processor)
        const { head } = yield* journal.bounds
        yield* reactor.waitFor(processor, { position: head })
        yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
        yield* reactor.rebuild(processor, { documentId: "a" })
        expect(told(yield* reactor.verify(processor))).toEqual(["changed card card of b title"])
        yield* reactor.rebuild(processor)
        expect((yield* reactor.verify(processor)).isClean).toBe(true)
        yield* reactor.rebuild(processor, { how: "in place" })
        yield* reactor.waitFor(processor, { position: head })
        expect((yield* reactor.verify(processor)).isClean).toBe(true)

        yield* journal.truncate({ through: Position.make(2n) })
        const before = yield* Board.dump("todo")
        for (const how of ["shadow", "in place"] as const) {
          expect(yield* Effect.flip(reactor.rebuild(processor, { how }))).toMatchObject({ _tag: "SourceTruncated" })
        }
        expect(yield* Board.dump("todo")).toEqual(before)
      }).pipe(
        Effect.provide(Layer.provideMerge(
          Layer.merge(Journal.layer("home"), silent),
          Layer.orDie(Sqlite.layer({ filename: database.filename }))
        ))
      )))
})

describe("on a PostgreSQL that goes away", () => {
  const through = (
    body: (proxy: Proxy.Proxy, url: string) => Effect.Effect<void, unknown, Namespace.Namespaces | Scope.Scope>
  ) =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      const proxy = yield* Proxy.make(url)
      yield* Effect.provide(
        body(proxy, url),
        Layer.merge(Layer.orDie(Postgres.layer({ url: Redacted.make(proxy.url), connectTimeout: "2 seconds" })), silent)
      )
    })

  it.scopedLive(
    "in the middle of the replay, it is waited for, and nothing is set aside",
    () =>
      through((proxy) =>
        Effect.gen(function*() {
          const on = Board.switches()
          const processor = Board.make("todo", on, { batch: { operations: 1 } })
          const reactor = yield* react(Source.fromIterable("s", boards), processor)
          yield* reactor.ended
          const before = yield* Board.rows("todo")
          yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
          let isCut = false
          on.before = (strand) =>
            strand.position === 2n && !isCut
              ? Effect.zipRight(Effect.sync(() => isCut = true), proxy.cutAll)
              : Effect.void
          expect(yield* reactor.rebuild(processor)).toMatchObject({ waiting: 0 })
          expect(isCut).toBe(true)
          expect(yield* Board.rows("todo")).toEqual(before)
          expect((yield* reactor.verify(processor)).isClean).toBe(true)
        })
      )
  )

  it.scopedLive.each(
    [
      ["cutBeforeCommit", 1],
      ["cutAfterCommit", 1],
      ["cutBeforeCommit", 3],
      ["cutAfterCommit", 3]
    ] as const
  )(
    "at the COMMIT of the exchange (%s, partitions: %i), the rows are exchanged once",
    ([cut, partitions]) =>
      through((proxy) =>
        Effect.gen(function*() {
          const processor = Board.make("todo", undefined, { partitions })
          const source = Source.fromIterable("s", boards)
          const reactor = yield* react(source, processor)
          yield* reactor.ended
          const before = yield* Board.rows("todo")
          yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
          const key = keyOf(processor)
          const cursors = yield* Namespace.query("todo", Cursors.all(key))
          expect(cursors.length).toBe(partitions)
          let isCut = Effect.void
          // All of the replay is done when the subscription has to stand still.
          yield* Effect.provideService(
            Rebuild.run(processor, {}, {
              alone: (work) => Effect.zipRight(Effect.tap(proxy[cut], (done) => Effect.sync(() => isCut = done)), work)
            }),
            Source.Source,
            source
          )
          yield* isCut
          expect(yield* Board.rows("todo")).toEqual(before)
          expect(yield* Namespace.query("todo", Cursors.all(key))).toEqual(
            cursors.map((cursor) => ({ ...cursor, sequence: cursor.sequence + 1n }))
          )
        })
      )
  )

  it.scopedLive("what a killed replay has left is removed when a reactor starts, and what is in use stays", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      const layer = Layer.merge(Layer.orDie(Postgres.layer({ url: Redacted.make(url) })), silent)
      yield* Effect.gen(function*() {
        const { aside } = yield* Namespace.Namespaces
        const used = yield* aside(Namespace.make("todo"))
        yield* Board.meddle("leftovers", `CREATE SCHEMA processor_shadow_${"0123456789abcdef".repeat(2)}`)
        yield* Board.meddle("leftovers", "CREATE SCHEMA processor_shadow_of_somebody")
        expect(yield* leftovers("pg")).toHaveLength(3)
        yield* react(Source.fromIterable("s", boards), Board.make("todo"))
        yield* Effect.repeat(leftovers("pg"), {
          until: (found) => found.length === 2,
          schedule: Schedule.intersect(Schedule.spaced("20 millis"), Schedule.recurs(200))
        })
        const left = new Set((yield* leftovers("pg")).map((row) => Object.values(row)[0]))
        expect(left).toEqual(new Set([used.schema, "processor_shadow_of_somebody"]))
      }).pipe(Effect.provide(layer))
    }))
})
