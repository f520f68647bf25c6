/**
 * The settings of an SQLite store: its options with every choice made, or a `ConfigError` that names the option.
 */

import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Path from "node:path"

/** Which file, how durable, and how much it may wait and remember. */
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

/** Where the files are, how many may be open, and how each is. */
export interface DirectoryOptions extends Omit<Options, "filename" | "readonly"> {
  /** Created when there is none. Each namespace has a file in it, of its place's name and `.db`. */
  readonly directory: string
  /** At most so many files are open at a time, 2 to 10,000, those counted that are only read. Default: 64. */
  readonly filesMax?: number | undefined
}

/** What an option is when it is left out. */
export const defaults = {
  readonly: false,
  synchronous: "full",
  busyTimeoutMillis: 100,
  cacheKibibytes: 16_384,
  filesMax: 64
} as const satisfies Omit<Options & DirectoryOptions, "filename" | "directory">

/** `Options` with every choice made. */
export interface Settings {
  readonly filename: string
  readonly readonly: boolean
  readonly synchronous: "full" | "normal"
  readonly busyTimeoutMillis: number
  readonly cacheKibibytes: number
}

/** `DirectoryOptions` with every choice made. */
export interface DirectorySettings {
  readonly directory: string
  readonly filesMax: number
  /** Those of the file of this name in it. */
  readonly file: (name: string, readonly: boolean) => Settings
}

const shared = {
  synchronous: Config.literal("full", "normal")("SQLITE_SYNCHRONOUS").pipe(Config.withDefault(defaults.synchronous)),
  busyTimeoutMillis: Config.integer("SQLITE_BUSY_TIMEOUT_MILLIS").pipe(Config.withDefault(defaults.busyTimeoutMillis)),
  cacheKibibytes: Config.integer("SQLITE_CACHE_KIBIBYTES").pipe(Config.withDefault(defaults.cacheKibibytes))
}

/**
 * Reads `SQLITE_FILENAME` and, when set, `SQLITE_SYNCHRONOUS`, `SQLITE_BUSY_TIMEOUT_MILLIS`, `SQLITE_CACHE_KIBIBYTES`.
 */
export const config: Config.Config<Options> = Config.all({
  filename: Config.string("SQLITE_FILENAME"),
  ...shared
})

/** Reads `SQLITE_DIRECTORY` and, when set, `SQLITE_FILES_MAX` and what `config` reads beside the file's name. */
export const directoryConfig: Config.Config<DirectoryOptions> = Config.all({
  directory: Config.string("SQLITE_DIRECTORY"),
  filesMax: Config.integer("SQLITE_FILES_MAX").pipe(Config.withDefault(defaults.filesMax)),
  ...shared
})

/** Makes every choice that `options` leave open, and refuses what cannot be before anything is opened. */
export const make = (options: Options): Effect.Effect<Settings, ConfigError.ConfigError> => {
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

/** As `make`, for a directory. */
export const makeDirectory = (
  options: DirectoryOptions
): Effect.Effect<DirectorySettings, ConfigError.ConfigError> => {
  const { directory, filesMax = defaults.filesMax, ...file } = options
  if (directory.trim() === "") return refuse("directory", "is empty")
  if (!isBetween(filesMax, 2, 10_000)) return refuse("filesMax", "has to be a whole number of files from 2 to 10000")
  return Effect.map(make({ ...file, filename: directory }), (settings) => ({
    directory: Path.resolve(directory),
    filesMax,
    file: (name, readonly) => ({ ...settings, readonly, filename: Path.resolve(directory, name) })
  }))
}

const isBetween = (value: number, min: number, max: number): boolean =>
  Number.isInteger(value) && value >= min && value <= max

const refuse = (
  option: keyof Options | keyof DirectoryOptions,
  reason: string
): Effect.Effect<never, ConfigError.ConfigError> =>
  Effect.fail(ConfigError.InvalidData([option], `${option} ${reason}`))
