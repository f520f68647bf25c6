/**
 * The SQLite store: a file for each namespace, or one for all that is kept; one connection a file, as durable as its options
 * say on every open.
 *
 *     open ─▶ pragmas, read back ─▶ first read ─▶ first write lock ─▶ `sql`, one lease at a time ─▶ close
 *        └────────── StoreUnavailable ──────────────────┘
 *
 *     Sqlite.layerDirectory({ directory })   a file a namespace, at most `filesMax` open at a time
 *     Sqlite.layer({ filename })             one file, which is one namespace
 *     Sqlite.layerMemory                     a database in memory for each, for tests
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
 * The connection is synchronous: while a statement runs, or waits for another process's lock, nothing else does. Large commits
 * that write through tables alone are taken to a thread with a connection of its own (`Errands`): it is started by the first
 * of them, holds the same lease, ends when there have been none for a while, and with the layer.
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
import * as Fs from "node:fs"
import { Wakeups } from "../src/ingest/Wakeups.js"
import * as Namespaces from "../src/store/Namespaces.js"
import { StoreUnavailable } from "../src/store/StoreUnavailable.js"
import * as DirectStatement from "./DirectStatement.js"
import * as EvenRows from "./EvenRows.js"
import { coded } from "./sqlite/Code.js"
import * as Connection from "./sqlite/Connection.js"
import * as DatabaseFile from "./sqlite/DatabaseFile.js"
import * as DataVersion from "./sqlite/DataVersion.js"
import * as Directory from "./sqlite/Directory.js"
import * as Errands from "./sqlite/Errands.js"
import * as Files from "./sqlite/Files.js"
import * as Lease from "./sqlite/Lease.js"
import { config, directoryConfig, type DirectoryOptions, type Options } from "./sqlite/Settings.js"
import * as Settings from "./sqlite/Settings.js"
import * as Traits from "./sqlite/Traits.js"

export { config, defaults, directoryConfig, type DirectoryOptions, type Options } from "./sqlite/Settings.js"

export { StoreUnavailable }

/**
 * One database: as a namespace, as any program asks for it, as one that copies or extends its SQLite file does, and its
 * wake-ups.
 */
export type Provides = Namespaces.Namespaces | SqlClient.SqlClient | SqliteClient.SqliteClient | Wakeups

/**
 * One file, which is one namespace: the first that is opened in it. A `ConfigError` names an option that cannot be; a
 * `StoreUnavailable` says why the file cannot be used.
 */
export const layer = (options: Options): Layer.Layer<Provides, StoreUnavailable | ConfigError.ConfigError> =>
  Layer.scopedContext(make(options)).pipe(Layer.provide(Reactivity.layer))

/** As `layer`, with options from the `ConfigProvider`: those of `config`, or those that are given. */
export const layerConfig = (
  options: Config.Config.Wrap<Options> = config
): Layer.Layer<Provides, StoreUnavailable | ConfigError.ConfigError> =>
  Layer.scopedContext(Effect.flatMap(Config.unwrap(options), make)).pipe(Layer.provide(Reactivity.layer))

/**
 * A file for each namespace, in a directory that is created when there is none. A `StoreUnavailable` says why the directory
 * cannot be used; one of a file comes when its namespace is opened.
 */
export const layerDirectory = (
  options: DirectoryOptions
): Layer.Layer<Namespaces.Namespaces, StoreUnavailable | ConfigError.ConfigError> =>
  Layer.scoped(Namespaces.Namespaces, makeDirectory(options)).pipe(Layer.provide(Reactivity.layer))

/** As `layerDirectory`, with options from the `ConfigProvider`: those of `directoryConfig`, or those that are given. */
export const layerDirectoryConfig = (
  options: Config.Config.Wrap<DirectoryOptions> = directoryConfig
): Layer.Layer<Namespaces.Namespaces, StoreUnavailable | ConfigError.ConfigError> =>
  Layer.scoped(Namespaces.Namespaces, Effect.flatMap(Config.unwrap(options), makeDirectory)).pipe(
    Layer.provide(Reactivity.layer)
  )

/**
 * Databases in memory, new with each build of the layer and gone with its scope: one for each namespace, and one more as the
 * `SqlClient`, in which no processor writes.
 */
export const layerMemory: Layer.Layer<Provides> = Layer.suspend(() =>
  Layer.scopedContext(makeMemory).pipe(Layer.provide(Reactivity.layer), Layer.orDie)
)

const make = (
  options: Options
): Effect.Effect<
  Context.Context<Provides>,
  StoreUnavailable | ConfigError.ConfigError,
  Scope.Scope | Reactivity.Reactivity
> =>
  Effect.gen(function*() {
    const settings = yield* Settings.make(options)
    const own = yield* database(settings)
    const store = { ...Namespaces.single(own.client), aside: yield* temporary(settings) }
    if (settings.filename === ":memory:") return contextOf(own, yield* Namespaces.fromStore(store))
    const files = yield* Files.make(1)
    const reader = yield* clientOf(files.file({ ...settings, readonly: true }).lease, settings)
    return contextOf(own, yield* Namespaces.fromStore({ ...store, reader: () => Effect.succeed(reader) }))
  })

const contextOf = (
  { db, sqlite }: { readonly db: Database.Database; readonly sqlite: SqliteClient.SqliteClient },
  namespaces: Context.Tag.Service<Namespaces.Namespaces>
): Context.Context<Provides> =>
  Context.make(SqlClient.SqlClient, sqlite as SqlClient.SqlClient).pipe(
    Context.add(SqliteClient.SqliteClient, sqlite),
    Context.add(Namespaces.Namespaces, namespaces),
    Context.add(Wakeups, { hints: () => DataVersion.changes(db) })
  )

const makeMemory: Effect.Effect<
  Context.Context<Provides>,
  StoreUnavailable | ConfigError.ConfigError,
  Scope.Scope | Reactivity.Reactivity
> = Effect.suspend(() =>
  Effect.gen(function*() {
    const settings = yield* Settings.make({ filename: ":memory:" })
    const own = yield* database(settings)
    return contextOf(own, yield* Effect.flatMap(inMemory(settings), Namespaces.fromStore))
  })
)

/** A database for each namespace, made one at a time and kept until the scope closes. */
const inMemory = (
  settings: Settings.Settings
): Effect.Effect<Namespaces.Store, never, Scope.Scope | Reactivity.Reactivity> =>
  Effect.gen(function*() {
    const context = yield* Effect.context<Reactivity.Reactivity | Scope.Scope>()
    const turn = yield* Effect.makeSemaphore(1)
    const clients = new Map<Namespaces.Namespace, SqlClient.SqlClient>()
    const open = (namespace: Namespaces.Namespace) =>
      Effect.map(Effect.provide(database(settings), context), ({ client }) => {
        clients.set(namespace, client)
        return client
      })
    return {
      aside: yield* temporary(settings),
      writer: (namespace) =>
        turn.withPermits(1)(Effect.suspend(() => {
          const known = clients.get(namespace)
          return known === undefined ? open(namespace) : Effect.succeed(known)
        })),
      reader: (namespace) =>
        Effect.suspend(() => {
          const known = clients.get(namespace)
          return known === undefined
            ? new Namespaces.NamespaceMissing({ namespace, place: settings.filename })
            : Effect.succeed(known)
        }),
      registry: schemaOf
    }
  })

const makeDirectory = (
  options: DirectoryOptions
): Effect.Effect<
  Context.Tag.Service<Namespaces.Namespaces>,
  StoreUnavailable | ConfigError.ConfigError,
  Scope.Scope | Reactivity.Reactivity
> =>
  Effect.gen(function*() {
    const settings = yield* Settings.makeDirectory(options)
    yield* Directory.make(settings.directory)
    const files = yield* Files.make(settings.filesMax)
    const store = inFiles(settings, files, yield* Effect.context<Reactivity.Reactivity>())
    return yield* Namespaces.fromStore({ ...store, aside: yield* temporary(settings.file("", false)) })
  })

/** A file for each namespace, made when it is opened for writing. */
const inFiles = (
  settings: Settings.DirectorySettings,
  files: Files.Files,
  reactivity: Context.Context<Reactivity.Reactivity>
): Namespaces.Store => {
  // Those who open one at the same time share what there is one of: the turns at the file.
  const known = { written: new Map<string, Files.File>(), read: new Map<string, Files.File>() }
  const fileOf = (own: Settings.Settings): Files.File => {
    const among = own.readonly ? known.read : known.written
    const file = among.get(own.filename) ?? files.file(own)
    among.set(own.filename, file)
    return file
  }
  const settingsOf = (namespace: Namespaces.Namespace, readonly: boolean) =>
    settings.file(`${Namespaces.place(namespace)}.db`, readonly)
  const clientAt = (own: Settings.Settings) => Effect.provide(clientOf(fileOf(own).lease, own), reactivity)
  return {
    writer: (namespace) =>
      Effect.suspend(() => {
        const own = settingsOf(namespace, false)
        return Effect.zipRight(fileOf(own).open, clientAt(own))
      }),
    reader: (namespace) =>
      Effect.suspend(() => {
        const own = settingsOf(namespace, true)
        return Fs.existsSync(own.filename)
          ? clientAt(own)
          : new Namespaces.NamespaceMissing({ namespace, place: own.filename })
      }),
    registry: schemaOf
  }
}

/** A file found by its name is no database that was given on purpose: with tables in it, it has to be registered. */
const schemaOf = (namespace: Namespaces.Namespace) => ({ schema: Namespaces.place(namespace) })

/** A database without a name: SQLite keeps what its memory does not hold in a file that goes with the connection, or a kill. */
const temporary = (
  settings: Settings.Settings
): Effect.Effect<NonNullable<Namespaces.Store["aside"]>, never, Reactivity.Reactivity> =>
  Effect.map(
    Effect.context<Reactivity.Reactivity>(),
    (reactivity) =>
      database({ ...settings, filename: "", readonly: false }).pipe(
        Effect.map(({ client }) => ({ sql: client, schema: undefined })),
        Effect.mapInputContext((scope: Context.Context<Scope.Scope>) => Context.merge(reactivity, scope))
      )
  )

/** An open database until the scope closes. */
const database = (settings: Settings.Settings) =>
  Effect.gen(function*() {
    const db = yield* DatabaseFile.open(settings)
    const traits = Traits.make()
    const own = Lease.make(db, Connection.make(db.defaultSafeIntegers(true), traits))
    const lease = db.memory || settings.readonly ? own : yield* Errands.make(settings, traits, own)
    const client = yield* clientOf(lease, settings)
    const extras = extrasOf(db, lease, settings, traits)
    return { db, client, sqlite: Object.assign(client as SqliteClient.SqliteClient, extras) }
  })

/** Whose statements take a lease each, outside a transaction, and one for all in it. */
const clientOf = (
  lease: SqlConnection.Acquirer,
  settings: Settings.Settings
): Effect.Effect<SqlClient.SqlClient, never, Reactivity.Reactivity> =>
  Effect.map(
    SqlClient.make({
      acquirer: Effect.succeed(Lease.alone(lease)),
      transactionAcquirer: lease,
      beginTransaction: "BEGIN IMMEDIATE",
      compiler,
      spanAttributes: [["db.system.name", "sqlite"], ["db.namespace", settings.filename]]
    }),
    DirectStatement.required
  )

const compiler = EvenRows.required(Statement.makeCompilerSqlite())

const extrasOf = (
  db: Database.Database,
  lease: SqlConnection.Acquirer,
  settings: Settings.Settings,
  traits: Traits.Traits
) => {
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
      Effect.acquireUseRelease(
        Effect.sync(() => traits.backups++),
        () =>
          Effect.tryPromise({
            try: () => db.backup(destination),
            catch: (cause) => new SqlError({ cause: coded(cause), message: "Failed to backup database" })
          }),
        () => Effect.sync(() => traits.backups--)
      ),
    loadExtension: (path: string) =>
      attempt("Failed to load extension", () => {
        traits.isPlain = false
        db.loadExtension(path)
      })
  }
}
