/**
 * By hand, to many processors: the loop that one would write without a framework, for as many rows as `fanout.ts burst` where
 * all processors want all operations. Each processor's operations are inserted in batches of four thousand, one statement each,
 * with the processor's cursor row in the same transaction; on PostgreSQL over as many connections as a reactor uses. It reads
 * nothing, checks nothing and remembers nothing of what was applied: what is left is what the driver and the server cost. As
 * for the others, each processor has had one operation when the clock starts.
 *
 *     node fanout-by-hand.js sqlite|pg <directory or url> <processors> <operations>
 */
import Database from "better-sqlite3"
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import pg from "pg"
import * as Fanout from "./fanout-rows.js"

const [dialect = "", target = "", ...numbers] = process.argv.slice(2)
const [processors = 0, operations = 0] = numbers.map(Number)

/** As a reactor has unless it is told otherwise. */
const connections = 8

/** As a batch of ours has at most, and a call of its statements on SQLite. */
const batchRows = 4_000
const sqliteRows = 128

const createCursor = "CREATE TABLE cursor (processor TEXT PRIMARY KEY, position BIGINT NOT NULL)"

/** For PostgreSQL, with a list for each column. */
const unnest = "INSERT INTO entry (id, title) SELECT * FROM unnest($1::text[], $2::text[])"

/** The lists, as PostgreSQL reads them; nothing in the rows needs to be escaped. */
const lists = (rows: ReadonlyArray<Fanout.Row>): readonly [ids: string, titles: string] => [
  `{"${rows.map(({ id }) => id).join("\",\"")}"}`,
  `{"${rows.map(({ title }) => title).join("\",\"")}"}`
]

/** What one transaction writes. */
interface Batch {
  readonly processor: string
  readonly rows: ReadonlyArray<Fanout.Row>
  readonly position: number
}

/** As a source would supply them: one more than is timed. */
const supplied = Array.from({ length: operations + 1 }, (_, i) => ({ operations: [Fanout.operationOf(i)] }))

/** In the order in which they fall due: the first batch of each, then the second of each. */
const batches = function*(start: number, end: number): Generator<Batch> {
  for (let from = start; from < end; from += batchRows) {
    const some = supplied.slice(from, Math.min(end, from + batchRows))
    for (let i = 0; i < processors; i++) {
      const processor = `p${i}`
      yield { processor, rows: Fanout.rowsOf(processor, some), position: from + some.length }
    }
  }
}

const onSqlite = () => {
  mkdirSync(target, { recursive: true })
  const database = new Database(join(target, "by-hand.db"))
  database.pragma("journal_mode = WAL")
  database.pragma("synchronous = FULL")
  database.exec(`${Fanout.createTable}; ${createCursor}`)
  const begin = database.prepare("INSERT INTO cursor VALUES (?, 0)")
  for (let i = 0; i < processors; i++) begin.run(`p${i}`)
  const inserts = Array.from(
    { length: sqliteRows },
    (_, i) => database.prepare(`INSERT INTO entry (id, title) VALUES ${new Array(i + 1).fill("(?, ?)").join(", ")}`)
  )
  const move = database.prepare("UPDATE cursor SET position = ? WHERE processor = ?")
  const work = (start: number, end: number) => {
    for (const { position, processor, rows } of batches(start, end)) {
      database.exec("BEGIN IMMEDIATE")
      for (let at = 0; at < rows.length; at += sqliteRows) {
        const some = rows.slice(at, at + sqliteRows)
        inserts[some.length - 1]!.run(...some.flatMap(({ id, title }) => [id, title]))
      }
      move.run(position, processor)
      database.exec("COMMIT")
    }
    return Promise.resolve()
  }
  const count = () => Promise.resolve(database.prepare<[], { n: number }>("SELECT COUNT(*) AS n FROM entry").get()?.n)
  return { work, count }
}

const onPostgres = async () => {
  const pool = await Promise.all(Array.from({ length: connections }, async () => {
    const client = new pg.Client({ connectionString: target })
    await client.connect()
    return client
  }))
  const [first] = pool
  await first!.query(`${Fanout.createTable}; ${createCursor}`)
  await first!.query("INSERT INTO cursor SELECT 'p' || i, 0 FROM generate_series(0, $1::int - 1) AS i", [processors])
  const work = (start: number, end: number) => {
    const waiting = batches(start, end)
    return Promise.all(pool.map(async (client) => {
      for (const { position, processor, rows } of waiting) {
        await client.query("BEGIN")
        await client.query({ name: "insert", text: unnest, values: [...lists(rows)] })
        const text = "UPDATE cursor SET position = $1 WHERE processor = $2"
        await client.query({ name: "move", text, values: [position, processor] })
        await client.query("COMMIT")
      }
    }))
  }
  const count = async () => Number((await first!.query<{ n: string }>("SELECT COUNT(*) AS n FROM entry")).rows[0]?.n)
  return { work, count }
}

const { count, work } = dialect === "sqlite" ? onSqlite() : await onPostgres()
await work(0, 1)
const cpu = process.cpuUsage()
const began = performance.now()
await work(1, operations + 1)
const seconds = (performance.now() - began) / 1_000
const { system, user } = process.cpuUsage(cpu)
const rows = await count()
const expected = processors * (operations + 1)
if (rows !== expected) throw new Error(`${rows} rows, not ${expected}`)
process.stdout.write(
  `${JSON.stringify({ operations, seconds, cpuSeconds: (system + user) / 1e6 })}\n`,
  () => process.exit()
)
