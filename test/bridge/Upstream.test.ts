/**
 * What the real system's own tests of processors check, checked of the bridge, by the titles that they have there (powerhouse
 * at 07fffd6b31). Those that say nothing about a processor of ours are listed in {@link without}, with the reason.
 *
 *     PM   packages/reactor/test/processors/processor-manager.test.ts
 *     MF   packages/reactor/test/processors/utils.test.ts
 *     IL   packages/document-drive/test/internal-listener.test.ts, at v5.3.2
 *     GP   test/codegen/tests/generate-processor.test.ts
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Scope from "effect/Scope"
import * as Test from "../../layers/Test.js"
import { Filter, Position, Powerhouse, Processor, Reactor, Source } from "../../src/index.js"
import type { Strand } from "../../src/index.js"
import type { Module } from "../../src/powerhouse/States.js"
import * as Database from "../support/Database.js"
import * as Feed from "../support/Feed.js"
import * as Store from "../support/Store.js"
import { TodoIndexer } from "./Legacy.js"
import type { OperationWithContext } from "./Legacy.js"
import { processors } from "./Real.js"
import type { Filter as TheirFilter } from "./Real.js"
import * as Run from "./Run.js"

const drives =
  "the real manager makes processors for the drives it sees; here whoever runs a reactor says for which drive"
const states = "there is no errored state that stays: a failure is retried, parked or halts, by the policy"

const without: { readonly [title: string]: string } = {
  "PM should detect drive creation and call factory with drive header": drives,
  "PM should initialize ViewState table entry":
    "its cursor is a row of our own, which test/store/Cursors.test.ts holds",
  "PM should discover existing drives from DocumentSnapshot on restart": drives,
  "PM should discover drives of all configured container types": drives,
  "PM should ignore documents whose type is outside the configured set": drives,
  "PM should detect drive creation from operations": drives,
  "PM should delete cursors on drive cleanup":
    "a cursor goes with its namespace; what is kept of a drive is its owner's say",
  "PM should no-op when retrying an active processor": states,
  "PM should continue processing when cursor persist fails":
    "what they go on without is what makes it exactly once: here the rows are taken back with it (test/store/Commit.test.ts)",
  "PM should clean up orphaned cursor rows when factory returns fewer processors":
    "a cursor goes by the processor's name, and not by its place in a list",
  "GP should split a comma separated document types value into one entry per type": "no code is generated here",
  "GP should omit filter fields with no values instead of emitting a wildcard": "no code is generated here",
  "GP should not emit a wildcard filter field when document types are given": "no code is generated here",
  "GP should not overwrite a customized processor on a fresh project": "no code is generated here",
  "GP the 12 cases that generate projects for apps and compile them": "no code is generated here"
}

const inTheirs = [
  "PM should detect drive creation and call factory with drive header",
  "PM should track processors for the created drive",
  "PM should route operations to processor with matching filter",
  "PM should not route operations that do not match filter",
  "PM should route all operations when filter is empty",
  "PM should filter by scope",
  "PM should filter by branch",
  "PM should filter by documentId",
  "PM should apply combined filters with AND logic",
  "PM should track registered factories via getAll",
  "PM should disconnect processors when factory is unregistered",
  "PM should remove factory processors after unregistration",
  "PM should create processors for existing drives when factory is registered late",
  "PM should continue routing to other processors when one throws",
  "PM should handle factory errors gracefully",
  "PM should initialize ViewState table entry",
  "PM should discover existing drives from DocumentSnapshot on restart",
  "PM should discover drives of all configured container types",
  "PM should ignore documents whose type is outside the configured set",
  "PM should detect drive creation from operations",
  "PM should route operations to matching processors",
  "PM should update ViewState after processing",
  "PM should persist cursor per processor",
  "PM should freeze cursor on error",
  "PM should not affect other processors when one errors",
  "PM should backfill on late registration",
  "PM should retry after error",
  "PM should restore cursors from DB on restart",
  "PM should support startFrom 'current'",
  "PM should delete cursors on drive cleanup",
  "PM should no-op when retrying an active processor",
  "PM should continue processing when cursor persist fails",
  "PM should clean up orphaned cursor rows when factory returns fewer processors",
  "PM should skip errored processor on subsequent batches",
  "PM should backfill a page too large to spread as function arguments",
  "MF should match all operations when filter is empty",
  "MF should match when documentType is in the filter array",
  "MF should not match when documentType is not in the filter array",
  "MF should match all when documentType array is empty",
  "MF should match when scope is in the filter array",
  "MF should not match when scope is not in the filter array",
  "MF should match when branch is in the filter array",
  "MF should not match when branch is not in the filter array",
  "MF should match when documentId is in the filter array",
  "MF should not match when documentId is not in the filter array",
  "MF should match any documentId when filter contains '*' wildcard",
  "MF should match when filter contains '*' wildcard among other IDs",
  "MF should match when all filter conditions are satisfied",
  "MF should not match when any filter condition fails",
  "MF should return true for the provided input that was failing",
  "IL should call transmit function of listener and acknowledge",
  "IL should call disconnect function of processor",
  "GP should split a comma separated document types value into one entry per type",
  "GP should omit filter fields with no values instead of emitting a wildcard",
  "GP should not emit a wildcard filter field when document types are given",
  "GP should run the generated relational db processor's migrations before returning it",
  "GP should not overwrite a customized processor on a fresh project",
  "GP should generate a processor, instrument it, plug into a reactor, and observe operations",
  "GP the 12 cases that generate projects for apps and compile them"
]

const checked: Array<string> = []

/** A title of theirs, noted as checked. */
const theirs = (title: string): string => {
  checked.push(title)
  return title
}

/** A class that keeps what it is given, and throws at what it is told to. */
const recorder = () => {
  const seen: Array<OperationWithContext> = []
  const told = { throwAt: (each: OperationWithContext): boolean => each === undefined, disconnected: 0 }
  class Recorder extends processors.RelationalDbProcessor<unknown> {
    async initAndUpgrade(): Promise<void> {}
    async onOperations(operations: ReadonlyArray<OperationWithContext>): Promise<void> {
      if (operations.some((each) => told.throwAt(each))) throw new Error("not this one")
      for (const each of operations) seen.push(each)
    }
    async onDisconnect(): Promise<void> {
      told.disconnected++
    }
  }
  return { Recorder, seen, told, documents: () => seen.map(({ context }) => context.documentId) }
}

const drive = "powerhouse/document-drive"

const strand = (documentId: string, count = 1, more: Partial<Test.StrandOptions> = {}) =>
  Test.strand({
    documentId,
    documentType: drive,
    operations: Array.from({ length: count }, (_, i) => ({ type: "SET_DRIVE_NAME", input: { name: `${i}` } })),
    ...more
  })

const make = (
  name: string,
  legacy: Powerhouse.RelationalProcessor.Class,
  filter: TheirFilter = {},
  more: object = {}
) => Run.decided(name, legacy, { filter, namespace: name, ...more })

const halting = (name: string, legacy: Powerhouse.RelationalProcessor.Class) =>
  Powerhouse.RelationalProcessor.make(name, legacy, { driveId: "d", namespace: name }).pipe(
    Processor.withPolicy({ ...Powerhouse.RelationalProcessor.policy, LegacyFailure: { _tag: "Halt" } })
  )

/** What a filter lets through of a drive, a folder of another branch, and a document of another type. */
const routed = (filter: TheirFilter) =>
  Effect.gen(function*() {
    const database = yield* Database.sqlite
    const { documents, Recorder } = recorder()
    yield* Run.run(
      database,
      [
        strand("drive"),
        strand("drive", 1, { scope: "document" }),
        strand("draft", 1, { branch: "draft" }),
        strand("todo", 1, { documentType: "acme/todo" })
      ],
      make("recorder", Recorder, filter)
    )
    return documents()
  })

describe("processor-manager.test.ts", () => {
  it.scopedLive.each<[string, TheirFilter, ReadonlyArray<string>]>([
    [theirs("PM should route operations to processor with matching filter"), { documentType: ["acme/todo"] }, ["todo"]],
    [theirs("PM should not route operations that do not match filter"), { documentType: ["none"] }, []],
    [theirs("PM should route all operations when filter is empty"), {}, ["drive", "drive", "draft", "todo"]],
    [theirs("PM should filter by scope"), { scope: ["document"] }, ["drive"]],
    [theirs("PM should filter by branch"), { branch: ["draft"] }, ["draft"]],
    [theirs("PM should filter by documentId"), { documentId: ["todo"] }, ["todo"]],
    [
      theirs("PM should apply combined filters with AND logic"),
      { documentType: [drive], scope: ["global"], branch: ["main"] },
      ["drive"]
    ],
    [theirs("PM should route operations to matching processors"), { documentType: [drive], branch: ["main"] }, [
      "drive",
      "drive"
    ]]
  ])("%s", ([, filter, expected]) => Effect.map(routed(filter), (found) => expect(found).toEqual(expected)))

  it.scopedLive(
    `${theirs("PM should track processors for the created drive")}; ${
      theirs("PM should track registered factories via getAll")
    }; ${theirs("PM should update ViewState after processing")}; ${theirs("PM should persist cursor per processor")}`,
    () =>
      Effect.gen(function*() {
        const [one, two] = [recorder(), recorder()]
        const outcomes = yield* Run.run(
          yield* Database.sqlite,
          [strand("d1"), strand("d2"), strand("d3")],
          make("one", one.Recorder),
          make("two", two.Recorder, { documentId: ["d1"] })
        )
        expect(outcomes).toMatchObject([
          { processor: "one", namespace: "one", phase: "ended", position: 3n, totals: { operations: 3 } },
          { processor: "two", namespace: "two", phase: "ended", position: 3n, totals: { operations: 1 } }
        ])
      })
  )

  it.scopedLive(
    `${theirs("PM should disconnect processors when factory is unregistered")}; ${
      theirs("PM should remove factory processors after unregistration")
    }`,
    () =>
      Effect.gen(function*() {
        const database = yield* Database.sqlite
        const { documents, Recorder, told } = recorder()
        const feed = yield* Feed.make("feed")
        const scope = yield* Scope.make()
        yield* feed.push(strand("d1"))
        const reactor = yield* Layer.buildWithScope(
          Reactor.layer(make("recorder", Recorder)).pipe(
            Layer.provide(Layer.succeed(Source.Source, feed.source)),
            Layer.provide(Layer.merge(Store.layerMany(database), Logger.remove(Logger.defaultLogger)))
          ),
          scope
        )
        yield* Effect.provide(
          Effect.flatMap(Reactor.Reactor, ({ waitFor }) =>
            waitFor(make("recorder", Recorder), { position: Position.make(1n) })),
          reactor
        )
        expect(told.disconnected).toBe(0)
        yield* Scope.close(scope, Exit.void)
        expect(told.disconnected).toBe(1)
        yield* feed.push(strand("d2"))
        expect(documents()).toEqual(["d1"])
      })
  )

  it.scopedLive(
    `${theirs("PM should create processors for existing drives when factory is registered late")}; ${
      theirs("PM should backfill on late registration")
    }; ${theirs("PM should restore cursors from DB on restart")}`,
    () =>
      Effect.gen(function*() {
        const database = yield* Database.sqlite
        const [early, late] = [recorder(), recorder()]
        const strands = [strand("d1", 3), strand("d2"), strand("d3", 2)]
        yield* Run.run(database, strands.slice(0, 2), make("early", early.Recorder))
        yield* Run.run(database, strands, make("early", early.Recorder), make("late", late.Recorder))
        const all = ["d1", "d1", "d1", "d2", "d3", "d3"]
        expect(early.documents()).toEqual(all)
        expect(late.documents()).toEqual(all)
      })
  )

  it.scopedLive(
    `${theirs("PM should continue routing to other processors when one throws")}; ${
      theirs("PM should not affect other processors when one errors")
    }; ${theirs("PM should freeze cursor on error")}; ${
      theirs("PM should skip errored processor on subsequent batches")
    }`,
    () =>
      Effect.gen(function*() {
        const [bad, good] = [recorder(), recorder()]
        bad.told.throwAt = ({ context }) => context.documentId === "d2"
        const outcomes = yield* Run.run(
          yield* Database.sqlite,
          [strand("d1"), strand("d2"), strand("d3")],
          halting("bad", bad.Recorder),
          make("good", good.Recorder)
        )
        expect(outcomes).toMatchObject([
          { processor: "bad", phase: "halted", failure: { at: { documentId: "d2" } } },
          { processor: "good", phase: "ended", position: 3n }
        ])
        expect(outcomes[0]?.position).toBeLessThan(2n)
        expect(good.documents()).toEqual(["d1", "d2", "d3"])
        expect(bad.documents()).not.toContain("d3")
      })
  )

  it.scopedLive(theirs("PM should handle factory errors gracefully"), () =>
    Effect.gen(function*() {
      const good = recorder()
      const broken = Powerhouse.RelationalProcessor.fromFactory(
        "broken",
        () => Promise.reject(new Error("no factory")),
        { driveId: "d", namespace: "broken", generation: "G3" }
      ).pipe(Processor.withPolicy(Powerhouse.RelationalProcessor.policy))
      const outcomes = yield* Run.run(yield* Database.sqlite, [strand("d1")], broken, make("good", good.Recorder))
      expect(outcomes).toMatchObject([{
        phase: "halted",
        failure: { _tag: "Defect", cause: { _tag: "LegacyFailure" } }
      }, { phase: "ended" }])
    }))

  it.scopedLive(theirs("PM should retry after error"), () =>
    Effect.gen(function*() {
      const { documents, Recorder, told } = recorder()
      let failures = 2
      told.throwAt = ({ context }) => context.documentId === "d2" && failures-- > 0
      const processor = Powerhouse.RelationalProcessor.make("recorder", Recorder, { driveId: "d" }).pipe(
        Processor.withPolicy(Powerhouse.RelationalProcessor.policy)
      )
      const [outcome] = yield* Run.run(yield* Database.sqlite, [strand("d1"), strand("d2"), strand("d3")], processor)
      expect(outcome).toMatchObject({ phase: "ended", waiting: 0, totals: { operations: 3 } })
      expect(documents().at(-1)).toBe("d3")
    }))

  it.scopedLive(theirs("PM should support startFrom 'current'"), () =>
    Effect.gen(function*() {
      const database = yield* Database.sqlite
      const { documents, Recorder } = recorder()
      const processor = make("recorder", Recorder, {}, { startFrom: "current" })
      yield* Run.run(database, [strand("d1")], processor)
      yield* Run.run(database, [strand("d1"), strand("d2")], processor)
      expect(documents()).toEqual(["d2"])
    }))

  it.scopedLive(
    theirs("PM should backfill a page too large to spread as function arguments"),
    () =>
      Effect.gen(function*() {
        const calls: Array<number> = []
        class Counting extends processors.RelationalDbProcessor<unknown> {
          async initAndUpgrade(): Promise<void> {}
          async onOperations(operations: ReadonlyArray<unknown>): Promise<void> {
            calls.push(operations.length)
          }
          async onDisconnect(): Promise<void> {}
        }
        const batch = { operations: 200_000, bytes: 1e9 }
        yield* Run.run(yield* Database.sqlite, [strand("d1", 130_000)], make("counting", Counting, {}, { batch }))
        expect(calls).toEqual([130_000])
      })
  )
})

describe("utils.test.ts", () => {
  const of = (fields: Partial<Test.StrandOptions>): Strand.Strand => ({
    ...strand(fields.documentId ?? "doc-1", 1, { documentType: "powerhouse/document-model", ...fields }),
    position: Position.make(1n)
  })
  const types = ["powerhouse/document-model", "powerhouse/package"]
  const full = { branch: ["main"], documentId: ["*"], documentType: types, scope: ["global"] }

  it.each<[string, TheirFilter, Partial<Test.StrandOptions>, boolean]>([
    [theirs("MF should match all operations when filter is empty"), {}, {}, true],
    [theirs("MF should match when documentType is in the filter array"), { documentType: types }, {}, true],
    [theirs("MF should not match when documentType is not in the filter array"), { documentType: types }, {
      documentType: "powerhouse/unknown"
    }, false],
    [theirs("MF should match all when documentType array is empty"), { documentType: [] }, {}, true],
    [theirs("MF should match when scope is in the filter array"), { scope: ["global", "local"] }, {}, true],
    [theirs("MF should not match when scope is not in the filter array"), { scope: ["global"] }, {
      scope: "document"
    }, false],
    [theirs("MF should match when branch is in the filter array"), { branch: ["main", "develop"] }, {}, true],
    [theirs("MF should not match when branch is not in the filter array"), { branch: ["main"] }, {
      branch: "feature-branch"
    }, false],
    [theirs("MF should match when documentId is in the filter array"), { documentId: ["doc-1", "doc-2"] }, {}, true],
    [theirs("MF should not match when documentId is not in the filter array"), { documentId: ["doc-2"] }, {}, false],
    [theirs("MF should match any documentId when filter contains '*' wildcard"), { documentId: ["*"] }, {}, true],
    [theirs("MF should match when filter contains '*' wildcard among other IDs"), { documentId: ["x", "*"] }, {}, true],
    [theirs("MF should match when all filter conditions are satisfied"), full, { documentId: "b82e44f0" }, true],
    [theirs("MF should not match when any filter condition fails"), full, { scope: "local" }, false],
    [theirs("MF should return true for the provided input that was failing"), full, {
      documentId: "b82e44f0-dd03-4532-a048-cb48246a784c"
    }, true]
  ])("%s", (_, filter, fields, expected) => {
    expect(Filter.matches(filter, of(fields), "reactor")).toBe(expected)
  })

  it("a star in another field than documentId means any in G1 and G2, and the star itself in G3", () => {
    for (const field of ["documentType", "scope", "branch"] as const) {
      expect(Filter.matches({ [field]: ["*"] }, of({}), "reactor")).toBe(false)
      expect(Filter.matches({ [field]: ["*"] }, of({}), "drive")).toBe(true)
    }
  })
})

describe("internal-listener.test.ts", () => {
  it.scopedLive(
    `${theirs("IL should call transmit function of listener and acknowledge")}; ${
      theirs("IL should call disconnect function of processor")
    }`,
    () =>
      Effect.gen(function*() {
        const { v5 } = (yield* Effect.promise(() =>
          import(/* @vite-ignore */ new URL("../powerhouse/models.mjs", import.meta.url).href)
        )) as { readonly v5: Module }
        const calls: Array<unknown> = []
        let disconnected = 0
        class Listener extends processors.RelationalDbProcessor<unknown> {
          async initAndUpgrade(): Promise<void> {}
          async onStrands(strands: ReadonlyArray<unknown>): Promise<void> {
            calls.push(strands)
          }
          async onDisconnect(): Promise<void> {
            disconnected++
          }
        }
        const type = "powerhouse/document-model"
        const named = (from: number, name: string) =>
          Test.strand({
            documentId: "doc",
            documentType: type,
            driveId: "drive",
            from,
            operations: [{ type: "SET_MODEL_NAME", input: { name } }]
          })
        const [outcome] = yield* Run.run(
          yield* Database.sqlite,
          // The announcement of an empty document, which theirs delivers, carries nothing that could be committed.
          [strand("doc", 0, { documentType: type, driveId: "drive" }), named(0, "test"), named(1, "test 2")],
          Run.decided("listener", Listener, {
            driveId: "drive",
            models: { [type]: v5 },
            filter: { branch: ["main"], documentId: ["*"], documentType: ["*"], scope: ["global"] },
            batch: { operations: 1 }
          })
        )
        const expected = (index: number, name: string, before: string) => ({
          branch: "main",
          documentId: "doc",
          documentType: type,
          driveId: "drive",
          scope: "global",
          state: { name },
          operations: [{
            index,
            skip: 0,
            type: "SET_MODEL_NAME",
            input: { name },
            action: { scope: "global", type: "SET_MODEL_NAME", input: { name } },
            previousState: { name: before },
            state: { name }
          }]
        })
        expect(calls).toMatchObject([[expected(0, "test", "")], [expected(1, "test 2", "test")]])
        expect(outcome).toMatchObject({ phase: "ended", position: 3n })
        expect(disconnected).toBe(1)
      })
  )
})

describe("generate-processor.test.ts", () => {
  it.scopedLive(
    `${theirs("GP should run the generated relational db processor's migrations before returning it")}; ${
      theirs("GP should generate a processor, instrument it, plug into a reactor, and observe operations")
    }`,
    () =>
      Effect.gen(function*() {
        const database = yield* Database.postgres
        // As the generated factory has it: it makes the namespace, the instance and its tables by itself.
        const factory = async (relationalDb: {
          readonly createNamespace: (namespace: string) => Promise<never>
        }) => {
          const namespace = TodoIndexer.getNamespace("drive")
          const filter = { branch: ["main"], documentId: ["*"], documentType: [drive], scope: ["global"] }
          const processor = new TodoIndexer(namespace, filter, await relationalDb.createNamespace(namespace))
          await processor.initAndUpgrade()
          return [{ processor, filter }]
        }
        const processor = Powerhouse.RelationalProcessor.fromFactory("todo", factory, {
          driveId: "drive",
          generation: "G3",
          namespace: TodoIndexer.getNamespace("drive")
        }).pipe(Processor.withPolicy(Powerhouse.RelationalProcessor.policy))
        yield* Run.run(database, [strand("d1", 2)], processor)
        expect(yield* Run.rows(database, TodoIndexer.getNamespace("drive"), "todo")).toHaveLength(2)
      })
  )
})

describe("this file", () => {
  it("leaves out no case of theirs without a reason", () => {
    expect([...checked, ...Object.keys(without)].sort((a, b) => a.localeCompare(b))).toEqual(
      [...inTheirs].sort((a, b) => a.localeCompare(b))
    )
    expect(Object.values(without).every((reason) => reason.length > 20)).toBe(true)
  })
})
