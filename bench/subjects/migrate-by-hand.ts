/**
 * By hand: the start of many namespaces as a loop on the bare driver. A look whether the one migration is recorded and, where
 * it is not, one transaction that makes the tables and records it. No lock, no checksum, one namespace after the other.
 *
 *     node migrate-by-hand.js <URL or directory> <namespaces>
 */
import Database from "better-sqlite3"
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import pg from "pg"
import { isPostgres } from "./processor.js"

const [database = "", size = ""] = process.argv.slice(2)
const namespaces = Array.from({ length: Number(size) }, (_, i) => `n_${i}`)

const up = `
  CREATE TABLE migration (name TEXT PRIMARY KEY);
  CREATE TABLE entry (id TEXT PRIMARY KEY, title TEXT);
  CREATE INDEX entry_title ON entry (title);
  INSERT INTO migration VALUES ('0001_entry')`
const recorded = "SELECT name FROM migration"

const onPostgres = async () => {
  const client = new pg.Client({ connectionString: database })
  await client.connect()
  for (const namespace of namespaces) {
    const { rows: [found] } = await client.query<{ made: string | null }>("SELECT to_regclass($1) AS made", [
      `${namespace}.migration`
    ])
    await client.query(`SET search_path TO ${namespace}`)
    if (found?.made === null) await client.query(`BEGIN; CREATE SCHEMA ${namespace}; ${up}; COMMIT`)
    else await client.query(recorded)
  }
  await client.end()
}

const onSqlite = () => {
  mkdirSync(database, { recursive: true })
  for (const namespace of namespaces) {
    const file = new Database(join(database, `${namespace}.db`))
    file.pragma("journal_mode = WAL")
    file.pragma("synchronous = FULL")
    const made = file.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'migration'").get()
    if (made === undefined) file.exec(`BEGIN IMMEDIATE; ${up}; COMMIT`)
    else file.prepare(recorded).all()
    file.close()
  }
}

const started = performance.now()
if (isPostgres(database)) await onPostgres()
else onSqlite()
process.stdout.write(`${JSON.stringify({ millis: performance.now() - started })}\n`)
