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
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import Database from "better-sqlite3"
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { StoreUnavailable } from "../src/store/StoreUnavailable.js"
import * as EvenRows from "./EvenRows.js"

export interface Options {
  /** The file, created when there is none; its directory has to exist. `":memory:"` keeps nothing. Not empty. */
  readonly filename: string
  /** Only reads, and never creates the file. Default: false. */
  readonly readonly?: boolean | undefined
  /**
   * `"full"`, the default, writes each commit through to the disk before it is acknowledged. `"normal"` does so only at
   * checkpoints: a loss of power can take back the latest commits, each with its cursor, and they are replayed. The
   * file is consistent with both, and the end of the process alone loses nothing with either.
   */
  readonly synchronous?: "full" | "normal" | undefined
  /**
   * How long a statement waits for a lock that another process holds, in milliseconds, 0 to 5000. Default: 100. The
   * wait stops the whole event loop, so keep it short and retry `SQLITE_BUSY` on a Schedule.
   */
  readonly busyTimeoutMillis?: number | undefined
  /** Memory for pages of the file, in KiB, 1 to 16,777,216. Default: 16,384. */
  readonly cacheKibibytes?: number | undefined
}

export const defaults = {
  readonly: false,
  synchronous: "full",
  busyTimeoutMillis: 100,
  cacheKibibytes: 16_384
} as const satisfies Omit<Options, "filename">

/**
 * The write-ahead log is cut back to this many bytes after a checkpoint; by itself it keeps the size of its worst day.
 */
const walBytesMax = 64 * 1024 * 1024

/** Statements kept prepared; the one prepared first goes first. */
const preparedMax = 500

export type Provides = SqlClient.SqlClient | SqliteClient.SqliteClient

/** A `ConfigError` names an option that cannot be; a `StoreUnavailable` says why the file cannot be used. */
export const layer = (options: Options): Layer.Layer<Provides, StoreUnavailable | ConfigError.ConfigError> =>
  Layer.scopedContext(make(options)).pipe(Layer.provide(Reactivity.layer))

/**
 * Reads `SQLITE_FILENAME` and, when set, `SQLITE_SYNCHRONOUS`, `SQLITE_BUSY_TIMEOUT_MILLIS`, `SQLITE_CACHE_KIBIBYTES`.
 */
export const config: Config.Config<Options> = Config.all({
  filename: Config.string("SQLITE_FILENAME"),
  synchronous: Config.literal("full", "normal")("SQLITE_SYNCHRONOUS").pipe(Config.withDefault(defaults.synchronous)),
  busyTimeoutMillis: Config.integer("SQLITE_BUSY_TIMEOUT_MILLIS").pipe(Config.withDefault(defaults.busyTimeoutMillis)),
  cacheKibibytes: Config.integer("SQLITE_CACHE_KIBIBYTES").pipe(Config.withDefault(defaults.cacheKibibytes))
})

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
    const settings = yield* settingsOf(options)
    const db = yield* open(settings)
    const semaphore = yield* Effect.makeSemaphore(1)
    const connection = makeConnection(db.defaultSafeIntegers(true))
    const lease = Effect.uninterruptibleMask((restore) =>
      Effect.zipRight(
        restore(semaphore.take(1)),
        Effect.as(Effect.addFinalizer(() => Effect.ensuring(leaveTransaction(db), semaphore.release(1))), connection)
      )
    )
    const client = yield* SqlClient.make({
      acquirer: Effect.succeed(alone(connection, lease)),
      transactionAcquirer: lease,
      beginTransaction: "BEGIN IMMEDIATE",
      compiler: EvenRows.required(Statement.makeCompilerSqlite()),
      spanAttributes: [["db.system.name", "sqlite"], ["db.namespace", settings.filename]]
    })
    const sqlite = Object.assign(client as SqliteClient.SqliteClient, extrasOf(db, lease, settings))
    return Context.make(SqlClient.SqlClient, sqlite).pipe(Context.add(SqliteClient.SqliteClient, sqlite))
  })

interface Settings {
  readonly filename: string
  readonly readonly: boolean
  readonly synchronous: "full" | "normal"
  readonly busyTimeoutMillis: number
  readonly cacheKibibytes: number
}

const settingsOf = (options: Options): Effect.Effect<Settings, ConfigError.ConfigError> => {
  const settings: Settings = {
    filename: options.filename,
    readonly: options.readonly ?? defaults.readonly,
    synchronous: options.synchronous ?? defaults.synchronous,
    busyTimeoutMillis: options.busyTimeoutMillis ?? defaults.busyTimeoutMillis,
    cacheKibibytes: options.cacheKibibytes ?? defaults.cacheKibibytes
  }
  if (settings.filename.trim() === "") {
    return refuse("filename", "is empty, which SQLite takes for a database that is thrown away when it is closed")
  }
  if (!isBetween(settings.busyTimeoutMillis, 0, 5000)) {
    return refuse("busyTimeoutMillis", "has to be a whole number of milliseconds from 0 to 5000")
  }
  if (!isBetween(settings.cacheKibibytes, 1, 16_777_216)) {
    return refuse("cacheKibibytes", "has to be a whole number of KiB from 1 to 16777216")
  }
  return Effect.succeed(settings)
}

const refuse = (option: keyof Options, reason: string): Effect.Effect<never, ConfigError.ConfigError> =>
  Effect.fail(ConfigError.InvalidData([option], `${option} ${reason}`))

const isBetween = (value: number, min: number, max: number): boolean =>
  Number.isInteger(value) && value >= min && value <= max

const open = (settings: Settings): Effect.Effect<Database.Database, StoreUnavailable, Scope.Scope> => {
  const attempt = <A>(step: () => A): Effect.Effect<A, StoreUnavailable> =>
    Effect.try({ try: step, catch: (cause) => unavailable(settings, cause) })
  return Effect.acquireRelease(
    attempt(() =>
      new Database(settings.filename, {
        readonly: settings.readonly,
        fileMustExist: settings.readonly,
        timeout: settings.busyTimeoutMillis
      })
    ),
    (db) =>
      Effect.try(() => db.close()).pipe(
        Effect.catchAll((error) => Effect.logWarning("closing the SQLite file failed", error.error))
      )
  ).pipe(
    Effect.tap((db) => attempt(() => settings.readonly ? readFirst(db) : configure(db, settings)))
  )
}

/** Sets what a file does not remember, and reads back what durability and integrity rest on. */
const configure = (db: Database.Database, settings: Settings): void => {
  expect(db, "journal_mode", db.memory ? "memory" : "wal", "WAL")
  expect(db, "synchronous", settings.synchronous === "full" ? 2 : 1, settings.synchronous)
  expect(db, "foreign_keys", 1, "ON")
  expect(db, "busy_timeout", settings.busyTimeoutMillis, String(settings.busyTimeoutMillis))
  // On macOS alone does an fsync stop short of the disk, and this asks for the one that does not.
  db.pragma(`fullfsync = ${settings.synchronous === "full" ? "ON" : "OFF"}`)
  db.pragma(`cache_size = -${settings.cacheKibibytes}`)
  db.pragma(`journal_size_limit = ${walBytesMax}`)
  readFirst(db)
  writeFirst(db)
}

const expect = (db: Database.Database, pragma: string, wanted: string | number, value: string): void => {
  db.pragma(`${pragma} = ${value}`)
  const found = db.pragma(pragma, { simple: true })
  if (found !== wanted) throw new Error(`${pragma} is ${String(found)} and cannot be set to ${wanted}`)
}

const readFirst = (db: Database.Database): void => void db.exec("SELECT count(*) FROM sqlite_schema")

/**
 * Takes the write lock and gives it back. Finding it taken is as good: that this file is read-only is said before that.
 */
const writeFirst = (db: Database.Database): void => {
  try {
    db.exec("BEGIN IMMEDIATE")
    db.exec("ROLLBACK")
  } catch (cause) {
    if (!codeOf(cause).startsWith("SQLITE_BUSY")) throw cause
  }
}

const leaveTransaction = (db: Database.Database): Effect.Effect<void> =>
  Effect.suspend(() =>
    db.open && db.inTransaction
      ? Effect.zipRight(
        Effect.ignore(Effect.try(() => db.exec("ROLLBACK"))),
        Effect.logWarning("a connection was given back inside a transaction, which was rolled back")
      )
      : Effect.void
  )

/**
 * Every failure is an `SqlError` whose cause carries a `code`: SQLite's own, or for a refused parameter the nearest.
 */
const makeConnection = (db: Database.Database): Connection => {
  const prepared = new Map<string, Database.Statement>()
  const prepare = (text: string): Database.Statement => {
    const found = prepared.get(text)
    if (found !== undefined) return found
    const statement = db.prepare(text)
    if (prepared.size >= preparedMax) {
      for (const oldest of prepared.keys()) {
        prepared.delete(oldest)
        break
      }
    }
    prepared.set(text, statement)
    return statement
  }

  const run = <A>(use: (safeIntegers: boolean) => A): Effect.Effect<A, SqlError> =>
    Effect.withFiberRuntime((fiber) => {
      try {
        return Effect.succeed(use(Context.get(fiber.currentContext, SqlClient.SafeIntegers)))
      } catch (cause) {
        return Effect.fail(new SqlError({ cause: coded(cause), message: "Failed to execute statement" }))
      }
    })

  const rowsOf = (statement: Database.Statement, params: ReadonlyArray<unknown>, safeIntegers: boolean) => {
    const bound = params.map(bind)
    if (!statement.reader) {
      statement.run(...bound)
      return []
    }
    const rows = statement.all(...bound) as Array<Record<string, unknown>>
    if (!safeIntegers) rows.forEach(narrowRow)
    return rows
  }

  const execute: Connection["execute"] = (text, params, transformRows) => {
    const rows = run((safeIntegers) => rowsOf(prepare(text), params, safeIntegers))
    return transformRows === undefined ? rows : Effect.map(rows, transformRows)
  }

  return identity<Connection>({
    execute,
    executeRaw: (text, params) =>
      run((safeIntegers) => {
        const statement = prepare(text)
        if (statement.reader) return rowsOf(statement, params, safeIntegers)
        const result = statement.run(...params.map(bind))
        return safeIntegers ? result : { ...result, lastInsertRowid: narrow(result.lastInsertRowid) }
      }),
    executeValues: (text, params) =>
      run((safeIntegers): ReadonlyArray<ReadonlyArray<unknown>> => {
        const statement = prepare(text)
        if (!statement.reader) {
          statement.run(...params.map(bind))
          return []
        }
        try {
          const rows = statement.raw(true).all(...params.map(bind)) as Array<Array<unknown>>
          return safeIntegers ? rows : rows.map((row) => row.map(narrow))
        } finally {
          statement.raw(false)
        }
      }),
    executeUnprepared: (text, params, transformRows) => {
      const rows = run((safeIntegers) => rowsOf(db.prepare(text), params, safeIntegers))
      return transformRows === undefined ? rows : Effect.map(rows, transformRows)
    },
    executeStream: (text, params, transformRows) => Stream.fromIterableEffect(execute(text, params, transformRows))
  })
}

/** `connection` for statements outside a transaction, each of which holds the lease for as long as it runs. */
const alone = (connection: Connection, lease: Connection.Acquirer): Connection => {
  const hold = <A>(statement: Effect.Effect<A, SqlError>) => Effect.scoped(Effect.zipRight(lease, statement))
  const execute: Connection["execute"] = (text, params, transformRows) =>
    hold(connection.execute(text, params, transformRows))
  return {
    execute,
    executeRaw: (text, params) => hold(connection.executeRaw(text, params)),
    executeValues: (text, params) => hold(connection.executeValues(text, params)),
    executeUnprepared: (text, params, transformRows) => hold(connection.executeUnprepared(text, params, transformRows)),
    executeStream: (text, params, transformRows) => Stream.fromIterableEffect(execute(text, params, transformRows))
  }
}

const bind = (value: unknown): unknown => {
  switch (typeof value) {
    case "number":
      // The driver would bind 1 as 1.0, which a TEXT column keeps as "1.0".
      return Number.isSafeInteger(value) ? BigInt(value) : value
    case "boolean":
      return value ? 1n : 0n
    case "undefined":
      return null
    case "object": {
      if (value === null || ArrayBuffer.isView(value)) return value
      if (value instanceof Date) return value.toISOString()
      throw new TypeError("a parameter is a list or an object; give its members, or its JSON text")
    }
    default:
      return value
  }
}

const narrow = (value: unknown): unknown =>
  typeof value === "bigint" && value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER
    ? Number(value)
    : value

const narrowRow = (row: Record<string, unknown>): void => {
  for (const column in row) {
    if (typeof row[column] === "bigint") row[column] = narrow(row[column])
  }
}

const coded = (cause: unknown): unknown => {
  if (codeOf(cause) !== "" || !(cause instanceof Error)) return cause
  const code = /not open/.test(cause.message)
    ? "SQLITE_MISUSE"
    : cause instanceof RangeError
    ? "SQLITE_RANGE"
    : "SQLITE_MISMATCH"
  return Object.assign(new Error(cause.message, { cause }), { code })
}

const codeOf = (cause: unknown): string =>
  typeof cause === "object" && cause !== null && "code" in cause && typeof cause.code === "string" ? cause.code : ""

const extrasOf = (db: Database.Database, lease: Connection.Acquirer, settings: Settings) => {
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

const unavailable = (settings: Settings, cause: unknown): StoreUnavailable =>
  new StoreUnavailable({ store: "sqlite", target: settings.filename, ...diagnose(settings, cause), cause })

const diagnose = (
  { filename, readonly }: Settings,
  cause: unknown
): { readonly reason: string; readonly hint: string; readonly transient: boolean } => {
  const directory = Path.dirname(Path.resolve(filename))
  const code = codeOf(cause)
  const message = cause instanceof Error ? cause.message : String(cause)
  if (/directory does not exist/.test(message)) {
    return { reason: "its directory does not exist", hint: `create ${directory} first`, transient: false }
  }
  if (code.startsWith("SQLITE_CANTOPEN") || code.startsWith("SQLITE_READONLY")) {
    const file = Fs.statSync(filename, { throwIfNoEntry: false })
    if (file?.isDirectory() === true) {
      return { reason: "it is a directory", hint: "name a file inside it", transient: false }
    }
    if (file === undefined && readonly) {
      return { reason: "there is no such file", hint: "a read-only store has to exist already", transient: false }
    }
    const reason = `this process may not ${readonly ? "read" : "write"} the file or its directory`
    const hint = `give it the rights to both, since SQLite keeps a -wal and a -shm file beside it in ${directory}`
    return { reason, hint, transient: false }
  }
  if (code.startsWith("SQLITE_NOTADB")) {
    return {
      reason: "it is not an SQLite database",
      hint: "name another file; this one was not changed",
      transient: false
    }
  }
  if (code.startsWith("SQLITE_CORRUPT")) {
    return { reason: `it is damaged (${message})`, hint: "restore it from a backup, or rebuild it", transient: false }
  }
  if (code.startsWith("SQLITE_BUSY") || code.startsWith("SQLITE_LOCKED")) {
    return { reason: "another process has it locked", hint: "wait for that process, or stop it", transient: true }
  }
  if (code.startsWith("SQLITE_FULL") || code.startsWith("SQLITE_IOERR")) {
    return { reason: message, hint: "see to its disk: space, quota, mount", transient: true }
  }
  return { reason: message, hint: "see the cause", transient: false }
}
