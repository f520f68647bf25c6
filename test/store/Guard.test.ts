/**
 * A guard: what gets past the reading of its text is found out by the savepoint.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Transaction } from "../../src/index.js"
import * as Guard from "../../src/store/Guard.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  const store = Layer.unwrapScoped(Effect.map(fresh, Store.layer))

  /** A guarded body that also has the connection itself, which neither the guard nor a transaction's lease watches. */
  const guarded = <E>(body: (unwatched: (text: string) => Effect.Effect<unknown, E>) => Effect.Effect<unknown, E>) =>
    Effect.scoped(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const connection = yield* sql.reserve
      const unwatched = (text: string) => Effect.orDie(connection.executeRaw(text, []))
      yield* unwatched("BEGIN")
      yield* Effect.addFinalizer(() => Effect.ignore(connection.executeRaw("ROLLBACK", [])))
      return yield* Effect.provideService(Guard.run(body(unwatched)), SqlClient.TransactionConnection, [connection, 0])
    }))

  it.scopedLive.each(
    [
      ["COMMIT", ["COMMIT"]],
      ["ROLLBACK", ["ROLLBACK"]],
      ["COMMIT and BEGIN", ["COMMIT", "BEGIN"]]
    ] as const
  )(
    "%s on the bare connection is found out, whether the body succeeds or fails",
    ([, texts]) =>
      Effect.gen(function*() {
        const ended = { _tag: "EndedTransaction", statement: undefined }
        const succeeds = guarded((unwatched) => Effect.forEach(texts, unwatched))
        expect(yield* Effect.flip(succeeds)).toMatchObject(ended)
        const fails = guarded((unwatched) => Effect.zipRight(Effect.forEach(texts, unwatched), Effect.fail("itself")))
        expect(yield* Effect.flip(fails)).toMatchObject(ended)
        // The connection is fit for the next transaction.
        expect(yield* guarded((unwatched) => unwatched("CREATE TABLE a (id TEXT)"))).toBeDefined()
      }).pipe(Effect.provide(store))
  )

  it.scopedLive("a body's own failure comes through as itself, and so does that of a statement", () =>
    Effect.gen(function*() {
      expect(yield* Effect.flip(guarded(() => Effect.fail("itself")))).toBe("itself")
      const sql = yield* SqlClient.SqlClient
      const failing = Transaction.run(Guard.run(sql`SELECT * FROM nowhere`))
      expect(yield* Effect.flip(failing)).toMatchObject({ _tag: "SqlError" })
    }).pipe(Effect.provide(store)))

  it.scopedLive("statements are told as they are sent, and may be sent otherwise", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const sent: Array<Guard.Sent> = []
      const rows = yield* Transaction.run(Guard.run(sql`SELECT ${1} AS one`, {
        onStatement: (statement) => sent.push(statement),
        rewrite: (text) => text.replace("one", "uno")
      }))
      expect(rows.map((row) => Object.keys(row))).toEqual([["uno"]])
      expect(sent).toMatchObject([{ text: expect.stringMatching(/AS one/), parameters: [1] }])
    }).pipe(Effect.provide(store)))
})
