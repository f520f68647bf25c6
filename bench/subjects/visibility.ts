/**
 * Visibility: how long after the begin of its append an operation is committed, and how long after it the row of an operation
 * can be read by somebody else, who looks again and again.
 *
 *     2,000, every 3 ms     append ──▶ … ──▶ row        warms up: a reader, on a connection of its own, waits for each row
 *     100, every 25 ms      append ──▶ … ──▶ row        so they are measured
 *     100, every 25 ms      append ──▶ … ──▶ commit     nobody looks: the system has nothing else to do
 *
 * The appends keep their pace whether the rows have come or not, so that a subject that looks for news now and then is
 * asked at any time between two looks; one that takes longer for an append is late. Each operation makes a row of its own, and
 * the rows come in order.
 */
import Database from "better-sqlite3"
import { setImmediate, setTimeout } from "node:timers/promises"
import pg from "pg"
import * as Quantiles from "../support/Quantiles.js"
import * as Strands from "../support/Strands.js"
import { isPostgres } from "./processor.js"
import * as Search from "./search.js"

/** So many appends warm up, and so many are measured in each of two ways. */
export const warmUps = 2_000
export const counted = 100
/** What {@link measure} has to be given. */
export const appends = warmUps + 2 * counted

const warmUpMillis = 3
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

/** What a subject tells that knows of its commits: each when it is made, in the order of the appends. */
export class Commits {
  readonly at: Array<number> = []

  tell(operations: number): void {
    const now = performance.now()
    for (let i = 0; i < operations; i++) this.at.push(now)
  }
}

export interface Measured {
  readonly operations: number
  readonly latency: {
    /** To the row. */
    readonly append: Quantiles.Quantiles
    /** To the commit, where the subject tells of it. */
    readonly appendToCommit?: Quantiles.Quantiles
  }
}

/** Appends the strands of a file, one operation each. Throws when a row or a commit does not come within half a minute. */
export const measure = async (
  input: string,
  append: (strand: Strands.RecordedStrand) => Promise<unknown>,
  find: Reader["find"],
  commits?: Commits
): Promise<Measured> => {
  const strands: Array<Strands.RecordedStrand> = []
  for await (const strand of Strands.read(input)) strands.push(strand)
  if (strands.length !== appends) throw new Error(`${appends} strands are measured, not ${strands.length}`)
  const begun: Array<number> = []
  const appending = async (from: number, to: number, everyMillis: number) => {
    const first = performance.now()
    for (let i = from; i < to; i++) {
      await setTimeout(Math.max(0, first + (i - from) * everyMillis - performance.now()))
      begun.push(performance.now())
      await append(strands[i]!)
    }
  }
  const until = async (
    what: string,
    since: number,
    holds: () => boolean | Promise<boolean>,
    rest: () => Promise<unknown>
  ) => {
    while (!await holds()) {
      if (performance.now() - since > patienceMillis) throw new Error(`${what} does not come`)
      await rest()
    }
  }
  const isThere = async (i: number) => {
    const { documentId, operations } = strands[i]!
    return await find(Search.rowOf(documentId, operations[0]!).id) !== undefined
  }
  const watching = async (from: number, to: number) => {
    const millis: Array<number> = []
    for (let i = from; i < to; i++) {
      while (begun.length <= i) await setTimeout(1)
      await until(`row ${i}`, begun[i]!, () => isThere(i), setImmediate)
      millis.push(performance.now() - begun[i]!)
    }
    return millis
  }
  await Promise.all([watching(0, warmUps), appending(0, warmUps, warmUpMillis)])
  const [millis] = await Promise.all([
    watching(warmUps, warmUps + counted),
    appending(warmUps, warmUps + counted, paceMillis)
  ])
  await appending(warmUps + counted, appends, paceMillis)
  const last = appends - 1
  await until(`row ${last}`, begun[last]!, () => isThere(last), () => setTimeout(1))
  if (commits === undefined) return { operations: appends, latency: { append: Quantiles.all(millis) } }
  await until(`commit ${last}`, begun[last]!, () => commits.at.length > last, () => setTimeout(1))
  const toCommit = begun.map((begin, i) => commits.at[i]! - begin).slice(-counted)
  return {
    operations: appends,
    latency: { append: Quantiles.all(millis), appendToCommit: Quantiles.all(toCommit) }
  }
}
