/**
 * The one PostgreSQL server of a whole test run. Tests find it with `inject("postgresUrl")`, mostly by way of
 * `Database.postgres`.
 *
 * With `TEST_POSTGRES_URL` set that server is used instead: its user must be allowed to create databases, and the server
 * is left as it was found.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { TestProject } from "vitest/node"
import * as PostgresServer from "./PostgresServer.js"

declare module "vitest" {
  export interface ProvidedContext {
    /** A database with the right to create others. */
    readonly postgresUrl: string
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const scope = Effect.runSync(Scope.make())
  const givenUrl = process.env["TEST_POSTGRES_URL"]
  const postgresUrl = givenUrl ? Effect.succeed(givenUrl) : Effect.map(PostgresServer.make, (server) => server.url)
  project.provide("postgresUrl", await Effect.runPromise(Scope.extend(postgresUrl, scope)))
  return () => Effect.runPromise(Scope.close(scope, Exit.void))
}
