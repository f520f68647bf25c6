/**
 * A class over the published `RelationalDbProcessor` runs as it is, in our transaction, with our cursor, on both databases.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Powerhouse } from "../../src/index.js"
import * as Database from "../support/Database.js"
import { Balances, TodoIndexer } from "./Legacy.js"
import type { TodoDatabase } from "./Legacy.js"
import { processors } from "./Real.js"
import type { RelationalDb } from "./Real.js"
import * as Run from "./Run.js"

const { driveId, run, strand } = Run

const todoPlace = TodoIndexer.getNamespace(driveId)
const balancePlace = Balances.getNamespace(driveId)

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  it.scopedLive("what the code generator writes makes its table, and a row for each operation", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const outcomes = yield* run(database, [strand("d1", [1, 2]), strand("d2", [3])], Run.decided("todo", TodoIndexer))
      expect(outcomes).toMatchObject([{ phase: "ended", position: 2n, totals: { operations: 3 } }])
      const yes = dialect === "sqlite" ? 1 : true
      expect(yield* Run.rows(database, todoPlace, "todo")).toEqual([
        { task: "d1-0: ADD", status: yes },
        { task: "d1-1: ADD", status: yes },
        { task: "d2-0: ADD", status: yes }
      ])
    }))

  it.scopedLive("it goes on where its cursor stands when it is opened again, and makes its tables once", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const strands = [strand("d1", [1, 2]), strand("d1", [3], { from: 2 })]
      yield* run(database, strands.slice(0, 1), Run.decided("balances", Balances))
      const [outcome] = yield* run(database, strands, Run.decided("balances", Balances))
      expect(outcome?.totals.operations).toBe(1)
      yield* run(database, strands, Run.decided("balances", Balances))
      expect(yield* Run.rows(database, balancePlace, "balance")).toEqual([
        { document_id: "d1", amount: 6, operations: 3 }
      ])
    }))

  it.scopedLive("nothing of a batch is there when it throws in the middle, and what it throws for waits as a letter", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      class Throwing extends Balances {
        override async onOperations(operations: Parameters<Balances["onOperations"]>[0]): Promise<void> {
          await super.onOperations(operations)
          if (operations.some(({ operation }) => operation.index === 1)) throw new Error("no second")
        }
      }
      const place = Throwing.getNamespace(driveId)
      const strands = [strand("d1", [1, 2, 4]), strand("d2", [8])]
      const [outcome] = yield* run(database, strands, Run.decided("throwing", Throwing))
      expect(outcome).toMatchObject({ phase: "ended", waiting: 2, totals: { parked: 1 } })
      expect(yield* Run.rows(database, place, "balance")).toEqual([
        { document_id: "d1", amount: 1, operations: 1 },
        { document_id: "d2", amount: 8, operations: 1 }
      ])
      const letters = yield* Run.within(
        database,
        place,
        Effect.flatMap(SqlClient.SqlClient, (sql) =>
          sql<{ readonly cause: string; readonly reason: string }>`
          SELECT cause, reason FROM processor_dead_letter ORDER BY ordinal`)
      )
      expect(letters[0]).toMatchObject({ cause: "LegacyFailure", reason: "Throwing.onOperations: no second" })
    }))

  it.scopedLive("its tables are where the real system would have them, or ours, as asked", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      yield* run(
        database,
        [strand("d1", [1])],
        Run.decided("ours", TodoIndexer, { namespace: "todos", tables: "ours" })
      )
      expect(yield* Run.rows(database, "todos", "todo", "ours")).toHaveLength(1)
      if (dialect === "sqlite") return
      yield* run(database, [strand("d1", [1])], Run.decided("theirs", TodoIndexer))
      const schemas = yield* Run.within(
        database,
        "todos",
        Effect.flatMap(SqlClient.SqlClient, (sql) =>
          sql<{ readonly name: string }>`
          SELECT schemaname AS name FROM pg_tables WHERE tablename = 'todo' ORDER BY 1`)
      )
      expect(schemas.map(({ name }) => name)).toContain(processors.hashNamespace(todoPlace))
      expect(schemas).toHaveLength(2)
    }))

  it.scopedLive("two of one class for two drives have tables and cursors of their own", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const two = ["drive-1", "drive-2"].map((drive, i) => Run.decided(`balances-${i}`, Balances, { driveId: drive }))
      yield* run(database, [strand("d1", [1])], ...two)
      for (const drive of ["drive-1", "drive-2"]) {
        expect(yield* Run.rows(database, Balances.getNamespace(drive), "balance")).toHaveLength(1)
      }
    }))

  it.scopedLive("what it reads and writes beside each other is done one after another", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      class Parallel extends Balances {
        override async onOperations(operations: Parameters<Balances["onOperations"]>[0]): Promise<void> {
          await Promise.all(operations.map((one) => super.onOperations([one])))
        }
      }
      const place = Parallel.getNamespace(driveId)
      yield* run(database, [strand("d1", [1, 2, 3, 4]), strand("d2", [5, 6])], Run.decided("parallel", Parallel))
      expect(yield* Run.rows(database, place, "balance")).toEqual([
        { document_id: "d1", amount: 10, operations: 4 },
        { document_id: "d2", amount: 11, operations: 2 }
      ])
      const entries = yield* Run.rows(database, place, "entry")
      expect(entries.map(({ position }) => position)).toEqual([0, 1, 2, 3, 0, 1])
    }))

  it.scopedLive("a transaction of its own that fails takes back its part, and no more", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      class Partly extends Balances {
        override async onOperations(operations: Parameters<Balances["onOperations"]>[0]): Promise<void> {
          await super.onOperations(operations)
          await this.relationalDb.transaction().setIsolationLevel("serializable").execute(async (trx) => {
            await trx.updateTable("balance").set({ amount: -1 }).execute()
            // The processor's own database is inside it too, and does not wait for it.
            await this.relationalDb.updateTable("balance").set({ operations: -1 }).execute()
            throw new Error("taken back")
          }).catch(() => undefined)
        }
      }
      const place = Partly.getNamespace(driveId)
      yield* run(database, [strand("d1", [1, 2])], Run.decided("partly", Partly))
      expect(yield* Run.rows(database, place, "balance")).toEqual([{ document_id: "d1", amount: 3, operations: 2 }])
    }))

  it.scopedLive("it may swallow a statement's failure and go on", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const seen: Array<string | undefined> = []
      class Swallowing extends TodoIndexer {
        override async onOperations(operations: Parameters<TodoIndexer["onOperations"]>[0]): Promise<void> {
          await super.onOperations(operations)
          await super.onOperations(operations).catch((error: { readonly code?: string }) => seen.push(error.code))
          await this.relationalDb.insertInto("todo").values({ task: `after ${operations.length}`, status: null })
            .execute()
            .catch((error: { readonly code?: string }) => seen.push(error.code))
        }
      }
      const strands = [strand("d1", [1, 2]), strand("d2", [3]), strand("d3", [4])]
      const [outcome] = yield* run(database, strands, Run.decided("swallowing", Swallowing))
      expect(outcome).toMatchObject({ phase: "ended", waiting: 0 })
      const rows = yield* Run.rows(database, Swallowing.getNamespace(driveId), "todo")
      expect(rows.map(({ task }) => task)).toEqual([
        "after 1",
        "after 2",
        "d1-0: ADD",
        "d1-1: ADD",
        "d2-0: ADD",
        "d3-0: ADD"
      ])
      // Their code sees the driver's own errors, as it does without us.
      expect(seen).toContain(dialect === "sqlite" ? "SQLITE_CONSTRAINT_PRIMARYKEY" : "23505")
    }))

  it.scopedLive("a failure of the database stays one that is told by its code", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      class Twice extends TodoIndexer {
        override async onOperations(operations: Parameters<TodoIndexer["onOperations"]>[0]): Promise<void> {
          await super.onOperations(operations)
          await super.onOperations(operations)
        }
      }
      class Wrapping extends TodoIndexer {
        override async onOperations(): Promise<void> {
          await (this.relationalDb as never as Balances["relationalDb"]).insertInto("balance")
            .values({ document_id: "d", amount: 1, operations: 1 }).execute()
            .catch((cause: unknown) => {
              throw new Error("could not index", { cause })
            })
        }
      }
      const [twice] = yield* run(database, [strand("d1", [1])], Run.decided("twice", Twice))
      expect(twice).toMatchObject({ phase: "ended", waiting: 1 })
      const [letter] = yield* Run.within(
        database,
        Twice.getNamespace(driveId),
        Effect.flatMap(SqlClient.SqlClient, (sql) =>
          sql<{ readonly cause: string }>`
          SELECT cause FROM processor_dead_letter`)
      )
      expect(letter?.cause).toBe("SqlError")
      // The table is missing: code and database disagree, whatever the class makes of it.
      const [wrapping] = yield* run(database, [strand("d1", [1])], Run.decided("wrapping", Wrapping))
      expect(wrapping).toMatchObject({ phase: "halted", failure: { fault: "drift" } })
    }))

  it.scopedLive("it may look for its tables", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const found: Array<boolean> = []
      class Looking extends TodoIndexer {
        override async onOperations(): Promise<void> {
          const db = this.relationalDb as unknown as {
            readonly healthCheck: (table: string) => Promise<boolean>
            readonly getDb: () => Promise<RelationalDb<TodoDatabase>>
          }
          found.push(await db.healthCheck("todo"), await db.healthCheck("nothing"))
          const own = await db.getDb()
          found.push((await own.selectFrom("todo").selectAll().execute()).length === 0)
        }
      }
      yield* run(database, [strand("d1", [1])], Run.decided("looking", Looking))
      expect(found).toEqual([true, false, true])
    }))

  it.scopedLive("queries in onDisconnect are refused, since a restart closes a subscription too", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const refused: Array<unknown> = []
      class Emptying extends TodoIndexer {
        override async onDisconnect(): Promise<void> {
          await this.relationalDb.deleteFrom("todo").execute().catch((error: unknown) => refused.push(error))
        }
      }
      yield* run(database, [strand("d1", [1])], Run.decided("emptying", Emptying))
      expect(refused).toMatchObject([{ _tag: "QueryOutsideCall" }])
      expect(yield* Run.rows(database, Emptying.getNamespace(driveId), "todo")).toHaveLength(1)
    }))

  describe("a query that is not awaited", () => {
    /** What a stray query ended in. */
    const strays: Array<unknown> = []

    class Careless extends TodoIndexer {
      override async onOperations(operations: Parameters<TodoIndexer["onOperations"]>[0]): Promise<void> {
        for (const each of operations) void this.later([each]).catch((error: unknown) => strays.push(error))
      }

      private async later(operations: Parameters<TodoIndexer["onOperations"]>[0]): Promise<void> {
        await this.relationalDb.selectFrom("todo").selectAll().execute()
        await super.onOperations(operations)
      }
    }

    it.scopedLive("fails the call, and nothing of it is there", () =>
      Effect.gen(function*() {
        const database = yield* fresh
        strays.length = 0
        const [outcome] = yield* run(database, [strand("d1", [1, 2])], Run.decided("careless", Careless))
        expect(outcome).toMatchObject({ phase: "halted", failure: { cause: { _tag: "UnawaitedQuery" } } })
        expect(yield* Run.rows(database, Careless.getNamespace(driveId), "todo")).toEqual([])
        expect(strays).not.toEqual([])
        for (const stray of strays) expect(stray).toMatchObject({ _tag: "QueryOutsideCall" })
      }))

    it.scopedLive("is waited for where that is asked", () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const [outcome] = yield* run(
          database,
          [strand("d1", [1, 2]), strand("d2", [3])],
          Run.decided("careless", Careless, { unawaited: "wait" })
        )
        expect(outcome).toMatchObject({ phase: "ended", waiting: 0 })
        expect(yield* Run.rows(database, Careless.getNamespace(driveId), "todo")).toHaveLength(3)
      }))

    it.scopedLive("never slips into the transaction of a later call", () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const ends: Array<unknown> = []
        const released: Array<() => void> = []
        class Late extends TodoIndexer {
          override async onOperations(operations: Parameters<TodoIndexer["onOperations"]>[0]): Promise<void> {
            const [first] = operations
            if (first?.operation.index === 0) {
              // It waits for something that has nothing to do with the database.
              const write = super.onOperations.bind(this, operations)
              void new Promise<void>((resolve) => released.push(resolve)).then(write)
                .then(() => ends.push("written"), (error: unknown) => ends.push(error))
            } else {
              for (const release of released) release()
              await new Promise((resolve) => setImmediate(resolve))
              await super.onOperations(operations)
            }
          }
        }
        const [outcome] = yield* run(
          database,
          [strand("d1", [1]), strand("d1", [2], { from: 1 })],
          Run.decided("late", Late, { batch: { operations: 1 } })
        )
        expect(outcome).toMatchObject({ phase: "ended" })
        expect(ends).toMatchObject([{ _tag: "QueryOutsideCall" }])
        const rows = yield* Run.rows(database, Late.getNamespace(driveId), "todo")
        expect(rows.map(({ task }) => task)).toEqual(["d1-1: ADD"])
      }))
  })

  it.scopedLive("a second namespace is another schema, and refused where there are none", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      class Two extends TodoIndexer {
        override async initAndUpgrade(): Promise<void> {
          await super.initAndUpgrade()
          await this.relationalDb.createNamespace("another")
        }
      }
      const [outcome] = yield* run(database, [strand("d1", [1])], Run.decided("two", Two))
      if (dialect === "pg") expect(outcome).toMatchObject({ phase: "ended" })
      else expect(outcome).toMatchObject({ phase: "halted", failure: { cause: { thrown: { _tag: "LegacyRefused" } } } })
    }))

  it.scopedLive("what it cannot make its tables with halts it, and says why", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      class Broken extends TodoIndexer {
        override async initAndUpgrade(): Promise<void> {
          await super.initAndUpgrade()
          throw new Error("no configuration")
        }
      }
      const [outcome] = yield* run(database, [strand("d1", [1])], Run.decided("broken", Broken))
      expect(outcome).toMatchObject({ phase: "halted", failure: { cause: { method: "Broken.initAndUpgrade" } } })
      expect(
        yield* run(
          database,
          [strand("d1", [1])],
          Run.decided("broken", TodoIndexer, {
            namespace: Broken.getNamespace(driveId)
          })
        )
      ).toMatchObject([{ phase: "ended" }])
    }))
})

describe("a name", () => {
  it("that is not allowed is refused at once", () => {
    expect(() => Powerhouse.RelationalProcessor.make("Not allowed", TodoIndexer, { driveId })).toThrow(/a name is/)
    expect(() => Powerhouse.RelationalProcessor.make("todo", TodoIndexer, { driveId: "a/b" })).toThrow(/namespace/)
  })
})
