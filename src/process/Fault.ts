/**
 * A fault: what a failure means to the engine, whatever raised it.
 *
 * | class          | reaction                                              |
 * | unknown        | read the cursor again, then decide                    |
 * | infrastructure | wait and try again for ever; no attempt is counted    |
 * | conflict       | run the whole transaction again at once               |
 * | poison         | the processor's policy decides                        |
 * | drift          | halt this subscription: code and database disagree    |
 *
 * A SQL failure is told by its SQLSTATE (PostgreSQL, appendix A of its manual) or its result code (SQLite), found on the
 * driver's error behind the `SqlError`. A handler's own failure is poison, unless its `cause` is a SQL failure: an outage
 * that a handler wraps in an error of its own is still an outage.
 */

import type { SqlError } from "@effect/sql/SqlError"
import * as Predicate from "effect/Predicate"

export type Fault = "unknown" | "infrastructure" | "conflict" | "poison" | "drift"

/** What a failure can be told to be by itself; `unknown` is what only a COMMIT without an answer is. */
export type Told = Exclude<Fault, "unknown">

/** Sorts any failure. Never throws. */
export const classify = (failure: unknown): Told => {
  const sqlError = sqlErrorIn(failure)
  if (sqlError === undefined) return "poison"
  const driver = driverError(sqlError.cause)
  if (driver.code === undefined) return isBindFailure(driver.error) ? "poison" : "infrastructure"
  if (driver.code.startsWith("SQLITE_")) return classifySqlite(driver.code, driver.message)
  return sqlState.test(driver.code) ? classifySqlState(driver.code) : "infrastructure"
}

/** Whether trying again may cure it: the database is away, or the transaction lost against another one. */
export const isPassing = (failure: unknown): boolean => {
  const told = classify(failure)
  return told === "infrastructure" || told === "conflict"
}

/**
 * Whether a failed COMMIT may have committed all the same: the failure did not come from the database's own verdict.
 */
export const leavesCommitUnknown = (failure: unknown): boolean => {
  if (!isSqlError(failure)) return true
  const { code } = driverError(failure.cause)
  if (code === undefined) return true
  if (code.startsWith("SQLITE_")) return code.startsWith("SQLITE_IOERR")
  return !sqlState.test(code) || /^(08|57P0[123]|58)/.test(code)
}

/** The driver's own code for a failure: a SQLSTATE, an `SQLITE_…` result code or a system error such as `ECONNRESET`. */
export const codeOf = (failure: unknown): string | undefined =>
  isSqlError(failure) ? driverError(failure.cause).code : undefined

/** A failure in one line, fit for a log or a report: no row contents, which drivers put into `detail` and `where`. */
export const describe = (failure: unknown): string => {
  if (isSqlError(failure)) {
    const { code, message } = driverError(failure.cause)
    return [code, message === "" ? failure.message : message].filter((part) => part !== undefined).join(": ")
  }
  if (typeof failure !== "object" || failure === null) return String(failure)
  const tag = "_tag" in failure && typeof failure._tag === "string" ? failure._tag : undefined
  const message = "message" in failure && typeof failure.message === "string" ? failure.message : ""
  return message === "" ? [tag ?? "failure without a message", fieldsOf(failure)].join(" ").trimEnd() : message
}

/** The fields of a failure that has no message of its own, as JSON, at most 200 characters. */
const fieldsOf = (failure: object): string => {
  const fields = Object.entries(failure).filter(([key, value]) => key !== "_tag" && key !== "cause" && isPlain(value))
  return fields.length === 0 ? "" : JSON.stringify(Object.fromEntries(fields)).slice(0, 200)
}

const isPlain = (value: unknown): boolean =>
  typeof value === "string" || typeof value === "number" || typeof value === "boolean" || value === null

/** Told by its tag: a program may hold more than one copy of the module. */
const isSqlError = (failure: unknown): failure is SqlError => Predicate.isTagged(failure, "SqlError")

/** The SQL failure behind a failure, at most 8 causes deep. */
const sqlErrorIn = (failure: unknown): SqlError | undefined => {
  let error = failure
  for (let depth = 0; depth < 8; depth++) {
    if (isSqlError(error)) return error
    if (!Predicate.hasProperty(error, "cause")) return undefined
    error = error.cause
  }
  return undefined
}

/** A class of the SQL standard or of PostgreSQL, and not the system's `EPIPE`. */
const sqlState = /^(?:[0-9][0-9A-Z]|F0|HV|P0|XX)[0-9A-Z]{3}$/

const classifySqlState = (state: string): Told => {
  if (state === "40001" || state === "40P01") return "conflict"
  if (/^(21|22|23|44|54|P0)/.test(state)) return "poison"
  if (/^(08|53|58|28)/.test(state) || infrastructureStates.has(state)) return "infrastructure"
  return "drift"
}

/** Shut-downs and timeouts of the server, a lock that was not available, a read-only server, a database that is away. */
const infrastructureStates: ReadonlySet<string> = new Set([
  "57P01",
  "57P02",
  "57P03",
  "57P05",
  "57014",
  "55P03",
  "25006",
  "25P03",
  "25P04",
  "3D000"
])

const classifySqlite = (code: string, message: string): Told => {
  if (code === "SQLITE_BUSY_SNAPSHOT") return "conflict"
  if (/^SQLITE_(BUSY|LOCKED|FULL|IOERR|CANTOPEN|READONLY|NOMEM|PROTOCOL|INTERRUPT)/.test(code)) return "infrastructure"
  if (/^SQLITE_(CONSTRAINT|TOOBIG|MISMATCH|RANGE)/.test(code)) return "poison"
  // SQLITE_ERROR stands for a statement that cannot be compiled as well as for one that fails on its data.
  if (code === "SQLITE_ERROR") return compileFailure.test(message) ? "drift" : "poison"
  return "drift"
}

const compileFailure =
  /no such (table|column|function|module|index|savepoint)|syntax error|has no column|already exists|incomplete input|transaction|values for \d+ columns|values were supplied|unrecognized token/

const isBindFailure = (error: unknown): boolean =>
  (error instanceof TypeError || error instanceof RangeError) && !/not open/.test(error.message)

/** Follows `cause` until a driver's error with a code is found; at most 8 deep. */
const driverError = (
  cause: unknown
): { readonly error: unknown; readonly code: string | undefined; readonly message: string } => {
  let error = cause
  for (let depth = 0; depth < 8; depth++) {
    if (typeof error !== "object" || error === null) break
    if ("code" in error && typeof error.code === "string") {
      return { error, code: error.code, message: messageOf(error) }
    }
    const inner = "errors" in error && Array.isArray(error.errors)
      ? error.errors[0]
      : "cause" in error
      ? error.cause
      : undefined
    if (inner === undefined) break
    error = inner
  }
  return { error: cause, code: undefined, message: messageOf(cause) }
}

const messageOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "message" in error && typeof error.message === "string"
    ? error.message
    : ""
