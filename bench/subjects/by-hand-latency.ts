/**
 * By hand: how long each commit of the loop takes, from BEGIN to the answer to COMMIT, and each read of a row on the driver.
 *
 *     node by-hand-latency.js <strands.ndjson> <file or URL> <operations in a commit>
 */
import * as Effort from "../support/Effort.js"
import * as Quantiles from "../support/Quantiles.js"
import * as Strands from "../support/Strands.js"
import { report } from "../support/Subject.js"
import * as Loop from "./loop.js"
import * as Reads from "./reads.js"
import * as Search from "./search.js"

const [input = "", database = "", how = "1"] = process.argv.slice(2)
const batchOperations = Number(how)

const started = performance.now()
const loop = await Loop.open(database, "many")
const commitMillis: Array<number> = []
let line = 0
let operations = 0
let rows: Array<Search.SearchRow> = []

const commit = async () => {
  if (rows.length === 0) return
  const begun = performance.now()
  await loop.commit(rows, line)
  commitMillis.push(performance.now() - begun)
  operations += rows.length
  rows = []
}

for await (const strand of Strands.read(input)) {
  line++
  for (const operation of strand.operations) {
    rows.push(Search.rowOf(strand.documentId, operation))
    if (rows.length >= batchOperations) await commit()
  }
}
await commit()

const read = await Reads.measure(Search.keysOf(await loop.table()), loop.find)
const latency = { commit: Quantiles.make(commitMillis, Effort.countedCommits), read }
await report({ operations, commits: commitMillis.length, started, latency }, loop.table)
await loop.close()
