/**
 * Migrations as a layer: a namespace's tables, ready before whatever is built on top, and taken back with the scope if asked.
 *
 *     Migrations.layer("shop", migrations)         up in the place of `shop`, then ready
 *     Migrations.layerScoped("shop", migrations)   up, then ready; down when the scope closes: for tests and previews
 *
 * `migrations` is a record, or an effect of one, such as `Migrations.fromDirectory(path)` or `Manifest.load(…)`, which is run in
 * the namespace as well.
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Migration from "../process/Migration.js"
import * as Migrator from "./Migrator.js"
import * as Namespace from "./Namespaces.js"

export { fromDirectory } from "../process/MigrationDirectory.js"

/** Goes up before it is ready. Throws a `ParseError` for a namespace that is not allowed, as `Processor.make` does. */
export const layer = <E = never, R = never>(
  namespace: string,
  migrations: Migration.Migrations | Effect.Effect<Migration.Migrations, E, R>,
  options?: Migrator.Options
): Layer.Layer<
  never,
  E | Migrator.MigrationError | Namespace.OpenError,
  Exclude<R, SqlClient.SqlClient> | Namespace.Namespaces
> => {
  const name = Namespace.make(namespace)
  return Layer.effectDiscard(
    Namespace.within(namespace, Effect.flatMap(loaded(migrations), (record) => Migrator.up(name, record, options)))
  )
}

/**
 * Goes up before it is ready, and takes back the steps that it applied itself when its scope closes, also when it was
 * interrupted or failed on its way up; what had been there before stays. A step that cannot be taken back is a defect of
 * the scope's end.
 */
export const layerScoped = <E = never, R = never>(
  namespace: string,
  migrations: Migration.Migrations | Effect.Effect<Migration.Migrations, E, R>,
  options: Migrator.Options = {}
): Layer.Layer<
  never,
  E | Migrator.MigrationError | Namespace.OpenError,
  Exclude<R, SqlClient.SqlClient> | Namespace.Namespaces
> => {
  const name = Namespace.make(namespace)
  const upAndDown = Effect.flatMap(loaded(migrations), (record) => {
    const steps: Array<Migrator.Step> = []
    return Effect.acquireReleaseInterruptible(
      Migrator.upNoting(name, record, options, steps),
      () => Effect.orDie(Migrator.downOf(name, record, steps.map(({ id }) => id), options))
    )
  })
  return Layer.scopedDiscard(Namespace.within(namespace, upAndDown))
}

const loaded = <E, R>(
  migrations: Migration.Migrations | Effect.Effect<Migration.Migrations, E, R>
): Effect.Effect<Migration.Migrations, E, R> =>
  Effect.isEffect(migrations)
    ? migrations
    : Effect.succeed(migrations)
