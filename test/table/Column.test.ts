/**
 * A column: which kind a Schema becomes, what it refuses, and that both databases give back what they were given.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { Column, Table } from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"

const column = (schema: Schema.Schema.AnyNoContext) => Column.fromAst("c", schema.ast)

const kinds: ReadonlyArray<readonly [string, Schema.Schema.AnyNoContext, Column.Kind, boolean]> = [
  ["String", Schema.String, "text", false],
  ["NonEmptyString", Schema.NonEmptyString, "text", false],
  ["a brand", Schema.String.pipe(Schema.brand("Id")), "text", false],
  ["TemplateLiteral", Schema.TemplateLiteral("a", Schema.Number), "text", false],
  ["NumberFromString", Schema.NumberFromString, "text", false],
  ["Literal", Schema.Literal("a", "b"), "enum", false],
  ["Literal or null", Schema.Literal("a", "b", null), "enum", true],
  ["numbers", Schema.Literal(1, 2), "integer", false],
  ["Int", Schema.Int, "integer", false],
  ["a range of Int", Schema.Int.pipe(Schema.between(1, 9)), "integer", false],
  ["Number", Schema.Number, "double", false],
  ["BigInt", Schema.BigInt, "bigint", false],
  ["BigIntFromSelf or null", Schema.NullOr(Schema.BigIntFromSelf), "bigint", true],
  ["Boolean", Schema.Boolean, "boolean", false],
  ["Date", Schema.Date, "timestamp", false],
  ["DateFromSelf or null", Schema.NullOr(Schema.DateFromSelf), "timestamp", true],
  ["DateTimeUtc", Schema.DateTimeUtc, "timestamp", false],
  ["text as a timestamp", Schema.String.pipe(Column.as("timestamp")), "timestamp", false],
  ["Uint8ArrayFromSelf", Schema.Uint8ArrayFromSelf, "bytes", false],
  ["Uint8ArrayFromBase64", Schema.Uint8ArrayFromBase64, "bytes", false],
  ["Struct", Schema.Struct({ a: Schema.Date }), "json", false],
  ["Array or null", Schema.NullOr(Schema.Array(Schema.String)), "json", true],
  ["a union of kinds", Schema.Union(Schema.String, Schema.Number), "json", false],
  ["Unknown", Schema.Unknown, "json", false],
  ["Any", Schema.Any, "json", false]
]

describe("a column", () => {
  it.each(kinds)("of %s is found", (_, schema, kind, nullable) => {
    expect(column(schema)).toMatchObject({ kind, nullable })
  })

  it("of an enum names its values in order", () => {
    expect(column(Schema.Literal("b", "a", null)).values).toEqual(["b", "a"])
  })

  it("is refused where nothing can hold it", () => {
    expect(() => column(Schema.SymbolFromSelf)).toThrow(/no column can hold c/)
  })

  it.each<readonly [string, Schema.Schema.AnyNoContext, unknown]>([
    ["NUL in a text", Schema.String, "a\u0000b"],
    ["a lone surrogate in a text", Schema.String, "\ud800"],
    ["a number in a text", Schema.String, 1],
    ["NaN", Schema.Number, Number.NaN],
    ["infinity", Schema.Number, -Infinity],
    ["a fraction in an integer", Schema.Int, 0.5],
    ["an integer beyond 2^53", Schema.Int, 2 ** 53],
    ["an integer beyond 64 bits", Schema.BigInt, 2n ** 63n],
    ["a text that a filter refuses", Schema.NonEmptyString, ""],
    ["another literal", Schema.Literal("a"), "b"],
    ["null where it is not declared", Schema.String, null],
    ["no value", Schema.NullOr(Schema.String), undefined],
    ["an invalid date", Schema.DateFromSelf, new Date(Number.NaN)],
    ["the year 0", Schema.DateFromSelf, new Date("0000-12-31T23:59:59Z")],
    ["the year 10000", Schema.DateFromSelf, new Date("+010000-01-01T00:00:00Z")],
    ["what is no instant", Schema.String.pipe(Column.as("timestamp")), "tomorrow"],
    ["NUL in JSON", Schema.Unknown, { a: ["\u0000"] }],
    ["a lone surrogate in a name of JSON", Schema.Unknown, { "\udfff": 1 }],
    [
      "a cycle in JSON",
      Schema.Unknown,
      (() => {
        const cycle: { self?: unknown } = {}
        cycle.self = cycle
        return cycle
      })()
    ],
    ["a function in JSON", Schema.Unknown, () => 1]
  ])("refuses %s, and says why", (_, schema, value) => {
    const refusal = column(schema).encode(value)
    expect(refusal).toBeInstanceOf(Column.Unfit)
    expect((refusal as Column.Unfit).reason).not.toBe("")
  })

  it("takes text that only looks like what it refuses", () => {
    expect(column(Schema.Unknown).encode("\\u0000 \\\\ud800 \u{1f600}")).toBe(
      JSON.stringify("\\u0000 \\\\ud800 \u{1f600}")
    )
  })

  it("has no negative zero, which only one database keeps", () => {
    expect(column(Schema.Number).encode(-0)).toBe(0)
    expect(column(Schema.Int).encode(-0)).toBe(0)
  })

  it("can be added to where what is stored is what the program sees", () => {
    const counts = [Schema.Int, Schema.Number, Schema.BigInt, Schema.NullOr(Schema.Int)].map(column)
    expect(counts.every(({ delta }) => delta !== undefined)).toBe(true)
    const others = [
      Schema.String,
      Schema.NumberFromString,
      Schema.Boolean,
      Schema.transform(Schema.Number, Schema.Number, { decode: (n) => n / 100, encode: (n) => n * 100 })
    ].map(column)
    expect(others.every(({ delta }) => delta === undefined)).toBe(true)
  })

  it.each<readonly [string, Schema.Schema.AnyNoContext, unknown]>([
    ["text in a boolean", Schema.Boolean, "yes"],
    ["2 in a boolean", Schema.Boolean, 2],
    ["an unknown literal", Schema.Literal("a"), "b"],
    ["null where it is not declared", Schema.String, null],
    ["an integer that no number holds", Schema.Int, 2n ** 60n]
  ])("does not take %s from a database for a cell", (_, schema, stored) => {
    expect(column(schema).read(stored)).toBeInstanceOf(Column.Unfit)
  })

  it("refuses stored JSON that is none", () => {
    expect(column(Schema.Unknown).decode("{")).toBeInstanceOf(Column.Unfit)
  })
})

const Row = Schema.Struct({
  id: Schema.Int,
  text: Schema.NullOr(Schema.String),
  parsed: Schema.NumberFromString,
  state: Schema.NullOr(Schema.Literal("open", "it's", "\"closed\"")),
  count: Schema.Int,
  weight: Schema.NullOr(Schema.Number),
  big: Schema.BigInt,
  flag: Schema.NullOr(Schema.Boolean),
  date: Schema.Date,
  instant: Schema.NullOr(Schema.DateTimeUtc),
  bytes: Schema.NullOr(Schema.Uint8ArrayFromBase64),
  json: Schema.NullOr(Schema.Struct({ at: Schema.Date, tags: Schema.Array(Schema.String) })),
  any: Schema.Unknown
})

const Things = Table.make("things", Row, { key: ["id"] })

const create = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  sql.unsafe(sql.onDialectOrElse({
    sqlite: () =>
      `CREATE TABLE things (id INTEGER PRIMARY KEY, text TEXT, parsed TEXT NOT NULL, state TEXT, count INTEGER NOT NULL,
        weight REAL, big INTEGER NOT NULL, flag INTEGER, date TEXT NOT NULL, instant TEXT, bytes BLOB, json TEXT, any TEXT)`,
    orElse: () =>
      `CREATE TABLE things (id BIGINT PRIMARY KEY, text TEXT, parsed TEXT NOT NULL, state TEXT, count BIGINT NOT NULL,
        weight DOUBLE PRECISION, big BIGINT NOT NULL, flag BOOLEAN, date TIMESTAMPTZ NOT NULL, instant TIMESTAMPTZ,
        bytes BYTEA, json JSONB, "any" JSONB)`
  })))

/** Where implementations go wrong. */
const edges: Omit<typeof Row.Type, "id"> = {
  text: "NULL",
  parsed: 1e21,
  state: "\"closed\"",
  count: Number.MIN_SAFE_INTEGER,
  weight: 5e-324,
  big: -(2n ** 63n),
  flag: false,
  date: new Date("0001-01-01T00:00:00.001Z"),
  instant: DateTime.unsafeMake("9999-12-31T23:59:59.999Z"),
  bytes: Uint8Array.from([0, 92, 34, 255]),
  json: { at: new Date(0), tags: ["\\", "\"", "{}", ","] },
  any: null
}

/** The row, with an edge in the place of what its column refuses, and 0 in that of -0. */
const storable = (row: typeof Row.Type): typeof Row.Type => {
  const refused = Things.definition.columns.filter(({ encode, name }) =>
    encode(row[name as keyof typeof Row.Type]) instanceof Column.Unfit
  )
  const { count, parsed, weight } = row
  const positive = { count: count + 0, parsed: parsed + 0, weight: weight === null ? null : weight + 0 }
  return {
    ...row,
    ...positive,
    ...Object.fromEntries(refused.map(({ name }) => [name, edges[name as keyof typeof edges]]))
  }
}

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  it.scopedLive("what a table takes it gives back, whatever it is", () =>
    Effect.flatMap(fresh, (database) =>
      Effect.gen(function*() {
        yield* create
        const drawn = FastCheck.sample(Arbitrary.make(Row), { numRuns: 300, seed: dialect === "pg" ? 1 : 2 })
        const rows = drawn.map((row, id) => storable({ ...row, id }))
        for (const row of rows) {
          yield* Things.insert(row)
          const found = Option.getOrThrow(yield* Things.get({ id: row.id }))
          const { any, ...rest } = row
          const { any: anyFound, ...restFound } = found
          expect(restFound).toEqual(rest)
          expect(anyFound).toEqual(JSON.parse(JSON.stringify(any)))
        }
        yield* Things.upsert({ id: -1, ...edges })
        expect(yield* Things.get({ id: -1 })).toEqual(Option.some({ id: -1, ...edges }))
        yield* Things.update({ id: -1 }, { weight: 1.7976931348623157e308, big: 2n ** 63n - 1n })
        expect((yield* Things.find({ big: 2n ** 63n - 1n, flag: false })).map(({ weight }) => weight)).toEqual([
          1.7976931348623157e308
        ])
      }).pipe(Effect.provide(Store.layer(database)))))

  it.scopedLive("a sum that does not fit is refused, and nothing is rounded", () =>
    Effect.flatMap(fresh, (database) =>
      Effect.gen(function*() {
        yield* create
        const row = {
          id: 1,
          text: null,
          parsed: 0,
          state: null,
          count: 0,
          weight: 1e308,
          big: 2n ** 63n - 2n,
          flag: null,
          date: new Date(0),
          instant: null,
          bytes: null,
          json: null,
          any: 1
        }
        yield* Things.insert(row)
        yield* Things.increment({ id: 1 }, { big: 1n, count: 3, weight: -1e308 })
        expect(yield* Effect.isFailure(Things.increment({ id: 1 }, { big: 1n }))).toBe(true)
        yield* Things.increment({ id: 1 }, { weight: 1.7e308 })
        expect(yield* Effect.isFailure(Things.increment({ id: 1 }, { weight: 1.7e308 }))).toBe(true)
        expect(yield* Things.get({ id: 1 })).toEqual(
          Option.some({ ...row, big: 2n ** 63n - 1n, count: 3, weight: 1.7e308 })
        )
        yield* Things.update({ id: 1 }, { weight: null })
        yield* Things.increment({ id: 1 }, { weight: 1 })
        expect(Option.map(yield* Things.get({ id: 1 }), ({ weight }) => weight)).toEqual(Option.some(null))
      }).pipe(Effect.provide(Store.layer(database)))))
})
