/**
 * Tables come from types, and types from tables: a migration is drafted from a Schema, another one from what has changed in
 * it since, and whoever has only the database gets the Schema back.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Logger, LogLevel, Schema } from "effect"
import * as Sqlite from "../layers/Sqlite.js"
import { Draft, Introspection, type Migration, Migrator, Namespace, Table, Typings } from "../src/index.js"

const namespace = Namespace.make("todos")
const shadow = Sqlite.layerMemory

// A table is a Schema of its rows, and what a Schema cannot say: its keys and indexes.
const Todo = Schema.Struct({
  id: Schema.String,
  title: Schema.NonEmptyString,
  state: Schema.Literal("open", "done"),
  createdAt: Schema.DateTimeUtc
})
const Todos = Table.make("todos", Todo, { key: ["id"], indexes: [["state"]] })

// Later: a column is new, one has another name, and there is one more state.
const LaterTodo = Schema.Struct({
  id: Schema.String,
  text: Schema.NonEmptyString,
  state: Schema.Literal("open", "done", "dropped"),
  createdAt: Schema.DateTimeUtc,
  rank: Schema.Int
})
const LaterTodos = Table.make("todos", LaterTodo, { key: ["id"], indexes: [["state"], ["rank"]] })

const program = Effect.gen(function*() {
  // Both databases at once: a value to use as it is, or files to keep.
  const initial = Draft.initial([Todos])
  const first: Migration.Migrations = { "0001_todos": Draft.migration(initial) }
  const files = Draft.files("0001_todos", initial)
  yield* Console.log(files.map(({ name }) => name).join("\n"))
  yield* Console.log(files.find(({ name }) => name === "0001_todos.up.sqlite.sql")?.text)

  // What has changed is found by building the migrations in a shadow. What would lose rows, or refuse them, is said.
  const refused = yield* Effect.flip(Draft.difference(namespace, first, [LaterTodos], { shadow }))
  yield* Console.log(`${refused._tag}: ${refused.message}\n`)

  const draft = yield* Draft.difference(namespace, first, [LaterTodos], {
    shadow,
    renames: { columns: { todos: { title: "text" } } },
    defaults: { todos: { rank: 0 } }
  })
  for (const change of draft.changes) yield* Console.log(Draft.describe(change))
  yield* Migrator.up(namespace, { ...first, "0002_rank": Draft.migration(draft) })

  // And back: from the catalogue to TypeScript, here the first of its declarations.
  const tables = yield* Introspection.read
  const source = Typings.generate(tables, { dialect: "sqlite", source: "the database of namespace todos" })
  yield* Console.log(`\n${source.slice(source.indexOf("export const"), source.indexOf("export type")).trimEnd()}`)
})

program.pipe(
  Effect.provide(Sqlite.layerMemory),
  Logger.withMinimumLogLevel(LogLevel.Warning),
  NodeRuntime.runMain
)

/* It prints:

0001_todos.up.pg.sql
0001_todos.up.sqlite.sql
0001_todos.down.pg.sql
0001_todos.down.sqlite.sql
-- table added: todos

CREATE TABLE "todos" (
  "id" TEXT NOT NULL,
  "title" TEXT NOT NULL,
  "state" TEXT NOT NULL CONSTRAINT "todos$state$check" CHECK ("state" IN ('open', 'done')),
  "createdAt" TEXT NOT NULL CONSTRAINT "todos$createdAt$check" CHECK (strftime('%Y-%m-%dT%H:%M:%fZ', "createdAt") IS "createdAt" AND substr("createdAt", 12, 2) < '24' AND "createdAt" >= '0001'),
  CONSTRAINT "todos$key" PRIMARY KEY ("id")
) STRICT;
CREATE INDEX "todos$state$index" ON "todos" ("state");

LossyChange: column dropped: todos.title (text); its values are lost
say allowLossy: true if that is meant, or name a rename

column renamed: todos.text (title → text)
values changed: todos.state (open, done → open, done, dropped)
column added: todos.rank (integer)
index added: todos (rank)

export const TodosRow = Schema.Struct({
  id: Schema.String,
  text: Schema.String,
  state: Schema.Literal("open", "done", "dropped"),
  createdAt: Schema.DateFromSelf,
  rank: Schema.Int
})

*/
