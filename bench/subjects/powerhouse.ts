/**
 * The real Powerhouse reactor 6.2.2: its processor manager routes recorded operations to a `RelationalDbProcessor`, which
 * upserts a row for each through Kysely. Both its stores are made as its server, the switchboard, makes them: the reactor's
 * on `pg` or PGlite, the processors' through Knex.
 *
 *     strand ──▶ OperationWithContext[] ──▶ ProcessorManager.indexOperations ──▶ onOperations ──▶ INSERT, INSERT, …
 *
 * Before the clock starts, the strands are parsed and turned into operations, the reactor has migrated its tables, and a
 * drive has been made, so that the processor is there. `live` hands over a strand at a time, as a reactor does a job's
 * operations; `pages` hands over 500 operations at a time, as it does when a processor catches up. `latency` is `live`, with
 * each call and each read of a row measured.
 *
 *     node powerhouse.js <strands.ndjson> <directory or URL> live|pages|latency
 */
import { join } from "node:path"
import * as Quantiles from "../support/Quantiles.js"
import * as Strands from "../support/Strands.js"
import { report } from "../support/Subject.js"
import { isPostgres } from "./processor.js"
import * as Reads from "./reads.js"
import * as Search from "./search.js"

interface OperationWithContext {
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

interface Kysely {
  readonly schema: {
    readonly createTable: (name: string) => TableBuilder
  }
  readonly insertInto: (table: "search_index") => {
    readonly values: (row: Search.SearchRow) => {
      readonly onConflict: (
        clause: (builder: {
          readonly column: (name: "id") => { readonly doUpdateSet: (row: Partial<Search.SearchRow>) => unknown }
        }) => unknown
      ) => { readonly execute: () => Promise<unknown> }
    }
  }
  readonly selectFrom: (table: "search_index") => {
    readonly selectAll: () => Selection & {
      readonly where: (column: "id", is: "=", value: string) => Selection
    }
  }
  readonly createNamespace: (namespace: string) => Promise<Kysely>
  readonly destroy: () => Promise<void>
}

interface Selection {
  readonly execute: () => Promise<Array<Search.SearchRow>>
}

interface TableBuilder {
  readonly addColumn: (
    name: string,
    type: "text",
    build: (column: { readonly primaryKey: () => unknown; readonly notNull: () => unknown }) => unknown
  ) => TableBuilder
  readonly ifNotExists: () => TableBuilder
  readonly execute: () => Promise<unknown>
}

interface Filter {
  readonly branch: ReadonlyArray<string>
  readonly scope: ReadonlyArray<string>
}

type Constructor<Options, Made = object> = new(options: Options) => Made

interface ProcessorManager {
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

const [input = "", database = "", how = "live"] = process.argv.slice(2)

/** The packages are installed in `test/powerhouse`, which this program reaches from where it is compiled to. */
const packages = await import(new URL("../../../test/powerhouse/packages.mjs", import.meta.url).href) as Packages
const { kysely: { Kysely, PostgresDialect }, kyselyKnex, kyselyPglite, processors } = packages

/** What the switchboard has unless it is told otherwise: a snapshot at most every tenth of a second. */
const flushIntervalMs = 100

const pgliteIn = (folder: string) =>
  new packages.PGlite({ fs: new packages.AtomicNodeFs(join(database, folder), { flushIntervalMs }) })

const reactorStore = () =>
  new Kysely({
    dialect: isPostgres(database)
      ? new PostgresDialect({ pool: new packages.pg.Pool({ connectionString: database }) })
      : new kyselyPglite.PGliteDialect(pgliteIn("reactor-storage"))
  })

const relationalStore = () =>
  new Kysely({
    dialect: new kyselyKnex.KyselyKnexDialect({
      knex: isPostgres(database)
        ? packages.knex({ client: "pg", connection: { connectionString: database } })
        : packages.knex({ client: packages.knexPglite, connection: { pglite: pgliteIn("read-storage") } }),
      kyselySubDialect: new kyselyKnex.PGColdDialect()
    })
  })

class SearchIndexer extends processors.RelationalDbProcessor {
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

const toOperation = (strand: Strands.RecordedStrand, recorded: Operation, ordinal: number): OperationWithContext => {
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
const createDrive = (driveId: string): OperationWithContext => {
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

const pageOperations = 500

const handovers = async () => {
  const calls: Array<Array<OperationWithContext>> = []
  let ordinal = 1
  for await (const strand of Strands.read(input)) {
    const operations = strand.operations.map((recorded) => toOperation(strand, recorded, ++ordinal))
    const last = calls.at(-1)
    if (how === "pages" && last !== undefined && last.length + operations.length <= pageOperations) {
      last.push(...operations)
    } else if (operations.length > 0) calls.push(operations)
  }
  return calls
}

const calls = await handovers()
const relationalDb = processors.createRelationalDb(relationalStore())
const { processorManager } = await new packages.reactor.ReactorBuilder().withKysely(reactorStore()).buildModule()
const made: Array<SearchIndexer> = []
await processorManager.registerFactory("search", async ({ id }) => {
  const namespace = SearchIndexer.getNamespace(id)
  const filter = { branch: ["main"], scope: ["global", "local"] }
  const processor = new SearchIndexer(namespace, filter, await relationalDb.createNamespace(namespace))
  await processor.initAndUpgrade()
  made.push(processor)
  return [{ processor, filter }]
})
await processorManager.indexOperations([createDrive("bench-drive")])

const indexer = made[0]!
const started = performance.now()
const callMillis: Array<number> = []
let operations = 0
for (const call of calls) {
  const begun = performance.now()
  await processorManager.indexOperations(call)
  callMillis.push(performance.now() - begun)
  operations += call.length
}
// Each row, each cursor and each state of the manager is a transaction of its own.
const done = { operations, commits: operations + 2 * calls.length, started }
if (how === "latency") {
  const keys = Search.keysOf(await indexer.table())
  const read = await Reads.measure(keys, (id) => indexer.find(id))
  await report({ ...done, latency: { commit: Quantiles.make(callMillis), read } }, () => indexer.table())
} else await report(done, () => indexer.table())
const failed = processorManager.getAll().find(({ status }) => status !== "active")
if (failed !== undefined) throw new Error(`the processor stopped: ${failed.lastError}`)
// Its pools and timers would keep the process alive.
process.exit()
