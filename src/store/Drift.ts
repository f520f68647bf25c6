/**
 * Drift: how a namespace's database differs from what its migrations say.
 *
 *     ledger     ◀─ compared ─▶ migrations as they are loaded now
 *     catalogue  ◀─ compared ─▶ catalogue of a shadow, which the recorded migrations build anew
 *
 * Where the shadow is, `Shadow` says. On SQLite the caller provides it; without one only the ledger is compared, and the
 * report says so.
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type { Namespace } from "../domain/Namespace.js"
import * as Migration from "../process/Migration.js"
import type * as Permit from "../process/Permit.js"
import * as Catalogue from "./Catalogue.js"
import * as Migrator from "./Migrator.js"
import * as Shadow from "./Shadow.js"

export { ShadowFailed } from "./Shadow.js"

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
  Migrator.MigrationFailed | Migrator.MigrationMissing | Migration.MigrationMisnamed | Shadow.ShadowFailed | E,
  SqlClient.SqlClient
> =>
  Effect.gen(function*() {
    yield* Migration.check(migrations, namespace)
    const all = yield* Migrator.status(namespace, migrations)
    const missing = all.find(({ state }) => state === "missing")
    if (missing !== undefined) return yield* new Migrator.MigrationMissing({ namespace, id: missing.id })
    const standings = all.filter(({ state }) => state !== "applied")
    const recorded = all.flatMap((standing) => standing.recorded === undefined ? [] : [standing.recorded])
      .filter(({ state }) => state === "applied")
      .sort((a, b) => a.ordinal - b.ordinal)
    const steps = recorded.map(({ id }) => ({ id, migration: migrations[id]! }))
    const build = Effect.zipRight(Shadow.build(namespace, steps, options.statements), Catalogue.read)
    const expected = yield* Shadow.run(namespace, build, options.shadow)
    if (expected === undefined) return { namespace, standings, differences: undefined }
    const found = yield* Effect.mapError(
      Catalogue.read,
      (cause) => new Shadow.ShadowFailed({ namespace, id: undefined, cause })
    )
    return { namespace, standings, differences: compare(found, expected, options.exclusive === true) }
  })

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
