/**
 * The SQLite store: one file, one connection, as durable as its options say on every open.
 *
 *     open ─▶ pragmas, read back ─▶ first read ─▶ first write lock ─▶ `sql`, one lease at a time ─▶ close
 *        └────────── StoreUnavailable ──────────────────┘
 *
 * What it does that `@effect/sql-sqlite-node` leaves open:
 *
 * - `synchronous` is set on every open. SQLite itself opens a new file with FULL and, later, the same file with NORMAL;
 * - a file that cannot be opened, or not be written, is a typed failure of the layer and not a defect;
 * - a statement has the connection to itself, so that none slips into the transaction of another fiber, and a lease
 *   that is given back inside a transaction is rolled back;
 * - no integer is rounded: one beyond 2^53 arrives as a `bigint`, all others as a `number` (see `Postgres`, which does
 *   the same); with `SqlClient.SafeIntegers` all integers arrive as `bigint`, for this statement only;
 * - parameters mean what they mean on PostgreSQL: `true` is 1, `undefined` is NULL, a `Date` is its ISO text, and a
 *   whole number is stored as an integer. A list or an object is refused, since SQLite would take its members for
 *   parameters;
 * - rows with different columns are refused (`EvenRows`), and `stream` works, though SQLite reads all rows first.
 *
 * The connection is synchronous: while a statement runs, or waits for another process's lock, nothing else does.
 */

import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection as SqlConnection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import type Database from "better-sqlite3"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { StoreUnavailable } from "../src/store/StoreUnavailable.js"
import * as DirectStatement from "./DirectStatement.js"
import * as EvenRows from "./EvenRows.js"
import { coded } from "./sqlite/Code.js"
import * as Connection from "./sqlite/Connection.js"
import * as DatabaseFile from "./sqlite/DatabaseFile.js"
import * as Lease from "./sqlite/Lease.js"
import { config, type Options } from "./sqlite/Settings.js"
import * as Settings from "./sqlite/Settings.js"

export { config, defaults, type Options } from "./sqlite/Settings.js"

export { StoreUnavailable }

/** The store as any program asks for it, and as one that copies or extends its SQLite file does. */
export type Provides = SqlClient.SqlClient | SqliteClient.SqliteClient

/** A `ConfigError` names an option that cannot be; a `StoreUnavailable` says why the file cannot be used. */
export const layer = (options: Options): Layer.Layer<Provides, StoreUnavailable | ConfigError.ConfigError> =>
  Layer.scopedContext(make(options)).pipe(Layer.provide(Reactivity.layer))

/** As `layer`, with options from the `ConfigProvider`: those of `config`, or those that are given. */
export const layerConfig = (
  options: Config.Config.Wrap<Options> = config
): Layer.Layer<Provides, StoreUnavailable | ConfigError.ConfigError> =>
  Layer.scopedContext(Effect.flatMap(Config.unwrap(options), make)).pipe(Layer.provide(Reactivity.layer))

/** A database in memory, new with each build of the layer and gone with its scope. */
export const layerMemory: Layer.Layer<Provides> = Layer.suspend(() => Layer.orDie(layer({ filename: ":memory:" })))

const make = (
  options: Options
): Effect.Effect<
  Context.Context<Provides>,
  StoreUnavailable | ConfigError.ConfigError,
  Scope.Scope | Reactivity.Reactivity
> =>
  Effect.gen(function*() {
    const settings = yield* Settings.make(options)
    const db = yield* DatabaseFile.open(settings)
    const connection = Connection.make(db.defaultSafeIntegers(true))
    const lease = yield* Lease.make(db, connection)
    const client = DirectStatement.required(
      yield* SqlClient.make({
        acquirer: Effect.succeed(Lease.alone(connection, lease)),
        transactionAcquirer: lease,
        beginTransaction: "BEGIN IMMEDIATE",
        compiler: EvenRows.required(Statement.makeCompilerSqlite()),
        spanAttributes: [["db.system.name", "sqlite"], ["db.namespace", settings.filename]]
      })
    )
    const sqlite = Object.assign(client as SqliteClient.SqliteClient, extrasOf(db, lease, settings))
    return Context.make(SqlClient.SqlClient, sqlite).pipe(Context.add(SqliteClient.SqliteClient, sqlite))
  })

const extrasOf = (db: Database.Database, lease: SqlConnection.Acquirer, settings: Settings.Settings) => {
  const attempt = <A>(message: string, use: () => A): Effect.Effect<A, SqlError> =>
    Effect.scoped(Effect.zipRight(
      lease,
      Effect.try({ try: use, catch: (cause) => new SqlError({ cause: coded(cause), message }) })
    ))
  return {
    [SqliteClient.TypeId]: SqliteClient.TypeId,
    config: identity<SqliteClient.SqliteClientConfig>({ filename: settings.filename, readonly: settings.readonly }),
    export: attempt("Failed to export database", () => db.serialize()),
    backup: (destination: string) =>
      Effect.tryPromise({
        try: () => db.backup(destination),
        catch: (cause) => new SqlError({ cause: coded(cause), message: "Failed to backup database" })
      }),
    loadExtension: (path: string) => attempt("Failed to load extension", () => db.loadExtension(path))
  }
}
