/**
 * COPY … FROM STDIN on PostgreSQL, with its data as the parameter: a statement like any other, for what it writes and for what
 * becomes of the session when it fails.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fault from "../../src/process/Fault.js"
import * as Flight from "../../src/store/Flight.js"
import * as Transaction from "../../src/store/Transaction.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"

/** A table `t`, whose statements, one after another, share a session. */
const onTable = <A, E>(use: (sql: SqlClient.SqlClient) => Effect.Effect<A, E, SqlClient.SqlClient>) =>
  Effect.flatMap(Database.postgres, (database) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)`
      return yield* use(sql)
    }).pipe(Effect.provide(Store.layer(database))))

const copy = "COPY t (id, name) FROM STDIN"
const rows = (sql: SqlClient.SqlClient) => sql`SELECT id, name FROM t ORDER BY id`

it.scopedLive("what is copied is there, as text or as bytes, and the answer is that of a statement", () =>
  onTable((sql) =>
    Effect.gen(function*() {
      expect(yield* sql.unsafe(copy, ["1\tone\n2\t\\N\n"])).toEqual([])
      yield* sql.unsafe(`${copy} WITH (FORMAT csv)`, [Buffer.from("3,\"a, b\"\n")])
      yield* sql.unsafe(copy, [""])
      yield* sql.unsafe(copy, [new TextEncoder().encode("(4\tfour\n").subarray(1)])
      expect(yield* rows(sql)).toEqual([
        { id: 1, name: "one" },
        { id: 2, name: null },
        { id: 3, name: "a, b" },
        { id: 4, name: "four" }
      ])
    })
  ))

it.scopedLive.each([
  { what: "a row that is there", text: copy, data: "2\ttwo\n1\tagain\n", fault: "poison" },
  { what: "a cell that is no number", text: copy, data: "x\tone\n", fault: "poison" },
  { what: "a row that has a cell too few", text: copy, data: "2\n", fault: "poison" },
  { what: "a table that is not there", text: "COPY nowhere (id) FROM STDIN", data: "2\n", fault: "drift" }
])("$what fails it, and the session goes on", ({ data, fault, text }) =>
  onTable((sql) =>
    Effect.gen(function*() {
      yield* sql`INSERT INTO t VALUES (1, 'one')`
      expect(Fault.classify(yield* Effect.flip(sql.unsafe(text, [data])))).toBe(fault)
      expect(yield* rows(sql)).toEqual([{ id: 1, name: "one" }])
      const failed = yield* Effect.exit(Transaction.run(Effect.zipRight(sql.unsafe(text, [data]), rows(sql))))
      expect(failed._tag).toBe("Failure")
      yield* sql.unsafe(copy, ["3\tthree\n"])
      expect((yield* rows(sql)).length).toBe(2)
    })
  ))

it.scopedLive("with COMMIT it goes after what was sent before, and behind a failure it is left aside", () =>
  onTable((sql) =>
    Effect.gen(function*() {
      const departing = (first: string) =>
        Transaction.run(Effect.gen(function*() {
          yield* sql`SELECT 1`
          const depart = yield* Flight.departure
          depart?.([[first, []], [copy, ["1\tone\n"]], ["UPDATE t SET name = name || '!'", []]])
        }))
      expect(Fault.codeOf(yield* Effect.flip(departing("SELECT 1 / 0")))).toBe("22012")
      expect(yield* rows(sql)).toEqual([])
      yield* departing("INSERT INTO t VALUES (0, 'none')")
      expect(yield* rows(sql)).toEqual([{ id: 0, name: "none!" }, { id: 1, name: "one!" }])
    })
  ))

it.scopedLive("one without its data fails, and the session goes on", () =>
  onTable((sql) =>
    Effect.gen(function*() {
      expect((yield* Effect.exit(sql.unsafe(copy)))._tag).toBe("Failure")
      expect(yield* rows(sql)).toEqual([])
    })
  ))
