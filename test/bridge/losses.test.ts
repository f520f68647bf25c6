/**
 * What the real system is known to lose: each loss is brought about with a processor as anyone writes one, run by the real
 * processor manager, and does not happen to ours, fed by the same reactor in the same run.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { Policy, Powerhouse, Processor } from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"
import * as Reactor6 from "./Reactor6.js"
import * as Soon from "./Soon.js"
import * as Tally from "./Tally.js"

const silent = Logger.remove(Logger.defaultLogger)

/** What ours are run with, on an empty database of a dialect. */
const ours = (fresh: Effect.Effect<Database.Database, never, Scope.Scope>) =>
  Layer.unwrapScoped(Effect.map(fresh, (database) => Layer.merge(Store.layerMany(database), silent)))

const promise = Effect.promise

/** A processor as anyone writes one, that keeps what it is given. */
const plain = (onOperations: () => Promise<void> = () => Promise.resolve()) => {
  const given: Array<Reactor6.Delivered> = []
  const record: Reactor6.PlainRecord = {
    filter: {},
    processor: {
      onOperations: async (operations) => {
        await onOperations()
        given.push(...operations)
      },
      onDisconnect: () => Promise.resolve()
    }
  }
  return { given, record, distinct: () => new Set(given.map(({ context }) => context.ordinal)).size }
}

/** How many operations the one was given and the other as well. */
const givenTwice = (one: ReturnType<typeof plain>, other: ReturnType<typeof plain>): number => {
  const given = new Set(one.given.map(({ context }) => context.ordinal))
  return new Set(other.given.map(({ context }) => context.ordinal).filter((ordinal) => given.has(ordinal))).size
}

const theirs = { name: "theirs" }

const register = (reactor: Reactor6.Reactor6, ...records: ReadonlyArray<Reactor6.PlainRecord>) =>
  promise(() => reactor.processorManager.registerFactory(theirs.name, () => records))

const registerOurs = (reactor: Reactor6.Reactor6, bridge: Powerhouse.Bridge) =>
  promise(() => reactor.processorManager.registerFactory("ours", bridge.factory))

const archiveOf = (reactor: Reactor6.Reactor6) => Powerhouse.ReactorArchive.make(reactor)

/** For what is never delivered, as the last operation of a document may be. */
const often = "300 millis"

/** Each fifth of them is refused by its document. */
const actions = (reactor: Reactor6.Reactor6, count: number, of: string) =>
  Array.from({ length: count }, (_, i) => i % 5 === 4 ? reactor.refused() : reactor.setName(`${of} ${i}`))

/** Documents of a drive, each with some operations, written one after another. */
const populate = async (reactor: Reactor6.Reactor6, drive: string, documents: number, operations: number) => {
  for (let d = 0; d < documents; d++) {
    const id = await reactor.createDocument(`${drive}-${d}`)
    await reactor.addToDrive(drive, id)
    for (let left = operations; left > 0; left -= 50) {
      await reactor.execute(id, ...actions(reactor, Math.min(50, left), id))
    }
  }
}

const everything = (_documentId: string): boolean => true

const foldOf = (stored: ReadonlyArray<Reactor6.Delivered>, isOurs: (documentId: string) => boolean = everything) =>
  Tally.fold(
    stored.filter(({ context }) => isOurs(context.documentId)).map(({ context, operation }) => ({
      ...operation,
      ...context,
      type: operation.action.type,
      input: operation.action.input
    }))
  )

const total = (rows: ReadonlyArray<Tally.Row>) => rows.reduce((sum, row) => sum + row.operations, 0)

/** Waits until the table has as many operations as the reactor has stored, and holds it against their fold. */
const holdsAll = (namespace: string, reactor: Reactor6.Reactor6, isOurs = everything) =>
  Effect.gen(function*() {
    const stored = yield* promise(() => reactor.stored())
    const expected = foldOf(stored, isOurs)
    yield* Soon.until(
      `${namespace} holds every operation`,
      Effect.map(Tally.rows(namespace), (rows) => total(rows) >= total(expected))
    )
    expect(yield* Tally.rows(namespace)).toEqual(expected)
    return stored
  })

class Transient extends Data.TaggedError("Transient") {}

describe.each(Database.dialects)("the current reactor, with ours on $dialect", ({ fresh }) => {
  it.scopedLive(
    "loses operations of documents that are written at once; ours get them all",
    () =>
      Effect.gen(function*() {
        const reactor = yield* Effect.flatMap(Database.postgres, Reactor6.open)
        const other = plain()
        const bridge = yield* Powerhouse.make([Tally.processor("tally")], {
          archive: archiveOf(reactor),
          sweepEvery: often
        })
        yield* register(reactor, other.record)
        yield* registerOurs(reactor, bridge)
        yield* promise(() => reactor.createDrive("drive"))
        yield* promise(() =>
          Promise.all(Array.from({ length: 8 }, async (_, d) => {
            const id = await reactor.createDocument(`document-${d}`)
            await reactor.addToDrive("drive", id)
            for (let i = 0; i < 12; i++) {
              await reactor.execute(id, ...actions(reactor, 1 + (i * 7 + d) % 12, `${d} ${i}`))
            }
          }))
        )
        const stored = yield* holdsAll("tally_drive", reactor)
        expect(other.distinct()).toBeLessThan(stored.length)
        expect(reactor.processorManager.getAll().every(({ status }) => status === "active")).toBe(true)
      }).pipe(Effect.provide(ours(fresh)))
  )

  it.scopedLive(
    "skips history when it stops while it delivers that; ours read on from their mark",
    () =>
      Effect.gen(function*() {
        const database = yield* Database.postgres
        const reactor = yield* Reactor6.open(database)
        yield* promise(() => reactor.createDrive("drive"))
        yield* promise(() => populate(reactor, "drive", 2, 400))
        let calls = 0
        const stuck = new Promise<void>(() => {})
        const other = plain(() => ++calls === 1 ? stuck : Promise.resolve())
        const reached = yield* Deferred.make<void>()
        let applied = 0
        const stopped = Tally.processor("tally", {
          before: () =>
            ++applied < 300 ? Effect.void : Effect.zipRight(Deferred.succeed(reached, undefined), Effect.never)
        })
        const scope = yield* Scope.make()
        const bridge = yield* Powerhouse.make([stopped], { archive: archiveOf(reactor), sweepEvery: often })
          .pipe(Scope.extend(scope))
        yield* registerOurs(reactor, bridge)
        // It would return once history is delivered, of which the first page hangs.
        void reactor.processorManager.registerFactory(theirs.name, () => [other.record])
        yield* Deferred.await(reached)
        yield* Soon.until("the first page is there", Effect.sync(() => calls > 0))
        void reactor.execute("drive-0", reactor.setName("while history is delivered"))
        yield* Soon.until("the news overtook history", Effect.sync(() => other.given.length > 0))
        const head = (yield* promise(() => reactor.stored())).length
        yield* Soon.until(
          "its cursor is behind the news",
          Effect.sync(() => reactor.processorManager.getAll().some((each) => each.lastOrdinal === head))
        )
        yield* Scope.close(scope, Exit.void)

        const again = yield* Reactor6.open(database)
        const bridgeAgain = yield* Powerhouse.make([Tally.processor("tally")], {
          archive: archiveOf(again),
          sweepEvery: often
        })
        yield* register(again, other.record)
        yield* registerOurs(again, bridgeAgain)
        yield* promise(() => again.execute("drive-0", again.setName("after the restart")))
        const stored = yield* holdsAll("tally_drive", again)
        expect(other.distinct()).toBeLessThan(stored.length - 400)
      }).pipe(Effect.provide(ours(fresh)))
  )

  it.scopedLive("tells processors by their place in a list; ours by their name", () =>
    Effect.gen(function*() {
      const database = yield* Database.postgres
      const before = { a: plain(), b: plain() }
      const [a, b] = [Tally.processor("a"), Tally.processor("b")]
      yield* Effect.scoped(Effect.gen(function*() {
        const reactor = yield* Reactor6.open(database)
        const bridge = yield* Powerhouse.make([a, b], { archive: archiveOf(reactor), sweepEvery: often })
        yield* register(reactor, before.a.record, before.b.record)
        yield* registerOurs(reactor, bridge)
        yield* promise(() => reactor.createDrive("drive"))
        yield* promise(() => populate(reactor, "drive", 1, 20))
        yield* holdsAll("a_drive", reactor)
      }))
      const after = { fresh: plain(), a: plain(), b: plain() }
      const reactor = yield* Reactor6.open(database)
      const bridge = yield* Powerhouse.make([Tally.processor("fresh"), a, b], {
        archive: archiveOf(reactor),
        sweepEvery: often
      })
      yield* register(reactor, after.fresh.record, after.a.record, after.b.record)
      yield* registerOurs(reactor, bridge)
      for (const namespace of ["fresh_drive", "a_drive", "b_drive"]) yield* holdsAll(namespace, reactor)
      expect(after.fresh.given).toEqual([])
      expect(givenTwice(before.b, after.b)).toBeGreaterThan(20)
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive(
    "gives a processor up for ever after one failure; ours try again, and stay",
    () =>
      Effect.gen(function*() {
        const database = yield* Database.postgres
        let failures = 0
        const other = plain(() => ++failures === 3 ? Promise.reject(new Error("once")) : Promise.resolve())
        let tries = 0
        const flaky = Tally.undecided<Transient>("tally", {
          before: () => ++tries % 10 === 3 ? Effect.fail(new Transient()) : Effect.void
        }).pipe(Processor.withPolicy({
          ...Policy.standard,
          Transient: Policy.retry(Schedule.recurs(3), { otherwise: Policy.park })
        }))
        yield* Effect.scoped(Effect.gen(function*() {
          const reactor = yield* Reactor6.open(database)
          const bridge = yield* Powerhouse.make([flaky], { archive: archiveOf(reactor), sweepEvery: often })
          yield* register(reactor, other.record)
          yield* registerOurs(reactor, bridge)
          yield* promise(() => reactor.createDrive("drive"))
          yield* promise(() => populate(reactor, "drive", 1, 20))
          yield* holdsAll("tally_drive", reactor)
          expect(reactor.processorManager.getAll().map(({ status }) => status)).toEqual(["errored", "active", "active"])
        }))
        const given = other.given.length
        const reactor = yield* Reactor6.open(database)
        const bridge = yield* Powerhouse.make([flaky], { archive: archiveOf(reactor), sweepEvery: often })
        yield* register(reactor, other.record)
        yield* registerOurs(reactor, bridge)
        yield* promise(() => reactor.execute("drive-0", ...actions(reactor, 5, "later")))
        const stored = yield* holdsAll("tally_drive", reactor)
        expect(other.given.length).toBe(given)
        expect(given).toBeLessThan(stored.length)
      }).pipe(Effect.provide(ours(fresh)))
  )

  it.scopedLive(
    "delivers everything again when a factory is registered again; ours apply nothing twice",
    () =>
      Effect.gen(function*() {
        const reactor = yield* Effect.flatMap(Database.postgres, Reactor6.open)
        const other = plain()
        const bridge = yield* Powerhouse.make([Tally.processor("tally")], {
          archive: archiveOf(reactor),
          isolated: false,
          sweepEvery: often
        })
        yield* register(reactor, other.record)
        yield* registerOurs(reactor, bridge)
        yield* promise(() => reactor.createDrive("drive"))
        yield* promise(() => populate(reactor, "drive", 2, 30))
        const replayed = plain()
        yield* register(reactor, replayed.record)
        yield* registerOurs(reactor, bridge)
        yield* promise(() => reactor.execute("drive-0", reactor.setName("later")))
        yield* holdsAll("tally_drive", reactor)
        expect(givenTwice(other, replayed)).toBe(other.distinct())
      }).pipe(Effect.provide(ours(fresh)))
  )

  it.scopedLive(
    "gives the processors of each drive what belongs to others; ours only what is in theirs",
    () =>
      Effect.gen(function*() {
        const reactor = yield* Effect.flatMap(Database.postgres, Reactor6.open)
        const other = plain()
        const bridge = yield* Powerhouse.make([Tally.processor("tally")], {
          archive: archiveOf(reactor),
          sweepEvery: often
        })
        yield* promise(() =>
          reactor.processorManager.registerFactory(theirs.name, (drive: { readonly id: string }) =>
            drive.id === "two" ? [other.record] : [])
        )
        yield* registerOurs(reactor, bridge)
        yield* promise(() =>
          reactor.createDrive("two")
        )
        yield* promise(() => reactor.createDrive("one"))
        yield* promise(() => populate(reactor, "one", 2, 10))
        yield* promise(() => populate(reactor, "two", 1, 10))
        yield* holdsAll("tally_one", reactor, (id) => id.startsWith("one"))
        yield* holdsAll("tally_two", reactor, (id) => id.startsWith("two"))
        expect(other.given.some(({ context }) => context.documentId.startsWith("one"))).toBe(true)

        // A document that joins a drive brings its history with it.
        yield* promise(() => reactor.addToDrive("two", "one-1"))
        yield* holdsAll("tally_two", reactor, (id) => id.startsWith("two") || id === "one-1")
        // What is written after it has left stays out.
        yield* promise(() => reactor.removeFromDrive("two", "one-1"))
        const rows = yield* Tally.rows("tally_two")
        yield* promise(() => reactor.execute("one-1", reactor.setName("elsewhere")))
        yield* promise(() => reactor.execute("two-0", reactor.setName("here")))
        yield* Soon.until(
          "the drive's own is there",
          Effect.map(Tally.rows("tally_two"), (all) => all.some(({ name }) => name === "here"))
        )
        const own = (all: ReadonlyArray<Tally.Row>) => all.filter(({ documentId }) => documentId === "one-1")
        expect(own(yield* Tally.rows("tally_two"))).toEqual(own(rows))
      }).pipe(Effect.provide(ours(fresh)))
  )
})
