/**
 * The pool: at most `maxConnections` sessions, each lent to one scope at a time.
 *
 *     lease ──▶ from the pool, or opened ──▶ session ──▶ given back when the scope closes
 *        └ none within `connectTimeout`, or interrupted ──▶ no session is lost
 */

import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Pg from "pg"
import { StoreUnavailable } from "../../src/store/StoreUnavailable.js"
import * as Diagnosis from "./Diagnosis.js"
import * as SearchPath from "./SearchPath.js"
import { Session } from "./Session.js"
import type { Settings } from "./Settings.js"
import * as Sockets from "./Sockets.js"

/** The sessions, and where the unqualified names of each lead. */
export interface Pool {
  readonly sessions: Pg.Pool
  readonly path: SearchPath.SearchPath
}

/** A pool without a session yet. Closing it waits for nothing: see `Sockets`. */
export const make = (settings: Settings, options: Pg.ClientConfig): Effect.Effect<Pool, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const path = SearchPath.make()
      class Watched extends Pg.Client {
        constructor(config?: string | Pg.ClientConfig) {
          super(config)
          path.watch(this)
        }
      }
      const pool = new Pg.Pool({
        ...options,
        Client: Watched,
        max: settings.maxConnections,
        idleTimeoutMillis: settings.idleMillis
      })
      // A session that breaks while nobody uses it leaves the pool by itself; the next statement opens another.
      pool.on("error", () => undefined)
      pool.on("connect", Sockets.watch)
      return { sessions: pool, path }
    }),
    // Waits for nothing: the sockets, released after the pool, are what has to be gone.
    ({ sessions }) => Effect.sync(() => sessions.end(() => undefined))
  )

/**
 * A session in `schema` for as long as the scope is open. Afterwards statements on it fail, whoever still holds it.
 */
export const lease = (settings: Settings, pool: Pool, schema: SearchPath.Schema): Connection.Acquirer =>
  Effect.uninterruptibleMask((restore) => {
    let held: Pg.PoolClient | undefined
    let abandoned = false
    return restore(Effect.async<Pg.PoolClient, SqlError>((resume) => {
      pool.sessions.connect((cause, client) => {
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
      Effect.map((client) => new Session(client, { socketMillis: settings.socketMillis, path: pool.path, schema })),
      Effect.tap((session) => Effect.addFinalizer(() => Effect.sync(() => session.giveBack()))),
      Effect.tap((session) => Effect.sync(() => session.enter()))
    )
  })

/** Opens the first session, and makes sure that nothing on the way to the server has taken our time-outs away. */
export const probe = (settings: Settings, pool: Pool): Effect.Effect<void, StoreUnavailable> =>
  Effect.scoped(Effect.flatMap(
    lease(settings, pool, undefined),
    (session) => session.execute("SELECT name, setting FROM pg_settings WHERE name LIKE '%\\_timeout'", [], undefined)
  )).pipe(
    Effect.mapError((error) => Diagnosis.unavailable(settings, error.cause)),
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
        target: Diagnosis.targetOf(settings),
        reason: `the session does not have the ${missing[0]} of ${missing[1]} ms that it was opened with`,
        hint: "connect to the server itself, or through a pooler that passes start-up parameters on",
        transient: false,
        cause: new Error(`${missing[0]} is ${String(found.get(missing[0]))} ms`)
      })
    })
  )
