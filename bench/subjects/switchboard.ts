/**
 * What all Powerhouse subjects share: its stores, made as its server, the switchboard, makes them, the search index as a
 * `RelationalDbProcessor`, and how a recorded strand becomes the operations that its processor manager is given.
 *
 *     operations ──▶ ProcessorManager.indexOperations ──▶ onOperations ──▶ INSERT, INSERT, …
 *     the reactor's own store: `pg` or PGlite              the processors' store: Knex, on either
 */
import { join } from "node:path"
import type * as Strands from "../support/Strands.js"
import { isPostgres } from "./processor.js"
import * as Search from "./search.js"

export interface OperationWithContext {
  readonly operation: {
    readonly id: string
    readonly index: number
    readonly skip: number
    readonly hash: string
    readonly timestampUtcMs: string
    readonly action: {
      readonly id: string
      readonly type: string
      readonly scope: string
      readonly timestampUtcMs: string
      readonly input: unknown
    }
  }
  readonly context: {
    readonly documentId: string
    readonly documentType: string
    readonly scope: string
    readonly branch: string
    readonly ordinal: number
    readonly resultingState: string
  }
}

export interface Kysely {
  readonly schema: {
    readonly createTable: (name: string) => TableBuilder
    readonly createIndex: (name: string) => IndexBuilder
  }
  readonly insertInto: {
    (table: "search_index"): {
      readonly values: (row: Search.SearchRow) => {
        readonly onConflict: (
          clause: (builder: {
            readonly column: (name: "id") => { readonly doUpdateSet: (row: Partial<Search.SearchRow>) => unknown }
          }) => unknown
        ) => { readonly execute: () => Promise<unknown> }
      }
    }
    (table: "entry"): { readonly values: (row: Entry) => { readonly execute: () => Promise<unknown> } }
  }
  readonly selectFrom: {
    (table: "search_index"): {
      readonly selectAll: () => Selection & {
        readonly where: (column: "id", is: "=", value: string) => Selection
      }
    }
    (table: "entry"): { readonly selectAll: () => { readonly execute: () => Promise<Array<Entry>> } }
  }
  readonly createNamespace: (namespace: string) => Promise<Kysely>
  readonly destroy: () => Promise<void>
}

/** A row of the tables that are only made. */
interface Entry {
  readonly id: string
  readonly title: string
}

interface Selection {
  readonly execute: () => Promise<Array<Search.SearchRow>>
}

interface TableBuilder {
  readonly addColumn: (
    name: string,
    type: "text",
    build?: (column: { readonly primaryKey: () => unknown; readonly notNull: () => unknown }) => unknown
  ) => TableBuilder
  readonly ifNotExists: () => TableBuilder
  readonly execute: () => Promise<unknown>
}

interface IndexBuilder {
  readonly ifNotExists: () => IndexBuilder
  readonly on: (table: string) => IndexBuilder
  readonly column: (name: string) => IndexBuilder
  readonly execute: () => Promise<unknown>
}

interface Filter {
  readonly branch: ReadonlyArray<string>
  readonly scope: ReadonlyArray<string>
  readonly documentType?: ReadonlyArray<string>
}

type Constructor<Options, Made = object> = new(options: Options) => Made

export interface ProcessorManager {
  readonly indexOperations: (operations: ReadonlyArray<OperationWithContext>) => Promise<void>
  readonly registerFactory: (
    identifier: string,
    factory: (driveHeader: { readonly id: string }) => Promise<ReadonlyArray<{ processor: object; filter: Filter }>>
  ) => Promise<void>
  readonly getAll: () => ReadonlyArray<{ readonly status: string; readonly lastOrdinal: number; lastError?: string }>
}

interface ReactorBuilder {
  readonly withKysely: (kysely: object) => ReactorBuilder
  readonly buildModule: () => Promise<{ readonly processorManager: ProcessorManager }>
}

/** The packages of `test/powerhouse`, as far as this program needs them. */
interface Packages {
  readonly reactor: { readonly ReactorBuilder: new() => ReactorBuilder }
  readonly processors: {
    readonly RelationalDbProcessor: {
      new(namespace: string, filter: Filter, relationalDb: Kysely): { readonly relationalDb: Kysely }
      getNamespace(driveId: string): string
    }
    readonly createRelationalDb: (db: Kysely) => Kysely
  }
  readonly kysely: {
    readonly Kysely: Constructor<{ readonly dialect: object }, Kysely>
    readonly PostgresDialect: Constructor<{ readonly pool: object }>
  }
  readonly kyselyKnex: {
    readonly KyselyKnexDialect: Constructor<{ readonly knex: object; readonly kyselySubDialect: object }>
    readonly PGColdDialect: new() => object
  }
  readonly kyselyPglite: { readonly PGliteDialect: Constructor<object> }
  readonly AtomicNodeFs: new(directory: string, options: { readonly flushIntervalMs: number }) => object
  readonly PGlite: Constructor<{ readonly fs: object }>
  readonly knex: (options: { readonly client: unknown; readonly connection: object }) => object
  readonly knexPglite: unknown
  readonly pg: { readonly Pool: Constructor<{ readonly connectionString: string }> }
}

/** The packages are installed in `test/powerhouse`, which this program reaches from where it is compiled to. */
const packages = await import(new URL("../../../test/powerhouse/packages.mjs", import.meta.url).href) as Packages
const { kysely: { Kysely, PostgresDialect }, kyselyKnex, kyselyPglite, processors } = packages

/** What the switchboard has unless it is told otherwise: a snapshot at most every tenth of a second. */
const flushIntervalMs = 100

const pgliteIn = (database: string, folder: string) =>
  new packages.PGlite({ fs: new packages.AtomicNodeFs(join(database, folder), { flushIntervalMs }) })

const reactorStore = (database: string): Kysely =>
  new Kysely({
    dialect: isPostgres(database)
      ? new PostgresDialect({ pool: new packages.pg.Pool({ connectionString: database }) })
      : new kyselyPglite.PGliteDialect(pgliteIn(database, "reactor-storage"))
  })

/** The processors' store: a URL, or a directory for PGlite. */
export const relationalStore = (database: string): Kysely =>
  processors.createRelationalDb(
    new Kysely({
      dialect: new kyselyKnex.KyselyKnexDialect({
        knex: isPostgres(database)
          ? packages.knex({ client: "pg", connection: { connectionString: database } })
          : packages.knex({ client: packages.knexPglite, connection: { pglite: pgliteIn(database, "read-storage") } }),
        kyselySubDialect: new kyselyKnex.PGColdDialect()
      })
    })
  )

export class SearchIndexer extends processors.RelationalDbProcessor {
  async initAndUpgrade(): Promise<void> {
    await this.relationalDb.schema.createTable("search_index").ifNotExists()
      .addColumn("id", "text", (column) => column.primaryKey())
      .addColumn("document_id", "text", (column) => column.notNull())
      .addColumn("content", "text", (column) => column.notNull())
      .addColumn("updated_at", "text", (column) => column.notNull())
      .execute()
  }

  async onOperations(operations: ReadonlyArray<OperationWithContext>): Promise<void> {
    for (const { context, operation: { action, timestampUtcMs } } of operations) {
      const { input: given, type } = action
      const row = Search.rowOf(context.documentId, { type, timestamp: timestampUtcMs, input: given })
      await this.relationalDb.insertInto("search_index").values(row)
        .onConflict((conflict) =>
          conflict.column("id").doUpdateSet({ content: row.content, updated_at: row.updated_at })
        )
        .execute()
    }
  }

  onDisconnect(): Promise<void> {
    return Promise.resolve()
  }

  table(): Promise<Array<Search.SearchRow>> {
    return this.relationalDb.selectFrom("search_index").selectAll().execute()
  }

  async find(id: string): Promise<Search.SearchRow | undefined> {
    return (await this.relationalDb.selectFrom("search_index").selectAll().where("id", "=", id).execute())[0]
  }
}

type Operation = Strands.RecordedStrand["operations"][number]

export const toOperation = (
  strand: Strands.RecordedStrand,
  recorded: Operation,
  ordinal: number
): OperationWithContext => {
  const { branch, documentId, documentType, scope } = strand
  const { hash, index, skip, state, timestamp: timestampUtcMs, type } = recorded
  const id = recorded.id ?? `${documentId}:${scope}:${index}`
  return {
    operation: {
      id,
      index,
      skip,
      hash,
      timestampUtcMs,
      action: { id, type, scope, timestampUtcMs, input: recorded.input }
    },
    context: {
      documentId,
      documentType,
      scope,
      branch,
      ordinal,
      resultingState: JSON.stringify({ header: { id: documentId, documentType }, [scope]: state })
    }
  }
}

/** The first operation of all: it makes the drive, and the manager makes the processors for it. */
export const createDrive = (driveId: string): OperationWithContext => {
  const drive = {
    driveId,
    documentId: driveId,
    documentType: "powerhouse/document-drive",
    scope: "document",
    branch: "main",
    operations: []
  }
  const recorded = { index: 0, skip: 0, hash: "", type: "CREATE_DOCUMENT", timestamp: "2026-01-01T00:00:00.000Z" }
  return toOperation(drive, { ...recorded, input: { documentId: driveId, model: drive.documentType } }, 1)
}

/** A reactor whose processor manager makes the search index for each drive; `made` has those it made. */
export const reactor = async (
  database: string
): Promise<{ readonly manager: ProcessorManager; readonly made: ReadonlyArray<SearchIndexer> }> => {
  const made: Array<SearchIndexer> = []
  const manager = await managerOf(database, async (relationalDb, driveId) => {
    const namespace = SearchIndexer.getNamespace(driveId)
    const filter = { branch: ["main"], scope: ["global", "local"] }
    const processor = new SearchIndexer(namespace, filter, await relationalDb.createNamespace(namespace))
    await processor.initAndUpgrade()
    made.push(processor)
    return [{ processor, filter }]
  })
  return { manager, made }
}

/** A reactor's processor manager, which makes these processors for each drive. */
export const managerOf = async (
  database: string,
  factory: (relationalDb: Kysely, driveId: string) => Promise<ReadonlyArray<{ processor: object; filter: Filter }>>
): Promise<ProcessorManager> => {
  const relationalDb = relationalStore(database)
  const { processorManager } = await new packages.reactor.ReactorBuilder().withKysely(reactorStore(database))
    .buildModule()
  await processorManager.registerFactory("bench", ({ id }) => factory(relationalDb, id))
  return processorManager
}

/** A processor that writes a row for each operation it is given. */
export class Scribe extends processors.RelationalDbProcessor {
  constructor(readonly name: string, filter: Filter, relationalDb: Kysely) {
    super("fanout", filter, relationalDb)
  }

  async onOperations(operations: ReadonlyArray<OperationWithContext>): Promise<void> {
    for (const { operation: { action, id } } of operations) {
      await this.relationalDb.insertInto("entry").values({ id: `${this.name}/${id}`, title: action.type }).execute()
    }
  }

  onDisconnect(): Promise<void> {
    return Promise.resolve()
  }
}

/** Throws when a processor has failed: the manager goes on without it, and says nothing. */
export const checkActive = (manager: ProcessorManager): void => {
  const failed = manager.getAll().find(({ status }) => status !== "active")
  if (failed !== undefined) throw new Error(`the processor stopped: ${failed.lastError}`)
}
