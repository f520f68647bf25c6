/**
 * A courier: what is in the outbox is delivered, in order, through outages, refusals and restarts, by one courier at a time.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { Courier, Dispatcher, Health, Incident, Metrics, Namespace, Outbox, Reactor, Source } from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Feed from "../support/Feed.js"
import * as Receiver from "../support/Receiver.js"
import * as Senders from "../support/Senders.js"
import * as Store from "../support/Store.js"
import * as WallClock from "../support/WallClock.js"

const silent = Logger.remove(Logger.defaultLogger)

const unavailable = new Dispatcher.ReceiverUnavailable({ reason: "the line is cut" })
const refused = new Dispatcher.MessageRefused({ reason: "no such document" })

/** Which document and which number a message is about. */
const told = ({ cause, documentId }: Dispatcher.Message) => `${documentId} ${cause.documentId} ${cause.index}`

/** What was taken for a document, in order. */
const takenBy = ({ taken }: Receiver.Receiver, documentId: string) =>
  taken.filter((message) => message.documentId === documentId).map(({ cause }) => cause.index)

const upTo = (count: number) => Array.from({ length: count }, (_, i) => i)

/** Repeats a question until the answer is yes. */
const until = <E, R>(question: Effect.Effect<boolean, E, R>) =>
  Effect.filterOrFail(question, (answer) => answer, () => "not yet").pipe(
    Effect.retry({ schedule: Schedule.spaced("10 millis"), while: (failure) => failure === "not yet" }),
    Effect.timeout("5 minutes")
  )

const summary = Namespace.query(Senders.namespace, Outbox.summary)
const within = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient>) => Namespace.within(Senders.namespace, effect)

const holder = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    Effect.map(sql<{ readonly holder: string }>`SELECT holder FROM processor_courier`, ([row]) => row?.holder ?? "")
)

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  const settings = (values: Partial<Courier.Settings.Values> = {}) =>
    Layer.succeed(Courier.Settings, { ...Receiver.impatient, ...values })

  const storeOf = (database: Database.Database) => Layer.merge(Store.layerMany(database), silent)

  /** Follows orders to their end with a receiver, on a database. */
  const run = (receiver: Receiver.Receiver, ...strands: ReadonlyArray<Source.Unplaced>) =>
    Effect.provide(
      Reactor.run(Senders.make({ batch: 10 })),
      Layer.mergeAll(receiver.layer, settings(), Source.layerIterable("shop", strands))
    )

  const kept = <A, E>(effect: Effect.Effect<A, E, Namespace.Namespaces>) =>
    Effect.flatMap(fresh, (database) => Effect.provide(effect, storeOf(database)))

  /** A reactor that follows a feed while the effect runs. */
  const live = (feed: Feed.Feed, receiver: Receiver.Receiver, values?: Partial<Courier.Settings.Values>) =>
    Reactor.layer(Senders.make({ batch: 10 })).pipe(
      Layer.provideMerge(Layer.mergeAll(Layer.succeed(Source.Source, feed.source), receiver.layer, settings(values)))
    )

  it.scopedLive("delivers each message once, those for one document in order, and remembers them without their actions", () =>
    kept(Effect.gen(function*() {
      const receiver = Receiver.make()
      const documents = ["a", "b", "c"]
      const strands = upTo(20).map((i) => Senders.orders("o", 3 * i, ...documents))
      yield* run(receiver, ...strands)
      expect(receiver.taken).toHaveLength(60)
      for (const [d, documentId] of documents.entries()) {
        expect(takenBy(receiver, documentId)).toEqual(upTo(20).map((i) => 3 * i + d))
      }
      const entries = yield* Namespace.query(Senders.namespace, Outbox.list())
      expect(new Set(entries.map(({ state }) => state))).toEqual(new Set(["delivered"]))
      expect(entries.flatMap(({ actions }) => actions)).toEqual([])
      expect(yield* summary).toEqual({ undelivered: 0, refused: 0, oldestSentAtMillis: undefined })
    })))

  it.scopedLive(
    "delivers a lane that is longer than a turn to its end, beside others",
    () =>
      kept(Effect.gen(function*() {
        const receiver = Receiver.make()
        const many = 1_130
        const strands = [
          Senders.orders("o", 0, ...Array<string>(many).fill("long")),
          Senders.orders("p", 0, "other")
        ]
        yield* Effect.provide(
          Reactor.run(Senders.make({ batch: 2_000 })),
          Layer.mergeAll(receiver.layer, settings({ leaseMillis: 20_000 }), Source.layerIterable("shop", strands))
        )
        expect(takenBy(receiver, "long")).toEqual(upTo(many))
        const others = receiver.taken.findIndex(({ documentId }) => documentId === "other")
        expect(others).toBeLessThan(1_000)
      }))
  )

  it.scopedLive("delivers what a commit has sent at once, without waiting for its next look", () =>
    kept(Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const receiver = Receiver.make()
      yield* Effect.gen(function*() {
        yield* feed.push(Senders.orders("o", 0, "a"))
        yield* receiver.takes(1)
        yield* feed.push(Senders.orders("o", 1, "a"))
        yield* receiver.takes(2)
      }).pipe(Effect.provide(live(feed, receiver, { lookMaxMillis: 3_600_000, pauseMinMillis: 3_600_000 })))
    })))

  it.scopedLive("goes on by itself when a receiver that was away is back, with nothing lost, set aside or out of order", () =>
    kept(Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const receiver = Receiver.make()
      receiver.answer(() => unavailable)
      yield* feed.push(Senders.orders("o", 0, ...upTo(40).map((i) => `d${i % 20}`)))
      yield* Effect.gen(function*() {
        yield* until(Effect.sync(() => receiver.asked() > 60))
        const { refused: aside, undelivered } = yield* summary
        expect({ aside, undelivered }).toEqual({ aside: 0, undelivered: 40 })
        const [head] = yield* Namespace.query(Senders.namespace, Outbox.list({ documentId: "d0" }))
        expect(head).toMatchObject({ reason: "the line is cut", state: "waiting" })
        expect(head?.attempts).toBeGreaterThan(0)
        receiver.answer(() => Effect.void)
        yield* receiver.takes(40)
      }).pipe(Effect.provide(live(feed, receiver)))
      expect(receiver.taken).toHaveLength(40)
      for (const d of upTo(20)) expect(takenBy(receiver, `d${d}`)).toEqual([d, d + 20])
    })))

  it.scopedLive("asks no more than 16 times a look where nobody answers", () =>
    kept(Effect.gen(function*() {
      const receiver = Receiver.make()
      receiver.answer(() => unavailable)
      yield* Effect.provide(
        Reactor.run(Senders.make({ batch: 1_000 })),
        Layer.mergeAll(
          receiver.layer,
          settings({ pauseMinMillis: 3_600_000, pauseMaxMillis: 3_600_000, concurrency: 4 }),
          Source.layerIterable("shop", [Senders.orders("o", 0, ...upTo(300).map((i) => `d${i}`))])
        )
      )
      // Two looks: the commit's, and one more before the reactor ends. Who was asked beside the 16th is not called back.
      expect(receiver.asked()).toBeGreaterThanOrEqual(32)
      expect(receiver.asked()).toBeLessThan(2 * (16 + 4))
    })))

  it.scopedLive("one document that cannot be reached holds up no other", () =>
    kept(Effect.gen(function*() {
      const receiver = Receiver.make()
      receiver.answer(({ documentId }) => documentId === "a" ? unavailable : Effect.void)
      yield* run(receiver, Senders.orders("o", 0, "a", "b", "a", "b", "c"))
      expect(receiver.taken.map(told)).toHaveLength(3)
      expect(takenBy(receiver, "b")).toEqual([1, 3])
      expect(takenBy(receiver, "c")).toEqual([4])
      receiver.answer(() => Effect.void)
      yield* Effect.sleep(50)
      yield* run(receiver, Senders.orders("o", 0, "a", "b", "a", "b", "c"))
      expect(takenBy(receiver, "a")).toEqual([0, 2])
      expect(receiver.taken).toHaveLength(5)
    })))

  it.scopedLive("a receiver that does not answer in time, and one that dies, count as away", () =>
    kept(Effect.gen(function*() {
      const receiver = Receiver.make()
      receiver.answer(({ documentId }) => documentId === "slow" ? Effect.never : Effect.dieMessage("a bug"))
      yield* Effect.provide(
        Reactor.run(Senders.make()),
        Layer.mergeAll(
          receiver.layer,
          settings({ answerWithin: "30 millis", pauseMinMillis: 3_600_000, pauseMaxMillis: 3_600_000 }),
          Source.layerIterable("shop", [Senders.orders("o", 0, "slow", "bug")])
        )
      )
      const entries = yield* Namespace.query(Senders.namespace, Outbox.list({ state: "waiting" }))
      expect(entries.map(({ attempts, reason }) => [attempts, reason])).toEqual([
        [1, "no answer within 30ms"],
        [1, "the dispatcher died: a bug"]
      ])
    })))

  it.scopedLive("a refused message is set aside with its cause; its document waits behind it in order, others flow on; it can be tried again", () =>
    kept(Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const receiver = Receiver.make()
      receiver.answer(({ cause, documentId }) => documentId === "a" && cause.index === 2 ? refused : Effect.void)
      yield* Effect.gen(function*() {
        const { incidents, settled } = yield* Reactor.Reactor
        const heard = yield* Effect.fork(Stream.runHead(Stream.filter(incidents, Incident.is("Undeliverable"))))
        yield* feed.push(Senders.orders("o", 0, "a", "b", "a", "b", "a", "b"))
        yield* receiver.takes(4)
        yield* settled
        expect(takenBy(receiver, "a")).toEqual([0])
        expect(takenBy(receiver, "b")).toEqual([1, 3, 5])
        const incident = yield* Effect.flatten(Fiber.join(heard))
        const aside = yield* Namespace.query(Senders.namespace, Outbox.list({ state: "refused" }))
        expect(aside).toMatchObject([{ documentId: "a", cause: { index: 2 }, attempts: 1, reason: refused.reason }])
        expect(incident).toMatchObject({ processor: "orders", documentId: "a", id: aside[0]?.id, failure: refused })
        expect(yield* summary).toEqual({ undelivered: 2, refused: 1, oldestSentAtMillis: undefined })

        // Refused again, it stays; what comes for its document meanwhile queues up.
        yield* within(Outbox.retry(aside[0]!.id))
        yield* feed.push(Senders.orders("o", 6, "a"))
        yield* until(
          Effect.map(
            Namespace.query(Senders.namespace, Outbox.list({ state: "refused" })),
            (again) => again[0]?.attempts === 2
          )
        )
        expect(takenBy(receiver, "a")).toEqual([0])

        receiver.answer(() => Effect.void)
        yield* within(Outbox.retry(aside[0]!.id))
        yield* receiver.takes(7)
        expect(takenBy(receiver, "a")).toEqual([0, 2, 4, 6])
      }).pipe(Effect.provide(live(feed, receiver)))
    })))

  it.scopedLive("a message that is dropped is never delivered, and what waited behind it is", () =>
    kept(Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const receiver = Receiver.make()
      receiver.answer(({ cause }) => cause.index === 0 ? refused : Effect.void)
      yield* feed.push(Senders.orders("o", 0, "a", "a"))
      yield* Effect.gen(function*() {
        yield* until(Effect.map(summary, (found) => found.refused === 1))
        const [aside] = yield* Namespace.query(Senders.namespace, Outbox.list({ state: "refused" }))
        yield* within(Outbox.drop(aside!.id))
        yield* receiver.takes(1)
        expect(takenBy(receiver, "a")).toEqual([1])
        expect(yield* Effect.flip(within(Outbox.drop(aside!.id)))).toBeInstanceOf(Outbox.NoSuchMessage)
        expect(yield* Effect.flip(within(Outbox.retry(aside!.id)))).toBeInstanceOf(Outbox.NoSuchMessage)
      }).pipe(Effect.provide(live(feed, receiver)))
      expect(yield* Senders.sent()).toEqual(["dropped a 0.0", "delivered a 1.0"])
    })))

  it.scopedLive("what one reactor did not come to deliver the next one does, though its processor has nothing to do", () =>
    kept(Effect.gen(function*() {
      const strand = Senders.orders("o", 0, "a", "b")
      const gone = Receiver.make()
      gone.answer(() => unavailable)
      yield* run(gone, strand)
      const receiver = Receiver.make()
      yield* Effect.sleep(50)
      yield* run(receiver, strand)
      expect(receiver.taken.map(told).sort()).toEqual(["a o 0", "b o 1"])
    })))

  it.scopedLive("a reactor that is closed in the middle of a delivery leaves it to the next, and the outbox free", () =>
    kept(Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* feed.push(Senders.orders("o", 0, "a"))
      const receiver = Receiver.make()
      const asked = yield* Deferred.make<void>()
      receiver.answer(() => Effect.zipRight(Deferred.succeed(asked, undefined), Effect.never))
      yield* Effect.provide(Deferred.await(asked), live(feed, receiver, { leaseMillis: 3_600_000 }))
      receiver.answer(() => Effect.void)
      yield* Effect.provide(receiver.takes(1), live(feed, receiver, { leaseMillis: 3_600_000 }))
      expect(receiver.taken.map(told)).toEqual(["a o 0"])
    })))

  it.scopedLive(
    "of two couriers of one outbox one delivers at a time, and none is sent twice",
    () =>
      Effect.flatMap(fresh, (database) =>
        Effect.gen(function*() {
          const receiver = Receiver.make()
          const active = new Map<number, number>()
          let together = 0
          const watched = (courier: number) =>
            Layer.effect(
              Dispatcher.Dispatcher,
              Effect.map(Dispatcher.Dispatcher, ({ deliver }) => ({
                deliver: (message) =>
                  Effect.acquireUseRelease(
                    Effect.sync(() => {
                      active.set(courier, (active.get(courier) ?? 0) + 1)
                      if ([...active.values()].filter((count) => count > 0).length > 1) together++
                    }),
                    () => Effect.zipRight(Effect.sleep(1), deliver(message)),
                    () => Effect.sync(() => active.set(courier, active.get(courier)! - 1))
                  )
              }))
            ).pipe(Layer.provide(receiver.layer))
          const feeds = yield* Effect.all([Feed.make("one"), Feed.make("two")])
          const reactors = feeds.map((feed, courier) =>
            Effect.gen(function*() {
              for (const i of upTo(30)) {
                yield* feed.push(Senders.orders(feed.source.name, 4 * i, "a", "b", "c", "d"))
                // At first there is always something to do, later now and then.
                yield* Effect.sleep(i < 15 ? i % 3 : 10 + 7 * (i % 3))
              }
              yield* receiver.takes(240)
            }).pipe(
              Effect.provide(live(feed, { ...receiver, layer: watched(courier) })),
              // A pool, or a handle on the file, of its own.
              Effect.provide(Layer.fresh(storeOf(database)))
            )
          )
          yield* Effect.all(reactors, { concurrency: "unbounded" })
          expect(receiver.taken).toHaveLength(240)
          expect(new Set(receiver.taken.map(({ id }) => id)).size).toBe(240)
          expect(together).toBe(0)
          for (const source of ["one", "two"]) {
            for (const [d, documentId] of ["a", "b", "c", "d"].entries()) {
              const own = receiver.taken.filter((each) => each.documentId === documentId && each.source === source)
              expect(own.map(({ cause }) => cause.index)).toEqual(upTo(30).map((i) => 4 * i + d))
            }
          }
        }))
  )

  it.scopedLive("a courier that has gone without a word is waited for as long as its lease says, and no longer", () =>
    kept(Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      yield* feed.push(Senders.orders("o", 0, "a"))
      const receiver = Receiver.make()
      yield* run(Receiver.make())
      yield* within(Outbox.claim("a courier that was killed", 600))
      yield* Effect.gen(function*() {
        const outbox = yield* until(Effect.map(summary, ({ undelivered }) => undelivered === 1)).pipe(
          Effect.zipRight(Effect.sleep(100))
        )
        expect(outbox).toBeUndefined()
        expect(receiver.asked()).toBe(0)
        yield* receiver.takes(1)
        // It lets go of it by itself.
        yield* until(within(Outbox.claim("another", 0)))
      }).pipe(Effect.provide(live(feed, receiver, { leaseMillis: 3_600_000 })))
    })))

  it.scopedLive.each([0, -3_600_000])(
    "a courier that has lost its lease delivers nothing more until it has it again, its clock set by %i ms meanwhile",
    (byMillis) =>
      kept(Effect.gen(function*() {
        const { on, set } = yield* WallClock.make
        const feed = yield* Feed.make("feed")
        yield* feed.push(Senders.orders("o", 0, ...Array<string>(50).fill("a")))
        const receiver = Receiver.make()
        // Each takes a third of the lease, and renewing is refused: the other has taken over.
        receiver.answer(() => Effect.sleep(100))
        yield* on(
          Effect.gen(function*() {
            yield* receiver.takes(1)
            set(byMillis)
            yield* within(Effect.flatMap(holder, Outbox.release))
            yield* until(within(Outbox.claim("another", 2_000)))
            const before = receiver.asked()
            yield* Effect.sleep(700)
            expect(receiver.asked()).toBeLessThanOrEqual(before + 4)
            receiver.answer(() => Effect.void)
            yield* receiver.takes(50)
            expect(takenBy(receiver, "a")).toEqual(upTo(50))
          }).pipe(Effect.provide(live(feed, receiver, { leaseMillis: 300 })))
        )
      }))
  )

  it.scopedLive("ids of what was delivered are forgotten after their time, and what waits is not", () =>
    kept(Effect.gen(function*() {
      const receiver = Receiver.make()
      receiver.answer(({ documentId }) => documentId === "b" ? refused : Effect.void)
      const strand = Senders.orders("o", 0, "a", "b", "b")
      yield* run(receiver, strand)
      expect(yield* Senders.sent()).toEqual(["delivered a 0.0", "refused b 1.0", "waiting b 2.0"])
      expect(yield* within(Outbox.forget(3_600_000))).toBe(0)
      yield* Effect.sleep(5)
      expect(yield* within(Outbox.forget(1))).toBe(1)
      expect(yield* Senders.sent()).toEqual(["refused b 1.0", "waiting b 2.0"])
    })))

  it.scopedLive("what was sent, delivered, put off and refused is counted", () =>
    kept(Effect.gen(function*() {
      const count = (counter: Metric.Metric.Counter<number>) =>
        Effect.map(Metric.value(Metric.tagged(counter, "processor", "orders")), (state) => state.count)
      const counts = Effect.all(
        [Metrics.sent, Metrics.delivered, Metrics.deliveryFailures, Metrics.undeliverable].map(count)
      )
      const before = yield* counts
      const receiver = Receiver.make()
      receiver.answer(({ documentId }) => documentId === "b" ? refused : documentId === "c" ? unavailable : Effect.void)
      yield* Effect.provide(
        Reactor.run(Senders.make()),
        Layer.mergeAll(
          receiver.layer,
          settings({ pauseMinMillis: 3_600_000, pauseMaxMillis: 3_600_000 }),
          Source.layerIterable("shop", [Senders.orders("o", 0, "a", "a", "b", "c")])
        )
      )
      const after = yield* counts
      expect(after.map((n, i) => n - before[i]!)).toEqual([4, 2, 1, 1])
    })))

  it.scopedLive("health tells what waits and for how long, and what was refused; a courier that was never used is not asked about", () =>
    kept(Effect.gen(function*() {
      const feed = yield* Feed.make("feed")
      const receiver = Receiver.make()
      receiver.answer(({ documentId }) => documentId === "a" ? unavailable : refused)
      yield* Effect.gen(function*() {
        const { check } = yield* Health.Health
        expect(yield* check).toMatchObject({ isHealthy: true, outboxes: [] })
        yield* feed.push(Senders.orders("o", 0, "a", "b"))
        yield* until(Effect.map(summary, (found) => found.refused === 1))
        yield* Effect.sleep(20)
        const report = yield* check
        expect(report.outboxes).toMatchObject([{ namespace: "orders", undelivered: 2, refused: 1 }])
        expect(report.outboxes[0]?.oldestMillis).toBeGreaterThanOrEqual(20)
        expect(report.complaints).toEqual([
          expect.stringMatching(/^the outbox of orders has had a message waiting for \d+ ms$/)
        ])
        expect(report.notices).toEqual(["the outbox of orders has 1 message that was refused"])
      }).pipe(Effect.provide(
        Health.layer({ undeliveredMax: 10 }).pipe(Layer.provideMerge(live(feed, receiver)))
      ))
    })))
})
