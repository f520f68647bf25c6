/**
 * Drift: how a namespace's database differs from what its migrations say.
 *
 *     ledger     ◀─ compared ─▶ migrations as they are loaded now
 *     catalogue  ◀─ compared ─▶ catalogue of a shadow, which the recorded migrations build anew
 *
 * On PostgreSQL the shadow is a schema in a transaction that is rolled back, so nothing of it is ever seen, not even after a
 * kill. There `CONCURRENTLY` is left out of statements, since it cannot run in a transaction and changes nothing of the
 * result. Names that a migration qualifies with a schema leave the shadow, and fail or are rolled back with it. On SQLite the
 * shadow is a database of its own that the caller provides, such as `Sqlite.layerMemory`; without one only the ledger is
 * compared, and the report says so.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type { Namespace } from "../domain/Namespace.js"
import * as Fault from "../process/Fault.js"
import * as Migration from "../process/Migration.js"
import type * as Permit from "../process/Permit.js"
import * as Statements from "../process/Statements.js"
import * as Catalogue from "./Catalogue.js"
import * as Guard from "./Guard.js"
import * as Migrator from "./Migrator.js"
import * as Transaction from "./Transaction.js"

/** The shadow could not be built: a migration that was applied does not run on an empty database. */
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

/** A difference between the catalogues. */
export interface Difference {
  /** In the database alone, in the shadow alone, or in both and not the same. */
  readonly where: "extra" | "missing" | "changed"
  readonly kind: string
  readonly owner: string
  readonly name: string
  readonly found: string | undefined
  readonly expected: string | undefined
}

export interface Report {
  readonly namespace: string
  /** Every migration that is not applied as it was loaded: pending, late, edited, started, reverting, failed. */
  readonly standings: ReadonlyArray<Migrator.Standing>
  /** `undefined` when the catalogues were not compared. */
  readonly differences: ReadonlyArray<Difference> | undefined
}

export interface Options<E> {
  /** An empty database, on SQLite. It is built once for each call. */
  readonly shadow?: Layer.Layer<SqlClient.SqlClient, E> | undefined
  /**
   * Whether the database holds this namespace and nothing else. Then everything that the shadow does not have is reported;
   * otherwise only what belongs to a table that the shadow has. Default: false.
   */
  readonly exclusive?: boolean | undefined
  /** What migrations may send to build the shadow, as in `Migrator.Options`. Default: `"any"`. */
  readonly statements?: Permit.Permit | undefined
}

/** Whether nothing at all is different, as far as was looked. */
export const isNone = (report: Report): boolean =>
  report.standings.length === 0 && (report.differences ?? []).length === 0

/** Looks, and changes nothing. A migration that is recorded and not there any more is an error, since no shadow can be built. */
export const verify = <E = never>(
  namespace: Namespace,
  migrations: Migration.Migrations,
  options: Options<E> = {}
): Effect.Effect<
  Report,
  Migrator.MigrationFailed | Migrator.MigrationMissing | Migration.MigrationMisnamed | ShadowFailed | E,
  SqlClient.SqlClient
> =>
  Effect.gen(function*() {
    yield* Migration.check(migrations, namespace)
    const sql = yield* SqlClient.SqlClient
    const all = yield* Migrator.status(namespace, migrations)
    const missing = all.find(({ state }) => state === "missing")
    if (missing !== undefined) return yield* new Migrator.MigrationMissing({ namespace, id: missing.id })
    const standings = all.filter(({ state }) => state !== "applied")
    const recorded = all.flatMap((standing) => standing.recorded === undefined ? [] : [standing.recorded])
      .filter(({ state }) => state === "applied")
      .sort((a, b) => a.ordinal - b.ordinal)
    const steps = recorded.map(({ id }) => ({ id, migration: migrations[id]! }))
    const failed = (cause: unknown) => new ShadowFailed({ namespace, id: undefined, cause })
    const build = shadowed(namespace, steps, options.statements)
    const expected = yield* sql.onDialectOrElse({
      sqlite: () =>
        options.shadow === undefined
          ? Effect.succeed(undefined)
          : Effect.provide(discarded(Effect.zipRight(build, Catalogue.read), failed), options.shadow),
      orElse: () => discarded(Effect.zipRight(enterShadow, Effect.zipRight(build, Catalogue.read)), failed)
    })
    if (expected === undefined) return { namespace, standings, differences: undefined }
    const found = yield* Effect.mapError(Catalogue.read, failed)
    return { namespace, standings, differences: compare(found, expected, options.exclusive === true) }
  })

interface Step {
  readonly id: string
  readonly migration: Migration.Migration
}

const shadowed = (namespace: string, steps: ReadonlyArray<Step>, permit: Permit.Permit | undefined) =>
  Effect.forEach(steps, ({ id, migration }) =>
    Guard.run(migration.up, { permit, rewrite: withoutConcurrently }).pipe(
      Effect.mapError((cause) => new ShadowFailed({ namespace, id, cause }))
    ), { discard: true })

/**
 * A schema that only this transaction sees, before the schemas of extensions whose types migrations reach by name alone:
 * those on the path, or else a type would be shown by another name here than there.
 */
const enterShadow: Effect.Effect<void, SqlError, SqlClient.SqlClient> = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const extensions = yield* sql<{ readonly name: string }>`
    SELECT DISTINCT n.nspname AS name FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE n.nspname <> 'pg_catalog' AND n.nspname = ANY (current_schemas(false))`
  yield* sql`CREATE SCHEMA ${sql(shadowName)}`
  const path = [shadowName, ...extensions.map(({ name }) => name)].map((name) => `"${name.replaceAll("\"", "\"\"")}"`)
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

const withoutConcurrently = (text: string, dialect: Statements.Dialect): string => {
  const statements = Statements.split(text, dialect)
  const [only] = statements
  return dialect === "pg" && statements.length === 1 && only?.words.includes("CONCURRENTLY") === true
    ? only.text.replace(/\bconcurrently\b/i, "")
    : text
}

const compare = (
  found: ReadonlyArray<Catalogue.Item>,
  expected: ReadonlyArray<Catalogue.Item>,
  exclusive: boolean
): ReadonlyArray<Difference> => {
  const owners = new Set(expected.map(({ owner }) => owner))
  const expectedByKey = new Map(expected.map((item) => [keyOf(item), item]))
  const foundByKey = new Map(found.map((item) => [keyOf(item), item]))
  const differs = (item: Catalogue.Item, where: Difference["where"], from?: string, to?: string): Difference => ({
    where,
    kind: item.kind,
    owner: item.owner,
    name: item.name,
    found: from,
    expected: to
  })
  return [
    ...expected.flatMap((item): ReadonlyArray<Difference> => {
      const other = foundByKey.get(keyOf(item))
      if (other === undefined) return [differs(item, "missing", undefined, item.definition)]
      return other.definition === item.definition ? [] : [differs(item, "changed", other.definition, item.definition)]
    }),
    ...found
      .filter((item) =>
        !expectedByKey.has(keyOf(item)) && !Catalogue.isOwn(item) && (exclusive || owners.has(item.owner))
      )
      .map((item) => differs(item, "extra", item.definition))
  ]
}

/** A key for this comparison alone: the parts are quoted, so none can run into the next. */
const keyOf = ({ kind, name, owner }: Catalogue.Item): string => JSON.stringify([kind, owner, name])
