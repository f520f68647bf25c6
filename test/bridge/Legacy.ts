/**
 * Legacy: processors as users of the real system write them, over the published base class. Nothing in them knows of us.
 */
import type { ColumnType, Kysely } from "kysely"
import { sql } from "kysely"
import { processors } from "./Real.js"

const { RelationalDbProcessor } = processors

/** What `ph generate processor --type relationalDb` imports as `OperationWithContext`. */
export interface OperationWithContext {
  readonly operation: {
    readonly id: string
    readonly index: number
    readonly skip: number
    readonly hash: string
    readonly timestampUtcMs: string
    readonly error?: string
    readonly resultingState?: string
    readonly action: { readonly id: string; readonly type: string; readonly scope: string; readonly input: unknown }
  }
  readonly context: {
    readonly documentId: string
    readonly documentType: string
    readonly scope: string
    readonly branch: string
    readonly ordinal: number
    readonly resultingState?: string
  }
}

export interface Todo {
  task: string
  status: boolean | null
}

export interface TodoDatabase {
  todo: Todo
}

/** The migration that the code generator writes, in its words. */
const upTodo = async (db: Kysely<unknown>): Promise<void> => {
  await db.schema
    .createTable("todo")
    .addColumn("task", "varchar(255)")
    .addColumn("status", "boolean")
    .addPrimaryKeyConstraint("todo_pkey", ["task"])
    .ifNotExists()
    .execute()
}

/** What the code generator writes: one row an operation. */
export class TodoIndexer extends RelationalDbProcessor<TodoDatabase> {
  static override getNamespace(driveId: string): string {
    return super.getNamespace(driveId)
  }

  async initAndUpgrade(): Promise<void> {
    await upTodo(this.relationalDb as unknown as Kysely<unknown>)
  }

  async onOperations(operations: ReadonlyArray<OperationWithContext>): Promise<void> {
    if (operations.length === 0) return
    for (const { context, operation } of operations) {
      await this.relationalDb
        .insertInto("todo")
        .values({ task: `${context.documentId}-${operation.index}: ${operation.action.type}`, status: true })
        .execute()
    }
  }

  async onDisconnect(): Promise<void> {}
}

export interface BalanceDatabase {
  balance: { document_id: string; amount: number; operations: number }
  entry: {
    id: string
    document_id: string
    position: number
    amount: number
    note: string | null
    payload: string
    created_at: ColumnType<Date | string, string, string>
  }
}

/**
 * Counts on, so that an operation that is applied twice shows; with a join, an upsert, JSON, a date, a transaction of its
 * own and a fragment of SQL, as a processor that has grown has them.
 */
export class Balances extends RelationalDbProcessor<BalanceDatabase> {
  async initAndUpgrade(): Promise<void> {
    const db = this.relationalDb as unknown as Kysely<unknown>
    await db.schema.createTable("balance").ifNotExists()
      .addColumn("document_id", "varchar(255)", (column) => column.primaryKey())
      .addColumn("amount", "integer", (column) => column.notNull())
      .addColumn("operations", "integer", (column) => column.notNull())
      .execute()
    await db.schema.createTable("entry").ifNotExists()
      .addColumn("id", "varchar(255)", (column) => column.primaryKey())
      .addColumn("document_id", "varchar(255)", (column) => column.references("balance.document_id"))
      .addColumn("position", "integer", (column) => column.notNull())
      .addColumn("amount", "integer", (column) => column.notNull())
      .addColumn("note", "text")
      .addColumn("payload", "text", (column) => column.notNull())
      .addColumn("created_at", "timestamp", (column) => column.notNull())
      .execute()
    await db.schema.createIndex("entry_document").ifNotExists().on("entry").columns(["document_id"]).execute()
  }

  async onOperations(operations: ReadonlyArray<OperationWithContext>): Promise<void> {
    for (const { context, operation } of operations) {
      const input = operation.action.input as { readonly amount?: number; readonly note?: string } | undefined
      const amount = input?.amount ?? 0
      await this.relationalDb.transaction().execute(async (trx) => {
        await trx.insertInto("balance").values({ document_id: context.documentId, amount, operations: 1 })
          .onConflict((conflict) =>
            conflict.column("document_id").doUpdateSet({
              amount: sql`balance.amount + excluded.amount`,
              operations: sql`balance.operations + 1`
            })
          )
          .execute()
        const { n } = await trx.selectFrom("entry").select((eb) => eb.fn.countAll<number | string>().as("n"))
          .where("document_id", "=", context.documentId).executeTakeFirstOrThrow()
        await trx.insertInto("entry").values({
          id: operation.id,
          document_id: context.documentId,
          position: Number(n),
          amount,
          note: input?.note ?? null,
          payload: JSON.stringify(operation.action),
          created_at: operation.timestampUtcMs
        }).execute()
      })
    }
  }

  async onDisconnect(): Promise<void> {}
}
