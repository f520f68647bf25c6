/**
 * Rebuilds of processors that are divided: each document's rows are those of where its partition stands.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Cursors, DeadLetters, Namespace, Partition, Policy, Rebuild, Slice, Source } from "../src/index.js"
import type { Reactor } from "../src/index.js"
import * as Follow from "./guarantees/Follow.js"
import * as Board from "./support/Board.js"
import * as Database from "./support/Database.js"
import * as Feed from "./support/Feed.js"
import * as Lists from "./support/Lists.js"
import { recorded } from "./support/RealHistories.js"
import { onFresh, react, silent, told } from "./support/Rebuilds.js"
import type { Todos } from "./support/Rebuilds.js"
import * as Store from "./support/Store.js"

/** Runs `body` with a reactor that is closed behind it. */
const reacting = <A, E, R>(
  source: Context.Tag.Service<typeof Source.Source>,
  processor: Todos,
  body: (reactor: Context.Tag.Service<typeof Reactor.Reactor>) => Effect.Effect<A, E, R>
) =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    const result = yield* Effect.flatMap(Scope.extend(react(source, processor), scope), body)
    yield* Scope.close(scope, Exit.void)
    return result
  })

const keyOf = (processor: Todos): Cursors.Key => ({ processor: processor.name, source: Source.name("s") })

const cursorsOf = (processor: Todos) => Namespace.query("todo", Cursors.all(keyOf(processor)))

/** Until these were applied; a partition for which nothing comes takes its time to move past others' operations. */
const applied = (
  reactor: Context.Tag.Service<typeof Reactor.Reactor>,
  processor: Todos,
  strands: ReadonlyArray<Source.Unplaced>
) =>
  Effect.forEach(
    strands,
    ({ branch, documentId, operations, scope }) =>
      reactor.waitFor(processor, { documentId, scope, branch, index: operations.at(-1)!.index }, {
        timeout: "5 minutes"
      }),
    { discard: true }
  )

/** Names of documents by the half of all slices that they are in. */
const names = Array.from({ length: 60 }, (_, i) => `d${i}`)
const low = names.filter((name) => Slice.of(name) < Slice.count / 2)
const high = names.filter((name) => Slice.of(name) >= Slice.count / 2)
const [a, c, e] = low as [string, string, string]
const [b, d] = high as [string, string]

/** Of both halves: the operation of `a` at position 3 is the one that some tests refuse. */
const boards = [
  Board.strand(a, 0, "milk"),
  Board.strand(b, 0, "tea"),
  Board.strand(a, 1, "oat milk", "soy milk"),
  Board.strand(b, 1, "green tea"),
  Board.strand(c, 0, "juice"),
  Board.strand(d, 0, "coffee")
]

/** What halts in the first of its partitions before position 3, while the others come to the end. */
const apart = (on: Board.Switches, partitions = 2) => {
  on.before = (strand) =>
    strand.documentId === a && strand.position >= 3n ? new Board.Refused({ text: "not yet" }) : Effect.void
  return Board.make("todo", on, { partitions, batch: { operations: 1 }, policy: { Refused: Policy.halt } })
}

/** The same processor in other partitions. */
const inPartitions = (processor: Todos, partitions: number): Todos => ({ ...processor, partitions })

/** What was handled for the first time, and what was repeated. */
const seenBy = (on: Board.Switches) => ({
  fresh: on.seen.filter(({ isReplaying }) => !isReplaying).map(({ operation }) => operation).toSorted(),
  again: on.seen.filter(({ isReplaying }) => isReplaying).map(({ operation }) => operation).toSorted()
})

const operationsOf = (strands: ReadonlyArray<Source.Unplaced>) =>
  strands.flatMap(({ documentId, operations }) => operations.map(({ index }) => `${documentId} ${index}`)).toSorted()

/** The rows of these strands when each operation was applied once, in order. */
const rowsOf = (strands: ReadonlyArray<Source.Unplaced>) => {
  const titles = new Map<string, Array<string>>()
  for (const { documentId, operations } of strands) {
    const all = titles.get(documentId) ?? []
    all.push(...operations.map(({ input }) => (input as { readonly title: string }).title))
    titles.set(documentId, all)
  }
  const boardsInOrder = Array.from(titles).toSorted(([one], [other]) => one < other ? -1 : 1)
  return [
    ...boardsInOrder.map(([name, all]) => `card card of ${name} ${name} ${all.at(-1)} ${all.length - 1}`),
    ...boardsInOrder.flatMap(([name, all]) => all.map((title, n) => `entry ${name} ${n} ${title}`))
  ]
}

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  it.scopedLive("a wrong row is found in any partition, and nothing else, wherever the partitions stand", () =>
    onFresh(fresh)(Effect.gen(function*() {
      const on = Board.switches()
      const processor = apart(on)
      const reactor = yield* react(Source.fromIterable("s", boards), processor)
      yield* reactor.ended
      expect((yield* cursorsOf(processor)).map(({ position }) => position)).toEqual([1n, 6n])
      const clean = yield* reactor.verify(processor)
      expect(clean).toMatchObject({ position: 1n, isClean: true })
      expect(clean.tables.map(({ replayedRows, rows, table }) => [table, rows, replayedRows]).slice(0, 3)).toEqual([
        ["card", 3, 3],
        ["entry", 4, 4],
        ["processor_stream", 3, 3]
      ])
      yield* Board.meddle("todo", `UPDATE card SET title = 'gin' WHERE board IN ('${a}', '${b}')`)
      yield* Board.meddle("todo", `DELETE FROM entry WHERE board = '${d}'`)
      expect(told(yield* reactor.verify(processor)).toSorted()).toEqual([
        `changed card card of ${a} title`,
        `changed card card of ${b} title`,
        `missing entry ${d} 0`
      ].toSorted())
      expect(told(yield* reactor.verify(processor, { documentId: b }))).toEqual([`changed card card of ${b} title`])
      expect(told(yield* reactor.verify(processor, { documentId: a }))).toEqual([`changed card card of ${a} title`])
      expect((yield* reactor.verify(processor, { documentId: c })).isClean).toBe(true)
    })))

  it.scopedLive("partitions that are each in the middle of a long strand are clean, also put together", () =>
    onFresh(fresh)(Effect.gen(function*() {
      const on = Board.switches()
      const titles = Array.from({ length: 9 }, (_, i) => String(i))
      const source = Source.fromIterable("s", [a, b].map((name) => Board.strand(name, 0, ...titles)))
      on.before = (_, { index }) => index === 5 ? new Board.Refused({ text: "not yet" }) : Effect.void
      const processor = Board.make("todo", on, {
        partitions: 2,
        batch: { operations: 2 },
        policy: { Refused: Policy.halt }
      })
      yield* reacting(source, processor, (reactor) =>
        Effect.gen(function*() {
          yield* reactor.ended
          expect(yield* Board.rows("todo")).toContain(`card card of ${a} ${a} 4 4`)
          expect(yield* Board.rows("todo")).toContain(`card card of ${b} ${b} 4 4`)
          expect(told(yield* reactor.verify(processor))).toEqual([])
        }))
      yield* Namespace.within("todo", Cursors.claim(keyOf(processor)))
      const verified = Effect.provideService(Rebuild.verify(processor), Source.Source, source)
      expect(told(yield* verified)).toEqual([])
      yield* Board.meddle("todo", `UPDATE card SET title = 'gin' WHERE board = '${b}'`)
      expect(told(yield* verified)).toEqual([`changed card card of ${b} title`])
      expect(told(
        yield* Effect.provideService(
          Rebuild.verify(processor, { differencesMax: 0 }),
          Source.Source,
          source
        )
      )).toEqual([])
    })))

  describe("a rebuild in the shadow", () => {
    it.scopedLive("leaves each partition where it stands, with the rows of that, and one that had halted goes on", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const on = Board.switches()
        const processor = apart(on)
        const reactor = yield* react(Source.fromIterable("s", boards), processor)
        yield* reactor.ended
        const before = yield* Board.rows("todo")
        const cursors = yield* cursorsOf(processor)
        yield* Board.meddle("todo", "UPDATE card SET title = 'gin', edits = 7")
        yield* Board.meddle("todo", "DELETE FROM entry WHERE n = 1")
        yield* Board.meddle("todo", "DELETE FROM processor_stream")
        on.seen.length = 0
        expect(yield* reactor.rebuild(processor)).toEqual({
          ...keyOf(processor),
          position: 1n,
          through: 1n,
          operations: 4,
          waiting: 0
        })
        yield* reactor.ended
        expect(seenBy(on).again).toEqual([`${a} 0`, `${b} 0`, `${b} 1`, `${d} 0`].toSorted())
        expect(yield* Board.rows("todo")).toEqual(before)
        expect((yield* cursorsOf(processor)).map(({ position, sequence }) => [position, sequence])).toEqual(
          cursors.map(({ position, sequence }) => [position, sequence + 1n])
        )
        on.before = () => Effect.void
        yield* reactor.rebuild(processor)
        yield* reactor.ended
        expect((yield* reactor.outcomes).map(({ failure, phase, position }) => [phase, position, failure])).toEqual([
          ["ended", 6n, undefined],
          ["ended", 6n, undefined]
        ])
        expect(yield* Board.rows("todo")).toEqual(rowsOf(boards))
        expect(told(yield* reactor.verify(processor))).toEqual([])
      })))

    it.scopedLive("lets all partitions go on until it is done, and takes in what they did meanwhile", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const feed = yield* Feed.make("s")
        const on = Board.switches()
        const processor = Board.make("todo", on, { partitions: 4 })
        const reactor = yield* react(feed.source, processor)
        yield* feed.push(...boards)
        yield* applied(reactor, processor, boards)
        yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
        const gate = yield* Board.gate(on, (strand) => strand.position === 4n)
        const rebuild = yield* Effect.fork(reactor.rebuild(processor))
        yield* gate.held
        const more = [
          Board.strand(c, 1, "more juice"),
          ...names.slice(10, 40).map((name) => Board.strand(name, 0, "first"))
        ]
        yield* feed.push(...more)
        yield* applied(reactor, processor, more)
        expect(yield* Board.rows("todo")).toContain(`card card of ${a} ${a} gin 2`)
        expect((yield* reactor.outcomes).map((outcome) => outcome.rebuild)).toEqual(
          Partition.all(4).map(() => ({ how: "shadow", position: expect.anything(), through: 6n }))
        )
        yield* gate.open
        expect(yield* Fiber.join(rebuild)).toMatchObject({ operations: 38 })
        const last = more.slice(1).map(({ documentId }) => Board.strand(documentId, 1, "second"))
        yield* feed.push(...last)
        yield* applied(reactor, processor, last)
        expect(yield* Board.rows("todo")).toEqual(rowsOf([...boards, ...more, ...last]))
        expect(told(yield* reactor.verify(processor))).toEqual([])
        const surprised = yield* Effect.timeoutOption(Stream.runHead(reactor.incidents), "200 millis")
        expect(Option.isNone(surprised)).toBe(true)
        expect((yield* reactor.outcomes).map(({ rebuild: how }) => how)).toEqual(Partition.all(4).map(() => undefined))
      })))

    it.scopedLive("counts letters of each partition by themselves, and gives no number twice", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const on = Board.switches()
        const processor = Board.make("todo", on, { partitions: 2 })
        const refusing = (...titles: ReadonlyArray<string>) => {
          on.before = (_, { input }) =>
            titles.includes((input as { readonly title: string }).title)
              ? new Board.Refused({ text: "no" })
              : Effect.void
        }
        refusing("oat milk", "green tea")
        const reactor = yield* react(Source.fromIterable("s", boards), processor)
        yield* reactor.ended
        const key = keyOf(processor)
        const numbers = Effect.map(
          Namespace.query("todo", DeadLetters.list(key)),
          (all) => all.map(({ ordinal, strand }) => `${strand.documentId} ${ordinal / BigInt(Slice.count)}`)
        )
        const parked = Effect.map(cursorsOf(processor), (cursors) => cursors.map((cursor) => cursor.parked))
        expect(yield* parked).toEqual([2, 1])
        const first = yield* numbers
        expect((yield* reactor.rebuild(processor)).waiting).toBe(3)
        expect(yield* parked).toEqual([2, 1])
        const second = yield* numbers
        expect(new Set([...first, ...second]).size).toBe(6)
        refusing("green tea")
        expect((yield* reactor.rebuild(processor, { documentId: a })).waiting).toBe(1)
        expect(yield* parked).toEqual([0, 1])
        refusing("oat milk", "green tea")
        yield* reactor.rebuild(processor, { documentId: b })
        yield* reactor.rebuild(processor)
        expect(new Set([...first, ...second, ...(yield* numbers)]).size).toBe(9)
        expect((yield* reactor.outcomes).map(({ waiting }) => waiting)).toEqual([2, 1])
      })))
  })

  describe("one document", () => {
    it.scopedLive("stops its own partition alone, and rows of others stay as they are", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const feed = yield* Feed.make("s")
        const processor = Board.make("todo", undefined, { partitions: 2 })
        const reactor = yield* react(feed.source, processor)
        yield* feed.push(...boards)
        yield* applied(reactor, processor, boards)
        const before = yield* cursorsOf(processor)
        yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
        expect(yield* reactor.rebuild(processor, { documentId: b })).toMatchObject({ position: 6n, operations: 2 })
        expect((yield* Board.rows("todo")).filter((row) => row.startsWith("card"))).toEqual(
          rowsOf(boards).filter((row) => row.startsWith("card")).map((row) =>
            row.includes(`of ${b} `) ? row : row.replace(/(card card of \w+ \w+) .* (\d)$/, "$1 gin $2")
          )
        )
        const more = [Board.strand(b, 2, "black tea"), Board.strand(a, 3, "rice milk")]
        yield* feed.push(...more)
        yield* applied(reactor, processor, more)
        // The partition of the document was opened again, the other was not.
        expect((yield* cursorsOf(processor)).map(({ epoch }) => epoch)).toEqual(
          before.map(({ epoch }, i) => epoch + BigInt(i))
        )
        expect(yield* Board.rows("todo")).toContain(`card card of ${b} ${b} black tea 2`)
        expect(told(yield* reactor.verify(processor)).length).toBe(2)
      })))

    it.scopedLive("is projected up to where its own slice stands, though its range has come further or less far", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const on = Board.switches()
        const processor = apart(on)
        const source = Source.fromIterable("s", boards)
        yield* reacting(source, processor, ({ ended }) => ended)
        const before = yield* Board.rows("todo")
        yield* Namespace.within("todo", Cursors.claim(keyOf(processor)))
        expect(yield* cursorsOf(processor)).toMatchObject([{ position: 1n, ahead: [{ position: 6n }] }])
        yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
        yield* Board.meddle("todo", "DELETE FROM entry")
        const documents = [a, b, c, d]
        for (const documentId of documents) {
          yield* Effect.provideService(Rebuild.run(processor, { documentId }), Source.Source, source)
        }
        expect(yield* Board.rows("todo")).toEqual(before)
        expect(told(yield* Effect.provideService(Rebuild.verify(processor), Source.Source, source))).toEqual([])
        on.before = () => Effect.void
        on.seen.length = 0
        yield* reacting(source, inPartitions(processor, 1), ({ ended }) => ended)
        expect(on.seen.map(({ operation }) => operation)).toEqual([`${a} 1`, `${a} 2`, `${c} 0`])
        expect(yield* Board.rows("todo")).toEqual(rowsOf(boards))
      })))
  })

  describe("right after the number of partitions was changed", () => {
    it.scopedLive.each(["shadow", "in place", "document"] as const)(
      "a rebuild (%s) loses nothing and repeats nothing but by itself",
      (how) =>
        onFresh(fresh)(Effect.gen(function*() {
          const on = Board.switches()
          const four = apart(on, 4)
          const source = Source.fromIterable("s", boards)
          yield* reacting(source, four, ({ ended }) => ended)
          expect(new Set((yield* cursorsOf(four)).map(({ position }) => position)).size).toBe(2)
          yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
          on.before = () => Effect.void
          const two = inPartitions(four, 2)
          yield* reacting(source, two, (reactor) =>
            Effect.gen(function*() {
              // Its subscriptions may not have opened yet.
              if (how === "document") {
                for (const documentId of [a, b, c, d]) yield* reactor.rebuild(two, { documentId })
              } else yield* reactor.rebuild(two, { how })
              yield* reactor.ended
              expect(told(yield* reactor.verify(two))).toEqual([])
            }))
          expect(yield* Board.rows("todo")).toEqual(rowsOf(boards))
          expect((yield* cursorsOf(two)).map(({ position, slices }) => [slices.first, position])).toEqual([
            [0, 6n],
            [512, 6n]
          ])
          // Nothing was repeated before it was handled once.
          expect(new Set(seenBy(on).fresh)).toEqual(new Set(operationsOf(boards)))
          const firsts = new Map(on.seen.toReversed().map(({ isReplaying, operation }) => [operation, isReplaying]))
          expect(Array.from(firsts).filter(([, isReplaying]) => isReplaying)).toEqual([])
        }))
    )
  })

  describe("a rebuild in place", () => {
    it.scopedLive("repeats of each partition what that has handled, and what comes behind it is new", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const feed = yield* Feed.make("s")
        const on = Board.switches()
        const processor = apart(on)
        const reactor = yield* react(feed.source, processor)
        yield* feed.push(...boards)
        yield* Effect.repeat(Effect.zipRight(Effect.sleep(2), reactor.outcomes), {
          until: ([one, other]) => one?.phase === "halted" && other?.position === 6n
        })
        yield* Board.meddle("todo", "UPDATE card SET title = 'gin', edits = 7")
        yield* Board.meddle("todo", `INSERT INTO entry VALUES ('${e}', 0, 'nobody wrote this')`)
        on.before = () => Effect.void
        on.seen.length = 0
        expect(yield* reactor.rebuild(processor, { how: "in place" })).toEqual({
          ...keyOf(processor),
          position: 0n,
          through: 6n,
          operations: 0,
          waiting: 0
        })
        const more = [Board.strand(e, 0, "beer"), Board.strand(b, 2, "black tea")]
        yield* feed.push(...more)
        yield* applied(reactor, processor, more)
        expect(seenBy(on)).toEqual({
          again: [`${a} 0`, `${b} 0`, `${b} 1`, `${d} 0`].toSorted(),
          fresh: [`${a} 1`, `${a} 2`, `${c} 0`, `${e} 0`, `${b} 2`].toSorted()
        })
        expect(yield* Board.rows("todo")).toEqual(rowsOf([...boards, ...more]))
        expect(told(yield* reactor.verify(processor))).toEqual([])
        expect((yield* reactor.outcomes).map(({ rebuild: how }) => how)).toEqual([undefined, undefined])
      })))

    it.scopedLive("knows of each slice what it repeats, however it is divided before it is whole", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const on = Board.switches()
        const processor = apart(on)
        const source = Source.fromIterable("s", boards)
        yield* reacting(source, processor, (reactor) =>
          Effect.gen(function*() {
            yield* reactor.ended
            yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
            on.before = () => new Board.Refused({ text: "nothing yet" })
            yield* reactor.rebuild(processor, { how: "in place" })
            yield* reactor.ended
          }))
        yield* reacting(source, inPartitions(processor, 3), (reactor) =>
          Effect.gen(function*() {
            on.before = (strand) => strand.position > 1n ? new Board.Refused({ text: "not yet" }) : Effect.void
            yield* reactor.ended
            expect(yield* Board.rows("todo")).toEqual([`card card of ${a} ${a} milk 0`, `entry ${a} 0 milk`])
            // It is emptied once more when a little of it is there again.
            yield* reactor.rebuild(processor, { how: "in place" })
            yield* reactor.ended
          }))
        on.before = () => Effect.void
        on.seen.length = 0
        // In one batch now, of which some is repeated and some is not.
        yield* reacting(source, { ...inPartitions(processor, 1), limits: {} }, ({ ended }) => ended)
        // What is there again is not handled any more.
        expect(seenBy(on)).toEqual({
          again: [`${b} 0`, `${b} 1`, `${d} 0`].toSorted(),
          fresh: [`${a} 1`, `${a} 2`, `${c} 0`].toSorted()
        })
        expect(yield* Board.rows("todo")).toEqual(rowsOf(boards))
        yield* reacting(
          source,
          inPartitions(processor, 1),
          ({ verify }) => Effect.map(verify(processor), (verdict) => expect(told(verdict)).toEqual([]))
        )
      })))

    it.scopedLive("is begun by a partition too that had been claimed and not opened yet", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const plain = Board.make("todo", undefined, { partitions: 2 })
        const source = Source.fromIterable("s", boards)
        yield* reacting(source, plain, ({ ended }) => ended)
        yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
        const isHeld = yield* Deferred.make<void>()
        let built = 0
        const processor: Todos = {
          ...plain,
          handler: Effect.zipRight(
            Effect.suspend(() =>
              ++built === 2 ? Effect.zipRight(Deferred.succeed(isHeld, undefined), Effect.never) : Effect.void
            ),
            plain.handler
          )
        }
        const reactor = yield* react(source, processor)
        yield* Deferred.await(isHeld)
        yield* Effect.repeat(Effect.zipRight(Effect.sleep(2), reactor.outcomes), {
          until: (outcomes) => outcomes.some(({ phase }) => phase === "ended")
        })
        yield* reactor.rebuild(processor, { how: "in place" })
        yield* reactor.ended
        expect(yield* Board.rows("todo")).toEqual(rowsOf(boards))
      })))
  })

  it.scopedLive.each(["replay", "append"] as const)(
    "documents whose operations are taken back, and their states, are those of a replay: %s",
    (history) =>
      Effect.flatMap(fresh, (database) =>
        Effect.gen(function*() {
          const undoing = recorded().filter((each) =>
            Lists.isWhole(each) && each.steps.every(([, left]) => left !== null) &&
            each.steps.filter(([{ skip }]) => skip > 0).length > 1
          )
          const world = Lists.worldOf(undoing.filter((_, i) => i % Math.ceil(undoing.length / 12) === 0))
          const processor = Lists.make({ history, wantsState: true, batch: { operations: 3 } })
          const on = Effect.provideService(Source.Source, Source.fromIterable("s", world.strands))
          const sql = yield* SqlClient.SqlClient
          const differences = Effect.map(on(Rebuild.verify(processor)), told)
          const rounds = [[2, 9, 3], [3, 2, 4, 1], [1, 6], [4, 3, 2, 4, 1], [2]] as const
          for (const [partitions, ...commits] of rounds) {
            yield* Follow.divided(processor, "s", world.strands, { partitions, commits })
            expect(yield* differences).toEqual([])
            yield* sql`UPDATE list_item SET number = number + 1`
            yield* sql`DELETE FROM processor_state`
            expect((yield* differences).length).toBeGreaterThan(0)
            yield* on(Rebuild.run(processor))
            expect(yield* differences).toEqual([])
          }
          const end = Lists.sorted(world.at(BigInt(world.strands.length)))
          expect(Lists.sorted(yield* Lists.lists)).toEqual(end)
          expect(Lists.sorted(yield* Lists.states)).toEqual(end)
        }).pipe(Effect.provide(Layer.merge(Store.layerOf(database, "lists"), silent))))
  )

  it.scopedLive(
    "rebuilds of all kinds while appends go on lose nothing and repeat nothing",
    () =>
      onFresh(fresh)(Effect.gen(function*() {
        const feed = yield* Feed.make("s")
        const on = Board.switches()
        const processor = Board.make("todo", on, { partitions: 4 })
        const reactor = yield* react(feed.source, processor)
        const pushed = boards.slice()
        yield* feed.push(...boards)
        yield* applied(reactor, processor, boards)
        const isOver = yield* Deferred.make<void>()
        const documents = names.slice(20, 32)
        const appender = yield* Effect.fork(Effect.gen(function*() {
          for (let index = 0; !(yield* Deferred.isDone(isOver)); index++) {
            for (const name of documents) {
              const next = Board.strand(name, index, `${name} ${index}`)
              pushed.push(next)
              yield* feed.push(next)
              yield* Effect.sleep(5)
            }
          }
        }))
        for (const how of ["shadow", "in place", "shadow", "in place", "shadow"] as const) {
          yield* Board.meddle("todo", "UPDATE card SET title = 'gin' WHERE edits < 3")
          yield* reactor.rebuild(processor, { how })
          yield* reactor.rebuild(processor, { documentId: documents[0]! })
          yield* reactor.verify(processor, { documentId: documents[1]! })
        }
        expect(told(yield* reactor.verify(processor))).toEqual([])
        yield* Deferred.succeed(isOver, undefined)
        yield* Fiber.join(appender)
        yield* applied(reactor, processor, pushed.slice(-documents.length))
        yield* applied(reactor, processor, boards)
        expect(yield* Board.rows("todo")).toEqual(rowsOf(pushed))
        expect(told(yield* reactor.verify(processor))).toEqual([])
        expect(seenBy(on).fresh.length).toBeGreaterThan(0)
        expect((yield* reactor.outcomes).map(({ failure, waiting }) => [failure, waiting])).toEqual(
          Partition.all(4).map(() => [undefined, 0])
        )
      }))
  )

  describe("owners elsewhere", () => {
    it.scopedLive("are told at their next commit, open again and go on, all partitions of them", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const feed = yield* Feed.make("s")
        const processor = Board.make("todo", undefined, { partitions: 2 })
        const reactor = yield* react(feed.source, processor)
        yield* feed.push(...boards)
        yield* applied(reactor, processor, boards)
        yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
        const alone = Effect.provideService(Source.Source, feed.source)
        expect(told(yield* alone(Rebuild.verify(processor)))).toHaveLength(4)
        yield* alone(Rebuild.run(processor))
        const more = [Board.strand(a, 3, "rice milk"), Board.strand(b, 2, "black tea")]
        yield* feed.push(...more)
        yield* applied(reactor, processor, more)
        expect((yield* cursorsOf(processor)).map(({ epoch }) => epoch)).toEqual([2n, 2n])
        expect(yield* Board.rows("todo")).toEqual(rowsOf([...boards, ...more]))
        expect(told(yield* reactor.verify(processor))).toEqual([])
      })))

    it.scopedLive("whose tables were emptied fill them, each partition from the start on, and repeat what they had done", () =>
      onFresh(fresh)(Effect.gen(function*() {
        const feed = yield* Feed.make("s")
        const on = Board.switches()
        const processor = Board.make("todo", on, { partitions: 2 })
        const reactor = yield* react(feed.source, processor)
        yield* feed.push(...boards)
        yield* applied(reactor, processor, boards)
        yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
        on.seen.length = 0
        yield* Effect.provideService(Rebuild.run(processor, { how: "in place" }), Source.Source, feed.source)
        expect(yield* Board.rows("todo")).toEqual([])
        const more = [Board.strand(a, 3, "rice milk"), Board.strand(b, 2, "black tea")]
        yield* feed.push(...more)
        yield* applied(reactor, processor, more)
        yield* applied(reactor, processor, boards)
        expect(yield* Board.rows("todo")).toEqual(rowsOf([...boards, ...more]))
        expect(seenBy(on).again).toEqual(operationsOf(boards))
        expect(new Set(seenBy(on).fresh)).toEqual(new Set(operationsOf(more)))
      })))

    it.scopedLive(
      "who commit in any partition meanwhile are caught up with, and none of it is lost",
      () =>
        onFresh(fresh)(Effect.gen(function*() {
          const feed = yield* Feed.make("s")
          const reactor = yield* react(feed.source, Board.make("todo", undefined, { partitions: 2 }))
          const replaying = Board.switches()
          const processor = Board.make("todo", replaying, { partitions: 2 })
          yield* feed.push(...boards)
          yield* applied(reactor, processor, boards)
          yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
          // Each time that the replay comes to the last there is, another comes, in one half and then in the other.
          const more = [a, b, a, b].map((name, i) => Board.strand(name, (name === a ? 3 : 2) + (i >> 1), `more ${i}`))
          let pushes = 0
          replaying.before = (strand) =>
            Number(strand.position) !== 6 + pushes || pushes === more.length ? Effect.void : Effect.gen(function*() {
              const next = more[pushes++]!
              yield* feed.push(next)
              yield* applied(reactor, processor, [next])
            }).pipe(Effect.orDie)
          const rebuilt = yield* Effect.provideService(Rebuild.run(processor), Source.Source, feed.source)
          expect(rebuilt).toMatchObject({ operations: 11 })
          expect(pushes).toBe(4)
          expect(yield* Board.rows("todo")).toEqual(rowsOf([...boards, ...more]))
          const last = [Board.strand(a, 5, "last"), Board.strand(b, 4, "last")]
          yield* feed.push(...last)
          yield* applied(reactor, processor, last)
          expect(told(yield* reactor.verify(processor))).toEqual([])
        }))
    )

    it.scopedLive(
      "who take all of it meanwhile, divided otherwise, keep it, with the rows of a replay",
      () =>
        onFresh(fresh)(Effect.gen(function*() {
          const feed = yield* Feed.make("s")
          const on = Board.switches()
          const processor = Board.make("todo", on, { partitions: 2 })
          const reactor = yield* react(feed.source, processor)
          yield* feed.push(...boards)
          yield* applied(reactor, processor, boards)
          yield* Board.meddle("todo", "UPDATE card SET title = 'gin'")
          const gate = yield* Board.gate(on, (strand) => strand.position === 6n)
          const rebuild = yield* Effect.fork(reactor.rebuild(processor))
          yield* gate.held
          const other = Board.make("todo", undefined, { partitions: 3 })
          const second = yield* react(feed.source, other)
          yield* Effect.repeat(Effect.zipRight(Effect.sleep(2), cursorsOf(other)), {
            until: ({ length }) => length === 3
          })
          yield* gate.open
          yield* Fiber.join(rebuild)
          yield* reactor.ended
          expect((yield* reactor.outcomes).map(({ failure, phase }) => [phase, (failure as { _tag: string })._tag]))
            .toEqual([["halted", "Fenced"], ["halted", "Fenced"]])
          const more = names.slice(10, 30).map((name) => Board.strand(name, 0, "x"))
          yield* feed.push(...more)
          yield* applied(second, other, more)
          expect(yield* Board.rows("todo")).toEqual(rowsOf([...boards, ...more]))
          expect((yield* cursorsOf(other)).length).toBe(3)
          expect(told(yield* second.verify(other))).toEqual([])
        }))
    )
  })
})
