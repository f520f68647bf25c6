/**
 * The migrator at a first start: many connections at once, one of them at work, nobody on its way before it is done.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Namespace from "../../src/domain/Namespace.js"
import type { Migrations } from "../../src/process/Migration.js"
import * as Migrator from "../../src/store/Migrator.js"
import * as Ledger from "../guarantees/Ledger.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"

const namespace = Namespace.make("raced")

/** Steps that each create a table, insert the first row of it, and count how often they ran. */
const steps = (count: number, ran: Array<string>, before: Effect.Effect<unknown> = Effect.void): Migrations =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => {
    const table = `raced_${i}`
    return [`000${i + 1}_${table}`, {
      up: Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE ${sql(table)} (id INTEGER PRIMARY KEY)`
        yield* before
        yield* sql`INSERT INTO ${sql(table)} VALUES (${i})`
        ran.push(table)
      }),
      down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE ${sql(table)}`)
    }]
  }))

const start = (migrations: Migrations) => Effect.zipRight(Migrator.prepare, Migrator.up(namespace, migrations))

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  it.scopedLive(
    "of eight connections that start at once each finds every table complete, and every step ran once",
    () =>
      Effect.gen(function*() {
        for (let round = 0; round < 3; round++) {
          const database = yield* fresh
          const ran: Array<string> = []
          const one = Effect.gen(function*() {
            yield* start(steps(4, ran))
            const sql = yield* SqlClient.SqlClient
            yield* sql`SELECT count(*) FROM processor_cursor`
            const rows = yield* Effect.forEach([0, 1, 2, 3], (i) => sql`SELECT id FROM ${sql(`raced_${i}`)}`)
            expect(rows).toEqual([[{ id: 0 }], [{ id: 1 }], [{ id: 2 }], [{ id: 3 }]])
          }).pipe(Effect.provide(Store.layer(database)))
          yield* Effect.all(Array.from({ length: 8 }, () => one), { concurrency: "unbounded" })
          expect(ran).toEqual(["raced_0", "raced_1", "raced_2", "raced_3"])
        }
      })
  )

  it.scopedLive(
    "a first start logs the user's steps, and the framework's own only where one looks for them",
    () =>
      Effect.gen(function*() {
        const lines: Array<string> = []
        const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
          lines.push(`${logLevel.label} ${String(message).replace(/ after .*/, "")}`)
        })
        yield* start(steps(1, [])).pipe(
          Effect.provide(Store.layer(yield* fresh)),
          Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
          Logger.withMinimumLogLevel(LogLevel.Debug)
        )
        expect(lines.filter((line) => line.includes("migration"))).toEqual([
          "DEBUG migration 0001_processors is up",
          "INFO migration 0001_raced_0 is up"
        ])
      })
  )

  it.scopedLive("who comes while another is at work waits for it", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const ran: Array<string> = []
      const inside = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      const first = yield* start(
        steps(1, ran, Effect.zipRight(Deferred.succeed(inside, undefined), Deferred.await(goOn)))
      )
        .pipe(Effect.provide(Store.layer(database)), Effect.fork)
      yield* Deferred.await(inside)
      const second = yield* start(steps(1, ran)).pipe(Effect.provide(Store.layer(database)), Effect.fork)
      yield* Effect.sleep("300 millis")
      expect(yield* Fiber.poll(second)).toMatchObject({ _tag: "None" })
      yield* Deferred.succeed(goOn, undefined)
      yield* Effect.all([Fiber.join(first), Fiber.join(second)])
      expect(ran).toEqual(["raced_0"])
    }))

  it.scopedLive("a step that fails leaves nothing of itself, all of those before it, and goes on where it was once mended", () =>
    Effect.flatMap(fresh, (database) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const ran: Array<string> = []
        let left = 1
        const failing = Object.fromEntries(
          Object.entries(steps(3, ran)).map(([id, step], i) => [id, {
            ...step,
            up: Effect.zipRight(step.up, Effect.when(sql`SELECT * FROM gone`, () => i === 1 && left-- > 0))
          }])
        )
        expect(yield* Effect.flip(start(failing))).toMatchObject({ _tag: "MigrationFailed", id: "0002_raced_1" })
        expect(yield* sql`SELECT id FROM raced_0`).toEqual([{ id: 0 }])
        yield* Effect.flip(sql`SELECT id FROM raced_1`)
        yield* start(failing)
        expect(yield* sql`SELECT id FROM raced_1`).toEqual([{ id: 1 }])
        expect(ran).toEqual(["raced_0", "raced_1", "raced_1", "raced_2"])
      }).pipe(Effect.provide(Store.layer(database)))))

  it.scopedLive("down and up again ends in the same tables", () =>
    Effect.flatMap(fresh, (database) =>
      Effect.gen(function*() {
        const { down, up } = Ledger.migrations["0001_ledger"]!
        for (let i = 0; i < 2; i++) {
          yield* up
          expect(yield* Ledger.balances()).toEqual([])
          yield* down
          yield* Effect.flip(Ledger.balances())
        }
      }).pipe(Effect.provide(Store.layer(database)))))
})
