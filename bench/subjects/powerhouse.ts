/**
 * The real Powerhouse reactor 6.2.2: its processor manager routes recorded operations to a `RelationalDbProcessor`, which
 * upserts a row for each through Kysely. See `switchboard.ts`.
 *
 *     strand ──▶ OperationWithContext[] ──▶ ProcessorManager.indexOperations ──▶ onOperations ──▶ INSERT, INSERT, …
 *
 * Before the clock starts, the reactor has migrated its tables, and a drive has been made, so that the processor is there.
 * The file is read bit by bit, so that the memory is the reactor's, and the clock stands still meanwhile. `live` hands over a
 * strand at a time, as a reactor does a job's operations; `pages` hands over 500 operations at a time, as it does when a
 * processor catches up. `latency` is `live`, with each call and each read of a row measured.
 *
 *     node powerhouse.js <strands.ndjson> <directory or URL> live|pages|latency
 */
import * as Effort from "../support/Effort.js"
import * as Quantiles from "../support/Quantiles.js"
import * as Strands from "../support/Strands.js"
import { report } from "../support/Subject.js"
import * as Reads from "./reads.js"
import * as Search from "./search.js"
import * as Switchboard from "./switchboard.js"

const [input = "", database = "", how = "live"] = process.argv.slice(2)

const pageOperations = 500

/** What each call of the manager is given. */
async function* handovers() {
  let ordinal = 1
  let page: Array<Switchboard.OperationWithContext> = []
  for await (const strand of Strands.read(input)) {
    const operations = strand.operations.map((recorded) => Switchboard.toOperation(strand, recorded, ++ordinal))
    const isFull = how !== "pages" || page.length + operations.length > pageOperations
    if (isFull && page.length > 0) {
      yield page
      page = []
    }
    page.push(...operations)
  }
  if (page.length > 0) yield page
}

const { made, manager } = await Switchboard.reactor(database)
await manager.indexOperations([Switchboard.createDrive("bench-drive")])

const indexer = made[0]!
const latency = async () => {
  const keys = Search.keysOf(await indexer.table())
  return {
    commit: Quantiles.make(callMillis, Effort.countedCommits),
    read: await Reads.measure(keys, (id) => indexer.find(id))
  }
}

const callMillis: Array<number> = []
let operations = 0
for await (const call of handovers()) {
  const begun = performance.now()
  await manager.indexOperations(call)
  callMillis.push(performance.now() - begun)
  operations += call.length
}
const started = performance.now() - callMillis.reduce((sum, millis) => sum + millis, 0)
// Each row, each cursor and each state of the manager is a transaction of its own.
const done = { operations, commits: operations + 2 * callMillis.length, started }
await report(how === "latency" ? { ...done, latency: await latency() } : done, () => indexer.table())
Switchboard.checkActive(manager)
// Its pools and timers would keep the process alive.
process.exit()
