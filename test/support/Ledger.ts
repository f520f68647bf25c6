/**
 * Ledger: a processor that writes each operation it is given as one row into a table of its own, so that a test can see
 * what was applied, in which order and how often.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Test from "../../layers/Test.js"
import { DocumentModel, Namespace, Policy, Processor } from "../../src/index.js"
import type { Failure, Migration, Source } from "../../src/index.js"

export const Model = DocumentModel.make("test/ledger", {
  PUT: Schema.Struct({ text: Schema.String }),
  PASS: Schema.Struct({ text: Schema.String })
})

/** The steps that create the table `ledger_…` of a processor. */
export const migrations = (name: string): Migration.Migrations => ({
  "0001_ledger": {
    up: Effect.flatMap(
      SqlClient.SqlClient,
      (sql) =>
        sql`CREATE TABLE ${sql(`ledger_${name}`)} (
          id INTEGER ${
          sql.literal(sql.onDialectOrElse({ sqlite: () => "", orElse: () => "GENERATED ALWAYS AS IDENTITY" }))
        }
            PRIMARY KEY,
          text TEXT NOT NULL
        )`
    ),
    down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE ${sql(`ledger_${name}`)}`)
  }
})

/** Appends one row. */
export const write = (name: string, text: string | null): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => Effect.asVoid(sql`INSERT INTO ${sql(`ledger_${name}`)} (text) VALUES (${text})`)
  )

/** A processor that does `before` with the text of each PUT and then writes it down. Nobody has decided about its failures. */
export const undecided = <E extends Policy.Tagged = never, R = never>(
  name: string,
  before: (text: string) => Effect.Effect<unknown, E, R> = () => Effect.void,
  options: Pick<Processor.Options<E, R, R>, "filter" | "filterDialect" | "batch" | "partitions" | "after" | "pace"> = {}
): Processor.Processor<E | Failure.UnknownOperation | Policy.EngineFailure, R | SqlClient.SqlClient> =>
  Processor.make(name, {
    ...options,
    namespace: name,
    migrations: migrations(name),
    handler: Processor.onOperations(Model, {
      PUT: ({ input }) => Effect.zipRight(before(input.text), write(name, input.text))
    })
  })

/** The same under the standard policy, for a `before` that does not fail. */
export const make = <R = never>(
  name: string,
  before?: (text: string) => Effect.Effect<unknown, never, R>,
  options?: Pick<Processor.Options<never, R, R>, "filter" | "filterDialect" | "batch" | "partitions" | "after" | "pace">
): Processor.Processor<never, R | SqlClient.SqlClient> =>
  undecided(name, before, options).pipe(Processor.withPolicy(Policy.standard))

/** A strand with a PUT for each text. */
export const strand = (documentId: string, ...texts: ReadonlyArray<string>): Source.Unplaced =>
  Test.strand({
    documentId,
    documentType: Model.type,
    operations: texts.map((text) => ({ type: "PUT", input: { text }, timestamp: "1970-01-01T00:00:00.000Z" }))
  })

/** What a processor has written in its namespace, in order. */
export const applied = (
  name: string
): Effect.Effect<ReadonlyArray<string>, SqlError | Namespace.NamespaceError, Namespace.Namespaces> =>
  Namespace.query(name, texts(name))

/** What a processor has written, in order. */
export const texts = (name: string): Effect.Effect<ReadonlyArray<string>, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<{ readonly text: string }>`SELECT text FROM ${sql(`ledger_${name}`)} ORDER BY id`,
      (rows) => rows.map((row) => row.text)
    ))
