/** Tables, columns and values that are not those of the database. */
import * as Effect from "effect/Effect"
import type { Generated } from "kysely"
import { Query } from "../../../src/index.js"

interface Tables {
  readonly todos: { readonly id: string; readonly title: string; readonly done: Generated<number> }
}

export const queries = Effect.gen(function*() {
  const query = yield* Query.kysely<Tables>()
  yield* query((db) => db.selectFrom("todo").selectAll())
  yield* query((db) => db.selectFrom("todos").select("titel"))
  yield* query((db) => db.selectFrom("todos").selectAll().where("titel", "=", "a"))
  yield* query((db) => db.selectFrom("todos").selectAll().where("title", "=", 1))
  yield* query((db) => db.insertInto("todos").values({ id: "1", title: 1 }))
  yield* query((db) => db.insertInto("todos").values({ id: "1", title: "a", titel: "a" }))
  yield* query((db) => db.insertInto("todos").values({ id: "1" }))
  yield* query((db) => db.updateTable("todos").set({ titel: "a" }))
})
