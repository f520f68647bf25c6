/**
 * A migrator: brings a namespace's tables up to the migrations that its processors declare.
 *
 *     lock ─▶ which are applied? ─▶ the first that is not: up, record ─▶ COMMIT ─▶ again until none is left
 *
 * Invariants: each migration runs once, in a transaction with its record; two migrators never work at the same time, since
 * the lock is taken before anything is read or created.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as processors from "../../migrations/0001_processors.js"
import type { Namespace } from "../domain/Namespace.js"
import * as Fault from "../process/Fault.js"
import * as Migration from "../process/Migration.js"
import * as Transaction from "./Transaction.js"

/** A migration did not apply; nothing of it is in the database, what came before it is. */
export class MigrationFailed extends Data.TaggedError("MigrationFailed")<{
  readonly namespace: string
  readonly id: string
  readonly cause: unknown
}> {
  override get message(): string {
    return `migration ${this.id} of namespace ${this.namespace} failed: ${Fault.describe(this.cause)}`
  }
}

/** The framework's own tables, under a name that no namespace of a user can have. */
const own = { namespace: "processor_framework", migrations: { "0001_processors": processors } } as const

/** Creates the framework's own tables where they are missing. Safe to run from many processes at once. */
export const prepare: Effect.Effect<ReadonlyArray<string>, MigrationFailed, SqlClient.SqlClient> = Effect.suspend(() =>
  applyAll(own.namespace, own.migrations)
)

/** Applies what is missing, in order, and returns the ids applied. */
export const up = (
  namespace: Namespace,
  migrations: Migration.Migrations
): Effect.Effect<ReadonlyArray<string>, MigrationFailed, SqlClient.SqlClient> => applyAll(namespace, migrations)

const applyAll = (namespace: string, migrations: Migration.Migrations) =>
  Effect.gen(function*() {
    const applied: Array<string> = []
    const ids = Migration.order(migrations)
    const strange = ids.find((id) => !Migration.idPattern.test(id))
    if (strange !== undefined) {
      return yield* new MigrationFailed({ namespace, id: strange, cause: new Error("an id looks like 0001_name") })
    }
    for (const id of ids) {
      const isNew = yield* Transaction.run(applyOne(namespace, id, migrations[id]!)).pipe(
        Effect.retry({ while: (failure) => Fault.classify(failure) === "conflict", times: 100 }),
        Effect.retry({
          while: (failure) => Fault.codeOf(failure)?.startsWith("SQLITE_BUSY") === true,
          schedule: lockPatience
        }),
        Effect.mapError((cause) => new MigrationFailed({ namespace, id, cause }))
      )
      if (isNew) applied.push(id)
    }
    return applied
  })

const applyOne = (namespace: string, id: string, migration: Migration.Migration) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* lock(sql)
    yield* sql`
      CREATE TABLE IF NOT EXISTS processor_migration (
        namespace TEXT NOT NULL,
        id TEXT NOT NULL,
        applied_at_ms BIGINT NOT NULL,
        PRIMARY KEY (namespace, id)
      )`
    const known = yield* sql`SELECT 1 FROM processor_migration WHERE namespace = ${namespace} AND id = ${id}`
    if (known.length > 0) return false
    yield* migration.up
    const now = yield* Clock.currentTimeMillis
    yield* sql`INSERT INTO processor_migration (namespace, id, applied_at_ms) VALUES (${namespace}, ${id}, ${now})`
    return true
  })

/** On SQLite the transaction itself is the lock, since it begins IMMEDIATE. */
const lock = (sql: SqlClient.SqlClient): Effect.Effect<unknown, SqlError> =>
  sql.onDialectOrElse({
    sqlite: () => Effect.void,
    orElse: () => sql`SELECT pg_advisory_xact_lock(${lockKey})`
  })

/** A key of our own in PostgreSQL's space of advisory locks: the first 8 bytes of SHA-256("effect-processors/migrations"). */
const lockKey = 3_928_878_040_865_223_998n

/** How long a SQLite file that another process migrates is waited for: a minute. */
const lockPatience = Schedule.spaced("50 millis").pipe(Schedule.jittered, Schedule.upTo("1 minute"))
