/**
 * Drive analytics: how many operations each document had on each day.
 *
 *     batch ──fold──▶ a count per (day, document type, document) ──▶ one statement that adds them up
 *
 * The day is that of the operation's own timestamp, in UTC. Operations that the document's reducer refused are
 * operations too; `refused` says how many of them there were. Adding is right because each operation is committed once,
 * with the cursor, and redelivered ones never come this far.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import { Policy, Processor, Rows } from "../../src/index.js"
import type { Migration, Strand } from "../../src/index.js"

const migrations: Migration.Migrations = {
  "0001_drive_activity": {
    up: Effect.flatMap(SqlClient.SqlClient, (sql) =>
      sql`
        CREATE TABLE drive_activity (
          day TEXT NOT NULL,
          document_type TEXT NOT NULL,
          document_id TEXT NOT NULL,
          operations BIGINT NOT NULL,
          refused BIGINT NOT NULL,
          PRIMARY KEY (day, document_type, document_id)
        )`),
    down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE drive_activity`)
  }
}

/** Follows every document of the branch `main`. */
export const DriveAnalytics = Processor.make("drive-analytics", {
  namespace: "analytics",
  filter: { branch: ["main"] },
  migrations,
  handler: Effect.map(SqlClient.SqlClient, (sql) => Processor.onBatch((strands) => add(sql, fold(strands))))
}).pipe(Processor.withPolicy(Policy.standard))

interface Count {
  readonly day: string
  readonly document_type: string
  readonly document_id: string
  operations: number
  refused: number
}

const fold = (strands: ReadonlyArray<Strand.Strand>): ReadonlyArray<Count> => {
  // A document is of one type and a batch spans few days, so the list under a document id is short.
  const counts = new Map<string, Array<Count>>()
  for (const { documentId: document_id, documentType: document_type, operations } of strands) {
    const known = counts.get(document_id) ?? []
    counts.set(document_id, known)
    for (const operation of operations) {
      const day = operation.timestamp.slice(0, "2026-11-21".length)
      let count = known.find((each) => each.day === day && each.document_type === document_type)
      if (count === undefined) known.push(count = { day, document_type, document_id, operations: 0, refused: 0 })
      count.operations++
      if (operation.error !== undefined) count.refused++
    }
  }
  return Array.from(counts.values()).flat()
}

const columns = {
  day: "text",
  document_type: "text",
  document_id: "text",
  operations: "integer",
  refused: "integer"
} as const

const add = (sql: SqlClient.SqlClient, counts: ReadonlyArray<Count>): Effect.Effect<unknown, SqlError> =>
  // SQLite takes ON CONFLICT after a SELECT for a join constraint unless the SELECT has a WHERE.
  sql`
    INSERT INTO drive_activity (day, document_type, document_id, operations, refused)
    SELECT day, document_type, document_id, operations, refused
    FROM ${Rows.table(sql, "incoming", columns, counts)}
    WHERE TRUE
    ON CONFLICT (day, document_type, document_id)
    DO UPDATE SET operations = drive_activity.operations + excluded.operations,
                  refused = drive_activity.refused + excluded.refused`
