/**
 * The connection: statements on an open file, kept prepared, with values that mean what they mean on PostgreSQL.
 *
 *     statement ──▶ `Prepared` ──▶ rows
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
import type { Answer, Prompting } from "../../src/table/Prompt.js"
import { coded } from "./Code.js"
import { preparing, resultOf, rowsOf, valuesOf } from "./Prepared.js"
import * as Traits from "./Traits.js"

/**
 * The connection to `db`, for whoever holds the lease. `db` gives every integer as a `bigint`. What statements change about
 * it is noticed in `traits`.
 */
export const make = (db: Database.Database, traits: Traits.Traits = Traits.make()): Prompting => {
  const notice = (text: string) => Traits.notice(traits, text)
  const prepare = preparing(db, notice)
  const execute: Connection["execute"] = (text, params, transformRows) => {
    const rows = run((safeIntegers) => rowsOf(prepare(text), params, safeIntegers))
    return transformRows === undefined ? rows : Effect.map(rows, transformRows)
  }
  return {
    prompt: {
      answer: (text, params, safeIntegers): Answer => {
        try {
          return rowsOf(prepare(text), params, safeIntegers)
        } catch (cause) {
          return failed(cause)
        }
      },
      isInside: () => db.inTransaction
    },
    execute,
    executeRaw: (text, params) => run((safeIntegers) => resultOf(prepare(text), params, safeIntegers)),
    executeValues: (text, params) => run((safeIntegers) => valuesOf(prepare(text), params, safeIntegers)),
    executeUnprepared: (text, params, transformRows) => {
      const rows = run((safeIntegers) => {
        notice(text)
        return rowsOf(db.prepare(text), params, safeIntegers)
      })
      return transformRows === undefined ? rows : Effect.map(rows, transformRows)
    },
    executeStream: (text, params, transformRows) => Stream.fromIterableEffect(execute(text, params, transformRows))
  }
}

const run = <A>(use: (safeIntegers: boolean) => A): Effect.Effect<A, SqlError> =>
  Effect.withFiberRuntime((fiber) => {
    try {
      return Effect.succeed(use(Context.get(fiber.currentContext, SqlClient.SafeIntegers)))
    } catch (cause) {
      return Effect.fail(failed(cause))
    }
  })

const failed = (cause: unknown) => new SqlError({ cause: coded(cause), message: "Failed to execute statement" })
