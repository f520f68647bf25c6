/**
 * A letter: one operation set aside, with its cause, waiting for its document to be put right.
 *
 *     document ── letter 1 (cause) ── letter 2 (Queued) ── letter 3 (Queued) …     in the order of arrival
 *
 * Invariants: a document with letters takes no further operation, except one that fills the gap its letters wait behind;
 * a letter is written in the transaction that moves the cursor past its operation, and removed in the one that applies it.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Predicate from "effect/Predicate"
import type { Protocol } from "../domain/History.js"
import type { Operation } from "../domain/Operation.js"
import * as Position from "../domain/Position.js"
import * as Slice from "../domain/Slice.js"
import type { Branch, DocumentId, DocumentType, DriveId, Scope, Strand, Stream } from "../domain/Strand.js"
import { StrandGap } from "../process/Failure.js"
import * as Fault from "../process/Fault.js"
import type { Cursor, Key } from "./Cursors.js"
import type { StreamProgress } from "./Progress.js"
import * as Rows from "./Rows.js"
import type * as Slots from "./Slots.js"

/** The cause of a letter that only waits for the ones before it. */
export const queued = "Queued"

/** The cause of a letter that waits for operations before it which have not come. It leaves by itself when they do. */
export const gap = "StrandGap"

/** Whether a letter waits for more than other operations, so that its document waits for someone to put it right. */
export const blocks = (letter: Pick<Draft, "cause">): boolean => letter.cause !== queued && letter.cause !== gap

/** An operation to be set aside. */
export interface Draft {
  readonly strand: Strand
  readonly operation: Operation
  /** The failure's tag, {@link gap} or {@link queued}. */
  readonly cause: string
  /** The failure in words, or what it waits for. */
  readonly reason: string
}

export interface Letter extends Draft {
  /**
   * Grows in the order of arrival at its subscription, and so within a document. Never given to another letter. It is
   * n * 1,024 + the slice of the document, n counting from 1.
   */
  readonly ordinal: bigint
  /** How often trying it came to nothing: 0 when it only waits, the policy's own retries not counted. */
  readonly attempts: number
  readonly parkedAtMillis: number
}

/**
 * How a failure is kept in a letter. One of the handler's own that goes by a name which means waiting here is kept as
 * `Failure`, as is one without a tag: it blocks.
 */
export const causeOf = (failure: unknown): Pick<Draft, "cause" | "reason"> => {
  const tag = Predicate.hasProperty(failure, "_tag") ? failure._tag : undefined
  const isOurs = tag !== queued && (tag !== gap || failure instanceof StrandGap)
  return { cause: typeof tag === "string" && isOurs ? tag : "Failure", reason: Fault.describe(failure) }
}

/** The letters of one document, as far as a commit needs to know them. */
export class Queue {
  /** Whether a letter waits for more than missing operations, so that nothing may pass it. */
  isBlocked = false
  private readonly lanes: Array<Lane> = []
  private readonly known: Array<{ readonly stream: Place; readonly operation: Slots.Identity }> = []

  add(stream: Place, cause: string, from: number, last: number): void {
    if (blocks({ cause })) this.isBlocked = true
    const lane = this.find(stream)
    if (lane === undefined) {
      this.lanes.push({ stream, from, last })
    } else {
      lane.from = Math.min(lane.from, from)
      lane.last = Math.max(lane.last, last)
    }
  }

  /** Whether letters of this very stream wait for operations of it that have not come. */
  hasGapIn(stream: Standing): boolean {
    const lane = this.find(stream)
    return lane !== undefined && !stream.isOpen && lane.from > stream.head + 1
  }

  /** How far the stream has come, the letters included; `undefined` when the next operation begins it. */
  lastOf(stream: Standing): number | undefined {
    const lane = this.find(stream)
    return lane === undefined && stream.isOpen ? undefined : Math.max(stream.head, lane?.last ?? stream.head)
  }

  remember(stream: Place, operation: Slots.Identity): void {
    this.known.push({ stream, operation })
  }

  /** Whether this very operation is among the letters. */
  holds(stream: Place, operation: Slots.Identity): boolean {
    return this.known.some((each) =>
      isSame(each.stream, stream) && each.operation.index === operation.index &&
      each.operation.skip === operation.skip && each.operation.hash === operation.hash
    )
  }

  private find(stream: Place): Lane | undefined {
    return this.lanes.find((lane) => isSame(lane.stream, stream))
  }
}

/** A stream of the queue's document. */
type Place = { readonly [Part in "scope" | "branch"]: string }

/** How far it has come without the letters. */
type Standing = Place & Pick<StreamProgress, "head" | "isOpen">

const isSame = (a: Place, b: Place): boolean => a.scope === b.scope && a.branch === b.branch

/** The letters of one stream. */
interface Lane {
  readonly stream: Place
  /** The lowest index that any of them continues or takes back. */
  from: number
  /** The highest index of any of them. */
  last: number
}

/** The queues of the documents of `strands` that have letters, by document id. Two statements, the second only if any has. */
export const queues = (
  key: Key,
  strands: ReadonlyArray<Strand>
): Effect.Effect<Map<string, Queue>, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const found = new Map<string, Queue>()
    const summaries = yield* sql<{
      readonly document_id: string
      readonly scope: Scope
      readonly branch: Branch
      readonly cause: string
      readonly first_index: number
      readonly last_index: number
    }>`
      SELECT l.document_id, l.scope, l.branch, l.cause, MIN(l.op_index - l.op_skip) AS first_index,
        MAX(l.op_index) AS last_index
      FROM ${Rows.table(sql, "wanted", { document_id: "text" }, documents(strands))}
      CROSS JOIN processor_dead_letter AS l
      WHERE l.processor = ${key.processor} AND l.source = ${key.source} AND l.document_id = wanted.document_id
      GROUP BY l.document_id, l.scope, l.branch, l.cause`
    for (const row of summaries) {
      const queue = found.get(row.document_id) ?? new Queue()
      queue.add(row, row.cause, row.first_index, row.last_index)
      found.set(row.document_id, queue)
    }
    if (found.size === 0) return found
    const incoming = strands.filter((strand) => found.has(strand.documentId)).flatMap((strand) =>
      strand.operations.map((operation) => ({
        document_id: strand.documentId,
        scope: strand.scope,
        branch: strand.branch,
        op_index: operation.index,
        op_skip: operation.skip,
        op_hash: operation.hash
      }))
    )
    const known = yield* sql<typeof incoming[number]>`
      SELECT DISTINCT l.document_id, l.scope, l.branch, l.op_index, l.op_skip, l.op_hash
      FROM ${
      Rows.table(sql, "wanted", {
        document_id: "text",
        scope: "text",
        branch: "text",
        op_index: "integer",
        op_skip: "integer",
        op_hash: "text"
      }, incoming)
    }
      CROSS JOIN processor_dead_letter AS l
      WHERE l.processor = ${key.processor} AND l.source = ${key.source} AND l.document_id = wanted.document_id
        AND l.scope = wanted.scope AND l.branch = wanted.branch AND l.op_index = wanted.op_index
        AND l.op_skip = wanted.op_skip AND l.op_hash = wanted.op_hash`
    for (const row of known) {
      found.get(row.document_id)?.remember(row, {
        index: row.op_index,
        skip: row.op_skip,
        hash: row.op_hash
      })
    }
    return found
  })

/** Appends drafts, in order, behind all letters there ever were. One statement, or none. */
export const append = (
  held: Cursor,
  drafts: ReadonlyArray<Draft>
): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  drafts.length === 0 ? Effect.void : Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const now = yield* Clock.currentTimeMillis
    const rows = drafts.map((draft, i) => ({
      ordinal: String(ordinalOf(held.letters + BigInt(i + 1), draft.strand.documentId)),
      position: String(draft.strand.position),
      drive_id: draft.strand.driveId ?? null,
      document_id: draft.strand.documentId,
      document_type: draft.strand.documentType,
      scope: draft.strand.scope,
      branch: draft.strand.branch,
      op_index: draft.operation.index,
      op_skip: draft.operation.skip,
      op_hash: draft.operation.hash,
      protocol: draft.strand.protocol ?? 2,
      operation: textOf(draft.operation),
      cause: draft.cause,
      reason: clean(draft.reason)
    }))
    const columns = {
      ordinal: "text",
      position: "text",
      drive_id: "text",
      document_id: "text",
      document_type: "text",
      scope: "text",
      branch: "text",
      op_index: "integer",
      op_skip: "integer",
      op_hash: "text",
      protocol: "integer",
      operation: "text",
      cause: "text",
      reason: "text"
    } as const
    yield* sql`
      INSERT INTO processor_dead_letter
        (processor, source, ordinal, position, drive_id, document_id, document_type, scope, branch,
         op_index, op_skip, op_hash, protocol, operation, cause, reason, attempts, parked_at_ms)
      SELECT ${held.processor}, ${held.source}, CAST(ordinal AS BIGINT), CAST(position AS BIGINT),
        drive_id, document_id, document_type, scope, branch,
        op_index, op_skip, op_hash, protocol, operation, cause, reason,
        CASE WHEN cause IN (${queued}, ${gap}) THEN 0 ELSE 1 END, CAST(${now} AS BIGINT)
      FROM ${Rows.table(sql, "drafts", columns, rows)}
      WHERE TRUE`
  })

const ordinalOf = (n: bigint, documentId: string): bigint => n * BigInt(Slice.count) + BigInt(Slice.of(documentId))

/** The slice of the document of a letter. */
export const sliceOf = (ordinal: bigint): number => Number(ordinal % BigInt(Slice.count))

/**
 * Takes letters away: their operations were applied, left out or dropped. Returns how many there were; somebody else may
 * have taken some of them since they were read.
 */
export const remove = (
  key: Key,
  ordinals: ReadonlyArray<bigint>
): Effect.Effect<number, SqlError, SqlClient.SqlClient> =>
  ordinals.length === 0 ? Effect.succeed(0) : Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql`
      DELETE FROM processor_dead_letter
      WHERE processor = ${key.processor} AND source = ${key.source}
        AND ordinal IN (${chosen(sql, ordinals)})
      RETURNING ordinal`,
      (rows) => rows.length
    ))

/** Notes that a letter was tried again and what it failed with. */
export const failedAgain = (
  key: Key,
  ordinal: bigint,
  failure: unknown
): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => {
    const { cause, reason } = causeOf(failure)
    return Effect.asVoid(sql`
      UPDATE processor_dead_letter
      SET cause = ${cause}, reason = ${clean(reason)}, attempts = attempts + 1
      WHERE processor = ${key.processor} AND source = ${key.source} AND ordinal = ${ordinal}`)
  })

/** Which letters to read. */
export interface Selection {
  readonly documentId?: string | undefined
  readonly cause?: string | undefined
  readonly ordinal?: bigint | undefined
  readonly ordinals?: ReadonlyArray<bigint> | undefined
  /** At most so many, the first in the order of arrival; 1,000 when left out. */
  readonly limit?: number | undefined
}

interface Row {
  readonly ordinal: string
  readonly position: string
  readonly drive_id: DriveId | null
  readonly document_id: DocumentId
  readonly document_type: DocumentType
  readonly scope: Scope
  readonly branch: Branch
  readonly protocol: Protocol
  readonly operation: string
  readonly cause: string
  readonly reason: string
  readonly attempts: number
  readonly parked_at_ms: string
}

/** Reads letters in the order of arrival. */
export const read = (
  key: Key,
  selection: Selection = {}
): Effect.Effect<ReadonlyArray<Letter>, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<Row>`
        SELECT CAST(ordinal AS TEXT) AS ordinal, CAST(position AS TEXT) AS position, drive_id, document_id,
          document_type, scope, branch, protocol, operation, cause, reason, attempts, CAST(parked_at_ms AS TEXT) AS parked_at_ms
        FROM processor_dead_letter
        WHERE ${
        sql.and([
          sql`processor = ${key.processor}`,
          sql`source = ${key.source}`,
          ...(selection.documentId === undefined ? [] : [sql`document_id = ${selection.documentId}`]),
          ...(selection.ordinal === undefined ? [] : [sql`ordinal = ${selection.ordinal}`]),
          ...(selection.ordinals === undefined ? [] : [sql`ordinal IN (${chosen(sql, selection.ordinals)})`]),
          ...(selection.cause === undefined ? [] : [sql`cause = ${selection.cause}`])
        ])
      }
        ORDER BY processor_dead_letter.ordinal
        LIMIT ${selection.limit ?? 1_000}`,
      (rows) => rows.map(fromRow)
    ))

/** A letter without what it holds: enough to say when its turn is. */
export interface Header {
  readonly ordinal: bigint
  readonly cause: string
  readonly strand: Stream
  readonly operation: Slots.Identity
}

/** The headers of all letters of a document, in the order of arrival. */
export const headers = (
  key: Key,
  documentId: string
): Effect.Effect<ReadonlyArray<Header>, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<Omit<Row, "operation"> & { readonly op_index: number; readonly op_skip: number; readonly op_hash: string }>`
        SELECT CAST(ordinal AS TEXT) AS ordinal, document_id, scope, branch, cause, op_index, op_skip, op_hash
        FROM processor_dead_letter
        WHERE processor = ${key.processor} AND source = ${key.source} AND document_id = ${documentId}
        ORDER BY processor_dead_letter.ordinal`,
      (rows) =>
        rows.map((row) => ({
          ordinal: BigInt(row.ordinal),
          cause: row.cause,
          strand: { documentId: row.document_id, scope: row.scope, branch: row.branch },
          operation: { index: row.op_index, skip: row.op_skip, hash: row.op_hash }
        }))
    ))

/** The letters with these ordinals, as far as they are still there, in the order given. */
export const readAll = (
  key: Key,
  ordinals: ReadonlyArray<bigint>
): Effect.Effect<ReadonlyArray<Letter>, SqlError, SqlClient.SqlClient> =>
  ordinals.length === 0 ? Effect.succeed([]) : Effect.map(
    read(key, { ordinals, limit: ordinals.length }),
    (letters) => {
      const found = new Map(letters.map((letter) => [letter.ordinal, letter]))
      return ordinals.flatMap((ordinal) => found.get(ordinal) ?? [])
    }
  )

const chosen = (sql: SqlClient.SqlClient, ordinals: ReadonlyArray<bigint>) =>
  sql`SELECT CAST(ordinal AS BIGINT) FROM ${
    Rows.table(sql, "chosen", { ordinal: "text" }, ordinals.map((ordinal) => ({ ordinal: String(ordinal) })))
  }`

/** The letters of one cause. */
export interface Summary {
  /** The tag of a failure, {@link gap}, or {@link queued} for those that wait behind others. */
  readonly cause: string
  readonly operations: number
  readonly documents: number
}

/** How many letters of how many documents there are, by cause; {@link queued} last. */
export const summary = (
  key: Key
): Effect.Effect<ReadonlyArray<Summary>, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) =>
      sql<Summary>`
      SELECT cause, COUNT(*) AS operations, COUNT(DISTINCT document_id) AS documents
      FROM processor_dead_letter
      WHERE processor = ${key.processor} AND source = ${key.source}
      GROUP BY cause
      ORDER BY CASE WHEN cause = ${queued} THEN 1 ELSE 0 END, cause`
  )

/** The first blocking letter of each of these documents that has one. */
export const firstBlocking = (
  key: Key,
  strands: ReadonlyArray<Strand>
): Effect.Effect<ReadonlyMap<string, bigint>, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<{ readonly document_id: string; readonly ordinal: string }>`
        SELECT l.document_id, CAST(MIN(l.ordinal) AS TEXT) AS ordinal
        FROM ${Rows.table(sql, "wanted", { document_id: "text" }, documents(strands))}
        CROSS JOIN processor_dead_letter AS l
        WHERE l.processor = ${key.processor} AND l.source = ${key.source} AND l.document_id = wanted.document_id
          AND l.cause NOT IN (${queued}, ${gap})
        GROUP BY l.document_id`,
      (rows) => new Map(rows.map((row) => [row.document_id, BigInt(row.ordinal)]))
    ))

const documents = (strands: ReadonlyArray<Strand>) =>
  Array.from(new Set(strands.map((strand) => strand.documentId)), (document_id) => ({ document_id }))

/** Documents of a cursor that have letters and none that blocks, by id, those that sort after `last`. At most `limit`. */
export const heldDocuments = (
  { processor, slices, source }: Cursor,
  last: string,
  limit: number
): Effect.Effect<ReadonlyArray<string>, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<{ readonly document_id: string }>`
        SELECT document_id FROM processor_dead_letter
        WHERE processor = ${processor} AND source = ${source} AND document_id > ${last}
          AND ordinal % ${sql.literal(String(Slice.count))} BETWEEN ${slices.first} AND ${slices.last}
        GROUP BY document_id
        HAVING MAX(CASE WHEN cause IN (${queued}, ${gap}) THEN 0 ELSE 1 END) = 0
        ORDER BY document_id
        LIMIT ${limit}`,
      (rows) => rows.map((row) => row.document_id)
    ))

const fromRow = (row: Row): Letter => {
  const operation = JSON.parse(row.operation) as Operation
  return {
    ordinal: BigInt(row.ordinal),
    strand: {
      position: Position.fromSql(row.position),
      driveId: row.drive_id ?? undefined,
      documentId: row.document_id,
      documentType: row.document_type,
      scope: row.scope,
      branch: row.branch,
      operations: [operation],
      protocol: row.protocol,
      bytes: row.operation.length
    },
    operation,
    cause: row.cause,
    reason: row.reason,
    attempts: row.attempts,
    parkedAtMillis: Number(row.parked_at_ms)
  }
}

/**
 * An operation as JSON. An input that nests too deep even to be written (thousands of levels; the operation is malformed
 * then) is left out: it can still be read in the source, at the letter's position.
 */
const textOf = (operation: Operation): string =>
  Either.getOrElse(
    Either.try(() => JSON.stringify(operation)),
    () => JSON.stringify({ ...operation, input: undefined })
  )

/** A reason may quote hostile input; both databases must be able to store it. The cut may halve a character, so it is first. */
const clean = (text: string): string => text.replaceAll("\u0000", "\\u0000").slice(0, 4_000).toWellFormed()
