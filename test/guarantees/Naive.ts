/**
 * The naive loops that most projections are: the cursor is saved beside the transaction, not inside it; or inside it, and
 * nobody asks whose it is. The controls of the tests that kill and stop processes, which must find them out.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Ledger from "./Ledger.js"
import * as World from "./World.js"

/**
 * When the cursor is saved: after the writes, which repeats them, or before, which loses them; or with them, which repeats
 * them where two do it.
 */
export type Program = "cursor-after" | "cursor-before" | "cursor-unfenced"

export const run = (world: World.World, program: Program): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql.withTransaction(Effect.gen(function*() {
      const found = yield* Effect.either(sql.withTransaction(sql`SELECT position FROM naive_cursor`))
      if (found._tag === "Right") return
      yield* Ledger.migrations["0001_ledger"]!.up
      yield* sql`CREATE TABLE naive_cursor (position INTEGER NOT NULL)`
      yield* sql`INSERT INTO naive_cursor VALUES (0)`
    }))
    const [cursor] = yield* sql<{ readonly position: number }>`SELECT position FROM naive_cursor`
    const strands = World.strands(world)
    for (let position = cursor!.position; position < strands.length; position++) {
      const placed = { ...strands[position]!, position: BigInt(position + 1) } as Parameters<typeof Ledger.apply>[0]
      const writes = sql.withTransaction(
        Effect.forEach(placed.operations, (operation) => Ledger.apply(placed, operation), { discard: true })
      )
      const cursorSaved = sql`UPDATE naive_cursor SET position = ${position + 1}`
      yield* program === "cursor-after"
        ? Effect.zipRight(writes, cursorSaved)
        : program === "cursor-before"
        ? Effect.zipRight(cursorSaved, writes)
        : sql.withTransaction(Effect.zipRight(writes, cursorSaved))
    }
  })
