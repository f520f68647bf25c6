/**
 * A bridge: what a reactor calls is answered as its contract says, whatever becomes of the operations.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { gunzipSync } from "node:zlib"
import { Namespace, Policy, Powerhouse, Processor, Wakeups } from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"
import * as Soon from "./Soon.js"
import * as Tally from "./Tally.js"

const silent = Logger.remove(Logger.defaultLogger)

/** What ours are run with, on an empty database of a dialect. */
const ours = (fresh: Effect.Effect<Database.Database, never, Scope.Scope>) =>
  Layer.unwrapScoped(Effect.map(fresh, (database) => Layer.merge(Store.layerMany(database), silent)))

/** An operation as the current reactor delivers it. */
const operation = (documentId: string, index: number, input: unknown = {}) => ({
  operation: {
    id: `${documentId} ${index}`,
    index,
    skip: 0,
    hash: `hash ${documentId} ${index}`,
    timestampUtcMs: "2026-01-01T00:00:00.000Z",
    action: { type: "SET_MODEL_NAME", input: { name: `${documentId} ${index}`, ...Object(input) as object } }
  },
  context: { documentId, documentType: "acme/any", scope: "global", branch: "main", ordinal: 0, resultingState: "{}" }
})
type Delivered = ReturnType<typeof operation>

const operations = (documentId: string, count: number, from = 0) =>
  Array.from({ length: count }, (_, i) => operation(documentId, from + i))

const foldOf = (delivered: ReadonlyArray<Delivered>) =>
  Tally.fold(delivered.map((each) => ({
    ...each.context,
    ...each.operation,
    type: each.operation.action.type,
    input: each.operation.action.input
  })))

/** The processors that a reactor gets for a drive. */
const processorsOf = (bridge: Powerhouse.Bridge, drive: Powerhouse.Contract.DriveArgument = "drive") =>
  Effect.map(Effect.promise(() => bridge.factory(drive)), (records) => records.map(({ processor }) => processor))

const first = (bridge: Powerhouse.Bridge) => Effect.map(processorsOf(bridge), ([processor]) => processor!)

/** What a promise of ours comes to. */
const settled = (promise: () => Promise<unknown>) =>
  Effect.exit(Effect.tryPromise({ try: promise, catch: (error) => error }))

const failureOf = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isFailure(exit)
    ? Option.getOrUndefined(Option.fromNullable(exit.cause._tag === "Fail" ? exit.cause.error : undefined))
    : undefined

class Refused extends Data.TaggedError("Refused")<{ readonly index: number }> {}

const alone: Powerhouse.Options = { isolated: false }

describe.each(Database.dialects)("a bridge on $dialect", ({ fresh }) => {
  it.scopedLive("takes calls that overlap, repeat themselves and come in any order, and applies each operation once", () =>
    Effect.gen(function*() {
      const bridge = yield* Powerhouse.make([Tally.processor("tally")], alone)
      const processor = yield* first(bridge)
      const all = Array.from({ length: 6 }, (_, d) => operations(`document-${d}`, 40)).flat()
      const calls = [...all, ...all.filter((_, i) => i % 3 === 0)]
        .map((each) => ({ each, turn: Math.random() }))
        .toSorted((a, b) => a.turn - b.turn)
      yield* Effect.promise(() => Promise.all(calls.map(({ each }) => processor.onOperations([each]))))
      yield* Soon.until(
        "nothing waits",
        Effect.map(bridge.outcomes, ([outcome]) => outcome?.waiting === 0 && outcome.totals.operations === all.length)
      )
      expect(yield* Tally.rows("tally_drive")).toEqual(foldOf(all))
      const [outcome] = yield* bridge.outcomes
      expect(outcome?.totals.commits).toBeLessThan(calls.length)
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("returns when what was delivered is in the database", () =>
    Effect.gen(function*() {
      const processor = yield* Effect.flatMap(Powerhouse.make([Tally.processor("tally")], alone), first)
      yield* Effect.promise(() => processor.onOperations(operations("a", 3)))
      expect(yield* Tally.applied("tally_drive")).toBe(3)
      yield* Effect.promise(() =>
        processor.onStrands([{
          driveId: "drive",
          documentId: "b",
          documentType: "acme/any",
          scope: "global",
          branch: "main",
          state: {},
          operations: operations("b", 2).map((each) => each.operation)
        }])
      )
      expect(yield* Tally.applied("tally_drive")).toBe(5)
      // What nobody wants, and nothing at all, is dealt with at once.
      yield* Effect.promise(() => processor.onOperations([]))
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("returns when it is in the database also for a processor that is divided, and has it there once", () =>
    Effect.gen(function*() {
      const slow = Tally.undecided("tally", {
        before: ({ documentId }) => documentId === "a" ? Effect.sleep(50) : Effect.void
      }).pipe(Processor.withPolicy(Policy.standard))
      const divided = { ...slow, partitions: 4 }
      const documents = ["a", "b", "c", "d", "e", "f", "g", "h"]
      for (const [processors, namespace] of [[[divided], "tally_drive"], [() => [divided], "tally"]] as const) {
        const bridge = yield* Powerhouse.make(processors, alone)
        const processor = yield* first(bridge)
        yield* Effect.promise(() =>
          processor.onOperations(documents.flatMap((documentId) => operations(documentId, 2)))
        )
        expect(yield* Tally.applied(namespace)).toBe(2 * documents.length)
        expect((yield* bridge.outcomes).map(({ partition }) => partition.of)).toEqual([1])
      }
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("rejects with what halted the processor, and goes on where it was with the next delivery", () =>
    Effect.gen(function*() {
      let isBroken = true
      const halting = Tally.undecided<Refused>("tally", {
        before: (_, { index }) => isBroken && index === 2 ? Effect.fail(new Refused({ index })) : Effect.void
      }).pipe(Processor.withPolicy({ ...Policy.standard, Refused: Policy.halt }))
      const processor = yield* Effect.flatMap(Powerhouse.make([halting], alone), first)
      const failure = failureOf(yield* settled(() => processor.onOperations(operations("a", 5))))
      expect(failure).toBeInstanceOf(Error)
      expect(failure).toBeInstanceOf(Powerhouse.ProcessorStopped)
      expect((failure as Powerhouse.ProcessorStopped).cause).toMatchObject({
        _tag: "Halted",
        cause: { _tag: "Refused" }
      })
      expect(failureOf(yield* settled(() => processor.onOperations(operations("a", 5))))).toMatchObject({
        _tag: "ProcessorStopped"
      })
      isBroken = false
      yield* Effect.promise(() => processor.onOperations(operations("a", 5)))
      expect(yield* Tally.rows("tally_drive")).toEqual(foldOf(operations("a", 5)))
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("supplies again what was not committed when its subscription has to open again", () =>
    Effect.gen(function*() {
      const bridge = yield* Powerhouse.make([Tally.processor("tally")], alone)
      const processor = yield* first(bridge)
      yield* Effect.promise(() => processor.onOperations(operations("a", 2)))
      // As a restored backup would: the cursor is not where its owner left it.
      yield* Effect.orDie(Namespace.within(
        "tally_drive",
        Effect.flatMap(
          SqlClient.SqlClient,
          (sql) => sql`UPDATE processor_cursor SET sequence = sequence + 1, position = position + 7`
        )
      ))
      yield* Effect.promise(() => Promise.all([4, 6].map((count) => processor.onOperations(operations("a", count)))))
      expect(yield* Tally.rows("tally_drive")).toEqual(foldOf(operations("a", 6)))
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("rejects a delivery that cannot be read, once what can be read of it is in the database", () =>
    Effect.gen(function*() {
      const processor = yield* Effect.flatMap(Powerhouse.make([Tally.processor("tally")], alone), first)
      const [one, two] = operations("a", 2)
      const failure = failureOf(
        yield* settled(() => processor.onOperations([one, { operation: { index: "3" }, context: {} }, two]))
      )
      expect(failure).toMatchObject({ _tag: "MalformedEnvelope" })
      expect(yield* Tally.applied("tally_drive")).toBe(2)
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("sets aside what the policy parks, and returns", () =>
    Effect.gen(function*() {
      const parking = Tally.undecided<Refused>("tally", {
        before: ({ documentId }, { index }) =>
          documentId === "a" && index === 1 ? Effect.fail(new Refused({ index })) : Effect.void
      }).pipe(Processor.withPolicy({ ...Policy.standard, Refused: Policy.park }))
      const bridge = yield* Powerhouse.make([parking], alone)
      const processor = yield* first(bridge)
      yield* Effect.promise(() => processor.onOperations([...operations("a", 3), ...operations("b", 3)]))
      expect(yield* Tally.applied("tally_drive")).toBe(4)
      yield* Soon.until("two wait", Effect.map(bridge.outcomes, ([outcome]) => outcome?.waiting === 2))
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("has released everything when onDisconnect returns, and refuses what comes later", () =>
    Effect.gen(function*() {
      const happened: Array<string> = []
      const held = Tally.processor("tally", {
        opened: Effect.addFinalizer(() =>
          Effect.zipRight(Effect.sleep("50 millis"), Effect.sync(() => void happened.push("released")))
        )
      })
      const bridge = yield* Powerhouse.make([held], alone)
      const processor = yield* first(bridge)
      yield* Effect.promise(() => processor.onOperations(operations("a", 1)))
      yield* Effect.promise(() => processor.onDisconnect().then(() => void happened.push("returned")))
      expect(happened).toEqual(["released", "returned"])
      expect(failureOf(yield* settled(() => processor.onOperations(operations("a", 1, 1))))).toBeInstanceOf(
        Powerhouse.Disconnected
      )
      // Once more does nothing, and the factory gives a processor that goes on.
      yield* Effect.promise(() => processor.onDisconnect())
      const next = yield* first(bridge)
      yield* Effect.promise(() => next.onOperations(operations("a", 2)))
      expect(yield* Tally.applied("tally_drive")).toBe(2)
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("keeps one processor for two registrations, until both are disconnected", () =>
    Effect.gen(function*() {
      const bridge = yield* Powerhouse.make([Tally.processor("tally")], alone)
      const [one, two] = [yield* first(bridge), yield* first(bridge)]
      yield* Effect.promise(() =>
        Promise.all([one.onOperations(operations("a", 3)), two.onOperations(operations("a", 3))])
      )
      yield* Effect.promise(() => one.onDisconnect())
      yield* Effect.promise(() => two.onOperations(operations("a", 4)))
      expect(yield* Tally.applied("tally_drive")).toBe(4)
      yield* Effect.promise(() => two.onDisconnect())
      expect(failureOf(yield* settled(() => two.onOperations([])))).toBeInstanceOf(Powerhouse.Disconnected)
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("leaves a processor to the process that has taken it over", () =>
    Effect.gen(function*() {
      const opened = Effect.flatMap(Powerhouse.make([Tally.processor("tally")], alone), first)
      // What has taken a delivery has its cursor: that is claimed behind the opening.
      const one = yield* opened
      yield* Effect.promise(() => one.onOperations(operations("a", 1)))
      const two = yield* opened
      yield* Effect.promise(() => two.onOperations(operations("a", 1)))
      for (let i = 0; i < 2; i++) {
        expect(failureOf(yield* settled(() => one.onOperations(operations("a", 2))))).toMatchObject({
          _tag: "ProcessorStopped",
          cause: { _tag: "Fenced" }
        })
      }
      yield* Effect.promise(() => two.onOperations(operations("a", 3)))
      expect(yield* Tally.rows("tally_drive")).toEqual(foldOf(operations("a", 3)))
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("opens tables that could not be opened with a later delivery, and says why until then", () =>
    Effect.gen(function*() {
      let isBroken = true
      const broken = Tally.processor("tally", {
        migrating: Effect.flatMap(SqlClient.SqlClient, (sql) => isBroken ? sql`SELECT * FROM nowhere` : sql`SELECT 1`)
      })
      const processor = yield* Effect.flatMap(Powerhouse.make([broken], alone), first)
      for (const call of [() => processor.initAndUpgrade(), () => processor.onOperations(operations("a", 1))]) {
        expect(failureOf(yield* settled(call))).toMatchObject({ _tag: "MigrationFailed" })
      }
      isBroken = false
      yield* Effect.promise(() => processor.initAndUpgrade())
      yield* Effect.promise(() => processor.onOperations(operations("a", 1)))
      expect(yield* Tally.applied("tally_drive")).toBe(1)
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("over a runtime, ends with it", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const runtime = ManagedRuntime.make(
        Layer.merge(Layer.provideMerge(Layer.scope, Store.layerMany(database)), silent)
      )
      const factory = Powerhouse.processorFactory(runtime, [Tally.processor("tally")], alone)
      const processor = (yield* Effect.promise(() => factory({ id: "drive" })))[0]!.processor
      yield* Effect.promise(() => processor.onOperations(operations("a", 2)))
      const [outcome] = yield* Effect.promise(() => factory.outcomes())
      expect(outcome).toMatchObject({ drive: "drive", processor: "tally" })
      yield* Effect.promise(() => runtime.dispose())
      expect(Exit.isFailure(yield* settled(() => processor.onOperations(operations("a", 3))))).toBe(true)
      expect(yield* Effect.provide(Tally.applied("tally_drive"), Store.layerMany(database))).toBe(2)
    }))
})

/** An archive of these operations, in this order, which counts what is asked of it. */
const archiveOf = (stored: Array<Delivered>) => {
  const asked: Array<string> = []
  const found = (envelope: Delivered) => ({ envelope, ordinal: envelope.context.ordinal })
  const archive: Powerhouse.Archive.Archive = {
    since: (mark) =>
      Stream.suspend(() => {
        asked.push(`since ${mark}`)
        return Stream.make(stored.filter(({ context }) => context.ordinal > mark).map(found))
      }),
    between: ({ documentId, from, to }) =>
      Stream.suspend(() => {
        asked.push(`${documentId} ${from} to ${to}`)
        return Stream.make(
          stored.filter(({ context, operation: { index } }) =>
            context.documentId === documentId && index >= from && index <= to
          ).map(found)
        )
      }),
    document: (_, documentId) =>
      Stream.suspend(() => {
        asked.push(documentId)
        return Stream.make(stored.filter(({ context }) => context.documentId === documentId).map(found))
      }),
    within: (_, documentIds) => Effect.succeed(new Set(documentIds.filter((id) => id !== "elsewhere"))),
    head: Effect.sync(() => Math.max(0, ...stored.map(({ context }) => context.ordinal)))
  }
  return { archive, asked }
}

const numbered = (all: ReadonlyArray<Delivered>, from = 1): Array<Delivered> =>
  all.map((each, i) => ({ ...each, context: { ...each.context, ordinal: from + i } }))

describe.each(Database.dialects)("an archive, with ours on $dialect", ({ fresh }) => {
  const never = "1 hour"

  it.scopedLive("is asked for what is missing before a delivery, which then leaves no letter behind", () =>
    Effect.gen(function*() {
      const stored: Array<Delivered> = []
      const { archive, asked } = archiveOf(stored)
      const bridge = yield* Powerhouse.make([Tally.processor("tally")], { archive, sweepEvery: never })
      const processor = yield* first(bridge)
      yield* Soon.until("the first sweep is over", Effect.sync(() => asked.length === 1))
      stored.push(...numbered(operations("a", 10)))
      yield* Effect.promise(() => processor.onOperations([stored[0], stored[4], stored[9]]))
      expect(yield* Tally.rows("tally_drive")).toEqual(foldOf(stored))
      expect(asked).toEqual(["since 0", "a 1 to 3", "a 5 to 8"])
      const [outcome] = yield* bridge.outcomes
      expect(outcome?.waiting).toBe(0)
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("tells what the document refused, where a delivery does not", () =>
    Effect.gen(function*() {
      const stored = numbered(operations("a", 3))
      const refused = stored.map((each, i) =>
        i === 1 ? { ...each, operation: { ...each.operation, error: "refused" } } : each
      )
      const { archive } = archiveOf(refused)
      const processor = yield* Effect.flatMap(
        Powerhouse.make([Tally.processor("tally")], { archive, sweepEvery: never }),
        first
      )
      const bare = stored.map((each) => ({ ...each, context: { ...each.context, resultingState: undefined } }))
      yield* Effect.promise(() => processor.onOperations(bare))
      expect(yield* Tally.rows("tally_drive")).toEqual(foldOf(refused))
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("says what belongs to the drive", () =>
    Effect.gen(function*() {
      const { archive } = archiveOf([])
      const processor = yield* Effect.flatMap(
        Powerhouse.make([Tally.processor("tally")], { archive, sweepEvery: never }),
        first
      )
      yield* Effect.promise(() => processor.onOperations([...operations("elsewhere", 2), ...operations("a", 2)]))
      expect(yield* Tally.rows("tally_drive")).toEqual(foldOf(operations("a", 2)))
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("is read from the mark after a restart, and for what became visible behind it", () =>
    Effect.gen(function*() {
      const stored = numbered(operations("a", 5))
      const late = { ...operation("b", 0), context: { ...operation("b", 0).context, ordinal: 6 } }
      const { archive, asked } = archiveOf(stored)
      const options = { archive, sweepEvery: "20 millis", grace: "200 millis" } as const
      yield* Effect.scoped(Effect.gen(function*() {
        const processor = yield* Effect.flatMap(Powerhouse.make([Tally.processor("tally")], options), first)
        yield* Soon.until("history is there", Effect.map(Tally.applied("tally_drive"), (count) => count === 5))
        // One whose transaction commits after that of the one behind it.
        stored.push(...numbered(operations("a", 1, 5), 7))
        yield* Effect.promise(() => processor.onOperations([stored.at(-1)]))
        stored.push(late)
        yield* Soon.until("the late one is there", Effect.map(Tally.applied("tally_drive"), (count) => count === 7))
        yield* Soon.until("the mark has moved", Effect.sync(() => asked.at(-1) === "since 7"))
        // The cursor follows with the next commit.
        yield* Effect.promise(() => processor.onOperations(operations("c", 1)))
      }))
      asked.splice(0)
      yield* Effect.flatMap(Powerhouse.make([Tally.processor("tally")], options), first)
      yield* Soon.until("it has been asked", Effect.sync(() => asked.length > 0))
      expect(asked[0]).toBe("since 7")
      expect(yield* Tally.applied("tally_drive")).toBe(8)
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("is read from its head by a processor that begins now", () =>
    Effect.gen(function*() {
      const stored = numbered(operations("a", 5))
      const { archive, asked } = archiveOf(stored)
      const processor = yield* Effect.flatMap(
        Powerhouse.make([Tally.processor("tally", { startFrom: "current" })], { archive, sweepEvery: never }),
        first
      )
      yield* Soon.until("it has been asked", Effect.sync(() => asked.length > 0))
      expect(asked).toEqual(["since 5"])
      yield* Effect.promise(() => processor.onOperations(numbered(operations("a", 1, 5), 6)))
      expect(yield* Tally.applied("tally_drive")).toBe(1)
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("is swept for what it could not tell of when that was delivered", () =>
    Effect.gen(function*() {
      const stored: Array<Delivered> = []
      const { archive, asked } = archiveOf(stored)
      const away = new Powerhouse.Archive.ArchiveUnavailable({ what: "store", cause: "away" })
      const processor = yield* Effect.flatMap(
        Powerhouse.make([Tally.processor("tally")], {
          archive: { ...archive, between: () => Stream.fail(away), within: () => Effect.fail(away) },
          sweepEvery: "20 millis"
        }),
        first
      )
      yield* Soon.until("the first sweep is over", Effect.sync(() => asked.length > 0))
      const all = numbered(operations("a", 3))
      const bare = all.map((each) => ({ ...each, context: { ...each.context, resultingState: undefined } }))
      yield* Effect.promise(() => processor.onOperations(bare))
      yield* Effect.promise(() => processor.onOperations(all))
      expect(yield* Tally.applied("tally_drive")).toBe(0)
      stored.push(...all)
      yield* Soon.until("it is there", Effect.map(Tally.applied("tally_drive"), (count) => count === 3))
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("reads again what the reactor has read from its own index, and sweeps for it where it cannot", () =>
    Effect.gen(function*() {
      const stored: Array<Delivered> = []
      const { archive, asked } = archiveOf(stored)
      const away = new Powerhouse.Archive.ArchiveUnavailable({ what: "store", cause: "away" })
      const processor = yield* Effect.flatMap(
        Powerhouse.make([Tally.processor("tally")], {
          archive: { ...archive, between: () => Stream.fail(away) },
          sweepEvery: "20 millis"
        }),
        first
      )
      yield* Soon.until("the first sweep is over", Effect.sync(() => asked.length > 0))
      const all = numbered(operations("a", 3))
      yield* Effect.promise(() =>
        processor.onOperations(
          all.map((each) => ({ ...each, context: { ...each.context, resultingState: undefined } }))
        )
      )
      stored.push(...all)
      yield* Soon.until("it is there", Effect.map(Tally.applied("tally_drive"), (count) => count === 3))
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("that breaks stops the processor, which would miss what it is not given", () =>
    Effect.gen(function*() {
      const { archive } = archiveOf([])
      const processor = yield* Effect.flatMap(
        Powerhouse.make([Tally.processor("tally")], {
          archive: { ...archive, since: () => Stream.die("broken") },
          sweepEvery: never
        }),
        first
      )
      const exit = yield* Effect.repeat(settled(() => processor.onOperations(operations("a", 1))), {
        until: Exit.isFailure
      })
      expect(failureOf(exit)).toMatchObject({ _tag: "ProcessorStopped", cause: "broken" })
    }).pipe(Effect.provide(ours(fresh))))

  it.scopedLive("that cannot be read for a while holds nothing up", () =>
    Effect.gen(function*() {
      const stored = numbered(operations("a", 3))
      const { archive } = archiveOf(stored)
      let isAway = true
      const away = new Powerhouse.Archive.ArchiveUnavailable({ what: "store", cause: "away" })
      const processor = yield* Effect.flatMap(
        Powerhouse.make([Tally.processor("tally")], {
          archive: {
            ...archive,
            since: (...at) => isAway ? Stream.fail(away) : archive.since(...at),
            between: (at) => isAway ? Stream.fail(away) : archive.between(at)
          },
          sweepEvery: "20 millis"
        }),
        first
      )
      yield* Effect.promise(() => processor.onOperations(operations("b", 1)))
      yield* Effect.promise(() => processor.onOperations([stored[2]]))
      expect(yield* Tally.applied("tally_drive")).toBe(1)
      isAway = false
      yield* Soon.until("what waited is there", Effect.map(Tally.applied("tally_drive"), (count) => count === 4))
    }).pipe(Effect.provide(ours(fresh))))
})

describe("what the first generation delivered", () => {
  it.scopedLive("a burst of 9,679 operations, 294 of them distinct, is applied once", () =>
    Effect.gen(function*() {
      const file = fileURLToPath(new URL("../data/g1-burst.ndjson.gz", import.meta.url))
      const strands = gunzipSync(readFileSync(file)).toString("utf8").trimEnd().split("\n")
        .map((line) => JSON.parse(line) as Recorded)
      const bridge = yield* Powerhouse.make([Tally.processor("tally")])
      const delivered = strands.reduce((sum, strand) => sum + strand.operations.length, 0)
      const distinct = new Map<string, Tally.Placed>()
      const drives = new Map<string, Powerhouse.Contract.TheirProcessor>()
      for (const { operations: all, ...place } of strands) {
        for (const each of all) {
          distinct.set(JSON.stringify([place.documentId, place.scope, each.index, each.skip, each.hash]), {
            ...place,
            ...each
          })
        }
        if (!drives.has(place.driveId)) {
          // The first generation tells a drive's id, and no header.
          drives.set(place.driveId, (yield* processorsOf(bridge, place.driveId))[0]!)
        }
      }
      yield* Effect.promise(() => Promise.all(strands.map((strand) => drives.get(strand.driveId)!.onStrands([strand]))))
      const inOrder = Array.from(distinct.values()).toSorted((a, b) => a.index - b.index || a.skip - b.skip)
      const tables = yield* Effect.forEach(Array.from(drives.keys()), (drive) => Tally.rows(`tally_${drive}`))
      expect([delivered, distinct.size]).toEqual([9_679, 294])
      expect(tables.flat().length).toBeGreaterThan(0)
      expect(tables.flat().toSorted(byPlace)).toEqual(Tally.fold(inOrder).toSorted(byPlace))
    }).pipe(Effect.provide(ours(Database.sqlite))))
})

/** A strand of the recording. */
interface Recorded {
  readonly driveId: string
  readonly documentId: string
  readonly scope: string
  readonly branch: string
  readonly operations: ReadonlyArray<Tally.Counted>
}

const byPlace = (a: Tally.Row, b: Tally.Row) =>
  JSON.stringify([a.documentId, a.scope]) < JSON.stringify([b.documentId, b.scope]) ? -1 : 1

describe("a record", () => {
  const records = (
    processor: ReturnType<typeof Tally.processor>,
    options: Powerhouse.Options = alone,
    drive = "drive"
  ) =>
    Effect.flatMap(
      Powerhouse.make([processor], options),
      (bridge) => Effect.promise(() => bridge.factory(drive))
    ).pipe(Effect.provide(ours(Database.sqlite)))

  it.scopedLive("asks for what the processor's filter wants, and leaves out what may be anything", () =>
    Effect.gen(function*() {
      const filter = { documentType: ["acme/any"], scope: ["*"], branch: [], driveId: ["drive"] }
      const [record] = yield* records(Tally.processor("tally", { filter }))
      expect(record?.filter).toEqual({ documentType: ["acme/any"] })
      expect(record?.id).toBe("tally")
      expect(record?.startFrom).toBe("beginning")
      expect(record?.processor.namespace).toBe("tally_drive")
    }))

  it.scopedLive("asks for no history where there is an archive to read it from, and hears of the drive's documents", () =>
    Effect.gen(function*() {
      const archive: Powerhouse.Archive.Archive = {
        since: () => Stream.empty,
        between: () => Stream.empty,
        document: () => Stream.empty,
        within: () => Effect.succeed(new Set()),
        head: Effect.succeed(0)
      }
      const [record, watcher] = yield* records(Tally.processor("tally"), { archive })
      expect(record?.startFrom).toBe("current")
      expect(watcher?.filter).toEqual({ documentId: ["drive"] })
    }))

  it.scopedLive("has a namespace of its own for each drive, whatever the drive is called", () =>
    Effect.gen(function*() {
      const names = ["b443d823-3e4d-4e60-ae44-45edafd5f632", "a drive", "a-drive", "ü", "x".repeat(300)]
      const found = []
      for (const name of names) {
        found.push((yield* records(Tally.processor("tally"), alone, name))[0]?.processor.namespace)
      }
      expect(new Set(found).size).toBe(names.length)
      expect(found[0]).toBe(`tally_${names[0]}`)
    }))

  it.scopedLive("without an archive, drives cannot be isolated", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(Powerhouse.make([Tally.processor("tally")], { isolated: true }))
      expect(String(exit)).toContain("drives are isolated by what the archive says")
    }).pipe(Effect.provide(ours(Database.sqlite))))

  it.scopedLive("of a processor that begins now has only what comes from now on", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const bridge = yield* Scope.extend(
        Powerhouse.make([Tally.processor("tally", { startFrom: "current" })], alone),
        scope
      )
      const [record] = yield* Effect.promise(() => bridge.factory("drive"))
      expect(record?.startFrom).toBe("current")
      // The first operation that it sees is where its stream begins.
      yield* Effect.promise(() => record!.processor.onOperations(operations("a", 3, 5)))
      expect(yield* Tally.applied("tally_drive")).toBe(3)
      yield* Effect.promise(() => record!.processor.onOperations(operations("a", 5)))
      expect(yield* Tally.applied("tally_drive")).toBe(3)
      yield* Scope.close(scope, Exit.void)
    }).pipe(Effect.provide(ours(Database.sqlite))))
})

describe("wake-ups", () => {
  it.scopedLive("come with each delivery, which is answered at once", () =>
    Effect.gen(function*() {
      const { factory, layer } = yield* Powerhouse.wakeups
      const wakeups = Context.get(yield* Layer.build(layer as Layer.Layer<Wakeups.Wakeups>), Wakeups.Wakeups)
      const [record] = yield* Effect.promise(() => factory("drive"))
      expect(record?.filter).toEqual({})
      const hint = yield* Effect.fork(Stream.runHead(wakeups.hints("any topic")))
      yield* Soon.until(
        "a hint has come",
        Effect.zipRight(
          Effect.promise(() => record!.processor.onOperations(operations("a", 1))),
          Effect.map(hint.poll, Option.isSome)
        )
      )
    }))
})
