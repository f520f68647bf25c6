/**
 * A bulk: its calls hold every row, and with `repeats` none but those.
 */
import { describe, expect, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Bulk from "../../src/table/Bulk.js"
import type { Cells } from "../../src/table/Bulk.js"
import type { Cell } from "../../src/table/Column.js"

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

/** What PostgreSQL reads of a list: quoted, a backslash stands for the character after it, and nothing else does. */
const readOf = (list: unknown): ReadonlyArray<string | null> => {
  const text = String(list).slice(1, -1)
  const cells: Array<string | null> = []
  for (let at = 0; at < text.length;) {
    const [whole, quoted, bare] = /^(?:"((?:[^"\\]|\\[^])*)"|([^",]*)),?/.exec(text.slice(at))!
    cells.push(quoted?.replaceAll(/\\([^])/g, "$1") ?? (bare?.toUpperCase() === "NULL" ? null : bare!))
    at += whole.length
  }
  return cells
}

describe("for PostgreSQL", () => {
  const listed = (kind: "text" | "integer" | "double" | "boolean" | "bigint", cells: ReadonlyArray<Cell>) =>
    Bulk.pg([kind], ["a"], ({ table }) => table).parameters(cells.map((cell) => [cell]), 0, cells.length)[0]

  it("text is read as it was written, whatever is in it", () => {
    const part = fc.constantFrom(
      "\\",
      "\"",
      "n",
      "u0041",
      "\n",
      "\t",
      "\u0001",
      "{",
      "}",
      ",",
      "NULL",
      "é\u{1f600}",
      "'"
    )
    const text = fc.oneof(fc.array(part, { maxLength: 6 }).map((parts) => parts.join("")), fc.fullUnicodeString())
    fc.assert(
      fc.property(fc.array(fc.option(text), { minLength: 1 }), (cells) => {
        fc.pre(!cells.some((cell) => cell?.includes("\0") === true))
        expect(cells.length === 1 ? [listed("text", cells)] : readOf(listed("text", cells))).toEqual(cells)
      }),
      { numRuns: 2_000 }
    )
  })

  it("other cells are read as they were written", () => {
    expect(listed("integer", [1, null, -7, Number.MAX_SAFE_INTEGER])).toBe("{1,null,-7,9007199254740991}")
    expect(readOf(listed("double", [0.1, 1e308, 5e-324, null]))).toEqual(["0.1", "1e+308", "5e-324", null])
    expect(readOf(listed("boolean", [true, false, null]))).toEqual(["true", "false", null])
    expect(readOf(listed("bigint", [2n ** 63n - 1n, null]))).toEqual(["9223372036854775807", null])
  })

  it("a row alone is sent as its cells, in a text of its own", () => {
    const kinds = ["text", "json", "integer", "double", "boolean", "bigint", "bytes", "timestamp"] as const
    const bulk = Bulk.pg(kinds, kinds, ({ list, table }) => `${list} ${table}`)
    const row: Cells = [
      "{a,\"b\\",
      "[\"\\n\"]",
      -7,
      5e-324,
      false,
      -(2n ** 63n),
      Uint8Array.of(0, 255),
      "2026-01-01T00:00:00.000Z"
    ]
    expect(bulk.parameters([row, row], 1, 1)).toEqual([
      "{a,\"b\\",
      "[\"\\n\"]",
      "-7",
      "5e-324",
      "false",
      "-9223372036854775808",
      "\\x00ff",
      "2026-01-01T00:00:00.000Z"
    ])
    expect(bulk.parameters([kinds.map(() => null)], 0, 1)).toEqual(kinds.map(() => null))
    const texts = [1, 2, 1_000].map((count) => bulk.text(count))
    expect(texts[0]).not.toContain("unnest")
    expect(texts[1]).toContain("unnest")
    expect(texts[2]).toBe(texts[1])
  })

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
