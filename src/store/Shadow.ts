/**
 * A shadow: an empty database in which migrations are run to see what they make, gone when that has been seen.
 *
 * On PostgreSQL it is a schema in a transaction that is rolled back, so nothing of it is ever seen, not even after a kill.
 * There `CONCURRENTLY` is left out of statements, since it cannot run in a transaction and changes nothing of the result.
 * Names that a migration qualifies with a schema leave the shadow, and fail or are rolled back with it. On SQLite it is a
 * database of its own that the caller provides, such as `Sqlite.layerMemory`.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type { Dialect } from "../domain/Dialect.js"
import * as Fault from "../process/Fault.js"
import type * as Migration from "../process/Migration.js"
import type * as Permit from "../process/Permit.js"
import * as Statements from "../process/Statements.js"
import * as Guard from "./Guard.js"
import * as Transaction from "./Transaction.js"

/** The shadow could not be built: a migration does not run on an empty database. */
export class ShadowFailed extends Data.TaggedError("ShadowFailed")<{
  readonly namespace: string
  /** `undefined` when it is not about one migration. */
  readonly id: string | undefined
  readonly cause: unknown
}> {
  override get message(): string {
    return `the shadow of namespace ${this.namespace} failed at ${this.id ?? "its database"}: ${
      Fault.describe(this.cause)
    }`
  }
}

export interface Step {
  readonly id: string
  readonly migration: Migration.Migration
}

/**
 * Runs `body` in a shadow, and undoes it. Without a `shadow` layer there is none on SQLite: then it is `undefined`, and
 * `body` is not run. The layer is built once for each call.
 */
export const run = <A, E extends { readonly _tag: string }, R, E2 = never>(
  namespace: string,
  body: Effect.Effect<A, E, R>,
  shadow: Layer.Layer<SqlClient.SqlClient, E2> | undefined
): Effect.Effect<
  A | undefined,
  Exclude<E, SqlError> | E2 | ShadowFailed,
  Exclude<R, SqlClient.SqlClient> | SqlClient.SqlClient
> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => {
    const failed = (cause: unknown) => new ShadowFailed({ namespace, id: undefined, cause })
    type Ran = Effect.Effect<
      A | undefined,
      Exclude<E, SqlError> | E2 | ShadowFailed,
      Exclude<R, SqlClient.SqlClient> | SqlClient.SqlClient
    >
    return sql.onDialectOrElse<Ran, Ran>({
      sqlite: () =>
        shadow === undefined
          ? Effect.succeed(undefined)
          : Effect.provide(discarded(body, failed), shadow) as Ran,
      orElse: () => discarded(Effect.zipRight(enter(shadowName), body), failed) as Ran
    })
  })

/** Runs `up` of each in a shadow, under the permit that it went up with. */
export const build = (
  namespace: string,
  steps: ReadonlyArray<Step>,
  permit?: Permit.Permit
): Effect.Effect<void, ShadowFailed, SqlClient.SqlClient> =>
  Effect.forEach(steps, ({ id, migration }) =>
    Guard.run(migration.up, { permit, rewrite: withoutConcurrently }).pipe(
      Effect.mapError((cause) => new ShadowFailed({ namespace, id, cause }))
    ), { discard: true })

/**
 * A schema that only this transaction sees, before the schemas of extensions whose types migrations reach by name alone:
 * those on the path, or else a type would be shown by another name here than there.
 */
const enter = (name: string): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const extensions = yield* sql<{ readonly name: string }>`
      SELECT DISTINCT n.nspname AS name FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
      WHERE n.nspname <> 'pg_catalog' AND n.nspname = ANY (current_schemas(false))`
    yield* sql`CREATE SCHEMA ${sql(name)}`
    const path = [name, ...extensions.map((each) => each.name)].map((each) => `"${each.replaceAll("\"", "\"\"")}"`)
    yield* sql`SELECT set_config('search_path', ${path.join(", ")}, true)`
  })

const shadowName = "processor_shadow"

/** Runs in a transaction that is rolled back in any case. */
const discarded = <A, E extends { readonly _tag: string }, E2, R>(
  body: Effect.Effect<A, E, R>,
  failed: (cause: unknown) => E2
) =>
  Transaction.run(Effect.flatMap(body, (value) => Effect.fail(new Discarded({ value })))).pipe(
    Effect.catchAll((failure): Effect.Effect<A, Exclude<E, SqlError> | E2> =>
      failure instanceof Discarded
        ? Effect.succeed(failure.value as A)
        : isStoreFailure(failure)
        ? Effect.fail(failed(failure))
        : Effect.fail(failure as Exclude<E, SqlError>)
    )
  )

class Discarded extends Data.TaggedError("Discarded")<{ readonly value: unknown }> {}

const isStoreFailure = ({ _tag }: { readonly _tag: string }): boolean =>
  _tag === "SqlError" || _tag === "CommitUnknown" || _tag === "RolledBack"

const withoutConcurrently = (text: string, dialect: Dialect): string => {
  const statements = Statements.split(text, dialect)
  const [only] = statements
  return dialect === "pg" && statements.length === 1 && only?.words.includes("CONCURRENTLY") === true
    ? only.text.replace(/\bconcurrently\b/i, "")
    : text
}
