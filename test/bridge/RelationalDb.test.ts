/**
 * Their subgraphs read our tables through the static `query` of the class, as it is.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { Powerhouse, Processor } from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"
import { Balances, TodoIndexer } from "./Legacy.js"
import type { BalanceDatabase, TodoDatabase } from "./Legacy.js"
import type { RelationalDb } from "./Real.js"
import * as Run from "./Run.js"

const { driveId, run, strand } = Run

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  describe.each(["theirs", "ours"] as const)("with tables where they are %s", (tables) => {
    it.scopedLive("a subgraph reads what the processors wrote", () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const todos = Run.decided("todo", TodoIndexer, { tables })
        const balances = Run.decided("balances", Balances, { tables, namespace: "accounts" })
        yield* run(database, [strand("d1", [1, 2])], todos, balances)
        yield* Effect.gen(function*() {
          const db = yield* Powerhouse.RelationalDb.make<RelationalDb<unknown>>(todos, balances)
          const read = () =>
            TodoIndexer.query<TodoDatabase>(driveId, db).selectFrom("todo").select("task").orderBy("task").execute()
          expect(yield* Effect.promise(read)).toEqual([{ task: "d1-0: ADD" }, { task: "d1-1: ADD" }])
          const found = yield* Effect.promise(() =>
            Balances.query<BalanceDatabase>(driveId, db).selectFrom("balance")
              .innerJoin("entry", "entry.document_id", "balance.document_id")
              .select(["balance.amount", "entry.position"]).orderBy("entry.position").execute()
          )
          expect(found).toEqual([{ amount: 3, position: 0 }, { amount: 3, position: 1 }])
          const streamed: Array<unknown> = []
          yield* Effect.promise(async () => {
            for await (
              const row of TodoIndexer.query<TodoDatabase>(driveId, db).selectFrom("todo").selectAll().stream()
            ) {
              streamed.push(row.task)
            }
          })
          expect(new Set(streamed)).toEqual(new Set(["d1-0: ADD", "d1-1: ADD"]))
        }).pipe(Effect.provide(Store.layerMany(database)))
      }))
  })

  it.scopedLive("it can write nothing, and leads nowhere else", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const todos = Run.decided("todo", TodoIndexer)
      yield* run(database, [strand("d1", [1])], todos)
      yield* Effect.gen(function*() {
        const db = yield* Powerhouse.RelationalDb.make<RelationalDb<TodoDatabase>>(todos)
        const tries: ReadonlyArray<() => Promise<unknown>> = [
          () =>
            db.createNamespace<TodoDatabase>(TodoIndexer.getNamespace(driveId)).then((own) =>
              own.deleteFrom("todo").execute()
            ),
          () => db.transaction().execute((trx) => trx.selectFrom("todo").selectAll().execute()),
          () => TodoIndexer.query<TodoDatabase>("another", db).selectFrom("todo").selectAll().execute(),
          () => db.selectFrom("todo").selectAll().execute()
        ]
        for (const attempt of tries) {
          expect(Exit.isFailure(yield* Effect.exit(Effect.tryPromise(attempt)))).toBe(true)
        }
        const rows = yield* Effect.promise(() =>
          TodoIndexer.query<TodoDatabase>(driveId, db).selectFrom("todo").selectAll().execute()
        )
        expect(rows).toHaveLength(1)
      }).pipe(Effect.provide(Store.layerMany(database)))
    }))

  it.scopedLive("it is made for processors of theirs", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const ours = Processor.make("ours", { namespace: "ours", handler: Processor.onBatch(() => Effect.void) })
      const exit = yield* Effect.exit(Powerhouse.RelationalDb.make(ours)).pipe(
        Effect.provide(Store.layerMany(database))
      )
      expect(JSON.stringify(exit)).toContain("LegacyRefused")
    }))
})
