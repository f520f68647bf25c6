/**
 * What document-drive is known to lose and to repeat: each is brought about with a processor as anyone writes one, run by the
 * real processor manager, and does not happen to ours, fed by the same server in the same run.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type * as Scope from "effect/Scope"
import { Policy, Powerhouse, Processor } from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"
import * as Drive5 from "./Drive5.js"
import * as Soon from "./Soon.js"
import * as Tally from "./Tally.js"

const silent = Logger.remove(Logger.defaultLogger)

/** What ours are run with, on an empty database of a dialect. */
const ours = (fresh: Effect.Effect<Database.Database, never, Scope.Scope>) =>
  Layer.unwrapScoped(Effect.map(fresh, (database) => Layer.merge(Store.layerMany(database), silent)))

const promise = Effect.promise

/** A processor as anyone writes one, that counts what it is given. */
const plain = (onStrands: (strands: ReadonlyArray<Drive5.Strand>) => Promise<void> = () => Promise.resolve()) => {
  const seen = new Map<string, number>()
  const record: Drive5.PlainRecord = {
    filter: {},
    processor: {
      onStrands: async (strands) => {
        await onStrands(strands)
        for (const { documentId, operations } of strands) {
          for (const { index } of operations) {
            const name = `${documentId} ${index}`
            seen.set(name, (seen.get(name) ?? 0) + 1)
          }
        }
      },
      onDisconnect: () => Promise.resolve()
    }
  }
  return { record, seen, given: () => Array.from(seen.values()).reduce((sum, times) => sum + times, 0) }
}

/** How the server tells a processor that has tables. */
const withTables: unique symbol = Symbol.for("ph.IS_RELATIONAL_DB_PROCESSOR")

/** The same as a processor with tables, whose namespace is taken for good. */
const relational = ({ record, ...rest }: ReturnType<typeof plain>) => {
  class Relational {
    static readonly [withTables] = true
    readonly namespace = "taken"
    readonly onStrands = record.processor.onStrands
    readonly onDisconnect = record.processor.onDisconnect
    initAndUpgrade(): Promise<void> {
      return Promise.resolve()
    }
  }
  return { ...rest, record: { ...record, processor: new Relational() } }
}

const register = (server: Drive5.Drive5, name: string, record: Drive5.PlainRecord) =>
  promise(() => server.processorManager.registerFactory(name, () => [record]))

const registerOurs = (server: Drive5.Drive5, { factory }: Powerhouse.Bridge) =>
  promise(() => server.processorManager.registerFactory("ours", factory))

/** Waits until the table has as many operations as the server has stored, and holds it against their fold. */
const holdsAll = (server: Drive5.Drive5, isOurs = (_documentId: string): boolean => true) =>
  Effect.gen(function*() {
    const stored = (yield* promise(() => server.stored("drive"))).filter(({ documentId }) => isOurs(documentId))
    const expected = Tally.fold(stored.map(({ operation, ...place }) => ({ ...place, ...operation })))
    const inTable = (rows: ReadonlyArray<Tally.Row>) => rows.filter(({ documentId }) => isOurs(documentId))
    yield* Soon.until(
      "every operation is there",
      Effect.map(
        Tally.rows("tally_drive"),
        (rows) => inTable(rows).reduce((sum, row) => sum + row.operations, 0) >= stored.length
      )
    )
    expect(inTable(yield* Tally.rows("tally_drive"))).toEqual(expected)
    return stored
  })

const writeTo = (server: Drive5.Drive5, count: number, ...documents: ReadonlyArray<string>) =>
  promise(async () => {
    for (let i = 0; i < count; i++) {
      await Promise.all(documents.map((id) => server.execute(id, server.setName(`${id} ${i}`))))
    }
  })

class Refused extends Data.TaggedError("Refused") {}

describe.each(Database.dialects)("document-drive, with ours on $dialect", ({ fresh }) => {
  it.scopedLive("delivers an operation again and again; ours apply each once", () =>
    Effect.gen(function*() {
      const server = yield* promise(() => Drive5.open())
      const other = plain()
      const bridge = yield* Powerhouse.make([Tally.processor("tally")])
      yield* register(server, "theirs", other.record)
      yield* registerOurs(server, bridge)
      yield* promise(() => server.createDrive("drive"))
      for (const id of ["a", "b"]) yield* promise(() => server.createDocument("drive", id))
      yield* writeTo(server, 16, "a", "b")
      const stored = yield* holdsAll(server)
      expect(other.given()).toBeGreaterThan(3 * stored.length)
      // A second registration without the end of the first: everything comes once more, from two sides.
      yield* registerOurs(server, bridge)
      yield* Soon.until(
        "everything has come again",
        Effect.map(bridge.outcomes, ([outcome]) => (outcome?.totals.redelivered ?? 0) >= stored.length)
      )
      const [outcome] = yield* bridge.outcomes
      expect(outcome?.totals.operations).toBe(stored.length)
      yield* holdsAll(server)
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive(
    "delivers nothing of a drive with a document that it cannot replay; ours get all of it",
    () =>
      Effect.gen(function*() {
        const before = yield* promise(() => Drive5.open())
        yield* promise(() => before.createDrive("drive"))
        for (const id of ["a", "b"]) yield* promise(() => before.createDocument("drive", id))
        yield* writeTo(before, 5, "a", "b")
        const broken = (yield* promise(() => before.storage.get("b"))).operations["global"]?.[2] as unknown as {
          hash: string
        }
        broken.hash = "of another state"
        const server = yield* promise(() => Drive5.open(before.storage))
        const other = plain()
        const bridge = yield* Powerhouse.make([Tally.processor("tally")], {
          archive: Powerhouse.StorageArchive.make(server.storage)
        })
        yield* register(server, "theirs", other.record)
        yield* registerOurs(server, bridge)
        const stored = yield* holdsAll(server)
        expect(stored.length).toBe(12)
        expect(other.seen.size).toBeLessThan(stored.length)
        expect([...other.seen.keys()].some((name) => name.startsWith("b"))).toBe(false)
      }).pipe(Effect.provide(ours(fresh)))
  )

  it.scopedLive(
    "delivers nothing more of a drive when one document is refused; ours set that document aside",
    () =>
      Effect.gen(function*() {
        const server = yield* promise(() => Drive5.open())
        const other = plain((strands) =>
          strands.some(({ documentId, operations }) => documentId === "b" && operations.length > 0)
            ? Promise.reject(new Error("not this one"))
            : Promise.resolve()
        )
        const picky = Tally.undecided<Refused>("tally", {
          before: ({ documentId }) => documentId === "b" ? Effect.fail(new Refused()) : Effect.void
        }).pipe(Processor.withPolicy({ ...Policy.standard, Refused: Policy.park }))
        const bridge = yield* Powerhouse.make([picky])
        yield* promise(() => server.createDrive("drive"))
        for (const id of ["a", "b"]) yield* promise(() => server.createDocument("drive", id))
        yield* writeTo(server, 5, "a", "b")
        yield* register(server, "theirs", other.record)
        yield* registerOurs(server, bridge)
        yield* writeTo(server, 5, "a")
        yield* holdsAll(server, (id) => id !== "b")
        const [outcome] = yield* bridge.outcomes
        expect(outcome?.waiting).toBe(5)
        expect(other.given()).toBe(0)
      }).pipe(Effect.provide(ours(fresh)))
  )

  it.scopedLive(
    "forgets a processor that was registered, unregistered and registered again; ours go on",
    () =>
      Effect.gen(function*() {
        const server = yield* promise(() => Drive5.open())
        const bridge = yield* Powerhouse.make([Tally.processor("tally")])
        yield* promise(() => server.createDrive("drive"))
        yield* promise(() => server.createDocument("drive", "a"))
        const namespaced = relational(plain())
        yield* register(server, "theirs", namespaced.record)
        yield* registerOurs(server, bridge)
        yield* writeTo(server, 3, "a")
        yield* holdsAll(server)
        expect(namespaced.seen.has("a 0")).toBe(true)
        yield* promise(() => server.processorManager.unregisterFactory("theirs"))
        yield* promise(() => server.processorManager.unregisterFactory("ours"))
        yield* register(server, "theirs", namespaced.record)
        yield* registerOurs(server, bridge)
        yield* writeTo(server, 3, "a")
        yield* holdsAll(server)
        expect(namespaced.seen.has("a 5")).toBe(false)
      }).pipe(Effect.provide(ours(fresh)))
  )
})
