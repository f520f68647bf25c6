/**
 * A processor keeps tables up to date with a stream of operations: here is one, from its document model to its rows.
 *
 * In a project of your own, write "effect-processors" for "../src/index.js" and "effect-processors/layers/Test" for
 * "../layers/Test.js".
 */
import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Console, Effect, Logger, LogLevel, Schema } from "effect"
import * as Test from "../layers/Test.js"
import { DocumentModel, Namespace, Policy, Processor, Reactor } from "../src/index.js"

// The documents: their type, and the input that each of their operations carries.
const Todo = DocumentModel.make("acme/todo", {
  ADD: Schema.Struct({ id: Schema.String, title: Schema.NonEmptyString }),
  COMPLETE: Schema.Struct({ id: Schema.String })
})

// The tables. Both databases understand this; where they differ there is `sql.onDialectOrElse`.
const migrations = {
  "0001_todos": {
    up: Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => sql`CREATE TABLE todos (id TEXT PRIMARY KEY, title TEXT NOT NULL, done INTEGER NOT NULL DEFAULT 0)`
    ),
    down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE todos`)
  }
}

// One small effect for each operation. The writes of a whole batch and the cursor are one transaction: exactly once.
const TodoList = Processor.make("todo-list", {
  namespace: "todos",
  filter: { documentType: [Todo.type], branch: ["main"] },
  migrations,
  handler: Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    return Processor.onOperations(Todo, {
      ADD: ({ input }) => sql`INSERT INTO todos ${sql.insert({ id: input.id, title: input.title })}`,
      COMPLETE: ({ input }) => sql`UPDATE todos SET done = 1 WHERE id = ${input.id}`
    })
  })
}).pipe(
  // Without this line the program does not compile, and the compiler names each failure that nobody has decided about.
  Processor.withPolicy(Policy.standard)
)

// What happened to two documents. A test says it in place; a real source is a journal, a file or a running system.
const strands = [
  Test.strand({
    documentId: "home",
    documentType: "acme/todo",
    operations: [
      { type: "ADD", input: { id: "milk", title: "buy milk" } },
      { type: "ADD", input: { id: "rent", title: "pay the rent" } },
      { type: "COMPLETE", input: { id: "milk" } }
    ]
  }),
  Test.strand({
    documentId: "work",
    documentType: "acme/todo",
    operations: [{ type: "ADD", input: { id: "ship", title: "ship it" } }]
  })
]

// Whoever wants to know asks the namespace, whose tables nobody but its processors can write.
const todos = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql<{ title: string; done: number }>`SELECT title, done FROM todos ORDER BY title`
)

const program = Effect.gen(function*() {
  const [outcome] = yield* Reactor.run(TodoList)
  yield* Console.log(`${outcome?.processor} has ${outcome?.phase}: ${outcome?.totals.operations} operations`)

  for (const { done, title } of yield* Namespace.query("todos", todos)) {
    yield* Console.log(`[${done === 1 ? "x" : " "}] ${title}`)
  }

  // Once more: the cursor stands behind the last strand, so there is nothing to do.
  const [again] = yield* Reactor.run(TodoList)
  yield* Console.log(`once more: ${again?.totals.operations} operations`)
})

program.pipe(
  Effect.provide(Test.layer(strands)),
  // The framework logs what it does, with Effect's Logger; here only what goes wrong.
  Logger.withMinimumLogLevel(LogLevel.Warning),
  NodeRuntime.runMain
)

/* It prints:

todo-list has ended: 4 operations
[x] buy milk
[ ] pay the rent
[ ] ship it
once more: 0 operations

*/
