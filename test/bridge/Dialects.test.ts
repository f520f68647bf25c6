/**
 * What a class that was written for PostgreSQL can count on here, as MOVING.md lists it: each line is tried on both databases.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { sql } from "kysely"
import type { Kysely } from "kysely"
import * as Database from "../support/Database.js"
import { processors } from "./Real.js"
import * as Run from "./Run.js"

interface Schema {
  item: {
    id: string
    name: string | null
    done: boolean
    at: Date | string | null
    payload: string | null
    extra: number | null
  }
  other: { id: string; item_id: string }
}

type Db = Kysely<Schema>

const bare = (db: Db) => db as unknown as Kysely<unknown>

/** What a step comes to inside a call: its value, or the message of its error. */
const attempt = (database: Database.Database, step: (db: Db) => Promise<unknown>) =>
  Effect.gen(function*() {
    let result: unknown
    class Trying extends processors.RelationalDbProcessor<Schema> {
      async initAndUpgrade(): Promise<void> {
        const db = bare(this.relationalDb)
        await db.schema.createTable("item").ifNotExists()
          .addColumn("id", "varchar(3)", (column) => column.primaryKey())
          .addColumn("name", "text")
          .addColumn("done", "boolean", (column) => column.notNull().defaultTo(false))
          .addColumn("at", "timestamptz")
          .addColumn("payload", "json")
          .addColumn("extra", "integer")
          .execute()
        await db.schema.createTable("other").ifNotExists()
          .addColumn("id", "uuid", (column) => column.primaryKey())
          .addColumn("item_id", "varchar(3)", (column) => column.notNull().references("item.id"))
          .execute()
        await db.schema.createIndex("item_name").ifNotExists().on("item").column("name").execute()
      }
      async onOperations(): Promise<void> {
        await this.relationalDb.insertInto("item")
          .values({ id: "a", name: "Alpha", done: true, payload: JSON.stringify({ n: 1 }) }).execute()
        result = await step(this.relationalDb).catch((error: Error) => error)
      }
      async onDisconnect(): Promise<void> {}
    }
    const [outcome] = yield* Run.run(database, [Run.strand("d", [1])], Run.decided("trying", Trying))
    expect(outcome?.phase).toBe("ended")
    return result
  })

const one = (db: Db) => db.selectFrom("item").selectAll().executeTakeFirstOrThrow()

/** Both databases answer so. */
const works: { readonly [what: string]: readonly [step: (db: Db) => Promise<unknown>, expected: unknown] } = {
  "a column that is added": [
    (db) => bare(db).schema.alterTable("item").addColumn("more", "text").execute().then(() => one(db)),
    expect.objectContaining({ more: null })
  ],
  "an upsert that returns": [
    (db) =>
      db.insertInto("item").values({ id: "a", name: "Beta", done: false } as never)
        .onConflict((on) => on.column("id").doUpdateSet({ name: "Beta" })).returning(["id", "name"]).execute(),
    [{ id: "a", name: "Beta" }]
  ],
  "an update and a delete that say how many": [
    async (db) => {
      const updated = await db.updateTable("item").set({ extra: 5 }).where("id", "=", "a").executeTakeFirst()
      const deleted = await db.deleteFrom("item").where("id", "=", "none").executeTakeFirst()
      return [updated.numUpdatedRows, deleted.numDeletedRows]
    },
    [1n, 0n]
  ],
  "a join, a common table expression and like": [
    async (db) => {
      await db.insertInto("other").values({ id: "0b0d9f34-9f0d-4a0c-9a63-0fb7f6dfb3a1", item_id: "a" }).execute()
      return db.with("found", (with_) => with_.selectFrom("item").selectAll().where("name", "like", "Al%"))
        .selectFrom("found").innerJoin("other", "other.item_id", "found.id").select("found.name").execute()
    },
    [{ name: "Alpha" }]
  ],
  "a count": [
    (db) => db.selectFrom("item").select((eb) => eb.fn.countAll().as("n")).execute(),
    [{ n: 1 }]
  ],
  "a field of JSON": [
    (db) => db.selectFrom("item").select(sql`payload ->> 'n'`.as("n")).execute().then(([row]) => Number(row?.n)),
    1
  ],
  "a date that is written": [
    async (db) => {
      await db.updateTable("item").set({ at: new Date(0) }).execute()
      const { at } = await one(db)
      return new Date(at ?? Number.NaN).getTime()
    },
    0
  ],
  "a stream, beside other statements": [
    async (db) => {
      const names: Array<string | null> = []
      for await (const row of db.selectFrom("item").selectAll().stream()) {
        await db.updateTable("item").set({ extra: 9 }).where("id", "=", row.id).execute()
        names.push(row.name, String((await one(db)).extra))
      }
      return names
    },
    ["Alpha", "9"]
  ]
}

/** PostgreSQL does so, and SQLite refuses. */
const refused: { readonly [what: string]: (db: Db) => Promise<unknown> } = {
  "a column whose type is altered": (db) =>
    bare(db).schema.alterTable("item").alterColumn("name", (column) => column.setDataType("varchar(9)")).execute(),
  "a type": (db) => bare(db).schema.createType("mood").asEnum(["good", "bad"]).execute(),
  "a constraint that is added": (db) =>
    bare(db).schema.alterTable("item").addUniqueConstraint("item_unique", ["name"]).execute(),
  "ilike": (db) => db.selectFrom("item").selectAll().where("name", "ilike", "al%").execute(),
  "distinct on": (db) => db.selectFrom("item").distinctOn("name").selectAll().execute(),
  "for update": (db) => db.selectFrom("item").selectAll().forUpdate().execute(),
  "now()": (db) => db.updateTable("item").set({ at: sql`now()` }).execute(),
  "an object as a parameter": (db) => db.updateTable("item").set({ payload: { n: 2 } as never }).execute()
}

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  it.scopedLive.each(Object.keys(works))("%s works", (what) =>
    Effect.gen(function*() {
      const [step, expected] = works[what]!
      expect(yield* attempt(yield* fresh, step)).toEqual(expected)
    }))

  it.scopedLive.each(Object.keys(refused))(
    `%s is ${dialect === "pg" ? "done" : "refused"}`,
    (what) =>
      Effect.gen(function*() {
        const result = yield* attempt(yield* fresh, refused[what]!)
        expect(result instanceof Error).toBe(dialect === "sqlite")
      })
  )

  it.scopedLive("a boolean is true or 1, a date a Date or its text, and a length enforced or not", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const row = yield* attempt(database, async (db) => {
        await db.updateTable("item").set({ at: new Date(0) }).execute()
        return one(db)
      })
      expect(row).toMatchObject(
        dialect === "pg" ? { done: true, at: new Date(0) } : { done: 1, at: "1970-01-01T00:00:00.000Z" }
      )
      const long = yield* attempt(
        yield* fresh,
        (db) => db.insertInto("item").values({ id: "too long", done: false }).execute()
      )
      expect(long instanceof Error).toBe(dialect === "pg")
    }))
})
