/**
 * A relational database for their subgraphs: what `TheirClass.query(driveId, relationalDb)` reads our tables through.
 *
 *     queryNamespace("TodoList_b443_…")  ──▶  the processor of that namespace  ──▶  a reader of its place
 *
 * It reads and cannot write, from whatever process: a statement sees what was committed when it ran. It knows the namespaces
 * of the processors that it was made for.
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Runtime from "effect/Runtime"
import * as Stream from "effect/Stream"
import { dialectOf } from "../domain/Dialect.js"
import * as KyselyDialect from "../process/KyselyDialect.js"
import * as Namespaces from "../store/Namespaces.js"
import { LegacyRefused } from "./Call.js"
import * as LegacyDb from "./LegacyDb.js"
import type { RelationalDb } from "./RelationalDbProcessor.js"
import { legacyOf } from "./RelationalProcessor.js"
import type { Legacy } from "./RelationalProcessor.js"

export type { QueryBuilder, RelationalDb } from "./RelationalDbProcessor.js"

/**
 * The database for the tables of these processors of `RelationalProcessor`, typed as the subgraphs have it:
 * `RelationalDb.make<IRelationalDb>(TodoList, Search)`. Opens the first one's namespace, and the others' when they are asked.
 * Dies with a `LegacyRefused` for a processor that is none of theirs, and without the package kysely.
 */
export const make = <Db = RelationalDb>(
  ...processors: readonly [object, ...ReadonlyArray<object>]
): Effect.Effect<Db, Namespaces.OpenError, Namespaces.Namespaces> =>
  Effect.gen(function*() {
    const kysely = yield* Effect.orDie(KyselyDialect.load)
    const namespaces = yield* Namespaces.Namespaces
    const known = new Map<string, Legacy>()
    for (const processor of processors) {
      const legacy = legacyOf(processor)
      if (legacy === undefined) {
        return yield* Effect.die(
          new LegacyRefused({ reason: "a processor that is none of theirs has no tables for them" })
        )
      }
      known.set(legacy.theirs, legacy)
    }
    const [first] = known.values()
    const dialect = dialectOf(yield* namespaces.open(first!.namespace))
    const runtime = yield* Effect.runtime<Namespaces.Namespaces>()
    return LegacyDb.make(kysely, {
      dialect,
      inside: (body) => body(),
      hasPlaces: true,
      hasSchemas: (namespace) => dialect === "pg" && known.get(namespace ?? "")?.tables === "theirs",
      open: (namespace) => lineOf(runtime, placeOf(known, namespace))
    }) as Db
  })

const placeOf = (known: ReadonlyMap<string, Legacy>, namespace: string | undefined): Namespaces.Namespace => {
  const legacy = known.get(namespace ?? "")
  if (legacy !== undefined) return legacy.namespace
  const what = namespace === undefined ? "a query without a namespace" : `a query of ${namespace}`
  throw new LegacyRefused({ reason: `${what} leads nowhere: the namespaces here are ${[...known.keys()].join(", ")}` })
}

const lineOf = (runtime: Runtime.Runtime<Namespaces.Namespaces>, namespace: Namespaces.Namespace): LegacyDb.Line => {
  const inPlace = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient>) => Namespaces.query(namespace, effect)
  return {
    execute: (text, parameters) =>
      Runtime.runPromiseExit(runtime)(
        inPlace(KyselyDialect.withConnection((connection) => connection.executeRaw(text, parameters)))
      ).then((exit) =>
        exit._tag === "Success"
          ? exit.value
          : Promise.reject(exit.cause._tag === "Fail" ? thrown(exit.cause.error) : exit.cause)
      ),
    stream: (text, parameters) => {
      const rows = Stream.unwrapScoped(Effect.gen(function*() {
        const { query } = yield* Namespaces.Namespaces
        const sql = yield* query(namespace)
        const connection = yield* sql.reserve
        return connection.executeStream(text, parameters, undefined)
      }))
      return Stream.toAsyncIterableRuntime(
        Stream.map(Stream.chunks(Stream.mapError(rows, thrown)), (chunk) => ({ rows: [...chunk] as Array<never> })),
        runtime
      )
    },
    begin: () => Promise.reject(new LegacyRefused({ reason: "a subgraph reads, and needs no transaction for it" })),
    commit: () => Promise.resolve(),
    rollback: () => Promise.resolve(),
    release: () => undefined
  }
}

/** The driver's own error, where there is one. */
const thrown = (failure: SqlError | Namespaces.NamespaceError): unknown =>
  failure._tag === "SqlError" && failure.cause instanceof Error ? failure.cause : failure
