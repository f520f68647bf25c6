/** Ways around the transaction that the query runs in. */
import * as Effect from "effect/Effect"
import { Query } from "../../../src/index.js"

interface Tables {
  readonly todos: { readonly id: string }
}

export const queries = Effect.gen(function*() {
  const query = yield* Query.kysely<Tables>()
  yield* query((db) => db.transaction())
  yield* query((db) => db.destroy())
  yield* query((db) => db.connection())
  yield* query((db) => db.schema.dropTable("todos"))
  yield* query((db) => db.selectFrom("todos").selectAll().execute())
})
