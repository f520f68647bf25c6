/**
 * A copy: comes to what an INSERT of the same rows does, and is used for many rows where it does.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as fc from "fast-check"
import pg from "pg"
import { Table } from "../../src/index.js"
import type { Lease } from "../../src/store/Lease.js"
import * as Transaction from "../../src/store/Transaction.js"
import * as Bulk from "../../src/table/Bulk.js"
import type { Cells } from "../../src/table/Bulk.js"
import type { Cell, Kind } from "../../src/table/Column.js"
import * as Copy from "../../src/table/Copy.js"
import type { Fold } from "../../src/table/Fold.js"
import { folding } from "../../src/table/FoldingConnection.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"

const text = fc.string({ unit: "binary" }).map((any) => any.replaceAll("\u0000", "").toWellFormed())
const special = fc.constantFrom("\\N", "\\.", "", "\\", "\t", "a\nb", "\r\n", "\"", "NULL", "{}", "\\x41", "ü\u{1f600}")
const cells: { readonly [K in Kind]: fc.Arbitrary<Cell> } = {
  text: fc.oneof(text, special),
  enum: special,
  integer: fc.maxSafeInteger(),
  double: fc.double({ noNaN: true, noDefaultInfinity: true }),
  bigint: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  boolean: fc.boolean(),
  timestamp: fc.date({ min: new Date(0), noInvalidDate: true }).map((date) => date.toISOString())
    .filter((iso) => /^\d{4}-/.test(iso)),
  bytes: fc.uint8Array(),
  json: fc.jsonValue().map((value) => JSON.stringify(value)).filter((json) => !json.includes("\\u"))
}
const kinds = Object.keys(cells) as ReadonlyArray<Kind>
const row: fc.Arbitrary<Cells> = fc.tuple(...kinds.map((kind) => fc.option(cells[kind])))

describe("on 'pg', a copy", () => {
  it.scopedLive(
    "stores what an INSERT stores, whatever the cells",
    () =>
      Effect.flatMap(Database.postgres, (database) =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const columns = kinds.map((kind) => `"${kind}"`)
          const bulks = {
            inserted: Bulk.pg(kinds, columns, ({ list }) => `INSERT INTO inserted (${columns.join(", ")}) ${list}`),
            copied: Copy.into("copied", columns, kinds)
          }
          for (const name of Object.keys(bulks)) {
            const types = kinds.map((kind) => `"${kind}" ${Bulk.pgTypes[kind]}`)
            yield* sql.unsafe(`CREATE TABLE ${name} (at SERIAL, ${types.join(", ")})`)
          }
          const stored = (name: string) => sql.unsafe(`SELECT ${columns.join(", ")} FROM ${name} ORDER BY at`)
          yield* Effect.promise(() =>
            fc.assert(
              fc.asyncProperty(fc.array(row, { maxLength: 20 }), (rows) =>
                Effect.runPromise(Effect.gen(function*() {
                  for (const [name, bulk] of Object.entries(bulks)) {
                    yield* sql.unsafe(`TRUNCATE ${name} RESTART IDENTITY`)
                    yield* Bulk.run(bulk, rows, (statement, parameters) => sql.unsafe(statement, parameters))
                  }
                  expect(yield* stored("copied")).toEqual(yield* stored("inserted"))
                }))),
              { numRuns: 200 }
            )
          )
        }).pipe(Effect.provide(Store.layer(database))))
  )

  it("takes those that follow each other into one table along, and no others", () => {
    const into = (table: string) => `COPY ${table} ("a") FROM STDIN`
    expect(Copy.merged([
      [into("s"), ["1\n"]],
      [into("s"), ["2\n"]],
      ["INSERT INTO s VALUES ($1)", ["3"]],
      ["INSERT INTO s VALUES ($1)", ["4"]],
      [into("s"), ["5\n"]],
      [into("t"), ["6\n"]],
      [into("t"), ["7\n"]],
      [into("t"), ["8\n"]]
    ])).toEqual([
      [into("s"), ["1\n2\n"]],
      ["INSERT INTO s VALUES ($1)", ["3"]],
      ["INSERT INTO s VALUES ($1)", ["4"]],
      [into("s"), ["5\n"]],
      [into("t"), ["6\n7\n8\n"]]
    ])
    const large = "x".repeat(10 * 1_024 * 1_024)
    expect(Copy.merged([[into("s"), [large]], [into("s"), [large]]]).length).toBe(2)
  })
})

const Things = Table.make("things", Schema.Struct({ id: Schema.String, n: Schema.Int }), { key: ["id"] })

const things = (count: number) => Array.from({ length: count }, (_, n) => ({ id: `thing\t${n}`, n }))

/** The texts of all copies from now on. */
const copies: Effect.Effect<Array<string>, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => {
    const sent: Array<string> = []
    const client = pg.Client.prototype as unknown as { query: (...args: Array<unknown>) => unknown }
    const query = client.query
    client.query = function(config, ...rest) {
      const asked = (config as { readonly text?: string } | null)?.text
      if (asked?.startsWith("COPY") === true) sent.push(asked)
      return query.call(this, config, ...rest)
    }
    return { sent, restore: () => void (client.query = query) }
  }),
  ({ restore }) => Effect.sync(restore)
).pipe(Effect.map(({ sent }) => sent))

/** A handler in a transaction, on what `leased` makes of its lease, and its fold. */
const inTransaction = (leased: (lease: Lease) => Lease) => <A, E>(handler: Effect.Effect<A, E, SqlClient.SqlClient>) =>
  Effect.gen(function*() {
    let fold: Fold | undefined
    const exit = yield* Effect.exit(
      Transaction.run(Effect.flatMap(SqlClient.TransactionConnection, ([connection]) =>
        Effect.provideService(
          folding(handler, (begun) => {
            fold = begun
          }),
          SqlClient.TransactionConnection,
          [leased(connection as Lease), 0]
        )) as Effect.Effect<A, E, SqlClient.SqlClient>)
    )
    return { exit, isUnsure: fold?.failure !== undefined }
  })

const inPart = inTransaction((lease) => lease.part())
const alone = inTransaction((lease) => lease)

const test = (
  title: string,
  columns: string,
  use: (sent: ReadonlyArray<string>) => Effect.Effect<void, unknown, SqlClient.SqlClient>
) =>
  it.scopedLive(title, () =>
    Effect.flatMap(Database.postgres, (database) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        for (const each of columns.split(";")) yield* sql.unsafe(each)
        yield* use(yield* copies)
      }).pipe(Effect.provide(Store.layer(database)))))

const plain = "CREATE TABLE things (id TEXT PRIMARY KEY, n BIGINT NOT NULL)"
const copy = "COPY \"things\" (\"id\", \"n\") FROM STDIN"
const count = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    Effect.map(
      sql<{ readonly n: number }>`SELECT count(*)::int AS n FROM things WHERE id = 'thing' || chr(9) || n`,
      ([found]) => found?.n
    )
)

describe("in a transaction of its own on 'pg', rows that are held back since others are asked for", () => {
  const inserted = (rows: number) => Effect.zipRight(Things.get({ id: "" }), Things.insertAll(things(rows)))

  test("are copied where they are very many", plain, (sent) =>
    Effect.gen(function*() {
      expect((yield* alone(inserted(2_000))).exit._tag).toBe("Success")
      expect(sent).toEqual([copy])
      expect(yield* count).toBe(2_000)
    }))

  test("are inserted where they are not", plain, (sent) =>
    Effect.gen(function*() {
      expect((yield* alone(inserted(1_999))).exit._tag).toBe("Success")
      expect(sent).toEqual([])
      expect(yield* count).toBe(1_999)
    }))
})

describe("in a part of a transaction on 'pg', many rows that are inserted", () => {
  test("are copied", plain, (sent) =>
    Effect.gen(function*() {
      expect((yield* inPart(Things.insertAll(things(9_000)))).exit._tag).toBe("Success")
      expect(sent).toEqual([copy, copy, copy])
      expect(yield* count).toBe(9_000)
    }))

  for (
    const [what, columns] of Object.entries({
      "a column is of another type than its kind":
        "CREATE TABLE things (id VARCHAR(20) PRIMARY KEY, n INTEGER NOT NULL)",
      "row security is on": `${plain};ALTER TABLE things ENABLE ROW LEVEL SECURITY`
    })
  ) {
    test(`are inserted where ${what}`, columns, (sent) =>
      Effect.gen(function*() {
        expect((yield* inPart(Things.insertAll(things(2_500)))).exit._tag).toBe("Success")
        expect(sent).toEqual([])
        expect(yield* count).toBe(2_500)
      }))
  }

  test("are inserted where they are few", plain, (sent) =>
    Effect.gen(function*() {
      expect((yield* inPart(Things.insertAll(things(499)))).exit._tag).toBe("Success")
      expect(sent).toEqual([])
      expect(yield* count).toBe(499)
    }))

  test("fail where two have one key, without a word on which", plain, () =>
    Effect.gen(function*() {
      const twice = [...things(2_500), ...things(1)]
      for (
        const handler of [Things.insertAll(twice), Effect.zipRight(Things.insertAll(twice), Things.get({ id: "" }))]
      ) {
        const { exit, isUnsure } = yield* inPart(handler)
        expect(exit._tag).toBe("Failure")
        expect(isUnsure).toBe(true)
      }
      expect(yield* count).toBe(0)
    }))

  test("are known while others are read", plain, () =>
    Effect.gen(function*() {
      const { exit } = yield* inPart(Effect.gen(function*() {
        yield* Effect.all([Things.get({ id: "x" }), Things.insert({ id: "x", n: 1 })], { concurrency: 2 })
        expect(yield* Things.find({ n: 1 })).toEqual([{ id: "x", n: 1 }])
        expect(Option.getOrUndefined(yield* Things.get({ id: "x" }))).toEqual({ id: "x", n: 1 })
        yield* Things.update({ id: "x" }, { n: 2 })
      }))
      expect(exit._tag).toBe("Success")
      expect(yield* Things.get({ id: "x" })).toEqual(Option.some({ id: "x", n: 2 }))
    }))

  test("are known to what is asked behind them, and can be changed", plain, () =>
    Effect.gen(function*() {
      const { exit } = yield* inPart(Effect.gen(function*() {
        yield* Things.insertAll(things(2_500))
        const found = yield* Things.get({ id: "thing\t7" })
        yield* Things.update({ id: "thing\t7" }, { n: -1 })
        yield* Things.delete({ id: "thing\t8" })
        return Option.getOrUndefined(found)?.n
      }))
      expect(exit).toMatchObject({ _tag: "Success", value: 7 })
      expect(yield* count).toBe(2_498)
      expect(Option.getOrUndefined(yield* Things.get({ id: "thing\t7" }))?.n).toBe(-1)
    }))
})
