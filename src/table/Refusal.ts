/**
 * A refusal: a value that does not fit its column, or a row that cannot be, as the failure that a database would raise.
 *
 * It is an `SqlError` whose cause has a SQLSTATE as its code, so that it means to the engine what a database's own means.
 */

import { SqlError } from "@effect/sql/SqlError"

/** 22000: data exception. */
export const refused = (table: string, column: string, reason: string): SqlError =>
  make("22000", `${table}.${column} does not take it: ${reason}`)

/** 22003: numeric value out of range. */
export const outOfRange = (table: string, column: string): SqlError =>
  make("22003", `${table}.${column} cannot hold the sum`)

/** 23505: a row with this key is there. */
export const duplicate = (table: string): SqlError => make("23505", `${table} has a row with this key already`)

/** Whether it was raised here, and the database knows nothing of it. */
export const isRefused = (failure: SqlError): boolean => failure.cause instanceof Refused

class Refused extends Error {
  constructor(readonly code: string, message: string) {
    super(message)
  }
}

const make = (code: string, message: string): SqlError => new SqlError({ message, cause: new Refused(code, message) })
