/**
 * The connection: statements on an open file, kept prepared, with values that mean what they mean on PostgreSQL.
 *
 *     text ──▶ prepared ──▶ parameters bound ──▶ rows, or what changed ──▶ integers narrowed
 *
 * Every failure is an `SqlError` whose cause carries a `code`: SQLite's own, or for a refused parameter the nearest.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import type Database from "better-sqlite3"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { coded } from "./Code.js"
import { bindAll, narrow, narrowRow } from "./Value.js"

/** Statements kept prepared; the one prepared first goes first. */
const preparedMax = 500

/** The connection to `db`, for whoever holds the lease. `db` gives every integer as a `bigint`. */
export const make = (db: Database.Database): Connection => {
  const prepare = preparing(db)
  const execute: Connection["execute"] = (text, params, transformRows) => {
    const rows = run((safeIntegers) => rowsOf(prepare(text), params, safeIntegers))
    return transformRows === undefined ? rows : Effect.map(rows, transformRows)
  }
  return {
    execute,
    executeRaw: (text, params) => run((safeIntegers) => resultOf(prepare(text), params, safeIntegers)),
    executeValues: (text, params) => run((safeIntegers) => valuesOf(prepare(text), params, safeIntegers)),
    executeUnprepared: (text, params, transformRows) => {
      const rows = run((safeIntegers) => rowsOf(db.prepare(text), params, safeIntegers))
      return transformRows === undefined ? rows : Effect.map(rows, transformRows)
    },
    executeStream: (text, params, transformRows) => Stream.fromIterableEffect(execute(text, params, transformRows))
  }
}

/** Prepares a text the first time, and keeps at most `preparedMax` of them. */
const preparing = (db: Database.Database): (text: string) => Database.Statement => {
  const prepared = new Map<string, Database.Statement>()
  return (text) => {
    const found = prepared.get(text)
    if (found !== undefined) return found
    const statement = db.prepare(text)
    if (prepared.size >= preparedMax) {
      for (const oldest of prepared.keys()) {
        prepared.delete(oldest)
        break
      }
    }
    prepared.set(text, statement)
    return statement
  }
}

const run = <A>(use: (safeIntegers: boolean) => A): Effect.Effect<A, SqlError> =>
  Effect.withFiberRuntime((fiber) => {
    try {
      return Effect.succeed(use(Context.get(fiber.currentContext, SqlClient.SafeIntegers)))
    } catch (cause) {
      return Effect.fail(new SqlError({ cause: coded(cause), message: "Failed to execute statement" }))
    }
  })

type Params = ReadonlyArray<unknown>

const rowsOf = (statement: Database.Statement, params: Params, safeIntegers: boolean) => {
  const bound = bindAll(params)
  if (!statement.reader) {
    statement.run(bound)
    return []
  }
  const rows = statement.all(bound) as Array<Record<string, unknown>>
  if (!safeIntegers) rows.forEach(narrowRow)
  return rows
}

const resultOf = (statement: Database.Statement, params: Params, safeIntegers: boolean): unknown => {
  if (statement.reader) return rowsOf(statement, params, safeIntegers)
  const result = statement.run(bindAll(params))
  return safeIntegers ? result : { ...result, lastInsertRowid: narrow(result.lastInsertRowid) }
}

const valuesOf = (
  statement: Database.Statement,
  params: Params,
  safeIntegers: boolean
): ReadonlyArray<ReadonlyArray<unknown>> => {
  if (!statement.reader) {
    statement.run(bindAll(params))
    return []
  }
  try {
    const rows = statement.raw(true).all(bindAll(params)) as Array<Array<unknown>>
    return safeIntegers ? rows : rows.map((row) => row.map(narrow))
  } finally {
    statement.raw(false)
  }
}
