/**
 * Lists: a processor that projects documents which are lists, and what real packages are left with of them.
 *
 *     PUSH 7 ─▶ list_item (document, place, op_index, number)     place: how many were there when it came
 *           └─▶ list_length (document, n)
 *
 * The rows of a document are the numbers that were pushed, in the order in which they were applied, so an operation that
 * is applied twice, too early or not at all shows.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Test from "../../layers/Test.js"
import { DocumentModel, Policy, Processor, Table } from "../../src/index.js"
import type { Batch, Migration, Operation, Retraction, Source, Strand } from "../../src/index.js"
import type { ListOperation, RealHistory } from "./RealHistories.js"

export const documentType = "test/list"

const Model = DocumentModel.make(documentType, { PUSH: Schema.Struct({ number: Schema.Int }) })

interface ListState {
  readonly list: ReadonlyArray<number>
}

/** The same, with its state: what the real documents have. */
const Stateful = DocumentModel.make(documentType, { PUSH: Schema.Struct({ number: Schema.Int }) }, {
  state: {
    initial: { list: [] },
    reduce: ({ list }: ListState, { input, type }): ListState => ({
      list: type === "PUSH" ? [...list, (input as { readonly number: number }).number] : list
    })
  }
})

export const Items = Table.make(
  "list_item",
  Schema.Struct({ document_id: Schema.String, place: Schema.Int, op_index: Schema.Int, number: Schema.Int }),
  { key: ["document_id", "place"], document: "document_id" }
)

export const Lengths = Table.make("list_length", Schema.Struct({ document_id: Schema.String, n: Schema.Int }), {
  key: ["document_id"],
  document: "document_id"
})

export const migrations: Migration.Migrations = {
  "0001_lists": {
    up: Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE list_length (document_id TEXT NOT NULL PRIMARY KEY, n BIGINT NOT NULL)`
      yield* sql`
        CREATE TABLE list_item (
          document_id TEXT NOT NULL REFERENCES list_length (document_id),
          place BIGINT NOT NULL, op_index BIGINT NOT NULL, number BIGINT NOT NULL,
          PRIMARY KEY (document_id, place)
        )`
    }),
    down: Effect.void
  }
}

export class Refused extends Data.TaggedError("Refused")<{ readonly number: number }> {}

type Push = (
  strand: Strand.Strand,
  operation: Operation.Operation
) => Effect.Effect<void, SqlError, SqlClient.SqlClient>

/** Through tables: held back, folded. */
const throughTables: Push = ({ documentId: document_id }, { index, input }) =>
  Effect.gen(function*() {
    const { number } = input as { readonly number: number }
    const n = Option.match(yield* Lengths.get({ document_id }), { onNone: () => 0, onSome: (row) => row.n })
    yield* Lengths.upsert({ document_id, n: n + 1 })
    yield* Items.insert({ document_id, place: n, op_index: index, number })
  })

/** With statements of its own. */
const throughSql: Push = ({ documentId }, { index, input }) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const { number } = input as { readonly number: number }
    yield* sql`
      INSERT INTO list_length (document_id, n) VALUES (${documentId}, 1)
      ON CONFLICT (document_id) DO UPDATE SET n = list_length.n + 1`
    yield* sql`
      INSERT INTO list_item (document_id, place, op_index, number)
      SELECT document_id, n - 1, ${index}, ${number} FROM list_length WHERE document_id = ${documentId}`
  })

export type Kind = "tables" | "statements" | "batch"
export const kinds: ReadonlyArray<Kind> = ["tables", "statements", "batch"]

export interface Options {
  readonly history: Processor.History
  readonly kind?: Kind
  readonly batch?: Partial<Batch.Limits>
  /** Runs before each operation. */
  readonly before?: (
    strand: Strand.Strand,
    operation: Operation.Operation
  ) => Effect.Effect<unknown, Refused | SqlError, SqlClient.SqlClient>
  readonly retracting?: (retraction: Retraction.Retraction) => Effect.Effect<unknown, Refused>
  readonly policy?: Policy.Policy<Refused | Policy.StandardFailure>
  readonly startFrom?: Processor.StartFrom
  /** Whether the handler wants state, and refuses an operation whose state is not what it should be. */
  readonly wantsState?: boolean
}

/** Undoes what is taken back: those rows go, and places are counted anew. */
const retract = ({ documentId, indexes }: Retraction.Retraction) =>
  Effect.gen(function*() {
    const lost = new Set<number>(indexes)
    const rows = yield* Items.find({ document_id: documentId })
    for (const { document_id, place } of rows) yield* Items.delete({ document_id, place })
    const left = rows.filter(({ op_index }) => !lost.has(op_index))
    for (const [place, row] of left.entries()) yield* Items.insert({ ...row, place })
    if (rows.length > 0) yield* Lengths.update({ document_id: documentId }, { n: left.length })
  })

export const make = (
  { batch, before, history, kind = "tables", policy, retracting, startFrom, wantsState }: Options
) => {
  const push = kind === "tables" ? throughTables : throughSql
  const handle: Push | NonNullable<Options["before"]> = (strand, operation) =>
    Effect.zipRight(before?.(strand, operation) ?? Effect.void, push(strand, operation))
  const undo = (retraction: Retraction.Retraction) =>
    Effect.zipRight(retracting?.(retraction) ?? Effect.void, retract(retraction))
  const byOperation = Processor.onOperations(
    Model,
    { PUSH: ({ operation, strand }) => handle(strand, operation) },
    { retract: ({ retraction }) => undo(retraction) }
  )
  const byState = Processor.onOperations(
    Stateful,
    {
      PUSH: ({ input, operation, previousState, state, strand }) =>
        state.list.join() === [...previousState.list, input.number].join()
          ? handle(strand, operation)
          : new Refused(input)
    },
    { retract: ({ retraction }) => undo(retraction) }
  )
  const byBatch = Processor.onBatch((strands) =>
    Effect.forEach(strands, (strand) =>
      Effect.zipRight(
        strand.retraction === undefined ? Effect.void : undo(strand.retraction),
        Effect.forEach(
          strand.operations,
          (operation) =>
            operation.type === "PUSH" && operation.error === undefined ? handle(strand, operation) : Effect.void
        )
      ))
  )
  return Processor.make("lists", {
    namespace: "lists",
    migrations,
    history,
    tables: [Lengths, Items],
    filter: { documentType: [documentType] },
    ...(batch === undefined ? {} : { batch }),
    ...(startFrom === undefined ? {} : { startFrom }),
    handler: wantsState === true ? byState : kind === "batch" ? byBatch : byOperation
  }).pipe(Processor.withPolicy({ ...Policy.standard, Refused: Policy.park, ...policy }))
}

/** An operation of a list as a source supplies it. */
export const strand = (
  documentId: string,
  operations: ReadonlyArray<ListOperation>,
  options: { readonly protocol?: 1 | 2; readonly scope?: string } = {}
): Source.Unplaced =>
  Test.strand({
    documentId,
    documentType,
    ...options,
    operations: operations.map(({ index, number, skip, type }) => ({
      type,
      index,
      skip,
      input: { number },
      hash: `${type}-${index}-${skip}-${number}`,
      ...(type === "FAIL" ? { error: "refused" } : {})
    }))
  })

/** The numbers of each document, in the order in which they were applied. */
export const lists: Effect.Effect<ReadonlyMap<string, ReadonlyArray<number>>, SqlError, SqlClient.SqlClient> = Effect
  .flatMap(SqlClient.SqlClient, (sql) =>
    Effect.gen(function*() {
      const rows = yield* sql<{ readonly document_id: string; readonly number: number }>`
        SELECT document_id, number FROM list_item ORDER BY document_id, place`
      const found = new Map<string, Array<number>>()
      for (const { document_id, number } of rows) {
        found.set(document_id, [...found.get(document_id) ?? [], number])
      }
      return found
    }))

/** Whether each operation goes on from those before it, so that none is missing. */
export const isWhole = ({ steps }: RealHistory): boolean => {
  let head = -1
  return steps.every(([{ index, skip }]) => {
    const isNext = index - skip <= head + 1
    head = Math.max(head, index)
    return isNext
  })
}

export interface World {
  readonly strands: ReadonlyArray<Source.Unplaced>
  /** What each document is left with once the source was read up to a position. */
  readonly at: (position: bigint) => ReadonlyMap<string, ReadonlyArray<number>>
}

/** Histories as documents, a strand for each operation, in turns. */
export const worldOf = (histories: ReadonlyArray<RealHistory>): World => {
  const strands: Array<Source.Unplaced> = []
  const told: Array<readonly [documentId: string, left: ReadonlyArray<number>]> = []
  const longest = Math.max(...histories.map(({ steps }) => steps.length))
  for (let i = 0; i < longest; i++) {
    for (const [d, { protocol, steps }] of histories.entries()) {
      const step = steps[i]
      if (step === undefined) continue
      strands.push(strand(`d${d}`, [step[0]], { protocol }))
      told.push([`d${d}`, step[1] ?? []])
    }
  }
  return {
    strands,
    at: (position) => {
      const left = new Map(told.slice(0, Number(position)))
      return new Map(Array.from(left).filter(([, numbers]) => numbers.length > 0))
    }
  }
}

/** Lists in words, to be compared. */
export const sorted = (all: ReadonlyMap<string, ReadonlyArray<number>>) =>
  Array.from(all, ([documentId, numbers]) => `${documentId}: ${numbers.join(" ")}`).sort()

/** The states that are stored, in the form of {@link lists}. */
export const states: Effect.Effect<ReadonlyMap<string, ReadonlyArray<number>>, SqlError, SqlClient.SqlClient> = Effect
  .flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<{ readonly document_id: string; readonly state: string }>`SELECT document_id, state FROM processor_state`,
      (rows) =>
        new Map(rows.flatMap(({ document_id, state }) => {
          const { list } = JSON.parse(state) as ListState
          return list.length === 0 ? [] : [[document_id, list] as const]
        }))
    ))
