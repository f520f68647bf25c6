/**
 * Program: random table operations, cut into transactions, among statements and savepoints of their own.
 *
 *     [ [insert a, get a, raw UPDATE], [savepoint { delete a, roll back }, upsert b] ]
 *
 * The same program runs on two sets of tables of the same Schemas: a statement for each operation, and folded.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as fc from "fast-check"
import { Table } from "../../src/index.js"

const plain = Schema.Struct({
  id: Schema.String,
  text: Schema.String,
  note: Schema.NullOr(Schema.String),
  count: Schema.Int,
  weight: Schema.Number,
  big: Schema.NullOr(Schema.BigIntFromSelf),
  flag: Schema.Boolean,
  at: Schema.NullOr(Schema.DateFromSelf),
  bytes: Schema.NullOr(Schema.Uint8ArrayFromSelf),
  tags: Schema.Unknown,
  state: Schema.Literal("open", "closed")
})

const member = Schema.Struct({
  team: Schema.Int,
  name: Schema.String,
  mail: Schema.NullOr(Schema.String),
  seat: Schema.Int
})

const mark = Schema.Struct({ id: Schema.Uint8ArrayFromSelf, at: Schema.DateFromSelf })

/** The tables of one run, told apart by a prefix. */
export const tables = (prefix: string) => ({
  plain: Table.make(`${prefix}_plain`, plain, { key: ["id"] }),
  member: Table.make(`${prefix}_member`, member, { key: ["team", "name"], unique: [["mail"], ["team", "seat"]] }),
  mark: Table.make(`${prefix}_mark`, mark, { key: ["id", "at"] })
})

export type Tables = ReturnType<typeof tables>

export const create = (prefix: string) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const type = (pg: string, sqlite: string) =>
      sql.literal(sql.onDialectOrElse({ sqlite: () => sqlite, orElse: () => pg }))
    const bigint = type("BIGINT", "INTEGER")
    const double = type("DOUBLE PRECISION", "REAL")
    const boolean = type("BOOLEAN", "INTEGER")
    const instant = type("TIMESTAMPTZ", "TEXT")
    const bytes = type("BYTEA", "BLOB")
    const json = type("JSONB", "TEXT")
    yield* sql`CREATE TABLE ${sql(`${prefix}_plain`)} (id TEXT PRIMARY KEY, text TEXT NOT NULL, note TEXT,
      count ${bigint} NOT NULL, weight ${double} NOT NULL, big ${bigint}, flag ${boolean} NOT NULL, at ${instant},
      bytes ${bytes}, tags ${json}, state TEXT NOT NULL)`
    yield* sql`CREATE TABLE ${sql(`${prefix}_member`)} (team ${bigint} NOT NULL, name TEXT NOT NULL, mail TEXT UNIQUE,
      seat ${bigint} NOT NULL, PRIMARY KEY (team, name), UNIQUE (team, seat))`
    yield* sql`CREATE TABLE ${sql(`${prefix}_mark`)} (id ${bytes} NOT NULL, at ${instant} NOT NULL,
      PRIMARY KEY (id, at))`
  })

export const clear = (prefix: string) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    for (const name of ["plain", "member", "mark"]) yield* sql`DELETE FROM ${sql(`${prefix}_${name}`)}`
  })

/** Everything that is stored, as the driver returns it. */
export const stored = (prefix: string) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    return {
      plain: yield* sql`SELECT * FROM ${sql(`${prefix}_plain`)} ORDER BY id`,
      member: yield* sql`SELECT * FROM ${sql(`${prefix}_member`)} ORDER BY team, name`,
      mark: yield* sql`SELECT * FROM ${sql(`${prefix}_mark`)} ORDER BY id, at`
    }
  })

/** One step, over the tables of either run; what it returns is compared. */
export interface Step {
  readonly text: string
  readonly run: (on: Tables, prefix: string) => Effect.Effect<unknown, SqlError | TakenBack, SqlClient.SqlClient>
}

/** A savepoint's own wish to be rolled back. */
export interface TakenBack {
  readonly _tag: "TakenBack"
}

const ids = ["NULL", "", "{\"\\,}", "é\u{1f600}"]
const texts = ["", "null", "NULL", "a,b", "{}", "\"", "\\", "\\\"", "'", "line\nbreak\ttab", "$1", "?", "ä\u{10ffff}"]
const text = fc.constantFrom(...texts)
const int = fc.constantFrom(0, 1, -1, 2, -7, 1_000, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER)
const small = fc.constantFrom(0, 1, 2)
const double = fc.constantFrom(0, 0.1, 0.2, -0.3, 2.5, 3, 1e308, -1e308, 5e-324)
const bigint = fc.constantFrom(0n, 1n, -1n, 2n ** 62n, -(2n ** 62n), 2n ** 63n - 1n, -(2n ** 63n))
const date = fc.constantFrom(
  "0001-01-01T00:00:00Z",
  "1969-12-31T23:59:59.999Z",
  "2026-11-21T12:00:00Z",
  "9999-12-31T23:59:59Z"
)
  .map((iso) => new Date(iso))
const bytes = fc.constantFrom([], [0], [255, 0, 92, 34], [78, 85, 76, 76]).map((each) => Uint8Array.from(each))
const json = fc.constantFrom<unknown>(null, 1, "NULL", [], ["\"", null], { a: "\\", b: [{ c: "'" }] }, { "\n": 0.1 })
const orNull = <A>(arbitrary: fc.Arbitrary<A>) => fc.option(arbitrary, { nil: null, freq: 3 })

// Operations that meet on one row are what can go wrong; those of other rows are there for the quoting.
const id = fc.oneof({ weight: 7, arbitrary: fc.constant("a") }, { weight: 2, arbitrary: fc.constantFrom("b", ...ids) })
const rest = fc.record({
  text,
  note: orNull(text),
  count: int,
  weight: double,
  big: orNull(bigint),
  flag: fc.boolean(),
  at: orNull(date),
  bytes: orNull(bytes),
  tags: json,
  state: fc.constantFrom("open" as const, "closed" as const)
})
const patch = fc.record({ text, note: orNull(text), count: small, weight: double, big: orNull(bigint), tags: json }, {
  requiredKeys: []
})
const by = fc.record({ count: int, weight: double, big: bigint }, { requiredKeys: [] })

const memberKey = fc.record({ team: fc.constantFrom(1, 2), name: fc.constantFrom("x", "y", "z") })
const memberRest = fc.record({ mail: orNull(fc.constantFrom("m1", "m2", "m3")), seat: small })
const memberPatch = fc.record({ mail: orNull(fc.constantFrom("m1", "m2", "m3")), seat: small }, { requiredKeys: [] })
const markRow = fc.record({ id: bytes, at: date })

const step = <A extends ReadonlyArray<unknown>>(
  name: string,
  values: { [I in keyof A]: fc.Arbitrary<A[I]> },
  run: (on: Tables, ...values: A) => Effect.Effect<unknown, SqlError, SqlClient.SqlClient>
): fc.Arbitrary<Step> =>
  fc.tuple(...values).map((drawn) => ({
    text: `${name} ${fc.stringify(drawn)}`,
    run: (on) => run(on, ...drawn as unknown as A)
  }))

const raw = (name: string, run: (sql: SqlClient.SqlClient, prefix: string) => Effect.Effect<unknown, SqlError>) =>
  fc.constant<Step>({ text: name, run: (_, prefix) => Effect.flatMap(SqlClient.SqlClient, (sql) => run(sql, prefix)) })

const onPlain = fc.oneof(
  step("plain.insert", [id, rest], (on, key, row) => on.plain.insert({ id: key, ...row })),
  { weight: 3, arbitrary: step("plain.upsert", [id, rest], (on, key, row) => on.plain.upsert({ id: key, ...row })) },
  step(
    "plain.insertAll",
    [fc.array(fc.tuple(id, rest), { maxLength: 4 })],
    (on, rows) => on.plain.insertAll(rows.map(([key, row]) => ({ id: key, ...row })))
  ),
  {
    weight: 2,
    arbitrary: step(
      "plain.upsertAll",
      [fc.array(fc.tuple(id, rest), { maxLength: 4 })],
      (on, rows) => on.plain.upsertAll(rows.map(([key, row]) => ({ id: key, ...row })))
    )
  },
  {
    weight: 2,
    arbitrary: step("plain.update", [id, patch], (on, key, columns) => on.plain.update({ id: key }, columns))
  },
  {
    weight: 3,
    arbitrary: step("plain.increment", [id, by], (on, key, deltas) => on.plain.increment({ id: key }, deltas))
  },
  {
    weight: 2,
    arbitrary: step("plain.increment or insert", [id, by, rest], (on, key, deltas, row) => {
      const { big: _big, count: _count, weight: _weight, ...others } = row
      return on.plain.increment({ id: key }, { count: 1, weight: 0.1, big: 1n, ...deltas }, others)
    })
  },
  { weight: 2, arbitrary: step("plain.delete", [id], (on, key) => on.plain.delete({ id: key })) },
  step("plain.get", [id], (on, key) => on.plain.get({ id: key })),
  step("plain.prefetch", [fc.array(id)], (on, keys) => on.plain.prefetch(keys.map((key) => ({ id: key })))),
  step(
    "plain.find",
    [fc.record({ note: orNull(text), flag: fc.boolean(), big: orNull(bigint) }, { requiredKeys: [] })],
    (on, where) => on.plain.find(where)
  )
)

const onMember = fc.oneof(
  {
    weight: 3,
    arbitrary: step("member.insert", [memberKey, memberRest], (on, key, row) => on.member.insert({ ...key, ...row }))
  },
  {
    weight: 2,
    arbitrary: step("member.upsert", [memberKey, memberRest], (on, key, row) => on.member.upsert({ ...key, ...row }))
  },
  step(
    "member.insertAll",
    [fc.array(fc.tuple(memberKey, memberRest), { maxLength: 3 })],
    (on, rows) => on.member.insertAll(rows.map(([key, row]) => ({ ...key, ...row })))
  ),
  step(
    "member.upsertAll",
    [fc.array(fc.tuple(memberKey, memberRest), { maxLength: 3 })],
    (on, rows) => on.member.upsertAll(rows.map(([key, row]) => ({ ...key, ...row })))
  ),
  {
    weight: 2,
    arbitrary: step("member.update", [memberKey, memberPatch], (on, key, row) => on.member.update(key, row))
  },
  step("member.increment", [memberKey, fc.constantFrom(1, -1)], (on, key, n) => on.member.increment(key, { seat: n })),
  step(
    "member.increment or insert",
    [memberKey, memberRest],
    (on, key, { mail, seat }) => on.member.increment(key, { seat }, { mail })
  ),
  { weight: 2, arbitrary: step("member.delete", [memberKey], (on, key) => on.member.delete(key)) },
  step("member.get", [memberKey], (on, key) => on.member.get(key)),
  step("member.find", [small], (on, seat) => on.member.find({ seat }, { limit: 2 }))
)

const onMark = fc.oneof(
  { weight: 2, arbitrary: step("mark.upsert", [markRow], (on, row) => on.mark.upsert(row)) },
  step("mark.insert", [markRow], (on, row) => on.mark.insert(row)),
  step("mark.increment or insert", [markRow], (on, row) => on.mark.increment(row, {}, {})),
  step("mark.delete", [markRow], (on, row) => on.mark.delete(row)),
  step("mark.get", [markRow], (on, row) => on.mark.get(row)),
  step("mark.find", [fc.record({ at: date }, { requiredKeys: [] })], (on, where) => on.mark.find(where))
)

const statement = fc.oneof(
  raw("raw UPDATE", (sql, prefix) => sql`UPDATE ${sql(`${prefix}_plain`)} SET text = text || 'x' WHERE text < 'n'`),
  raw("raw DELETE", (sql, prefix) => sql`DELETE FROM ${sql(`${prefix}_member`)} WHERE seat = 1`),
  raw("raw SELECT", (sql, prefix) => sql`SELECT count(*) AS n FROM ${sql(`${prefix}_plain`)}`)
)

type Ending = "kept" | "taken back" | "failure swallowed"

/** Steps in a savepoint, which is kept or rolled back; a failure inside ends the batch, or is swallowed. */
const savepoint = (some: fc.Arbitrary<Step>): fc.Arbitrary<Step> =>
  fc.tuple(fc.array(some, { maxLength: 4 }), fc.constantFrom<Ending>("kept", "taken back", "failure swallowed")).map(
    ([inner, ending]) => ({
      text: `savepoint, ${ending} {\n  ${inner.map((each) => each.text).join("\n  ")}\n}`,
      run: (on, prefix) =>
        Effect.flatMap(SqlClient.SqlClient, (sql) => {
          const all = Effect.forEach(inner, (each) => each.run(on, prefix))
          const body = ending === "taken back"
            ? Effect.zipRight(all, Effect.fail<TakenBack>({ _tag: "TakenBack" }))
            : all
          const kept = Effect.catchTag(sql.withTransaction(body), "TakenBack", () => Effect.succeed("taken back"))
          return ending === "failure swallowed" ? Effect.orElseSucceed(kept, () => "failed") : kept
        })
    })
  )

const steps = (operation: fc.Arbitrary<Step>): fc.Arbitrary<Step> => {
  const nested = savepoint(operation)
  const any = fc.oneof({ weight: 12, arbitrary: operation }, { weight: 1, arbitrary: statement })
  return fc.oneof(
    { weight: 12, arbitrary: any },
    { weight: 1, arbitrary: savepoint(fc.oneof({ weight: 5, arbitrary: any }, { weight: 1, arbitrary: nested })) }
  )
}

/** Rows for the transactions to find. */
const seeds = fc.tuple(
  step("plain.upsert", [fc.constant("a"), rest], (on, key, row) => on.plain.upsert({ id: key, ...row })),
  step("member.upsert", [memberRest], (on, row) => on.member.upsert({ team: 1, name: "x", ...row }))
)

const batches = (operation: fc.Arbitrary<Step>) =>
  fc.array(fc.array(steps(operation), { minLength: 1, maxLength: 10 }), { minLength: 1, maxLength: 4 })

/** Transactions, one after another: of one table, or of all. */
export const program: fc.Arbitrary<ReadonlyArray<ReadonlyArray<Step>>> = fc.tuple(
  seeds,
  fc.oneof(
    { weight: 4, arbitrary: batches(onPlain) },
    { weight: 3, arbitrary: batches(onMember) },
    batches(onMark),
    { weight: 2, arbitrary: batches(fc.oneof(onPlain, onMember, onMark)) }
  )
).map(([first, others]) => [first, ...others])

export const show = (all: ReadonlyArray<ReadonlyArray<Step>>): string =>
  all.map((batch, i) => `batch ${i}:\n${batch.map((each) => `  ${each.text}`).join("\n")}`).join("\n")
