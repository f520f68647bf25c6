/**
 * An errand: what becomes of a commit is the same whether it is taken elsewhere or not, and whatever happens to it there.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import Sqlite3 from "better-sqlite3"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type * as Scope from "effect/Scope"
import type { Call } from "../../layers/sqlite/Thread.js"
import * as Errand from "../../src/store/Errand.js"
import * as Reach from "../../src/table/Reach.js"
import * as Follow from "../guarantees/Follow.js"
import * as Ledger from "../guarantees/Ledger.js"
import * as World from "../guarantees/World.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"
import * as Threads from "../support/Threads.js"

const bounds: Errand.Bounds = { operations: 4, calm: 2, factor: 8, calmMax: 4_096 }

const limited = (limits: Errand.Bounds) => Layer.succeed(Errand.Limits, limits)

const operations = (count: number): ReadonlyArray<Ledger.Op> => Ledger.history("d", count)

/** A strand for each operation, so that a batch is cut anywhere. */
const strands = (ops: ReadonlyArray<Ledger.Op>) => ops.map((op) => Ledger.strand([op]))

const entries = Effect.map(Ledger.entries(), (all) => all.map(({ index, n }) => [n, index]))
const inOrder = (count: number) => Array.from({ length: count }, (_, i) => [i + 1, i])

const isCommit = (request: ReadonlyArray<string>): boolean => request.includes("COMMIT")

type Needs = SqlClient.SqlClient | Scope.Scope

describe("on SQLite", () => {
  const kept = <A, E>(effect: (database: Database.SqliteDatabase) => Effect.Effect<A, E, Needs>, limits = bounds) =>
    Effect.flatMap(Database.sqlite, (database) =>
      Effect.provide(
        effect(database),
        Layer.mergeAll(Store.layer(database), limited(limits), Logger.remove(Logger.defaultLogger))
      ))

  const followed = (options: Ledger.Options, count: number, batch = 5) =>
    Effect.map(
      Follow.follow(
        Ledger.make({ kind: "tables", batch: { operations: batch }, ...options }),
        "s",
        strands(operations(count))
      ),
      (result) => {
        expect(result.failure).toBeUndefined()
        return result
      }
    )

  it.scopedLive("large commits through tables are taken once some have been seen, and small ones never", () =>
    kept(() =>
      Effect.gen(function*() {
        const threads = yield* Threads.watch()
        const { commits, incidents, transactions } = yield* followed({}, 33)
        expect(commits.length).toBe(7)
        expect(transactions).toBe(7)
        expect(incidents).toEqual([])
        // The first two are looked at, and the last has three operations.
        expect(threads.requests.filter(isCommit).length).toBe(4)
        expect(yield* entries).toEqual(inOrder(33))
      })
    ))

  it.scopedLive("commits smaller than the bound are never taken", () =>
    kept(() =>
      Effect.gen(function*() {
        const threads = yield* Threads.watch()
        yield* followed({}, 30, 3)
        expect(threads.requests).toEqual([])
        expect(yield* entries).toEqual(inOrder(30))
      })
    ))

  it.scopedLive.each(Array.from({ length: 12 }, (_, seed) => 2 * seed))(
    "world %i comes to the same, parked, queued and redelivered operations included",
    (seed) =>
      kept(() =>
        Effect.gen(function*() {
          const threads = yield* Threads.watch()
          const world = World.make(seed, { documents: 4, operations: 12 })
          const { failure } = yield* Follow.follow(World.processor(world), "world", World.strands(world))
          expect(failure).toBeUndefined()
          expect(yield* Ledger.balances()).toEqual(World.balances(world))
          expect(yield* World.violations(world)).toEqual([])
          expect(yield* World.letters).toEqual(World.waiting(world))
          expect(threads.requests.filter(isCommit).length).toBeGreaterThan(2)
        }), { operations: 1, calm: 0, factor: 1, calmMax: 0 })
  )

  const sql = SqlClient.SqlClient
  const note = (text: string): Effect.Effect<unknown, SqlError, SqlClient.SqlClient> =>
    Effect.flatMap(sql, (client) => client`INSERT INTO noted (text) VALUES (${text})`)
  const noted = Effect.flatMap(sql, (client) =>
    Effect.map(
      client<{ readonly text: string }>`SELECT text FROM noted ORDER BY rowid`,
      (rows) => rows.map(({ text }) => text)
    ))

  it.scopedLive.each([
    { what: "and lets its failure through", wrap: <A, E, R>(effect: Effect.Effect<A, E, R>) => effect },
    { what: "and swallows its failure", wrap: Effect.ignore }
  ])(
    "a handler that sends a statement of its own, after many that did not, $what, is run again here",
    ({ wrap }) =>
      kept(() =>
        Effect.gen(function*() {
          const client = yield* sql
          yield* client`CREATE TABLE noted (text TEXT)`
          const threads = yield* Threads.watch()
          const { commits, incidents } = yield* followed({
            before: (_, { index }) => index === 32 || index === 58 ? wrap(note(String(index))) : Effect.void
          }, 60)
          expect(commits.length).toBe(12)
          expect(incidents).toEqual([])
          expect(yield* noted).toEqual(["32", "58"])
          expect(yield* entries).toEqual(inOrder(60))
          // Batches 3 to 6; the seventh was begun there.
          expect(threads.requests.filter(isCommit).length).toBe(4)
        })
      )
  )

  it.scopedLive("a handler that fails on an errand is asked again here, and what it does then counts", () =>
    kept(() =>
      Effect.gen(function*() {
        let times = 0
        const { incidents } = yield* followed({
          before: (_, { index }) => index === 27 && ++times > 0 ? new Ledger.Refused({ index }) : Effect.void
        }, 40)
        // There, and here.
        expect(times).toBe(2)
        expect(incidents.map(({ _tag }) => _tag)).toEqual(["Parked"])
        expect(yield* entries).toEqual(inOrder(27))
      })
    ))

  it.scopedLive("a table with a trigger is written here", () =>
    kept(() =>
      Effect.gen(function*() {
        const client = yield* sql
        const processor = Ledger.make({ kind: "tables", batch: { operations: 5 } })
        yield* Follow.prepare(processor)
        yield* client`CREATE TABLE noted (text TEXT)`
        yield* client`CREATE TRIGGER note AFTER INSERT ON ledger_entry BEGIN INSERT INTO noted VALUES (new.op_index); END`
        Reach.forget(client)
        const threads = yield* Threads.watch()
        yield* followed({}, 40)
        expect(threads.requests).toEqual([])
        expect(yield* noted).toEqual(Array.from({ length: 40 }, (_, i) => String(i)))
      })
    ))

  it.scopedLive("a temporary table stands in for another on the connection that has it", () =>
    kept(() =>
      Effect.gen(function*() {
        const client = yield* sql
        const threads = yield* Threads.watch()
        yield* followed({}, 20)
        expect(threads.requests.filter(isCommit).length).toBe(2)
        yield* client`CREATE TEMP TABLE ledger_entry AS SELECT * FROM ledger_entry`
        yield* followed({}, 40)
        expect(threads.requests.filter(isCommit).length).toBe(2)
        expect(yield* entries).toEqual(inOrder(40))
        expect(yield* client`SELECT count(*) AS n FROM main.ledger_entry`).toEqual([{ n: 20 }])
      })
    ))

  /** Before a request is sent; once it is on its way; once it was carried out, and its answer is lost. */
  const moments = ["before", "sent", "after"] as const

  it.scopedLive.each(moments)(
    "a thread that ends %s any of its requests makes no difference",
    (moment) =>
      Effect.gen(function*() {
        let last = Number.POSITIVE_INFINITY
        let unknown = 0
        for (let at = 1; at <= last; at++) {
          yield* kept(() =>
            Effect.gen(function*() {
              const threads = yield* Threads.watch((n, send, worker) => {
                if (n !== at || moment !== "before") send()
                if (n === at && moment === "after") {
                  worker.removeAllListeners("message")
                  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60)
                }
                if (n === at) void worker.terminate()
              })
              const { commits, incidents } = yield* followed({}, 15)
              expect([at, yield* entries]).toEqual([at, inOrder(15)])
              expect(commits.reduce((sum, commit) => sum + commit.operations, 0)).toBe(15)
              for (const incident of incidents) {
                expect(incident).toMatchObject({ _tag: "Waiting", fault: "unknown" })
                unknown++
              }
              if (threads.requests.length < at) last = at
            }), { ...bounds, calm: 1, factor: 1 })
        }
        expect(last).toBeGreaterThan(6)
        // Only a COMMIT leaves anything open. One may follow what was on its way when the end came.
        if (moment === "sent") expect(unknown).toBeGreaterThanOrEqual(1)
        else expect(unknown).toBe(2)
      })
  )

  it.scopedLive("a file that another process has locked is waited for as ever", () =>
    kept((database) =>
      Effect.gen(function*() {
        const other = new Sqlite3(database.filename)
        let isLocked = false
        const threads = yield* Threads.watch((_, send, __, request) => {
          const isFirst = request.calls.some(({ text }) => text === "BEGIN IMMEDIATE")
          if (isFirst && !isLocked) {
            isLocked = true
            other.exec("BEGIN IMMEDIATE")
          }
          // Then it is tried here, which stops the event loop for as long as it waits.
          if (request.calls[0]?.text === "ROLLBACK") setTimeout(() => other.exec("ROLLBACK").close(), 50)
          send()
        })
        const { incidents } = yield* followed({}, 30)
        expect(isLocked).toBe(true)
        expect(incidents.map((incident) => incident._tag === "Waiting" && incident.fault)).toContain("infrastructure")
        expect(yield* entries).toEqual(inOrder(30))
        expect(threads.requests.filter(isCommit).length).toBe(0)
      })
    ))

  it.scopedLive("a disk that is full for the thread is asked again here", () =>
    kept(() =>
      Effect.gen(function*() {
        const call: Call = { how: "result", text: "PRAGMA max_page_count = 1", params: [], safeIntegers: false }
        const threads = yield* Threads.watch((n, send, _, request) => {
          send(n === 3 ? { ...request, calls: [call, ...request.calls] } : request)
        })
        const { incidents } = yield* followed({}, 400, 100)
        expect(incidents).toEqual([])
        expect(yield* entries).toEqual(inOrder(400))
        expect(threads.requests.filter(isCommit).length).toBe(0)
        expect(threads.requests.at(-1)).toEqual(["ROLLBACK"])
      })
    ))
})

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  it.scopedLive("what nobody takes is a transaction like any other", () =>
    Effect.flatMap(fresh, (database) =>
      Effect.gen(function*() {
        const client = yield* SqlClient.SqlClient
        // Nothing is offered to who only looks at the context of a body.
        const seen: Array<unknown> = []
        const processor = Ledger.make({
          kind: "tables",
          batch: { operations: 5 },
          before: () =>
            Effect.map(Effect.context<never>(), (context) => {
              seen.push(Context.get(context, Errand.Offered))
            })
        })
        const { failure } = yield* Follow.follow(processor, "s", strands(operations(25)))
        expect(failure).toBeUndefined()
        expect(yield* entries).toEqual(inOrder(25))
        expect(seen.length).toBeGreaterThanOrEqual(25)
        expect(new Set(seen)).toEqual(new Set([undefined]))
        expect(yield* client`SELECT 1 AS one`).toEqual([{ one: 1 }])
      }).pipe(Effect.provide(Layer.mergeAll(Store.layer(database), limited(bounds))))))
})

describe("habits", () => {
  const habits = (...commits: ReadonlyArray<number | "failed">) => {
    const learned = new Errand.Habits({ operations: 10, calm: 2, factor: 3, calmMax: 7 })
    for (const statements of commits) {
      if (statements === "failed") {
        learned.failed()
        continue
      }
      const errand = new Errand.Errand()
      errand.statements = statements
      learned.committed(errand, 10)
    }
    return learned
  }
  const calm = (count: number) => Array.from({ length: count }, () => 0)

  it("offer what is large, once enough of its like were calm", () => {
    expect(habits(...calm(1)).isOffered(10)).toBe(false)
    expect(habits(...calm(2)).isOffered(10)).toBe(true)
    expect(habits(...calm(2)).isOffered(9)).toBe(false)
    expect(habits(0, 0, 1, 0).isOffered(10)).toBe(false)
  })

  it("want more after each errand that failed, up to a bound", () => {
    expect(habits(0, 0, "failed", ...calm(5)).isOffered(10)).toBe(false)
    expect(habits(0, 0, "failed", ...calm(6)).isOffered(10)).toBe(true)
    expect(habits("failed", "failed", "failed", ...calm(6)).isOffered(10)).toBe(false)
    expect(habits("failed", "failed", "failed", ...calm(7)).isOffered(10)).toBe(true)
  })

  it("learn nothing from small commits", () => {
    const learned = habits(0)
    const small = new Errand.Errand()
    for (let i = 0; i < 5; i++) learned.committed(small, 9)
    expect(learned.isOffered(10)).toBe(false)
  })
})
