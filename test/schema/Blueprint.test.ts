/**
 * Blueprints: the SQL of every kind, and that both databases refuse the same values by it.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import type { Dialect } from "../../src/domain/Dialect.js"
import { Definition } from "../../src/index.js"
import * as Blueprint from "../../src/schema/Blueprint.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"

const everyKind = Definition.make(
  "every_kind",
  Schema.Struct({
    id: Schema.String,
    state: Schema.Literal("open", "it's shut"),
    n: Schema.Int,
    d: Schema.Number,
    big: Schema.BigIntFromSelf,
    yes: Schema.Boolean,
    at: Schema.DateFromSelf,
    raw: Schema.Uint8ArrayFromSelf,
    data: Schema.NullOr(Schema.Unknown),
    order: Schema.NullOr(Schema.Int)
  }),
  { key: ["id", "n"], unique: [["big"], ["at", "n"], ["big"]], indexes: [["state"]] }
)

const written = (shape: Definition.Shape, dialect: Dialect) =>
  Blueprint.statements(shape, dialect).map((text) => `${text};\n`).join("")

const indexes = `CREATE UNIQUE INDEX "every_kind$at$n$unique" ON "every_kind" ("at", "n");
CREATE UNIQUE INDEX "every_kind$big$unique" ON "every_kind" ("big");
CREATE INDEX "every_kind$state$index" ON "every_kind" ("state");
`

describe("the SQL of a table with every kind", () => {
  it("on PostgreSQL", () => {
    expect(written(everyKind, "pg")).toBe(`CREATE TABLE "every_kind" (
  "id" TEXT NOT NULL,
  "state" TEXT NOT NULL CONSTRAINT "every_kind$state$check" CHECK ("state" IN ('open', 'it''s shut')),
  "n" BIGINT NOT NULL CONSTRAINT "every_kind$n$check" CHECK ("n" BETWEEN -9007199254740991 AND 9007199254740991),
  "d" DOUBLE PRECISION NOT NULL CONSTRAINT "every_kind$d$check" CHECK ("d" > '-Infinity' AND "d" < 'Infinity'),
  "big" BIGINT NOT NULL,
  "yes" BOOLEAN NOT NULL,
  "at" TIMESTAMPTZ(3) NOT NULL CONSTRAINT "every_kind$at$check" CHECK (EXTRACT(EPOCH FROM "at") BETWEEN -62135596800 AND 253402300799.999),
  "raw" BYTEA NOT NULL,
  "data" JSONB,
  "order" BIGINT CONSTRAINT "every_kind$order$check" CHECK ("order" BETWEEN -9007199254740991 AND 9007199254740991),
  CONSTRAINT "every_kind$key" PRIMARY KEY ("id", "n")
);
${indexes}`)
  })

  it("on SQLite", () => {
    expect(written(everyKind, "sqlite")).toBe(`CREATE TABLE "every_kind" (
  "id" TEXT NOT NULL,
  "state" TEXT NOT NULL CONSTRAINT "every_kind$state$check" CHECK ("state" IN ('open', 'it''s shut')),
  "n" INTEGER NOT NULL CONSTRAINT "every_kind$n$check" CHECK ("n" BETWEEN -9007199254740991 AND 9007199254740991),
  "d" REAL NOT NULL CONSTRAINT "every_kind$d$check" CHECK ("d" BETWEEN -1.7976931348623157e308 AND 1.7976931348623157e308),
  "big" INTEGER NOT NULL,
  "yes" INTEGER NOT NULL CONSTRAINT "every_kind$yes$check" CHECK ("yes" IN (0, 1)),
  "at" TEXT NOT NULL CONSTRAINT "every_kind$at$check" CHECK (strftime('%Y-%m-%dT%H:%M:%fZ', "at") IS "at" AND substr("at", 12, 2) < '24' AND "at" >= '0001'),
  "raw" BLOB NOT NULL,
  "data" TEXT CONSTRAINT "every_kind$data$check" CHECK (json_valid("data")),
  "order" INTEGER CONSTRAINT "every_kind$order$check" CHECK ("order" BETWEEN -9007199254740991 AND 9007199254740991),
  CONSTRAINT "every_kind$key" PRIMARY KEY ("id", "n")
) STRICT;
${indexes}`)
  })
})

describe("a name", () => {
  const name = (...parts: ReadonlyArray<string>) => Blueprint.nameOf(parts, "index")
  const long = "a".repeat(60)

  it("of other columns is another, wherever the underscores are", () => {
    const all = [name("a_b", "c"), name("a", "b_c"), name("a", "b", "c"), name("a_b_c"), name("A", "b", "c")]
    expect(new Set(all).size).toBe(all.length)
  })

  it("that is too long is cut to 63 bytes, and still another for other columns", () => {
    const all = [name(long, "b"), name(long, "c"), name(`${long}b`), name(long, "b", "c"), name(long)]
    expect(all.map((each) => each.length)).toEqual([63, 63, 63, 63, 63])
    expect(new Set(all).size).toBe(all.length)
    expect(all[0]).toBe(name(long, "b"))
  })
})

it("a value that no database could store as text is refused", () => {
  const table = (value: string) =>
    Definition.make("t", Schema.Struct({ id: Schema.Literal("a", value) }), { key: ["id"] })
  expect(() => Blueprint.check([table("b\0")])).toThrow("a value of t.id cannot be stored as text")
  expect(() => Blueprint.check([table("\ud800")])).toThrow("a value of t.id cannot be stored as text")
})

/** What each kind refuses and what it takes, as SQL, where the databases write it differently for each. */
const values: {
  readonly [kind: string]: Record<"refused" | "taken", ReadonlyArray<string | readonly [string, string]>>
} = {
  text: { refused: ["NULL", ["x'00'", "'\\x00'::bytea"]], taken: ["''", "'é'"] },
  state: { refused: ["NULL", "'shut'", "'OPEN'", "'open '", "''"], taken: ["'open'", "'it''s shut'"] },
  n: {
    refused: ["NULL", "9007199254740992", "-9007199254740992", "'abc'", "9223372036854775807"],
    taken: ["9007199254740991", "-9007199254740991", "0"]
  },
  d: {
    refused: ["NULL", ["9e999", "'Infinity'"], ["-9e999", "'-Infinity'"], ["9e999 - 9e999", "'NaN'"], "'abc'"],
    taken: ["1.7976931348623157e308", "-1.7976931348623157e308", "5e-324", "0", "1.5"]
  },
  big: { refused: ["NULL", "9223372036854775808", "'abc'"], taken: ["9223372036854775807", "-9223372036854775808"] },
  yes: { refused: ["NULL", ["2", "'2'"], "'maybe'"], taken: [["1", "TRUE"], ["0", "FALSE"]] },
  at: {
    refused: [
      "NULL",
      "'now then'",
      "''",
      "'2026-02-30T00:00:00.000Z'",
      "'2026-13-01T00:00:00.000Z'",
      "'2026-01-01T00:61:00.000Z'",
      "'2026-01-01T25:00:00.000Z'",
      ["'10000-01-01T00:00:00.000Z'", "'10000-01-01T00:00:00.000Z'"],
      ["'-0001-12-31T23:59:59.999Z'", "'0002-12-31T23:59:59.999Z BC'"],
      ["'0000-12-31T23:59:59.999Z'", "'0001-12-31T23:59:59.999Z BC'"],
      ["9e999", "'infinity'"],
      ["-9e999", "'-infinity'"]
    ],
    taken: [
      "'2024-02-29T23:59:59.999Z'",
      "'0001-01-01T00:00:00.000Z'",
      "'9999-12-31T23:59:59.999Z'"
    ]
  },
  raw: { refused: ["NULL", "1"], taken: [["x''", "'\\x'::bytea"], ["x'00ff'", "'\\x00ff'::bytea"]] },
  data: {
    refused: ["'{'", "'{a: 1}'", "''", "'nul'", "'[1,]'", "'NaN'", "'1 2'"],
    taken: ["NULL", "'null'", "'{\"a\": [1, true, null, \"x\"]}'", "'1e5'", "' [] '"]
  }
}

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  it.scopedLive("the same values are refused, and the same are taken", () =>
    Effect.flatMap(fresh, (database) =>
      Effect.provide(
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const wrong: Array<string> = []
          for (const column of everyKind.columns.filter(({ name }) => Object.hasOwn(values, name))) {
            const shape = {
              name: `only_${column.name}`,
              columns: [{ ...column, name: column.name }],
              key: [],
              unique: [],
              indexes: []
            }
            yield* sql.unsafe(Blueprint.createTable(shape, dialect))
            for (const expected of ["refused", "taken"] as const) {
              for (const value of values[column.name]![expected]) {
                const text = typeof value === "string" ? value : value[dialect === "pg" ? 1 : 0]
                const outcome = yield* Effect.either(
                  sql.unsafe(`INSERT INTO "${shape.name}" VALUES (${text})`)
                )
                if (Either.isLeft(outcome) !== (expected === "refused")) wrong.push(`${column.name} ${text}`)
              }
            }
          }
          expect(wrong).toEqual([])
        }),
        Store.layer(database)
      )))

  it.scopedLive("an integer key is never made up", () =>
    Effect.flatMap(fresh, (database) =>
      Effect.provide(
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const counted = Definition.make("t", Schema.Struct({ id: Schema.Int, n: Schema.Int }), { key: ["id"] })
          yield* Effect.forEach(Blueprint.statements(counted, dialect), (text) => sql.unsafe(text))
          expect(yield* Effect.flip(sql`INSERT INTO t (n) VALUES (1)`)).toMatchObject({ _tag: "SqlError" })
          yield* sql`INSERT INTO t (id, n) VALUES (7, 1)`
        }),
        Store.layer(database)
      )))
})
