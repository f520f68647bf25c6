/**
 * Powerhouse: the start of many namespaces as its relational processors start, one after the other: `createNamespace`, then
 * an `up` whose statements are all `IF NOT EXISTS`, for nothing records what has been done. See `switchboard.ts`.
 *
 * Its store answers a first query before the clock starts, which spares PGlite its own making. Each namespace gets a row
 * after the clock; a restart has to find them all.
 *
 *     node migrate-powerhouse.js <URL or directory> <namespaces> first|again
 */
import * as Switchboard from "./switchboard.js"

const [database = "", size = "", which = "first"] = process.argv.slice(2)

const relationalDb = Switchboard.relationalStore(database)
await relationalDb.createNamespace("awake")

const started = performance.now()
const made: Array<Switchboard.Kysely> = []
for (let i = 0; i < Number(size); i++) {
  const db = await relationalDb.createNamespace(`n_${i}`)
  await db.schema.createTable("entry").ifNotExists()
    .addColumn("id", "text", (column) => column.primaryKey())
    .addColumn("title", "text", (column) => column)
    .execute()
  await db.schema.createIndex("entry_title").ifNotExists().on("entry").column("title").execute()
  made.push(db)
}
const millis = performance.now() - started

for (const db of made) {
  if (which === "first") await db.insertInto("entry").values({ id: "here", title: "" }).execute()
  else if ((await db.selectFrom("entry").selectAll().execute()).length !== 1) throw new Error("a namespace is lost")
}
await relationalDb.destroy()
process.stdout.write(`${JSON.stringify({ millis })}\n`, () => process.exit())
