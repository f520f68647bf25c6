/**
 * Emmett on PostgreSQL: its consumer with a raw SQL projection. Emmett hands a projection one event at a time and stores its
 * checkpoint after each, all events of a batch in one transaction.
 *
 *     node emmett-postgresql.js <strands.ndjson> <URL> fill             makes the tables and appends the events
 *     node emmett-postgresql.js <strands.ndjson> <URL> default|tuned    projects as many events as the file has
 */
import pg from "pg"
import { report } from "../support/Subject.js"
import * as Emmett from "./emmett.js"
import * as Search from "./search.js"

const [input = "", url = "", how = "default"] = process.argv.slice(2)
const emmett = await Emmett.packages()

const query = async (text: string) => {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  const { rows } = await client.query<Search.SearchRow>(text)
  await client.end()
  return rows
}

const fill = async () => {
  const store = emmett.getPostgreSQLEventStore(url)
  await store.schema.migrate()
  await Emmett.fill(store, input)
  await store.close()
  await query(Search.pg.createTable)
  await query("VACUUM ANALYZE")
}

const project = async () => {
  const { operations, types } = await Emmett.survey(input)
  let handled = 0
  const started = performance.now()
  const consumer = emmett.postgreSQLEventStoreConsumer({ connectionString: url, pulling: Emmett.pulling(how) })
  consumer.projector({
    processorId: "search",
    projection: Emmett.projectionPostgres(emmett, types, () => handled++),
    stopAfter: () => handled >= operations
  })
  await consumer.start()
  const done = { operations: handled, commits: Emmett.commitsOf(handled, how), started }
  await report(done, () => query(Search.selectAll))
  await consumer.close()
}

await (how === "fill" ? fill() : project())
