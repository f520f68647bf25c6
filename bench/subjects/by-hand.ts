/**
 * By hand: the loop that one would write without a framework. It parses the same lines and runs the same statements on the
 * same driver in the same batches, with a cursor row in the same transaction, at the same durability. It checks nothing:
 * a redelivered operation is applied again, a missing one is not noticed, a bad one stops it.
 *
 *     node by-hand.js <strands.ndjson> <database> many|one
 */
import Database from "better-sqlite3"
import { lines } from "../support/Strands.js"
import type { RecordedStrand } from "../support/Strands.js"
import { report } from "../support/Subject.js"
import { batchOperations, createTable, rowOf, upsertMany, upsertOne } from "./search.js"
import type { SearchRow } from "./search.js"

const [input = "", filename = "", how = "many"] = process.argv.slice(2)

const started = performance.now()
const database = new Database(filename)
database.pragma("journal_mode = WAL")
database.pragma("synchronous = FULL")
database.exec(createTable)
database.exec("CREATE TABLE cursor (source TEXT PRIMARY KEY, line INTEGER NOT NULL)")
database.exec("INSERT INTO cursor VALUES ('bench', 0)")
const many = database.prepare(upsertMany)
const one = database.prepare(upsertOne)
const moveCursor = database.prepare("UPDATE cursor SET line = ? WHERE source = 'bench'")

let line = 0
let operations = 0
let commits = 0
let rows: Array<SearchRow> = []

const commit = () => {
  if (rows.length === 0) return
  database.exec("BEGIN IMMEDIATE")
  if (how === "many") many.run(JSON.stringify(rows))
  else for (const row of rows) one.run(row.id, row.document_id, row.content, row.updated_at)
  moveCursor.run(line)
  database.exec("COMMIT")
  operations += rows.length
  commits++
  rows = []
}

for await (const text of lines(input)) {
  const strand = JSON.parse(text) as RecordedStrand
  line++
  for (const operation of strand.operations) {
    rows.push(rowOf(strand.documentId, operation))
    if (rows.length >= batchOperations) commit()
  }
}
commit()
database.close()
report({ operations, commits, seconds: (performance.now() - started) / 1000 })
