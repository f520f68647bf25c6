/**
 * The code of a failure: SQLite's own name for it, such as `SQLITE_BUSY`.
 *
 * Plain JavaScript, as all that a thread of its own loads: see `Worker`.
 */

/**
 * The code that `cause` carries, or else the empty text.
 *
 * @param {unknown} cause
 * @returns {string}
 */
export const codeOf = (cause) =>
  typeof cause === "object" && cause !== null && "code" in cause && typeof cause.code === "string" ? cause.code : ""

/**
 * `cause` itself if it carries a code. An error of the driver alone gets the code SQLite would be nearest to.
 *
 * @param {unknown} cause
 * @returns {unknown}
 */
export const coded = (cause) => {
  if (codeOf(cause) !== "" || !(cause instanceof Error)) return cause
  const code = /not open/.test(cause.message)
    ? "SQLITE_MISUSE"
    : cause instanceof RangeError
    ? "SQLITE_RANGE"
    : "SQLITE_MISMATCH"
  return Object.assign(new Error(cause.message, { cause }), { code })
}
