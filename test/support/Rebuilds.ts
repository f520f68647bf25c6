/**
 * Rebuilds: what tests of processors that are projected anew share.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type * as Scope from "effect/Scope"
import { Reactor, Source } from "../../src/index.js"
import type { Namespace, Processor, Rebuild } from "../../src/index.js"
import type * as Database from "./Database.js"
import * as Store from "./Store.js"

export const silent = Logger.remove(Logger.defaultLogger)

export type Fresh = typeof Database.dialects[number]["fresh"]
export type Todos = Processor.Processor<never, SqlClient.SqlClient>

/** Runs in the namespaces of an empty database. */
export const onFresh = (fresh: Fresh) => <A, E>(effect: Effect.Effect<A, E, Namespace.Namespaces | Scope.Scope>) =>
  Effect.flatMap(fresh, (database) => Effect.provide(effect, Layer.merge(Store.layerMany(database), silent)))

/** A reactor of its own over a source, for as long as the scope lasts. */
export const react = (source: Context.Tag.Service<typeof Source.Source>, ...processors: ReadonlyArray<Todos>) =>
  Effect.map(
    Layer.build(
      Layer.fresh(Reactor.layer(...processors)).pipe(Layer.provide(Layer.succeed(Source.Source, source)))
    ),
    (context) => Context.get(context, Reactor.Reactor)
  )

/** What differs, in words. */
export const told = (verdict: Rebuild.Verdict) =>
  verdict.tables.flatMap(({ differences }) =>
    differences.map(({ columns, key, table, where }) =>
      [where, table, ...Object.values(key), ...columns].map(String).join(" ")
    )
  )
