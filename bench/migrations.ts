/**
 * Migrations: what the first start of many namespaces costs, schemas of one PostgreSQL and files of one directory, and a
 * restart with nothing to do, from a new pool or with no file open each time.
 *
 *     npm run bench:migrations
 */
import type * as ConfigError from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Redacted from "effect/Redacted"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Postgres from "../layers/Postgres.js"
import * as Sqlite from "../layers/Sqlite.js"
import { Migration, Migrator, Namespace } from "../src/index.js"
import type { StoreUnavailable } from "../src/index.js"
import * as PostgresServer from "../test/support/PostgresServer.js"
import * as Result from "./support/Result.js"

const sizes = [100, 300, 1_000]
const restarts = 5

const ownersOf = (size: number) =>
  Array.from({ length: size }, (_, i) => ({
    namespace: Namespace.make(`n${size}_${i}`),
    migrations: {
      "0001_entry": Migration.fromSql({
        up: "CREATE TABLE entry (id TEXT PRIMARY KEY, title TEXT); CREATE INDEX entry_title ON entry (title)",
        down: "DROP TABLE entry"
      })
    }
  }))

const millis = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.timed(self), ([elapsed]) => Duration.toMillis(elapsed))

type Store = Layer.Layer<Namespace.Namespaces, StoreUnavailable.StoreUnavailable | ConfigError.ConfigError>

/** In turn over all sizes, so that a machine that is busy for a while is busy for all of them. */
const measure = (dialect: Result.Row["dialect"], store: Store) =>
  Effect.gen(function*() {
    const start = (size: number) =>
      millis(Migrator.upAll(ownersOf(size))).pipe(
        Effect.map((elapsed) => elapsed / size),
        Effect.provide(Layer.fresh(store))
      )
    const first = yield* Effect.forEach(sizes, start)
    const rounds = yield* Effect.forEach(Array.from({ length: restarts }), () => Effect.forEach(sizes, start))
    return sizes.flatMap((size, i) => {
      const of = { subject: `${size} namespaces`, dialect, unit: "ms a namespace" }
      return [
        Result.row({ ...of, metric: "first start" }, [first[i] ?? Number.NaN]),
        Result.row({ ...of, metric: "restart with nothing to do" }, rounds.map((round) => round[i] ?? Number.NaN))
      ]
    })
  })

const directory = mkdtempSync(join(tmpdir(), "effect-processors-bench-"))

const rows = await Effect.runPromise(
  Effect.scoped(Effect.gen(function*() {
    const { url } = yield* PostgresServer.make
    const pg = yield* measure("pg", Postgres.layer({ url: Redacted.make(url) }))
    const sqlite = yield* measure("sqlite", Sqlite.layerDirectory({ directory }))
    return [...pg, ...sqlite]
  })).pipe(
    Logger.withMinimumLogLevel(LogLevel.Warning),
    Effect.ensuring(Effect.sync(() => rmSync(directory, { recursive: true, force: true })))
  )
)

Result.publish(Result.make("migrations", rows, []))
