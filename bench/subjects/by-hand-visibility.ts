/**
 * By hand: an append is a commit into a log, and its row a second one in the same process, which needs no news of the first.
 * No subject that keeps an operation before it projects it can be faster on this driver.
 *
 *     node by-hand-visibility.js <strands.ndjson> <file or URL>
 */
import Database from "better-sqlite3"
import pg from "pg"
import type { RecordedStrand } from "../support/Strands.js"
import { report } from "../support/Subject.js"
import * as Loop from "./loop.js"
import { isPostgres } from "./processor.js"
import * as Search from "./search.js"
import * as Visibility from "./visibility.js"

const [input = "", database = ""] = process.argv.slice(2)

const createLog = "CREATE TABLE log (position INTEGER PRIMARY KEY, strand TEXT NOT NULL)"

/** Opens a log, whose `append` is one commit. */
const openLog = async () => {
  if (isPostgres(database)) {
    const client = new pg.Client({ connectionString: database })
    await client.connect()
    await client.query(createLog)
    const insert = { name: "append", text: "INSERT INTO log VALUES ($1, $2)" }
    return {
      append: (position: number, strand: string) => client.query({ ...insert, values: [position, strand] }),
      close: () => client.end()
    }
  }
  const file = new Database(database)
  file.pragma("synchronous = FULL")
  file.exec(createLog)
  const insert = file.prepare<[number, string]>("INSERT INTO log VALUES (?, ?)")
  return { append: (position: number, strand: string) => insert.run(position, strand), close: () => void file.close() }
}

const started = performance.now()
const loop = await Loop.open(database, "one")
const log = await openLog()
const reader = await Visibility.reader(database)
let position = 0
const commits = new Visibility.Commits()
const append = async (strand: RecordedStrand) => {
  await log.append(++position, JSON.stringify(strand))
  await loop.commit(strand.operations.map((operation) => Search.rowOf(strand.documentId, operation)), position)
  commits.tell(strand.operations.length)
}
const { latency, operations } = await Visibility.measure(input, append, reader.find, commits)
await report({ operations, commits: 2 * operations, started, latency }, reader.table)
await reader.close()
await log.close()
await loop.close()
