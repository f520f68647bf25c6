/**
 * An operation: one recorded change to a document.
 *
 * Invariants: `index` counts within the document's scope and branch and only grows; an operation with `skip` n supersedes
 * the n indexes before its own; (document, scope, branch, index, skip, hash) identifies it, `id` does not, since the real
 * system gives a re-appended operation its old id. `input` is whatever the producer sent and is decoded only where a
 * handler wants it.
 */

import * as Schema from "effect/Schema"
import { isClean, Received } from "./Name.js"

/** The largest index, 2^31 - 1: both databases hold it in 32 bits. */
export const indexMax = 2_147_483_647

/** The largest skip. Longer histories than this are not taken back in one operation by the real system. */
export const skipMax = 1_000_000

export const Index = Schema.Int.pipe(Schema.between(0, indexMax))
export const Skip = Schema.Int.pipe(Schema.between(0, skipMax))
export const OperationType = Received.pipe(Schema.brand("OperationType"))
export type OperationType = typeof OperationType.Type

/** ISO 8601 in UTC, as the real system writes it: `2026-11-21T17:27:02.007Z`. */
export const Timestamp = Schema.String.pipe(
  Schema.pattern(/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z$/),
  Schema.filter((text) => isInstant(text) || "an instant that exists"),
  Schema.brand("Timestamp")
)
export type Timestamp = typeof Timestamp.Type

/** Parsing alone takes 30 February for 2 March, which PostgreSQL refuses. */
const isInstant = (text: string): boolean => {
  const [year = 0, month = 0, day = 0] = text.slice(0, "2026-11-21".length).split("-").map(Number)
  const isLeap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)
  const days = month === 2 ? (isLeap ? 29 : 28) : [4, 6, 9, 11].includes(month) ? 30 : 31
  return day <= days && !Number.isNaN(Date.parse(text))
}

/** Text without NUL and lone surrogates, so that both databases store it as it is. */
export const Storable = Schema.String.pipe(Schema.filter((text) => textFlaw(text) ?? true))

export const Operation = Schema.Struct({
  id: Storable.pipe(Schema.maxLength(512)),
  index: Index,
  skip: Skip,
  type: OperationType,
  timestamp: Timestamp,
  hash: Storable.pipe(Schema.maxLength(512)),
  input: Schema.Unknown,
  /**
   * Where its author meant it to stand: behind the operation at this index, -1 for none, and the hash of that one. A
   * reactor that merges histories may have put it elsewhere.
   */
  prevOpIndex: Schema.optional(Schema.Int.pipe(Schema.between(-1, indexMax))),
  prevOpHash: Schema.optional(Storable.pipe(Schema.maxLength(512))),
  /** The id that its author gave the action behind it, where the generation tells actions from operations. */
  actionId: Schema.optional(Storable.pipe(Schema.maxLength(512))),
  /** Who signed the action, as it was sent: `{ user, app, signatures }`. It is handed on, and not verified. */
  signer: Schema.optional(Schema.Unknown),
  /** Present where the document's own reducer refused the operation: it is recorded, and it changed nothing. */
  error: Schema.optional(Storable),
  /**
   * Present where the operation can be placed but not trusted: what is wrong with it, in words. The engine raises it as a
   * `MalformedOperation` before a handler sees the operation.
   */
  flaw: Schema.optional(Schema.String)
})
export type Operation = typeof Operation.Type

/** How deep an input may nest. */
export const depthMax = 64

/**
 * What makes `input` unsafe to store, in words, or `undefined` when nothing does: nesting beyond {@link depthMax}, a
 * `__proto__` key, NUL, or a lone surrogate, which PostgreSQL refuses and SQLite stores, so that one operation would have
 * two outcomes.
 */
export const inputFlaw = (input: unknown, depth = 0): string | undefined => {
  if (typeof input === "string") return textFlaw(input)
  if (typeof input === "bigint" || typeof input === "function" || typeof input === "symbol") {
    return `holds a ${typeof input}, which JSON cannot carry`
  }
  if (typeof input !== "object" || input === null) return undefined
  if (depth >= depthMax) return `nests deeper than ${depthMax} levels`
  if (Array.isArray(input)) {
    for (const item of input) {
      const flaw = inputFlaw(item, depth + 1)
      if (flaw !== undefined) return flaw
    }
    return undefined
  }
  const fields = input as { readonly [key: string]: unknown }
  for (const key of Object.keys(fields)) {
    // Asked before it is read: an own key of this name is what is looked for.
    const flaw = key === "__proto__" ? "has a __proto__ key" : textFlaw(key) ?? inputFlaw(fields[key], depth + 1)
    if (flaw !== undefined) return flaw
  }
  return undefined
}

const textFlaw = (text: string): string | undefined => {
  if (text.includes("\u0000")) return "holds a NUL character"
  if (!text.isWellFormed()) return "holds a lone surrogate"
  return undefined
}

/** Text from outside, fit to stand in a message or a log line: control characters escaped, cut at 200 characters. */
export const quote = (text: string): string => {
  const shown = text.length > 200 ? `${text.slice(0, 200)}…` : text
  return isClean(shown) && !unprintable.test(shown)
    ? shown
    : JSON.stringify(shown).replace(unprintableAll, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`)
}

/** What JSON leaves as it is and a terminal might obey: DEL, C1 controls, line separators, changes of direction. */
const unprintable = /[\u007f-\u009f\u2028-\u202e\u2066-\u2069]/
const unprintableAll = new RegExp(unprintable, "g")
