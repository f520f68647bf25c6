/**
 * A tally: a processor whose table tells every operation that was applied to a stream and in which order, and the fold of a
 * reactor's stored operations to hold it against.
 *
 *     tally    (document, scope, branch)  operations  digest = hash(digest before, index, skip, type, hash)  name
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import { Draft, Namespace, Policy, Processor, Table } from "../../src/index.js"
import type { Filter, Operation, Strand } from "../../src/index.js"

const Row = Schema.Struct({
  documentId: Schema.String,
  scope: Schema.String,
  branch: Schema.String,
  operations: Schema.Int,
  digest: Schema.String,
  /** What SET_MODEL_NAME set last. */
  name: Schema.NullOr(Schema.String)
})
export type Row = typeof Row.Type

const Tally = Table.make("tally", Row, { key: ["documentId", "scope", "branch"] })

/** What of an operation is counted. */
export interface Counted {
  readonly index: number
  readonly skip: number
  readonly type: string
  readonly hash: string
  readonly input: unknown
  readonly error?: unknown
}

type Place = Pick<Row, "documentId" | "scope" | "branch">

/** What is counted, and where it belongs. */
export interface Placed extends Place, Counted {}

const next = (place: Place, before: Row | undefined, { error, hash, index, input, skip, type }: Counted): Row => ({
  ...place,
  operations: (before?.operations ?? 0) + 1,
  digest: createHash("sha256").update(JSON.stringify([before?.digest, index, skip, type, hash, error !== undefined]))
    .digest("hex").slice(0, 16),
  name: type === "SET_MODEL_NAME" && error === undefined
    ? (input as { readonly name: string }).name
    : before?.name ?? null
})

const apply = (strand: Strand.Strand, operation: Operation.Operation) => {
  const place: Place = { documentId: strand.documentId, scope: strand.scope, branch: strand.branch }
  return Effect.flatMap(
    Tally.get(place),
    (before) => Tally.upsert(next(place, Option.getOrUndefined(before), operation))
  )
}

/** Runs before an operation is applied, inside its transaction. */
export type Before<E> = (
  strand: Strand.Strand,
  operation: Operation.Operation
) => Effect.Effect<unknown, E | SqlError, SqlClient.SqlClient>

const nothingBefore: Before<never> = () => Effect.void

export interface Options<E> {
  readonly filter?: Filter.Filter
  readonly before?: Before<E>
  readonly startFrom?: "beginning" | "current"
  /** Runs before its table is made. */
  readonly migrating?: Effect.Effect<unknown, SqlError, SqlClient.SqlClient>
  /** Runs when it opens; its finalizers run when it closes. */
  readonly opened?: Effect.Effect<unknown, never, Scope.Scope>
}

const tables = Draft.migration(Draft.initial([Tally]))

/** A tally, undecided about what `before` fails with. */
export const undecided = <E extends Policy.Tagged = never>(name: string, options: Options<E> = {}) =>
  Processor.make(name, {
    namespace: name,
    filter: options.filter ?? {},
    startFrom: options.startFrom ?? "beginning",
    migrations: {
      ...(options.migrating === undefined ? {} : { "0000_first": { up: options.migrating, down: Effect.void } }),
      "0001_tally": tables
    },
    tables: [Tally],
    handler: Effect.as(
      options.opened ?? Effect.void,
      Processor.onStrands((strands) =>
        Stream.mapEffect(strands, (strand) =>
          Effect.forEach(
            strand.operations,
            (operation) =>
              Effect.zipRight((options.before ?? nothingBefore)(strand, operation), apply(strand, operation)),
            { discard: true }
          ))
      )
    )
  })

/** A tally that parks what the engine refuses. */
export const processor = (name: string, options: Options<never> = {}) =>
  undecided(name, options).pipe(Processor.withPolicy(Policy.standard))

/** The table of a processor, as it is; a table that is not there yet has no rows. */
export const rows = (namespace: string): Effect.Effect<ReadonlyArray<Row>, never, Namespace.Namespaces> =>
  Namespace.query(
    namespace,
    Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => sql<Row>`SELECT ${sql("documentId")}, scope, branch, operations, digest, name FROM tally`
    )
  ).pipe(
    Effect.map(sorted),
    Effect.orElseSucceed(() => [])
  )

/** How many operations were applied, all in all. */
export const applied = (namespace: string) =>
  Effect.map(rows(namespace), (all) => all.reduce((sum, row) => sum + row.operations, 0))

/** The table as it should be after these operations, which come in the order of their streams. */
export const fold = (operations: Iterable<Placed>): ReadonlyArray<Row> => {
  const table = new Map<string, Row>()
  for (const operation of operations) {
    const { branch, documentId, scope } = operation
    const key = JSON.stringify([documentId, scope, branch])
    table.set(key, next({ documentId, scope, branch }, table.get(key), operation))
  }
  return sorted(Array.from(table.values()))
}

const sorted = (all: ReadonlyArray<Row>): ReadonlyArray<Row> =>
  all.map((row) => ({ ...row })).toSorted((a, b) => keyOf(a) < keyOf(b) ? -1 : 1)

const keyOf = ({ branch, documentId, scope }: Place): string => JSON.stringify([documentId, scope, branch])
