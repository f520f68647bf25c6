/**
 * Ours: the start of many namespaces, each with one migration, schemas of one PostgreSQL or files of one directory.
 *
 *     node migrate-ours.js <URL or directory> <namespaces>
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Redacted from "effect/Redacted"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import { Migration, Migrator, Namespace } from "../../src/index.js"
import { isPostgres } from "./processor.js"

const [database = "", size = ""] = process.argv.slice(2)

const owners = Array.from({ length: Number(size) }, (_, i) => ({
  namespace: Namespace.make(`n_${i}`),
  migrations: {
    "0001_entry": Migration.fromSql({
      up: "CREATE TABLE entry (id TEXT PRIMARY KEY, title TEXT); CREATE INDEX entry_title ON entry (title)",
      down: "DROP TABLE entry"
    })
  }
}))

const store = isPostgres(database)
  ? Postgres.layer({ url: Redacted.make(database) })
  : Sqlite.layerDirectory({ directory: database })

const start = Migrator.upAll(owners).pipe(Effect.provide(Layer.fresh(store)))

const [elapsed] = await Effect.runPromise(Effect.timed(start).pipe(Logger.withMinimumLogLevel(LogLevel.Warning)))
process.stdout.write(`${JSON.stringify({ millis: Duration.toMillis(elapsed) })}\n`)
