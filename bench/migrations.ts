/**
 * Migrations: what the first start of many namespaces in one database costs, and a restart with nothing to do.
 *
 *     npm run bench:migrations
 */
import type * as SqlClient from "@effect/sql/SqlClient"
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
import * as PostgresServer from "../test/support/PostgresServer.js"
import * as Result from "./support/Result.js"

const sizes = [100, 300, 1_000]
const restarts = 5

const ownersOf = (size: number) =>
  Array.from({ length: size }, (_, i) => {
    const name = `n${size}_${i}`
    return {
      namespace: Namespace.make(name),
      migrations: {
        "0001_entry": Migration.fromSql({
          up: `CREATE TABLE ${name} (id TEXT PRIMARY KEY, title TEXT); CREATE INDEX ${name}_title ON ${name} (title)`,
          down: `DROP TABLE ${name}`
        })
      }
    }
  })

const millis = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.timed(self), ([elapsed]) => Duration.toMillis(elapsed))

const measure = (dialect: Result.Row["dialect"]): Effect.Effect<
  ReadonlyArray<Result.Row>,
  Migrator.MigrationError | Migration.MigrationConflict,
  SqlClient.SqlClient
> =>
  Effect.map(
    Effect.forEach(sizes, (size) =>
      Effect.gen(function*() {
        const start = Migrator.upAll(ownersOf(size))
        const first = (yield* millis(start)) / size
        const again: Array<number> = []
        for (let run = 0; run < restarts; run++) again.push((yield* millis(start)) / size)
        const of = { subject: `${size} namespaces`, dialect, unit: "ms a namespace" }
        return [
          Result.row({ ...of, metric: "first start" }, [first]),
          Result.row({ ...of, metric: "restart with nothing to do" }, again)
        ]
      })),
    (rows) => rows.flat()
  )

const directory = mkdtempSync(join(tmpdir(), "effect-processors-bench-"))

const rows = await Effect.runPromise(
  Effect.scoped(Effect.gen(function*() {
    const { url } = yield* PostgresServer.make
    const pg = yield* Effect.provide(measure("pg"), Layer.fresh(Postgres.layer({ url: Redacted.make(url) })))
    const sqlite = yield* Effect.provide(
      measure("sqlite"),
      Layer.fresh(Sqlite.layer({ filename: join(directory, "bench.db") }))
    )
    return [...pg, ...sqlite]
  })).pipe(
    Logger.withMinimumLogLevel(LogLevel.Warning),
    Effect.ensuring(Effect.sync(() => rmSync(directory, { recursive: true, force: true })))
  )
)

Result.publish(Result.make("migrations", rows, []))
