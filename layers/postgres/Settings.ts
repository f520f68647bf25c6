/**
 * The settings of a PostgreSQL store: its options with every choice made, or a `ConfigError` that names the option.
 *
 *     the parts, or else the url's address, or else the defaults ──▶ TLS or none ──▶ within bounds ──▶ settings
 *      └────────────────────────── ConfigError ───────────────────────────┴────────────────┘
 */

import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as Address from "./Address.js"

/**
 * How the server proves who it is. Its certificate is always checked, against `ca` or else the system's authorities.
 */
export interface Ssl {
  /** The authorities to trust, as PEM, in place of the system's. */
  readonly ca?: string | undefined
  /** The name the certificate has to carry when that is not `host`. */
  readonly servername?: string | undefined
  /** This client's own certificate and key, as PEM, where the server asks for one. */
  readonly cert?: string | undefined
  readonly key?: Redacted.Redacted | undefined
}

/** Where the server is, how it is spoken to, and how long anything may take. */
export interface Options {
  /**
   * `postgresql://user:password@host:port/database`; the parts below win over it. Of its parameters `sslmode` and
   * `channel_binding` are understood: `require`, `verify-ca` and `verify-full` all ask for verified TLS, and any that
   * asks for less is refused, as is every other parameter but `host`, which may be the directory of a unix socket.
   */
  readonly url?: Redacted.Redacted | undefined
  /** A name, an address, or the directory of a unix socket. */
  readonly host?: string | undefined
  /** Default: 5432. */
  readonly port?: number | undefined
  /** Default: the name of the user. */
  readonly database?: string | undefined
  readonly username?: string | undefined
  readonly password?: Redacted.Redacted | undefined

  /** Default: verified TLS against the system's authorities; none for a loopback address or a unix socket. */
  readonly ssl?: Ssl | undefined
  /**
   * Lets statements, data and, with old servers, the password travel in the clear to another machine. Default: false.
   */
  readonly allowUnencryptedConnectionToRemoteHost?: boolean | undefined

  /** At most this many sessions, 2 to 1000, besides one for each `listen`. Default: 10. */
  readonly maxConnections?: number | undefined
  /** The longest wait for a session, new or from the pool. Default: 5 seconds. */
  readonly connectTimeout?: Duration.DurationInput | undefined
  /** A session nobody has used for so long is closed. Default: 30 seconds. */
  readonly idleTimeout?: Duration.DurationInput | undefined
  /** The server cancels a statement, COMMIT included, after so long (57014). Default: 30 seconds. */
  readonly statementTimeout?: Duration.DurationInput | undefined
  /** The server gives up on a lock after so long (55P03). Default: 10 seconds. */
  readonly lockTimeout?: Duration.DurationInput | undefined
  /** The server ends a session that holds a transaction open and says nothing for so long. Default: 30 seconds. */
  readonly idleInTransactionTimeout?: Duration.DurationInput | undefined
  /** The longest silence while an answer is awaited. More than `statementTimeout`; default: 5 seconds more. */
  readonly socketTimeout?: Duration.DurationInput | undefined
  /** What `pg_stat_activity` calls our sessions. Default: "effect-processors". */
  readonly applicationName?: string | undefined
}

/** What an option is when it is left out. `socketTimeout` is `statementTimeout` and the margin. */
export const defaults = {
  port: 5432,
  allowUnencryptedConnectionToRemoteHost: false,
  maxConnections: 10,
  connectTimeout: Duration.seconds(5),
  idleTimeout: Duration.seconds(30),
  statementTimeout: Duration.seconds(30),
  lockTimeout: Duration.seconds(10),
  idleInTransactionTimeout: Duration.seconds(30),
  socketTimeoutMargin: Duration.seconds(5),
  applicationName: "effect-processors"
} as const

/** `Options` with every choice made. */
export interface Settings {
  readonly host: string
  readonly port: number
  readonly database: string
  readonly username: string
  readonly password: Redacted.Redacted | undefined
  readonly ssl: Ssl | undefined
  readonly channelBinding: boolean
  readonly maxConnections: number
  readonly connectMillis: number
  readonly idleMillis: number
  readonly statementMillis: number
  readonly lockMillis: number
  readonly idleInTransactionMillis: number
  readonly socketMillis: number
  readonly applicationName: string
}

/**
 * Reads `DATABASE_URL`, or `PGHOST`, `PGPORT`, `PGDATABASE`, `PGUSER` and `PGPASSWORD`, which win over its parts. When
 * set, also `DATABASE_CA` (PEM), `DATABASE_MAX_CONNECTIONS`, and durations such as "30 seconds" from
 * `DATABASE_CONNECT_TIMEOUT`, `DATABASE_STATEMENT_TIMEOUT`, `DATABASE_LOCK_TIMEOUT`,
 * `DATABASE_IDLE_IN_TRANSACTION_TIMEOUT`, `DATABASE_SOCKET_TIMEOUT`.
 */
export const config: Config.Config<Options> = Config.suspend(() => {
  const optional = <A>(value: Config.Config<A>): Config.Config<A | undefined> => Config.withDefault(value, undefined)
  return Config.all({
    url: optional(Config.redacted("DATABASE_URL")),
    host: optional(Config.string("PGHOST")),
    port: optional(Config.port("PGPORT")),
    database: optional(Config.string("PGDATABASE")),
    username: optional(Config.string("PGUSER")),
    password: optional(Config.redacted("PGPASSWORD")),
    ssl: optional(Config.map(Config.string("DATABASE_CA"), (ca): Ssl => ({ ca }))),
    maxConnections: optional(Config.integer("DATABASE_MAX_CONNECTIONS")),
    connectTimeout: optional(Config.duration("DATABASE_CONNECT_TIMEOUT")),
    statementTimeout: optional(Config.duration("DATABASE_STATEMENT_TIMEOUT")),
    lockTimeout: optional(Config.duration("DATABASE_LOCK_TIMEOUT")),
    idleInTransactionTimeout: optional(Config.duration("DATABASE_IDLE_IN_TRANSACTION_TIMEOUT")),
    socketTimeout: optional(Config.duration("DATABASE_SOCKET_TIMEOUT"))
  })
})

/** Makes every choice that `options` leave open, and refuses what cannot be before anything is sent. */
export const make = (options: Options): Effect.Effect<Settings, ConfigError.ConfigError> =>
  Effect.gen(function*() {
    const url = options.url === undefined ? undefined : yield* Address.fromUrl(options.url)
    const host = options.host ?? url?.host
    const username = options.username ?? url?.username
    if (host === undefined || host === "") return yield* refuse("host", missing("PGHOST"))
    if (username === undefined || username === "") return yield* refuse("username", missing("PGUSER"))
    const statementMillis = yield* millisOf("statementTimeout", options.statementTimeout ?? defaults.statementTimeout)
    const settings: Settings = {
      host,
      username,
      port: options.port ?? url?.port ?? defaults.port,
      database: options.database ?? url?.database ?? username,
      password: options.password ?? url?.password,
      ssl: yield* sslOf(options, host, url?.sslRequired ?? false),
      channelBinding: url?.channelBinding ?? false,
      maxConnections: options.maxConnections ?? defaults.maxConnections,
      connectMillis: yield* millisOf("connectTimeout", options.connectTimeout ?? defaults.connectTimeout),
      idleMillis: yield* millisOf("idleTimeout", options.idleTimeout ?? defaults.idleTimeout),
      statementMillis,
      lockMillis: yield* millisOf("lockTimeout", options.lockTimeout ?? defaults.lockTimeout),
      idleInTransactionMillis: yield* millisOf(
        "idleInTransactionTimeout",
        options.idleInTransactionTimeout ?? defaults.idleInTransactionTimeout
      ),
      socketMillis: yield* millisOf(
        "socketTimeout",
        options.socketTimeout ?? Duration.sum(Duration.millis(statementMillis), defaults.socketTimeoutMargin)
      ),
      applicationName: options.applicationName ?? defaults.applicationName
    }
    return yield* bounded(settings)
  })

const missing = (variable: string): string =>
  `is missing: give it, or a url that has one (in the environment ${variable} or DATABASE_URL)`

const bounded = (settings: Settings): Effect.Effect<Settings, ConfigError.ConfigError> => {
  if (!Number.isInteger(settings.port) || settings.port < 1 || settings.port > 65_535) {
    return refuse("port", "has to be a whole number from 1 to 65535")
  }
  if (!Number.isInteger(settings.maxConnections) || settings.maxConnections < 2 || settings.maxConnections > 1000) {
    return refuse(
      "maxConnections",
      "has to be a whole number from 2 to 1000; one transaction would use up one"
    )
  }
  if (settings.socketMillis <= settings.statementMillis) {
    return refuse("socketTimeout", "has to be longer than statementTimeout, or it cuts off healthy statements")
  }
  return Effect.succeed(settings)
}

/** A whole number of milliseconds from 1 to an hour: 0 would mean "for ever" to the server. */
const millisOf = (
  option: keyof Options,
  value: Duration.DurationInput
): Effect.Effect<number, ConfigError.ConfigError> => {
  const millis = Math.ceil(Duration.toMillis(value))
  return millis >= 1 && millis <= 3_600_000
    ? Effect.succeed(millis)
    : refuse(option, "has to be a duration from 1 millisecond to 1 hour")
}

const sslOf = (
  options: Options,
  host: string,
  required: boolean
): Effect.Effect<Ssl | undefined, ConfigError.ConfigError> => {
  const allowed = options.allowUnencryptedConnectionToRemoteHost ?? defaults.allowUnencryptedConnectionToRemoteHost
  const asked = options.ssl !== undefined || required
  if (Address.isUnixSocket(host)) {
    return asked ? refuse("ssl", "is asked for, and a unix socket has none") : Effect.succeed(undefined)
  }
  if (asked && allowed) {
    return refuse("allowUnencryptedConnectionToRemoteHost", "contradicts ssl, or the sslmode of the url")
  }
  return Effect.succeed(asked || !(allowed || Address.isLoopback(host)) ? options.ssl ?? {} : undefined)
}

const refuse = (option: keyof Options, reason: string): Effect.Effect<never, ConfigError.ConfigError> =>
  Effect.fail(ConfigError.InvalidData([option], `${option} ${reason}`))
