/**
 * Run: a legacy processor that follows strands into a test's database, and the rows that it left there.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Test from "../../layers/Test.js"
import { Namespace, Powerhouse, Processor, Reactor, Source } from "../../src/index.js"
import type { Incident } from "../../src/index.js"
import type { Decided } from "../../src/Reactor.js"
import type * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"

export const driveId = "b443d823-3e4d-4e60-ae44-45edafd5f632"

const { RelationalProcessor } = Powerhouse

/** With the policy of most, each failure tried once. */
export const decided = (
  name: string,
  legacy: Powerhouse.RelationalProcessor.Class,
  options: Partial<Powerhouse.RelationalProcessor.Options> = {}
) =>
  RelationalProcessor.make(name, legacy, { driveId, ...options }).pipe(
    Processor.withPolicy({ ...RelationalProcessor.policy, LegacyFailure: { _tag: "Park" } })
  )

/** A strand of operations that each carry an amount. */
export const strand = (
  documentId: string,
  amounts: ReadonlyArray<number | object>,
  options: Partial<Test.StrandOptions> = {}
): Source.Unplaced =>
  Test.strand({
    documentId,
    documentType: "acme/account",
    operations: amounts.map((amount) => ({
      type: "ADD",
      input: typeof amount === "number" ? { amount } : amount
    })),
    ...options
  })

/** Follows the strands to their end, over stores of its own, which close with it. */
export const run = (
  database: Database.Database,
  strands: Iterable<Source.Unplaced>,
  ...processors: ReadonlyArray<Decided>
): Effect.Effect<ReadonlyArray<Reactor.Outcome>> =>
  Reactor.run(...processors).pipe(
    Effect.provide(Source.layerIterable("test", strands)),
    Effect.provide(Layer.merge(Store.layerMany(database), Logger.remove(Logger.defaultLogger))),
    Effect.orDie
  ) as Effect.Effect<ReadonlyArray<Reactor.Outcome>>

/** In the namespace of ours that a class has for the drive. */
export const within = <A, E>(
  database: Database.Database,
  namespace: string,
  effect: Effect.Effect<A, E, SqlClient.SqlClient>
): Effect.Effect<A> => Namespace.within(namespace, effect).pipe(Effect.provide(Store.layerMany(database)), Effect.orDie)

/** The rows of a table that a class made, in the order of its first column. */
export const rows = (
  database: Database.Database,
  namespace: string,
  table: string,
  tables: "theirs" | "ours" = "theirs"
): Effect.Effect<ReadonlyArray<{ readonly [column: string]: unknown }>> =>
  within(
    database,
    namespace,
    Effect.flatMap(SqlClient.SqlClient, (sql) => {
      const schema = Powerhouse.HashNamespace.hashNamespace(namespace)
      const name = database.dialect === "sqlite" || tables === "ours" ? table : `${schema}.${table}`
      return sql.unsafe<{ readonly [column: string]: unknown }>(`SELECT * FROM ${name} ORDER BY 1`)
    })
  )

export type { Incident }
