/**
 * Ledger: a processor whose tables tell everything that was ever done to them, and a pure fold to hold them against.
 *
 *     operation ─▶ ledger_balance   n operations of the stream, folded into h = h * 31 + amount: tells one order from another
 *              └─▶ ledger_entry     which operation was the n-th; nothing in it is unique, so a duplicate shows
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Test from "../../layers/Test.js"
import * as DocumentModel from "../../src/domain/DocumentModel.js"
import * as Namespace from "../../src/domain/Namespace.js"
import type { Operation } from "../../src/domain/Operation.js"
import type { Strand } from "../../src/domain/Strand.js"
import type { Limits } from "../../src/ingest/Batch.js"
import * as Source from "../../src/ingest/Source.js"
import type { UnknownOperation } from "../../src/process/Failure.js"
import type { Migrations } from "../../src/process/Migration.js"
import * as Policy from "../../src/process/Policy.js"
import * as Processor from "../../src/process/Processor.js"
import * as Table from "../../src/table/Table.js"

export const documentType = "acme/ledger"

const Model = DocumentModel.make(documentType, { ADD: Schema.Struct({ amount: Schema.Int }) })

/** A schema of its own on PostgreSQL; on SQLite the file that a test is given. */
export const namespace = Namespace.make("ledger")

export const migrations: Migrations = {
  "0001_ledger": {
    up: Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`
        CREATE TABLE ledger_balance (
          document_id TEXT NOT NULL, scope TEXT NOT NULL, branch TEXT NOT NULL, n INTEGER NOT NULL, h BIGINT NOT NULL,
          PRIMARY KEY (document_id, scope, branch)
        )`
      yield* sql`
        CREATE TABLE ledger_entry (
          document_id TEXT NOT NULL, scope TEXT NOT NULL, branch TEXT NOT NULL, n INTEGER NOT NULL,
          op_index INTEGER NOT NULL, op_skip INTEGER NOT NULL, amount BIGINT NOT NULL CHECK (amount >= 0)
        )`
    }),
    down: Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`DROP TABLE ledger_entry`
      yield* sql`DROP TABLE ledger_balance`
    })
  }
}

/** The handler's own failure. */
export class Refused extends Data.TaggedError("Refused")<{ readonly index: number }> {}

/** Which of the three kinds of handler does the work; `tables` is one of operations that writes through tables. */
export type Kind = "operations" | "tables" | "batch" | "strands"

export const kinds: ReadonlyArray<Kind> = ["operations", "tables", "batch", "strands"]

/** Runs before an operation is applied, inside its transaction. */
export type Before = (
  strand: Strand,
  operation: Operation
) => Effect.Effect<unknown, Refused | SqlError, SqlClient.SqlClient>

export interface Options {
  readonly kind?: Kind
  readonly before?: Before
  readonly batch?: Partial<Limits>
  readonly partitions?: number
  readonly policy?: Policy.Policy<Refused | Policy.EngineFailure | UnknownOperation>
  readonly name?: string
  /** Runs when a subscription opens; its finalizers run when it closes. */
  readonly opened?: Effect.Effect<unknown, never, Scope.Scope>
}

/** Writes one operation into both tables. */
export const apply = (strand: Strand, operation: Operation): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const { amount } = operation.input as { readonly amount: number }
    const { branch, documentId, scope } = strand
    const rows = yield* sql<{ readonly n: number }>`
      INSERT INTO ledger_balance (document_id, scope, branch, n, h)
      VALUES (${documentId}, ${scope}, ${branch}, 1, ${amount})
      ON CONFLICT (document_id, scope, branch)
      DO UPDATE SET n = ledger_balance.n + 1, h = (ledger_balance.h * 31 + excluded.h) % 1000003
      RETURNING n`
    yield* sql`
      INSERT INTO ledger_entry (document_id, scope, branch, n, op_index, op_skip, amount)
      VALUES (${documentId}, ${scope}, ${branch}, ${rows[0]?.n ?? 0}, ${operation.index}, ${operation.skip}, ${amount})`
  })

const streamColumns = { document_id: Schema.String, scope: Schema.String, branch: Schema.String }

const BalanceTable = Table.make("ledger_balance", Schema.Struct({ ...streamColumns, n: Schema.Int, h: Schema.Int }), {
  key: ["document_id", "scope", "branch"],
  document: "document_id"
})

const EntryTable = Table.make(
  "ledger_entry",
  Schema.Struct({ ...streamColumns, n: Schema.Int, op_index: Schema.Int, op_skip: Schema.Int, amount: Schema.Int }),
  { key: ["document_id", "scope", "branch", "n"], document: "document_id" }
)

/** Does what {@link apply} does, through tables. */
const applyToTables: typeof apply = ({ branch, documentId, scope }, { index, input, skip }) =>
  Effect.gen(function*() {
    const { amount } = input as { readonly amount: number }
    const key = { document_id: documentId, scope, branch }
    const found = Option.getOrElse(yield* BalanceTable.get(key), () => ({ n: 0, h: 0 }))
    const n = found.n + 1
    yield* BalanceTable.upsert({ ...key, n, h: n === 1 ? amount : (found.h * 31 + amount) % 1_000_003 })
    yield* EntryTable.insert({ ...key, n, op_index: index, op_skip: skip, amount })
  })

const handlerOf = (
  kind: Kind,
  handle: (strand: Strand, operation: Operation) => Effect.Effect<void, Refused | SqlError, SqlClient.SqlClient>
) => {
  const each = (strand: Strand) =>
    Effect.forEach(strand.operations, (operation) => handle(strand, operation), { discard: true })
  const operations = Processor.onOperations(Model, { ADD: ({ operation, strand }) => handle(strand, operation) })
  if (kind === "operations" || kind === "tables") return operations
  const whole: typeof operations = kind === "batch"
    ? Processor.onBatch((strands) => Effect.forEach(strands, each, { discard: true }))
    : Processor.onStrands((strands) => Stream.mapEffect(strands, each))
  return whole
}

const undecided = (options: Options) =>
  Processor.make(options.name ?? "ledger", {
    namespace,
    migrations,
    batch: options.batch ?? {},
    partitions: options.partitions ?? 1,
    tables: [BalanceTable, EntryTable],
    handler: Effect.as(
      options.opened ?? Effect.void,
      handlerOf(
        options.kind ?? "operations",
        (strand, operation) =>
          Effect.zipRight(
            options.before?.(strand, operation) ?? Effect.void,
            options.kind === "tables" ? applyToTables(strand, operation) : apply(strand, operation)
          )
      )
    )
  })

/** The processor; what its options do not decide is parked. */
export const make = (options: Options = {}): Processor.Processor<never, SqlClient.SqlClient> =>
  undecided(options).pipe(
    Processor.withPolicy({ ...Policy.standard, Refused: Policy.park, ...options.policy })
  )

/** What tells an operation from all others of its world. */
export interface Op {
  readonly documentId: string
  readonly scope?: string
  readonly branch?: string
  readonly index: number
  readonly skip?: number
  readonly amount: number
}

/** A strand of these operations, all of one stream. */
export const strand = (
  operations: ReadonlyArray<Op>,
  change: (operation: Operation) => Operation = (operation) => operation
): Source.Unplaced => {
  const first = operations[0]!
  const made = Test.strand({
    documentId: first.documentId,
    documentType,
    ...(first.scope === undefined ? {} : { scope: first.scope }),
    ...(first.branch === undefined ? {} : { branch: first.branch }),
    operations: operations.map(({ amount, index, skip }) => ({
      type: "ADD",
      input: { amount },
      index,
      skip: skip ?? 0,
      hash: `${index}-${skip ?? 0}-${amount}`
    }))
  })
  return { ...made, operations: made.operations.map(change) }
}

/** Operations 0 to `count` - 1 of one document; the amount is a pure function of document and index. */
export const history = (documentId: string, count: number, from = 0): ReadonlyArray<Op> =>
  Array.from({ length: count }, (_, i) => ({ documentId, index: from + i, amount: amountOf(documentId, from + i) }))

export const amountOf = (documentId: string, index: number): number => {
  let sum = 17 + index
  for (let i = 0; i < documentId.length; i++) sum = (sum * 131 + documentId.charCodeAt(i) + index) % 9973
  return sum
}

/** A finite source over strands. */
export const source = (name: string, strands: ReadonlyArray<Source.Unplaced>): Layer.Layer<Source.Source> =>
  Layer.succeed(Source.Source, Source.fromIterable(name, strands))

/** One row of `ledger_balance`. */
export interface Balance {
  readonly stream: string
  readonly n: number
  readonly h: number
}

const streamOf = (op: Pick<Op, "documentId" | "scope" | "branch">): string =>
  `${op.documentId} ${op.scope ?? "global"} ${op.branch ?? "main"}`

/** The balances that these operations come to when they are applied once each, in this order. */
export const fold = (operations: ReadonlyArray<Op>): ReadonlyArray<Balance> => {
  const balances = new Map<string, Balance>()
  for (const op of operations) {
    const stream = streamOf(op)
    const before = balances.get(stream)
    balances.set(stream, {
      stream,
      n: (before?.n ?? 0) + 1,
      h: before === undefined ? op.amount : (before.h * 31 + op.amount) % 1_000_003
    })
  }
  return Array.from(balances.values()).sort((a, b) => (a.stream < b.stream ? -1 : 1))
}

/** The balances in the tables, of the documents whose id begins with `prefix`. */
export const balances = (
  prefix = ""
): Effect.Effect<ReadonlyArray<Balance>, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<
        {
          readonly document_id: string
          readonly scope: string
          readonly branch: string
          readonly n: number
          readonly h: number
        }
      >`
        SELECT document_id, scope, branch, n, h FROM ledger_balance WHERE document_id LIKE ${`${prefix}%`}`,
      (rows) =>
        rows.map((row) => ({ stream: streamOf({ ...row, documentId: row.document_id }), n: row.n, h: row.h }))
          .sort((a, b) => (a.stream < b.stream ? -1 : 1))
    ))

/** One row of `ledger_entry`. */
export interface Entry extends Required<Op> {
  readonly n: number
}

/** What was applied to each stream, in the order in which it was. */
export const entries = (
  prefix = ""
): Effect.Effect<ReadonlyArray<Entry>, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql<Entry>`
      SELECT document_id AS "documentId", scope, branch, n, op_index AS "index", op_skip AS skip, amount
      FROM ledger_entry WHERE document_id LIKE ${`${prefix}%`}
      ORDER BY document_id, scope, branch, n`)
