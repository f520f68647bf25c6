/**
 * Failures and processors that the fixtures of this folder share.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { DocumentModel, Policy, Processor } from "../../src/index.js"

export class RateLimited extends Data.TaggedError("RateLimited")<{ readonly retryAfterMillis: number }> {}

export class BadInput extends Data.TaggedError("BadInput")<{ readonly why: string }> {}

/** A service of the user's own. */
export class Translator extends Context.Tag("test/Translator")<Translator, {
  readonly translate: (text: string) => Effect.Effect<string, RateLimited>
}>() {}

export const Todo = DocumentModel.make("acme/todo", {
  ADD: Schema.Struct({ id: Schema.String, title: Schema.NonEmptyString }),
  COMPLETE: Schema.Struct({ id: Schema.String })
})

/** Fails with `RateLimited` and `BadInput`, needs `Translator`. */
export const Undecided = Processor.make("undecided", {
  namespace: "todos",
  handler: Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const translator = yield* Translator
    return Processor.onOperations(Todo, {
      ADD: ({ input }) =>
        Effect.gen(function*() {
          if (input.id === "") return yield* new BadInput({ why: "no id" })
          const title = yield* translator.translate(input.title)
          yield* sql`INSERT INTO todos ${sql.insert({ id: input.id, title })}`
        })
    })
  })
})

/** One tag short of decided. */
export const AlmostDecided = Undecided.pipe(Processor.withPolicy({ ...Policy.standard, BadInput: Policy.park }))
