/**
 * Directory: a directory of migrations for one test, gone with its scope. It is where modules find this project's packages.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

/** A folder that git does not know of. */
const parent = fileURLToPath(new URL("../../bench-output", import.meta.url))

/** A directory with these files. */
export const make = (
  files: { readonly [name: string]: string } = {}
): Effect.Effect<string, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      mkdirSync(parent, { recursive: true })
      const path = mkdtempSync(join(parent, "migrations-"))
      for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text)
      return path
    }),
    (path) => Effect.sync(() => rmSync(path, { recursive: true }))
  )

/** The text of a module that creates a table, and drops it. */
export const module = (table: string): string => `
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
export const up = Effect.flatMap(SqlClient.SqlClient, (sql) => sql\`CREATE TABLE ${table} (id TEXT)\`)
export const down = Effect.flatMap(SqlClient.SqlClient, (sql) => sql\`DROP TABLE ${table}\`)
`
