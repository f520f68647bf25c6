/**
 * A bulk: its calls hold every row, and with `repeats` none but those.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Bulk from "../../src/table/Bulk.js"
import type { Cells } from "../../src/table/Bulk.js"

const rowsOf = (count: number, width: number): ReadonlyArray<Cells> =>
  Array.from({ length: count }, (_, row) => Array.from({ length: width }).map((__, column) => `${row}.${column}`))

const counts = [...Array.from({ length: 140 }, (_, i) => i), 1_023, 1_024, 1_025, 2_500]

describe.each([1, 4, 10, 700])("for SQLite, with %i cells in a row", (width) => {
  const kinds = Array.from({ length: width }, () => "text" as const)
  const bulkOf = (repeats: boolean) => Bulk.sqlite(kinds, ({ list }) => list, repeats)
  const asked = counts.filter((count) => count * width <= 30_000)

  it("each call has the parameters that its text asks for, and no more than SQLite takes", () => {
    for (const repeats of [false, true]) {
      const bulk = bulkOf(repeats)
      for (const count of asked) {
        for (const [text, parameters] of Bulk.calls(bulk, rowsOf(count, width))) {
          expect(text.split("?").length - 1).toBe(parameters.length)
          expect(parameters.length).toBeLessThanOrEqual(32_766)
        }
      }
    }
  })

  it("every row is sent once and in order, or with repeats at least once and no other", () => {
    const exact = bulkOf(false)
    const filled = bulkOf(true)
    for (const count of asked) {
      const rows = rowsOf(count, width)
      expect(Bulk.calls(exact, rows).flatMap(([, parameters]) => parameters)).toEqual(rows.flat())
      const sent = Bulk.calls(filled, rows).flatMap(([, parameters]) => parameters)
      expect(new Set(sent)).toEqual(new Set(rows.flat()))
      expect(sent.length).toBeGreaterThanOrEqual(count * width)
    }
  })

  it("there are few texts to prepare", () => {
    const texts = new Set(
      asked.flatMap((count) => Bulk.calls(bulkOf(true), rowsOf(count, width)).map(([text]) => text))
    )
    expect(texts.size).toBeLessThanOrEqual(11)
  })
})

describe("for PostgreSQL", () => {
  it("every row is sent once, a thousand in a call, in one text", () => {
    const bulk = Bulk.pg(["integer", "integer"], ["a", "b"], ({ table }) => table)
    const rows = Array.from({ length: 2_500 }, (_, i): Cells => [i, i + 1])
    const calls = Bulk.calls(bulk, rows)
    expect(new Set(calls.map(([text]) => text)).size).toBe(1)
    const columns = calls.map(([, [a]]) => String(a).slice(1, -1).split(",").map(Number))
    expect(columns.map((column) => column.length)).toEqual([1_000, 1_000, 500])
    expect(columns.flat()).toEqual(rows.map(([a]) => a))
  })
})
