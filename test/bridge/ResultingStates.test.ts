/**
 * The states that the real reactor tells a processor live, and leaves out when it catches up: a class of theirs in ours has
 * the same ones, live, in a backfill and again.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type * as Scope from "effect/Scope"
import type { Kysely } from "kysely"
import { Envelope, Position, Powerhouse, Reactor, Source } from "../../src/index.js"
import { ResultingStates } from "../../src/powerhouse/ResultingStates.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"
import type { OperationWithContext } from "./Legacy.js"
import * as Reactor6 from "./Reactor6.js"
import { processors } from "./Real.js"
import * as Run from "./Run.js"
import * as Soon from "./Soon.js"

const promise = Effect.promise
const silent = Logger.remove(Logger.defaultLogger)

interface Schema {
  told: { key: string; name: string | null; state: string | null }
}

/** Keeps what it is told of the state, and the name that is in it, as the recipes for search indexes do. */
class Telling extends processors.RelationalDbProcessor<Schema> {
  async initAndUpgrade(): Promise<void> {
    await (this.relationalDb as unknown as Kysely<unknown>).schema.createTable("told").ifNotExists()
      .addColumn("key", "varchar(255)", (column) => column.primaryKey())
      .addColumn("name", "text")
      .addColumn("state", "text")
      .execute()
  }

  async onOperations(operations: ReadonlyArray<OperationWithContext>): Promise<void> {
    for (const { context, operation } of operations) {
      const state = context.resultingState ?? null
      const { global } = JSON.parse(state ?? "{}") as { readonly global?: { readonly name?: string } }
      const key = `${context.documentId} ${context.scope} ${operation.index}`
      await this.relationalDb.insertInto("told").values({ key, name: global?.name ?? null, state }).execute()
    }
  }

  async onDisconnect(): Promise<void> {}
}

/**
 * A state to be compared. Of the other scopes the real header counts what it had in its cache, and at an undo what is left.
 */
const comparable = (
  text: string | null | undefined,
  { context: { scope }, operation }: Reactor6.Delivered
): unknown => {
  if (text === null || text === undefined) return text ?? null
  const { header, ...state } = JSON.parse(text) as {
    readonly header: { readonly revision: { readonly [scope: string]: number } }
  }
  const revision = operation.action.type === "NOOP" ? undefined : header.revision[scope]
  return { ...state, header: { ...header, revision } }
}

/** A reactor with what it has told a processor live. */
const told = Effect.gen(function*() {
  const database = yield* Database.postgres
  const reactor = yield* Reactor6.open(database)
  const live: Array<Reactor6.Delivered> = []
  yield* promise(() => reactor.createDrive("drive"))
  yield* promise(() =>
    reactor.processorManager.registerFactory("theirs", () => [{
      filter: {},
      processor: {
        onOperations: async (operations: ReadonlyArray<Reactor6.Delivered>) => {
          live.push(...operations)
        },
        onDisconnect: () => Promise.resolve()
      }
    }])
  )
  const write = Effect.gen(function*() {
    const run = (id: string, ...actions: ReadonlyArray<object>) => promise(() => reactor.execute(id, ...actions))
    for (const id of ["a", "b", "c"]) {
      yield* promise(() => reactor.createDocument(id))
      yield* promise(() => reactor.addToDrive("drive", id))
    }
    yield* run("drive", reactor.addFile("a"), reactor.addFile("a"), reactor.addFile("b"))
    yield* run("a", reactor.setName("a1"), reactor.setDescription("first"))
    yield* run("b", reactor.setName("b1"), reactor.refused())
    yield* run("a", reactor.setName("a2"))
    yield* run("a", reactor.undo())
    yield* run("a", reactor.undo())
    yield* promise(() => reactor.addToDrive("a", "b"))
    yield* run("a", reactor.setName("a3"), reactor.setName("a4"))
    yield* promise(() => reactor.deleteDocument("c"))
    const stored = yield* promise(() => reactor.stored())
    yield* Soon.until(
      "the reactor has told all",
      Effect.sync(() =>
        stored.every(({ context }) =>
          context.ordinal <= 2 || live.some((one) => one.context.ordinal === context.ordinal)
        )
      )
    )
    return stored
  })
  return { database, reactor, live, write }
})

const store = (database: Database.PostgresDatabase) =>
  Powerhouse.OperationStore.layer({ name: "store", pauses: { minMillis: 2, maxMillis: 20 } }).pipe(
    Layer.provide(Store.layer(database))
  )

describe.each(Database.dialects)("a class of theirs, on $dialect", ({ fresh }) => {
  const processorOf = (models: Powerhouse.RelationalProcessor.Options["models"], name: string, scope?: string) =>
    Run.decided(name, Telling, {
      namespace: name,
      tables: "ours",
      ...(models === undefined ? {} : { models }),
      ...(scope === undefined ? {} : { filter: { scope: [scope] } })
    })

  /** What a processor that follows the reactor's store was told, once it was told so much. */
  const follow = <A>(
    ours: Database.Database,
    theirs: Database.PostgresDatabase,
    processor: ReturnType<typeof processorOf>,
    work: Effect.Effect<A, never, Scope.Scope>,
    count: (found: A) => number
  ) =>
    Effect.gen(function*() {
      const found = yield* work
      const rows = Run.rows(ours, processor.namespace, "told", "ours") as Effect.Effect<ReadonlyArray<Schema["told"]>>
      const wanted = count(found)
      yield* Soon.until(
        `${processor.name} has ${wanted}`,
        Effect.map(Effect.catchAllCause(rows, () => Effect.succeed([])), ({ length }) => length === wanted)
      )
      return { found, rows: new Map((yield* rows).map((row) => [row.key, row])) }
    }).pipe(
      Effect.provide(
        Reactor.layer(processor).pipe(
          Layer.provide(store(theirs)),
          Layer.provide(Store.layerMany(ours)),
          Layer.provide(silent)
        )
      )
    )

  it.scopedLive("is given the states that the real reactor tells live, live and in a backfill", () =>
    Effect.gen(function*() {
      const models = yield* promise(() => Reactor6.modules())
      const { database, live, write } = yield* told
      const ours = yield* fresh
      const all = ({ length }: ReadonlyArray<unknown>) => length
      const first = yield* follow(ours, database, processorOf(models, "live"), write, all)
      const again = yield* follow(ours, database, processorOf(models, "again"), Effect.succeed(first.found), all)
      const withStates = live.filter(({ context }) => context.resultingState !== undefined)
      expect(withStates.length).toBeGreaterThan(20)
      for (const one of withStates) {
        const key = `${one.context.documentId} ${one.context.scope} ${one.operation.index}`
        const expected = { key, state: comparable(one.context.resultingState, one) }
        expect({ key, state: comparable(first.rows.get(key)?.state, one) }).toEqual(expected)
      }
      expect(again.rows).toEqual(first.rows)
      expect(first.rows.get("a global 6")?.name).toBe("a4")
      expect(first.rows.get("a global 4")?.name).toBe("a1")
    }))

  it.scopedLive("is given the same where it wants one scope alone, and none where nobody gave a model", () =>
    Effect.gen(function*() {
      const models = yield* promise(() => Reactor6.modules())
      const { database, live, write } = yield* told
      const ours = yield* fresh
      const some = (stored: ReadonlyArray<Reactor6.Delivered>) =>
        stored.filter(({ context }) => context.scope === "global").length
      const { found, rows } = yield* follow(ours, database, processorOf(models, "global_only", "global"), write, some)
      for (const one of live) {
        const { context, operation } = one
        const row = rows.get(`${context.documentId} ${context.scope} ${operation.index}`)
        if (context.scope !== "global") expect(row).toBeUndefined()
        else expect(comparable(row?.state, one)).toEqual(comparable(context.resultingState, one))
      }
      const bare = yield* follow(
        ours,
        database,
        processorOf(undefined, "bare", "global"),
        Effect.succeed(found),
        some
      )
      expect(Array.from(bare.rows.values(), ({ state }) => state)).toEqual(Array.from(bare.rows, () => null))
    }))
})

describe("resulting states", () => {
  it.scopedLive("are the same for a strand that is tried again, in pieces, and for who begins late", () =>
    Effect.gen(function*() {
      const models = yield* promise(() => Reactor6.modules())
      const stored = yield* (yield* told).write
      const strands = stored.flatMap((one) => Either.getOrThrow(Envelope.decode(one)))
        .map((strand, i) => ({ ...strand, position: Position.make(BigInt(i + 1)) }))
      const source = Source.fromIterable("stored", strands)
      const straight = yield* Effect.forEach(strands, new ResultingStates(models, source).of)
      const states = new ResultingStates(models, source)
      for (let from = 0; from < strands.length; from += 4) {
        const batch = Array.from(strands.slice(from, from + 6).entries())
        for (const [i, strand] of [...batch, ...batch, ...batch.slice(3)]) {
          expect(yield* states.of(strand)).toEqual(straight[from + i])
          expect(yield* new ResultingStates(models, source).of(strand)).toEqual(straight[from + i])
        }
      }
      // One whose creation is not there has none.
      const late = strands.filter(({ documentId, scope }) => documentId === "a" && scope === "global")
      const headless = new ResultingStates(models, Source.fromIterable("stored", late))
      expect(yield* headless.of({ ...late[0]!, position: Position.make(1n) })).toEqual([undefined])
    }))
})
