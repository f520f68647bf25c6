/**
 * The registry: one row in every place that says whose it is.
 *
 *     read ─┬ the row of this namespace ──▶ done, after one statement
 *           ├ the row of another ─────────▶ NamespaceMismatch
 *           └ no row ─▶ lock ─▶ read again ─▶ nothing else is there ─▶ create, write the row
 *                                                 └ tables of somebody ─▶ NamespaceMismatch
 *
 * Invariant: nothing is written to a place before its row is known to be the right one. The row is what a hash alone cannot
 * promise: that a file which was copied, a schema which was renamed, or a name that collides is noticed.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { createHash } from "node:crypto"
import * as Namespace from "../domain/Namespace.js"
import * as Ledger from "./Ledger.js"
import * as Transaction from "./Transaction.js"

/** A place belongs to another namespace, or to nobody known: it holds tables and no row. Nothing in it was touched. */
export class NamespaceMismatch extends Data.TaggedError("NamespaceMismatch")<{
  readonly namespace: string
  /** The schema or file that the name stands for. */
  readonly place: string
  /** What its row says; `undefined` where there are tables and no row. */
  readonly found: { readonly namespace: string; readonly place: string } | undefined
}> {
  override get message(): string {
    const { found, namespace, place } = this
    const whose = found === undefined
      ? "holds tables of somebody who did not register; move them elsewhere, or use another name"
      : `belongs to namespace ${found.namespace}, in ${found.place}`
    const advice = found === undefined || found.namespace === namespace
      ? ""
      : "; Sqlite.layer holds one namespace, Sqlite.layerDirectory and Postgres.layer hold many"
    return `${place} cannot be the place of namespace ${namespace}: it ${whose}${advice}`
  }
}

/** The namespace was never opened for writing here: there is no schema, no file, or no row in it. */
export class NamespaceMissing extends Data.TaggedError("NamespaceMissing")<{
  readonly namespace: string
  readonly place: string
}> {
  override get message(): string {
    const { namespace, place } = this
    return `there is no namespace ${namespace} (${place}): a reactor, Migrations.layer or Namespace.within makes it`
  }
}

export interface Options {
  /**
   * What the name led to: on PostgreSQL the schema, to be created where there is none. `undefined` where a whole database was
   * given, which may hold tables of others.
   */
  readonly schema: string | undefined
}

/** Makes sure that the place which unqualified names reach belongs to `namespace`, and takes it if it is nobody's. */
export const claim = (
  namespace: Namespace.Namespace,
  options: Options
): Effect.Effect<void, NamespaceMismatch | Transaction.TransactionError, SqlClient.SqlClient> =>
  Effect.flatMap(rows, (found) => isOwn(namespace, found)).pipe(
    Effect.flatMap((known) => known ? Effect.void : Transaction.run(take(namespace, options)))
  )

/** Makes sure of the same without writing anything. */
export const check = (
  namespace: Namespace.Namespace
): Effect.Effect<void, NamespaceMismatch | NamespaceMissing | SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(rows, (found) => isOwn(namespace, found)).pipe(
    Effect.flatMap((known) =>
      known ? Effect.void : new NamespaceMissing({ namespace, place: Namespace.place(namespace) })
    )
  )

interface Row {
  readonly name: string
  readonly place: string
}

/** What is registered here; nothing where there is no registry. */
const rows: Effect.Effect<ReadonlyArray<Row>, SqlError, SqlClient.SqlClient> = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    sql<Row>`SELECT name, place FROM processor_namespace`.pipe(
      Effect.catchIf(Ledger.isNoTable, () => Effect.succeed([]))
    )
)

const isOwn = (
  namespace: Namespace.Namespace,
  found: ReadonlyArray<Row>
): Effect.Effect<boolean, NamespaceMismatch> => {
  const place = Namespace.place(namespace)
  const other = found.find((row) => row.name !== namespace || row.place !== place)
  return other === undefined
    ? Effect.succeed(found.length > 0)
    : new NamespaceMismatch({ namespace, place, found: { namespace: other.name, place: other.place } })
}

/** In a transaction, alone. A statement that fails would cost PostgreSQL's transaction, so what is there is asked first. */
const take = (namespace: Namespace.Namespace, { schema }: Options) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const place = Namespace.place(namespace)
    yield* lock(sql, schema)
    const tables = yield* tablesOf(sql, schema)
    if (tables.includes("processor_namespace") && (yield* Effect.flatMap(rows, (found) => isOwn(namespace, found)))) {
      return
    }
    // A whole database was given on purpose, with what is in it; a place that was found by its name was not.
    const isForeign = tables.some((table) => table !== "processor_namespace")
    if (schema !== undefined && isForeign) return yield* new NamespaceMismatch({ namespace, place, found: undefined })
    yield* createSchema(sql, schema)
    yield* sql`
      CREATE TABLE IF NOT EXISTS processor_namespace (
        name TEXT NOT NULL PRIMARY KEY,
        place TEXT NOT NULL,
        created_at_ms BIGINT NOT NULL
      )`
    const row = { name: namespace, place, created_at_ms: yield* Clock.currentTimeMillis }
    yield* sql`INSERT INTO processor_namespace ${sql.insert(row)}`
  })

/** Those who would take the same place come one after another. On SQLite the transaction is the lock. */
const lock = (sql: SqlClient.SqlClient, schema: string | undefined): Effect.Effect<unknown, SqlError> =>
  sql.onDialectOrElse<Effect.Effect<unknown, SqlError>, Effect.Effect<unknown, SqlError>>({
    sqlite: () => Effect.void,
    orElse: () => sql`SELECT pg_advisory_xact_lock(${lockKey(schema ?? "")})`
  })

const lockKey = (schema: string): bigint =>
  createHash("sha256").update(`effect-processors/registry\u0000${schema}`).digest().readBigInt64BE()

/** The tables and views of the place; none where the schema is not there. */
const tablesOf = (
  sql: SqlClient.SqlClient,
  schema: string | undefined
): Effect.Effect<ReadonlyArray<string>, SqlError> =>
  Effect.map(
    sql.onDialectOrElse({
      sqlite: () =>
        sql<{ readonly name: string }>`
          SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'`,
      orElse: () =>
        sql<{ readonly name: string }>`
          SELECT relname AS name FROM pg_catalog.pg_class
          WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND relnamespace =
            (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = coalesce(${schema ?? null}, current_schema()))`
    }),
    (found) => found.map(({ name }) => name)
  )

/** One that somebody made beforehand, with its grants, is taken as it is: this user may not be allowed to make any. */
const createSchema = (sql: SqlClient.SqlClient, schema: string | undefined): Effect.Effect<void, SqlError> =>
  Effect.gen(function*() {
    if (schema === undefined || sql.onDialectOrElse({ sqlite: () => true, orElse: () => false })) return
    const found = yield* sql`SELECT FROM pg_catalog.pg_namespace WHERE nspname = ${schema}`
    if (found.length === 0) yield* sql`CREATE SCHEMA ${sql(schema)}`
  })
