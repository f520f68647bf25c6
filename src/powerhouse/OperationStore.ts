/**
 * The operation store of the current reactor, as a source: its index of operations, read from the same database.
 *
 *     reactor.operation_index_operations      ordinal ─▶ 1 2 3 _ 5 6 …
 *                                                              └ a hole: read on once it is known what it is
 *
 * Invariants: a position is an ordinal, and each operation a strand of its own, so that the same strands are supplied each
 * time. Ordinals are handed out when a transaction writes and become visible when it commits, so a lower one may appear
 * after a higher one. Whoever has an ordinal holds a lock on the table until its transaction has ended. So when a hole is
 * seen below what is visible, those who hold such a lock are noted, and what lies above the hole is supplied once all of
 * them have let go: then the hole has been filled, or was rolled back and stays. A transaction that writes elsewhere, and
 * one that lasts for hours, holds up nothing. Old rows, vacuum and the wrap-around of transaction ids make no difference.
 *
 * What the index lacks is taken from the reactor's table `Operation`: the error of an operation that the document's own
 * reducer has refused. Operations that were appended again, and those of deleted documents, are supplied as they are there.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type { Fragment } from "@effect/sql/Statement"
import * as Chunk from "effect/Chunk"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { isClean } from "../domain/Name.js"
import * as Position from "../domain/Position.js"
import type { DocumentId, Strand } from "../domain/Strand.js"
import * as Envelope from "../ingest/Envelope.js"
import * as Filter from "../ingest/Filter.js"
import { MalformedSource, name as nameOf, Source, SourceShortened, SourceUnavailable } from "../ingest/Source.js"
import type { SourceError, SourceName } from "../ingest/Source.js"
import * as Watch from "../journal/Watch.js"
import * as Fault from "../process/Fault.js"
import * as Transaction from "../store/Transaction.js"

export interface Options {
  /** Names the cursors that follow it; choose it once and keep it. */
  readonly name: string
  /** The PostgreSQL schema of the reactor's tables. Default: `reactor`, which is the real one's. */
  readonly schema?: string | undefined
  /**
   * Which operations are supplied; all, unless it is said. The database leaves the others out. The index knows no drives:
   * a filter by `driveId` matches nothing.
   */
  readonly filter?: Omit<Filter.Filter, "driveId"> | undefined
  /** Default: `reactor`. */
  readonly filterDialect?: Filter.Dialect | undefined
  /** Ordinals looked at in one statement. Default: 1,000. */
  readonly page?: number | undefined
  /** How long to wait before looking again, in milliseconds, doubling from `minMillis`. Default: 5 ms to 1 second. */
  readonly pauses?: Watch.Pauses | undefined
}

/** The source, over the `SqlClient` of the context: PostgreSQL's primary, or a PGlite that is the reactor's own. */
export const layer = (options: Options): Layer.Layer<Source, never, SqlClient.SqlClient> =>
  Layer.scoped(Source, make(options))

/** {@link layer} without the layer. Throws a `ParseError` when the name is empty, too long or not clean text. */
export const make = (
  options: Options
): Effect.Effect<Context.Tag.Service<Source>, never, SqlClient.SqlClient | Scope.Scope> => {
  const name = nameOf(options.name)
  return Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const store: Store = {
      deniedReason: yield* Effect.cached(Effect.suspend(() => deniedReasonOf(store))),
      sql,
      name,
      schema: options.schema ?? "reactor",
      constraints: Filter.constraints(options.filter ?? Filter.all, options.filterDialect ?? "reactor"),
      page: Math.max(1, options.page ?? 1_000),
      pauses: options.pauses ?? Watch.pauses
    }
    const watch = yield* Watch.make(end(store), Stream.never, store.pauses)
    return {
      name,
      strands: (after) => follow(store, watch.beyond, after),
      head: Effect.map(end(store), Option.some),
      document: (documentId, through) => ofDocument(store, documentId, through)
    }
  })
}

interface Store {
  readonly sql: SqlClient.SqlClient
  /** Where the index says why the reactor has denied an operation. */
  readonly deniedReason: Effect.Effect<Fragment, SourceError>
  readonly name: SourceName
  readonly schema: string
  readonly constraints: ReadonlyArray<Filter.Constraint>
  readonly page: number
  readonly pauses: Watch.Pauses
}

/** Portion after portion, with a turn for others after each; waits whenever there is no more. */
const follow = (store: Store, beyond: Watch.Beyond, after: Position.Position): Stream.Stream<Strand, SourceError> =>
  Stream.suspend(() => {
    let at = after
    const next: Effect.Effect<Chunk.Chunk<Strand>, SourceError> = Effect.flatMap(
      Effect.suspend(() => portion(store, at)),
      ({ strands, through }) => {
        if (through === at) return Effect.zipRight(beyond(at), next)
        at = through
        return Effect.as(Transaction.turn, Chunk.unsafeFromArray(strands))
      }
    )
    return Stream.concat(Stream.drain(Stream.fromEffect(notBeyond(store, after))), Stream.repeatEffectChunk(next))
  })

/** A position that was once supplied and is above all that there is means that this is not the store that supplied it. */
const notBeyond = (store: Store, after: Position.Position): Effect.Effect<void, SourceError> =>
  Effect.flatMap(end(store), (last) =>
    after <= last ? Effect.void : new SourceShortened({
      source: store.name,
      after,
      reason: `the store ends at ${last}: its database was put back to an earlier time, or this is another one`
    }))

/** What is above a position and can have no predecessor any more. */
interface Portion {
  readonly strands: ReadonlyArray<Strand>
  /** How far that is. */
  readonly through: Position.Position
}

/** The operations up to the first hole; where there is a hole at once, those of a page once the hole is settled. */
const portion = (store: Store, after: Position.Position): Effect.Effect<Portion, SourceError> =>
  Effect.gen(function*() {
    const seen = yield* look(store, after)
    if (seen.last === after) return { strands: [], through: after }
    if (seen.unbroken > after) return yield* read(store, after, seen.unbroken)
    yield* settle(store)
    return yield* read(store, after, seen.last)
  })

interface Sight {
  /** The highest ordinal of the page; the position looked from where there is none. */
  readonly last: Position.Position
  /** The highest with all below it. */
  readonly unbroken: Position.Position
}

const look = (store: Store, after: Position.Position): Effect.Effect<Sight, SourceError> =>
  Effect.map(
    ask(store, ({ page, sql }) =>
      sql<{ readonly last: string | null; readonly unbroken: string | null; readonly is_dirty: boolean }>`
        SELECT CAST(MAX(ordinal) AS TEXT) AS last,
          CAST(MAX(ordinal) FILTER (WHERE ordinal = CAST(${after} AS BIGINT) + place) AS TEXT) AS unbroken, ${
        dirty(sql)
      }
        FROM (
          SELECT CAST(ordinal AS BIGINT) AS ordinal, ROW_NUMBER() OVER in_order AS place,
            SUM(pg_column_size(action)) OVER in_order - pg_column_size(action) AS bytes_before
          FROM (SELECT ordinal, action FROM ${
        index(store)
      } WHERE ordinal > CAST(${after} AS BIGINT) ORDER BY ordinal LIMIT ${page}) AS i
          WINDOW in_order AS (ORDER BY ordinal)
        ) AS seen
        WHERE bytes_before < ${pageBytesMax}`),
    ([row]) => ({
      last: positionOf(row?.last, after),
      unbroken: positionOf(row?.unbroken, after)
    })
  )

/** Bytes of actions in a portion, as they are stored; the operation that reaches the bound may exceed it. */
const pageBytesMax = 4 * 1024 * 1024

const positionOf = (text: string | null | undefined, otherwise: Position.Position): Position.Position =>
  text === null || text === undefined ? otherwise : Position.fromSql(text)

/**
 * Waits until everyone who was writing when it is called has ended. A hole that was seen before is settled then. A server
 * that only follows another one does not know who writes.
 */
const settle = (store: Store): Effect.Effect<void, SourceError> =>
  Effect.gen(function*() {
    let pauseMillis = store.pauses.minMillis
    let writing = yield* writers(store)
    while (writing.length > 0) {
      yield* Effect.sleep(pauseMillis)
      pauseMillis = Math.min(2 * pauseMillis, store.pauses.maxMillis)
      const still = new Set(yield* writers(store))
      writing = writing.filter((one) => still.has(one))
    }
  })

/** The transactions that hold a lock by which they may have written, or may yet write, to the index. */
const writers = (store: Store): Effect.Effect<ReadonlyArray<string>, SourceError> =>
  Effect.flatMap(
    ask(store, ({ schema, sql }) =>
      sql<{ readonly writer: string | null; readonly is_follower: boolean; readonly is_dirty: boolean }>`
        SELECT held.virtualtransaction AS writer, pg_is_in_recovery() AS is_follower, ${dirty(sql)}
        FROM (SELECT 1) AS always LEFT JOIN pg_catalog.pg_locks AS held
          ON held.locktype = 'relation' AND held.granted
          AND held.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
          AND held.relation = (
            SELECT c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = ${schema} AND c.relname = 'operation_index_operations'
          )
          AND held.mode = 'RowExclusiveLock'`),
    (rows) =>
      rows[0]?.is_follower === true
        ? new MalformedSource({
          source: store.name,
          at: "its server",
          reason: "it follows another server and does not know who writes there: read from that one"
        })
        : Effect.succeed(rows.flatMap(({ writer }) =>
          writer === null ? [] : [writer]
        ))
  )

/** The operations above one position up to another, of those that are wanted. */
const read = (
  store: Store,
  after: Position.Position,
  through: Position.Position
): Effect.Effect<Portion, SourceError> =>
  Effect.gen(function*() {
    const denied = yield* store.deniedReason
    const rows = yield* ask(store, ({ constraints, sql }) =>
      sql<Row>`
        SELECT ${columns(sql)}, ${denied} AS denied, ${dirty(sql)} FROM ${joined(store)}
        WHERE ${
        sql.and([
          sql`i.ordinal > CAST(${after} AS BIGINT) AND i.ordinal <= CAST(${through} AS BIGINT)`,
          ...constraints.map((constraint) => condition(sql, constraint))
        ])
      } ORDER BY i.ordinal`)
    const strands = yield* Effect.forEach(rows, (row) => strandsOf(store, row))
    return { strands: strands.flat(), through }
  })

/** All operations of one document. Up to a position that was supplied nothing is missing. */
const ofDocument = (
  store: Store,
  documentId: DocumentId,
  through: Position.Position
): Stream.Stream<Strand, SourceError> =>
  Stream.paginateChunkEffect(Position.origin, (after) =>
    Effect.gen(function*() {
      const denied = yield* store.deniedReason
      const rows = yield* ask(store, ({ constraints, page, sql }) =>
        sql<Row>`
          SELECT ${columns(sql)}, ${denied} AS denied, ${dirty(sql)} FROM ${joined(store)}
          WHERE ${
          sql.and([
            sql`i."documentId" = ${documentId} AND i.ordinal > CAST(${after} AS BIGINT) AND i.ordinal <= CAST(${through} AS BIGINT)`,
            ...constraints.map((constraint) => condition(sql, constraint))
          ])
        } ORDER BY i.ordinal LIMIT ${page}`)
      const strands = yield* Effect.forEach(rows, (row) => strandsOf(store, row))
      const last = rows.at(-1)
      return [
        Chunk.unsafeFromArray(strands.flat()),
        last === undefined || rows.length < store.page ? Option.none() : Option.some(Position.fromSql(last.ordinal))
      ]
    }))

/** The highest ordinal there is. */
const end = (store: Store): Effect.Effect<Position.Position, SourceError> =>
  Effect.map(
    ask(store, ({ sql }) =>
      sql<{ readonly last: string | null; readonly is_dirty: boolean }>`
        SELECT CAST(MAX(ordinal) AS TEXT) AS last, ${dirty(sql)} FROM ${index(store)}`),
    ([row]) => positionOf(row?.last, Position.origin)
  )

interface Row {
  readonly ordinal: string
  readonly op_id: string
  readonly document_id: string
  readonly document_type: string
  readonly scope: string
  readonly branch: string
  readonly op_index: number
  readonly skip: number
  readonly hash: string
  readonly timestamp: string
  readonly action: string
  readonly error: string | null
  readonly denied: string | null
  readonly is_dirty: boolean
}

const columns = (sql: SqlClient.SqlClient): Fragment =>
  sql.literal(`CAST(i.ordinal AS TEXT) AS ordinal, i."opId" AS op_id, i."documentId" AS document_id,
    i."documentType" AS document_type, i.scope, i.branch, i."index" AS op_index, i.skip, i.hash,
    i."timestampUtcMs" AS "timestamp", CAST(i.action AS TEXT) AS action, o.error`)

/** The column came with a later reactor than the rest. */
const deniedReasonOf = (store: Store): Effect.Effect<Fragment, SourceError> =>
  Effect.map(
    ask(store, ({ schema, sql }) =>
      sql<{ readonly found: number; readonly is_dirty: boolean }>`
        SELECT CAST(COUNT(*) AS INTEGER) AS found, ${dirty(sql)} FROM information_schema.columns
        WHERE table_schema = ${schema} AND table_name = 'operation_index_operations' AND column_name = 'deniedReason'`),
    ([row]) => store.sql.literal(row?.found === 1 ? `i."deniedReason"` : "CAST(NULL AS TEXT)")
  )

const index = ({ schema, sql }: Store): Fragment => sql.literal(`${quoted(schema)}.operation_index_operations`)

const joined = ({ schema, sql }: Store): Fragment =>
  sql.literal(`${quoted(schema)}.operation_index_operations AS i LEFT JOIN ${quoted(schema)}."Operation" AS o
    ON o."documentId" = i."documentId" AND o.scope = i.scope AND o.branch = i.branch AND o."index" = i."index"
    AND o."opId" = i."opId"`)

/** A schema is one name, also one with a dot in it. */
const quoted = (identifier: string): string => `"${identifier.replaceAll("\"", "\"\"")}"`

/**
 * True inside a transaction that has written something. No statement of ours is in one, except where the reactor's own
 * connection is ours, as with a PGlite: there its transaction may be open, and what is seen may never be committed.
 */
const dirty = (sql: SqlClient.SqlClient): Fragment =>
  sql.literal("pg_current_xact_id_if_assigned() IS NOT NULL AS is_dirty")

const columnOf = {
  documentType: `i."documentType"`,
  documentId: `i."documentId"`,
  scope: "i.scope",
  branch: "i.branch",
  driveId: "CAST(NULL AS TEXT)"
} as const

/** A name that is not clean was never stored, and PostgreSQL would refuse to be asked for it. */
const condition = (sql: SqlClient.SqlClient, { field, values }: Filter.Constraint): Fragment =>
  sql`${sql.literal(columnOf[field])} = ANY(ARRAY(SELECT json_array_elements_text(CAST(${
    JSON.stringify(Array.from(values).filter(isClean))
  } AS json))))`

/** What PostgreSQL holds as `jsonb` is JSON; whether it is an operation is for the envelope to say. */
const strandsOf = (store: Store, row: Row): Effect.Effect<ReadonlyArray<Strand>, MalformedSource> => {
  const position = Position.fromSql(row.ordinal)
  const value = {
    operation: {
      id: row.op_id,
      index: row.op_index,
      skip: row.skip,
      hash: row.hash,
      timestampUtcMs: row.timestamp,
      error: row.error ?? row.denied,
      action: JSON.parse(row.action) as unknown
    },
    context: {
      documentId: row.document_id,
      documentType: row.document_type,
      scope: row.scope,
      branch: row.branch
    }
  }
  return Either.match(Envelope.decode([value], row.action.length), {
    onLeft: ({ field, reason }) =>
      new MalformedSource({ source: store.name, at: `ordinal ${row.ordinal}, ${field}`, reason }),
    onRight: (strands) => Effect.succeed(strands.map((strand) => ({ position, ...strand })))
  })
}

/** Asks on no connection that a transaction of ours holds, and again while somebody else's is open on it. */
const ask = <A extends { readonly is_dirty: boolean }>(
  store: Store,
  question: (store: Store) => Effect.Effect<ReadonlyArray<A>, SqlError>
): Effect.Effect<ReadonlyArray<A>, SourceError> =>
  store.sql.onDialectOrElse({
    pg: () =>
      Transaction.outside(question(store)).pipe(
        Effect.mapError((failure) => sourceError(store, failure)),
        Effect.flatMap((rows) =>
          rows[0]?.is_dirty === true
            ? Effect.zipRight(Effect.sleep(store.pauses.minMillis), ask(store, question))
            : Effect.succeed(rows)
        )
      ),
    orElse: () =>
      new MalformedSource({ source: store.name, at: "its database", reason: "the reactor stores in PostgreSQL only" })
  })

/**
 * What the reader cannot wait out is lasting: no table, or no right to read it. On a PGlite somebody else's transaction may
 * have failed and not be rolled back yet.
 */
const sourceError = ({ name }: Store, failure: SqlError): SourceError =>
  Fault.isPassing(failure) || Fault.codeOf(failure) === "25P02"
    ? new SourceUnavailable({ source: name, reason: Fault.describe(failure), cause: failure })
    : new MalformedSource({ source: name, at: "its tables", reason: Fault.describe(failure), cause: failure })
