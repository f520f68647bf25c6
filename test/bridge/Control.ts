/**
 * Control: how the real system runs a processor, as the control of the kill tests: each statement is a transaction of its
 * own, and the cursor is written after the call, apart from it.
 */
import { Kysely, PostgresDialect, sql } from "kysely"
import pg from "pg"
import * as Position from "../../src/domain/Position.js"
import type { Source } from "../../src/index.js"
import * as Delivery from "../../src/powerhouse/Delivery.js"
import { Balances } from "./Legacy.js"
import type { BalanceDatabase, OperationWithContext } from "./Legacy.js"
import { processors } from "./Real.js"

const driveId = "b443d823-3e4d-4e60-ae44-45edafd5f632"

export const run = async (url: string, strands: ReadonlyArray<Source.Unplaced>): Promise<void> => {
  const db = new Kysely<unknown>({
    dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: url, max: 2 }) })
  })
  const namespace = Balances.getNamespace(driveId)
  const own = await processors.createRelationalDb(db).createNamespace<BalanceDatabase>(namespace)
  const processor = new Balances(namespace, {}, own)
  await processor.initAndUpgrade()
  await sql`CREATE TABLE IF NOT EXISTS "ProcessorCursor" (id TEXT PRIMARY KEY, "lastOrdinal" INTEGER)`.execute(db)
  const { rows } = await sql<{ lastOrdinal: number }>`SELECT "lastOrdinal" FROM "ProcessorCursor"`.execute(db)
  const last = rows[0]?.lastOrdinal ?? 0
  for (const [i, strand] of strands.entries()) {
    if (i + 1 <= last) continue
    const operations = Delivery.operations({ ...strand, position: Position.make(BigInt(i + 1)) })
    await processor.onOperations(operations as ReadonlyArray<OperationWithContext>)
    await sql`
      INSERT INTO "ProcessorCursor" VALUES ('1', ${i + 1})
      ON CONFLICT (id) DO UPDATE SET "lastOrdinal" = excluded."lastOrdinal"`.execute(db)
  }
  await db.destroy()
}
