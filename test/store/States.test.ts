/**
 * States: what a processor is told of a document's state, and what is stored of it, is what the real document has.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { isDeepStrictEqual } from "node:util"
import { gunzipSync } from "node:zlib"
import * as Test from "../../layers/Test.js"
import * as DocumentModel from "../../src/domain/DocumentModel.js"
import type { Operation } from "../../src/domain/Operation.js"
import * as Position from "../../src/domain/Position.js"
import type { Scope } from "../../src/domain/Strand.js"
import { decode } from "../../src/ingest/Envelope.js"
import * as Source from "../../src/ingest/Source.js"
import * as Policy from "../../src/process/Policy.js"
import * as Processor from "../../src/process/Processor.js"
import * as DeadLetters from "../../src/store/DeadLetters.js"
import { stateMax } from "../../src/store/States.js"
import * as Subscription from "../../src/Subscription.js"
import * as Table from "../../src/table/Table.js"
import * as Follow from "../guarantees/Follow.js"
import * as Database from "../support/Database.js"
import * as Lists from "../support/Lists.js"
import { recorded } from "../support/RealHistories.js"
import type { ListOperation } from "../support/RealHistories.js"
import * as Store from "../support/Store.js"

const histories = ["rebuild-2", "live-2", "live-1", "live-1-v4", "rebuild-1"].flatMap((truth) =>
  recorded().filter((each) =>
    each.truth === truth && Lists.isWhole(each) && each.steps.every(([, left]) => left !== null)
  )
    .slice(0, 8)
)

const op = (index: number, skip = 0, number = index): ListOperation => ({ type: "PUSH", index, skip, number })
const mark = (index: number): ListOperation => ({ type: "NOOP", index, skip: 1, number: -1 })
const d = (documentId: string, ...operations: ReadonlyArray<ListOperation>) => Lists.strand(documentId, operations)

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  const kept = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient>) =>
    Effect.flatMap(fresh, (database) => Effect.provide(effect, Store.layer(database)))

  const key = Follow.keyOf(Lists.make({ history: "replay" }), "s")
  const states = Effect.map(Lists.states, Lists.sorted)
  const sourced = (strands: ReadonlyArray<Source.Unplaced>) =>
    Layer.succeed(Source.Source, Source.fromIterable("s", strands))

  describe.each(["replay", "append"] as const)("%s", (history) => {
    it.scopedLive.each([1, 4, 1_000])(
      "the state is that of the real document after each commit, in batches of %i operations",
      (operations) =>
        kept(Effect.gen(function*() {
          const world = Lists.worldOf(histories)
          const processor = Lists.make({ history, wantsState: true, batch: { operations } })
          yield* Follow.prepare(processor)
          const wrong: Array<string> = []
          yield* Subscription.commits(processor).pipe(
            Stream.runForEachChunk((commits) =>
              Effect.gen(function*() {
                const position = Array.from(commits).at(-1)?.position ?? Position.origin
                const wanted = Lists.sorted(world.at(position)).join()
                if ((yield* states).join() !== wanted) wrong.push(`the states at ${position}`)
                if (Lists.sorted(yield* Lists.lists).join() !== wanted) wrong.push(`the rows at ${position}`)
              })
            ),
            Effect.provide(sourced(world.strands))
          )
          expect(wrong).toEqual([])
          expect(yield* states).toEqual(Lists.sorted(world.at(BigInt(world.strands.length))))
        }))
    )

    it.scopedLive("a document's state goes on without what the processor left out, and has it", () =>
      kept(Effect.gen(function*() {
        const processor = Lists.make({
          history,
          wantsState: true,
          batch: { operations: 2 },
          before: (_, { index }) => index === 1 || index === 5 ? new Lists.Refused({ number: index }) : Effect.void,
          policy: { Refused: Policy.skip }
        })
        const strands = [d("a", op(0), op(1), op(2)), d("a", op(3), mark(4), op(5), op(6, 1)), d("a", mark(7))]
        for (const count of [1, 2, 3]) yield* Follow.follow(processor, "s", strands.slice(0, count))
        // By protocol 2 the mark 4 counts again once 6 skips over 5; the mark 7 undoes 6.
        expect(yield* states).toEqual(["a: 0 1"])
        expect(Lists.sorted(yield* Lists.lists)).toEqual(["a: 0"])
      })))

    it.scopedLive("an operation that is left out takes back in the state what it takes back, and is in it", () =>
      kept(Effect.gen(function*() {
        const processor = Lists.make({
          history,
          wantsState: true,
          before: (_, { skip }) => skip > 0 ? new Lists.Refused({ number: 2 }) : Effect.void,
          policy: { Refused: Policy.skip }
        })
        const strands = [d("a", op(0), op(1)), d("a", op(2, 1), op(3))]
        for (const count of [1, 2]) yield* Follow.follow(processor, "s", strands.slice(0, count))
        expect(yield* states).toEqual(["a: 0 2 3"])
        expect(Lists.sorted(yield* Lists.lists)).toEqual(["a: 0 3"])
      })))

    it.scopedLive("a document that waits keeps its state, and comes to the same once it goes on", () =>
      kept(Effect.gen(function*() {
        let isCured = false
        const processor = Lists.make({
          history,
          wantsState: true,
          batch: { operations: 2 },
          before: (_, { index }) => !isCured && index === 2 ? new Lists.Refused({ number: 2 }) : Effect.void
        })
        const strands = [d("a", op(0), op(1)), d("b", op(0)), d("a", op(2), op(3), mark(4)), d("b", op(1))]
        yield* Follow.follow(processor, "s", strands)
        expect(yield* states).toEqual(["a: 0 1", "b: 0 1"])
        isCured = true
        yield* Effect.provide(DeadLetters.retry(processor, key.source, "a"), sourced(strands))
        expect(yield* states).toEqual(["a: 0 1 2", "b: 0 1"])
        expect(Lists.sorted(yield* Lists.lists)).toEqual(["a: 0 1 2", "b: 0 1"])
      })))

    it.scopedLive("a processor that wants state from today on is given that of all that was before", () =>
      kept(Effect.gen(function*() {
        const strands = [d("a", op(0), op(1), op(2), mark(3)), d("b", op(0)), d("a", op(4)), d("a", op(5, 1))]
        yield* Follow.follow(Lists.make({ history }), "s", strands.slice(0, 2))
        expect(yield* states).toEqual([])
        yield* Follow.follow(Lists.make({ history, wantsState: true }), "s", strands.slice(0, 3))
        expect(yield* states).toEqual(["a: 0 1 4"])
        yield* Follow.follow(Lists.make({ history, wantsState: true }), "s", strands)
        // The mark 3 counts again once 5 skips over 4.
        expect(yield* states).toEqual(["a: 0 5"])
        expect(Lists.sorted(yield* Lists.lists)).toEqual(["a: 0 5", "b: 0"])
      })))
  })

  it.scopedLive("a letter that was given up is in the state of its document, which the source tells anew", () =>
    kept(Effect.gen(function*() {
      const processor = Lists.make({
        history: "replay",
        wantsState: true,
        before: (_, { index }) => index === 1 ? new Lists.Refused({ number: 1 }) : Effect.void
      })
      const strands = [d("a", op(0)), d("a", op(1), op(2))]
      yield* Follow.follow(processor, "s", strands)
      const [letter] = yield* DeadLetters.list(key)
      yield* DeadLetters.drop(key, letter!.ordinal)
      yield* Effect.provide(DeadLetters.retry(processor, key.source, "a"), sourced(strands))
      expect(yield* states).toEqual(["a: 0 1 2"])
      expect(Lists.sorted(yield* Lists.lists)).toEqual(["a: 0 2"])
    })))

  const Notes = Table.make("notes", Schema.Struct({ document: Schema.String, text: Schema.String }), {
    key: ["document"],
    document: "document"
  })
  const noting = <State>(
    folding: DocumentModel.Folding<State>,
    note: (state: State) => string
  ) => {
    const Note = DocumentModel.make("test/note", { WRITE: Schema.Struct({ size: Schema.Int }) }, { state: folding })
    return Processor.make("noting", {
      namespace: "notes",
      history: "replay",
      tables: [Notes],
      migrations: { "0001_notes": { up: createNotes, down: Effect.void } },
      handler: Processor.onOperations(Note, {
        WRITE: ({ state, strand }) => Notes.upsert({ document: strand.documentId, text: note(state) })
      })
    }).pipe(Processor.withPolicy(Policy.standard))
  }
  const createNotes = Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql`CREATE TABLE notes (document TEXT PRIMARY KEY, text TEXT NOT NULL)`
  )
  const writes = (documentId: string, ...sizes: ReadonlyArray<number>) =>
    Test.strand({
      documentId,
      documentType: "test/note",
      operations: sizes.map((size) => ({ type: "WRITE", input: { size } }))
    })
  const sizeOf = ({ input }: Operation): number => (input as { readonly size: number }).size
  const letters = Effect.map(
    DeadLetters.list({ ...key, processor: Processor.ProcessorName.make("noting") }),
    (all) =>
      all.map(({ cause, operation, reason, strand }) =>
        `${strand.documentId} ${operation.index} ${cause}: ${reason.replace(/^.*\): /, "")}`
      )
  )
  const texts = Effect.flatMap(
    SqlClient.SqlClient,
    (sql) =>
      Effect.map(
        sql<{ readonly text: string }>`SELECT text FROM notes ORDER BY document`,
        (all) => all.map(({ text }) => text)
      )
  )

  it.scopedLive("an operation that its reducer does not take is malformed, and its neighbours are not", () =>
    kept(Effect.gen(function*() {
      const processor = noting({
        initial: 0,
        reduce: (sum, operation) => {
          if (sizeOf(operation) < 0) throw new Error("no size is negative")
          return sum + sizeOf(operation)
        }
      }, String)
      yield* Follow.follow(processor, "s", [writes("a", 1, 2), writes("b", 5, -1, 5), writes("c", 7)])
      expect(yield* texts).toEqual(["3", "5", "7"])
      expect(yield* letters).toEqual([
        "b 1 MalformedOperation: the model's reducer does not take it: Error: no size is negative",
        "b 2 Queued: waits for earlier operations of its document"
      ])
    })))

  it.scopedLive("what the document itself refused is not folded", () =>
    kept(Effect.gen(function*() {
      const processor = noting({ initial: 0, reduce: (sum, operation) => sum + sizeOf(operation) }, String)
      const refused = { type: "WRITE", input: { size: 100 }, error: "too much" }
      const write = (size: number) => ({ type: "WRITE", input: { size } })
      yield* Follow.follow(processor, "s", [
        Test.strand({ documentId: "a", documentType: "test/note", operations: [write(1), refused, write(2)] })
      ])
      expect(yield* texts).toEqual(["3"])
    })))

  it.scopedLive("a state that has become too large parks the operation that made it so", () =>
    kept(Effect.gen(function*() {
      const processor = noting({
        initial: "",
        reduce: (text, operation) => text + "x".repeat(sizeOf(operation))
      }, (text) => String(text.length))
      yield* Follow.follow(processor, "s", [writes("a", 3), writes("b", 2, stateMax), writes("c", 4)])
      expect(yield* texts).toEqual(["3", "2", "4"])
      expect(yield* letters).toEqual([
        `b 1 MalformedOperation: the document's state takes ${
          stateMax + 4
        } characters, and ${stateMax} are kept at most`
      ])
    })))

  // Node's own import, since Vite would look into the packages.
  const module = new URL("../powerhouse/reducers.mjs", import.meta.url)

  it.scopedLive.each(
    ["g3-reshuffle.ndjson.gz", "g3-operations.ndjson.gz"].flatMap((file) =>
      (["replay", "append"] as const).map((history) => [file, history] as const)
    )
  )(
    "the states of the documents of %s are those that the real reactor had after each operation: %s",
    ([file, history]) =>
      kept(Effect.gen(function*() {
        const { reducers } = yield* Effect.promise(() =>
          import(/* @vite-ignore */ module.href) as Promise<{ readonly reducers: { readonly [type: string]: Reduce } }>
        )
        const path = fileURLToPath(new URL(`../../examples/data/${file}`, import.meta.url))
        const sql = yield* SqlClient.SqlClient
        const { strands, truth } = recordedStates(path)
        const known = Object.fromEntries(
          strands.flatMap(({ operations }) => operations).map(({ type }) => [type, Schema.Unknown])
        )
        const stateful = Object.entries(reducers).map(([type, reduce]) =>
          Processor.onOperations(
            DocumentModel.make(type, known, { state: { initial: {}, reduce } }),
            {},
            { retract: () => Effect.void }
          )
        )
        const processor = Processor.make("real", {
          namespace: "real",
          history,
          tables: [Notes],
          migrations: { "0001_notes": { up: createNotes, down: Effect.void } },
          filter: { documentType: Object.keys(reducers) },
          batch: { operations: 1 },
          handler: Processor.merge(stateful[0]!, stateful[1]!) as Processor.Handler<never, never>
        }).pipe(Processor.withPolicy(Policy.standard))
        yield* Follow.prepare(processor)
        let compared = 0
        const differences: Array<unknown> = []
        yield* Subscription.commits(processor).pipe(
          Stream.runForEach(({ position }) =>
            Effect.gen(function*() {
              const last = truth[Number(position) - 1]
              if (last === undefined || !(last.documentType in reducers) || last.scope === "document") return
              const [row] = yield* sql<{ readonly state: string }>`
              SELECT state FROM processor_state WHERE document_id = ${last.documentId}`
              const found = (JSON.parse(row?.state ?? "{}") as Fields)[last.scope]
              compared++
              if (!isDeepStrictEqual(found, last.state[last.scope])) {
                differences.push([position, found, last.state[last.scope]])
              }
            })
          ),
          Effect.provide(sourced(strands))
        )
        expect(yield* DeadLetters.list({ ...key, processor: processor.name })).toEqual([])
        expect(differences).toEqual([])
        expect(compared).toBeGreaterThan(file.includes("reshuffle") ? 8 : 30)
      }))
  )
})

type Fields = { readonly [name: string]: unknown }
type Reduce = (state: Fields, operation: Operation, scope: Scope) => Fields

/** The operations of a recording, a strand each, and what the real reactor had after each: of other scopes it is stale. */
const recordedStates = (path: string) => {
  const strands: Array<Source.Unplaced> = []
  const truth: Array<
    { readonly documentId: string; readonly documentType: string; readonly scope: string; readonly state: Fields }
  > = []
  for (const line of gunzipSync(readFileSync(path)).toString("utf8").trimEnd().split("\n")) {
    const value = JSON.parse(line) as ReadonlyArray<Recorded> | Recorded
    for (const each of Array.isArray(value) ? value as ReadonlyArray<Recorded> : [value as Recorded]) {
      const { documentId, documentType, resultingState, scope } = each.context
      strands.push(...Either.getOrThrow(decode(each)))
      truth.push({ documentId, documentType, scope, state: JSON.parse(resultingState) as Fields })
    }
  }
  return { strands, truth }
}

interface Recorded {
  readonly context: {
    readonly documentId: string
    readonly documentType: string
    readonly scope: string
    readonly resultingState: string
  }
}

describe("a processor that wants state", () => {
  it("has to cope with rewritten history, and to begin at the beginning", () => {
    const Model = DocumentModel.make("t", { A: Schema.Struct({}) }, {
      state: { initial: 0, reduce: (count: number) => count + 1 }
    })
    const handler = Processor.onOperations(Model, { A: () => Effect.void }, { retract: () => Effect.void })
    const make = (options: Partial<Processor.Options<never, never, never>>) => () =>
      Processor.make("p", {
        namespace: "n",
        handler: handler as unknown as Processor.Handler<never, never>,
        ...options
      })
    expect(make({})).toThrow(/p wants the state of documents/)
    expect(make({ history: "append", startFrom: "current" })).toThrow(/only from the beginning/)
    expect(make({ history: "append" })).not.toThrow()
  })
})
