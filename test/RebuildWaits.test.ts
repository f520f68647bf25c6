/**
 * A rebuild of which the source or the database is away waits for it, says so meanwhile, and goes on when it is back.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as Postgres from "../layers/Postgres.js"
import { Health, Incident, Reactor, Rebuild, Source } from "../src/index.js"
import * as Board from "./support/Board.js"
import * as Database from "./support/Database.js"
import * as Proxy from "./support/Proxy.js"
import * as Store from "./support/Store.js"

const silent = Logger.remove(Logger.defaultLogger)
const away = new Source.SourceUnavailable({ source: "s", reason: "the file was moved" })
const boards = [Board.strand("a", 0, "milk", "bread"), Board.strand("b", 0, "tea"), Board.strand("a", 2, "jam")]

/** A source that can be taken away: at once, or behind its second strand. */
const fickle = () => {
  const whole = Source.fromIterable("s", boards)
  let from: number | undefined
  const source: Context.Tag.Service<typeof Source.Source> = {
    ...whole,
    strands: (after) =>
      Stream.suspend(() =>
        from === undefined
          ? whole.strands(after)
          : Stream.concat(Stream.take(whole.strands(after), Math.max(0, from - Number(after))), Stream.fail(away))
      )
  }
  return { source, take: (strands: number) => void (from = strands), giveBack: () => void (from = undefined) }
}

const isWaiting = (incident: Incident.Incident) => Incident.is("Waiting")(incident) && incident.isReplay

/** The first incidents of a replay that waits. */
const waitings = (reactor: Context.Tag.Service<typeof Reactor.Reactor>, count: number) =>
  reactor.incidents.pipe(Stream.filter(isWaiting), Stream.take(count), Stream.runCollect, Effect.map(Chunk.toArray))

const open = (source: Context.Tag.Service<typeof Source.Source>, processor: ReturnType<typeof Board.make>) =>
  Effect.map(
    Layer.build(
      Health.layer().pipe(
        Layer.provideMerge(Reactor.layer(processor)),
        Layer.provide(Layer.succeed(Source.Source, source))
      )
    ),
    (context) => ({
      reactor: Context.get(context, Reactor.Reactor),
      complaints: Effect.map(Context.get(context, Health.Health).check, (report) => report.complaints)
    })
  )

const complaint = "todo on s has a rebuild or comparison that waits: source s is not available: the file was moved"

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  const onFresh = <A, E, R>(test: Effect.Effect<A, E, R>) =>
    Effect.flatMap(fresh, (database) => Effect.provide(test, Layer.merge(Store.layerMany(database), silent)))

  it.scopedLive.each(
    [
      ["rebuild", "before it begins", 0],
      ["rebuild", "half way", 2],
      ["rebuild in place", "before it begins", 0],
      ["verify", "half way", 2]
    ] as const
  )("%s, the source away %s", ([how, , strands]) =>
    onFresh(Effect.gen(function*() {
      const { giveBack, source, take } = fickle()
      const processor = Board.make("todo", undefined, { batch: { operations: 1 } })
      const { complaints, reactor } = yield* open(source, processor)
      yield* reactor.ended
      const before = yield* Board.rows("todo")
      expect(yield* complaints).toEqual([])
      take(strands)
      const work = yield* Effect.fork(
        how === "verify"
          ? Effect.asVoid(reactor.verify(processor))
          : Effect.asVoid(reactor.rebuild(processor, how === "rebuild" ? {} : { how: "in place" }))
      )
      const told = yield* waitings(reactor, 2)
      expect(told).toMatchObject([
        { processor: "todo", source: "s", failure: away, fault: "infrastructure", attempt: 1 },
        { processor: "todo", source: "s", failure: away, fault: "infrastructure", attempt: 2 }
      ])
      expect(yield* complaints).toEqual([complaint])
      giveBack()
      yield* Fiber.join(work)
      yield* reactor.ended
      expect(yield* complaints).toEqual([])
      expect(yield* Board.rows("todo")).toEqual(before)
    })))

  it.scopedLive("one that is given up while it waits is not complained of any more", () =>
    onFresh(Effect.gen(function*() {
      const { source, take } = fickle()
      const processor = Board.make("todo")
      const { complaints, reactor } = yield* open(source, processor)
      yield* reactor.ended
      take(0)
      const work = yield* Effect.fork(reactor.rebuild(processor))
      yield* waitings(reactor, 1)
      yield* Fiber.interrupt(work)
      expect(yield* complaints).toEqual([])
    })))

  it.scopedLive("one that runs by itself says so in the log", () =>
    Effect.gen(function*() {
      const { giveBack, source, take } = fickle()
      const processor = Board.make("todo")
      const wanted = "WARN a rebuild waits (2): source s is not available: the file was moved"
      const isLogged = yield* Deferred.make<void>()
      const logger = Logger.make(({ logLevel, message }) => {
        if (`${logLevel.label} ${String(message)}` === wanted) Deferred.unsafeDone(isLogged, Exit.void)
      })
      const database = yield* fresh
      yield* Effect.gen(function*() {
        yield* Effect.provideService(Reactor.run(processor), Source.Source, source)
        take(0)
        const work = yield* Effect.fork(Effect.provideService(Rebuild.run(processor), Source.Source, source))
        yield* Deferred.await(isLogged)
        giveBack()
        yield* Fiber.join(work)
      }).pipe(Effect.provide(Layer.merge(Store.layerMany(database), Logger.replace(Logger.defaultLogger, logger))))
    }))
})

describe("on a PostgreSQL that goes away", () => {
  it.scopedLive("in the middle of the replay, that is told", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      const proxy = yield* Proxy.make(url)
      yield* Effect.gen(function*() {
        const on = Board.switches()
        const processor = Board.make("todo", on, { batch: { operations: 1 } })
        const { complaints, reactor } = yield* open(Source.fromIterable("s", boards), processor)
        yield* reactor.ended
        let isCut = false
        on.before = (strand) =>
          strand.position === 2n && !isCut
            ? Effect.zipRight(Effect.sync(() => isCut = true), proxy.cutAll)
            : Effect.void
        yield* reactor.rebuild(processor)
        expect(yield* waitings(reactor, 1)).toMatchObject([{ processor: "todo", fault: "infrastructure", attempt: 1 }])
        expect(yield* complaints).toEqual([])
      }).pipe(Effect.provide(
        Layer.merge(Layer.orDie(Postgres.layer({ url: Redacted.make(proxy.url), connectTimeout: "2 seconds" })), silent)
      ))
    }))
})
