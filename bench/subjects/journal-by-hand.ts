/**
 * By hand, from a journal: the loop that one would write without a framework. It reads the same strands of the same table
 * in pages, and runs the same statements on the same driver in batches of as many operations, with a cursor row in the
 * same transaction. It checks nothing. With several writers, one loop reads and each writer commits its documents' rows on
 * a connection of its own, with its own cursor row.
 *
 *     node journal-by-hand.js <strands.ndjson> <file or URL> fill|"1 many"|"4 many"|"1 one"|"4 one"
 */
import Database from "better-sqlite3"
import pg from "pg"
import { Slice } from "../../src/index.js"
import { report } from "../support/Subject.js"
import * as Home from "./journal.js"
import * as Loop from "./loop.js"
import { isPostgres } from "./processor.js"
import * as Search from "./search.js"

const [input = "", database = "", how = ""] = process.argv.slice(2)

interface Row {
  readonly position: number | string
  readonly document_id: string
  readonly operations: string
}

/** Strands of a page. */
const page = 500

const readSqlite = () => {
  const select = new Database(database, { readonly: true }).prepare<[number, number], Row>(`
    SELECT position, document_id, operations FROM processor_journal_strand
    WHERE journal = 1 AND position > ? ORDER BY position LIMIT ?`)
  return { read: (after: number) => Promise.resolve(select.all(after, page)), close: () => Promise.resolve() }
}

const readPostgres = async () => {
  const client = new pg.Client({ connectionString: database })
  await client.connect()
  const text = `
    SELECT position, document_id, operations FROM processor_journal_strand
    WHERE journal = 1 AND position > $1 ORDER BY position LIMIT $2`
  return {
    read: async (after: number) => (await client.query<Row>({ name: "page", text, values: [after, page] })).rows,
    close: () => client.end()
  }
}

const run = async () => {
  const started = performance.now()
  const [count = "1", statements = "many"] = how.split(" ")
  const writers: Array<Loop.Loop> = []
  for (let i = 0; i < Number(count); i++) {
    writers.push(await Loop.open(database, statements === "one" ? "one" : "many", i))
  }
  const reader = isPostgres(database) ? await readPostgres() : readSqlite()
  let position = 0
  let operations = 0
  let commits = 0
  let waiting = 0
  let rows = writers.map((): Array<Search.SearchRow> => [])
  const commit = async () => {
    await Promise.all(writers.map(async (writer, i) => {
      if (rows[i]!.length === 0) return
      await writer.commit(rows[i]!, position)
      commits++
    }))
    rows = writers.map(() => [])
    waiting = 0
  }
  for (let found = await reader.read(0); found.length > 0; found = await reader.read(position)) {
    for (const strand of found) {
      const own = rows[Math.floor(Slice.of(strand.document_id) * writers.length / Slice.count)]!
      for (const operation of JSON.parse(strand.operations) as Array<Parameters<typeof Search.rowOf>[1]>) {
        own.push(Search.rowOf(strand.document_id, operation))
        operations++
        waiting++
      }
      position = Number(strand.position)
      if (waiting >= Search.batchOperations * writers.length) await commit()
    }
  }
  await commit()
  await report({ operations, commits, started }, writers[0]!.table)
  for (const { close } of [...writers, reader]) await close()
}

await (how === "fill" ? Home.fill(input, database) : run())
