/**
 * A worker: the program of a thread that has the file open a second time, and runs the transactions it is sent.
 *
 *     message: calls ──▶ run one after another ──┬ all fine ──▶ their answers, if anybody waits for them
 *                                                └ one fails ─▶ rolled back; this and whatever follows is answered with
 *                                                               that failure, until the next BEGIN or ROLLBACK
 *
 * Nothing is ever run outside a transaction, so nothing that follows a failure can be kept by itself.
 *
 * It is plain JavaScript, since a thread loads what it finds beside the module that starts it: from the sources where they
 * run as they are, and from what was built of them.
 *
 * @import { Call, Request, Response } from "./Thread.js"
 */

import Database from "better-sqlite3"
import { parentPort, workerData } from "node:worker_threads"
import { coded, codeOf } from "./Code.js"
import { preparing, resultOf, rowsOf, set, valuesOf } from "./Prepared.js"

const { filename, pragmas, timeout } = /** @type {import("./Thread.js").Start} */ (workerData)
const port = /** @type {import("node:worker_threads").MessagePort} */ (parentPort)

const db = new Database(filename, { fileMustExist: true, timeout }).defaultSafeIntegers(true)
for (const pragma of pragmas) set(db, pragma)
const prepare = preparing(db, () => {})

/** @type {Response["failure"]} */
let failure = undefined

port.on("message", (/** @type {Request | "close"} */ message) => {
  if (message === "close") {
    db.close()
    port.close()
    return
  }
  const { calls, id } = message
  if (failure !== undefined && isBoundary(calls[0])) failure = undefined
  /** @type {Array<unknown>} */
  const answers = []
  if (failure === undefined) {
    try {
      for (const call of calls) answers.push(answer(call))
    } catch (cause) {
      const error = coded(cause)
      failure = { code: codeOf(error), message: error instanceof Error ? error.message : String(error) }
      leave()
    }
  }
  if (id === 0) return
  /** @type {Response} */
  const response = failure === undefined
    ? { id, answers, hasBytes: answers.some(holdsBytes), failure }
    : { id, answers: [], hasBytes: false, failure }
  port.postMessage(response)
})

/** @param {Call | undefined} call */
const isBoundary = (call) => call !== undefined && (call.text === "ROLLBACK" || isBegin(call))

/** @param {Call} call */
const isBegin = ({ text }) => text === "BEGIN IMMEDIATE"

/**
 * @param {Call} call
 * @returns {unknown}
 */
const answer = (call) => {
  const { how, params, safeIntegers, text } = call
  if (!db.inTransaction && !isBegin(call)) {
    if (text === "ROLLBACK") return []
    throw Object.assign(new Error("there is no transaction on this thread"), { code: "SQLITE_MISUSE" })
  }
  const statement = prepare(text)
  return how === "rows"
    ? rowsOf(statement, params, safeIntegers)
    : how === "values"
    ? valuesOf(statement, params, safeIntegers)
    : resultOf(statement, params, safeIntegers)
}

const leave = () => {
  try {
    if (db.inTransaction) db.exec("ROLLBACK")
  } catch {
    // SQLite has rolled it back by itself, or the next BEGIN will tell.
  }
}

/**
 * Whether an answer has bytes in it: those arrive without being a `Buffer`.
 *
 * @param {unknown} rows
 */
const holdsBytes = (rows) =>
  Array.isArray(rows) && rows.some((row) => Object.values(row).some((value) => value instanceof Uint8Array))
