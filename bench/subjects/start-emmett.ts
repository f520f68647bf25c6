/**
 * The start of an Emmett consumer with one projection, whose tables are there, to its first handled event. The event was
 * appended by a process before: `append` makes the tables where they are missing, and appends one.
 *
 *     node start-emmett.js sqlite|pg <file or url> <name>          the start
 *     node start-emmett.js sqlite|pg <file or url> <name> append   the event before
 */
import * as Emmett from "./emmett.js"
import * as Search from "./search.js"

const [dialect = "", target = "", name = "", step = "start"] = process.argv.slice(2)
const emmett = await Emmett.packages()
const event = { type: "START", data: { documentId: name, timestamp: "2026-01-01T00:00:00.000Z", input: {} } }
const createTable = (statements: Search.Statements) => statements.createTable.replace("TABLE", "TABLE IF NOT EXISTS")

/** Without `startFrom` it begins again at the first event of all. */
const shared = {
  processorId: "start",
  startFrom: "CURRENT",
  stopAfter: ({ data }: Emmett.OperationEvent) => data.documentId === name
} as const

/** Stops the clock, then looks whether the event is in the table. */
const tell = async (table: () => Promise<ReadonlyArray<Search.SearchRow>>) => {
  const startMillis = performance.now()
  if ((await table()).every(({ document_id }) => document_id !== name)) throw new Error("the event left no row")
  process.stdout.write(`${JSON.stringify({ startMillis })}\n`)
}

const query = async (text: string) => {
  const { default: pg } = await import("pg")
  const client = new pg.Client({ connectionString: target })
  await client.connect()
  const { rows } = await client.query<Search.SearchRow>(text)
  await client.end()
  return rows
}

const onPostgres = {
  append: async () => {
    const store = emmett.getPostgreSQLEventStore(target)
    await store.schema.migrate()
    await store.appendToStream(name, [event])
    await store.close()
    await query(createTable(Search.pg))
  },
  start: async () => {
    const consumer = emmett.postgreSQLEventStoreConsumer({ connectionString: target, pulling: {} })
    consumer.projector({
      ...shared,
      projection: Emmett.projectionPostgres(emmett, [event.type])
    })
    await consumer.start()
    await tell(() => query(Search.selectAll))
    await consumer.close()
  }
}

const onSqlite = {
  append: async () => {
    const connection = emmett.sqliteConnection({ fileName: target })
    const store = emmett.getSQLiteEventStore(optionsOf(connection))
    await store.schema.migrate()
    await store.appendToStream(name, [event])
    await connection.command(createTable(Search.sqlite))
    connection.close()
  },
  start: async () => {
    const connection = emmett.sqliteConnection({ fileName: target })
    const consumer = emmett.getSQLiteEventStore(optionsOf(connection)).consumer({ pulling: {} })
    consumer.processor({
      ...shared,
      projection: Emmett.projectionSqlite(emmett, [event.type])
    })
    await consumer.start()
    await tell(() => connection.query(Search.selectAll))
    connection.close()
  }
}

const optionsOf = (connection: Emmett.SqliteConnection) => ({
  fileName: target,
  connectionOptions: { singleton: true as const, connection }
})

const on = dialect === "sqlite" ? onSqlite : onPostgres
await (step === "append" ? on.append() : on.start())
