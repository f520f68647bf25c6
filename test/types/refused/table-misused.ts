/** A table's columns are those of its Schema, and each takes what its Schema says. */
import * as Schema from "effect/Schema"
import { DocumentModel, Processor, Table } from "../../../src/index.js"
import { Todos } from "../Tables.js"

const key = { list: "l", id: 1 }
const rest = { title: "", owner: null, rank: 1, at: new Date(0) }

export const keyMisspelt = Table.make("t", Schema.Struct({ id: Schema.String }), { key: ["ID"] })
export const uniqueMisspelt = Table.make("t", Schema.Struct({ id: Schema.String }), { key: ["id"], unique: [["mail"]] })
export const columnMissing = Todos.insert({ ...key, ...rest, n: 0 })
export const columnWrong = Todos.insert({ ...key, ...rest, n: "0", cents: null })
export const columnUnknown = Todos.upsert({ ...key, ...rest, n: 0, cents: null, done: true })
export const columnMissingOfMany = Todos.insertAll([{ ...key, ...rest, n: 0, cents: null }, { ...key, ...rest, n: 0 }])
export const columnUnknownOfMany = Todos.upsertAll([{ ...key, ...rest, n: 0, cents: null, done: true }])
export const keyIncomplete = Todos.get({ list: "l" })
export const keyUpdated = Todos.update(key, { id: 2 })
export const updateWrong = Todos.update(key, { owner: 1 })
export const nullWrong = Todos.update(key, { title: null })
export const incrementText = Todos.increment(key, { title: 1 })
export const incrementTextToo = Todos.increment(key, { n: 1, title: 1 })
export const incrementParsed = Todos.increment(key, { rank: 1 })
export const incrementWrong = Todos.increment(key, { cents: 1 })
export const restIncomplete = Todos.increment(key, { n: 1 }, rest)
export const findUnknown = Todos.find({ done: true })

const Model = DocumentModel.make("acme/todo", { ADD: Schema.Struct({ id: Schema.Int }) })
export const prefetchMisspelt = Processor.onOperations(Model, {}, { prefetch: { AD: () => Todos.prefetch([key]) } })
