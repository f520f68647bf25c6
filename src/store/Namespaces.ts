/**
 * Namespaces: the places of a store, each reached by a client of its own in which unqualified names mean its tables.
 *
 *     Namespace.within("todos", effect)   runs it there, for reading and writing
 *     Namespace.query("todos", effect)    runs it there, for reading
 *     Namespace.layer("todos")            the client, for whatever is built on top
 *
 * A place is made, with its registry row, when its namespace is first opened, and never by a query. `Postgres.layer` keeps each
 * namespace in a schema, `Sqlite.layerDirectory` in a file; with `Sqlite.layer` or {@link layerSingle} a whole database is
 * one namespace.
 */

import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { make as nameOf } from "../domain/Namespace.js"
import type { Namespace } from "../domain/Namespace.js"
import * as Fault from "../process/Fault.js"
import * as Reader from "./Reader.js"
import * as Registry from "./Registry.js"
import type { NamespaceMismatch, NamespaceMissing } from "./Registry.js"
import type { StoreUnavailable } from "./StoreUnavailable.js"
import * as Transaction from "./Transaction.js"

export { make, Namespace, place } from "../domain/Namespace.js"
export { NamespaceMismatch, NamespaceMissing } from "./Registry.js"

/** Why a namespace cannot be opened. */
export type OpenError = NamespaceMismatch | StoreUnavailable | SqlError

/** Why it cannot be queried: one that is opened is made if need be, one that is queried may be missing. */
export type NamespaceError = OpenError | NamespaceMissing

export class Namespaces extends Context.Tag("effect-processors/Namespaces")<Namespaces, {
  /**
   * The client of a namespace, whose place is created if need be. It waits up to a minute for a database that is away or a
   * lock that somebody else holds. Once it has succeeded it costs nothing.
   */
  readonly open: (namespace: Namespace) => Effect.Effect<SqlClient.SqlClient, OpenError>
  /** A client that can only read. It creates nothing and waits for nothing. */
  readonly query: (namespace: Namespace) => Effect.Effect<SqlClient.SqlClient, NamespaceError>
  /** An empty place of no name beside a namespace, which is gone with the scope; see {@link Aside}. */
  readonly aside: (
    namespace: Namespace
  ) => Effect.Effect<Aside, AsideUnavailable | StoreUnavailable | SqlError, Scope.Scope>
  /** Removes the empty places of runs that were killed. Those that are in use stay. */
  readonly tidy: Effect.Effect<void, SqlError>
}>() {}

/**
 * An empty place for as long as a scope lasts, in which a namespace is built another time. On SQLite it is a temporary
 * database of its own, which nothing is left of, not even after a kill. On PostgreSQL it is a schema of the same database,
 * whose name a session holds a lock on; what a killed run leaves is removed by {@link Namespaces.tidy}.
 */
export interface Aside {
  readonly sql: SqlClient.SqlClient
  /** The schema by which clients of other namespaces reach it; none where they cannot. */
  readonly schema: string | undefined
}

/** The store keeps a single place that was given to it, and no others beside it. */
export class AsideUnavailable extends Data.TaggedError("AsideUnavailable")<{ readonly namespace: string }> {
  override get message(): string {
    return `there can be no place beside namespace ${this.namespace}: layerSingle knows one alone; ` +
      "Sqlite.layer, Sqlite.layerDirectory and Postgres.layer make others"
  }
}

/** How a kind of store keeps its places. */
export interface Store {
  /** The client of a place, which may not exist yet. */
  readonly writer: (namespace: Namespace) => Effect.Effect<SqlClient.SqlClient, StoreUnavailable | SqlError>
  /** One that need not be able to write, of a place that exists. */
  readonly reader: (
    namespace: Namespace
  ) => Effect.Effect<SqlClient.SqlClient, NamespaceMissing | StoreUnavailable>
  readonly registry: (namespace: Namespace) => Registry.Options
  /** An empty place beside others, for as long as the scope; left out where there can be none. */
  readonly aside?: Effect.Effect<Aside, StoreUnavailable | SqlError, Scope.Scope>
  /** Removes what killed runs left of such places; left out where nothing can be. */
  readonly tidy?: Effect.Effect<void, SqlError>
}

/** The service over a store. */
export const fromStore = (store: Store): Effect.Effect<Context.Tag.Service<Namespaces>, never, Reactivity.Reactivity> =>
  Effect.map(Effect.context<Reactivity.Reactivity>(), (reactivity) => {
    const writers = new Map<Namespace, SqlClient.SqlClient>()
    const readers = new Map<Namespace, SqlClient.SqlClient>()
    const open = (namespace: Namespace) =>
      Effect.gen(function*() {
        const sql = yield* store.writer(namespace)
        yield* Effect.provideService(Registry.claim(namespace, store.registry(namespace)), SqlClient.SqlClient, sql)
        return sql
      }).pipe(
        Effect.retry({ while: isPassing, schedule: patience }),
        Effect.catchTags({ CommitUnknown: asSqlError, RolledBack: asSqlError })
      )
    const query = (namespace: Namespace) =>
      Effect.gen(function*() {
        const sql = yield* store.reader(namespace)
        const reader = yield* Effect.provide(Reader.make(sql), reactivity)
        yield* Effect.provideService(Registry.check(namespace), SqlClient.SqlClient, reader)
        return reader
      })
    return {
      open: (namespace) => Transaction.outside(remembered(writers, namespace, open)),
      query: (namespace) => Transaction.outside(remembered(readers, namespace, query)),
      aside: (namespace) =>
        store.aside === undefined ? new AsideUnavailable({ namespace }) : Transaction.outside(store.aside),
      tidy: store.tidy ?? Effect.void
    }
  })

const patience = Schedule.spaced("25 millis").pipe(Schedule.jittered, Schedule.upTo(Duration.minutes(1)))

/** What waiting may cure; a COMMIT without an answer is cured by looking again. */
const isPassing = (failure: { readonly _tag: string; readonly transient?: boolean }): boolean =>
  failure._tag === "SqlError"
    ? Fault.isPassing(failure)
    : failure._tag === "CommitUnknown" || failure.transient === true

const asSqlError = (cause: unknown) => new SqlError({ cause, message: "Failed to open a namespace" })

const remembered = <E>(
  known: Map<Namespace, SqlClient.SqlClient>,
  namespace: Namespace,
  open: (namespace: Namespace) => Effect.Effect<SqlClient.SqlClient, E>
): Effect.Effect<SqlClient.SqlClient, E> =>
  Effect.suspend(() => {
    const found = known.get(namespace)
    return found !== undefined
      ? Effect.succeed(found)
      : Effect.tap(open(namespace), (sql) => Effect.sync(() => known.set(namespace, sql)))
  })

/** A whole database as one namespace: the one that is opened first, for good. */
export const layerSingle: Layer.Layer<Namespaces, never, SqlClient.SqlClient> = Layer.effect(
  Namespaces,
  Effect.flatMap(SqlClient.SqlClient, (sql) => fromStore(single(sql)))
).pipe(Layer.provide(Reactivity.layer))

/** The store of {@link layerSingle}; its readers wait for the connections of `sql`. */
export const single = (sql: SqlClient.SqlClient): Store => ({
  writer: () => Effect.succeed(sql),
  reader: () => Effect.succeed(sql),
  registry: () => ({ schema: undefined })
})

/** The client of a namespace. Throws a `ParseError` for a name that is not allowed, as `Processor.make` does. */
export const layer = (namespace: string): Layer.Layer<SqlClient.SqlClient, OpenError, Namespaces> => {
  const name = nameOf(namespace)
  return Layer.effect(SqlClient.SqlClient, Effect.flatMap(Namespaces, ({ open }) => open(name)))
}

/**
 * Runs `effect` in a namespace, outside any transaction that is open: on SQLite it waits for one of the same namespace, so a
 * handler must not use it on its own. Throws a `ParseError` as {@link layer} does.
 */
export const within = <A, E, R>(
  namespace: string,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E | OpenError, Exclude<R, SqlClient.SqlClient> | Namespaces> => {
  const name = nameOf(namespace)
  return inPlace(effect, Effect.flatMap(Namespaces, ({ open }) => open(name)))
}

/**
 * Runs `effect` in a namespace that exists, with a client that can only read, outside any transaction that is open. A
 * database in memory has one connection: do not ask it from within a handler of the same namespace, which holds it.
 */
export const query = <A, E, R>(
  namespace: string,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E | NamespaceError, Exclude<R, SqlClient.SqlClient> | Namespaces> => {
  const name = nameOf(namespace)
  return inPlace(effect, Effect.flatMap(Namespaces, (namespaces) => namespaces.query(name)))
}

const inPlace = <A, E, R, E2>(
  effect: Effect.Effect<A, E, R>,
  client: Effect.Effect<SqlClient.SqlClient, E2, Namespaces>
): Effect.Effect<A, E | E2, Exclude<R, SqlClient.SqlClient> | Namespaces> =>
  Transaction.outside(Effect.provideServiceEffect(effect, SqlClient.SqlClient, client))
