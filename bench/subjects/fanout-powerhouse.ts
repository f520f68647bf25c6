/**
 * Powerhouse: many processors of one drive in the processor manager of its reactor, of which some want all operations and the
 * others none. Operations are handed over one at a time, as a reactor does a job's. See `switchboard.ts`.
 *
 * All processors share a namespace, as ours do, and write a row for each operation. Before the clock starts they are made.
 *
 *     node fanout-powerhouse.js <URL or directory> <processors> <matching> <seconds>
 */
import * as Fanout from "./fanout-rows.js"
import * as Switchboard from "./switchboard.js"

const [database = "", ...numbers] = process.argv.slice(2)
const [count = 0, matching = 0, seconds = 0] = numbers.map(Number)

let written: Switchboard.Kysely | undefined
const manager = await Switchboard.managerOf(database, async (relationalDb) => {
  const own = await relationalDb.createNamespace("fanout")
  written = own
  await own.schema.createTable("entry").ifNotExists()
    .addColumn("id", "text", (column) => column.primaryKey())
    .addColumn("title", "text", (column) => column)
    .execute()
  return Array.from({ length: count }, (_, i) => {
    const documentType = [i < matching ? "bench/wanted" : `bench/unwanted-${i}`]
    const filter = { branch: ["main"], scope: ["global"], documentType }
    return { processor: new Switchboard.Scribe(`p${i}`, filter, own), filter }
  })
})
await manager.indexOperations([Switchboard.createDrive("bench-drive")])
Switchboard.checkActive(manager)
if (manager.getAll().length !== count) throw new Error(`${manager.getAll().length} processors, not ${count}`)

const strand = {
  driveId: "bench-drive",
  documentType: "bench/wanted",
  scope: "global",
  branch: "main",
  operations: []
}
const operation = (i: number) => {
  const { documentId, ...recorded } = Fanout.operationOf(i)
  const timestamp = "2026-01-01T00:00:00.000Z"
  return Switchboard.toOperation({ ...strand, documentId }, { ...recorded, skip: 0, timestamp }, i + 2)
}

await manager.indexOperations([operation(0)])
const began = performance.now()
let operations = 0
do {
  await manager.indexOperations([operation(++operations)])
} while (performance.now() - began < seconds * 1_000)
const taken = (performance.now() - began) / 1_000
Switchboard.checkActive(manager)
const rows = await written?.selectFrom("entry").selectAll().execute()
if (rows?.length !== (operations + 1) * matching) {
  throw new Error(`${rows?.length} rows, not ${(operations + 1) * matching}`)
}
process.stdout.write(`${JSON.stringify({ operations, seconds: taken })}\n`, () => process.exit())
