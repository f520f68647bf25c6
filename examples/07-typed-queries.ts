/**
 * Queries that the compiler checks: Kysely writes them, and they run in the handler's own transaction like any statement.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Logger, LogLevel, Schema } from "effect"
import type { Generated } from "kysely"
import * as Test from "../layers/Test.js"
import { DocumentModel, Migration, Namespace, Policy, Processor, Query, Reactor } from "../src/index.js"

const Page = DocumentModel.make("acme/page", {
  WRITE: Schema.Struct({ title: Schema.NonEmptyString, text: Schema.String }),
  RETIRE: Schema.Struct({})
})

const migrations = {
  "0001_search_index": Migration.fromSql({
    up: `CREATE TABLE search_index (
      document_id TEXT PRIMARY KEY, title TEXT NOT NULL, content TEXT NOT NULL, revision INTEGER NOT NULL DEFAULT 1)`,
    down: "DROP TABLE search_index"
  })
}

// The tables as Kysely wants them: columns by table. With a misspelt table or column, or a wrong value, nothing compiles.
interface Database {
  search_index: { document_id: string; title: string; content: string; revision: Generated<number> }
}

const SearchIndex = Processor.make("search-index", {
  namespace: "search",
  filter: { documentType: [Page.type] },
  migrations,
  handler: Effect.gen(function*() {
    const query = yield* Query.kysely<Database>()
    return Processor.onOperations(Page, {
      WRITE: ({ input, strand }) =>
        query((db) =>
          db.insertInto("search_index")
            .values({ document_id: strand.documentId, title: input.title, content: input.text })
            .onConflict((on) =>
              on.column("document_id").doUpdateSet((eb) => ({
                title: eb.ref("excluded.title"),
                content: eb.ref("excluded.content"),
                revision: eb("search_index.revision", "+", 1)
              }))
            )
        ),
      // A write answers with how many rows it affected, the same number on both databases.
      RETIRE: ({ strand }) =>
        Effect.gen(function*() {
          const { numDeletedRows } = yield* query((db) =>
            db.deleteFrom("search_index").where("document_id", "=", strand.documentId)
          )
          yield* Console.log(`${strand.documentId}: ${numDeletedRows} entry retired`)
        })
    })
  })
}).pipe(
  // What a query fails with is an `SqlError`, as that of any statement.
  Processor.withPolicy(Policy.standard)
)

const page = (documentId: string, ...operations: ReadonlyArray<Test.OperationOptions>) =>
  Test.strand({ documentId, documentType: Page.type, operations })

const strands = [
  page("about", { type: "WRITE", input: { title: "About", text: "who we are" } }),
  page("news", { type: "WRITE", input: { title: "News", text: "nothing yet" } }),
  page("draft", { type: "WRITE", input: { title: "Draft", text: "to be thrown away" } }, { type: "RETIRE", input: {} }),
  page("news", { index: 1, type: "WRITE", input: { title: "News", text: "what we did" } })
]

const program = Effect.gen(function*() {
  yield* Reactor.run(SearchIndex)

  // Outside a handler as well, with rows of the type that was selected.
  const query = yield* Query.kysely<Database>()
  const found = yield* Namespace.query(
    "search",
    query((db) =>
      db.selectFrom("search_index").select(["title", "revision"]).where("content", "like", "%we%").orderBy("title")
    )
  )
  for (const { revision, title } of found) yield* Console.log(`${title}, revision ${revision}`)
})

program.pipe(
  Effect.provide(Test.layer(strands)),
  Logger.withMinimumLogLevel(LogLevel.Warning),
  NodeRuntime.runMain
)

/* It prints:

draft: 1 entry retired
About, revision 1
News, revision 2

*/
