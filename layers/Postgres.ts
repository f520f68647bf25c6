/**
 * The PostgreSQL store: a bounded pool of sessions, none of which is believed without a reason.
 *
 *     statement ──▶ lease ──▶ session ──▶ socket, watched while an answer is awaited
 *                     │ given back: idle, says the server ──▶ pool
 *                     └ anything else ──────────────────────▶ destroyed
 *
 * What it does that `@effect/sql-pg` leaves open:
 *
 * - a session goes back to the pool only when the server has said that it is idle, outside any transaction;
 * - a statement is not interrupted. `@effect/sql-pg` cancels it by the session's process id, which may have gone on to
 *   another fiber's statement by then. The server bounds it (`statementTimeout`), and an interruption waits that long;
 * - silence is bounded too: a socket on which an awaited answer does not come is destroyed after `socketTimeout`, so
 *   that a black hole in the network is a failure and not a halt. `query_timeout` of `pg` is never used: it gives up on
 *   the client's side alone, and the session returns to the pool inside the open transaction, whose rows the next
 *   COMMIT keeps;
 * - waiting for a session is bounded by `connectTimeout` and can be interrupted without losing a session;
 * - TLS is verified or refused: a server on another machine is not spoken to in plain text, nor with a certificate that
 *   was not checked, whatever the URL's `sslmode` or the environment say;
 * - all sockets are closed with the scope, within `closeMillis`, even those on which nobody answers;
 * - int8 is a `number` where that is exact and a `bigint` beyond 2^53, so `count(*)` is a number and nothing is
 *   rounded; with `SqlClient.SafeIntegers` it is always a `bigint`. `numeric`, and with it `sum` of an int8, stays a
 *   string;
 * - rows with different columns are refused (`EvenRows`);
 * - `stream` reads through a server-side cursor, 128 rows at a time, and leaves its session usable for other statements
 *   of the same transaction. It takes a SELECT or VALUES, and a consumer pauses at most `idleInTransactionTimeout`;
 * - `listen` has a session of its own and fails when that is lost, so that its caller can listen again.
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import * as Chunk from "effect/Chunk"
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Net from "node:net"
import * as Tls from "node:tls"
import * as Pg from "pg"
import { StoreUnavailable } from "../src/store/StoreUnavailable.js"
import * as EvenRows from "./EvenRows.js"

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

/** The sockets of a closing pool are given so long to say goodbye, in milliseconds; a session of a `listen` too. */
const closeMillis = 1_000

/** The kernels of both sides ask after a silent peer from this age of the silence on, in milliseconds. */
const keepAliveMillis = 10_000

/** Rows read at a time by `stream`. */
const fetchRows = 128

/** What the protocol can count in one statement. */
const parametersMax = 65_535

/** How often the session of a `listen` is asked whether it is still there. */
const listenPing = Duration.seconds(10)

export type Provides = SqlClient.SqlClient | PgClient.PgClient

/**
 * A `ConfigError` names an option that cannot be, before anything is sent; a `StoreUnavailable` says what the server
 * is.
 */
export const layer = (options: Options): Layer.Layer<Provides, StoreUnavailable | ConfigError.ConfigError> =>
  Layer.scopedContext(make(options)).pipe(Layer.provide(Reactivity.layer))

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

/** As `layer`, with options from the `ConfigProvider`: those of `config`, or those that are given. */
export const layerConfig = (
  options: Config.Config.Wrap<Options> = config
): Layer.Layer<Provides, StoreUnavailable | ConfigError.ConfigError> =>
  Layer.scopedContext(Effect.flatMap(Config.unwrap(options), make)).pipe(Layer.provide(Reactivity.layer))

const make = (
  options: Options
): Effect.Effect<
  Context.Context<Provides>,
  StoreUnavailable | ConfigError.ConfigError,
  Scope.Scope | Reactivity.Reactivity
> =>
  Effect.gen(function*() {
    const settings = yield* settingsOf(options)
    const sockets = yield* makeSockets
    const clientOptions = clientOptionsOf(settings, sockets)
    const pool = yield* makePool(settings, clientOptions)
    yield* probe(settings, pool)
    const acquire = lease(settings, pool)
    const client = yield* SqlClient.make({
      acquirer: acquire,
      transactionAcquirer: acquire,
      compiler: EvenRows.required(PgClient.makeCompiler()),
      spanAttributes: [
        ["db.system.name", "postgresql"],
        ["db.namespace", settings.database],
        ["server.address", settings.host],
        ["server.port", settings.port]
      ]
    })
    const pg: PgClient.PgClient = Object.assign(client, {
      [PgClient.TypeId]: PgClient.TypeId,
      config: configOf(settings),
      json: (value: unknown) => pgJson(value),
      listen: (channel: string) => listen(settings, clientOptions, channel),
      notify: (channel: string, payload: string) => Effect.asVoid(client`SELECT pg_notify(${channel}, ${payload})`)
    })
    return Context.make(SqlClient.SqlClient, pg).pipe(Context.add(PgClient.PgClient, pg))
  })

const pgJson = Statement.custom<PgClient.PgCustom>("PgJson")

/** `Options` with every choice made. */
interface Settings {
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

const settingsOf = (options: Options): Effect.Effect<Settings, ConfigError.ConfigError> =>
  Effect.gen(function*() {
    const url = options.url === undefined ? undefined : yield* addressOf(options.url)
    const host = options.host ?? url?.host
    const username = options.username ?? url?.username
    if (host === undefined || host === "") return yield* refuse("host", "is missing, as is a url that has one")
    if (username === undefined || username === "") {
      return yield* refuse("username", "is missing, as is a url that has one")
    }
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
    if (!Number.isInteger(settings.port) || settings.port < 1 || settings.port > 65_535) {
      return yield* refuse("port", "has to be a whole number from 1 to 65535")
    }
    if (!Number.isInteger(settings.maxConnections) || settings.maxConnections < 2 || settings.maxConnections > 1000) {
      return yield* refuse(
        "maxConnections",
        "has to be a whole number from 2 to 1000; one transaction would use up one"
      )
    }
    if (settings.socketMillis <= settings.statementMillis) {
      return yield* refuse("socketTimeout", "has to be longer than statementTimeout, or it cuts off healthy statements")
    }
    return settings
  })

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

const refuse = (option: keyof Options, reason: string): Effect.Effect<never, ConfigError.ConfigError> =>
  Effect.fail(ConfigError.InvalidData([option], `${option} ${reason}`))

interface Address {
  readonly host: string | undefined
  readonly port: number | undefined
  readonly database: string | undefined
  readonly username: string | undefined
  readonly password: Redacted.Redacted | undefined
  readonly sslRequired: boolean
  readonly channelBinding: boolean
}

/**
 * Reads the URL here and not in `pg`, which would take settings from it that weaken ours. No message repeats the URL.
 */
const addressOf = (redacted: Redacted.Redacted): Effect.Effect<Address, ConfigError.ConfigError> =>
  Effect.gen(function*() {
    const url = yield* Effect.try({ try: () => new URL(Redacted.value(redacted)), catch: () => undefined }).pipe(
      Effect.orElse(() => refuse("url", "is not a URL; a password in it has to be percent-encoded"))
    )
    if (url.protocol !== "postgresql:" && url.protocol !== "postgres:") {
      return yield* refuse("url", "has to begin with postgresql://")
    }
    for (const name of url.searchParams.keys()) {
      if (!parameters.has(name)) return yield* refuse("url", `has the parameter ${name}, which is not understood here`)
    }
    const sslmode = url.searchParams.get("sslmode")
    if (sslmode !== null && !sslmodes.has(sslmode)) {
      return yield* refuse(
        "url",
        `asks for sslmode=${sslmode}; TLS is verified here, or left out on this machine alone`
      )
    }
    const decode = (part: string): Effect.Effect<string | undefined, ConfigError.ConfigError> =>
      Effect.try({ try: () => part === "" ? undefined : decodeURIComponent(part), catch: () => undefined }).pipe(
        Effect.orElse(() => refuse("url", "has a part that is not percent-encoded correctly"))
      )
    const password = yield* decode(url.password)
    const host = yield* decode(url.hostname.replace(/^\[(.*)\]$/, "$1"))
    return {
      host: host ?? url.searchParams.get("host") ?? undefined,
      port: url.port === "" ? undefined : Number(url.port),
      database: yield* decode(url.pathname.slice(1)),
      username: yield* decode(url.username),
      password: password === undefined ? undefined : Redacted.make(password),
      sslRequired: sslmode !== null,
      channelBinding: url.searchParams.get("channel_binding") === "require"
    }
  })

const parameters = new Set(["sslmode", "channel_binding", "host"])
const sslmodes = new Set(["require", "verify-ca", "verify-full"])

const sslOf = (
  options: Options,
  host: string,
  required: boolean
): Effect.Effect<Ssl | undefined, ConfigError.ConfigError> => {
  const allowed = options.allowUnencryptedConnectionToRemoteHost ?? defaults.allowUnencryptedConnectionToRemoteHost
  const asked = options.ssl !== undefined || required
  if (isUnixSocket(host)) {
    return asked ? refuse("ssl", "is asked for, and a unix socket has none") : Effect.succeed(undefined)
  }
  if (asked && allowed) {
    return refuse("allowUnencryptedConnectionToRemoteHost", "contradicts ssl, or the sslmode of the url")
  }
  return Effect.succeed(asked || !(allowed || isLoopback(host)) ? options.ssl ?? {} : undefined)
}

const isUnixSocket = (host: string): boolean => host.startsWith("/")

const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || (Net.isIPv4(host) && host.startsWith("127."))

const configOf = (settings: Settings): PgClient.PgClientConfig => ({
  host: settings.host,
  port: settings.port,
  database: settings.database,
  username: settings.username,
  password: settings.password,
  ssl: settings.ssl !== undefined,
  maxConnections: settings.maxConnections,
  applicationName: settings.applicationName,
  types
})

/**
 * Every socket of the layer that is open. With the scope they close, by themselves within `closeMillis` or else by
 * force.
 */
type Sockets = Set<Net.Socket>

const makeSockets: Effect.Effect<Sockets, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync((): Sockets => new Set()),
  (sockets) => Effect.zipRight(emptied(sockets), Effect.sync(() => sockets.forEach((socket) => socket.destroy())))
)

/** Waits by a timer and not by the Clock: sockets run on real time, and a test's clock would stand still. */
const emptied = (sockets: Sockets): Effect.Effect<void> =>
  Effect.async((resume) => {
    const timer = setTimeout(() => resume(Effect.void), closeMillis)
    const check = () => {
      if (sockets.size > 0) return
      clearTimeout(timer)
      resume(Effect.void)
    }
    sockets.forEach((socket) => socket.once("close", check))
    check()
  })

const openSocket = (sockets: Sockets): Net.Socket => {
  const socket = new Net.Socket()
  sockets.add(socket)
  return socket.once("close", () => sockets.delete(socket))
}

const clientOptionsOf = (settings: Settings, sockets: Sockets): Pg.ClientConfig => ({
  host: settings.host,
  port: settings.port,
  database: settings.database,
  user: settings.username,
  // A function, so that `pg` looks neither in the environment nor in ~/.pgpass, and printing a client shows no
  // password.
  password: () => settings.password === undefined ? "" : Redacted.value(settings.password),
  ssl: settings.ssl === undefined ? false : tlsOptions(settings.ssl),
  enableChannelBinding: settings.channelBinding,
  stream: () => openSocket(sockets),
  keepAlive: true,
  keepAliveInitialDelayMillis: keepAliveMillis,
  connectionTimeoutMillis: settings.connectMillis,
  application_name: settings.applicationName,
  statement_timeout: settings.statementMillis,
  lock_timeout: settings.lockMillis,
  idle_in_transaction_session_timeout: settings.idleInTransactionMillis,
  // The server, too, notices that we are gone, and lets go of our locks.
  options: Object.entries({
    tcp_keepalives_idle: Math.ceil(keepAliveMillis / 1000),
    tcp_keepalives_interval: 5,
    tcp_keepalives_count: 3,
    tcp_user_timeout: settings.socketMillis
  }).map(([name, value]) => `-c ${name}=${value}`).join(" "),
  types
})

const tlsOptions = ({ ca, cert, key, servername }: Ssl): Tls.ConnectionOptions => ({
  rejectUnauthorized: true,
  minVersion: "TLSv1.2",
  ...(ca === undefined ? {} : { ca }),
  ...(cert === undefined ? {} : { cert }),
  ...(key === undefined ? {} : { key: Redacted.value(key) }),
  // `pg` overwrites a servername with the host, so the name is checked here.
  ...(servername === undefined ? {} : {
    servername,
    checkServerIdentity: (_host: string, certificate: Tls.PeerCertificate) =>
      Tls.checkServerIdentity(servername, certificate)
  })
})

type Parser = (text: string) => unknown

const int8 = 20
const int8Array = 1016

const parseInt8 = (text: string): number | bigint => {
  const value = Number(text)
  return Number.isSafeInteger(value) ? value : BigInt(text)
}

const stock = Pg.types.getTypeParser as (oid: number, format?: string) => Parser

const typesWith = (parse: Parser): Pg.CustomTypesConfig => {
  const parseArray: Parser = (text) => deep(stock(int8Array)(text), parse)
  const getTypeParser = (oid: number, format?: string): Parser =>
    format === "binary" ? stock(oid, format) : oid === int8 ? parse : oid === int8Array ? parseArray : stock(oid)
  return { getTypeParser: getTypeParser as typeof Pg.types.getTypeParser }
}

const deep = (value: unknown, parse: Parser): unknown =>
  Array.isArray(value) ? value.map((item) => deep(item, parse)) : typeof value === "string" ? parse(value) : value

const types = typesWith(parseInt8)
const typesSafe = typesWith(BigInt)

const makePool = (settings: Settings, options: Pg.ClientConfig): Effect.Effect<Pg.Pool, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const pool = new Pg.Pool({ ...options, max: settings.maxConnections, idleTimeoutMillis: settings.idleMillis })
      // A session that breaks while nobody uses it leaves the pool by itself; the next statement opens another.
      pool.on("error", () => undefined)
      pool.on("connect", watch)
      return pool
    }),
    // Waits for nothing: the sockets, released after the pool, are what has to be gone.
    (pool) => Effect.sync(() => pool.end(() => undefined))
  )

/** The socket of a session; after the change to TLS, the encrypted one. */
const socketOf = (client: Pg.Client): Net.Socket | undefined =>
  client.connection.stream instanceof Net.Socket ? client.connection.stream : undefined

/**
 * Destroys the session's socket when its time-out, set while an answer or the end is awaited, has passed in silence.
 */
const watch = (client: Pg.Client): void => {
  const socket = socketOf(client)
  client.on("error", () => undefined)
  socket?.once("timeout", () => socket.destroy(new Silence(`no answer for ${socket.timeout ?? 0} ms`)))
  socket?.once("finish", () => socket.setTimeout(closeMillis))
}

class Silence extends Error {
  readonly code = "ETIMEDOUT"
}

/** A session for as long as the scope is open. Afterwards statements on it fail, whoever still holds it. */
const lease = (settings: Settings, pool: Pg.Pool): Connection.Acquirer =>
  Effect.uninterruptibleMask((restore) => {
    let held: Pg.PoolClient | undefined
    let abandoned = false
    return restore(Effect.async<Pg.PoolClient, SqlError>((resume) => {
      pool.connect((cause, client) => {
        if (client === undefined) {
          resume(Effect.fail(new SqlError({ cause, message: "Failed to acquire connection" })))
        } else if (abandoned) {
          client.release()
        } else {
          held = client
          resume(Effect.succeed(client))
        }
      })
    })).pipe(
      Effect.onInterrupt(() =>
        Effect.sync(() => {
          abandoned = true
          held?.release()
        })
      ),
      Effect.map((client) => new Session(client, settings.socketMillis)),
      Effect.tap((session) => Effect.addFinalizer(() => Effect.sync(() => session.giveBack())))
    )
  })

/** A leased session: the only way to its client, and the judge of whether that may be used again. */
class Session implements Connection {
  private awaited = 0
  private ended = false
  private cursors = 0
  private readonly client: Pg.PoolClient
  private readonly socketMillis: number

  constructor(client: Pg.PoolClient, socketMillis: number) {
    this.client = client
    this.socketMillis = socketMillis
  }

  giveBack(): void {
    this.ended = true
    this.client.release(!this.isIdle())
  }

  /** Whether the server's last word was that the session is outside a transaction, and nothing was asked since. */
  private isIdle(): boolean {
    return this.awaited === 0 && this.isReady() && this.client.getTransactionStatus() === "I"
  }

  /** Whether that last word has come: `pg` keeps note of it, which its types leave out. */
  private isReady(): boolean {
    return (this.client as unknown as { readonly readyForQuery?: boolean }).readyForQuery === true
  }

  private send(text: string, values: ReadonlyArray<unknown>, rowMode?: "array"): Effect.Effect<Answer, SqlError> {
    return Effect.uninterruptible(Effect.withFiberRuntime((fiber) => {
      const safeIntegers = Context.get(fiber.currentContext, SqlClient.SafeIntegers)
      return Effect.async<Answer, SqlError>((resume) => {
        const fail = (cause: unknown) =>
          resume(Effect.fail(new SqlError({ cause, message: "Failed to execute statement" })))
        if (this.ended) return fail(new Error("the connection was used after it had been given back"))
        if (values.length > parametersMax) {
          return fail(Object.assign(new Error(`more than ${parametersMax} parameters`), { code: tooComplex }))
        }
        const query = {
          text,
          values: values as Array<unknown>,
          ...(rowMode === undefined ? {} : { rowMode }),
          ...(safeIntegers ? { types: typesSafe } : {})
        }
        this.await()
        this.client.query(query, (error: Error | null, answer: unknown) =>
          this.settle(() => {
            this.answered()
            if (error) fail(error)
            else resume(Effect.succeed(answer as Answer))
          }))
      })
    }))
  }

  /** An error is reported before the server is ready for more, and in which state; so its word is waited for. */
  private settle(done: () => void): void {
    const socket = socketOf(this.client)
    if (this.isReady() || socket === undefined || socket.destroyed) return done()
    const once = () => {
      this.client.off("drain", once).off("end", once)
      done()
    }
    this.client.on("drain", once).on("end", once)
  }

  private await(): void {
    this.awaited++
    socketOf(this.client)?.setTimeout(this.socketMillis)
  }

  private answered(): void {
    this.awaited--
    if (this.awaited === 0) socketOf(this.client)?.setTimeout(0)
  }

  execute: Connection["execute"] = (text, params, transformRows) => {
    const rows = Effect.map(this.send(text, params), rowsOf)
    return transformRows === undefined ? rows : Effect.map(rows, transformRows)
  }

  executeRaw: Connection["executeRaw"] = (text, params) => this.send(text, params)

  executeValues: Connection["executeValues"] = (text, params) =>
    Effect.map(this.send(text, params, "array"), (answer) => rowsOf(answer) as ReadonlyArray<ReadonlyArray<unknown>>)

  executeUnprepared: Connection["executeUnprepared"] = (text, params, transformRows) =>
    this.execute(text, params, transformRows)

  executeStream: Connection["executeStream"] = (text, params, transformRows) =>
    Stream.unwrapScoped(Effect.gen(this, function*() {
      const name = `effect_processors_${++this.cursors}`
      const isOwn = this.client.getTransactionStatus() === "I"
      if (isOwn) yield* this.send("BEGIN", [])
      // Ending the transaction, or the session, ends the cursor; that of somebody else's transaction is closed alone.
      yield* Effect.addFinalizer(() => Effect.ignore(this.send(isOwn ? "COMMIT" : `CLOSE ${name}`, [])))
      yield* this.send(`DECLARE ${name} NO SCROLL CURSOR FOR ${text}`, params)
      const fetch = this.execute(`FETCH FORWARD ${fetchRows} FROM ${name}`, [], transformRows)
      return Stream.repeatEffectChunkOption(fetch.pipe(
        Effect.mapError(Option.some),
        Effect.flatMap((rows) =>
          rows.length === 0 ? Effect.fail(Option.none()) : Effect.succeed(Chunk.unsafeFromArray(rows))
        )
      ))
    }))
}

/** program_limit_exceeded: what the server would say if the protocol let it see that many. */
const tooComplex = "54000"

/** A `pg` result, or one for each statement of a text that holds several. */
type Answer = Pg.QueryResult | ReadonlyArray<Pg.QueryResult>

const rowsOf = (answer: Answer): ReadonlyArray<object> =>
  isMany(answer) ? answer.map((result) => result.rows) : answer.rows

const isMany = (answer: Answer): answer is ReadonlyArray<Pg.QueryResult> => Array.isArray(answer)

/** Opens the first session, and makes sure that nothing on the way to the server has taken our time-outs away. */
const probe = (settings: Settings, pool: Pg.Pool): Effect.Effect<void, StoreUnavailable> =>
  Effect.scoped(Effect.flatMap(
    lease(settings, pool),
    (session) => session.execute("SELECT name, setting FROM pg_settings WHERE name LIKE '%\\_timeout'", [], undefined)
  )).pipe(
    Effect.mapError((error) => unavailable(settings, error.cause)),
    Effect.flatMap((rows: ReadonlyArray<{ readonly name: string; readonly setting: string }>) => {
      const found = new Map(rows.map((row) => [row.name, Number(row.setting)]))
      const lost = [
        ["statement_timeout", settings.statementMillis],
        ["lock_timeout", settings.lockMillis],
        ["idle_in_transaction_session_timeout", settings.idleInTransactionMillis]
      ] as const
      const missing = lost.find(([name, millis]) => found.get(name) !== millis)
      return missing === undefined ? Effect.void : new StoreUnavailable({
        store: "pg",
        target: targetOf(settings),
        reason: `the session does not have the ${missing[0]} of ${missing[1]} ms that it was opened with`,
        hint: "connect to the server itself, or through a pooler that passes start-up parameters on",
        transient: false,
        cause: new Error(`${missing[0]} is ${String(found.get(missing[0]))} ms`)
      })
    })
  )

const listen = (settings: Settings, options: Pg.ClientConfig, channel: string): Stream.Stream<string, SqlError> =>
  Stream.asyncPush<string, SqlError>((emit) =>
    Effect.gen(function*() {
      const client = yield* Effect.acquireRelease(
        Effect.sync(() => new Pg.Client(options)),
        (opened) => Effect.sync(() => opened.end(() => undefined))
      )
      const lost = (cause: unknown) => new SqlError({ cause, message: "Failed to listen" })
      client.on("error", (cause) => emit.fail(lost(cause)))
      client.on("end", () => emit.fail(lost(new Error("the session of a listener has ended"))))
      client.on("notification", (message) => {
        if (message.channel === channel) emit.single(message.payload ?? "")
      })
      const ask = (text: string): Effect.Effect<void, SqlError> =>
        Effect.async((resume) => {
          const socket = socketOf(client)
          socket?.setTimeout(settings.socketMillis)
          client.query(text, (cause: Error | null) => {
            socket?.setTimeout(0)
            resume(cause ? Effect.fail(lost(cause)) : Effect.void)
          })
        })
      yield* Effect.tryPromise({ try: () => client.connect(), catch: lost })
      watch(client)
      yield* ask(`LISTEN ${Pg.escapeIdentifier(channel)}`)
      yield* ask("").pipe(
        Effect.repeat(Schedule.spaced(listenPing)),
        Effect.catchAll((error) => Effect.sync(() => emit.fail(error))),
        Effect.forkScoped
      )
    }), { bufferSize: 256, strategy: "sliding" })

const targetOf = (settings: Settings): string => `${settings.host}:${settings.port}/${settings.database}`

const unavailable = (settings: Settings, cause: unknown): StoreUnavailable =>
  new StoreUnavailable({ store: "pg", target: targetOf(settings), ...diagnose(settings, cause), cause })

interface Diagnosis {
  readonly reason: string
  readonly hint: string
  readonly transient: boolean
}

const diagnose = (settings: Settings, cause: unknown): Diagnosis => {
  const code = typeof cause === "object" && cause !== null && "code" in cause ? String(cause.code) : ""
  const message = cause instanceof Error ? cause.message : String(cause)
  if (/password must be a/.test(message) || (code === "28P01" && settings.password === undefined)) {
    return {
      reason: `the server asks for a password of ${settings.username}, and none was given`,
      hint: "give one, in the url or by itself",
      transient: false
    }
  }
  if (/does not support SSL/.test(message)) {
    return {
      reason: "the server has no TLS, and this connection may not go without",
      hint: "turn TLS on there; allowUnencryptedConnectionToRemoteHost goes without, at your risk",
      transient: false
    }
  }
  if (/^(ERR_TLS|ERR_SSL|CERT_|SELF_SIGNED|DEPTH_ZERO|UNABLE_TO_)/.test(code)) {
    return {
      reason: `the server's certificate is not accepted: ${message}`,
      hint: "give the authority that signed it as ssl.ca, and the name it carries as ssl.servername",
      transient: false
    }
  }
  if (/timeout|timed out/i.test(message) || code === "ETIMEDOUT") {
    return {
      reason: `no answer within ${settings.connectMillis} ms`,
      hint: "see whether the server is up, and whether a firewall lets us reach it",
      transient: true
    }
  }
  return diagnoses.get(code) ??
    { reason: message, hint: "see the cause", transient: code.startsWith("08") || code === "" }
}

const rights = "see to the user, the password and the server's pg_hba.conf"

const diagnoses: ReadonlyMap<string, Diagnosis> = new Map([
  ["ECONNREFUSED", {
    reason: "nothing listens there",
    hint: "start the server, or correct host and port",
    transient: true
  }],
  ["ECONNRESET", { reason: "the connection was reset", hint: "see the log of the server", transient: true }],
  ["ENOENT", { reason: "there is no such socket", hint: "start the server, or correct the host", transient: true }],
  ["ENOTFOUND", { reason: "the host has no address", hint: "correct the host", transient: false }],
  ["EAI_AGAIN", { reason: "the host's address cannot be looked up", hint: "see to the name server", transient: true }],
  ["EHOSTUNREACH", { reason: "the host cannot be reached", hint: "see to the network", transient: true }],
  ["ENETUNREACH", { reason: "the network cannot be reached", hint: "see to the network", transient: true }],
  ["28P01", { reason: "the user or the password is wrong", hint: rights, transient: false }],
  ["28000", { reason: "the server does not let this user in from here", hint: rights, transient: false }],
  ["3D000", { reason: "there is no such database", hint: "create it, or correct its name", transient: false }],
  ["42501", { reason: "the user may not connect to this database", hint: "grant CONNECT on it", transient: false }],
  ["53300", {
    reason: "the server has no session left",
    hint: "lower maxConnections, or raise its limit",
    transient: true
  }],
  ["57P03", { reason: "the server is starting or stopping", hint: "wait for it", transient: true }],
  ["08P01", {
    reason: "something on the way does not understand our start-up parameters",
    hint: "connect to the server itself, or through a pooler that passes start-up parameters on",
    transient: false
  }]
])
