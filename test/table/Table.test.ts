/**
 * A table in a processor: what a commit sends, who is blamed for what fails, and what is left after a rollback.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Test from "../../layers/Test.js"
import { DeadLetters, DocumentModel, Draft, Fault, Policy, Processor, Table } from "../../src/index.js"
import type { Batch } from "../../src/index.js"
import * as Transaction from "../../src/store/Transaction.js"
import { folding } from "../../src/table/FoldingConnection.js"
import * as Follow from "../guarantees/Follow.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"

const Accounts = Table.make(
  "accounts",
  Schema.Struct({ id: Schema.String, owner: Schema.NullOr(Schema.String), sum: Schema.Int }),
  { key: ["id"], unique: [["owner"]] }
)

/** The same rows, of which nothing is unique. */
const Totals = Table.make(
  "accounts",
  Schema.Struct({ id: Schema.String, owner: Schema.NullOr(Schema.String), sum: Schema.Int }),
  { key: ["id"] }
)

const Moves = Table.make(
  "moves",
  Schema.Struct({ document: Schema.String, nth: Schema.Int, by: Schema.Int }),
  { key: ["document", "nth"], document: "document" }
)

type Move = Parameters<typeof Moves.insert>[0]

class Point
  extends Schema.Class<Point>("Point")({ id: Schema.String, x: Schema.Number, tags: Schema.Array(Schema.String) })
{
  get double() {
    return this.x * 2
  }
}

const Points = Table.make("points", Point, { key: ["id"] })

const migrations = {
  "0001_accounts": {
    up: Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE accounts (id TEXT PRIMARY KEY, owner TEXT UNIQUE, sum BIGINT NOT NULL CHECK (sum < 1000000))`
      yield* sql`CREATE TABLE moves (document TEXT NOT NULL, nth BIGINT NOT NULL, by BIGINT NOT NULL, PRIMARY KEY (document, nth))`
      const json = sql.literal(sql.onDialectOrElse({ sqlite: () => "TEXT", orElse: () => "JSONB" }))
      yield* sql`CREATE TABLE points (id TEXT PRIMARY KEY, x DOUBLE PRECISION NOT NULL, tags ${json} NOT NULL)`
    }),
    down: Effect.void
  }
}

const Bank = DocumentModel.make("acme/bank", {
  OPEN: Schema.Struct({ id: Schema.String, owner: Schema.NullOr(Schema.String) }),
  MOVE: Schema.Struct({ to: Schema.Struct({ id: Schema.String }), by: Schema.Int }),
  CHECK: Schema.Struct({ text: Schema.String })
})

type Handler = Processor.Handler<Policy.EngineFailure | Policy.StandardFailure, SqlClient.SqlClient>

const processor = (handler: Handler, batch: Partial<Batch.Limits> = {}) =>
  Processor.make("bank", { namespace: "bank", migrations, batch, handler }).pipe(Processor.withPolicy(Policy.standard))

const handler = Processor.onOperations(Bank, {
  OPEN: ({ input }) => Accounts.insert({ ...input, sum: 0 }),
  MOVE: ({ input, operation, strand }) =>
    Effect.zipRight(
      Accounts.increment({ id: input.to.id }, { sum: input.by }),
      Moves.insert({ document: strand.documentId, nth: operation.index, by: input.by })
    )
})

const open = (id: string, owner: string | null = null) => ({ type: "OPEN", input: { id, owner } })
const move = (id: string, by: number) => ({ type: "MOVE", input: { to: { id }, by } })
const strand = (documentId: string, operations: ReadonlyArray<Test.OperationOptions>, from = 0) =>
  Test.strand({ documentId, documentType: Bank.type, operations, from })

const accounts = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    sql<
      { readonly id: string; readonly owner: string | null; readonly sum: number }
    >`SELECT * FROM accounts ORDER BY id`
)

/** Keeps the statements that are sent, in every transaction. */
const counted = (sent: Array<string>) =>
  Layer.effect(
    SqlClient.SqlClient,
    Effect.map(SqlClient.SqlClient, (sql) => {
      const reserve = Effect.map(sql.reserve, (connection): Connection => {
        const note =
          <Rest extends ReadonlyArray<unknown>, A>(send: (text: string, ...rest: Rest) => A) =>
          (text: string, ...rest: Rest): A => {
            sent.push(text)
            return send(text, ...rest)
          }
        return {
          execute: note(connection.execute),
          executeRaw: note(connection.executeRaw),
          executeValues: note(connection.executeValues),
          executeUnprepared: note(connection.executeUnprepared),
          executeStream: note(connection.executeStream)
        }
      })
      return new Proxy(sql, {
        get: (target, name) => name === "reserve" ? reserve : Reflect.get(target, name) as unknown
      })
    })
  )

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  const kept = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient>, sent: Array<string> = []) =>
    Effect.flatMap(
      fresh,
      (database) =>
        effect.pipe(
          Effect.provide(counted(sent)),
          Effect.provide(Store.layer(database)),
          Logger.withMinimumLogLevel(LogLevel.None)
        )
    )
  const prepared = Follow.prepare(processor(handler))
  const letters = Effect.map(
    DeadLetters.list(Follow.keyOf(processor(handler), "s")),
    (found) => found.map(({ cause, operation, strand: { documentId } }) => `${documentId} ${operation.index} ${cause}`)
  )
  const of = (sent: ReadonlyArray<string>, verb: string, table: string) =>
    sent.filter((text) => text.startsWith(verb) && text.includes(`"${table}"`)).length

  it.scopedLive("a thousand operations are a few statements", () => {
    const sent: Array<string> = []
    return kept(
      Effect.gen(function*() {
        const opens = Array.from({ length: 500 }, (_, i) => strand(`d${i}`, [open(`a${i}`), move(`a${i}`, i)]))
        const { commits } = yield* Follow.follow(processor(handler), "s", opens)
        expect(commits.map(({ operations }) => operations)).toEqual([1_000])
        const stored = yield* accounts
        expect(stored).toHaveLength(500)
        expect(stored.find(({ id }) => id === "a499")?.sum).toBe(499)
        const most = dialect === "pg" ? 1 : 8
        expect(of(sent, "INSERT", "accounts")).toBeLessThanOrEqual(most)
        expect(of(sent, "INSERT", "moves")).toBeLessThanOrEqual(most)
        expect(of(sent, "UPDATE", "accounts")).toBe(0)
        expect(of(sent, "SELECT", "accounts")).toBe(0)
      }),
      sent
    )
  })

  it.scopedLive("an operation that the database refuses is parked alone, and the others of its batch are written", () =>
    kept(Effect.gen(function*() {
      const strands = Array.from(
        { length: 200 },
        (_, i) => strand(`d${i}`, [open(i === 120 ? "a7" : `a${i}`, `o${i}`), move(`a${i}`, 1)])
      )
      const { transactions } = yield* Follow.follow(processor(handler, { lingerMillis: 200 }), "s", strands)
      expect(yield* letters).toEqual(["d120 0 SqlError", "d120 1 Queued"])
      expect((yield* accounts).map(({ sum }) => sum)).toEqual(new Array(199).fill(1))
      expect(transactions).toBeLessThanOrEqual(6)
    })))

  it.scopedLive("a value that does not fit its column is poison that names table, column and reason", () =>
    kept(Effect.gen(function*() {
      const wrong = Processor.onOperations(Bank, {
        OPEN: ({ input }) => Accounts.upsert({ ...input, sum: input.id === "bad" ? 0.5 : 0 })
      })
      yield* Follow.follow(processor(wrong), "s", [strand("d", [open("fine")]), strand("e", [open("bad")])])
      expect(yield* letters).toEqual(["e 0 SqlError"])
      const [letter] = yield* DeadLetters.list(Follow.keyOf(processor(wrong), "s"))
      expect(letter?.reason).toMatch(/22000.*accounts\.sum.*0\.5/s)
      expect((yield* accounts).map(({ id }) => id)).toEqual(["fine"])
    })))

  it.scopedLive("a constraint that the definition does not name is blamed on the operation that breaks it", () =>
    kept(Effect.gen(function*() {
      const strands = [
        strand("d", [open("a"), move("a", 5)]),
        strand("e", [move("a", 999_999)]),
        strand("f", [move("a", 1)])
      ]
      yield* Follow.follow(processor(handler), "s", strands)
      expect(yield* letters).toEqual(["e 0 SqlError"])
      expect((yield* accounts).map(({ sum }) => sum)).toEqual([6])
    })))

  it.scopedLive("a unique value may go from one row to another within a batch, and not before it is given up", () =>
    kept(Effect.gen(function*() {
      const owner = Processor.onOperations(Bank, {
        OPEN: ({ input }) => Accounts.upsert({ ...input, sum: 0 })
      })
      yield* Follow.follow(processor(owner), "s", [
        strand("d", [open("a", "x"), open("b", "y")]),
        strand("e", [open("c", "x")]),
        strand("f", [open("a", "z"), open("c", "x")])
      ])
      expect(yield* letters).toEqual(["e 0 SqlError"])
      expect((yield* accounts).map(({ id, owner: who }) => `${id} ${who}`)).toEqual(["a z", "b y", "c x"])
    })))

  it.scopedLive("a handler that fails leaves none of what its batch flushed before", () =>
    kept(Effect.gen(function*() {
      const fails = Processor.onOperations(Bank, {
        OPEN: ({ input }) => Accounts.insert({ ...input, sum: 0 }),
        MOVE: () => Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT 1 AS one FROM accounts`),
        CHECK: () =>
          Effect.fail(new SqlError({ message: "no", cause: Object.assign(new Error("no"), { code: "23514" }) }))
      })
      const halting = Processor.make("bank", { namespace: "bank", migrations, handler: fails }).pipe(
        Processor.withPolicy({ ...Policy.standard, SqlError: Policy.halt })
      )
      const { failure } = yield* Follow.follow(halting, "s", [
        strand("d", [open("a"), open("b"), move("a", 1), { type: "CHECK", input: { text: "" } }])
      ])
      expect(failure?._tag).toBe("Halted")
      // What came before the operation is committed by itself; nothing of it is there twice, nor half.
      expect((yield* accounts).map(({ id }) => id)).toEqual(["a", "b"])
    })))

  it.scopedLive("a statement of the handler's own sees what tables wrote, and tables see what it wrote", () =>
    kept(Effect.gen(function*() {
      yield* prepared
      yield* Totals.insert({ id: "a", owner: null, sum: 1 })
      const sums = yield* Transaction.run(folding(
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const before = yield* Totals.get({ id: "a" })
          yield* sql`UPDATE accounts SET sum = sum + 10`
          const after = yield* Totals.get({ id: "a" })
          yield* Totals.increment({ id: "a" }, { sum: 100 })
          const [seen] = yield* sql<{ readonly sum: number }>`SELECT sum FROM accounts`
          return [before, after, Option.fromNullable(seen)].map(Option.map(({ sum }) => sum))
        }),
        () => undefined
      ))
      expect(sums).toEqual([1, 11, 111].map(Option.some))
    })))

  const inserts = {
    "one by one": (rows: ReadonlyArray<Move>) => Effect.forEach(rows, Moves.insert, { discard: true }),
    "at once": Moves.insertAll
  }
  it.scopedLive.each(["one by one", "at once"] as const)(
    "an operation that writes more rows than are held back, %s, has them written in between",
    (how) => {
      const sent: Array<string> = []
      return kept(
        Effect.gen(function*() {
          yield* prepared
          sent.length = 0
          const rows = Array.from({ length: 45_000 }, (_, nth) => ({ document: "d", nth, by: nth }))
          yield* Transaction.run(folding(inserts[how](rows), () => undefined))
          const sql = yield* SqlClient.SqlClient
          const [stored] = yield* sql<{ readonly n: number }>`SELECT count(*) AS n FROM moves`
          expect(stored?.n).toBe(45_000)
          expect(of(sent, "INSERT", "moves")).toBeLessThan(45_000 / 100)
        }),
        sent
      )
    }
  )

  describe.each(["in a handler", "in a transaction", "outside of one"])("many rows in one operation, %s,", (where) => {
    const run = <A, E>(body: Effect.Effect<A, E, SqlClient.SqlClient>) =>
      where === "in a handler"
        ? Transaction.run(folding(body, () => undefined))
        : where === "in a transaction"
        ? Transaction.run(body)
        : body
    const row = (id: string, sum: number) => ({ id, owner: null, sum })
    const sums = Effect.map(accounts, (found) => found.map(({ id, sum }) => [id, sum]))

    it.scopedLive("are written as one after another, and again when it is run again", () =>
      kept(Effect.gen(function*() {
        yield* prepared
        const all = Accounts.upsertAll(new Set([row("a", 1), row("b", 2), row("a", 3)]))
        yield* run(all)
        expect(yield* sums).toEqual([["a", 3], ["b", 2]])
        yield* run(Effect.zipRight(Accounts.insertAll([row("c", 4), row("d", 5)]), Accounts.delete({ id: "a" })))
        expect(yield* sums).toEqual([["b", 2], ["c", 4], ["d", 5]])
        yield* run(all)
        expect(yield* sums).toEqual([["a", 3], ["b", 2], ["c", 4], ["d", 5]])
        yield* run(Effect.zipRight(Accounts.upsertAll([]), Accounts.insertAll([])))
        expect((yield* sums).length).toBe(4)
      })))

    it.scopedLive("stop at the first that cannot be, with those before it written", () =>
      kept(Effect.gen(function*() {
        yield* prepared
        const failure = yield* run(Effect.flip(Accounts.insertAll([row("a", 1), row("b", 0.5), row("c", 3)])))
        expect(String(failure.cause)).toMatch(/accounts\.sum/)
        expect(yield* sums).toEqual([["a", 1]])
      })))

    it.scopedLive("fail where one has the key of another", () =>
      kept(Effect.gen(function*() {
        yield* prepared
        const failure = yield* Effect.flip(run(Accounts.insertAll([row("a", 1), row("a", 2)])))
        expect(Fault.classify(failure)).toBe("poison")
        expect(yield* sums).toEqual(where === "outside of one" ? [["a", 1]] : [])
      })))
  })

  it.scopedLive("an operation of many rows of which one cannot be is parked alone, with none of its rows", () =>
    kept(Effect.gen(function*() {
      const many = Processor.onOperations(Bank, {
        OPEN: ({ input }) =>
          Accounts.insertAll(["", "'"].map((mark) => ({ id: `${input.id}${mark}`, owner: null, sum: 0 })))
      })
      yield* Follow.prepare(processor(many))
      yield* Follow.follow(processor(many), "s", [
        strand("first", [open("a")]),
        strand("second", [open("b"), open("b"), open("c")]),
        strand("third", [open("d")])
      ])
      expect((yield* accounts).map(({ id }) => id)).toEqual(["a", "a'", "b", "b'", "d", "d'"])
      expect(yield* letters).toEqual(["second 1 SqlError", "second 2 Queued"])
    })))

  it.scopedLive("while many rows are taken in, other fibers have their turns", () =>
    kept(Effect.gen(function*() {
      yield* prepared
      const rows = Array.from({ length: 15_000 }, (_, nth) => ({ document: "d", nth, by: nth }))
      const turns = yield* Transaction.run(folding(
        Effect.gen(function*() {
          let count = 0
          const other = yield* Effect.fork(Effect.forever(Effect.zipRight(
            Effect.sync(() => count++),
            Effect.yieldNow()
          )))
          yield* Moves.insertAll(rows)
          yield* Fiber.interrupt(other)
          return count
        }),
        () => undefined
      ))
      expect(turns).toBeGreaterThanOrEqual(5)
    })))

  describe.each(["in a handler", "as statements"])("the rows of a document, %s,", (where) => {
    const run = <A, E>(body: Effect.Effect<A, E, SqlClient.SqlClient>) =>
      where === "in a handler" ? Transaction.run(folding(body, () => undefined)) : body

    it.scopedLive("are removed, those too that are held back, and can be written again", () =>
      kept(Effect.gen(function*() {
        yield* prepared
        const row = (document: string, nth: number, by: number) => ({ document, nth, by })
        yield* Effect.forEach([row("a", 0, 1), row("a", 1, 1), row("b", 0, 1)], Moves.insert)
        const seen = yield* run(Effect.gen(function*() {
          yield* Moves.insert(row("a", 2, 2))
          yield* Moves.update({ document: "a", nth: 0 }, { by: 2 })
          yield* Moves.insert(row("b", 1, 2))
          // Read, so that it is known, and known wrong, were it not forgotten.
          yield* Moves.get({ document: "a", nth: 1 })
          yield* Moves.removeDocument("a")
          const found = [yield* Moves.get({ document: "a", nth: 1 }), yield* Moves.get({ document: "a", nth: 2 })]
          yield* Moves.insert(row("a", 1, 3))
          yield* Moves.removeDocument("nobody's")
          return found
        }))
        expect(seen).toEqual([Option.none(), Option.none()])
        expect(yield* Moves.find({})).toEqual([row("a", 1, 3), row("b", 0, 1), row("b", 1, 2)])
      })))

    it.scopedLive("are not removed from a table that does not know them", () =>
      kept(Effect.gen(function*() {
        yield* prepared
        const exit = yield* Effect.exit(run(Accounts.removeDocument("a")))
        expect(String(exit)).toMatch(/accounts names no column for the id of a document/)
      })))
  })

  it.scopedLive("an interrupted batch leaves nothing", () =>
    kept(Effect.gen(function*() {
      yield* prepared
      yield* Transaction.run(folding(
        Effect.gen(function*() {
          yield* Accounts.insert({ id: "a", owner: null, sum: 1 })
          yield* Accounts.find({})
          yield* Accounts.insert({ id: "b", owner: null, sum: 1 })
          return yield* Effect.interrupt
        }),
        () => undefined
      )).pipe(Effect.exit)
      expect(yield* accounts).toEqual([])
    })))

  it.scopedLive("a fiber that outlives the handler is told that its table operation is not done", () =>
    kept(Effect.gen(function*() {
      yield* prepared
      const ended = yield* Deferred.make<void>()
      const late = yield* Transaction.run(folding(
        Effect.zipRight(
          Accounts.insert({ id: "a", owner: null, sum: 1 }),
          Effect.forkDaemon(Effect.zipRight(Deferred.await(ended), Accounts.insert({ id: "b", owner: null, sum: 1 })))
        ),
        () => undefined
      ))
      yield* Deferred.succeed(ended, undefined)
      expect((yield* Effect.flip(Fiber.join(late)))._tag).toBe("SqlError")
      expect((yield* accounts).map(({ id }) => id)).toEqual(["a"])
    })))

  it.scopedLive("a fiber that writes what is held back while its handler ends takes none of it along", () =>
    Effect.flatMap(fresh, (database) =>
      Effect.gen(function*() {
        const forking = Processor.onBatch(() =>
          Effect.gen(function*() {
            // Two statements, of which the second waits for the answer to the first.
            yield* Totals.delete({ id: "gone" })
            yield* Totals.insert({ id: "there", owner: null, sum: 1 })
            yield* Effect.forkDaemon(Effect.ignore(Totals.find({})))
            yield* Effect.yieldNow()
          })
        )
        const { commits } = yield* Follow.follow(processor(forking), "s", [strand("a", [open("x")])])
        expect(commits.map(({ operations }) => operations)).toEqual([1])
        expect((yield* accounts).map(({ id }) => id)).toEqual(["there"])
      }).pipe(Effect.provide(Store.layer(database)), Logger.withMinimumLogLevel(LogLevel.None))))

  it.scopedLive("a failure of a flush that the handler swallows does not let half of it be committed", () =>
    kept(Effect.gen(function*() {
      yield* prepared
      yield* Accounts.insert({ id: "a", owner: "x", sum: 0 })
      const body = Effect.gen(function*() {
        yield* Moves.insert({ document: "d", nth: 0, by: 1 })
        yield* Accounts.insert({ id: "a", owner: null, sum: 0 })
        yield* Effect.ignore(Accounts.find({}))
      })
      const failure = yield* Effect.flip(Transaction.run(folding(body, () => undefined)))
      expect(Fault.classify(failure)).toBe("poison")
      expect(yield* Moves.find({})).toEqual([])
    })))

  const addTo = ({ input }: { readonly input: { readonly to: { readonly id: string }; readonly by: number } }) =>
    Effect.flatMap(Totals.get({ id: input.to.id }), (found) =>
      Totals.upsert({
        id: input.to.id,
        owner: null,
        sum: Option.match(found, { onNone: () => 0, onSome: ({ sum }) => sum }) + input.by
      }))
  const moves = (times: number) =>
    Array.from({ length: times * 1_000 }, (_, i) => strand(`d${i}`, [move(`a${i % 1_000}`, 1)]))
  const readsOf = (rmw: Handler, times: number) => {
    const sent: Array<string> = []
    return kept(
      Effect.gen(function*() {
        const limits = { operations: 1_000, lingerMillis: 200 }
        const { commits } = yield* Follow.follow(processor(rmw, limits), "s", moves(times))
        expect(commits.map(({ operations }) => operations)).toEqual(new Array(times).fill(1_000))
        expect(new Set((yield* accounts).map(({ sum }) => sum))).toEqual(new Set([times]))
        return of(sent, "SELECT", "accounts")
      }),
      sent
    )
  }

  it.scopedLive("rows that an operation's input names are foreseen after three, and read together from then on", () =>
    Effect.gen(function*() {
      const learned = Processor.onOperations(Bank, { MOVE: addTo })
      // Two by themselves, those of the first batch together, and so those of each batch after it.
      expect(yield* readsOf(learned, 3)).toBe(2 + 3)
    }))

  it.scopedLive("rows that are declared are read together from the first on", () =>
    Effect.gen(function*() {
      const declared = Processor.onOperations(Bank, { MOVE: addTo }, {
        prefetch: { MOVE: ({ input }) => Totals.prefetch([{ id: input.to.id }]) }
      })
      expect(yield* readsOf(declared, 2)).toBe(2)
    }))

  it.scopedLive("rows that are foreseen and not asked for change nothing, and are forgotten", () => {
    const sent: Array<string> = []
    return kept(
      Effect.gen(function*() {
        let asks = true
        const moody = Processor.onOperations(Bank, {
          MOVE: (received) => asks ? addTo(received) : Totals.increment({ id: received.input.to.id }, { sum: 1 })
        })
        const limits = { operations: 1_000, lingerMillis: 200 }
        yield* Follow.follow(processor(moody, limits), "s", moves(1))
        asks = false
        sent.length = 0
        yield* Follow.follow(processor(moody, limits), "t", moves(2))
        expect(of(sent, "SELECT", "accounts")).toBe(0)
        expect(new Set((yield* accounts).map(({ sum }) => sum))).toEqual(new Set([3]))
      }),
      sent
    )
  })

  it.scopedLive("outside a handler each operation is a statement at once", () =>
    kept(Effect.gen(function*() {
      yield* prepared
      yield* Accounts.insert({ id: "a", owner: "x", sum: 1 })
      const again = yield* Effect.either(Accounts.insert({ id: "a", owner: null, sum: 1 }))
      expect(Either.isLeft(again) && Fault.classify(again.left)).toBe("poison")
      yield* Accounts.increment({ id: "a" }, { sum: 4 })
      yield* Accounts.increment({ id: "b" }, { sum: 4 })
      yield* Accounts.increment({ id: "c" }, { sum: 4 }, { owner: "y" })
      expect(yield* Accounts.get({ id: "a" })).toEqual(Option.some({ id: "a", owner: "x", sum: 5 }))
      expect(yield* Accounts.get({ id: "b" })).toEqual(Option.none())
      expect(yield* Accounts.find({ owner: "y" })).toEqual([{ id: "c", owner: "y", sum: 4 }])
      yield* Accounts.update({ id: "a" }, { owner: null })
      expect(yield* Accounts.find({ owner: null })).toHaveLength(1)
      yield* Accounts.delete({ id: "a" })
      expect((yield* Accounts.find({})).map(({ id }) => id)).toEqual(["c"])
      expect(yield* Accounts.find({}, { limit: 0 })).toEqual([])
    })))

  it.scopedLive("rows are found in one order on both databases", () =>
    kept(Effect.gen(function*() {
      yield* prepared
      for (const id of ["b", "a", "B", "é", "_", "Z", "10", "9"]) yield* Accounts.insert({ id, owner: null, sum: 0 })
      expect((yield* Accounts.find({})).map(({ id }) => id)).toEqual(["10", "9", "B", "Z", "_", "a", "b", "é"])
    })))

  it.scopedLive.each(["excluded", "t", "v", "unnest"])(
    "a table called %s is written like any other, in a handler and as statements",
    (name) =>
      kept(Effect.gen(function*() {
        const Named = Table.make(
          name,
          Schema.Struct({ id: Schema.String, n: Schema.Int, v: Schema.Int, t: Schema.Int }),
          {
            key: ["id"]
          }
        )
        yield* Draft.migration(Draft.initial([Named])).up
        const operations = Effect.gen(function*() {
          yield* Named.increment({ id: "a" }, { n: 1 }, { v: 4, t: 5 })
          yield* Named.increment({ id: "a" }, { n: 1, v: 1, t: 1 })
          yield* Named.upsert({ id: "b", n: 1, v: 1, t: 1 })
          yield* Named.update({ id: "b" }, { v: 9, t: 8 })
        })
        for (let times = 0; times < 2; times++) {
          yield* Transaction.run(folding(operations, () => undefined))
          yield* operations
        }
        expect(yield* Named.find({})).toEqual([{ id: "a", n: 8, v: 8, t: 9 }, { id: "b", n: 1, v: 9, t: 8 }])
      }))
  )

  it.scopedLive("rows of a class are its instances", () =>
    kept(Effect.gen(function*() {
      yield* prepared
      const point = new Point({ id: "p", x: 1.5, tags: ["\"", "NULL"] })
      yield* Transaction.run(folding(
        Effect.gen(function*() {
          yield* Points.insert(point)
          expect(yield* Points.get({ id: "p" })).toEqual(Option.some(point))
        }),
        () => undefined
      ))
      const found = yield* Points.get({ id: "p" })
      expect(Option.map(found, (each) => each instanceof Point && each.double)).toEqual(Option.some(3))
    })))

  it.scopedLive("a stored value that the Schema refuses is named", () =>
    kept(Effect.gen(function*() {
      yield* prepared
      yield* Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO points (id, x, tags) VALUES ('p', 1, '[1]')`)
      const failure = yield* Effect.flip(Points.get({ id: "p" }))
      expect(failure.message).toMatch(/points\.tags.*string/s)
      expect(Fault.classify(failure)).toBe("poison")
    })))
})
