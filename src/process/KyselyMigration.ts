/**
 * A Kysely migration: `up(db)` and `down(db)` of an existing module, run unchanged inside our transaction.
 *
 *     up(db) ──▶ Kysely compiles ──▶ the transaction's own connection ──▶ database
 *
 * The `Kysely` it is given owns no connection. `db.transaction()` inside becomes a savepoint. A promise that the module does
 * not await ends with the transaction: its later statements fail instead of running outside it.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Runtime from "effect/Runtime"
import type * as Kysely from "kysely"
import { dialectOf } from "../domain/Dialect.js"
import * as KyselyDialect from "./KyselyDialect.js"
import type * as Migration from "./Migration.js"

/** What such a module exports. `down` may be missing, as it may with Kysely: then the step does not come down. */
export interface KyselyModule {
  readonly up: (db: never) => unknown
  readonly down?: ((db: never) => unknown) | undefined
}

export interface Options {
  readonly transactional?: false | undefined
  /** See `Migration.digest`. */
  readonly digest?: Migration.Digest | undefined
}

/** Makes a migration of a module. Needs the package `kysely` once it runs, and fails with an `SqlError` without it. */
export const fromModule = (module: KyselyModule, options: Options = {}): Migration.Migration => ({
  up: run(module.up),
  down: module.down === undefined
    ? Effect.fail(
      new SqlError({ cause: new Error("the module exports no down"), message: "The migration has no down" })
    )
    : run(module.down),
  transactional: options.transactional,
  digest: options.digest
})

/** Makes migrations of modules by id, such as `import * as m1 from "./0001_search.js"`. */
export const fromModules = (modules: { readonly [id: string]: KyselyModule }): Migration.Migrations =>
  Object.fromEntries(Object.entries(modules).map(([id, module]) => [id, fromModule(module)]))

const run = (direction: (db: never) => unknown): Migration.Migration["up"] =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const kysely = yield* Effect.mapError(KyselyDialect.load, (cause) =>
      new SqlError({ cause, message: "A Kysely migration needs the package kysely" }))
    const runtime = yield* Effect.runtime()
    yield* KyselyDialect.withConnection((connection) =>
      Effect.tryPromise({
        try: () =>
          Promise.resolve(direction(database(kysely, sql, connection, runtime) as never)),
        catch: asSqlError
      })
    )
  })

/** A failed statement reaches the module as the `SqlError` that it is, and comes back unchanged if the module lets it. */
const asSqlError = (cause: unknown): SqlError =>
  cause instanceof SqlError ? cause : new SqlError({ cause, message: "The migration threw" })

const database = (
  kysely: typeof Kysely,
  sql: SqlClient.SqlClient,
  connection: Connection,
  runtime: Runtime.Runtime<never>
): Kysely.Kysely<unknown> => {
  const send = (text: string, parameters: ReadonlyArray<unknown>): Promise<unknown> =>
    Runtime.runPromiseExit(runtime)(connection.executeRaw(text, parameters)).then((exit) =>
      exit._tag === "Success" ? exit.value : Promise.reject(exit.cause._tag === "Fail" ? exit.cause.error : exit.cause)
    )
  const parts = KyselyDialect.parts(kysely, dialectOf(sql))
  return new kysely.Kysely({ dialect: { ...parts, createDriver: () => driver(send) } })
}

type Send = (text: string, parameters: ReadonlyArray<unknown>) => Promise<unknown>

const driver = (send: Send): Kysely.Driver => {
  const savepoint = (text: string) => () => send(text, []).then(() => undefined)
  return {
    init: () => Promise.resolve(),
    acquireConnection: () =>
      Promise.resolve({
        executeQuery: <R>(query: Kysely.CompiledQuery) =>
          send(query.sql, query.parameters).then((answer) => KyselyDialect.resultOf<R>(answer)),
        streamQuery: () => {
          throw new Error("a migration cannot stream; execute the query instead")
        }
      }),
    beginTransaction: savepoint("SAVEPOINT kysely"),
    commitTransaction: savepoint("RELEASE SAVEPOINT kysely"),
    rollbackTransaction: savepoint("ROLLBACK TO SAVEPOINT kysely"),
    releaseConnection: () => Promise.resolve(),
    destroy: () => Promise.resolve()
  }
}
