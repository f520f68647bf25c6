/**
 * The transaction: what failed says so and left nothing, what succeeded is there, and nobody writes after the end.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import type * as Statement from "@effect/sql/Statement"
import { describe, expect, it } from "@effect/vitest"
import Sqlite3 from "better-sqlite3"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Fault from "../../src/process/Fault.js"
import * as Transaction from "../../src/store/Transaction.js"
import * as Subscription from "../../src/Subscription.js"
import * as Follow from "../guarantees/Follow.js"
import * as Ledger from "../guarantees/Ledger.js"
import * as Database from "../support/Database.js"
import * as PostgresServer from "../support/PostgresServer.js"
import * as Store from "../support/Store.js"

const rows = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => Effect.map(sql<{ readonly id: number }>`SELECT id FROM t ORDER BY id`, (found) => found.map(({ id }) => id))
)

const insert = (id: number) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO t (id) VALUES (${id})`)

/** On an empty table `t` of unique ids, each of whose `parent`, where it has one, has to be there at COMMIT. */
const onTable =
  (fresh: Effect.Effect<Database.Database, never, Scope.Scope>) =>
  <A, E>(use: (database: Database.Database) => Effect.Effect<A, E, SqlClient.SqlClient | Scope.Scope>) =>
    Effect.flatMap(fresh, (database) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`
        CREATE TABLE t (
          id INTEGER PRIMARY KEY, parent INTEGER REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED, ballast TEXT
        )`
        return yield* use(database)
      }).pipe(Effect.provide(Store.layer(database))))

/** A statement is run at once where that can be, and as an Effect of the connection's otherwise. */
const ways = [
  { way: "at once", sent: (statement: Statement.Statement<object>): Effect.Effect<unknown, SqlError> => statement },
  { way: "by steps", sent: (statement: Statement.Statement<object>): Effect.Effect<unknown, SqlError> => statement.raw }
]

const orphan = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO t (id, parent) VALUES (1, 99)`)

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  const table = onTable(fresh)

  it.scopedLive("what the body wrote is there when it succeeds, and nothing of it when it fails", () =>
    table(() =>
      Effect.gen(function*() {
        expect(yield* Transaction.run(Effect.as(insert(1), "done"))).toBe("done")
        expect(yield* Effect.flip(Transaction.run(Effect.zipRight(insert(2), Effect.fail("no"))))).toBe("no")
        expect(yield* rows).toEqual([1])
      })
    ))

  it.scopedLive("a defect of the body stays a defect, and leaves nothing", () =>
    table(() =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(Transaction.run(Effect.zipRight(insert(1), Effect.die("bug"))))
        expect(exit).toEqual(Exit.die("bug"))
        expect(yield* rows).toEqual([])
        yield* Transaction.run(insert(2))
      })
    ))

  it.scopedLive("a COMMIT that a deferred constraint refuses is a typed failure with its cause, and leaves nothing", () =>
    table(() =>
      Effect.gen(function*() {
        const failure = yield* Effect.flip(Transaction.run(orphan))
        expect(failure).toBeInstanceOf(SqlError)
        expect(Fault.codeOf(failure)).toMatch(/^(23503|SQLITE_CONSTRAINT_FOREIGNKEY)$/)
        expect(Fault.classify(failure)).toBe("poison")
        expect(yield* rows).toEqual([])
      })
    ))

  it.scopedLive("after a COMMIT that failed the next transaction works, and has nothing of the failed one", () =>
    table(() =>
      Effect.gen(function*() {
        for (let i = 0; i < 20; i++) yield* Effect.flip(Transaction.run(orphan))
        yield* Transaction.run(insert(2))
        expect(yield* rows).toEqual([2])
      })
    ))

  it.scopedLive("an interruption in the body rolls back, and the connection works on", () =>
    table(() =>
      Effect.gen(function*() {
        for (let i = 0; i < 20; i++) {
          const inside = yield* Deferred.make<void>()
          const fiber = yield* Effect.fork(Transaction.run(
            Effect.zipRight(insert(i), Effect.zipRight(Deferred.succeed(inside, undefined), Effect.never))
          ))
          yield* Deferred.await(inside)
          expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
        }
        yield* Transaction.run(insert(100))
        expect(yield* rows).toEqual([100])
      })
    ))

  it.scopedLive("a daemon fiber that outlives the body is refused, inside no transaction and inside no other's", () =>
    table(() =>
      Effect.gen(function*() {
        const over = yield* Deferred.make<void>()
        const late = yield* Transaction.run(Effect.zipRight(
          insert(1),
          Effect.forkDaemon(Effect.zipRight(Deferred.await(over), insert(2)))
        ))
        yield* Transaction.run(Effect.gen(function*() {
          yield* insert(3)
          yield* Deferred.succeed(over, undefined)
          expect(yield* Effect.flip(Fiber.join(late))).toMatchObject({ message: expect.stringMatching(/has ended/) })
        }))
        expect(yield* rows).toEqual([1, 3])
      })
    ))

  it.scopedLive("a failed statement in a savepoint costs the savepoint alone", () =>
    table(() =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* Transaction.run(Effect.gen(function*() {
          yield* insert(1)
          yield* Effect.ignore(sql.withTransaction(Effect.zipRight(insert(2), insert(1))))
          yield* insert(3)
        }))
        expect(yield* rows).toEqual([1, 3])
      })
    ))

  if (dialect === "pg") {
    it.scopedLive("a swallowed failure is never reported as success", () =>
      table(() =>
        Effect.gen(function*() {
          yield* insert(1)
          const swallowing = Effect.zipRight(insert(2), Effect.ignore(insert(1)))
          expect(yield* Effect.flip(Transaction.run(swallowing))).toBeInstanceOf(Transaction.RolledBack)
          expect(yield* rows).toEqual([1])
        })
      ))

    it.scopedLive("control: the stock transaction reports that success", () =>
      table(() =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          yield* insert(1)
          yield* sql.withTransaction(Effect.zipRight(insert(2), Effect.ignore(insert(1))))
          expect(yield* rows).toEqual([1])
        })
      ))

    it.scopedLive("a BEGIN that cannot be sent is a typed failure", () =>
      Effect.gen(function*() {
        const server = yield* PostgresServer.make
        yield* Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          // BEGIN goes with the first statement: a transaction without one needs no server.
          const asking = Transaction.run(sql`SELECT 1`)
          yield* asking
          yield* server.stop
          const failures = yield* Effect.replicateEffect(Effect.flip(asking), 3)
          for (const failure of failures) {
            expect(failure).toBeInstanceOf(SqlError)
            expect(Fault.classify(failure)).toBe("infrastructure")
          }
          yield* server.start
          yield* asking
        }).pipe(Effect.provide(Store.layer({ dialect: "pg", url: server.url })))
      }))

    it.scopedLive("a failed statement leaves the session fit for the next transaction, many times over", () =>
      table(() =>
        Effect.gen(function*() {
          yield* insert(1)
          for (let i = 0; i < 30; i++) yield* Effect.flip(Transaction.run(insert(1)))
          yield* Transaction.run(insert(2))
          expect(yield* rows).toEqual([1, 2])
        })
      ))
  }

  if (dialect === "sqlite") {
    const other = (filename: string) =>
      Effect.acquireRelease(
        Effect.sync(() => new Sqlite3(filename, { timeout: 0 })),
        (db) => Effect.sync(() => db.close())
      )

    it.scopedLive("it begins IMMEDIATE: no other process writes between its first read and its first write", () =>
      table((database) =>
        Effect.gen(function*() {
          const db = yield* other((database as Database.SqliteDatabase).filename)
          yield* Transaction.run(Effect.gen(function*() {
            expect(yield* rows).toEqual([])
            expect(() => db.exec("INSERT INTO t (id) VALUES (7)")).toThrow(/locked/)
            yield* insert(1)
          }))
          expect(yield* rows).toEqual([1])
        })
      ))

    it.scopedLive("a BEGIN that is locked out is a typed failure, and its body does not run", () =>
      table((database) =>
        Effect.gen(function*() {
          const db = yield* other((database as Database.SqliteDatabase).filename)
          db.exec("BEGIN IMMEDIATE")
          let ran = 0
          const failure = yield* Effect.flip(Transaction.run(Effect.sync(() => ran++)))
          expect([Fault.codeOf(failure), Fault.classify(failure), ran]).toEqual(["SQLITE_BUSY", "infrastructure", 0])
          db.exec("COMMIT")
          yield* Transaction.run(insert(1))
          expect(yield* rows).toEqual([1])
        })
      ))

    it.scopedLive.each(ways)(
      "a full disk that the body does not mind undoes it whole: SQLite has rolled back by itself, $way",
      ({ sent }) =>
        table(() =>
          Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            const [{ page_count }] = (yield* sql`PRAGMA page_count`) as unknown as readonly [
              { readonly page_count: number }
            ]
            yield* sql.unsafe(`PRAGMA max_page_count = ${page_count + 2}`)
            const failure = yield* Effect.flip(Transaction.run(Effect.gen(function*() {
              yield* insert(1)
              yield* Effect.ignore(sent(sql`INSERT INTO t (id, ballast) VALUES (2, ${"x".repeat(100_000)})`))
              yield* Effect.ignore(insert(3))
            })))
            expect(Fault.codeOf(failure)).toBe("SQLITE_FULL")
            expect(yield* rows).toEqual([])
            yield* Transaction.run(insert(4))
            expect(yield* rows).toEqual([4])
          })
        )
    )

    it.scopedLive.each(ways)(
      "a statement that rolls back itself undoes the whole body, though that swallows its failure, $way",
      ({ sent }) =>
        table(() =>
          Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            yield* insert(1)
            const failure = yield* Effect.flip(Transaction.run(Effect.gen(function*() {
              yield* insert(2)
              yield* Effect.ignore(sent(sql`INSERT OR ROLLBACK INTO t (id) VALUES (1)`))
              yield* Effect.ignore(insert(3))
            })))
            expect(Fault.codeOf(failure)).toMatch(/^SQLITE_CONSTRAINT/)
            expect(yield* rows).toEqual([1])
          })
        )
    )

    it.scopedLive.each(ways)(
      "a statement that rolls back itself undoes the whole body at whichever step its fiber is interrupted, $way",
      ({ sent }) =>
        table(() =>
          Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            yield* insert(1)
            const outcomes = new Set<string>()
            // A fiber lets others in after 2,048 steps; those before the statement decide where in it that is.
            for (let before = 2_000; before <= 2_060; before++) {
              const shifted = Effect.forEach(Array.from({ length: before }), () => Effect.void, { discard: true })
              const body = Effect.gen(function*() {
                yield* insert(2)
                const statement = sent(sql`INSERT OR ROLLBACK INTO t (id) VALUES (1)`)
                const fiber = yield* Effect.fork(Effect.zipRight(shifted, statement))
                yield* Effect.yieldNow()
                yield* Fiber.interrupt(fiber)
                yield* Effect.ignore(insert(3))
              })
              yield* Effect.ignore(Transaction.run(body))
              outcomes.add(String(yield* rows))
              yield* sql`DELETE FROM t WHERE id > 1`
            }
            expect(outcomes).toEqual(new Set(["1,2,3", "1"]))
          })
        )
    )

    it.scopedLive.each(ways)(
      "a swallowed failure that undid its statement alone costs nothing more, $way",
      ({ sent }) =>
        table(() =>
          Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            const again = sent(sql`INSERT INTO t (id) VALUES (1)`)
            yield* Transaction.run(Effect.zipRight(insert(1), Effect.zipRight(Effect.ignore(again), insert(2))))
            expect(yield* rows).toEqual([1, 2])
          })
        )
    )
  }

  /** Texts in which another reader than PostgreSQL would see no COMMIT. */
  const hidden = dialect === "pg"
    ? [
      "-- \rCOMMIT",
      "SELECT 1 AS \u00a0$$; COMMIT; SELECT 1 AS \u00a0$$",
      "SELECT begin atomic FROM (SELECT 1 AS begin) a; COMMIT"
    ]
    : []

  it.scopedLive.each(["COMMIT", "commit;", "/* done */ ROLLBACK", "BEGIN", "END", "SELECT 1; COMMIT", ...hidden])(
    "a body that sends %s is refused, and nothing of it is written, though it swallows the refusal",
    (text) =>
      onTable(fresh)(() =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          for (const [time, { sent }] of ways.entries()) {
            const meddling = Effect.all([insert(1), Effect.ignore(sent(sql.unsafe(text))), Effect.ignore(insert(2))])
            const failure = yield* Effect.flip(Transaction.run(meddling))
            expect(failure).toMatchObject({ _tag: "SqlError" })
            expect(Fault.codeOf(failure)).toBe("2D000")
            expect(Fault.classify(failure)).toBe("drift")
            expect((yield* rows).length).toBe(time)
            yield* Transaction.run(insert(3 + time))
            expect((yield* rows).length).toBe(time + 1)
          }
        })
      )
  )

  it.scopedLive("savepoints, and words that only look like the end of a transaction, are let through", () =>
    onTable(fresh)(() =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* Transaction.run(Effect.all([
          sql.withTransaction(insert(1)),
          Effect.ignore(sql.withTransaction(Effect.zipRight(insert(2), Effect.fail("taken back")))),
          sql`SELECT CASE WHEN 1 = 1 THEN 'commit; rollback' ELSE 'begin' END AS "end"`
        ]))
        expect(yield* rows).toEqual([1])
      })
    ))

  it.scopedLive(
    "ten busy subscriptions on one client all get on, and the event loop keeps turning",
    () =>
      Effect.flatMap(fresh, (database) =>
        Effect.gen(function*() {
          const names = Array.from({ length: 10 }, (_, i) => `busy-${i}`)
          yield* Follow.prepare(Ledger.make())
          let ticks = 0
          const clock = setInterval(() => ticks++, 1)
          const order: Array<string> = []
          const one = (name: string) =>
            Subscription.commits(Ledger.make({ name, batch: { operations: 1 } })).pipe(
              Stream.runForEach(() => Effect.sync(() => order.push(name))),
              Effect.provide(Ledger.source("s", Ledger.history(name, 30).map((op) => Ledger.strand([op]))))
            )
          yield* Effect.forEach(names, one, { concurrency: "unbounded" }).pipe(
            Effect.ensuring(Effect.sync(() => clearInterval(clock)))
          )
          expect(order).toHaveLength(300)
          // When the first has done its last commit, nobody is left far behind.
          const first = Math.min(...names.map((name) => order.lastIndexOf(name)))
          for (const name of names) {
            expect(order.slice(0, first + 1).filter((each) => each === name).length).toBeGreaterThan(10)
          }
          expect(ticks).toBeGreaterThan(10)
        }).pipe(Effect.provide(Layer.mergeAll(Store.layer(database)))))
  )
})
