/**
 * An aside: an empty schema for as long as a scope lasts, told apart from one that a killed run has left.
 *
 *     session ─▶ lock on the name ─▶ CREATE SCHEMA ─▶ use ─▶ DROP SCHEMA ─▶ unlock
 *                   └ ends with the session, also by a kill: then whoever tidies gets it, and drops what is left
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { createHash, randomUUID } from "node:crypto"
import type * as Namespaces from "../../src/store/Namespaces.js"

const prefix = "processor_shadow_"

/** A new one. It keeps one session of the pool; `client` is any client of the database. */
export const make = (
  client: SqlClient.SqlClient,
  clientOf: (schema: string) => Effect.Effect<SqlClient.SqlClient>
): Effect.Effect<Namespaces.Aside, SqlError, Scope.Scope> =>
  Effect.gen(function*() {
    const schema = yield* Effect.sync(() => `${prefix}${randomUUID().replaceAll("-", "")}`)
    const session = yield* client.reserve
    yield* Effect.acquireRelease(
      session.execute("SELECT pg_advisory_lock($1)", [lockKey(schema)], undefined),
      () => Effect.ignore(session.execute("SELECT pg_advisory_unlock($1)", [lockKey(schema)], undefined))
    )
    yield* Effect.acquireRelease(
      client.unsafe(`CREATE SCHEMA "${schema}"`),
      // On any session: the one with the lock may be gone.
      () => Effect.ignoreLogged(client.unsafe(`DROP SCHEMA IF EXISTS "${schema}" CASCADE`))
    )
    return { schema, sql: yield* clientOf(schema) }
  })

/** Drops those whose lock nobody holds. */
export const tidy = (client: SqlClient.SqlClient): Effect.Effect<void, SqlError> =>
  Effect.gen(function*() {
    const found = yield* client<{ readonly name: string }>`
      SELECT nspname AS name FROM pg_catalog.pg_namespace WHERE nspname ~ ${`^${prefix}[0-9a-f]{32}$`}`
    if (found.length === 0) return
    const session = yield* client.reserve
    for (const { name } of found) {
      const [row] = yield* session.execute("SELECT pg_try_advisory_lock($1) AS locked", [lockKey(name)], undefined)
      if ((row as { readonly locked: boolean }).locked) {
        yield* Effect.ensuring(
          session.execute(`DROP SCHEMA IF EXISTS "${name}" CASCADE`, [], undefined),
          Effect.ignore(session.execute("SELECT pg_advisory_unlock($1)", [lockKey(name)], undefined))
        )
      }
    }
  }).pipe(Effect.scoped)

const lockKey = (schema: string): string =>
  String(createHash("sha256").update(`effect-processors/aside\u0000${schema}`).digest().readBigInt64BE())
