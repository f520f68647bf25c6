/**
 * Powerhouse, live: from the call of its processor manager until the row can be read. What comes before, the reactor's own
 * storing of the operation, is not in it. PGlite is one connection: the reader stands in line there. See `switchboard.ts`.
 *
 *     node powerhouse-visibility.js <strands.ndjson> <directory or URL>
 */
import { report } from "../support/Subject.js"
import * as Switchboard from "./switchboard.js"
import * as Visibility from "./visibility.js"

const [input = "", database = ""] = process.argv.slice(2)

const started = performance.now()
const { made, manager } = await Switchboard.reactor(database)
await manager.indexOperations([Switchboard.createDrive("bench-drive")])
const indexer = made[0]!
let ordinal = 1
const commits = new Visibility.Commits()
const { latency, operations } = await Visibility.measure(
  input,
  async (strand) => {
    await manager.indexOperations(
      strand.operations.map((recorded) => Switchboard.toOperation(strand, recorded, ++ordinal))
    )
    commits.tell(strand.operations.length)
  },
  (id) => indexer.find(id),
  commits
)
await report({ operations, commits: 3 * operations, started, latency }, () => indexer.table())
Switchboard.checkActive(manager)
// Its pools and timers would keep the process alive.
process.exit()
