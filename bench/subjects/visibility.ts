/**
 * Visibility: how long after the begin of its append the row of an operation can be read by somebody else, who looks again
 * and again.
 *
 *     every 25 ms: append ──▶ … ──▶ row        a reader, on a connection of its own, waits for one row after the other
 *
 * The appends keep their pace whether the rows have come or not, so that a subject that looks for news now and then is
 * asked at any time between two looks. Each operation makes a row of its own, and the rows come in order.
 */
import Database from "better-sqlite3"
import { setImmediate, setTimeout } from "node:timers/promises"
import pg from "pg"
import * as Quantiles from "../support/Quantiles.js"
import * as Strands from "../support/Strands.js"
import { isPostgres } from "./processor.js"
import * as Search from "./search.js"

const paceMillis = 25
/** Longer than any subject rests. */
const patienceMillis = 30_000

type Row = Search.SearchRow | undefined

export interface Reader {
  readonly find: (id: string) => Row | Promise<Row>
  readonly table: () => Promise<Iterable<Search.SearchRow>>
  readonly close: () => void | Promise<void>
}

/** A reader of a URL or a file, whose table is there already. */
export const reader = async (database: string, table = "search_index"): Promise<Reader> => {
  const all = Search.selectAll.replace("search_index", table)
  if (isPostgres(database)) {
    const client = new pg.Client({ connectionString: database })
    await client.connect()
    return {
      find: async (id) =>
        (await client.query<Search.SearchRow>({ name: "find", text: `${all} WHERE id = $1`, values: [id] })).rows[0],
      table: async () => (await client.query<Search.SearchRow>(all)).rows,
      close: () => client.end()
    }
  }
  const file = new Database(database, { readonly: true })
  const select = file.prepare<[string], Search.SearchRow>(`${all} WHERE id = ?`)
  return {
    find: (id) => select.get(id),
    table: () => Promise.resolve(file.prepare<[], Search.SearchRow>(all).all()),
    close: () => void file.close()
  }
}

/** Appends the strands of a file, one operation each. Throws when a row does not come within half a minute. */
export const measure = async (
  input: string,
  append: (strand: Strands.RecordedStrand) => Promise<unknown>,
  find: Reader["find"]
): Promise<{ readonly operations: number; readonly append: Quantiles.Quantiles }> => {
  const strands: Array<Strands.RecordedStrand> = []
  for await (const strand of Strands.read(input)) strands.push(strand)
  const begun: Array<number> = []
  const appending = async () => {
    const first = performance.now()
    for (const [i, strand] of strands.entries()) {
      await setTimeout(Math.max(0, first + i * paceMillis - performance.now()))
      begun.push(performance.now())
      await append(strand)
    }
  }
  const watching = async () => {
    const millis: Array<number> = []
    for (const [i, { documentId, operations }] of strands.entries()) {
      const { id } = Search.rowOf(documentId, operations[0]!)
      while (begun.length <= i) await setTimeout(1)
      while (await find(id) === undefined) {
        if (performance.now() - begun[i]! > patienceMillis) throw new Error(`${id} does not come`)
        await setImmediate()
      }
      millis.push(performance.now() - begun[i]!)
    }
    return millis
  }
  const [millis] = await Promise.all([watching(), appending()])
  return { operations: strands.length, append: Quantiles.make(millis) }
}
