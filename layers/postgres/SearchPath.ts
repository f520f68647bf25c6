/**
 * The search path: which schema the unqualified names of a pooled session mean, so that it is set only when it differs.
 *
 *     lease ─┬ known to be the right one ──▶ nothing to send
 *            └ another, or not known ──────▶ SET search_path
 *
 * PostgreSQL 18 and later tell what the path is, whatever has changed it. Of an older server nothing is known for sure, since
 * a function may have changed it: a lease for a namespace always sets it there, along with its first statement, and a text
 * that speaks of it counts as a change.
 *
 * The path of a namespace is its schema and then the session's temporary tables, which would otherwise come first and hide
 * those of the next namespace. `public` is not on it, so that what is left there by others means nothing here: name what an
 * extension put there in full, `public.similarity(…)`.
 */

import type * as Pg from "pg"

/** The schema of a namespace; `undefined` stands for the path that sessions begin with. */
export type Schema = string | undefined

/** The path of a schema, as the server shows it too; places need no quoting. */
export const pathOf = (schema: string): string => `${schema}, pg_temp`

/** What sets it. */
export const setting = (schema: Schema): string =>
  schema === undefined ? "RESET search_path" : `SET search_path = ${pathOf(schema)}`

/** What is known of the sessions of a pool. */
export interface SearchPath {
  /** Has the session watched from its start on. */
  readonly watch: (client: Pg.Client) => void
  /** Whether a lease for `schema` may begin as it is. */
  readonly isAt: (client: Pg.Client, schema: Schema) => boolean
  /** Whether a lease that began there is there still, as far as can be told without asking. */
  readonly isStillAt: (client: Pg.Client, schema: Schema) => boolean
  /** The session has been told to set it, and has answered. */
  readonly settle: (client: Pg.Client, schema: Schema) => void
  /** The session is sent a statement. */
  readonly sent: (client: Pg.Client, text: string) => void
}

interface Known {
  /** What was set; `unknown` once something may have changed it. */
  schema: Schema | typeof unknown
  /** What the server says, where it does, and what it said first. */
  reported: string | undefined
  initial: string | undefined
}

const unknown = Symbol("unknown")
const changing = /search_path|set_config|discard|reset/i

/** Nothing is known yet. */
export const make = (): SearchPath => {
  const sessions = new WeakMap<Pg.Client, Known>()
  const of = (client: Pg.Client): Known => {
    const known = sessions.get(client) ?? { schema: undefined, reported: undefined, initial: undefined }
    sessions.set(client, known)
    return known
  }
  return {
    watch: (client) => {
      const known = of(client)
      client.connection.on("parameterStatus", ({ parameterName, parameterValue }: Report) => {
        if (parameterName !== "search_path") return
        known.reported = parameterValue
        known.initial ??= parameterValue
      })
    },
    isAt: (client, schema) => {
      const known = of(client)
      return known.reported === undefined ? schema === undefined && known.schema === schema : isReported(known, schema)
    },
    isStillAt: (client, schema) => {
      const known = of(client)
      return known.reported === undefined ? known.schema === schema : isReported(known, schema)
    },
    settle: (client, schema) => void (of(client).schema = schema),
    sent: (client, text) => {
      if (changing.test(text)) of(client).schema = unknown
    }
  }
}

const isReported = ({ initial, reported }: Known, schema: Schema): boolean =>
  reported === (schema === undefined ? initial : pathOf(schema))

interface Report {
  readonly parameterName: string
  readonly parameterValue: string
}
