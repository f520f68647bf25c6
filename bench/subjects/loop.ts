/**
 * The commit of a loop written by hand, on each driver: the rows and the cursor in one transaction.
 */
import Database from "better-sqlite3"
import pg from "pg"
import { isPostgres } from "./processor.js"
import * as Search from "./search.js"

export interface Loop {
  readonly commit: (rows: ReadonlyArray<Search.SearchRow>, line: number) => void | Promise<void>
  /** One row by its key. */
  readonly find: (id: string) => Search.SearchRow | undefined | Promise<Search.SearchRow | undefined>
  readonly table: () => Promise<Iterable<Search.SearchRow>>
  readonly close: () => Promise<void>
}

const createCursor = "CREATE TABLE cursor (source TEXT PRIMARY KEY, line INTEGER NOT NULL)"
const firstCursor = (source: string) => `INSERT INTO cursor VALUES ('${source}', 0)`

/** Opens a URL or a file's path, a fresh one; on PostgreSQL there may be several writers, of which the first, 0, makes the tables. */
export const open = (database: string, how: "many" | "one", writer = 0): Promise<Loop> =>
  isPostgres(database) ? openPostgres(database, how, writer) : Promise.resolve(openSqlite(database, how))

const openSqlite = (filename: string, how: "many" | "one"): Loop => {
  const database = new Database(filename)
  database.pragma("journal_mode = WAL")
  database.pragma("synchronous = FULL")
  database.exec(`${Search.sqlite.createTable}; ${createCursor}; ${firstCursor("bench")}`)
  const many = database.prepare(Search.sqlite.upsertMany)
  const one = database.prepare(Search.sqlite.upsertOne)
  const moveCursor = database.prepare("UPDATE cursor SET line = ? WHERE source = 'bench'")
  const select = database.prepare<[string], Search.SearchRow>(`${Search.selectAll} WHERE id = ?`)
  return {
    commit: (rows, line) => {
      database.exec("BEGIN IMMEDIATE")
      if (how === "many") many.run(...Search.sqlite.many(Search.fold(rows)))
      else for (const row of rows) one.run(...Search.one(row))
      moveCursor.run(line)
      database.exec("COMMIT")
    },
    find: (id) => select.get(id),
    table: () => Promise.resolve(database.prepare<[], Search.SearchRow>(Search.selectAll).all()),
    close: () => {
      database.close()
      return Promise.resolve()
    }
  }
}

const openPostgres = async (url: string, how: "many" | "one", writer: number): Promise<Loop> => {
  const source = writer === 0 ? "bench" : `bench ${writer}`
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(`${writer === 0 ? `${Search.pg.createTable}; ${createCursor};` : ""} ${firstCursor(source)}`)
  return {
    commit: async (rows, line) => {
      await client.query("BEGIN")
      if (how === "many") {
        await client.query({ name: "many", text: Search.pg.upsertMany, values: [...Search.pg.many(Search.fold(rows))] })
      } else {
        for (const row of rows) {
          await client.query({ name: "one", text: Search.pg.upsertOne, values: [...Search.one(row)] })
        }
      }
      const text = "UPDATE cursor SET line = $1 WHERE source = $2"
      await client.query({ name: "cursor", text, values: [line, source] })
      await client.query("COMMIT")
    },
    find: async (id) => {
      const text = `${Search.selectAll} WHERE id = $1`
      return (await client.query<Search.SearchRow>({ name: "find", text, values: [id] })).rows[0]
    },
    table: async () => (await client.query<Search.SearchRow>(Search.selectAll)).rows,
    close: () => client.end()
  }
}
