/**
 * The names of the real system's schemas, letter for letter.
 */
import { describe, expect, it } from "@effect/vitest"
import * as fc from "fast-check"
import { Powerhouse } from "../../src/index.js"
import { processors } from "./Real.js"

const { getNamespace, hashNamespace, lengthMax } = Powerhouse.HashNamespace

describe("a hashed namespace", () => {
  it.each([
    ["", "lpcykawzyb"],
    ["a", "ljxuqqfbuy"],
    ["vetra-packages", "qzzvjvooll"],
    ["SearchIndexerProcessor_drive1", "mxadvzgcco"],
    ["SearchIndexerProcessor_b443d823_3e4d_4e60_ae44_45edafd5f632", "sfdreoisuf"],
    ["WorkstreamsProcessor_b443d823_3e4d_4e60_ae44_45edafd5f632", "ceufbphlqe"]
  ])("of %j is the one that the real system was seen to use", (text, hash) => {
    expect(hashNamespace(text)).toBe(hash)
  })

  it("of another length is the one that the real system was seen to use", () => {
    expect(hashNamespace("vetra-packages", 16)).toBe("oniwrkgqvlnonwrp")
  })

  it("is that of the published package, for any text and any length that it has", () => {
    const text = fc.oneof(fc.string(), fc.string({ unit: "grapheme" }), fc.string({ unit: "binary" }), fc.uuid())
    fc.assert(
      fc.property(text, fc.integer({ min: 1, max: lengthMax }), (any, length) => {
        expect(hashNamespace(any, length)).toBe(processors.hashNamespace(any, length))
        expect(hashNamespace(any)).toBe(processors.hashNamespace(any))
      }),
      { numRuns: 5_000 }
    )
  })

  it("collides where theirs does", () => {
    expect(hashNamespace("SearchIndexerProcessor_0221632b")).toBe("hqhnkcbirl")
    expect(hashNamespace("SearchIndexerProcessor_a488c284")).toBe("hqhnkcbirl")
  })

  it.each([0, -1, lengthMax + 1, Number.NaN])("has no length of %d", (length) => {
    expect(() => hashNamespace("a", length)).toThrow(RangeError)
  })

  it("is made of the name that their class makes of its own and the drive's", () => {
    class SearchIndexerProcessor extends processors.RelationalDbProcessor<unknown> {}
    fc.assert(
      fc.property(fc.oneof(fc.uuid(), fc.string()), (driveId) => {
        expect(getNamespace("SearchIndexerProcessor", driveId)).toBe(SearchIndexerProcessor.getNamespace(driveId))
      })
    )
    expect(getNamespace("TodoList", "b443-1")).toBe("TodoList_b443_1")
  })
})
