/**
 * Partitions of a reactor: they work side by side, each by itself, and all of them for one owner.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Stream from "effect/Stream"
import * as Test from "../layers/Test.js"
import {
  Cursors,
  Health,
  Metrics,
  Namespace,
  Partition,
  Policy,
  Position,
  Processor,
  Reactor,
  Slice,
  Source
} from "../src/index.js"
import type { Pulse } from "../src/index.js"
import * as Database from "./support/Database.js"
import * as Feed from "./support/Feed.js"
import * as Ledger from "./support/Ledger.js"
import * as Store from "./support/Store.js"

/** A document in this partition. */
const documentIn = (number: number, of: number, other = 0) =>
  Array.from({ length: 1_000 }, (_, i) => `doc-${i}`).filter((documentId) =>
    Slice.isIn(Partition.slices({ number, of }), Slice.of(documentId))
  )[other]!

const divided = <R>(processor: Processor.Processor<never, R>, partitions: number): Processor.Processor<never, R> => ({
  ...processor,
  partitions
})

const keyOf = (name: string, source = "feed"): Cursors.Key => ({
  processor: Ledger.make(name).name,
  source: Source.name(source)
})

const upTo = (value: number) => Position.make(BigInt(value))

/** Until the processor has come to a position, in all its partitions. */
const at = (name: string, value: number) =>
  Effect.flatMap(Reactor.Reactor, (reactor) => reactor.waitFor(Ledger.make(name), { position: upTo(value) }))

/** Until a partition is in this phase, however long that takes. */
const partitionIs = (number: number, phase: Pulse.Phase) =>
  Effect.flatMap(Reactor.Reactor, (reactor) =>
    Effect.repeat(Effect.zipRight(Effect.sleep(2), reactor.outcomes), {
      until: (outcomes) => outcomes.some((outcome) => outcome.partition.number === number && outcome.phase === phase)
    }))

const silent = Logger.remove(Logger.defaultLogger)

class Broken extends Error {
  readonly _tag = "Broken"
}

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  /** Runs `body` beside a reactor of this processor over a feed. */
  const running = <A, E, R>(
    processor: Processor.Processor<never, SqlClient.SqlClient>,
    body: (feed: Feed.Feed, database: Database.Database) => Effect.Effect<A, E, R | Reactor.Reactor>
  ) =>
    Effect.gen(function*() {
      const database = yield* fresh
      const feed = yield* Feed.make("feed")
      return yield* Effect.provide(body(feed, database), reactorOf(processor, feed, database))
    })

  const reactorOf = (
    processor: Processor.Processor<never, SqlClient.SqlClient>,
    feed: Feed.Feed,
    database: Database.Database
  ) =>
    Reactor.layer(processor).pipe(
      Layer.provide(Layer.succeed(Source.Source, feed.source)),
      Layer.orDie,
      Layer.provideMerge(Layer.merge(Layer.fresh(Store.layerMany(database)), silent))
    )

  it.scopedLive("have an outcome each, and each document's operations are applied once, in order, by one of them", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const documents = Array.from({ length: 30 }, (_, i) => `doc-${i}`)
      const source = Source.layerIterable(
        "feed",
        [0, 1].flatMap((from) =>
          documents.map((documentId) =>
            Test.strand({
              documentId,
              documentType: Ledger.Model.type,
              from,
              operations: [{ type: "PUT", input: { text: `${documentId}/${from}` } }]
            })
          )
        )
      )
      yield* Effect.gen(function*() {
        const outcomes = yield* Reactor.run(divided(Ledger.make("p"), 4))
        const own = outcomes.map(({ partition }) =>
          documents.filter((documentId) => Slice.isIn(Partition.slices(partition), Slice.of(documentId)))
        )
        expect(outcomes.map(({ partition }) => partition)).toEqual(Partition.all(4))
        expect(outcomes.map(({ phase, position, totals }) => [phase, position, totals.operations])).toEqual(
          own.map(({ length }) => ["ended", 60n, 2 * length])
        )
        const texts = yield* Ledger.applied("p")
        for (const documentId of documents) {
          expect(texts.filter((text) => text.startsWith(`${documentId}/`))).toEqual(
            [0, 1].map((i) => `${documentId}/${i}`)
          )
        }
      }).pipe(Effect.provide(Layer.merge(source, Store.layerMany(database))))
    }))

  it.scopedLive.skipIf(dialect === "sqlite")("commit at the same time", () =>
    Effect.gen(function*() {
      const met = yield* Effect.forEach([1, 2], () => Deferred.make<void>())
      // Each waits in its transaction until the other is in its own.
      const meeting = Ledger.make("p", (text) =>
        Effect.zipRight(
          Deferred.succeed(met[Number(text) - 1]!, undefined),
          Deferred.await(met[2 - Number(text)]!)
        ))
      yield* running(divided(meeting, 2), (feed) =>
        Effect.gen(function*() {
          yield* feed.push(Ledger.strand(documentIn(1, 2), "1"), Ledger.strand(documentIn(2, 2), "2"))
          yield* at("p", 2)
          expect((yield* Ledger.applied("p")).toSorted()).toEqual(["1", "2"])
        }))
    }))

  it.scopedLive("commit one at a time where the pace says so", () =>
    Effect.gen(function*() {
      let inside = 0
      let most = 0
      const alone = Ledger.make("p", () =>
        Effect.acquireUseRelease(
          Effect.sync(() => {
            most = Math.max(most, ++inside)
          }),
          () => Effect.sleep(2),
          () => Effect.sync(() => inside--)
        ))
      yield* running({ ...divided(alone, 4), pace: { concurrency: 1 } }, (feed) =>
        Effect.gen(function*() {
          yield* feed.push(...Array.from({ length: 40 }, (_, i) => Ledger.strand(`doc-${i}`, String(i))))
          yield* at("p", 40)
          expect(most).toBe(1)
        }))
    }))

  it.scopedLive("one that halts keeps its cursor and its documents, and the others go on", () =>
    Effect.gen(function*() {
      const halting = Ledger.undecided("p", (text) => text === "bad" ? Effect.fail(new Broken("no")) : Effect.void)
        .pipe(Processor.withPolicy({ ...Policy.standard, Broken: Policy.halt }))
      yield* running(divided(halting, 2), (feed) =>
        Effect.gen(function*() {
          yield* feed.push(Ledger.strand(documentIn(1, 2), "bad"), Ledger.strand(documentIn(2, 2), "good"))
          yield* partitionIs(1, "halted")
          const { waitFor } = yield* Reactor.Reactor
          expect(yield* waitFor(halting, { ...global, documentId: documentIn(2, 2), index: 0 })).toBe(2n)
          const late = yield* Effect.flip(waitFor(halting, { position: upTo(2) }, { timeout: 50 }))
          expect(late).toMatchObject({ _tag: "WaitTimedOut", position: 0n, phase: "halted" })
          expect(yield* Namespace.query("p", Cursors.all(keyOf("p")))).toMatchObject([{ position: 0n }, {
            position: 2n
          }])
        }))
    }))

  it.scopedLive("of a processor that another reactor divides differently are all Fenced, and that one has all of it", () =>
    running(divided(Ledger.make("p"), 4), (feed, database) =>
      Effect.gen(function*() {
        const old = yield* Reactor.Reactor
        const documents = Partition.all(4).map(({ number, of }) => documentIn(number, of))
        yield* feed.push(...documents.map((documentId) => Ledger.strand(documentId, "first")))
        yield* at("p", 4)
        yield* Effect.gen(function*() {
          yield* Effect.repeat(Effect.zipRight(Effect.sleep(2), Namespace.query("p", Cursors.all(keyOf("p")))), {
            until: ({ length }) => length === 3
          })
          yield* feed.push(...documents.map((documentId) =>
            Test.strand({
              documentId,
              documentType: Ledger.Model.type,
              from: 1,
              operations: [{ type: "PUT", input: { text: "second" } }]
            })
          ))
          yield* at("p", 8)
          yield* old.ended
          expect((yield* old.outcomes).map(({ failure, phase }) => [phase, (failure as { _tag: string })._tag]))
            .toEqual(
              documents.map(() => ["halted", "Fenced"])
            )
          const outcomes = yield* Effect.flatMap(Reactor.Reactor, (reactor) => reactor.outcomes)
          expect(outcomes.map(({ phase }) => phase)).not.toContain("halted")
          expect((yield* Ledger.applied("p")).length).toBe(8)
        }).pipe(Effect.provide(Layer.fresh(reactorOf(divided(Ledger.make("p"), 3), feed, database))))
      })))

  it.scopedLive("one that opens again claims its own cursor alone", () =>
    running(divided(Ledger.make("p"), 2), (feed) =>
      Effect.gen(function*() {
        yield* feed.push(Ledger.strand(documentIn(1, 2), "a"), Ledger.strand(documentIn(2, 2), "b"))
        yield* at("p", 2)
        // Its row is put back, which it notices at its next commit.
        yield* Namespace.within(
          "p",
          Effect.flatMap(
            SqlClient.SqlClient,
            (sql) => sql`UPDATE processor_cursor SET position = 1 WHERE first_slice > 0`
          )
        )
        yield* feed.push(Ledger.strand(documentIn(1, 2, 1), "c"), Ledger.strand(documentIn(2, 2, 1), "d"))
        yield* at("p", 4)
        expect((yield* Namespace.query("p", Cursors.all(keyOf("p")))).map(({ epoch }) => epoch)).toEqual([1n, 2n])
        const { incidents } = yield* Reactor.Reactor
        const [only] = Chunk.toReadonlyArray(yield* Stream.runCollect(Stream.take(incidents, 1)))
        expect(only).toMatchObject({ _tag: "Reopening", processor: "p", partition: { number: 2, of: 2 } })
        expect((yield* Ledger.applied("p")).toSorted()).toEqual(["a", "b", "c", "d"])
      })))

  it.scopedLive("are waited for across processes, also while another divides them anew", () =>
    running(divided(Ledger.make("p"), 2), (feed, database) =>
      Effect.gen(function*() {
        const documents = Array.from({ length: 20 }, (_, i) => `doc-${i}`)
        const { waitFor } = yield* Reactor.Reactor
        const waits = yield* Effect.fork(Effect.forEach(
          [...documents.map((documentId) => ({ ...global, documentId, index: 0 })), { position: upTo(20) }],
          (place) => waitFor(Ledger.make("p"), place),
          { concurrency: "unbounded" }
        ))
        yield* feed.push(...documents.slice(0, 10).map((documentId) => Ledger.strand(documentId, documentId)))
        yield* at("p", 10)
        yield* Effect.gen(function*() {
          yield* feed.push(...documents.slice(10).map((documentId) => Ledger.strand(documentId, documentId)))
          const positions = yield* waits
          expect(positions.at(-1)).toBe(20n)
        }).pipe(Effect.provide(Layer.fresh(reactorOf(divided(Ledger.make("p"), 5), feed, database))))
        expect((yield* Ledger.applied("p")).toSorted()).toEqual(documents.toSorted())
      })))
})

const global = { scope: "global", branch: "main" }

it.scoped("of one processor are told apart in health and metrics", () =>
  Effect.gen(function*() {
    const halting = Ledger.undecided("parted", (text) => text === "bad" ? Effect.fail(new Broken("no")) : Effect.void)
      .pipe(Processor.withPolicy({ ...Policy.standard, Broken: Policy.halt }))
    const source = Source.layerIterable("test", [
      Ledger.strand(documentIn(1, 2), "bad"),
      Ledger.strand(documentIn(2, 2), "a", "b")
    ])
    const context = yield* Layer.build(
      Health.layer().pipe(
        Layer.provideMerge(Reactor.layer(divided(halting, 2))),
        Layer.provide(Layer.merge(source, silent))
      )
    )
    yield* Context.get(context, Reactor.Reactor).ended
    const report = yield* Context.get(context, Health.Health).check
    expect(report.subscriptions.map(({ partition, phase }) => [partition.number, phase])).toEqual([
      [1, "halted"],
      [2, "ended"]
    ])
    expect(report.complaints).toEqual([
      expect.stringMatching(/^parted \(partition 1 of 2\) on test has halted: .* no$/)
    ])
    const counted = (partition: string) =>
      Metric.value(Metrics.operations.pipe(Metric.tagged("processor", "parted"), Metric.tagged("partition", partition)))
    expect([(yield* counted("1")).count, (yield* counted("2")).count]).toEqual([0, 2])
  }).pipe(Effect.provide(Test.layer([]))))

it("are a whole number from 1 to 64", () => {
  for (const partitions of [0, 65, 1.5, Number.NaN]) {
    expect(() => Processor.make("p", { namespace: "p", partitions, handler: Processor.onBatch(() => Effect.void) }))
      .toThrow(`partitions is a whole number from 1 to 64; got ${partitions}`)
  }
})
