/**
 * What was recorded from the three generations, read by us and delivered again, is what they delivered, but for the states.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { gunzipSync } from "node:zlib"
import { Envelope, Position } from "../../src/index.js"
import type { Strand } from "../../src/index.js"
import * as Delivery from "../../src/powerhouse/Delivery.js"

type Fields = { readonly [name: string]: unknown }

const recorded = (name: string): ReadonlyArray<unknown> =>
  gunzipSync(readFileSync(fileURLToPath(new URL(`../../examples/data/${name}.ndjson.gz`, import.meta.url))))
    .toString("utf8").trimEnd().split("\n").map((line): unknown => JSON.parse(line))

const strandsOf = (line: unknown): ReadonlyArray<Strand.Strand> =>
  Either.getOrThrow(Envelope.decode(line)).map((strand) => ({ ...strand, position: Position.make(7n) }))

const without = (value: Fields, ...names: ReadonlyArray<string>): Fields =>
  Object.fromEntries(Object.entries(value).filter(([name]) => !names.includes(name)))

describe.each([["G1", "g1-strands", 222], ["G2", "g2-strands", 239], ["G2", "g2-backfill-30", 30]] as const)(
  "a strand of %s in %s",
  (generation, file, lines) => {
    it("is delivered as it came, without its states", () => {
      const all = recorded(file) as ReadonlyArray<Fields & { readonly operations: ReadonlyArray<Fields> }>
      expect(all).toHaveLength(lines)
      for (const line of all) {
        const expected = {
          ...without(line, "state", "document"),
          operations: line.operations.map((operation) => without(operation, "state", "previousState"))
        }
        const delivered = strandsOf(line).map((strand) => Delivery.update(generation, "?", strand, undefined))
        expect(delivered).toStrictEqual([expected])
      }
    })
  }
)

describe.each([["g3-operations", 191], ["g3-reshuffle", 8], ["g3-concurrent.delivered", 335]] as const)(
  "a call of G3 in %s",
  (file, lines) => {
    it("is delivered as it came, without its resulting states, its ordinals the strand's position", () => {
      const all = recorded(file) as ReadonlyArray<
        ReadonlyArray<{ readonly operation: Fields; readonly context: Fields }>
      >
      expect(all).toHaveLength(lines)
      for (const line of all) {
        const expected = line.map(({ context, operation }) => ({
          operation: without(operation, "resultingState"),
          context: { ...without(context, "resultingState"), ordinal: 7 }
        }))
        expect(strandsOf(line).flatMap((strand) => Delivery.operations(strand))).toStrictEqual(expected)
      }
    })
  }
)

describe("a delivery", () => {
  const context = { prevOpIndex: 4, prevOpHash: "h", signer: { user: { address: "0x1" }, signatures: [["a", "b"]] } }
  const signed = {
    operation: {
      id: "o",
      index: 5,
      skip: 0,
      hash: "h5",
      timestampUtcMs: "2026-11-21T18:25:11.324Z",
      action: { id: "a", type: "ADD", timestampUtcMs: "2026-11-21T18:25:11.324Z", input: {}, scope: "global", context }
    },
    context: { documentId: "d", documentType: "t", scope: "global", branch: "main", ordinal: 7 }
  }

  it("says who signed", () => {
    expect(strandsOf(signed).flatMap((strand) => Delivery.operations(strand))).toStrictEqual([signed])
  })

  it("names the drive of the processor where the strand names none", () => {
    const [strand] = strandsOf(signed)
    expect(Delivery.update("G2", "drive", strand!, undefined)).toMatchObject({
      driveId: "drive",
      operations: [{ actionId: "a", action: { id: "a", context } }]
    })
  })

  it("has the states of its operations where somebody folds them", () => {
    const [strand] = strandsOf(signed)
    const steps = [{ previousState: { n: 1 }, state: { n: 2 } }]
    expect(Delivery.update("G1", "drive", strand!, steps)).toMatchObject({
      state: { n: 2 },
      operations: [{ previousState: { n: 1 }, state: { n: 2 } }]
    })
  })
})
