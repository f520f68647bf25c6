/**
 * The sift: what is given to the handler, and what waits.
 */
import { describe, expect, it } from "@effect/vitest"
import type { Operation } from "../../src/domain/Operation.js"
import { make as position } from "../../src/domain/Position.js"
import type { Strand } from "../../src/domain/Strand.js"
import * as Policy from "../../src/process/Policy.js"
import { Progress } from "../../src/store/Progress.js"
import * as Segment from "../../src/store/Segment.js"
import { sift } from "../../src/store/Sift.js"

const op = (index: number, flaw?: string): Operation =>
  ({
    id: "id",
    index,
    skip: 0,
    hash: `${index}`,
    type: "ADD",
    timestamp: "2026-01-01T00:00:00Z",
    input: null,
    flaw
  }) as unknown as Operation

const strand = (documentId: string, scope: string, ...operations: ReadonlyArray<Operation>): Strand =>
  ({ position: 1n, documentId, documentType: "t", scope, branch: "main", operations, bytes: 0 }) as unknown as Strand

const told = (strands: ReadonlyArray<Strand>) =>
  strands.flatMap(({ documentId, operations, scope }) =>
    operations.map(({ index }) => `${documentId} ${scope} ${index}`)
  )

/** What becomes of strands that come to a processor which has had nothing yet. */
const sifted = (...strands: ReadonlyArray<Strand>) => {
  const progress = new Progress()
  const operations = strands.reduce((sum, each) => sum + each.operations.length, 0)
  const batch = { strands, operations, position: position(1n) }
  const standing = { progress, queues: new Map(), blocking: new Map(), rewrite: undefined }
  const found = sift(
    Segment.fromBatch(batch, position(0n)),
    standing,
    new Map(Object.entries(Policy.standard)),
    undefined
  )
  return {
    ...found,
    given: told(found.strands),
    aside: found.drafts.map((draft) => `${draft.strand.documentId} ${draft.strand.scope} ${draft.operation.index}`),
    heads: strands.map((each) => progress.of(each).head)
  }
}

describe("a batch", () => {
  it("in which everything comes next is given as it came, the very same list", () => {
    const strands = [strand("a", "global", op(0), op(1)), strand("b", "global", op(0)), strand("a", "global", op(2))]
    const found = sifted(...strands)
    expect(found.strands.every((each, i) => each === strands[i])).toBe(true)
    expect(found).toMatchObject({ operations: 4, aside: [], heads: [2, 0, 2] })
  })

  it.each([["is behind a gap", op(2)], ["has a flaw", op(1, "is bad")]])(
    "of which one operation %s has all streams of its document wait from there on, and no other document's",
    (_, bad) => {
      const found = sifted(
        strand("a", "local", op(0)),
        strand("a", "global", op(0), bad),
        strand("b", "global", op(0), op(1)),
        strand("a", "local", op(1)),
        strand("a", "document", op(0))
      )
      expect(found.given).toEqual(["a local 0", "a global 0", "b global 0", "b global 1"])
      expect(found.aside).toEqual([`a global ${bad.index}`, "a local 1", "a document 0"])
      expect(found.operations).toBe(4)
      expect(found.heads).toEqual([0, 0, 1, 0, -1])
    }
  )

  it("with operations that come twice gives each of them once, and those of other streams whole", () => {
    const found = sifted(
      strand("a", "global", op(0), op(1)),
      strand("a", "local", op(0)),
      strand("a", "global", op(1), op(2))
    )
    expect(found.given).toEqual(["a global 0", "a global 1", "a local 0", "a global 2"])
    expect(found).toMatchObject({ operations: 4, redelivered: 1, aside: [] })
  })
})
