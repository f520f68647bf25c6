/**
 * migrator: a process that migrates when it is told to, so that many can race and each can be killed.
 *
 *     stdin:   a line of JSON for each order        stdout:   "ready", then a line of JSON for each answer
 *
 * Orders: `race` migrates with ours or with the stock migrator and reads at once what has to be there; `hang` stands still
 * before a statement, and waits to be killed; `place` opens namespaces in places of their own and migrates them.
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as StockMigrator from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import { createInterface } from "node:readline"
import { pathToFileURL } from "node:url"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import { Migrator, Namespace } from "../../src/index.js"
import type { Migration } from "../../src/index.js"
import type { Database } from "../support/Database.js"
import * as Store from "../support/Store.js"

export type Order =
  | {
    readonly kind: "race"
    readonly database: Database
    readonly migrator: "ours" | "stock"
    readonly pauseMillis: number
  }
  | { readonly kind: "hang"; readonly database: Database; readonly at: number; readonly transactional: boolean }
  | { readonly kind: "place"; readonly database: Database; readonly names: ReadonlyArray<string> }

export type Answer =
  | { readonly kind: "migrated"; readonly applied: ReadonlyArray<string>; readonly isComplete: boolean }
  | { readonly kind: "failed"; readonly reason: string }
  | { readonly kind: "hangs" }

export const namespace = Namespace.make("raced")

/** The statements of a step; `half` is where a reader who does not wait would see half of it. */
const statementsOf = (step: number): ReadonlyArray<string> => [
  `CREATE TABLE race_${step} (id INTEGER PRIMARY KEY, title TEXT)`,
  `INSERT INTO race_${step} (id, title) VALUES (1, 'first')`,
  `CREATE INDEX race_${step}_title ON race_${step} (title)`,
  `INSERT INTO race_${step} (id, title) VALUES (2, 'second')`
]

export const stepNumbers = [1, 2, 3] as const

export const statementsMax = statementsOf(1).length

const idOf = (step: number): string => `000${step}_race`

/** Three steps of four statements, with `before` each of the second's; `pause` makes the race one. */
export const steps = (
  before: (statement: number) => Effect.Effect<unknown, SqlError> = () => Effect.void,
  pause: Effect.Effect<unknown> = Effect.void
): Migration.Migrations =>
  Object.fromEntries(stepNumbers.map((step): [string, Migration.Migration] => [idOf(step), {
    up: Effect.flatMap(SqlClient.SqlClient, (sql) =>
      Effect.gen(function*() {
        for (const [i, statement] of statementsOf(step).entries()) {
          if (step === 2) yield* before(i)
          yield* sql.unsafe(statement)
          yield* pause
        }
        if (step === 2) yield* before(statementsMax)
      })),
    down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE ${sql(`race_${step}`)}`)
  }]))

/** One step outside a transaction, which can be run twice. */
export const outside = (
  before: (statement: number) => Effect.Effect<unknown> = () => Effect.void
): Migration.Migrations => ({
  "0001_outside": {
    transactional: false,
    up: Effect.flatMap(SqlClient.SqlClient, (sql) =>
      Effect.gen(function*() {
        yield* before(0)
        yield* sql`CREATE TABLE IF NOT EXISTS outside (id INTEGER PRIMARY KEY)`
        yield* before(1)
        yield* sql`INSERT INTO outside (id) VALUES (1) ON CONFLICT DO NOTHING`
        yield* before(2)
      })),
    down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE IF EXISTS outside`)
  }
})

/** Whether every step is there with all its rows. */
export const isComplete: Effect.Effect<boolean, SqlError, SqlClient.SqlClient> = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    Effect.forEach(stepNumbers, (step) => sql<{ readonly n: number }>`SELECT count(*) AS n FROM ${sql(`race_${step}`)}`)
      .pipe(Effect.map((counts) => counts.every(([row]) => row?.n === 2)))
)

/** The store as a program opens it: a file that others have locked is waited for, for at most 30 seconds. */
const layer = (database: Database) =>
  (database.dialect === "sqlite"
    ? Sqlite.layer({ filename: database.filename })
    : Postgres.layer({ url: Redacted.make(database.url), maxConnections: 2 })).pipe(
      Layer.retry(
        Schedule.spaced("50 millis").pipe(
          Schedule.jittered,
          Schedule.upTo("5 minutes"),
          Schedule.whileInput((failure: unknown) =>
            typeof failure === "object" && failure !== null && "transient" in failure && failure.transient === true
          )
        )
      )
    )

const race = ({ migrator, pauseMillis }: Extract<Order, { readonly kind: "race" }>) =>
  Effect.gen(function*() {
    const migrations = steps(undefined, Effect.sleep(pauseMillis))
    const applied = migrator === "ours"
      ? (yield* Migrator.up(namespace, migrations)).steps.map(({ id }) => id)
      : (yield* stock(migrations)).map(([id, name]) => `${id}_${name}`)
    return { kind: "migrated", applied, isComplete: yield* isComplete } as const
  })

const stock = (migrations: Migration.Migrations) =>
  StockMigrator.make({})({
    loader: StockMigrator.fromRecord(
      Object.fromEntries(Object.entries(migrations).map(([id, { up }]) => [id, up]))
    )
  }).pipe(Effect.provide(Layer.merge(Reactivity.layer, NodeContext.layer)))

const hang = (order: Extract<Order, { readonly kind: "hang" }>) => {
  const before = (statement: number) =>
    statement === order.at
      ? Effect.zipRight(Effect.sync(() => tell({ kind: "hangs" })), Effect.never)
      : Effect.void
  return Effect.as(
    Migrator.up(namespace, order.transactional ? steps(before) : outside(before)),
    { kind: "hangs" } as const
  )
}

const place = ({ database, names }: Extract<Order, { readonly kind: "place" }>) =>
  Effect.gen(function*() {
    const owners = names.map((name) => ({ namespace: Namespace.make(name), migrations: steps(undefined, Effect.void) }))
    const summaries = yield* Migrator.upAll(owners)
    const complete = yield* Effect.forEach(names, (name) => Namespace.query(name, isComplete))
    return {
      kind: "migrated",
      applied: summaries.flatMap((summary) => summary.steps.map(({ id }) => `${summary.namespace} ${id}`)),
      isComplete: complete.every((each) => each)
    } as const
  }).pipe(Effect.provide(Store.layerMany(database)))

const obey = (order: Order): Effect.Effect<Answer> =>
  Effect.suspend((): Effect.Effect<Answer, unknown> => {
    if (order.kind === "place") return place(order)
    const work: Effect.Effect<Answer, unknown, SqlClient.SqlClient> = order.kind === "race" ? race(order) : hang(order)
    return Effect.provide(work, layer(order.database))
  }).pipe(
    Logger.withMinimumLogLevel(LogLevel.None),
    Effect.exit,
    Effect.map((exit): Answer =>
      Exit.isSuccess(exit) ? exit.value : { kind: "failed", reason: Cause.pretty(exit.cause).slice(0, 500) }
    )
  )

const tell = (answer: Answer): void => void process.stdout.write(`${JSON.stringify(answer)}\n`)

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  process.stdout.write("ready\n")
  for await (const line of createInterface({ input: process.stdin })) {
    tell(await Effect.runPromise(obey(JSON.parse(line) as Order)))
  }
}
