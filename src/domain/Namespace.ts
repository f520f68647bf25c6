/**
 * A namespace: whose tables and migrations these are. Processors that share tables share a namespace.
 *
 * It keys the history of migrations. The tables themselves are where the `SqlClient` puts them: two namespaces of one
 * database must not both create a table of the same name.
 *
 * Invariant: its name is an SQL identifier that needs no quoting, fits PostgreSQL's 63 bytes with room for a suffix, and
 * cannot be mistaken for a schema that a database keeps for itself.
 */

import * as Schema from "effect/Schema"

const reserved = /^(pg_|sqlite_|information_schema$|processor_)/

/** `a-z`, `0-9` and `_`, a letter first, at most 48 characters, and no name that a database or this framework keeps. */
export const Namespace = Schema.String.pipe(
  Schema.pattern(/^[a-z][a-z0-9_]{0,47}$/),
  Schema.filter((name) => !reserved.test(name)),
  Schema.brand("Namespace"),
  Schema.annotations({
    message: (issue) => ({
      message: reserved.test(String(issue.actual))
        ? `the name ${JSON.stringify(issue.actual)} is reserved`
        : `a namespace is a-z, 0-9 and _, a letter first, at most 48 characters; got ${JSON.stringify(issue.actual)}`,
      override: true
    })
  })
)
export type Namespace = typeof Namespace.Type

/** Brands a literal; throws a `ParseError` when the name is not allowed. */
export const make: (name: string) => Namespace = Schema.decodeUnknownSync(Namespace)
