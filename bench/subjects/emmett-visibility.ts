/**
 * Emmett: from the append to its event store until the row of a projection of its running consumer can be read. Its consumer
 * rests after each look that finds less than a batch: a tenth of a second at first, twice as long each time, up to a second.
 *
 *     node emmett-visibility.js <strands.ndjson> <file or URL>
 */
import pg from "pg"
import { report } from "../support/Subject.js"
import * as Emmett from "./emmett.js"
import { isPostgres } from "./processor.js"
import * as Search from "./search.js"
import * as Visibility from "./visibility.js"

const [input = "", database = ""] = process.argv.slice(2)
const emmett = await Emmett.packages()

/** The event store and a consumer that is running. */
const onPostgres = async () => {
  const store = emmett.getPostgreSQLEventStore(database)
  await store.schema.migrate()
  const client = new pg.Client({ connectionString: database })
  await client.connect()
  await client.query(Search.pg.createTable)
  await client.end()
  const consumer = emmett.postgreSQLEventStoreConsumer({ connectionString: database, pulling: {} })
  consumer.projector({
    processorId: "search",
    projection: Emmett.projectionPostgres(emmett, types)
  })
  return { store, consumer }
}

/** Two connections, as two processes have them: transactions of one would be inside each other. */
const onSqlite = async () => {
  const open = async () => {
    const connection = emmett.sqliteConnection({ fileName: database })
    await connection.command("PRAGMA synchronous = 2")
    await connection.command("PRAGMA busy_timeout = 5000")
    const options = { fileName: database, connectionOptions: { singleton: true, connection } } as const
    return { connection, store: emmett.getSQLiteEventStore(options) }
  }
  const [here, there] = [await open(), await open()]
  await here.store.schema.migrate()
  await here.connection.command(Search.sqlite.createTable)
  const consumer = there.store.consumer({ pulling: {} })
  consumer.processor({
    processorId: "search",
    projection: Emmett.projectionSqlite(emmett, types)
  })
  return { store: here.store, consumer }
}

const started = performance.now()
const { types } = await Emmett.survey(input)
const { consumer, store } = isPostgres(database) ? await onPostgres() : await onSqlite()
const running = consumer.start()
const failed = running.then(() => Promise.reject(new Error("the consumer has stopped")))
const reader = await Visibility.reader(database)
const measured = Visibility.measure(
  input,
  async (strand) => store.appendToStream(Emmett.streamOf(strand), Emmett.eventsOf(strand)),
  reader.find
)
const { latency, operations } = await Promise.race([measured, failed])
await report({ operations, commits: 2 * operations, started, latency }, reader.table)
// Its consumer runs on, and its pools would keep the process alive.
process.exit()
