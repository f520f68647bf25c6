/**
 * The client options: what `pg` opens every session with, so that it takes nothing from the environment and both sides
 * notice when the other is gone.
 */

import * as Redacted from "effect/Redacted"
import * as Tls from "node:tls"
import type * as Pg from "pg"
import * as Int8 from "./Int8.js"
import type { Settings, Ssl } from "./Settings.js"
import * as Sockets from "./Sockets.js"

/** The kernels of both sides ask after a silent peer from this age of the silence on, in milliseconds. */
const keepAliveMillis = 10_000

/** What a client of these settings is made with. Its socket is one of `sockets`. */
export const fromSettings = (settings: Settings, sockets: Sockets.Sockets): Pg.ClientConfig => ({
  host: settings.host,
  port: settings.port,
  database: settings.database,
  user: settings.username,
  // A function, so that `pg` looks neither in the environment nor in ~/.pgpass, and printing a client shows no
  // password.
  password: () => settings.password === undefined ? "" : Redacted.value(settings.password),
  ssl: settings.ssl === undefined ? false : tlsOptions(settings.ssl),
  enableChannelBinding: settings.channelBinding,
  stream: () => Sockets.open(sockets),
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
  types: Int8.types
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
