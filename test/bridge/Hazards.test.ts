/**
 * What can go wrong around a legacy processor: the database goes away, two open at once, a filter that says something else.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { Migrator as KyselyMigrator } from "kysely"
import type { Kysely } from "kysely"
import * as Postgres from "../../layers/Postgres.js"
import { Powerhouse, Processor, Reactor, Source } from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Proxy from "../support/Proxy.js"
import * as Store from "../support/Store.js"
import { Balances, TodoIndexer } from "./Legacy.js"
import type { OperationWithContext, TodoDatabase } from "./Legacy.js"
import { processors } from "./Real.js"
import * as Run from "./Run.js"

const { driveId, strand } = Run

const silent = Logger.remove(Logger.defaultLogger)

/** What is logged while an effect runs, above debug. */
const logged = <A, E, R>(effect: Effect.Effect<A, E, R>) => {
  const lines: Array<string> = []
  const logger = Logger.make(({ message }) => void lines.push(String(message)))
  return Effect.map(Effect.provide(effect, Logger.replace(Logger.defaultLogger, logger)), () => lines)
}

const runLogged = (database: Database.Database, processor: ReturnType<typeof Run.decided>) =>
  logged(
    Reactor.run(processor).pipe(
      Effect.provide(Source.layerIterable("test", [strand("d1", [1])])),
      Effect.provide(Store.layerMany(database))
    )
  )

describe("an outage", () => {
  it.scopedLive(
    "in the middle of a call is waited for, whatever the class makes of it, and nothing is parked",
    () =>
      Effect.gen(function*() {
        const database = yield* Database.postgres
        const proxy = yield* Proxy.make(database.url)
        let cuts = 0
        class Hiding extends Balances {
          override async onOperations(operations: ReadonlyArray<OperationWithContext>): Promise<void> {
            await super.onOperations(operations)
            if (operations[0]?.context.documentId === "d2" && cuts < 2) {
              // The first time it wraps what it is told, the second time it keeps it to itself.
              const isSwallowing = cuts++ === 1
              await Effect.runPromise(proxy.cutAll)
              await this.relationalDb.selectFrom("balance").selectAll().execute().catch((cause: unknown) => {
                if (!isSwallowing) throw new Error("could not look", { cause })
              })
            }
          }
        }
        const place = Hiding.getNamespace(driveId)
        const processor = Powerhouse.RelationalProcessor.make("hiding", Hiding, { driveId }).pipe(
          Processor.withPolicy({ ...Powerhouse.RelationalProcessor.policy, LegacyFailure: { _tag: "Park" } })
        )
        const [outcome] = yield* Reactor.run(processor).pipe(
          Effect.provide(Source.layerIterable("test", [strand("d1", [1]), strand("d2", [2]), strand("d3", [3])])),
          Effect.provide(Layer.merge(Postgres.layer({ url: Redacted.make(proxy.url) }), silent))
        )
        expect(cuts).toBe(2)
        expect(outcome).toMatchObject({ phase: "ended", waiting: 0, totals: { operations: 3 } })
        expect(yield* Run.rows(database, place, "balance")).toEqual([
          { document_id: "d1", amount: 1, operations: 1 },
          { document_id: "d2", amount: 2, operations: 1 },
          { document_id: "d3", amount: 3, operations: 1 }
        ])
      })
  )
})

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  it.scopedLive("eight that open at once make their tables once", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      let [open, openMax] = [0, 0]
      class Slow extends TodoIndexer {
        override async initAndUpgrade(): Promise<void> {
          openMax = Math.max(openMax, ++open)
          // Without `ifNotExists`: whoever comes second must see that it is there.
          const db = this.relationalDb as unknown as Kysely<unknown> & {
            readonly healthCheck: (table: string) => Promise<boolean>
          }
          if (!(await db.healthCheck("todo"))) {
            await new Promise((resolve) => setImmediate(resolve))
            await db.schema.createTable("todo").addColumn("task", "text").addColumn("status", "boolean").execute()
          }
          open--
        }
      }
      const eight = Array.from({ length: 8 }, (_, i) =>
        Run.decided(`slow-${i}`, Slow, { filter: { documentId: [`${i}`] } }))
      const outcomes = yield* Run.run(
        database,
        Array.from({ length: 8 }, (_, i) =>
          strand(`${i}`, [i])),
        ...eight
      )
      expect(outcomes.map(({ phase }) => phase)).toEqual(outcomes.map(() => "ended"))
      expect(openMax).toBe(1)
      expect(yield* Run.rows(database, Slow.getNamespace(driveId), "todo")).toHaveLength(8)
    }))

  it.scopedLive("migrations of Kysely's own migrator run", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      class Migrated extends TodoIndexer {
        override async initAndUpgrade(): Promise<void> {
          const migrator = new KyselyMigrator({
            db: this.relationalDb,
            migrationTableSchema: dialect === "pg" ? processors.hashNamespace(this.namespace) : (undefined as never),
            provider: {
              getMigrations: () =>
                Promise.resolve({
                  "0001_todo": {
                    up: (db: Kysely<unknown>) =>
                      db.schema.createTable("todo").addColumn("task", "text").addColumn("status", "boolean").execute()
                  }
                })
            }
          })
          const { error } = await migrator.migrateToLatest()
          if (error !== undefined) throw error
        }
      }
      for (const round of [1, 2]) {
        const strands = Array.from({ length: round }, (_, i) => strand("d1", [i], { from: i }))
        const [outcome] = yield* Run.run(database, strands, Run.decided("migrated", Migrated))
        expect(outcome).toMatchObject({ phase: "ended", failure: undefined })
      }
      expect(yield* Run.rows(database, Migrated.getNamespace(driveId), "todo")).toHaveLength(2)
    }))

  it.scopedLive("a transaction that does not end by itself is refused", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      class Controlled extends TodoIndexer {
        override async onOperations(): Promise<void> {
          const trx = await this.relationalDb.startTransaction().execute()
          await trx.commit().execute()
        }
      }
      const [outcome] = yield* Run.run(database, [strand("d1", [1])], Run.decided("controlled", Controlled))
      expect(outcome).toMatchObject({ phase: "ended", waiting: 1 })
    }))

  it.scopedLive("a method that does not end in time has failed, and writes nothing more", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      class Endless extends TodoIndexer {
        override async onOperations(operations: ReadonlyArray<OperationWithContext>): Promise<void> {
          await super.onOperations(operations)
          if (operations[0]?.context.documentId === "d1") await new Promise(() => undefined)
        }
      }
      const strands = [strand("d1", [1]), strand("d2", [2])]
      const [outcome] = yield* Run.run(database, strands, Run.decided("endless", Endless, { within: "200 millis" }))
      expect(outcome).toMatchObject({ phase: "ended", waiting: 1 })
      const rows = yield* Run.rows(database, Endless.getNamespace(driveId), "todo")
      expect(rows.map(({ task }) => task)).toEqual(["d2-0: ADD"])
    }))

  it.scopedLive("a transaction inside another is a part of it, however it is begun", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      class Nested extends TodoIndexer {
        override async onOperations(): Promise<void> {
          const add = (db: Kysely<TodoDatabase>, task: string) =>
            db.insertInto("todo").values({ task, status: null }).execute()
          await this.relationalDb.transaction().execute(async (outer) => {
            await add(outer, "outer")
            await this.relationalDb.transaction().execute((inner) => add(inner, "inner"))
            await this.relationalDb.transaction().execute(async (inner) => {
              await add(inner, "taken back")
              throw new Error("no")
            }).catch(() => undefined)
          })
          await add(this.relationalDb, "after")
        }
      }
      const [outcome] = yield* Run.run(database, [strand("d1", [1])], Run.decided("nested", Nested))
      expect(outcome).toMatchObject({ phase: "ended", waiting: 0 })
      const rows = yield* Run.rows(database, Nested.getNamespace(driveId), "todo")
      expect(rows.map(({ task }) => task)).toEqual(["after", "inner", "outer"])
    }))

  it.scopedLive("a stream that is left in the middle is let go of", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      class Leaving extends TodoIndexer {
        override async onOperations(operations: ReadonlyArray<OperationWithContext>): Promise<void> {
          await super.onOperations(operations)
          for await (const _ of this.relationalDb.selectFrom("todo").selectAll().stream()) break
          await this.relationalDb.insertInto("todo").values({ task: "z", status: null }).execute()
        }
      }
      const [outcome] = yield* Run.run(database, [strand("d1", [1, 2])], Run.decided("leaving", Leaving))
      expect(outcome).toMatchObject({ phase: "ended", waiting: 0 })
      expect(yield* Run.rows(database, Leaving.getNamespace(driveId), "todo")).toHaveLength(3)
    }))

  it.scopedLive("a COMMIT of its own is refused, and nothing of the call is there", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      class Committing extends TodoIndexer {
        override async onOperations(operations: ReadonlyArray<OperationWithContext>): Promise<void> {
          const { sql } = await import("kysely")
          await super.onOperations(operations)
          await sql`COMMIT`.execute(this.relationalDb).catch(() => undefined)
        }
      }
      const [outcome] = yield* Run.run(database, [strand("d1", [1])], Run.decided("committing", Committing))
      expect(outcome).not.toMatchObject({ phase: "ended", waiting: 0 })
      expect(yield* Run.rows(database, Committing.getNamespace(driveId), "todo")).toEqual([])
    }))

  it.scopedLive("a reactor that closes in the middle of a call keeps nothing of it, and the call writes nothing more", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const ends: Array<unknown> = []
      let go: () => void = () => undefined
      const gone = new Promise<void>((resolve) => {
        go = resolve
      })
      class Waiting extends TodoIndexer {
        override async onOperations(operations: ReadonlyArray<OperationWithContext>): Promise<void> {
          await super.onOperations(operations)
          started()
          await gone
          await this.relationalDb.insertInto("todo").values({ task: "late", status: null }).execute()
            .then(() => ends.push("written"), (error: unknown) => ends.push(error))
        }
      }
      let started: () => void = () => undefined
      const start = new Promise<void>((resolve) => {
        started = resolve
      })
      const fiber = yield* Effect.fork(Run.run(database, [strand("d1", [1])], Run.decided("waiting", Waiting)))
      yield* Effect.promise(() => start)
      yield* Fiber.interrupt(fiber)
      go()
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      expect(ends).toMatchObject([{ _tag: "QueryOutsideCall" }])
      expect(yield* Run.rows(database, Waiting.getNamespace(driveId), "todo")).toEqual([])
    }))
})

describe("what could be overlooked is warned of", () => {
  it.scopedLive("a filter of the class that is not the one it is run with", () =>
    Effect.gen(function*() {
      class Own extends TodoIndexer {
        override get filter() {
          return { documentType: ["acme/other"] }
        }
      }
      const lines = yield* runLogged(yield* Database.sqlite, Run.decided("own", Own))
      expect(lines.filter((line) => line.includes("acme/other"))).toHaveLength(1)
      const same = Run.decided("todo", TodoIndexer, { filter: { scope: ["global"], documentId: ["*"] } })
      expect((yield* runLogged(yield* Database.sqlite, same)).filter((line) => line.includes("filter"))).toEqual([])
    }))

  it.scopedLive("a star that matches nothing in the third generation", () =>
    Effect.gen(function*() {
      const star = Run.decided("todo", TodoIndexer, { filter: { scope: ["*"] } })
      const lines = yield* runLogged(yield* Database.sqlite, star)
      expect(lines.filter((line) => line.includes("matches nothing"))).toHaveLength(1)
    }))

  it.scopedLive("an onDisconnect that throws, or never ends", () =>
    Effect.gen(function*() {
      class Throwing extends TodoIndexer {
        override onDisconnect(): Promise<void> {
          throw new Error("not now")
        }
      }
      const lines = yield* runLogged(yield* Database.sqlite, Run.decided("throwing", Throwing))
      expect(lines).toContain("Throwing.onDisconnect: not now")
      class Endless extends TodoIndexer {
        override onDisconnect(): Promise<void> {
          return new Promise(() => undefined)
        }
      }
      const endless = Run.decided("endless", Endless, { within: "100 millis" })
      const told = yield* runLogged(yield* Database.sqlite, endless)
      expect(told.filter((line) => line.startsWith("Endless.onDisconnect"))).toHaveLength(1)
    }))
})

it.scopedLive("commits are told as of any processor", () =>
  Effect.gen(function*() {
    const database = yield* Database.sqlite
    const told = yield* Effect.flatMap(Reactor.Reactor, ({ commits }) => Stream.runCollect(Stream.take(commits, 1)))
      .pipe(
        Effect.provide(Reactor.layer(Run.decided("todo", TodoIndexer))),
        Effect.provide(Source.layerIterable("test", [strand("d1", [1, 2])])),
        Effect.provide(Layer.merge(Store.layerMany(database), silent))
      )
    expect(Chunk.toReadonlyArray(told)).toMatchObject([{ processor: "todo", operations: 2 }])
    const letters = yield* Run.within(
      database,
      TodoIndexer.getNamespace(driveId),
      Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT * FROM processor_dead_letter`)
    )
    expect(letters).toEqual([])
  }))
