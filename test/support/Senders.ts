/**
 * Senders: a processor that notes each operation and sends a message for it, and what its tables and its outbox say.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Test from "../../layers/Test.js"
import { Dispatch, DocumentModel, Namespace, Outbox, Policy, Processor } from "../../src/index.js"
import type { Failure, Operation, Source, Strand } from "../../src/index.js"

export const Model = DocumentModel.make("test/order", { PLACE: Schema.Struct({ to: Schema.String, n: Schema.Int }) })

/** What is sent for each order: its number, encoded as text, to the document that it names. */
export const Shipping = DocumentModel.make("test/shipping", {
  SHIP: Schema.Struct({ n: Schema.NumberFromString, of: Schema.String })
})

/** Takes positive numbers alone. */
export const Strict = DocumentModel.make("test/strict", { SHIP: Schema.Struct({ n: Schema.Positive }) })

export class Unwilling extends Data.TaggedError("Unwilling")<{ readonly n: number }> {}

export const migrations = {
  "0001_notes": {
    up: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE note (n INTEGER NOT NULL)`),
    down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE note`)
  }
}

export const namespace = "orders"

/** Writes a note, inside or outside of a savepoint. */
export const note = (n: number): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.asVoid(sql`INSERT INTO note (n) VALUES (${n})`))

export const ship = (to: string, n: number, of: string) =>
  Dispatch.send({ documentId: to, actions: [Dispatch.action(Shipping, "SHIP", { n, of })] })

/** What a processor's own handler may do: the number is the operation's. */
export type Handle<R> = (
  input: { readonly to: string; readonly n: number },
  at: { readonly strand: Strand.Strand; readonly operation: Operation.Operation }
) => Effect.Effect<unknown, Unwilling | Dispatch.MalformedAction | SqlError, R>

/** Notes the number and ships to where the order says. */
export const noteAndShip: Handle<SqlClient.SqlClient | Dispatch.Dispatch | Dispatch.Handling> = (
  { n, to },
  { strand }
) => Effect.zipRight(note(n), ship(to, n, strand.documentId))

export const make = <R = SqlClient.SqlClient | Dispatch.Dispatch | Dispatch.Handling>(
  options: {
    readonly handle?: Handle<R>
    readonly batch?: number
    readonly policy?: Policy.Policy<Unwilling | Failure.UnknownOperation | Policy.EngineFailure>
    readonly name?: string
  } = {}
) =>
  Processor.make(options.name ?? "orders", {
    namespace,
    migrations,
    batch: { operations: options.batch ?? 100 },
    handler: Processor.onOperations(Model, {
      PLACE: (received) => (options.handle ?? (noteAndShip as Handle<R>))(received.input, received)
    })
  }).pipe(Processor.withPolicy({ ...Policy.standard, Unwilling: Policy.park, ...options.policy }))

/** A strand of orders with these numbers from a document, each for the document it names. */
export const orders = (documentId: string, from: number, ...to: ReadonlyArray<string>): Source.Unplaced =>
  Test.strand({
    documentId,
    documentType: Model.type,
    from,
    operations: to.map((target, i) => ({ type: "PLACE", input: { to: target, n: from + i } }))
  })

export const notes = Namespace.query(
  namespace,
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => Effect.map(sql<{ readonly n: number }>`SELECT n FROM note ORDER BY n`, (rows) => rows.map(({ n }) => n))
  )
)

/** The state of each message, with the document that it is for and its number, in the order of sending. */
export const sent = (selection: Outbox.Selection = {}) =>
  Namespace.query(
    namespace,
    Effect.map(Outbox.list(selection), (entries) =>
      entries.map(({ cause, documentId, nth, state }) => `${state} ${documentId} ${cause.index}.${nth}`))
  )
