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
 * - a statement that is sent often is prepared under a name (`Prepared`), which halves the price of a row;
 * - waiting for a session is bounded by `connectTimeout` and can be interrupted without losing a session;
 * - TLS is verified or refused: a server on another machine is not spoken to in plain text, nor with a certificate that
 *   was not checked, whatever the URL's `sslmode` or the environment say;
 * - all sockets are closed with the scope, within a second, even those on which nobody answers;
 * - int8 is a `number` where that is exact and a `bigint` beyond 2^53, so `count(*)` is a number and nothing is
 *   rounded; with `SqlClient.SafeIntegers` it is always a `bigint`. `numeric`, and with it `sum` of an int8, stays a
 *   string;
 * - a namespace is a schema, all of them over one pool: a session is sent to the schema that its next lease is for, and a
 *   transaction that has left it is not committed (`SearchPath`);
 * - rows with different columns are refused (`EvenRows`);
 * - `stream` reads through a server-side cursor, 128 rows at a time, and leaves its session usable for other statements
 *   of the same transaction. It takes a SELECT or VALUES, and a consumer pauses at most `idleInTransactionTimeout`;
 * - `listen` has a session of its own and fails when that is lost, so that its caller can listen again. `Wakeups` does
 *   that, with one session for each topic that somebody waits for.
 */

import * as Reactivity from "@effect/experimental/Reactivity"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as SqlClient from "@effect/sql/SqlClient"
import * as Statement from "@effect/sql/Statement"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { Wakeups } from "../src/ingest/Wakeups.js"
import * as Namespaces from "../src/store/Namespaces.js"
import { StoreUnavailable } from "../src/store/StoreUnavailable.js"
import * as DirectStatement from "./DirectStatement.js"
import * as EvenRows from "./EvenRows.js"
import * as Aside from "./postgres/Aside.js"
import * as ClientOptions from "./postgres/ClientOptions.js"
import * as Int8 from "./postgres/Int8.js"
import * as Listener from "./postgres/Listener.js"
import * as Pool from "./postgres/Pool.js"
import type * as SearchPath from "./postgres/SearchPath.js"
import { config, type Options } from "./postgres/Settings.js"
import * as Settings from "./postgres/Settings.js"
import * as Sockets from "./postgres/Sockets.js"

export { config, defaults, type Options, type Ssl } from "./postgres/Settings.js"

export { StoreUnavailable }

/**
 * The namespaces, each a schema of the database; the database itself, as any program asks for it and as one that listens on
 * PostgreSQL's channels does; and its wake-ups.
 */
export type Provides = Namespaces.Namespaces | SqlClient.SqlClient | PgClient.PgClient | Wakeups

/**
 * A `ConfigError` names an option that cannot be, before anything is sent; a `StoreUnavailable` says what the server
 * is.
 */
export const layer = (options: Options): Layer.Layer<Provides, StoreUnavailable | ConfigError.ConfigError> =>
  Layer.scopedContext(make(options)).pipe(Layer.provide(Reactivity.layer))

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
    const settings = yield* Settings.make(options)
    const sockets = yield* Sockets.make
    const clientOptions = ClientOptions.fromSettings(settings, sockets)
    const pool = yield* Pool.make(settings, clientOptions)
    yield* Pool.probe(settings, pool)
    const client = yield* clientAt(settings, pool, undefined)
    const pg: PgClient.PgClient = Object.assign(client, {
      [PgClient.TypeId]: PgClient.TypeId,
      config: configOf(settings),
      json: (value: unknown) => pgJson(value),
      listen: (channel: string) => Listener.listen(settings, clientOptions, channel),
      notify: (channel: string, payload: string) => Effect.asVoid(client`SELECT pg_notify(${channel}, ${payload})`)
    })
    const reactivity = yield* Effect.context<Reactivity.Reactivity>()
    const clientOf = (schema: SearchPath.Schema) => Effect.provide(clientAt(settings, pool, schema), reactivity)
    const namespaces = yield* Namespaces.fromStore({
      ...schemas(clientOf),
      aside: Aside.make(client, clientOf),
      tidy: Aside.tidy(client)
    })
    return Context.make(SqlClient.SqlClient, pg).pipe(
      Context.add(PgClient.PgClient, pg),
      Context.add(Namespaces.Namespaces, namespaces),
      Context.add(Wakeups, { hints: (topic) => Listener.hints(settings, clientOptions, topic) })
    )
  })

/** Whose unqualified names mean `schema`. */
const clientAt = (
  settings: Settings.Settings,
  pool: Pool.Pool,
  schema: SearchPath.Schema
): Effect.Effect<SqlClient.SqlClient, never, Reactivity.Reactivity> =>
  Effect.suspend(() => {
    const acquirer = Pool.lease(settings, pool, schema)
    const client = SqlClient.make({
      acquirer,
      transactionAcquirer: acquirer,
      compiler,
      spanAttributes: [
        ["db.system.name", "postgresql"],
        ["db.namespace", schema === undefined ? settings.database : `${settings.database}|${schema}`],
        ["server.address", settings.host],
        ["server.port", settings.port]
      ]
    })
    return Effect.map(client, DirectStatement.required)
  })

const compiler = EvenRows.required(PgClient.makeCompiler())

/** A namespace is a schema, and its client costs no session while nobody uses it. */
const schemas = (clientOf: (schema: SearchPath.Schema) => Effect.Effect<SqlClient.SqlClient>): Namespaces.Store => {
  const at = (namespace: Namespaces.Namespace) => clientOf(Namespaces.place(namespace))
  return { writer: at, reader: at, registry: (namespace) => ({ schema: Namespaces.place(namespace) }) }
}

const configOf = (settings: Settings.Settings): PgClient.PgClientConfig => ({
  host: settings.host,
  port: settings.port,
  database: settings.database,
  username: settings.username,
  password: settings.password,
  ssl: settings.ssl !== undefined,
  maxConnections: settings.maxConnections,
  applicationName: settings.applicationName,
  types: Int8.types
})

const pgJson = Statement.custom<PgClient.PgCustom>("PgJson")
