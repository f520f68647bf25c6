/**
 * An address: where a PostgreSQL server is and who asks, as a URL says it.
 *
 *     postgresql://user:password@host:port/database?sslmode=verify-full&channel_binding=require
 */

import * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Net from "node:net"

/** What a URL says: a part it leaves out is `undefined`, and what it does not ask for is `false`. */
export interface Address {
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
export const fromUrl = (redacted: Redacted.Redacted): Effect.Effect<Address, ConfigError.ConfigError> =>
  Effect.gen(function*() {
    const url = yield* Effect.try({ try: () => new URL(Redacted.value(redacted)), catch: () => undefined }).pipe(
      Effect.orElse(() => refuse("is not a URL; a password in it has to be percent-encoded"))
    )
    if (url.protocol !== "postgresql:" && url.protocol !== "postgres:") {
      return yield* refuse("has to begin with postgresql://")
    }
    for (const name of url.searchParams.keys()) {
      if (!parameters.has(name)) return yield* refuse(`has the parameter ${name}, which is not understood here`)
    }
    const sslmode = url.searchParams.get("sslmode")
    if (sslmode !== null && !sslmodes.has(sslmode)) {
      return yield* refuse(`asks for sslmode=${sslmode}; TLS is verified here, or left out on this machine alone`)
    }
    const decode = (part: string): Effect.Effect<string | undefined, ConfigError.ConfigError> =>
      Effect.try({ try: () => part === "" ? undefined : decodeURIComponent(part), catch: () => undefined }).pipe(
        Effect.orElse(() => refuse("has a part that is not percent-encoded correctly"))
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

/** Whether a host is the directory of a unix socket, which never leaves this machine. */
export const isUnixSocket = (host: string): boolean => host.startsWith("/")

/** Whether a host is this machine itself. Other names are not looked up. */
export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || (Net.isIPv4(host) && host.startsWith("127."))

const refuse = (reason: string): Effect.Effect<never, ConfigError.ConfigError> =>
  Effect.fail(ConfigError.InvalidData(["url"], `url ${reason}`))
