/**
 * A class over our own base class is one over the published one, and has what the first specification says besides.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import type { Kysely } from "kysely"
import { Powerhouse } from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"
import type { OperationWithContext } from "./Legacy.js"
import { processors } from "./Real.js"
import * as Run from "./Run.js"

interface Search {
  search_index: { id: string; content: string }
}

/** As the specification writes it, but for `onStrands`, whose generation is gone. */
class SearchIndexer extends Powerhouse.RelationalDbProcessor<Search> {
  readonly found: Array<boolean> = []

  async initAndUpgrade(): Promise<void> {
    this.found.push(await this.healthCheck("search_index"))
    const db: Kysely<Search> = await this.getDb()
    await db.schema.createTable("search_index").ifNotExists()
      .addColumn("id", "text", (column) => column.primaryKey())
      .addColumn("content", "text", (column) => column.notNull())
      .execute()
    this.found.push(await this.healthCheck("search_index"))
    all.push(this)
  }

  async onOperations(operations: ReadonlyArray<OperationWithContext>): Promise<void> {
    const db = await this.getDb()
    for (const { context, operation } of operations) {
      await db.insertInto("search_index")
        .values({ id: `${context.documentId} ${operation.index}`, content: operation.action.type }).execute()
    }
    const { length } = await this.query.selectFrom("search_index").selectAll().execute()
    this.found.push(length > 0)
  }

  async onDisconnect(): Promise<void> {}
}

const all: Array<SearchIndexer> = []

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  it.scopedLive("it runs, finds its tables, and is read by its static query", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      all.length = 0
      const processor = Run.decided("search", SearchIndexer, { filter: { branch: ["main"] } })
      yield* Run.run(database, [Run.strand("d1", [1, 2])], processor)
      expect(all.map(({ found }) => found)).toEqual([[false, true, true]])
      const rows = yield* Effect.gen(function*() {
        const db = yield* Powerhouse.RelationalDb.make(processor)
        return yield* Effect.promise(() =>
          SearchIndexer.query<Search>(Run.driveId, db).selectFrom("search_index").select("id").orderBy("id").execute()
        )
      }).pipe(Effect.provide(Store.layerMany(database)))
      expect(rows).toEqual([{ id: "d1 0" }, { id: "d1 1" }])
    }))
})

describe("the base class", () => {
  class Theirs extends processors.RelationalDbProcessor<unknown> {}
  const Named = { SearchIndexer: class extends Theirs {} }

  it("names namespaces as the published one does", () => {
    Object.defineProperty(Named.SearchIndexer, "name", { value: "SearchIndexer" })
    fc.assert(fc.property(fc.oneof(fc.uuid(), fc.string()), (driveId) => {
      expect(SearchIndexer.getNamespace(driveId)).toBe(Named.SearchIndexer.getNamespace(driveId))
    }))
  })

  it("has every member of the published one, and its mark", () => {
    const membersOf = (value: object) => Reflect.ownKeys(value).filter((key) => key !== "constructor")
    const ours = Powerhouse.RelationalDbProcessor
    expect(membersOf(ours)).toEqual(expect.arrayContaining(membersOf(processors.RelationalDbProcessor)))
    expect(membersOf(ours.prototype as object)).toEqual(
      expect.arrayContaining(membersOf(processors.RelationalDbProcessor.prototype as object))
    )
    expect(Reflect.get(ours, Symbol.for("ph.IS_RELATIONAL_DB_PROCESSOR"))).toBe(true)
  })
})
