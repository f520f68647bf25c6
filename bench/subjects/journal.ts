/**
 * The journal of every subject that projects one: in the database of its rows, filled before the clock starts.
 *
 * A journal takes only what is in order, and the recorded strands were delivered twice and with gaps: their operations are
 * numbered as they come.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import type * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import * as Test from "../../layers/Test.js"
import { Journal } from "../../src/index.js"
import type { Namespace, Source, StoreUnavailable } from "../../src/index.js"
import * as Strands from "../support/Strands.js"
import { isPostgres } from "./processor.js"

export const name = "bench"

/** The client of the journal, and the namespaces of the database. */
export const storeOf = (
  database: string
): Layer.Layer<
  SqlClient.SqlClient | Namespace.Namespaces,
  StoreUnavailable.StoreUnavailable | ConfigError.ConfigError | Namespace.OpenError
> => isPostgres(database) ? Postgres.layer({ url: Redacted.make(database) }) : Sqlite.layer({ filename: database })

/** Strands of an append. */
const appendStrands = 500

/** Appends a file of recorded strands. */
export const fill = (input: string, database: string): Promise<void> =>
  Effect.runPromise(
    Effect.gen(function*() {
      const journal = yield* Journal.Journal
      const strands = Strands.read(input)
      for (;;) {
        const some = yield* Effect.promise(() => next(strands))
        if (some.length === 0) return
        yield* journal.append(some)
      }
    }).pipe(Effect.provide(Layer.provide(Journal.layer(name), storeOf(database))))
  )

const indexes = new Map<string, number>()

const next = async (strands: AsyncGenerator<Strands.RecordedStrand>): Promise<ReadonlyArray<Source.Unplaced>> => {
  const some: Array<Source.Unplaced> = []
  while (some.length < appendStrands) {
    const { done, value: strand } = await strands.next()
    if (done === true) break
    const { branch, documentId, documentType, operations, scope } = strand
    const stream = [documentId, scope, branch].join("\n")
    const from = indexes.get(stream) ?? 0
    indexes.set(stream, from + operations.length)
    some.push(Test.strand({
      documentId,
      documentType,
      scope,
      branch,
      from,
      operations: operations.map(({ hash, input, timestamp, type }) => ({ hash, input, timestamp, type }))
    }))
  }
  return some
}
