/**
 * A namespace: the unit of isolation, holding a processor's tables together with the framework's own.
 *
 * Invariant: its name is an SQL identifier that needs no quoting, fits PostgreSQL's 63 bytes with room for a suffix, and
 * cannot be mistaken for a schema that a database keeps for itself.
 */
import * as Schema from "effect/Schema"

const reserved = /^(pg_|sqlite_|information_schema$|processor_)/

/** `a-z`, `0-9` and `_`, a letter first, at most 48 characters, and no name that a database or this framework keeps. */
export const Namespace = Schema.String.pipe(
  Schema.pattern(/^[a-z][a-z0-9_]{0,47}$/, {
    message: (issue) =>
      `a namespace is a-z, 0-9 and _, a letter first, at most 48 characters; got ${JSON.stringify(issue.actual)}`
  }),
  Schema.filter((name) => !reserved.test(name) || `the name ${name} is reserved`),
  Schema.brand("Namespace")
)
export type Namespace = typeof Namespace.Type

/** Brands a literal; throws a `ParseError` when the name is not allowed. */
export const make: (name: string) => Namespace = Schema.decodeUnknownSync(Namespace)
