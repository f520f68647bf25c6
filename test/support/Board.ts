/**
 * Board: a processor whose tables say what rows they hold of which document, for tests that project it anew.
 *
 *     ADD, TITLE, REMOVE ─▶ card   one row for each card, with the edits it has had
 *                       └─▶ entry  one row for each operation, numbered within its document
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Test from "../../layers/Test.js"
import { DocumentModel, Namespace, Policy, Processor, Replaying, Table } from "../../src/index.js"
import type { Cursors, Migration, Operation, Source, Strand } from "../../src/index.js"

export const Model = DocumentModel.make("test/board", {
  ADD: Schema.Struct({ id: Schema.String, title: Schema.String }),
  TITLE: Schema.Struct({ id: Schema.String, title: Schema.String }),
  REMOVE: Schema.Struct({ id: Schema.String })
})

export const Cards = Table.make(
  "card",
  Schema.Struct({ id: Schema.String, board: Schema.String, title: Schema.String, edits: Schema.Int }),
  { key: ["id"], document: "board" }
)

export const Entries = Table.make(
  "entry",
  Schema.Struct({ board: Schema.String, n: Schema.Int, text: Schema.String }),
  { key: ["board", "n"], document: "board" }
)

export const migrations: Migration.Migrations = {
  "0001_board": {
    up: Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE card (id TEXT NOT NULL PRIMARY KEY, board TEXT NOT NULL, title TEXT NOT NULL,
        edits BIGINT NOT NULL)`
      yield* sql`CREATE TABLE entry (board TEXT NOT NULL, n BIGINT NOT NULL, text TEXT NOT NULL,
        PRIMARY KEY (board, n))`
    }),
    down: Effect.void
  }
}

/** The handler's own failure. */
export class Refused extends Data.TaggedError("Refused")<{ readonly text: string }> {}

/** What a test may change while the processor runs. */
export interface Switches {
  /** What the handler makes of a title: a bug, or its cure. */
  title: (title: string) => string
  /** Runs before an operation is applied, inside its transaction. */
  before: (strand: Strand.Strand, operation: Operation.Operation) => Effect.Effect<unknown, Refused | SqlError>
  /** What the handler was given: whether it repeats itself, and the operation. */
  readonly seen: Array<{ readonly isReplaying: boolean; readonly operation: string }>
}

export const switches = (): Switches => ({ title: (title) => title, before: () => Effect.void, seen: [] })

/** Holds the handler before the operations of some strands, inside its transaction, until it is let go on. */
export const gate = (on: Switches, isHeld: (strand: Strand.Strand) => boolean) =>
  Effect.gen(function*() {
    const held = yield* Deferred.make<void>()
    const open = yield* Deferred.make<void>()
    on.before = (strand) =>
      isHeld(strand) ? Effect.zipRight(Deferred.succeed(held, undefined), Deferred.await(open)) : Effect.void
    return { held: Deferred.await(held), open: Deferred.succeed(open, undefined) }
  })

export type Options =
  & Partial<Pick<Processor.Options<never, never, never>, "batch" | "startFrom" | "filter" | "tables" | "partitions">>
  & {
    readonly namespace?: string
    readonly migrations?: Migration.Migrations
    readonly policy?: Policy.Policy<Refused | Policy.StandardFailure>
  }

export const make = (
  name: string,
  on: Switches = switches(),
  { migrations: steps = migrations, namespace = name, policy = {}, tables = [Cards, Entries], ...options }: Options = {}
): Processor.Processor<never, SqlClient.SqlClient> =>
  Processor.make(name, {
    ...options,
    namespace,
    tables,
    migrations: steps,
    handler: Processor.onOperations(Model, {
      ADD: ({ input, operation, strand }) =>
        handled(
          on,
          strand,
          operation,
          input.title,
          Cards.insert({ ...input, title: on.title(input.title), board: strand.documentId, edits: 0 })
        ),
      TITLE: ({ input, operation, strand }) =>
        handled(
          on,
          strand,
          operation,
          input.title,
          Effect.zipRight(
            Cards.update({ id: input.id }, { title: on.title(input.title) }),
            Cards.increment({ id: input.id }, { edits: 1 })
          )
        ),
      REMOVE: ({ input, operation, strand }) =>
        handled(on, strand, operation, "removed", Cards.delete({ id: input.id }))
    })
  }).pipe(Processor.withPolicy({ ...Policy.standard, Refused: Policy.park, ...policy }))

const handled = <R>(
  on: Switches,
  strand: Strand.Strand,
  operation: Operation.Operation,
  text: string,
  write: Effect.Effect<void, SqlError, R>
) =>
  Effect.gen(function*() {
    on.seen.push({ isReplaying: yield* Replaying.Replaying, operation: `${strand.documentId} ${operation.index}` })
    yield* on.before(strand, operation)
    yield* write
    const board = strand.documentId
    const n = operation.index
    if (Option.isNone(yield* Entries.get({ board, n }))) yield* Entries.insert({ board, n, text })
  })

/** A strand of titles: the first adds the card, the others change it. */
export const strand = (documentId: string, from: number, ...titles: ReadonlyArray<string>): Source.Unplaced =>
  Test.strand({
    documentId,
    documentType: Model.type,
    from,
    operations: titles.map((title, i) => ({
      type: from + i === 0 ? "ADD" : "TITLE",
      input: { id: `card of ${documentId}`, title }
    }))
  })

/** Everything of the processor, the framework's own without times and claims, in words. */
export const dump = (
  namespace: string
): Effect.Effect<ReadonlyArray<string>, unknown, Namespace.Namespaces> =>
  Effect.map(
    Namespace.within(
      namespace,
      Effect.flatMap(SqlClient.SqlClient, (sql) =>
        Effect.all([
          sql`SELECT 'card', card.* FROM card ORDER BY id`,
          sql`SELECT 'entry', entry.* FROM entry ORDER BY board, n`,
          sql`SELECT 'stream', processor, document_id, scope, branch, page, last_index, last_skip, slots
            FROM processor_stream ORDER BY processor, document_id, scope, branch, page`,
          sql`SELECT 'letter', processor, ordinal, document_id, op_index, cause FROM processor_dead_letter
            ORDER BY processor, ordinal`,
          sql`SELECT 'cursor', processor, position, sequence, parked, letters FROM processor_cursor
            ORDER BY processor`
        ]))
    ),
    (found) => found.flat().map((row) => Object.values(row).map(String).join(" "))
  )

/** The rows of a processor's tables, in words. */
export const rows = (namespace: string): Effect.Effect<ReadonlyArray<string>, unknown, Namespace.Namespaces> =>
  Effect.map(dump(namespace), (all) => all.filter((row) => /^(card|entry) /.test(row)))

/** Runs a statement in the place of the processor, as somebody does who should not. */
export const meddle = (namespace: string, text: string): Effect.Effect<void, unknown, Namespace.Namespaces> =>
  Namespace.within(namespace, Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.asVoid(sql.unsafe(text))))

export type Key = Cursors.Key
