/**
 * A migration: a step of a namespace's schema, there and back.
 *
 *     { "0001_todos": { up: Effect.gen(…), down: Effect.gen(…) } }
 *
 * Invariants: ids sort in the order in which the steps apply; a step is never edited once released. Each direction runs in
 * one transaction of its own.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type * as Effect from "effect/Effect"

export interface Migration {
  readonly up: Effect.Effect<unknown, SqlError, SqlClient.SqlClient>
  readonly down: Effect.Effect<unknown, SqlError, SqlClient.SqlClient>
}

/** Migrations by id, `0001_name`: digits, an underscore, and `a-z`, `0-9`, `_` or `-`. */
export type Migrations = { readonly [id: string]: Migration }

export const none: Migrations = {}

/** What an id looks like. */
export const idPattern: RegExp = /^\d+[_-][a-z0-9_-]+$/

/** Ids in the order in which they apply: by number, then by name. */
export const order = (migrations: Migrations): ReadonlyArray<string> =>
  Object.keys(migrations).sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10) || (a < b ? -1 : 1))
