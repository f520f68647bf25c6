/**
 * Home: a journal of that name in a test's database, and what is asked of it again and again.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Stream from "effect/Stream"
import * as Test from "../../layers/Test.js"
import { Journal, Position, Wakeups } from "../../src/index.js"
import type { Source, Strand } from "../../src/index.js"
import type * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"

export type Home = Journal.Journal["Type"]

/** The migrations that are applied are told in the log, and here nobody reads it. */
export const silent = Logger.remove(Logger.defaultLogger)

/** A journal with a client of its own, as another process would have; `deaf` ones get no hints. */
export const open = (
  database: Database.Database,
  options: { readonly name?: string; readonly deaf?: boolean } & Journal.Options = {}
) =>
  Layer.build(
    Journal.layer(options.name ?? "home", options).pipe(
      Layer.provideMerge(options.deaf === true ? Layer.succeed(Wakeups.Wakeups, noHints) : Layer.empty),
      Layer.provideMerge(Store.layer(database)),
      Layer.provideMerge(silent)
    )
  )

const noHints: Wakeups.Wakeups["Type"] = { hints: () => Stream.never }

/** A strand of so many operations, each with its place as its input. */
export const strand = (
  documentId: string,
  from: number,
  count: number,
  options: Partial<Test.StrandOptions> = {}
): Source.Unplaced =>
  Test.strand({
    documentId,
    documentType: "test/log",
    from,
    operations: Array.from(
      { length: count },
      (_, i) => ({ type: "PUT", input: { text: `${documentId} ${from + i}` } })
    ),
    ...options
  })

/** What readings are compared by: who, and which operations, whatever the cuts between strands. */
export const flat = (strands: Iterable<Source.Unplaced>) =>
  Array.from(
    strands,
    ({ branch, documentId, documentType, driveId, operations, scope }) =>
      operations.map((operation) => ({ driveId, documentId, documentType, scope, branch, ...operation }))
  ).flat()

/** The strands that are there now. */
export const all = (
  journal: Home,
  reading: Journal.Reading = {},
  after: Position.Position = Position.origin
) =>
  Effect.gen(function*() {
    const { head } = yield* journal.bounds
    if (head <= after) return []
    return yield* journal.pages(after, reading).pipe(
      Stream.takeUntil(({ position }) => position >= head),
      Stream.runFold<ReadonlyArray<Strand.Strand>, Journal.Page>([], (read, page) => [...read, ...page.strands])
    )
  })

/** How many rows a table has. */
export const count = (table: string) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => Effect.map(sql<{ readonly n: number }>`SELECT count(*) AS n FROM ${sql(table)}`, ([row]) => row!.n)
  )
