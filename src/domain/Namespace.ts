/**
 * A namespace: the unit of isolation. It has a place of its own, a PostgreSQL schema or an SQLite file, which holds its tables
 * and the framework's, so that it is backed up, granted, moved and dropped as a whole. Processors that share tables share a
 * namespace.
 *
 *     "Shop-EU"  ──▶  shop_eu_57616d230ada6db4214d
 *      name           place: a readable part, and the first 80 bits of the name's SHA-256
 *
 * Invariants: names are compared as they are written, so `Shop` and `shop` are two namespaces; a name is never an identifier
 * by itself, and its place is one that needs no quoting, is the same on every file system, fits PostgreSQL's 63 bytes, and
 * cannot be mistaken for what a database keeps for itself.
 */

import * as Schema from "effect/Schema"
import { createHash } from "node:crypto"

/** The framework's own entries in the history of migrations go by such a name. */
const reserved = /^processor_/i

/** ASCII letters, digits, `_` and `-`, a letter first, at most 128 characters; `processor_…` is the framework's own. */
export const Namespace = Schema.String.pipe(
  Schema.pattern(/^[A-Za-z][A-Za-z0-9_-]{0,127}$/),
  Schema.filter((name) => !reserved.test(name)),
  Schema.brand("Namespace"),
  Schema.annotations({
    message: (issue) => ({
      message: reserved.test(String(issue.actual))
        ? `the name ${JSON.stringify(issue.actual)} is reserved`
        : "a namespace is A-Z, a-z, 0-9, _ and -, a letter first, at most 128 characters; " +
          `got ${JSON.stringify(issue.actual)}`,
      override: true
    })
  })
)
export type Namespace = typeof Namespace.Type

/** Brands a literal; throws a `ParseError` when the name is not allowed. */
export const make: (name: string) => Namespace = Schema.decodeUnknownSync(Namespace)

/** Characters of the readable part, and hexadecimal digits of the hash. */
const readableMax = 36
const digits = 20

/** Where it is: the schema of this name, or the file of this name and `.db`. */
export const place = (namespace: Namespace): string => {
  const lower = namespace.toLowerCase().replaceAll("-", "_")
  const readable = /^(pg|sqlite)_/.test(`${lower}_`) ? `n_${lower}` : lower
  const hash = createHash("sha256").update(`effect-processors/namespace\u0000${namespace}`).digest("hex")
  return `${readable.slice(0, readableMax)}_${hash.slice(0, digits)}`
}
