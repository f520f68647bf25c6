/**
 * Emmett on SQLite: its consumer with a projection. Emmett hands a projection one event at a time and stores its checkpoint
 * after each, all events of a batch in one transaction. It sets WAL itself and leaves `synchronous` to its driver, which has
 * FULL; it is set here all the same, and read back.
 *
 *     node emmett-sqlite.js <strands.ndjson> <file> fill             makes the tables and appends the events
 *     node emmett-sqlite.js <strands.ndjson> <file> default|tuned    projects as many events as the file has
 */
import { report } from "../support/Subject.js"
import * as Emmett from "./emmett.js"
import * as Search from "./search.js"

const [input = "", fileName = "", how = "default"] = process.argv.slice(2)
const emmett = await Emmett.packages()

const open = async (synchronous: 0 | 2) => {
  const connection = emmett.sqliteConnection({ fileName })
  await connection.command(`PRAGMA synchronous = ${synchronous}`)
  const set = await connection.querySingle<{ synchronous: number }>("PRAGMA synchronous")
  const mode = await connection.querySingle<{ journal_mode: string }>("PRAGMA journal_mode")
  if (set?.synchronous !== synchronous || mode?.journal_mode !== "wal") throw new Error("SQLite refuses the pragmas")
  return { connection, options: { fileName, connectionOptions: { singleton: true, connection } } as const }
}

const fill = async () => {
  const { connection, options } = await open(0)
  const store = emmett.getSQLiteEventStore(options)
  await store.schema.migrate()
  await Emmett.fill(store, input)
  await connection.command(Search.sqlite.createTable)
  await connection.command("PRAGMA wal_checkpoint(TRUNCATE)")
  connection.close()
}

const project = async () => {
  const { operations, types } = await Emmett.survey(input)
  let handled = 0
  const started = performance.now()
  const { connection, options } = await open(2)
  const consumer = emmett.getSQLiteEventStore(options).consumer({ pulling: Emmett.pulling(how) })
  consumer.processor({
    processorId: "search",
    projection: Emmett.projectionSqlite(emmett, types, () => handled++),
    stopAfter: () => handled >= operations
  })
  await consumer.start()
  const done = { operations: handled, commits: Emmett.commitsOf(handled, how), started }
  await report(done, () => connection.query<Search.SearchRow>(Search.selectAll))
  connection.close()
}

await (how === "fill" ? fill() : project())
