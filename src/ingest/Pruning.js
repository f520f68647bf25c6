/**
 * Pruning: the text of a line without the state that its operations carry, which no envelope reads, and which is most of what
 * is recorded.
 *
 *     { …, "state": {…}, "operations": [{ …, "state": {…}, "previousState": {…} }] }
 *     { …, "state": null, "operations": [{ … }] }
 *
 * Invariants: `Envelope.decode` makes the same of the value of both texts, a refusal in the same words too; a text of which that
 * is not certain is not pruned. That a strand has a state is kept, since its wire form is told by that.
 *
 * Plain JavaScript, as all that a thread of its own loads: see `PrunerWorker`.
 */

import * as Either from "effect/Either"

/**
 * The text without state; `undefined` where there is none to leave out, and where the text is better judged as it is.
 *
 * @param {string} text
 * @returns {string | undefined}
 */
export const prune = (text) => Either.getOrUndefined(Either.try(() => pruned(text)))

/**
 * Throws for what is not JSON, or nests too deep.
 *
 * @param {string} text
 */
const pruned = (text) => {
  /** @type {unknown} */
  const value = JSON.parse(text)
  return leaveOut(value) && isWritable(value) ? JSON.stringify(value) : undefined
}

/** @typedef {{ [name: string]: unknown }} Fields */

/**
 * Takes the state out of an envelope, and tells whether there was any.
 *
 * @param {unknown} value
 */
const leaveOut = (value) => {
  if (!Array.isArray(value)) return leaveOutOfOne(value)
  let hadAny = false
  for (const one of value) if (leaveOutOfOne(one)) hadAny = true
  return hadAny
}

/** @param {unknown} value */
const leaveOutOfOne = (value) => {
  if (!isFields(value)) return false
  const { context, operation, operations } = value
  if (isFields(operation) && isFields(context)) {
    const hadAny = leaveOutOfOperation(operation)
    return leaveOutOfOperation(context) || hadAny
  }
  return Array.isArray(operations) && leaveOutOfStrand(value, operations)
}

/**
 * @param {Fields} strand
 * @param {ReadonlyArray<unknown>} operations
 */
const leaveOutOfStrand = (strand, operations) => {
  let hadAny = false
  for (const operation of operations) if (isFields(operation) && leaveOutOfOperation(operation)) hadAny = true
  if (typeof strand["state"] === "object" && strand["state"] !== null) {
    strand["state"] = null
    hadAny = true
  }
  return leave(strand, "document") || hadAny
}

/** @param {Fields} operation */
const leaveOutOfOperation = (operation) => {
  const hadState = leave(operation, "state")
  const hadPrevious = leave(operation, "previousState")
  return leave(operation, "resultingState") || hadState || hadPrevious
}

/**
 * What is undefined is not written; deleting it would make the rest slow to write.
 *
 * @param {Fields} fields
 * @param {string} name
 */
const leave = (fields, name) => {
  if (fields[name] === undefined) return false
  fields[name] = undefined
  return true
}

/**
 * @param {unknown} value
 * @returns {value is Fields}
 */
const isFields = (value) => typeof value === "object" && value !== null && !Array.isArray(value)

/**
 * Whether a value is the same once it was written and read again: -0 and what overflowed to Infinity are not.
 *
 * @param {unknown} value
 * @returns {boolean}
 */
const isWritable = (value) => {
  if (typeof value === "number") return Number.isFinite(value) && !Object.is(value, -0)
  if (typeof value !== "object" || value === null) return true
  if (Array.isArray(value)) return value.every(isWritable)
  const fields = /** @type {Fields} */ (value)
  for (const name in fields) if (!isWritable(fields[name])) return false
  return true
}
