/**
 * A target: the database that a run writes to, an SQLite file or a PostgreSQL database, told apart by its address.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import * as ConfigError from "effect/ConfigError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { mkdir, stat } from "node:fs/promises"
import { dirname, resolve } from "node:path"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import type { StoreUnavailable } from "../../src/index.js"

export interface Target {
  /** The file's absolute path, or the URL without a password. */
  readonly shown: string
  readonly layer: Layer.Layer<SqlClient.SqlClient, TargetError>
}

export type TargetError = AddressMalformed | DirectoryUnavailable | StoreUnavailable.StoreUnavailable

/** The address is none that a database can have. */
export class AddressMalformed
  extends Data.TaggedError("AddressMalformed")<{ readonly cause: ConfigError.ConfigError }>
{
  override get message(): string {
    const why = "message" in this.cause ? this.cause.message : String(this.cause)
    return `the address of the database cannot be used: ${why}; ` +
      "write the path of an SQLite file, or postgres://user:password@host:port/database"
  }
}

/** The directory of the SQLite file is not there and cannot be made. */
export class DirectoryUnavailable extends Data.TaggedError("DirectoryUnavailable")<{
  readonly directory: string
  readonly cause: unknown
}> {
  override get message(): string {
    const why = this.cause instanceof Error ? this.cause.message : String(this.cause)
    return `cannot create the directory ${this.directory} (${why}); give --database a file that this user may write`
  }
}

/** `postgres://…` or `postgresql://…`, or the path of an SQLite file, whose directory is created. */
export const make = (address: string): Target => /^postgres(ql)?:/.test(address) ? postgres(address) : sqlite(address)

const postgres = (url: string): Target => ({
  shown: withoutSecrets(url),
  layer: Layer.mapError(Postgres.layer({ url: Redacted.make(url) }), nameAddress)
})

const sqlite = (path: string): Target => {
  const filename = path === ":memory:" ? path : resolve(path)
  const store = Layer.mapError(Sqlite.layer({ filename }), nameAddress)
  return { shown: filename, layer: Layer.unwrapEffect(Effect.as(create(dirname(filename)), store)) }
}

const nameAddress = <E>(error: E | ConfigError.ConfigError): E | AddressMalformed =>
  ConfigError.isConfigError(error) ? new AddressMalformed({ cause: error }) : error

/** Creates a directory and those above it, one by one: Node's own `recursive` never ends below `/proc`. */
const create = (directory: string): Effect.Effect<void, DirectoryUnavailable> => {
  const attempt = <A>(use: () => Promise<A>) =>
    Effect.tryPromise({ try: use, catch: (cause) => new DirectoryUnavailable({ directory, cause }) })
  return attempt(() => stat(directory)).pipe(
    Effect.flatMap((found) =>
      found.isDirectory() ? Effect.void : new DirectoryUnavailable({ directory, cause: new Error("it is a file") })
    ),
    Effect.catchAll((failure) =>
      codeOf(failure.cause) === "ENOENT" && dirname(directory) !== directory
        ? Effect.zipRight(create(dirname(directory)), Effect.asVoid(attempt(() => mkdir(directory))))
        : failure
    )
  )
}

const codeOf = (cause: unknown): unknown => cause instanceof Error && "code" in cause ? cause.code : undefined

const withoutSecrets = (text: string): string => {
  if (!URL.canParse(text)) return "a PostgreSQL database"
  const url = new URL(text)
  url.password = ""
  url.search = ""
  return url.href
}
