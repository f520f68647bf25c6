/**
 * A bare start: Effect and the driver as their manuals import them, one row in one transaction, no framework.
 *
 *     node start-bare.js sqlite|pg <file or url> <name>
 */
import { SqlClient } from "@effect/sql"
import type { Layer } from "effect"
import { Effect, Redacted } from "effect"

const [dialect = "", target = "", name = ""] = process.argv.slice(2)

const store: Layer.Layer<SqlClient.SqlClient, unknown> = dialect === "sqlite"
  ? (await import("@effect/sql-sqlite-node")).SqliteClient.layer({ filename: target })
  : (await import("@effect/sql-pg")).PgClient.layer({ url: Redacted.make(target) })

await Effect.runPromise(
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`CREATE TABLE IF NOT EXISTS bare (name TEXT PRIMARY KEY)`
    yield* sql.withTransaction(sql`INSERT INTO bare ${sql.insert({ name })}`)
    process.stdout.write(`${JSON.stringify({ startMillis: performance.now() })}\n`)
  }).pipe(Effect.provide(store))
)
