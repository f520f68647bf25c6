/**
 * The ledger: what was done to each namespace's schema, one row a migration, written in the migration's own transaction.
 *
 * | state     | means                                                                              |
 * | applied   | it is in the database, whole                                                       |
 * | started   | one outside a transaction is going up, or was when its process ended               |
 * | reverting | the same, coming down                                                              |
 * | failed    | it ended its own transaction: nobody knows what of it is in the database           |
 *
 * Invariant: a row is written under the namespace's lock only. On PostgreSQL that is an advisory lock, which ends with its
 * session; on SQLite it is the file's own write lock, which `BEGIN IMMEDIATE` takes. Both are gone when a process is killed.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { createHash } from "node:crypto"
import * as Fault from "../process/Fault.js"
import type * as Migration from "../process/Migration.js"
import * as Transaction from "./Transaction.js"

export type State = "applied" | "started" | "reverting" | "failed"

export interface Entry {
  readonly id: string
  /** Counts up in the order in which migrations went up in this namespace. */
  readonly ordinal: number
  readonly state: State
  /** Of what was applied; `undefined` for a record of effects without a digest. */
  readonly digest: Migration.Digest | undefined
  readonly signedBy: string | undefined
  /** `host:pid`. */
  readonly appliedBy: string
  readonly appliedAtMillis: number
  readonly durationMillis: number
  /** Who runs it outside a transaction, on SQLite; `undefined` once it is done. */
  readonly claim: string | undefined
}

/** Somebody else has the lock; ask again later. */
export class Busy extends Data.TaggedError("Busy")<{ readonly cause?: unknown }> {}

/** The namespace's lock was not free, or the database was away, for all the time that may be waited. */
export class MigrationLocked extends Data.TaggedError("MigrationLocked")<{
  readonly namespace: string
  readonly waitedMillis: number
  readonly cause: unknown
}> {
  override get message(): string {
    const cause = this.cause === undefined ? "another process is at it" : Fault.describe(this.cause)
    return `the migrations of namespace ${this.namespace} could not begin within ${this.waitedMillis} ms: ${cause}`
  }
}

const defaultLockTimeout = Duration.minutes(1)

/** Tries again while somebody else has the lock, for a minute or as long as is said. */
export const patiently = <A, E, R>(
  namespace: string,
  lockTimeout: Duration.DurationInput = defaultLockTimeout,
  attempt: Effect.Effect<A, E | Busy, R>
): Effect.Effect<A, Exclude<E, Busy> | MigrationLocked, R> => {
  const pauses = Schedule.spaced("25 millis").pipe(Schedule.jittered, Schedule.upTo(lockTimeout))
  return attempt.pipe(
    Effect.retry({ while: (failure) => failure instanceof Busy, schedule: pauses }),
    Effect.mapError((failure) =>
      failure instanceof Busy
        ? new MigrationLocked({ namespace, waitedMillis: Duration.toMillis(lockTimeout), cause: failure.cause })
        : failure as Exclude<E, Busy>
    )
  )
}

interface Row {
  readonly id: string
  readonly ordinal: number
  readonly state: State
  readonly sha256: string | null
  readonly text_sha256: string | null
  readonly signed_by: string | null
  readonly applied_by: string
  readonly applied_at_ms: number
  readonly duration_ms: number
  readonly claim: string | null
}

/** What is recorded, in the order in which it went up; `undefined` where there is no ledger yet. One statement, no lock. */
export const read = (
  namespace: string
): Effect.Effect<ReadonlyArray<Entry> | undefined, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql<Row>`
      SELECT id, ordinal, state, sha256, text_sha256, signed_by, applied_by, applied_at_ms, duration_ms, claim
      FROM processor_migration WHERE namespace = ${namespace} ORDER BY ordinal`).pipe(
      Effect.map((rows) => rows.map(entryOf)),
      Effect.catchIf(isNoTable, () => Effect.succeed(undefined))
    )

/** The same of several, by namespace; those without a record are left out. */
export const readMany = (
  namespaces: ReadonlyArray<string>
): Effect.Effect<ReadonlyMap<string, ReadonlyArray<Entry>> | undefined, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql<Row & { readonly namespace: string }>`
      SELECT namespace, id, ordinal, state, sha256, text_sha256, signed_by, applied_by, applied_at_ms, duration_ms, claim
      FROM processor_migration WHERE ${sql.in("namespace", namespaces)} ORDER BY ordinal`).pipe(
      Effect.map((rows) => {
        const entries = new Map<string, Array<Entry>>()
        for (const row of rows) {
          const known = entries.get(row.namespace)
          if (known === undefined) entries.set(row.namespace, [entryOf(row)])
          else known.push(entryOf(row))
        }
        return entries
      }),
      Effect.catchIf(isNoTable, () => Effect.succeed(undefined))
    )

/** Creates the framework's tables of this noun where they are missing. `Busy` while another process does so. */
export const create: Effect.Effect<void, Busy | Transaction.TransactionError, SqlClient.SqlClient> = Effect.gen(
  function*() {
    const sql = yield* SqlClient.SqlClient
    yield* Transaction.run(Effect.gen(function*() {
      yield* lock("")
      yield* sql`
        CREATE TABLE IF NOT EXISTS processor_migration (
          namespace TEXT NOT NULL,
          id TEXT NOT NULL,
          ordinal INTEGER NOT NULL,
          state TEXT NOT NULL,
          sha256 TEXT,
          text_sha256 TEXT,
          signed_by TEXT,
          applied_by TEXT NOT NULL,
          applied_at_ms BIGINT NOT NULL,
          duration_ms BIGINT NOT NULL,
          claim TEXT,
          PRIMARY KEY (namespace, id)
        )`
      yield* sql`
        CREATE TABLE IF NOT EXISTS processor_manifest (
          namespace TEXT NOT NULL PRIMARY KEY,
          counter BIGINT NOT NULL,
          sha256 TEXT NOT NULL,
          key_id TEXT NOT NULL,
          accepted_at_ms BIGINT NOT NULL
        )`
    }))
  }
)

/** Takes the namespace's lock until the transaction around it ends, or fails at once. On SQLite the transaction is the lock. */
export const lock = (namespace: string): Effect.Effect<void, Busy | SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql.onDialectOrElse({
      sqlite: () => Effect.void,
      orElse: () => answered(sql`SELECT pg_try_advisory_xact_lock(${lockKey(namespace)}) AS locked`)
    }))

/** `body` under the namespace's lock and in no transaction, on PostgreSQL: a session of its own holds the lock meanwhile. */
export const lockOutside = <A, E, R>(
  namespace: string,
  body: Effect.Effect<A, E, R>
): Effect.Effect<A, E | Busy | SqlError, R | SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.scoped(Effect.gen(function*() {
      const session = yield* sql.reserve
      const ask = (text: string) => session.execute(text, [lockKey(namespace)], undefined)
      yield* Effect.acquireRelease(
        answered(ask("SELECT pg_try_advisory_lock($1) AS locked")),
        () => Effect.ignoreLogged(ask("SELECT pg_advisory_unlock($1)"))
      )
      return yield* body
    })))

/** Writes a row, in place of the one that may be there. */
export const write = (namespace: string, entry: Entry): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const row: Row = {
      id: entry.id,
      ordinal: entry.ordinal,
      state: entry.state,
      sha256: entry.digest?.sha256 ?? null,
      text_sha256: entry.digest?.textSha256 ?? null,
      signed_by: entry.signedBy ?? null,
      applied_by: entry.appliedBy,
      applied_at_ms: entry.appliedAtMillis,
      duration_ms: entry.durationMillis,
      claim: entry.claim ?? null
    }
    yield* sql`
      INSERT INTO processor_migration ${sql.insert({ namespace, ...row })}
      ON CONFLICT (namespace, id) DO UPDATE SET
        ordinal = excluded.ordinal, state = excluded.state, sha256 = excluded.sha256,
        text_sha256 = excluded.text_sha256, signed_by = excluded.signed_by, applied_by = excluded.applied_by,
        applied_at_ms = excluded.applied_at_ms, duration_ms = excluded.duration_ms, claim = excluded.claim`
  })

/** Forgets a migration. */
export const remove = (namespace: string, id: string): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => Effect.asVoid(sql`DELETE FROM processor_migration WHERE namespace = ${namespace} AND id = ${id}`)
  )

/** Whether a statement failed because its table does not exist. */
export const isNoTable = (failure: SqlError): boolean =>
  Fault.codeOf(failure) === "42P01" || /no such table/.test(Fault.describe(failure))

/**
 * A place of its own in PostgreSQL's space of advisory locks: the first 8 bytes of a SHA-256. They belong to one database;
 * the empty namespace stands for the ledger's own table.
 */
const lockKey = (namespace: string): bigint =>
  createHash("sha256").update(`effect-processors/migrations\u0000${namespace}`).digest().readBigInt64BE()

const answered = <E, R>(
  statement: Effect.Effect<ReadonlyArray<unknown>, E, R>
): Effect.Effect<void, Busy | E, R> =>
  Effect.flatMap(statement, (rows) => {
    const [row] = rows as ReadonlyArray<{ readonly locked: boolean }>
    return row?.locked === true ? Effect.void : new Busy({})
  })

const entryOf = (row: Row): Entry => ({
  id: row.id,
  ordinal: row.ordinal,
  state: row.state,
  digest: row.sha256 === null || row.text_sha256 === null
    ? undefined
    : { sha256: row.sha256, textSha256: row.text_sha256 },
  signedBy: row.signed_by ?? undefined,
  appliedBy: row.applied_by,
  appliedAtMillis: row.applied_at_ms,
  durationMillis: row.duration_ms,
  claim: row.claim ?? undefined
})
