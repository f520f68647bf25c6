/**
 * What a benchmark leaves behind: a JSON file whose shape others may rely on, and a plot.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import * as Quantiles from "../../bench/support/Quantiles.js"
import * as Result from "../../bench/support/Result.js"
import * as Directory from "../support/Directory.js"

const File = Schema.Struct({
  name: Schema.NonEmptyString,
  machine: Schema.NonEmptyString,
  date: Schema.String.pipe(Schema.pattern(/^\d{4}-\d\d-\d\d$/)),
  rows: Schema.Array(Schema.Struct({
    subject: Schema.NonEmptyString,
    dialect: Schema.Literal("sqlite", "pg", "pglite"),
    metric: Schema.NonEmptyString,
    unit: Schema.NonEmptyString,
    median: Schema.Number,
    min: Schema.Number,
    max: Schema.Number,
    runs: Schema.Int
  })),
  ratios: Schema.Array(Schema.Struct({
    of: Schema.NonEmptyString,
    to: Schema.NonEmptyString,
    dialect: Schema.Literal("sqlite", "pg", "pglite", "sqlite/pglite"),
    metric: Schema.NonEmptyString,
    value: Schema.Number
  })),
  notes: Schema.optional(Schema.Array(Schema.NonEmptyString))
})

const decode = Schema.decodeUnknown(Schema.parseJson(File), { onExcessProperty: "error" })

const of = { subject: "ours", dialect: "pg", metric: "throughput", unit: "operations/s" } as const
const pair = { of: "ours", to: "by hand", dialect: "pg", metric: "throughput" } as const

describe("a result", () => {
  it.scoped("is a file of the promised shape and nothing else, and a plot with every row", () =>
    Effect.gen(function*() {
      const directory = join(yield* Directory.make(), "made")
      const rows = [Result.row(of, [1, 3, 2]), Result.row({ ...of, subject: "by hand" }, [4])]
      Result.write(Result.make("sample", rows, [Result.ratio(pair, [1, 3, 2], [4, 4, 4])], ["a note"]), directory)
      const file = yield* decode(readFileSync(join(directory, "sample.json"), "utf8"))
      expect(file.rows[0]).toEqual({ ...of, median: 2, min: 1, max: 3, runs: 3 })
      expect(file.ratios).toEqual([{ ...pair, value: 0.5 }])
      expect(file.notes).toEqual(["a note"])
      const plot = readFileSync(join(directory, "sample.svg"), "utf8")
      expect(rows.filter(({ subject }) => !plot.includes(`>${subject} (pg)<`))).toEqual([])
    }))

  it("has the median of the rounds' ratios, not the ratio of the medians", () => {
    expect(Result.ratio(pair, [1, 10, 100], [1, 5, 400]).value).toBe(1)
  })
})

describe("quantiles", () => {
  it("are not taken from too few values", () => {
    expect(() => Quantiles.make([1, 2, 3])).toThrow("too few")
  })

  it("leave out the first tenth, which warms up", () => {
    const values = [...Array.from({ length: 100 }, () => 1_000), ...Array.from({ length: 900 }, (_, i) => i + 1)]
    expect(Quantiles.make(values)).toEqual({ p50: 450, p99: 891 })
    expect(Quantiles.make([...values.map((value) => value + 1_000), ...values], 1_000)).toEqual({
      p50: 500,
      p99: 1_000
    })
    expect(() => Quantiles.make(values, 9)).toThrow("too few")
  })
})
