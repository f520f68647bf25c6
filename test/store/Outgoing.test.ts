/**
 * What is outgoing: it is in the outbox exactly if what it was sent for is committed.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"
import {
  Courier,
  DeadLetters,
  Dispatch,
  Dispatcher,
  Namespace,
  Outbox,
  Policy,
  Processor,
  Reactor,
  Replaying,
  Source,
  Transaction
} from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Receiver from "../support/Receiver.js"
import * as Senders from "../support/Senders.js"
import * as Store from "../support/Store.js"

const silent = Logger.remove(Logger.defaultLogger)

/** Nobody takes anything, so that everything stays where it is. */
const away = Dispatcher.layer(() => new Dispatcher.ReceiverUnavailable({ reason: "away" }))

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  const kept = <A, E>(effect: Effect.Effect<A, E, Namespace.Namespaces | Dispatcher.Dispatcher>) =>
    Effect.flatMap(
      fresh,
      (database) =>
        Effect.provide(effect, Layer.mergeAll(Store.layerMany(database), away, silent)).pipe(
          Effect.provideService(Courier.Settings, Receiver.impatient)
        )
    )

  const follow = <R>(
    processor: Processor.Processor<never, R>,
    ...strands: ReadonlyArray<Source.Unplaced>
  ) =>
    Effect.map(
      Effect.provide(Reactor.run(processor), Source.layerIterable("shop", strands)),
      ([outcome]) => outcome
    )

  it.scopedLive("a message is known by its operation, has its actions encoded, and ids that are made of its key", () =>
    kept(Effect.gen(function*() {
      yield* follow(Senders.make(), Senders.orders("o1", 0, "s1", "s2"))
      const [first, second] = yield* Namespace.query(Senders.namespace, Outbox.list())
      expect(first).toMatchObject({
        processor: "orders",
        source: "shop",
        nth: 0,
        documentId: "s1",
        scope: "global",
        branch: "main",
        cause: { documentId: "o1", scope: "global", branch: "main", index: 0, skip: 0 },
        actions: [{ type: "SHIP", input: { n: "0", of: "o1" } }],
        state: "waiting"
      })
      expect(first?.id).toBe(Outbox.idOf(first!))
      expect(first?.id).toMatch(uuid)
      expect(first?.actions[0]?.id).toBe(Outbox.actionIdOf(first!.id, 0))
      expect(second?.id).not.toBe(first?.id)
      expect(yield* Senders.notes).toEqual([0, 1])
    })))

  it.scopedLive("a message of an operation that fails is not sent, and those of its batch are sent once", () =>
    kept(Effect.gen(function*() {
      const sender = Senders.make({
        handle: (input, at) =>
          Effect.zipRight(
            Senders.noteAndShip(input, at),
            input.n === 2 ? new Senders.Unwilling({ n: 2 }) : Effect.void
          )
      })
      const outcome = yield* follow(
        sender,
        Senders.orders("o1", 0, "s", "s", "s", "s"),
        Senders.orders("o2", 0, "s", "s")
      )
      expect(outcome).toMatchObject({ totals: { parked: 1 }, waiting: 2 })
      expect(yield* Senders.sent()).toEqual(["waiting s 0.0", "waiting s 1.0", "waiting s 0.0", "waiting s 1.0"])
    })))

  it.scopedLive("control: a handler that sends by itself is found to have sent for a batch that was rolled back", () =>
    kept(Effect.gen(function*() {
      const receiver: Array<number> = []
      const direct = Senders.make<SqlClient.SqlClient>({
        handle: ({ n }) =>
          Effect.gen(function*() {
            receiver.push(n)
            if (n === 2) return yield* new Senders.Unwilling({ n })
            yield* Senders.note(n)
          })
      })
      yield* follow(direct, Senders.orders("o1", 0, "s", "s", "s", "s"))
      expect(yield* Senders.notes).toEqual([0, 1])
      expect(receiver).not.toEqual([0, 1])
    })))

  it.scopedLive("a retried operation sends the messages of its last try alone, under the same ids", () =>
    kept(Effect.gen(function*() {
      let tries = 0
      const sender = Senders.make({
        handle: (input, at) =>
          Effect.zipRight(
            Senders.noteAndShip(input, at),
            Effect.suspend(() => ++tries < 4 ? new Senders.Unwilling({ n: input.n }) : Effect.void)
          ),
        policy: { Unwilling: Policy.retry(Schedule.recurs(5), { otherwise: Policy.halt }) }
      })
      yield* follow(sender, Senders.orders("o1", 0, "s"))
      expect(tries).toBe(4)
      expect(yield* Senders.sent()).toEqual(["waiting s 0.0"])
    })))

  it.scopedLive("a message sent in a savepoint is taken back with it, and keeps its place in the order otherwise", () =>
    kept(Effect.gen(function*() {
      const sender = Senders.make({
        handle: (input, { strand }) =>
          Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            yield* Senders.ship("s", 10, strand.documentId)
            yield* sql.withTransaction(Senders.ship("s", 20, strand.documentId))
            yield* Effect.ignore(sql.withTransaction(
              Effect.zipRight(Senders.ship("s", 30, strand.documentId), new Senders.Unwilling({ n: input.n }))
            ))
            yield* Senders.ship("s", 40, strand.documentId)
          })
      })
      yield* follow(sender, Senders.orders("o1", 0, "s"))
      const entries = yield* Namespace.query(Senders.namespace, Outbox.list())
      expect(entries.map(({ actions: [action], nth }) => [nth, action?.input])).toEqual([
        [0, { n: "10", of: "o1" }],
        [1, { n: "20", of: "o1" }],
        [3, { n: "40", of: "o1" }]
      ])
    })))

  it.scopedLive("a handler of whole batches names the operation", () =>
    kept(Effect.gen(function*() {
      const sender = Processor.make("orders", {
        namespace: Senders.namespace,
        migrations: Senders.migrations,
        handler: Processor.onBatch((strands) =>
          Effect.forEach(strands, (strand) =>
            Effect.forEach(strand.operations, (operation) =>
              Effect.zipRight(Senders.ship("s", 1, "x"), Senders.ship("t", 2, "x")).pipe(
                Dispatch.because(strand, operation)
              )), { discard: true })
        )
      }).pipe(Processor.withPolicy(Policy.standard))
      yield* follow(sender, Senders.orders("o1", 0, "-", "-"))
      expect(yield* Senders.sent()).toEqual(["waiting s 0.0", "waiting t 0.1", "waiting s 1.0", "waiting t 1.1"])
    })))

  it.scopedLive("a letter that is tried again sends what its operation would have sent", () =>
    kept(Effect.gen(function*() {
      let isBroken = true
      const sender = Senders.make({
        handle: (input, at) =>
          Effect.suspend(() => isBroken ? new Senders.Unwilling({ n: input.n }) : Senders.noteAndShip(input, at))
      })
      yield* follow(sender, Senders.orders("o1", 0, "s", "s"))
      expect(yield* Senders.sent()).toEqual([])
      isBroken = false
      yield* Namespace.within(
        Senders.namespace,
        DeadLetters.retry(sender, Source.name("shop"), "o1")
      )
      expect(yield* Senders.sent()).toEqual(["waiting s 0.0", "waiting s 1.0"])
    })))

  const malformed: { readonly [what: string]: Dispatch.Draft } = {
    "an input that its model does not take": {
      documentId: "s",
      actions: [Dispatch.action(Senders.Strict, "SHIP", { n: -1 })]
    },
    "an input that cannot be stored": { documentId: "s", actions: [Dispatch.action("NOTE", { text: "a\u0000b" })] },
    "no action": { documentId: "s", actions: [] },
    "a document without a name": { documentId: "", actions: [Dispatch.action("A", {})] },
    "an action without a type": { documentId: "s", actions: [Dispatch.action("", {})] },
    "more than fits": { documentId: "s", actions: [Dispatch.action("A", "x".repeat(Dispatch.lengthMax))] }
  }

  it.scopedLive.each(Object.keys(malformed))(
    "a message with %s is a failure of its operation",
    (what) =>
      kept(Effect.gen(function*() {
        const sender = Senders.make({
          handle: ({ n }) => Effect.zipRight(Senders.note(n), Dispatch.send(malformed[what]!))
        })
        const outcome = yield* follow(sender, Senders.orders("o1", 0, "s"))
        expect(outcome).toMatchObject({ totals: { parked: 1 } })
        const letters = yield* Namespace.query(
          Senders.namespace,
          DeadLetters.list({ processor: sender.name, source: Source.name("shop") })
        )
        expect(letters.map(({ cause }) => cause)).toEqual(["MalformedAction"])
        expect(yield* Senders.sent()).toEqual([])
        expect(yield* Senders.notes).toEqual([])
      }))
  )

  it.scopedLive("an operation that is handled again sends nothing that is remembered, whatever became of it", () =>
    kept(Effect.gen(function*() {
      const sender = Senders.make()
      const strands = [Senders.orders("o1", 0, "s", "s"), Senders.orders("o2", 0, "t")]
      yield* follow(sender, ...strands)
      const before = yield* Namespace.query(Senders.namespace, Outbox.list())
      yield* Namespace.within(
        Senders.namespace,
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          yield* Outbox.drop(before[0]!.id)
          yield* sql`DELETE FROM processor_cursor`
          yield* sql`DELETE FROM processor_stream`
        })
      )
      yield* follow(sender, ...strands)
      expect(yield* Senders.notes).toEqual([0, 0, 0, 0, 1, 1])
      expect(yield* Senders.sent()).toEqual(["dropped s 0.0", "waiting s 1.0", "waiting t 0.0"])
      const after = yield* Namespace.query(Senders.namespace, Outbox.list())
      expect(after.map(({ id }) => id)).toEqual(before.map(({ id }) => id))
    })))

  it.scopedLive("a handler that repeats what it did sends nothing, by the state it is in and by its type", () =>
    kept(Effect.gen(function*() {
      const replaying = Senders.make({
        handle: (input, at) => Effect.provideService(Senders.noteAndShip(input, at), Replaying.Replaying, true)
      })
      yield* follow(replaying, Senders.orders("o1", 0, "s"))
      const muted = Senders.make<SqlClient.SqlClient | Dispatch.Handling>({
        name: "muted",
        handle: (input, at) => Dispatch.silent(Senders.noteAndShip(input, at))
      })
      // It needs no `Dispatcher` any more.
      const quiet: Effect.Effect<unknown, unknown, Namespace.Namespaces | Source.Source> = Reactor.run(muted)
      yield* Effect.provide(quiet, Source.layerIterable("shop", [Senders.orders("o1", 0, "s")]))
      expect(yield* Senders.notes).toEqual([0, 0])
      expect(yield* Senders.sent()).toEqual([])
    })))

  it.scopedLive("commits on several cursors of one processor may send at the same time", () =>
    kept(Effect.gen(function*() {
      yield* follow(Senders.make(), Senders.orders("o1", 0, "s"))
      const [sample] = yield* Namespace.query(Senders.namespace, Outbox.list())
      const commit = (index: number) =>
        Transaction.run(Effect.gen(function*() {
          const stamp = yield* Outbox.stamp
          yield* Effect.sleep(20)
          const cause = { ...sample!.cause, index }
          yield* Outbox.write([{
            ...sample!,
            cause,
            id: Outbox.idOf({ ...sample!, cause }),
            ordinal: Outbox.ordinalOf(stamp, 0)
          }])
        }))
      yield* Namespace.within(
        Senders.namespace,
        Effect.forEach([1, 2, 3, 4], commit, { concurrency: "unbounded", discard: true })
      )
      expect((yield* Senders.sent()).toSorted()).toEqual([0, 1, 2, 3, 4].map((index) => `waiting s ${index}.0`))
    })))

  it.scopedLive("a fiber that outlives its handler sends nothing", () =>
    kept(Effect.gen(function*() {
      const late: Array<unknown> = []
      const sender = Senders.make({
        handle: ({ n, to }, { operation, strand }) =>
          Effect.forkDaemon(
            Effect.sleep(50).pipe(
              Effect.zipRight(Senders.ship(to, n, "x")),
              Dispatch.because(strand, operation),
              Effect.sandbox,
              Effect.catchAll((cause) => Effect.sync(() => late.push(cause)))
            )
          )
      })
      yield* follow(sender, Senders.orders("o1", 0, "s"))
      yield* Effect.sleep(200)
      expect(late).toHaveLength(1)
      expect(yield* Senders.sent()).toEqual([])
    })))

  it.scopedLive("a processor that sends nothing needs neither a dispatcher nor the tables of the outbox", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const sender = Senders.make<SqlClient.SqlClient>({ handle: ({ n }) => Senders.note(n) })
      const run = (...strands: ReadonlyArray<Source.Unplaced>) =>
        Effect.provide(Reactor.run(sender), Source.layerIterable("shop", strands))
      yield* Effect.gen(function*() {
        const first = Senders.orders("o1", 0, "s")
        yield* run(first)
        yield* Namespace.within(
          Senders.namespace,
          Effect.flatMap(
            SqlClient.SqlClient,
            (sql) => Effect.zipRight(sql`DROP TABLE processor_outbox`, sql`DROP TABLE processor_courier`)
          )
        )
        yield* run(first, Senders.orders("o1", 1, "s", "s"))
        expect(yield* Senders.notes).toEqual([0, 1, 2])
      }).pipe(Effect.provide(Layer.merge(Store.layerMany(database), silent)))
    }))
})
