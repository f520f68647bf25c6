/**
 * A flight: statements that are sent together fare as they would one after another, and save the ways in between.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import pg from "pg"
import { Journal, Namespace, Policy, Table } from "../../src/index.js"
import type { Processor } from "../../src/index.js"
import * as Fault from "../../src/process/Fault.js"
import * as Flight from "../../src/store/Flight.js"
import * as Transaction from "../../src/store/Transaction.js"
import * as Follow from "../guarantees/Follow.js"
import { strand } from "../journal/Home.js"
import * as Database from "../support/Database.js"
import * as Senders from "../support/Senders.js"
import * as Store from "../support/Store.js"

const silent = Logger.remove(Logger.defaultLogger)

/** What PostgreSQL is sent from now on, as often as nothing else was awaited on that connection; `change` may send another text. */
const flights = (
  change: (text: string) => string = (text) => text
): Effect.Effect<Array<Array<string>>, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const sent: Array<Array<string>> = []
      const inFlight = new WeakMap<object, number>()
      const client = pg.Client.prototype as unknown as { query: (...args: Array<unknown>) => unknown }
      const query = client.query
      client.query = function(config, ...rest) {
        const callback = rest.at(-1)
        const { text } = typeof config === "object" && config !== null ? config as { readonly text?: string } : {}
        if (typeof callback !== "function" || text === undefined) return query.call(this, config, ...rest)
        const awaited = inFlight.get(this) ?? 0
        if (awaited === 0) sent.push([])
        sent.at(-1)?.push(text.trim().split(/\s+/).slice(0, 2).join(" "))
        inFlight.set(this, awaited + 1)
        return query.call(this, { ...config as object, text: change(text) }, (...answer: Array<unknown>) => {
          inFlight.set(this, inFlight.get(this)! - 1)
          ;(callback as (...answer: Array<unknown>) => void)(...answer)
        })
      }
      return { sent, restore: () => void (client.query = query) }
    }),
    ({ restore }) => Effect.sync(restore)
  ).pipe(Effect.map(({ sent }) => sent))

const table = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE t (a INTEGER PRIMARY KEY)`)

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  const kept = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient | Scope.Scope>) =>
    Effect.flatMap(fresh, (database) => Effect.provide(effect, Layer.merge(Store.layer(database), silent)))

  const rows = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT a FROM t ORDER BY a`)

  it.scopedLive("each sees what those before it have written, and the answers come in order", () =>
    kept(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* table
      const answers = yield* Transaction.run(Flight.send([
        sql`SELECT 7 AS a`,
        sql`INSERT INTO t (a) VALUES (${1}) RETURNING a`,
        sql`SELECT a FROM t WHERE a = ${1}`,
        sql`UPDATE t SET a = 2 RETURNING a`
      ]))
      expect(answers).toEqual([[{ a: 7 }], [{ a: 1 }], [{ a: 1 }], [{ a: 2 }]])
      expect(yield* rows).toEqual([{ a: 2 }])
    })))

  it.scopedLive.each([0, 1, 2])(
    "one that fails tells, at place %i, nothing of the transaction stays, and the connection goes on",
    (place) =>
      kept(Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* table
        yield* sql`INSERT INTO t (a) VALUES (1)`
        const statements = [2, 3].map((a) => sql`INSERT INTO t (a) VALUES (${a})`)
        const failing = statements.toSpliced(place, 0, sql`INSERT INTO t (a) VALUES (${1})`)
        const failure = yield* Effect.flip(Transaction.run(Flight.send(failing)))
        expect(Fault.codeOf(failure)).toMatch(/^(23505|SQLITE_CONSTRAINT.*)$/)
        expect(yield* rows).toEqual([{ a: 1 }])
        yield* Transaction.run(Flight.send(statements))
        expect(yield* rows).toEqual([{ a: 1 }, { a: 2 }, { a: 3 }])
      }))
  )

  it.scopedLive("however many of one fail, nobody is warned of a leak", () =>
    kept(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const warnings: Array<string> = []
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          const warned = ({ message }: Error) => void warnings.push(message)
          process.on("warning", warned)
          return warned
        }),
        (warned) => Effect.sync(() => process.off("warning", warned))
      )
      yield* table
      const statements = Array.from({ length: 40 }, () => sql`INSERT INTO t (a) VALUES (${1})`)
      const failure = yield* Effect.flip(Transaction.run(Flight.send(statements)))
      expect(Fault.classify(failure)).toBe("poison")
      // A warning comes at the end of the turn.
      yield* Transaction.turn
      expect(warnings).toEqual([])
    })))

  it.scopedLive("the same statement again and again in one flight is prepared once, and answers each time", () =>
    kept(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const ask = (a: number) => sql`SELECT CAST(${a} AS INTEGER) + 1 AS a`
      for (let round = 0; round < 5; round++) {
        const answers = yield* Transaction.run(Flight.send([ask(1), ask(2), ask(3), ask(4)]))
        expect(answers.flat()).toEqual([{ a: 2 }, { a: 3 }, { a: 4 }, { a: 5 }])
      }
    })))

  it.scopedLive("outside of a transaction they go one after another", () =>
    kept(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      expect(yield* Flight.send([sql`SELECT 1 AS a`, sql`SELECT 2 AS a`])).toEqual([[{ a: 1 }], [{ a: 2 }]])
    })))

  it.scopedLive("a transaction without a statement, and one that fails before its first, leave nothing open", () =>
    kept(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* table
      yield* Transaction.run(Effect.void)
      yield* Effect.ignore(Transaction.run(Effect.fail("early")))
      yield* Transaction.run(sql`INSERT INTO t (a) VALUES (1)`)
      expect(yield* rows).toEqual([{ a: 1 }])
    })))
})

describe("on PostgreSQL", () => {
  const kept = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient | Namespace.Namespaces | Scope.Scope>) =>
    Effect.flatMap(Database.postgres, (database) => Effect.provide(effect, Layer.merge(Store.layer(database), silent)))

  const many = <A, E>(effect: Effect.Effect<A, E, Namespace.Namespaces | Scope.Scope>) =>
    Effect.flatMap(
      Database.postgres,
      (database) => Effect.provide(effect, Layer.merge(Store.layerMany(database), silent))
    )

  /** The flights of the last of two commits. */
  const lastCommit = (processor: Processor.Processor<never, SqlClient.SqlClient>) =>
    Effect.gen(function*() {
      yield* Follow.prepare(processor)
      const sent = yield* flights()
      yield* Follow.follow(processor, "s", [Senders.orders("d", 0, "a", "b")])
      const done = withoutPlans(sent)
      return done.slice(done.findLastIndex((flight) => flight[0] === "BEGIN"))
    })

  /** Now and then a session makes its plans anew, along with what it is sent next. */
  const withoutPlans = (sent: ReadonlyArray<ReadonlyArray<string>>) =>
    sent.map((flight) => flight.filter((text) => text !== "DISCARD PLANS"))

  it.scopedLive("a commit goes to the server and back three times", () =>
    kept(Effect.gen(function*() {
      const processor = Senders.make<SqlClient.SqlClient>({ handle: ({ n }) => Senders.note(n), batch: 1 })
      expect(yield* lastCommit(processor)).toEqual([
        ["BEGIN", "SELECT first_slice,", "SELECT s.document_id,"],
        ["INSERT INTO"],
        ["INSERT INTO", "WITH moved", "COMMIT"]
      ])
    })))

  it.scopedLive("one that writes through tables alone goes there and back twice", () =>
    kept(Effect.gen(function*() {
      const Notes = Table.make("note", Schema.Struct({ n: Schema.Int }), { key: ["n"] })
      const processor = Senders.make<SqlClient.SqlClient>({ batch: 1, handle: ({ n }) => Notes.insert({ n }) })
      expect(yield* lastCommit(processor)).toEqual([
        ["BEGIN", "SELECT first_slice,", "SELECT s.document_id,"],
        ["INSERT INTO", "INSERT INTO", "WITH moved", "COMMIT"]
      ])
    })))

  it.scopedLive("an append goes there and back twice, and once more for where its operations are that were there", () =>
    kept(Effect.gen(function*() {
      const journal = yield* Journal.make("home")
      yield* journal.append([strand("a", 0, 2)])
      const sent = yield* flights()
      yield* journal.append([strand("a", 2, 1), strand("b", 0, 1)])
      const asking = ["BEGIN", "SELECT CAST(head", "SELECT s.document_id,"]
      expect(withoutPlans(sent)).toEqual([asking, ["WITH written", "INSERT INTO", "COMMIT"]])
      yield* journal.append([strand("a", 1, 3)])
      expect(withoutPlans(sent).slice(2)).toEqual([asking, ["WITH written", "INSERT INTO"], ["SELECT asked.ordinal,"], [
        "COMMIT"
      ]])
    })))

  it.scopedLive("a transaction of another namespace takes what sends the session there along, and is in it", () =>
    many(Effect.gen(function*() {
      const { open } = yield* Namespace.Namespaces
      const [red, blue] = [yield* open(Namespace.make("red")), yield* open(Namespace.make("blue"))]
      const path = (sql: SqlClient.SqlClient) =>
        Effect.provideService(
          Transaction.run(Flight.send([sql`SELECT current_schema() AS at`, sql`SELECT 1`])),
          SqlClient.SqlClient,
          sql
        )
      const sent = yield* flights()
      for (const [sql, name] of [[red, "red"], [blue, "blue"], [blue, "blue"], [red, "red"]] as const) {
        const [rows] = yield* path(sql)
        expect(rows).toEqual([{ at: Namespace.place(Namespace.make(name)) }])
      }
      const moving = [["SET search_path", "BEGIN", "SELECT current_schema()", "SELECT 1"], ["COMMIT"]]
      expect(sent.slice(-6)).toEqual([
        ...moving,
        ["BEGIN", "SELECT current_schema()", "SELECT 1"],
        ["COMMIT"],
        ...moving
      ])
    })))

  it.scopedLive("where a session cannot be sent to a namespace nothing is done, whatever was sent with it", () =>
    many(Effect.gen(function*() {
      const { open } = yield* Namespace.Namespaces
      const red = yield* open(Namespace.make("red"))
      const blue = yield* open(Namespace.make("blue"))
      const inPlace = Effect.provideService(SqlClient.SqlClient, red)
      yield* inPlace(table)
      yield* Effect.provideService(blue`SELECT 1`, SqlClient.SqlClient, blue)
      const sent = yield* flights((text) => text.startsWith("SET search_path") ? "SELECT 1 / 0" : text)
      for (
        const body of [
          Effect.zipRight(Flight.send([red`SELECT 1`, red`SELECT 2`]), red`INSERT INTO t (a) VALUES (1)`),
          red`INSERT INTO t (a) VALUES (2)`
        ]
      ) {
        const exit = yield* Effect.exit(inPlace(Transaction.run(Effect.asVoid<unknown, SqlError, never>(body))))
        expect(Exit.isFailure(exit)).toBe(true)
      }
      expect(sent.flat().filter((text) => text.startsWith("INSERT"))).toEqual([])
      expect(sent.flat()).not.toContain("COMMIT")
    })))

  it.scopedLive.each([undefined, 1_300])(
    "a large batch is sent while it is handled; refused in it: %s",
    (refused) =>
      kept(Effect.gen(function*() {
        const Notes = Table.make("note", Schema.Struct({ n: Schema.Int }), { key: ["n"] })
        const processor = Senders.make<SqlClient.SqlClient>({
          batch: 4_000,
          policy: { SqlError: Policy.park },
          handle: ({ n }) => Notes.insert({ n })
        })
        yield* Follow.prepare(processor)
        yield* Namespace.within(
          Senders.namespace,
          Effect.flatMap(
            SqlClient.SqlClient,
            (sql) => sql`ALTER TABLE note ADD CHECK (n <> ${sql.literal(String(refused ?? -1))})`
          )
        )
        const sent = yield* flights()
        const strands = [Senders.orders("d", 0, ...new Array<string>(2_400).fill("a"))]
        const { commits } = yield* Follow.follow(processor, "s", strands)
        if (refused === undefined) {
          // The first answer is waited for with the last statements on their way.
          const texts = [...Array.from({ length: 4 }, () => "INSERT INTO"), "WITH moved", "COMMIT"]
          expect(sent.at(-1)).toEqual(texts)
        }
        expect(commits.reduce((sum, { parked }) => sum + parked, 0)).toBe(refused === undefined ? 0 : 1)
        // Operations of the document that come after the refused one wait behind it.
        expect(yield* Senders.notes).toEqual(Array.from({ length: refused ?? 2_400 }, (_, n) => n))
      }))
  )

  it.scopedLive.each<[string, ReadonlyArray<unknown>]>([
    ["the database refuses", [1]],
    ["the driver cannot write", [{
      toPostgres: () => {
        throw new Error("unwritable")
      }
    }]],
    ["the protocol cannot count", Array.from({ length: 70_000 }, (_, i) => i)]
  ])("of what was left to go with COMMIT and %s, nothing is committed", (_, parameters) =>
    kept(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE t (a INTEGER PRIMARY KEY)`
      yield* sql`INSERT INTO t (a) VALUES (1)`
      const insert = "INSERT INTO t (a) VALUES ($1)"
      const exit = yield* Effect.exit(Transaction.run(Effect.gen(function*() {
        yield* sql`INSERT INTO t (a) VALUES (2)`
        const departure = yield* Flight.departure
        departure?.([[insert, [3]], [insert, parameters], [insert, [4]]])
      })))
      expect(Exit.isFailure(exit)).toBe(true)
      expect(yield* sql`SELECT a FROM t`).toEqual([{ a: 1 }])
    })))

  it.scopedLive("where BEGIN fails nothing is done, whatever was sent with it", () =>
    kept(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE t (a INTEGER PRIMARY KEY)`
      const sent = yield* flights((text) => text === "BEGIN" ? "SELECT 1 / 0" : text)
      for (
        const body of [
          Effect.zipRight(Flight.send([sql`SELECT 1`, sql`SELECT a FROM t`]), sql`INSERT INTO t (a) VALUES (1)`),
          Flight.send([sql`INSERT INTO t (a) VALUES (2)`, sql`SELECT 1`]),
          sql`INSERT INTO t (a) VALUES (3)`
        ]
      ) {
        const exit = yield* Effect.exit(Transaction.run(Effect.asVoid<unknown, SqlError, never>(body)))
        expect(Exit.isFailure(exit)).toBe(true)
      }
      expect(sent.flat().filter((text) => text.startsWith("INSERT"))).toEqual([])
      expect(yield* sql`SELECT a FROM t`).toEqual([])
    })))
})
