/**
 * The start of the Powerhouse reactor with one processor, whose tables are there, to its first handled operation: the
 * row, the processor's cursor and the manager's state are in their stores.
 *
 *     node start-powerhouse.js pglite|pg <directory or url> <name>
 */
import * as Switchboard from "./switchboard.js"

const [, database = "", name = ""] = process.argv.slice(2)

const strand = {
  driveId: "bench-drive",
  documentId: name,
  documentType: "bench/start",
  scope: "global",
  branch: "main",
  operations: []
}
const recorded = { index: 0, skip: 0, hash: "", type: "START", timestamp: "2026-01-01T00:00:00.000Z", input: {} }
/** Above what the cursor has from the rounds before. */
const ordinal = 2 + Number(name.split("-").at(-1))

const { made, manager } = await Switchboard.reactor(database)
await manager.indexOperations([
  Switchboard.createDrive(strand.driveId),
  Switchboard.toOperation(strand, recorded, ordinal)
])
const startMillis = performance.now()
Switchboard.checkActive(manager)
if (await made[0]?.find(`${name}/START`) === undefined) throw new Error("the operation left no row")
process.stdout.write(`${JSON.stringify({ startMillis })}\n`, () => process.exit())
