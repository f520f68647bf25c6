/**
 * Database: an empty database for one test, on either dialect, gone when the test's scope closes.
 *
 *     describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
 *       it.scopedLive("…", () => Effect.flatMap(fresh, (database) => …))
 *     })
 *
 * It cannot fail in a way a test would decide about: a database that cannot be created is a defect of the test run.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { randomUUID } from "node:crypto"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import pg from "pg"
import { inject } from "vitest"

/** A file that does not exist yet, in a directory of its own (SQLite keeps its journals beside it). */
export interface SqliteDatabase {
  readonly dialect: "sqlite"
  readonly filename: string
}

/** A database of its own on the test run's server. */
export interface PostgresDatabase {
  readonly dialect: "pg"
  readonly url: string
}

export type Database = SqliteDatabase | PostgresDatabase

export const sqlite: Effect.Effect<SqliteDatabase, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "effect-processors-sqlite-"))),
    (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true }))
  ),
  (directory) => ({ dialect: "sqlite", filename: join(directory, "test.db") })
)

/** Dropped even while connections are open; those are ended. */
export const postgres: Effect.Effect<PostgresDatabase, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.tap(
      Effect.sync(() => `test_${randomUUID().replaceAll("-", "")}`),
      (name) => administer(`CREATE DATABASE ${name} TEMPLATE template0`)
    ),
    (name) => administer(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`)
  ),
  (name) => {
    const url = new URL(inject("postgresUrl"))
    url.pathname = `/${name}`
    return { dialect: "pg", url: url.href }
  }
)

/** Both, for `describe.each`. */
export const dialects: ReadonlyArray<{
  readonly dialect: Database["dialect"]
  readonly fresh: Effect.Effect<Database, never, Scope.Scope>
}> = [
  { dialect: "sqlite", fresh: sqlite },
  { dialect: "pg", fresh: postgres }
]

const administer = (statement: string): Effect.Effect<void> =>
  Effect.acquireUseRelease(
    Effect.promise(async () => {
      const client = new pg.Client({ connectionString: inject("postgresUrl") })
      await client.connect()
      return client
    }),
    (client) => Effect.promise(() => client.query(statement)),
    (client) => Effect.promise(() => client.end())
  )
