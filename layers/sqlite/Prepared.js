/**
 * Prepared statements: those of an open file, kept, and what comes of running one.
 *
 *     text ──▶ prepared ──▶ parameters bound ──▶ rows, or what changed ──▶ integers narrowed
 *
 * Plain JavaScript, as all that a thread of its own loads: see `Worker`.
 *
 * @import { Database, Statement } from "better-sqlite3"
 */

import { bindAll, narrow, narrowRow } from "./Value.js"

/**
 * Sets a pragma, and throws where it is not what it has to be then.
 *
 * @param {Database} db
 * @param {import("./DatabaseFile.js").Pragma} pragma
 * @returns {void}
 */
export const set = (db, { name, value, wanted }) => {
  db.pragma(`${name} = ${value}`)
  if (wanted === undefined) return
  const found = db.pragma(name, { simple: true })
  if (String(found) !== String(wanted)) throw new Error(`${name} is ${String(found)} and cannot be set to ${wanted}`)
}

/** Statements kept prepared; the one prepared first goes first. */
const preparedMax = 500

/**
 * Prepares a text the first time, and keeps at most `preparedMax` of them. `noticed` is told of each that is prepared.
 *
 * @param {Database} db
 * @param {(text: string) => void} noticed
 * @returns {(text: string) => Statement}
 */
export const preparing = (db, noticed) => {
  /** @type {Map<string, Statement>} */
  const prepared = new Map()
  return (text) => {
    const found = prepared.get(text)
    if (found !== undefined) return found
    noticed(text)
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

/**
 * The rows as records; none of a statement that returns none.
 *
 * @param {Statement} statement
 * @param {ReadonlyArray<unknown>} params
 * @param {boolean} safeIntegers
 * @returns {Array<Record<string, unknown>>}
 */
export const rowsOf = (statement, params, safeIntegers) => {
  const bound = bindAll(params)
  if (!statement.reader) {
    statement.run(bound)
    return []
  }
  const rows = /** @type {Array<Record<string, unknown>>} */ (statement.all(bound))
  if (!safeIntegers) rows.forEach(narrowRow)
  return rows
}

/**
 * The rows, or what a statement has changed that returns none.
 *
 * @param {Statement} statement
 * @param {ReadonlyArray<unknown>} params
 * @param {boolean} safeIntegers
 * @returns {unknown}
 */
export const resultOf = (statement, params, safeIntegers) => {
  if (statement.reader) return rowsOf(statement, params, safeIntegers)
  const result = statement.run(bindAll(params))
  return safeIntegers ? result : { ...result, lastInsertRowid: narrow(result.lastInsertRowid) }
}

/**
 * The rows as lists of their cells; none of a statement that returns none.
 *
 * @param {Statement} statement
 * @param {ReadonlyArray<unknown>} params
 * @param {boolean} safeIntegers
 * @returns {ReadonlyArray<ReadonlyArray<unknown>>}
 */
export const valuesOf = (statement, params, safeIntegers) => {
  if (!statement.reader) {
    statement.run(bindAll(params))
    return []
  }
  try {
    const rows = /** @type {Array<Array<unknown>>} */ (statement.raw(true).all(bindAll(params)))
    return safeIntegers ? rows : rows.map((row) => row.map(narrow))
  } finally {
    statement.raw(false)
  }
}
