/**
 * A value: on its way into SQLite it means what it means on PostgreSQL, and on its way out no integer is rounded.
 *
 *     true ─▶ 1   undefined ─▶ NULL   Date ─▶ ISO text   1 ─▶ integer 1
 *     integer ─▶ number, beyond 2^53 ─▶ bigint
 *
 * Plain JavaScript, as all that a thread of its own loads: see `Worker`.
 */

/**
 * A parameter as the driver takes it. Throws a `TypeError` for a list or an object.
 *
 * @param {unknown} value
 * @returns {unknown}
 */
const bind = (value) => {
  switch (typeof value) {
    case "number":
      // The driver would bind 1 as 1.0, which a TEXT column keeps as "1.0".
      return Number.isSafeInteger(value) ? BigInt(value) : value
    case "boolean":
      return value ? 1n : 0n
    case "undefined":
      return null
    case "object": {
      if (value === null || ArrayBuffer.isView(value)) return value
      if (value instanceof Date) return value.toISOString()
      throw new TypeError("a parameter is a list or an object; give its members, or its JSON text")
    }
    default:
      return value
  }
}

/**
 * `bind` for every parameter, as one list: an argument each would be as many on the stack.
 *
 * @param {ReadonlyArray<unknown>} params
 * @returns {Array<unknown>}
 */
export const bindAll = (params) => {
  const bound = new Array(params.length)
  for (let i = 0; i < params.length; i++) bound[i] = bind(params[i])
  return bound
}

/**
 * An integer as a `number` where that is exact; anything else stays what it is.
 *
 * @param {unknown} value
 * @returns {unknown}
 */
export const narrow = (value) =>
  typeof value === "bigint" && value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER
    ? Number(value)
    : value

/**
 * `narrow` for every column, in place.
 *
 * @param {Record<string, unknown>} row
 * @returns {void}
 */
export const narrowRow = (row) => {
  for (const column in row) {
    if (typeof row[column] === "bigint") row[column] = narrow(row[column])
  }
}
