/**
 * The wake-ups that the stores offer: news of another connection is a hint, and what is not told is not heard.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import * as Sqlite from "../../layers/Sqlite.js"
import { Wakeups } from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Eventually from "../support/Eventually.js"
import * as Proxy from "../support/Proxy.js"
import * as Store from "../support/Store.js"

const open = (database: Database.Database) =>
  Effect.map(Layer.build(Store.layer(database)), (context) => ({
    sql: Context.get(context, SqlClient.SqlClient),
    // A reference is there without being asked for in the type.
    wakeups: Effect.provide(Wakeups.Wakeups, context)
  }))

/** Does something again and again until somebody has heard of it. */
const until = <E>(fiber: Fiber.Fiber<unknown>, again: Effect.Effect<unknown, E>) =>
  again.pipe(
    Effect.zipRight(Fiber.poll(fiber)),
    Effect.repeat({ until: Option.isSome, schedule: Schedule.spaced("20 millis") })
  )

describe("on 'sqlite'", () => {
  it.scopedLive("a write of another connection is a hint", () =>
    Effect.gen(function*() {
      const database = yield* Database.sqlite
      const [here, there] = [yield* open(database), yield* open(database)]
      yield* there.sql`CREATE TABLE t (n INTEGER)`
      const hints = (yield* here.wakeups).hints("any")
      const heard = yield* Effect.fork(Stream.runDrain(Stream.take(hints, 3)))
      yield* until(heard, there.sql`INSERT INTO t VALUES (1)`)
      yield* Fiber.join(heard)
    }))

  it.scoped("a write of its own is none, and it asks after 5 ms, then less and less often, up to every 100 ms", () =>
    Effect.gen(function*() {
      const here = yield* open(yield* Database.sqlite)
      yield* here.sql`CREATE TABLE t (n INTEGER)`
      const hints = (yield* here.wakeups).hints("any")
      const heard = yield* Effect.fork(Stream.runHead(hints))
      const pauses: Array<number> = []
      for (let i = 0; i < 7; i++) {
        pauses.push(yield* Eventually.nextSleep)
        yield* here.sql`INSERT INTO t VALUES (1)`
      }
      expect(pauses).toEqual([5, 10, 20, 40, 80, 100, 100])
      expect(Option.isNone(yield* Fiber.poll(heard))).toBe(true)
    }))

  it.scoped("a database in memory has no others, and nobody asks", () =>
    Effect.gen(function*() {
      const context = yield* Layer.build(Sqlite.layerMemory)
      const heard = yield* Effect.fork(Stream.runHead(Context.get(context, Wakeups.Wakeups).hints("any")))
      yield* Eventually.settled
      expect(Option.isNone(yield* Fiber.poll(heard))).toBe(true)
      expect(Array.from(yield* TestClock.sleeps())).toEqual([])
    }))
})

describe("on 'pg'", () => {
  const told = (sql: SqlClient.SqlClient, topic: string) => sql`SELECT pg_notify(${topic}, '')`

  it.scopedLive("a notification of its topic is a hint, one of another topic is none", () =>
    Effect.gen(function*() {
      const database = yield* Database.postgres
      const [here, there] = [yield* open(database), yield* open(database)]
      const other = yield* Effect.fork(Stream.runHead((yield* here.wakeups).hints("other")))
      const heard = yield* Effect.fork(Stream.runDrain(Stream.take((yield* here.wakeups).hints("mine"), 3)))
      yield* until(heard, told(there.sql, "mine"))
      yield* Fiber.join(heard)
      expect(Option.isNone(yield* Fiber.poll(other))).toBe(true)
      yield* until(other, told(there.sql, "other"))
    }))

  it.scopedLive("a session that is lost is a hint, and is replaced", () =>
    Effect.gen(function*() {
      const database = yield* Database.postgres
      const proxy = yield* Proxy.make(database.url)
      const here = yield* open({ dialect: "pg", url: proxy.url })
      const there = yield* open(database)
      const first = yield* Deferred.make<void>()
      let hints = 0
      const heard = yield* (yield* here.wakeups).hints("mine").pipe(
        Stream.tap(() => Effect.zipRight(Effect.sync(() => hints++), Deferred.succeed(first, undefined))),
        Stream.take(9),
        Stream.runDrain,
        Effect.fork
      )
      yield* told(there.sql, "mine").pipe(
        Effect.zipRight(Deferred.isDone(first)),
        Effect.repeat({ until: (done) => done, schedule: Schedule.spaced("20 millis") })
      )
      const before = hints
      yield* proxy.cutAll
      yield* until(heard, told(there.sql, "mine"))
      expect(hints).toBe(9)
      expect(before).toBeLessThan(9)
    }))
})
