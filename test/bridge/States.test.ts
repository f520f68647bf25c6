/**
 * The states that strands of G1 and G2 carry, folded here by the real reducers, are those that the real system recorded.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { gunzipSync } from "node:zlib"
import * as Test from "../../layers/Test.js"
import { Envelope, Fault, Position, Source } from "../../src/index.js"
import type { Strand } from "../../src/index.js"
import type { Step } from "../../src/powerhouse/Delivery.js"
import { States } from "../../src/powerhouse/States.js"
import type { Module } from "../../src/powerhouse/States.js"

interface Recorded {
  readonly documentType: string
  readonly documentId: string
  readonly operations: ReadonlyArray<Step>
  readonly state: unknown
}

const recorded = (name: string): ReadonlyArray<Recorded> =>
  gunzipSync(readFileSync(fileURLToPath(new URL(`../../examples/data/${name}.ndjson.gz`, import.meta.url))))
    .toString("utf8").trimEnd().split("\n").map((line) => JSON.parse(line) as Recorded)

const { v4, v5 } = await import(
  /* @vite-ignore */ new URL("../powerhouse/models.mjs", import.meta.url).href
) as { readonly v4: Module; readonly v5: Module }

const type = "powerhouse/document-model"

const unplaced = (line: unknown) => Either.getOrThrow(Envelope.decode(line))

const placed = (strands: ReadonlyArray<Source.Unplaced>): ReadonlyArray<Strand.Strand> =>
  strands.map((strand, i) => ({ ...strand, position: Position.make(BigInt(i + 1)) }))

describe.each([["g1-strands", v4, 82], ["g2-strands", v5, 13]] as const)("in %s", (file, module, operations) => {
  it.effect("each operation has the states that were recorded with it", () =>
    Effect.gen(function*() {
      const lines = recorded(file).filter((line) => line.documentType === type && line.operations.length > 0)
      const strands = lines.flatMap(unplaced)
      const states = new States({ [type]: module }, Source.fromIterable("recorded", strands))
      const steps = yield* Effect.forEach(placed(strands), states.steps)
      expect(steps.flat()).toHaveLength(operations)
      expect(steps).toEqual(
        lines.map((line) => line.operations.map(({ previousState, state }) => ({ previousState, state })))
      )
    }))
})

/** A model of a list, in the form of a module. */
const list: Module = {
  utils: { createDocument: (state?: { readonly global: object }) => ({ state: state ?? { global: { list: [] } } }) },
  reducer: (
    document: { readonly state: { readonly global: { readonly list: ReadonlyArray<number> } } },
    action: { readonly type: string; readonly input: { readonly number: number } }
  ) => {
    if (action.type === "THROW") throw new Error("no")
    return { state: { global: { list: [...document.state.global.list, action.input.number] } } }
  }
}

const strand = (from: number, operations: ReadonlyArray<Test.OperationOptions>) =>
  Test.strand({ documentId: "d", documentType: "acme/list", from, operations })

const push = (number: number, more: object = {}) => ({ type: "PUSH", input: { number }, ...more })

const lists = (steps: ReadonlyArray<Step> | undefined) =>
  steps?.map(({ state }) => (state as { readonly list: ReadonlyArray<number> }).list)

describe("a state", () => {
  const strands = [
    strand(0, [push(0), push(1)]),
    strand(2, [push(2, { error: "refused" }), push(3)]),
    strand(4, [{ type: "NOOP", index: 4, skip: 1 }, push(5, { index: 5 })]),
    strand(8, [push(8, { index: 8, skip: 2 })])
  ]
  const expected = [[[0], [0, 1]], [[0, 1], [0, 1, 3]], [[0, 1], [0, 1, 5]], [[0, 1, 5, 8]]]

  it.effect("is what stands, whatever was refused and taken back", () =>
    Effect.gen(function*() {
      const states = new States({ "acme/list": list }, Source.fromIterable("s", strands))
      const steps = yield* Effect.forEach(placed(strands), states.steps)
      expect(steps.map(lists)).toEqual(expected)
    }))

  it.effect("is the same for a batch that is tried again, in pieces, and for who begins late", () =>
    Effect.gen(function*() {
      const states = new States({ "acme/list": list }, Source.fromIterable("s", strands))
      const all = placed(strands)
      for (const at of [3, 1, 1, 2, 0, 3]) expect(lists(yield* states.steps(all[at]!))).toEqual(expected[at])
      const [, second] = all
      const piece = { ...second!, operations: second!.operations.slice(1) }
      expect(lists(yield* states.steps(piece))).toEqual([[0, 1, 3]])
    }))

  it.effect("begins with what the document was upgraded to", () =>
    Effect.gen(function*() {
      const upgrade = Test.strand({
        documentId: "d",
        documentType: "acme/list",
        scope: "document",
        operations: [{ type: "UPGRADE_DOCUMENT", input: { initialState: { global: { list: [7] } } } }]
      })
      const both = [upgrade, strand(0, [push(8)])]
      const states = new States({ "acme/list": list }, Source.fromIterable("s", both))
      expect(yield* states.steps(placed(both)[1]!)).toEqual([{
        previousState: { list: [7] },
        state: { list: [7, 8] }
      }])
    }))

  it.effect("is not there for a model that nobody gave", () =>
    Effect.gen(function*() {
      const states = new States({}, Source.fromIterable("s", strands))
      expect(yield* states.steps(placed(strands)[0]!)).toBeUndefined()
      const inherited = Test.strand({ documentId: "d", documentType: "constructor", operations: [push(1)] })
      expect(yield* states.steps(placed([inherited])[0]!)).toBeUndefined()
    }))

  it.effect("that a reducer throws at is a failure of that operation, and a source that is away is an outage", () =>
    Effect.gen(function*() {
      const broken = [strand(0, [{ type: "THROW" }])]
      const states = new States({ "acme/list": list }, Source.fromIterable("s", broken))
      expect(yield* Effect.flip(states.steps(placed(broken)[0]!))).toMatchObject({ _tag: "LegacyFailure" })
      const unavailable = new Source.SourceUnavailable({ source: "s", reason: "the line is cut" })
      const away = { ...Source.fromIterable("s", strands), document: () => Stream.fail(unavailable) }
      const failure = yield* Effect.flip(new States({ "acme/list": list }, away).steps(placed(strands)[1]!))
      expect(Fault.classify(failure)).toBe("infrastructure")
    }))
})
