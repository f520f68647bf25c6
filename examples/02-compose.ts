/**
 * A reactor runs many processors over one source, each at its own pace with its own cursor; these three differ in how they
 * take their input: an operation at a time, a batch at a time, and as a Stream.
 */
import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Console, Effect, Layer, Logger, LogLevel, Schema, Stream } from "effect"
import * as Test from "../layers/Test.js"
import { DocumentModel, Namespace, Policy, Processor, Reactor } from "../src/index.js"

const Note = DocumentModel.make("acme/note", {
  WRITE: Schema.Struct({ text: Schema.String }),
  TAG: Schema.Struct({ tag: Schema.String })
})

const createTable = (name: string, columns: string) => ({
  [`0001_${name}`]: {
    up: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE ${sql(name)} (${sql.literal(columns)})`),
    down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE ${sql(name)}`)
  }
})

// An operation at a time: the usual form. `WRITE` is left out, so it passes by.
const Tags = Processor.make("tags", {
  namespace: "tags",
  filter: { documentType: [Note.type] },
  migrations: createTable("tags", "tag TEXT NOT NULL, note TEXT NOT NULL, PRIMARY KEY (tag, note)"),
  handler: Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    return Processor.onOperations(Note, {
      TAG: ({ input, strand }) => sql`INSERT INTO tags ${sql.insert({ tag: input.tag, note: strand.documentId })}`
    })
  })
}).pipe(Processor.withPolicy(Policy.standard))

// A batch at a time: fold first, write once. No filter, so it sees every document type.
const Activity = Processor.make("activity", {
  namespace: "activity",
  migrations: createTable("activity", "document_type TEXT PRIMARY KEY, operations INTEGER NOT NULL"),
  handler: Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    return Processor.onBatch((strands) => {
      const counts = new Map<string, number>()
      for (const strand of strands) {
        counts.set(strand.documentType, (counts.get(strand.documentType) ?? 0) + strand.operations.length)
      }
      const rows = Array.from(counts, ([document_type, operations]) => ({ document_type, operations }))
      return sql`
        INSERT INTO activity ${sql.insert(rows)}
        ON CONFLICT (document_type) DO UPDATE SET operations = activity.operations + excluded.operations`
    })
  })
}).pipe(Processor.withPolicy(Policy.standard))

// A Stream, with everything Stream can do. It is drained inside the batch's transaction.
const Lengths = Processor.make("lengths", {
  namespace: "lengths",
  filter: { documentType: [Note.type] },
  migrations: createTable("lengths", "note TEXT PRIMARY KEY, operations INTEGER NOT NULL"),
  handler: Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    return Processor.onStrands((strands) =>
      strands.pipe(
        Stream.map((strand) => ({ note: strand.documentId, operations: strand.operations.length })),
        Stream.grouped(100),
        Stream.mapEffect((rows) =>
          sql`
            INSERT INTO lengths ${sql.insert(Array.from(rows))}
            ON CONFLICT (note) DO UPDATE SET operations = lengths.operations + excluded.operations`
        )
      )
    )
  })
}).pipe(Processor.withPolicy(Policy.standard))

const strands = [
  Test.strand({
    documentId: "recipe",
    documentType: "acme/note",
    operations: [
      { type: "WRITE", input: { text: "flour, water, salt" } },
      { type: "TAG", input: { tag: "bread" } },
      { type: "TAG", input: { tag: "kitchen" } }
    ]
  }),
  Test.strand({
    documentId: "invoice-7",
    documentType: "acme/invoice",
    operations: [{ type: "SEND", input: { to: "ada@example.com" } }]
  }),
  Test.strand({
    documentId: "shopping",
    documentType: "acme/note",
    operations: [{ type: "TAG", input: { tag: "kitchen" } }]
  })
]

const lines = (namespace: string, query: string) =>
  Namespace.query(
    namespace,
    Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => Effect.map(sql.unsafe<{ line: string }>(query), (rows) => rows.map(({ line }) => line))
    )
  )

// The reactor is a Layer: subscriptions open with it and close with its scope. A live source keeps it open for good
// (`Layer.launch`); this one ends, and so can be waited for.
const program = Effect.gen(function*() {
  const reactor = yield* Reactor.Reactor
  yield* reactor.ended
  for (const { processor, totals } of yield* reactor.outcomes) {
    yield* Console.log(`${processor}: ${totals.operations} operations in ${totals.commits} commit`)
  }

  // Each namespace has its own tables, and is asked by its name.
  const kitchen = yield* lines("tags", "SELECT note AS line FROM tags WHERE tag = 'kitchen' ORDER BY note")
  yield* Console.log(`tagged kitchen: ${kitchen.join(", ")}`)
  const activity = yield* lines(
    "activity",
    "SELECT document_type || ' ' || operations AS line FROM activity ORDER BY document_type"
  )
  yield* Console.log(`activity: ${activity.join(", ")}`)
  const [longest] = yield* lines("lengths", "SELECT note AS line FROM lengths ORDER BY operations DESC")
  yield* Console.log(`longest: ${longest}`)
})

program.pipe(
  Effect.provide(Reactor.layer(Tags, Activity, Lengths).pipe(Layer.provideMerge(Test.layer(strands)))),
  Logger.withMinimumLogLevel(LogLevel.Warning),
  NodeRuntime.runMain
)

/* It prints:

tags: 4 operations in 1 commit
activity: 5 operations in 1 commit
lengths: 4 operations in 1 commit
tagged kitchen: recipe, shopping
activity: acme/invoice 1, acme/note 4
longest: recipe

*/
