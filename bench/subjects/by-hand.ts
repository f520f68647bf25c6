/**
 * By hand: the loop that one would write without a framework. It parses the same lines and runs the same statements on the
 * same driver in the same batches, with a cursor row in the same transaction, at the same durability. It checks nothing:
 * a redelivered operation is applied again, a missing one is not noticed, a bad one stops it.
 *
 *     node by-hand.js <strands.ndjson> <file or URL> many|one
 */
import * as Strands from "../support/Strands.js"
import { report } from "../support/Subject.js"
import * as Loop from "./loop.js"
import * as Search from "./search.js"

const [input = "", database = "", how = "many"] = process.argv.slice(2)

const started = performance.now()
const loop = await Loop.open(database, how === "many" ? "many" : "one")

let line = 0
let operations = 0
let commits = 0
let rows: Array<Search.SearchRow> = []

const commit = async () => {
  if (rows.length === 0) return
  await loop.commit(rows, line)
  operations += rows.length
  commits++
  rows = []
}

for await (const strand of Strands.read(input)) {
  line++
  for (const operation of strand.operations) {
    rows.push(Search.rowOf(strand.documentId, operation))
    if (rows.length >= Search.batchOperations) await commit()
  }
}
await commit()
await report({ operations, commits, started }, loop.table)
await loop.close()
