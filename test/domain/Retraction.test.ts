import { describe, expect, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { Retraction } from "../../src/domain/Retraction.js"

const retraction = {
  _tag: "Retraction",
  documentId: "a",
  documentType: "acme/todo",
  scope: "global",
  branch: "main",
  by: 4
}

describe("a retraction", () => {
  const isRetraction = Schema.is(Retraction)

  it("is refused without indexes, with one above its cause, or out of order", () => {
    expect([[], [5], [5, 1], [1, 2], [2, 2], [-1]].filter((indexes) => isRetraction({ ...retraction, indexes })))
      .toEqual([])
  })

  it("names what is taken back, highest first", () => {
    expect([[3], [3, 2], [3, 1, 0], [4, 2]].filter((indexes) => !isRetraction({ ...retraction, indexes }))).toEqual([])
  })
})
