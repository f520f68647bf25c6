/**
 * A migration: a step of a namespace's schema, there and back.
 *
 *     { "0001_todos": { up: Effect.gen(…), down: Effect.gen(…) } }        a record of effects
 *     { "0001_todos": Migration.fromSql({ up: "…", down: "…" }) }         of SQL text
 *     MigrationDirectory.load("migrations")                               of files
 *
 * Invariants: ids sort in the order in which the steps apply; a step is never edited once released. Each direction runs in
 * one transaction of its own, unless the step is declared not to.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { createHash } from "node:crypto"
import { dialectOf } from "../domain/Dialect.js"
import * as Statements from "./Statements.js"

export interface Migration {
  readonly up: Effect.Effect<unknown, SqlError, SqlClient.SqlClient>
  readonly down: Effect.Effect<unknown, SqlError, SqlClient.SqlClient>
  /**
   * `false` for what cannot run in a transaction, such as `CREATE INDEX CONCURRENTLY`. It is not all or nothing then: after
   * a failure or a crash the same direction runs again from its first statement, so write it to be run twice.
   */
  readonly transactional?: false | undefined
  /**
   * What the step was loaded from, as a hash: an edit of a step that was applied is an error. A record of effects has none,
   * since the source of a function is not stable (a compiler, a minifier or a coverage tool changes it): its edits are not
   * noticed, unless you give it one, such as `Migration.digestOf(text)` of whatever stands for it.
   */
  readonly digest?: Digest | undefined
  /** The key that signed it. */
  readonly signedBy?: string | undefined
}

/** What was loaded, as SHA-256 in lower-case hexadecimal: of the exact bytes, and of the text with LF line endings. */
export interface Digest {
  readonly sha256: string
  readonly textSha256: string
}

/** Migrations by id, `0001_name`: digits, `_` or `-`, then `a-z`, `0-9`, `_` or `-`. */
export type Migrations = { readonly [id: string]: Migration }

export const none: Migrations = {}

/** What an id looks like. */
export const idPattern: RegExp = /^\d{1,15}[_-][a-z0-9_-]{1,100}$/

/** An id is not `0001_name`, or two ids differ in nothing but `-`, `_` and leading zeros. */
export class MigrationMisnamed extends Data.TaggedError("MigrationMisnamed")<{
  /** `undefined` while it is being loaded. */
  readonly namespace?: string | undefined
  readonly name: string
  readonly reason: string
}> {
  override get message(): string {
    return `the migration ${JSON.stringify(this.name)} ${this.reason}`
  }
}

/** Two processors of one namespace bring the same id with different content. */
export class MigrationConflict extends Data.TaggedError("MigrationConflict")<{
  readonly namespace: string
  readonly id: string
}> {
  override get message(): string {
    return `two different migrations of namespace ${this.namespace} have the id ${this.id}`
  }
}

/** SQL text, the same for both dialects or one for each. */
export type SqlText = string | { readonly sqlite: string; readonly pg: string }

export interface SqlOptions {
  readonly up: SqlText
  readonly down: SqlText
  readonly transactional?: false | undefined
}

/** A migration of SQL text, any number of statements, which run one by one. Its digest is that of the texts. */
export const fromSql = (options: SqlOptions): Migration => ({
  up: runText(options.up),
  down: runText(options.down),
  transactional: options.transactional,
  digest: combine([...partsOf("up", options.up), ...partsOf("down", options.down)])
})

/** The digest of bytes or text. */
export const digestOf = (content: Uint8Array | string): Digest => {
  const bytes = typeof content === "string" ? Buffer.from(content) : Buffer.from(content)
  // One character per byte, so that bytes which are no UTF-8 keep their identity.
  const text = bytes.toString("latin1").replaceAll("\r\n", "\n")
  return { sha256: hash(bytes), textSha256: hash(Buffer.from(text, "latin1")) }
}

/**
 * The digest of several parts: SHA-256 of the lines `<sha256>  <name>`, sorted by name, as `sha256sum` would print them.
 * Of a single part it is that part's own.
 */
export const combine = (parts: ReadonlyArray<readonly [name: string, digest: Digest]>): Digest => {
  const [only] = parts
  if (only !== undefined && parts.length === 1) return only[1]
  const sorted = [...parts].sort(([a], [b]) => (a < b ? -1 : 1))
  const list = (field: keyof Digest) => sorted.map(([name, digest]) => `${digest[field]}  ${name}\n`).join("")
  return { sha256: hash(list("sha256")), textSha256: hash(list("textSha256")) }
}

/** Ids in the order in which they apply. */
export const order = (migrations: Migrations): ReadonlyArray<string> => Object.keys(migrations).sort(compare)

/** By number, then by name. */
export const compare = (a: string, b: string): number =>
  Number.parseInt(a, 10) - Number.parseInt(b, 10) || (a < b ? -1 : a > b ? 1 : 0)

/** The ids in their order, or what is wrong with one. */
export const check = (
  migrations: Migrations,
  namespace?: string
): Either.Either<ReadonlyArray<string>, MigrationMisnamed> => {
  const seen = new Map<string, string>()
  for (const id of Object.keys(migrations)) {
    if (!idPattern.test(id)) {
      return Either.left(new MigrationMisnamed({ namespace, name: id, reason: "is not named like 0001_name" }))
    }
    const folded = id.replace(/^0+(?=\d)/, "").replaceAll("-", "_")
    const other = seen.get(folded)
    if (other !== undefined) {
      return Either.left(
        new MigrationMisnamed({ namespace, name: id, reason: `cannot be told from ${JSON.stringify(other)}` })
      )
    }
    seen.set(folded, id)
  }
  return Either.right(order(migrations))
}

/** All of them in one; the same step may come from several. */
export const merge = (
  namespace: string,
  all: ReadonlyArray<Migrations>
): Either.Either<Migrations, MigrationConflict> => {
  const merged = new Map<string, Migration>()
  for (const [id, migration] of all.flatMap((migrations) => Object.entries(migrations))) {
    const other = merged.get(id)
    if (other !== undefined && !isSame(other, migration)) return Either.left(new MigrationConflict({ namespace, id }))
    merged.set(id, migration)
  }
  return Either.right(Object.fromEntries(merged))
}

const isSame = (a: Migration, b: Migration): boolean =>
  a === b || (a.up === b.up && a.down === b.down)
  || (a.digest !== undefined && a.digest.sha256 === b.digest?.sha256 && a.transactional === b.transactional)

const runText = (text: SqlText) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => {
    const dialect = dialectOf(sql)
    const statements = Statements.split(typeof text === "string" ? text : text[dialect], dialect)
    return Effect.forEach(statements, (statement) => sql.unsafe(statement.text), { discard: true })
  })

const partsOf = (direction: string, text: SqlText): ReadonlyArray<readonly [string, Digest]> =>
  typeof text === "string"
    ? [[`${direction}.sql`, digestOf(text)]]
    : [[`${direction}.sqlite.sql`, digestOf(text.sqlite)], [`${direction}.pg.sql`, digestOf(text.pg)]]

const hash = (content: string | Uint8Array): string => createHash("sha256").update(content).digest("hex")
