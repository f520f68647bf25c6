/** Tables: what compiles, and the types it has. */
import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { DocumentModel, Processor, Table } from "../../src/index.js"

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const check = <_T extends true>() => undefined

export const Todos = Table.make(
  "todos",
  Schema.Struct({
    list: Schema.String,
    id: Schema.Int,
    title: Schema.String,
    owner: Schema.NullOr(Schema.String),
    n: Schema.Int,
    cents: Schema.NullOr(Schema.BigInt),
    rank: Schema.NumberFromString,
    at: Schema.Date
  }),
  { key: ["list", "id"], unique: [["title"]], indexes: [["owner", "at"]] }
)

const key = { list: "l", id: 1 }
const rest = { title: "", owner: null, rank: 1, at: new Date(0) }

const inserted = Todos.insert({ ...key, ...rest, n: 0, cents: 1n })
check<Equals<typeof inserted, Effect.Effect<void, SqlError, SqlClient.SqlClient>>>()
Todos.upsert({ ...key, ...rest, n: 0, cents: null })
Todos.insertAll([{ ...key, ...rest, n: 0, cents: 1n }])
const upserted = Todos.upsertAll(new Set([{ ...key, ...rest, n: 0, cents: null }]))
check<Equals<typeof upserted, Effect.Effect<void, SqlError, SqlClient.SqlClient>>>()
Todos.update(key, { title: "t", owner: null })
Todos.update(key, {})
Todos.increment(key, { n: 1 })
Todos.increment(key, { n: 1, cents: -2n })
Todos.increment(key, { n: 1 }, { ...rest, cents: null })
Todos.increment(key, { n: 1, cents: 2n }, rest)
Todos.delete(key)
Todos.find({})
Todos.find({ owner: null, list: "l" }, { limit: 10 })
Todos.prefetch([key])

const got = Todos.get(key)
type Row = {
  readonly list: string
  readonly id: number
  readonly title: string
  readonly owner: string | null
  readonly n: number
  readonly cents: bigint | null
  readonly rank: number
  readonly at: Date
}
check<Equals<Effect.Effect.Success<typeof got>, Option.Option<Row>>>()
check<Equals<Effect.Effect.Error<typeof got>, SqlError>>()

// A row of a class is its instance.
class Point extends Schema.Class<Point>("Point")({ id: Schema.String, x: Schema.Number }) {}
export const Points = Table.make("points", Point, { key: ["id"] })
const point = Points.get({ id: "p" })
check<Equals<Effect.Effect.Success<typeof point>, Option.Option<Point>>>()

// A handler of table operations fails with SqlError alone, and needs a SqlClient alone.
const Model = DocumentModel.make("acme/todo", { ADD: Schema.Struct({ id: Schema.Int }) })
const handler = Processor.onOperations(Model, {
  ADD: ({ input }) => Effect.zipRight(Todos.get({ list: "l", id: input.id }), Todos.delete({ list: "l", id: input.id }))
}, { prefetch: { ADD: ({ input }) => Todos.prefetch([{ list: "l", id: input.id }]) } })
check<Equals<Effect.Effect.Context<ReturnType<typeof handler.run>>, SqlClient.SqlClient>>()
