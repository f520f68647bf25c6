/**
 * The code of a failure: SQLite's own name for it, such as `SQLITE_BUSY`.
 */

/** The code that `cause` carries, or else the empty text. */
export const codeOf = (cause: unknown): string =>
  typeof cause === "object" && cause !== null && "code" in cause && typeof cause.code === "string" ? cause.code : ""

/** `cause` itself if it carries a code. An error of the driver alone gets the code SQLite would be nearest to. */
export const coded = (cause: unknown): unknown => {
  if (codeOf(cause) !== "" || !(cause instanceof Error)) return cause
  const code = /not open/.test(cause.message)
    ? "SQLITE_MISUSE"
    : cause instanceof RangeError
    ? "SQLITE_RANGE"
    : "SQLITE_MISMATCH"
  return Object.assign(new Error(cause.message, { cause }), { code })
}
