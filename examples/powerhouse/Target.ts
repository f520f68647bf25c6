/**
 * A target: where a run keeps its namespaces, a directory of SQLite files or a PostgreSQL database, told apart by its address.
 */
import * as ConfigError from "effect/ConfigError"
import * as Data from "effect/Data"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { resolve } from "node:path"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import type { Namespace, StoreUnavailable } from "../../src/index.js"

export interface Target {
  /** The directory's absolute path, or the URL without a password. */
  readonly shown: string
  readonly layer: Layer.Layer<Namespace.Namespaces, TargetError>
}

export type TargetError = AddressMalformed | StoreUnavailable.StoreUnavailable

/** The address is none that a database can have. */
export class AddressMalformed
  extends Data.TaggedError("AddressMalformed")<{ readonly cause: ConfigError.ConfigError }>
{
  override get message(): string {
    const why = "message" in this.cause ? this.cause.message : String(this.cause)
    return `the address of the database cannot be used: ${why}; ` +
      "write the path of a directory, or postgres://user:password@host:port/database"
  }
}

/** `postgres://…` or `postgresql://…`, or the path of a directory, which is created. Nothing is looked at yet. */
export const make = (address: string): Either.Either<Target, AddressMalformed> => {
  if (/^postgres(ql)?:/i.test(address)) return Either.right(postgres(address))
  const [scheme] = schemed.exec(address) ?? []
  return scheme === undefined ? Either.right(sqlite(address)) : Either.left(neither(scheme))
}

/**
 * What comes before a colon in the first part of a path: a URL of another database, a host and its port, `:memory:`. A
 * directory may be on a drive, and one with a colon in its name is written `./name`.
 */
const schemed = /^(?![A-Za-z]:[\\/])[^:\\/]*:/

/** Says no more of it than its beginning: what follows may hold a password. */
const neither = (scheme: string): AddressMalformed =>
  new AddressMalformed({
    cause: ConfigError.InvalidData(
      [],
      `what begins with ${JSON.stringify(scheme)} is neither a PostgreSQL URL nor a directory`
    )
  })

const postgres = (url: string): Target => ({
  shown: withoutSecrets(url),
  layer: Layer.mapError(Postgres.layer({ url: Redacted.make(url) }), nameAddress)
})

const sqlite = (path: string): Target => {
  // As it was given, so that an empty one is refused and does not become the current directory.
  return { shown: resolve(path), layer: Layer.mapError(Sqlite.layerDirectory({ directory: path }), nameAddress) }
}

const nameAddress = <E>(error: E | ConfigError.ConfigError): E | AddressMalformed =>
  ConfigError.isConfigError(error) ? new AddressMalformed({ cause: error }) : error

const withoutSecrets = (text: string): string => {
  if (!URL.canParse(text)) return "a PostgreSQL database"
  const url = new URL(text)
  url.password = ""
  url.search = ""
  return url.href
}
