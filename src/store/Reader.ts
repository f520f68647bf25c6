/**
 * A reader: a client that can look at everything in a namespace and change nothing, whatever it is sent.
 *
 *     statement ─▶ lease ─▶ PostgreSQL: BEGIN READ ONLY, a first snapshot ─▶ statement ─▶ ROLLBACK
 *                           SQLite:     query_only, BEGIN ───────────────▶ statement ─▶ ROLLBACK
 *                                                                            └ not a query ─▶ refused
 *
 * PostgreSQL lets a transaction become writable again only before its first snapshot, so one is taken at once; what ends a
 * transaction is refused, and what a session remembers (SET, LISTEN) goes with the rollback. SQLite is sent queries and
 * nothing else: ATTACH would reach other files, VACUUM INTO would write one, and PRAGMA would take the rule back.
 *
 * Each statement sees the database as it is then; inside `sql.withTransaction` all see it as it was at the first.
 */

import type { Reactivity } from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import type * as Statement from "@effect/sql/Statement"
import * as Effect from "effect/Effect"
import { dialectOf } from "../domain/Dialect.js"
import * as Statements from "../process/Statements.js"
import * as Gate from "./Gate.js"
import { Lease } from "./Lease.js"

/** A reader of whatever `sql` reaches. It waits for the same connections as `sql` does. */
export const make = (sql: SqlClient.SqlClient): Effect.Effect<SqlClient.SqlClient, never, Reactivity> => {
  const dialect = dialectOf(sql)
  const acquirer = dialect === "sqlite" ? sqlite(sql.reserve) : postgres(sql.reserve)
  const nothing = "SELECT 1"
  return SqlClient.make({
    acquirer,
    transactionAcquirer: acquirer,
    compiler: compilerOf(sql),
    // A lease is a transaction already.
    beginTransaction: nothing,
    commit: nothing,
    rollback: nothing,
    spanAttributes: []
  })
}

/** What `sql` compiles its statements with: each of them carries it, which their type leaves out. */
const compilerOf = (sql: SqlClient.SqlClient): Statement.Compiler =>
  (sql.unsafe("") as unknown as { readonly compiler: Statement.Compiler }).compiler

const postgres = (reserve: Connection.Acquirer): Connection.Acquirer =>
  Effect.flatMap(reserve, (connection) =>
    Effect.as(
      Effect.acquireRelease(
        connection.executeRaw("BEGIN READ ONLY; SELECT 1", []),
        () => Effect.ignore(connection.executeRaw("ROLLBACK", []))
      ),
      new Lease(connection, "pg", Effect.succeed(true))
    ))

const sqlite = (reserve: Connection.Acquirer): Connection.Acquirer =>
  Effect.flatMap(reserve, (connection) => {
    const send = (text: string) => connection.executeUnprepared(text, [], undefined)
    return Effect.as(
      Effect.acquireRelease(
        Effect.zipRight(send("PRAGMA query_only = ON"), send("BEGIN")),
        () => Effect.ignore(Effect.zipRight(Effect.ignore(send("ROLLBACK")), send("PRAGMA query_only = OFF")))
      ),
      Gate.make(new Lease(connection, "sqlite", Effect.succeed(true)), queriesOnly)
    )
  })

/** The first words of what SQLite may be sent. A savepoint is how `sql.withTransaction` makes a part inside another. */
const allowed: ReadonlySet<string> = new Set([
  "SELECT",
  "WITH",
  "VALUES",
  "EXPLAIN",
  "SAVEPOINT",
  "RELEASE",
  "ROLLBACK"
])

const queriesOnly: Gate.Admit = (text, _, send) =>
  Effect.suspend(() => isQuery(text) ? send(text) : Effect.fail(refusal(text)))

const isQuery = (text: string): boolean =>
  Statements.split(text, "sqlite").every(({ words }) => allowed.has(words[0] ?? ""))

const refusal = (text: string) => {
  const reason = "a query of a namespace may only read"
  const cause = Object.assign(new Error(`${JSON.stringify(text.trim().slice(0, 80))} was refused: ${reason}`), {
    code: "SQLITE_AUTH"
  })
  return new SqlError({ message: reason, cause })
}
