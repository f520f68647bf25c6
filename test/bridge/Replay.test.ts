/**
 * Processors that replay documents, fed by a bridge: a real reactor delivers everything once, and what has to be given again
 * is read from its archive; where there is none, that is said at once.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Draft, Namespace, Policy, Powerhouse, Processor, Reactor, Source, Table } from "../../src/index.js"
import * as Inbox from "../../src/powerhouse/Inbox.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"
import * as Drive5 from "./Drive5.js"
import * as Reactor6 from "./Reactor6.js"
import * as Soon from "./Soon.js"

const silent = Logger.remove(Logger.defaultLogger)

/** What ours are run with, on an empty database of a dialect. */
const ours = (fresh: Effect.Effect<Database.Database, never, Scope.Scope>) =>
  Layer.unwrapScoped(Effect.map(fresh, (database) => Layer.merge(Store.layerMany(database), silent)))

const promise = Effect.promise

/** Every name that was given to a document and stands. */
const Named = Table.make("named", Schema.Struct({ document: Schema.String, place: Schema.Int, name: Schema.String }), {
  key: ["document", "place"],
  document: "document"
})

const isNaming = Schema.is(Schema.Struct({ name: Schema.String }))

const Names = Processor.make("names", {
  namespace: "names",
  history: "replay",
  filter: { documentType: ["powerhouse/document-model"] },
  migrations: { "0001_named": Draft.migration(Draft.initial([Named])) },
  tables: [Named],
  handler: Effect.succeed(
    Processor.onStrands((strands) =>
      Stream.mapEffect(
        strands,
        ({ documentId, operations }) =>
          Effect.forEach(operations, ({ error, index, input, type }) =>
            type === "SET_MODEL_NAME" && error === undefined && isNaming(input)
              ? Named.upsert({ document: documentId, place: index, name: input.name })
              : Effect.void, { discard: true })
      )
    )
  )
}).pipe(Processor.withPolicy(Policy.standard))

/** The names that stand of each document, the last that was given last. */
const standing = Effect.map(
  Namespace.query(
    "names_drive",
    Effect.flatMap(
      SqlClient.SqlClient,
      (sql) =>
        sql<
          { readonly document: string; readonly name: string }
        >`SELECT document, name FROM named ORDER BY document, place`
    )
  ).pipe(Effect.orElseSucceed(() => [])),
  (rows) => {
    const names: { [document: string]: ReadonlyArray<string> } = {}
    for (const { document, name } of rows) names[document] = [...names[document] ?? [], name]
    return names
  }
)

const become = (wanted: { readonly [document: string]: ReadonlyArray<string> }) =>
  Effect.zipRight(
    Soon.until(
      JSON.stringify(wanted),
      Effect.map(standing, (names) => JSON.stringify(names) === JSON.stringify(wanted))
    ),
    Effect.map(standing, (names) => expect(names).toEqual(wanted))
  )

describe.each(Database.dialects)(
  "a processor that replays documents, on $dialect",
  ({ fresh }) => {
    it.scopedLive("has what is left of them, from the archive of the current reactor", () =>
      Effect.gen(function*() {
        const reactor = yield* Effect.flatMap(Database.postgres, Reactor6.open)
        const bridge = yield* Powerhouse.make([Names], {
          archive: Powerhouse.ReactorArchive.make(reactor),
          sweepEvery: "100 millis"
        })
        yield* promise(() => reactor.createDrive("drive"))
        yield* promise(() => reactor.processorManager.registerFactory("ours", bridge.factory))
        for (const id of ["a", "b"]) {
          yield* promise(() => reactor.createDocument(id))
          yield* promise(() => reactor.addToDrive("drive", id))
        }
        const run = (id: string, ...actions: ReadonlyArray<object>) => promise(() => reactor.execute(id, ...actions))
        yield* run("a", reactor.setName("a1"), reactor.setName("a2"))
        yield* run("b", reactor.setName("b1"))
        yield* run("a", reactor.setName("a3"), reactor.refused(), reactor.setName("a4"))
        /** Ours become these, and their last ones are what the reactor says. */
        const agree = (wanted: { readonly [document: string]: ReadonlyArray<string> }) =>
          Effect.gen(function*() {
            yield* become(wanted)
            for (const [id, names] of Object.entries(wanted)) {
              expect((yield* promise(() => reactor.read(id))).state.global.name).toBe(names.at(-1))
            }
          })
        yield* agree({ a: ["a1", "a2", "a3", "a4"], b: ["b1"] })
        yield* run("a", reactor.undo())
        yield* run("b", reactor.undo())
        yield* agree({ a: ["a1", "a2", "a3"] })
        yield* run("b", reactor.setName("b2"))
        // What was refused has its place, and takes an undo.
        yield* run("a", reactor.undo())
        yield* run("a", reactor.undo())
        yield* agree({ a: ["a1", "a2"], b: ["b2"] })
        yield* run("a", reactor.setName("a5"), reactor.setName("a6"))
        yield* agree({ a: ["a1", "a2", "a5", "a6"], b: ["b2"] })
        const [outcome] = yield* bridge.outcomes
        expect(outcome?.waiting).toBe(0)
      }).pipe(Effect.provide(ours(fresh))))

    it.scopedLive("has what is left of them, from the storage of document-drive", () =>
      Effect.gen(function*() {
        const server = yield* promise(() => Drive5.open())
        const bridge = yield* Powerhouse.make([Names], {
          archive: Powerhouse.StorageArchive.make(server.storage),
          sweepEvery: "100 millis"
        })
        yield* promise(() => server.createDrive("drive"))
        yield* promise(() => server.processorManager.registerFactory("ours", bridge.factory))
        yield* promise(() => server.createDocument("drive", "a"))
        for (const text of ["a1", "a2", "a3"]) yield* promise(() => server.execute("a", server.setName(text)))
        yield* become({ a: ["a1", "a2", "a3"] })
        yield* promise(() => server.execute("a", server.undo()))
        yield* become({ a: ["a1", "a2"] })
        yield* promise(() => server.execute("a", server.setName("a4")))
        yield* become({ a: ["a1", "a2", "a4"] })
        expect((yield* promise(() => server.read("a"))).state.global.name).toBe("a4")
      }).pipe(Effect.provide(ours(fresh))))

    it.scopedLive("is refused at once where there is no archive, and told what to do", () =>
      Effect.gen(function*() {
        const reactor = yield* Effect.flatMap(Database.postgres, Reactor6.open)
        const bridge = yield* Powerhouse.make([Names], { isolated: false })
        yield* promise(() => reactor.createDrive("drive"))
        const [record] = yield* promise(() => bridge.factory({ id: "drive" }))
        const refusal = yield* Effect.either(Effect.tryPromise({
          try: () =>
            record!.processor.onOperations([{
              operation: {
                id: "1",
                index: 0,
                skip: 0,
                hash: "h",
                timestampUtcMs: "2026-01-01T00:00:00.000Z",
                action: { id: "1", type: "SET_MODEL_NAME", input: { name: "a1" } }
              },
              context: {
                documentId: "a",
                documentType: "powerhouse/document-model",
                scope: "global",
                branch: "main",
                ordinal: 1
              }
            }]),
          catch: (failure) => failure as Powerhouse.ProcessorStopped
        }))
        expect(refusal).toMatchObject(Either.left({ _tag: "ProcessorStopped", cause: { _tag: "SuppliedOnce" } }))
        expect(Either.getOrThrow(Either.flip(refusal)).message).toContain("give the bridge an archive")
        const [outcome] = yield* bridge.outcomes
        expect(outcome).toMatchObject({ phase: "halted", failure: { _tag: "SuppliedOnce" } })
      }).pipe(Effect.provide(ours(fresh))))

    it.scopedLive("is not rebuilt from what was delivered, and told so at once", () =>
      Effect.gen(function*() {
        const inbox = yield* Inbox.make<never>("drive", undefined)
        const recorded = Processor.make("recorded", {
          namespace: "recorded",
          migrations: { "0001_named": Draft.migration(Draft.initial([Named])) },
          tables: [Named],
          handler: Effect.succeed(Processor.onBatch(() => Effect.void))
        }).pipe(Processor.withPolicy(Policy.standard))
        yield* Effect.gen(function*() {
          const reactor = yield* Reactor.Reactor
          yield* inbox.opened
          for (const work of [Effect.asVoid(reactor.rebuild(recorded)), Effect.asVoid(reactor.verify(recorded))]) {
            const refusal = yield* Effect.flip(work)
            expect(refusal).toMatchObject({ _tag: "NotRebuildable", processor: "recorded" })
            expect(refusal.message).toContain("have the processor follow an OperationStore")
          }
        }).pipe(
          Effect.provide(Reactor.layer(recorded).pipe(Layer.provide(Layer.succeed(Source.Source, inbox.source))))
        )
      }).pipe(Effect.provide(ours(fresh))))
  }
)
