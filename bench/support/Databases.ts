/**
 * Databases: a fresh one for each run of a subject, empty or a copy of one that was prepared.
 *
 *     sqlite, pglite   a file or folder of a temporary directory
 *     pg               a database of a PostgreSQL server of its own, which runs as it comes: fsync and synchronous_commit on
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { cpSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import pg from "pg"
import * as PostgresServer from "../../test/support/PostgresServer.js"
import type { Dialect } from "./Result.js"

export interface Databases {
  /** A directory for everything else, removed with the scope. */
  readonly directory: string
  /** The path or the URL of a new database, a copy of `template` when there is one. */
  readonly make: (dialect: Dialect, template?: string) => Promise<string>
  readonly remove: (dialect: Dialect, database: string) => Promise<void>
}

export const open: Effect.Effect<Databases, PostgresServer.PostgresUnavailable, Scope.Scope> = Effect.gen(function*() {
  const server = yield* PostgresServer.make
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-processors-bench-"))),
    (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
  )
  const administer = async (text: string) => {
    const client = new pg.Client({ connectionString: server.url })
    await client.connect()
    await client.query(text)
    await client.end()
  }
  let made = 0
  return {
    directory,
    make: async (dialect, template) => {
      const name = `bench_${++made}`
      if (dialect === "pg") {
        const source = template === undefined ? "" : ` TEMPLATE ${nameOf(template)}`
        await administer(`CREATE DATABASE ${name}${source}`)
        return server.url.replace(/[^/]*$/, name)
      }
      const path = join(directory, name)
      if (template !== undefined) cpSync(template, path)
      return path
    },
    remove: async (dialect, database) => {
      if (dialect === "pg") await administer(`DROP DATABASE ${nameOf(database)} WITH (FORCE)`)
      else for (const end of ["", "-wal", "-shm"]) rmSync(database + end, { recursive: true, force: true })
    }
  }
})

const nameOf = (url: string): string => url.split("/").at(-1) ?? ""
