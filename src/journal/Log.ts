/**
 * The log: a journal's rows in the database.
 *
 *     processor_journal          head, floor      held by whoever appends or truncates, until COMMIT
 *     processor_journal_strand   position ─▶ strand, strand, …
 *
 * Invariants: an operation's position is the head before it and one more, and the head moves under the row's lock, so that
 * positions have no gaps and commits become visible in the order of positions; a strand has the position of its last
 * operation; nothing at or below the floor can be read, and nothing above it was removed.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type { Fragment, Statement } from "@effect/sql/Statement"
import * as Effect from "effect/Effect"
import { createHash } from "node:crypto"
import type { Protocol } from "../domain/History.js"
import { isClean } from "../domain/Name.js"
import { indexMax } from "../domain/Operation.js"
import type { Operation } from "../domain/Operation.js"
import * as Position from "../domain/Position.js"
import type { Strand, Stream } from "../domain/Strand.js"
import type { Constraint } from "../ingest/Filter.js"
import type { SourceName } from "../ingest/Source.js"
import * as Flight from "../store/Flight.js"
import * as Rows from "../store/Rows.js"
import type { TransactionError } from "../store/Transaction.js"
import * as Transaction from "../store/Transaction.js"

/** A journal as statements name it. */
export interface Log {
  readonly id: number
  readonly name: SourceName
  /** What wake-ups about this journal go by. */
  readonly topic: string
}

/** Where a log begins and ends. */
export interface Bounds {
  /** The position of the last operation; `origin` before the first. */
  readonly head: Position.Position
  /** What is at or below it was removed; `origin` when nothing was. */
  readonly floor: Position.Position
}

/** A strand as it is stored, before it has a position. */
export interface Entry extends Omit<Strand, "position" | "operations" | "protocol"> {
  readonly protocol: Protocol
  readonly operationCount: number
  /** The operations, each as JSON. */
  readonly texts: ReadonlyArray<string>
  readonly firstIndex: number
  readonly lastHash: string
}

/** The journal of this name, made if there is none. */
export const open = (name: SourceName): Effect.Effect<Log, TransactionError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const find = sql<{ readonly id: number }>`SELECT id FROM processor_journal WHERE name = ${name}`
    // Two that are made at once may reach for the same id: then one of them is made in the next round.
    const make = Transaction.run(sql`
      INSERT INTO processor_journal (id, name, head, floor)
      SELECT COALESCE(MAX(id), 0) + 1, ${name}, 0, 0 FROM processor_journal WHERE TRUE
      ON CONFLICT DO NOTHING`)
    for (let round = 0; round < openRoundsMax; round++) {
      const [row] = yield* find
      if (row !== undefined) return { id: row.id, name, topic: topicOf(name) }
      yield* make
    }
    return yield* Effect.dieMessage(`the row of journal ${name} was made ${openRoundsMax} times and is not there`)
  })

/** In each round at least one of those who make journals at once succeeds. */
const openRoundsMax = 1_000

/** Where the log begins and ends. */
export const bounds = (log: Log): Effect.Effect<Bounds, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.flatMap(selection(sql, log, false), boundsIn(log)))

/** The same, and nobody else appends or truncates until this transaction has ended. */
export const lock = (log: Log): Effect.Effect<Bounds, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => {
    const { boundsOf, statement } = locking(sql, log)
    return Effect.flatMap(statement, boundsOf)
  })

/** The statement of {@link lock}, and what its answer comes to. */
export const locking = (sql: SqlClient.SqlClient, log: Log): {
  readonly statement: Statement<object>
  readonly boundsOf: (rows: ReadonlyArray<object>) => Effect.Effect<Bounds>
} => ({ statement: selection(sql, log, true), boundsOf: boundsIn(log) })

/** On SQLite the transaction is the lock. */
const selection = (sql: SqlClient.SqlClient, log: Log, forUpdate: boolean): Statement<object> =>
  sql`
      SELECT CAST(head AS TEXT) AS head, CAST(floor AS TEXT) AS floor FROM processor_journal WHERE id = ${log.id}
      ${sql.literal(sql.onDialectOrElse({ sqlite: () => "", orElse: () => forUpdate ? "FOR UPDATE" : "" }))}`

const boundsIn = (log: Log) => ([row]: ReadonlyArray<object>): Effect.Effect<Bounds> => {
  const found = row as { readonly head: string; readonly floor: string } | undefined
  return found === undefined
    ? Effect.dieMessage(`the row of journal ${log.name} is gone`)
    : Effect.succeed({ head: Position.fromSql(found.head), floor: Position.fromSql(found.floor) })
}

/** The position of each entry behind `head`. */
export const positionsOf = (
  head: Position.Position,
  entries: ReadonlyArray<Entry>
): ReadonlyArray<Position.Position> => {
  let last: bigint = head
  return entries.map((entry) => Position.make(last += BigInt(entry.operationCount)))
}

/**
 * The statements that write entries, at least one, at these positions of a log that is locked, move its head, and leave word
 * for whoever listens, to be sent with COMMIT.
 */
export const writing = (
  sql: SqlClient.SqlClient,
  log: Log,
  entries: ReadonlyArray<Entry>,
  positions: ReadonlyArray<Position.Position>
): ReadonlyArray<Statement<object>> => {
  const rows = entries.map((entry, i) => rowOf(log, positions[i]!, entry))
  const advance = sql`UPDATE processor_journal SET head = ${positions.at(-1)!} WHERE id = ${log.id}`
  return sql.onDialectOrElse({
    sqlite: () => [...insertsInLists(sql, rows), advance],
    orElse: () => [sql`WITH written AS (${insertAtOnce(sql, rows)}) ${advance} RETURNING pg_notify(${log.topic}, '')`]
  })
}

const columns = {
  journal: "integer",
  position: "bigint",
  drive_id: "text",
  document_id: "text",
  document_type: "text",
  scope: "text",
  branch: "text",
  first_index: "integer",
  last_hash: "text",
  operation_count: "integer",
  bytes: "integer",
  protocol: "integer",
  operations: "text"
} as const

type Row = { readonly [Column in keyof typeof columns]: string | number | null }

const rowOf = (log: Log, position: Position.Position, entry: Entry): Row => ({
  journal: log.id,
  position: String(position),
  drive_id: entry.driveId ?? null,
  document_id: entry.documentId,
  document_type: entry.documentType,
  scope: entry.scope,
  branch: entry.branch,
  first_index: entry.firstIndex,
  last_hash: entry.lastHash,
  operation_count: entry.operationCount,
  bytes: entry.bytes,
  protocol: entry.protocol,
  operations: textOf(entry)
})

const textOf = ({ texts }: Entry): string => `[${texts.join(",")}]`

/** PostgreSQL takes all rows as one parameter. */
const insertAtOnce = (sql: SqlClient.SqlClient, rows: ReadonlyArray<Row>): Fragment => {
  const names = sql.literal(Object.keys(columns).join(", "))
  return sql`INSERT INTO processor_journal_strand (${names}) SELECT ${names} FROM ${
    Rows.table(sql, "incoming", columns, rows)
  }`
}

/** SQLite would read that parameter once for each column, so it gets lists of values, of few lengths, prepared once. */
const insertsInLists = (sql: SqlClient.SqlClient, rows: ReadonlyArray<Row>): ReadonlyArray<Statement<object>> =>
  inPowersOfTwo(rows).map((some) => sql`INSERT INTO processor_journal_strand ${sql.insert(some)}`)

const lengthMax = 128

const inPowersOfTwo = (rows: ReadonlyArray<Row>): ReadonlyArray<ReadonlyArray<Row>> => {
  const pieces: Array<ReadonlyArray<Row>> = []
  for (let at = 0, length = lengthMax; at < rows.length;) {
    if (length > rows.length - at) length /= 2
    else pieces.push(rows.slice(at, at += length))
  }
  return pieces
}

/** What a page is bounded by. */
export interface Limits {
  /** Operations; the strand that reaches the bound may exceed it. */
  readonly operations: number
  /** Bytes, likewise. */
  readonly bytes: number
  /** How many positions are looked at, wanted or not. */
  readonly positions: number
}

/** What was found above a position. */
export interface Page {
  readonly strands: ReadonlyArray<Strand>
  /** Everything that was wanted up to here is in this page or before it. */
  readonly position: Position.Position
  /** Where the log ended when it was looked at. */
  readonly head: Position.Position
  readonly floor: Position.Position
}

/** The strands above `after` that meet the constraints. One statement, so head, floor and strands are of one moment. */
export const read = (
  log: Log,
  after: Position.Position,
  constraints: ReadonlyArray<Constraint>,
  limits: Limits
): Effect.Effect<Page, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const until = Position.make(minimum(after + BigInt(limits.positions), Position.max))
    const wanted = sql.and([
      sql`journal = ${log.id} AND position > ${after} AND position <= ${until}`,
      ...constraints.map((constraint) => condition(sql, constraint))
    ])
    const rows = yield* sql<Found>`
      WITH wanted AS (
        SELECT position, operation_count, bytes FROM processor_journal_strand
        WHERE ${wanted} ORDER BY position LIMIT ${limits.operations}
      ),
      page AS (
        SELECT MAX(position) AS last, COUNT(*) AS strands FROM (
          SELECT position,
            SUM(operation_count) OVER (ORDER BY position) - operation_count AS operations_before,
            SUM(bytes) OVER (ORDER BY position) - bytes AS bytes_before
          FROM wanted
        ) AS counted
        WHERE operations_before < ${limits.operations} AND bytes_before < ${limits.bytes}
      )
      SELECT CAST(j.head AS TEXT) AS head, CAST(j.floor AS TEXT) AS floor,
        CASE WHEN page.strands < (SELECT COUNT(*) FROM wanted) OR page.strands = ${limits.operations}
          THEN 1 ELSE 0 END AS more,
        CAST(s.position AS TEXT) AS position, s.drive_id, s.document_id, s.document_type, s.scope, s.branch, s.bytes, s.protocol,
        s.operations
      FROM processor_journal AS j CROSS JOIN page
      LEFT JOIN (SELECT * FROM processor_journal_strand WHERE ${wanted}) AS s ON s.position <= page.last
      WHERE j.id = ${log.id}
      ORDER BY s.position`
    const [first] = rows
    if (first === undefined) return yield* Effect.dieMessage(`the row of journal ${log.name} is gone`)
    const head = Position.fromSql(first.head)
    const strands = rows.flatMap(strandOf)
    const last = strands.at(-1)?.position
    return {
      strands,
      head,
      floor: Position.fromSql(first.floor),
      position: first.more === 1 && last !== undefined ? last : Position.make(maximum(after, minimum(head, until)))
    }
  })

interface Found {
  readonly head: string
  readonly floor: string
  /** 1 when there are more strands among those that were looked at than fit the page. */
  readonly more: number
  /** `null`, as all that follow, where no strand was found. */
  readonly position: string | null
  readonly drive_id: string | null
  readonly document_id: string
  readonly document_type: string
  readonly scope: string
  readonly branch: string
  readonly bytes: number
  readonly protocol: Protocol
  readonly operations: string
}

/** What is read was checked when it was written. */
const strandOf = (row: Found): ReadonlyArray<Strand> =>
  row.position === null ? [] : [
    {
      position: Position.fromSql(row.position),
      driveId: row.drive_id ?? undefined,
      documentId: row.document_id,
      documentType: row.document_type,
      scope: row.scope,
      branch: row.branch,
      operations: JSON.parse(row.operations) as ReadonlyArray<Operation>,
      protocol: row.protocol,
      bytes: row.bytes
    } as Strand
  ]

/** An entry as a page supplies it, once it is committed: made of its text, so that it is nobody else's. */
export const supplied = (entry: Entry, position: Position.Position): Strand => ({
  position,
  driveId: entry.driveId,
  documentId: entry.documentId,
  documentType: entry.documentType,
  scope: entry.scope,
  branch: entry.branch,
  operations: JSON.parse(textOf(entry)) as ReadonlyArray<Operation>,
  protocol: entry.protocol,
  bytes: entry.bytes
})

const minimum = (a: bigint, b: bigint): bigint => a < b ? a : b
const maximum = (a: bigint, b: bigint): bigint => a > b ? a : b

const columnOf = {
  documentType: "document_type",
  documentId: "document_id",
  scope: "scope",
  branch: "branch",
  driveId: "drive_id"
} as const

/** A name that is not clean was never stored, and PostgreSQL would refuse to be asked for it. */
const condition = (sql: SqlClient.SqlClient, { field, values }: Constraint): Fragment => {
  const column = sql.literal(columnOf[field])
  const names = JSON.stringify(Array.from(values).filter(isClean))
  return sql.onDialectOrElse({
    sqlite: () => sql`${column} IN (SELECT value FROM json_each(${names}))`,
    orElse: () => sql`${column} = ANY(ARRAY(SELECT json_array_elements_text(CAST(${names} AS json))))`
  })
}

/** An operation of a stream, by its index. */
export interface Place extends Stream {
  readonly index: number
}

/**
 * Where a reader has to be to have seen each of these operations, which are stored: the position of the last strand of its
 * stream that begins no later; `undefined` for what was removed.
 */
export const find = (
  log: Log,
  places: ReadonlyArray<Place>
): Effect.Effect<ReadonlyArray<Position.Position | undefined>, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const { foundOf, statements } = lookingUp(sql, log, places, sql.literal("CAST(s.position AS TEXT)"))
    return foundOf(yield* Flight.send(statements))
      .map((position) => position === undefined ? undefined : Position.fromSql(position))
  })

/** Statements that look places up, one or none, and what their answers come to, in the order of the places. */
interface Lookup {
  readonly statements: ReadonlyArray<Statement<object>>
  readonly foundOf: (answers: ReadonlyArray<ReadonlyArray<object>>) => ReadonlyArray<string | undefined>
}

/** Asks for the hash of the last operation of each of these streams; `undefined` for what was removed, or never there. */
export const hashing = (sql: SqlClient.SqlClient, log: Log, streams: ReadonlyArray<Stream>): Lookup =>
  lookingUp(sql, log, streams.map((stream) => ({ ...stream, index: indexMax })), sql.literal("s.last_hash"))

/** Looks each place up, in one statement: the last strand of its stream that begins no later. */
const lookingUp = (
  sql: SqlClient.SqlClient,
  log: Log,
  places: ReadonlyArray<Place>,
  column: Fragment
): Lookup => {
  if (places.length === 0) return { statements: [], foundOf: () => [] }
  const asked = Rows.table(
    sql,
    "asked",
    { ordinal: "integer", document_id: "text", scope: "text", branch: "text", op_index: "integer" },
    places.map(({ branch, documentId, index, scope }, ordinal) => ({
      ordinal,
      document_id: documentId,
      scope,
      branch,
      op_index: index
    }))
  )
  const statement = sql`
      SELECT asked.ordinal, (
        SELECT ${column} FROM processor_journal_strand AS s
        WHERE s.journal = ${log.id} AND s.document_id = asked.document_id AND s.scope = asked.scope
          AND s.branch = asked.branch AND s.first_index <= asked.op_index
        ORDER BY s.first_index DESC, s.position DESC LIMIT 1
      ) AS found
      FROM ${asked}`
  return {
    statements: [statement],
    foundOf: ([rows = []]) => {
      const found = new Map(
        (rows as ReadonlyArray<{ readonly ordinal: number; readonly found: string | null }>)
          .map((row) => [row.ordinal, row.found ?? undefined])
      )
      return places.map((_, ordinal) => found.get(ordinal))
    }
  }
}

/** The position of the last strand at or below `limit`, looking at no more than `strands` of them. */
export const boundary = (
  log: Log,
  limit: Position.Position,
  strands: number
): Effect.Effect<Position.Position | undefined, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<{ readonly position: string | null }>`
        SELECT CAST(MAX(position) AS TEXT) AS position FROM (
          SELECT position FROM processor_journal_strand
          WHERE journal = ${log.id} AND position <= ${limit} ORDER BY position LIMIT ${strands}
        ) AS oldest`,
      ([row]) => row === undefined || row.position === null ? undefined : Position.fromSql(row.position)
    ))

/** Removes what is at or below `floor`, of a log that is locked. */
export const remove = (
  log: Log,
  floor: Position.Position
): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`DELETE FROM processor_journal_strand WHERE journal = ${log.id} AND position <= ${floor}`
    yield* sql`UPDATE processor_journal SET floor = ${floor} WHERE id = ${log.id}`
  })

/** PostgreSQL's channels are names of at most 63 bytes; a journal's is longer, and may be in any script. */
const topicOf = (name: SourceName): string =>
  `processor_journal_${createHash("sha256").update(name).digest("hex").slice(0, 32)}`
