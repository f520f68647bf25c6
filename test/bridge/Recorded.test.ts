/**
 * What real reactors delivered, through classes of each generation: the rows are those that the class makes by itself, over a
 * PostgreSQL of its own, of the same operations in order.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { Kysely, PostgresDialect } from "kysely"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { gunzipSync } from "node:zlib"
import pg from "pg"
import { Envelope, Filter, Position } from "../../src/index.js"
import type { Source, Strand } from "../../src/index.js"
import * as Delivery from "../../src/powerhouse/Delivery.js"
import type { Generation } from "../../src/powerhouse/Delivery.js"
import * as Database from "../support/Database.js"
import type { OperationWithContext } from "./Legacy.js"
import { processors } from "./Real.js"
import type { Filter as TheirFilter } from "./Real.js"
import * as Run from "./Run.js"

interface Schema {
  seen: { key: string; n: number; type: string; input: string; action: string | null; at: string; error: string | null }
  count: { document: string; operations: number }
}

interface Flat {
  readonly index: number
  readonly skip: number
  readonly hash: string
  readonly type: string
  readonly input?: unknown
  readonly timestamp?: string
  readonly timestampUtcMs?: string
  readonly action?: { readonly id: string }
  readonly error?: string
}

/** Keeps everything that it is given, in the order in which it comes, and counts on. */
abstract class Keeping extends processors.RelationalDbProcessor<Schema> {
  async initAndUpgrade(): Promise<void> {
    const { schema } = this.relationalDb as unknown as Kysely<unknown>
    await schema.createTable("seen").ifNotExists().addColumn("key", "text", (column) => column.primaryKey())
      .addColumn("n", "integer").addColumn("type", "text").addColumn("input", "text").addColumn("action", "text")
      .addColumn("at", "text").addColumn("error", "text").execute()
    await schema.createTable("count").ifNotExists().addColumn("document", "text", (column) => column.primaryKey())
      .addColumn("operations", "integer").execute()
  }

  protected async keep(document: string, stream: string, operation: Flat): Promise<void> {
    const { index, input, skip, type } = operation
    const found = await this.relationalDb.selectFrom("count").select("operations").where("document", "=", document)
      .executeTakeFirst()
    const n = (found?.operations ?? 0) + 1
    await this.relationalDb.insertInto("count").values({ document, operations: n })
      .onConflict((on) => on.column("document").doUpdateSet({ operations: n })).execute()
    await this.relationalDb.insertInto("seen").values({
      key: `${document} ${stream} ${index}/${skip} ${operation.hash}`,
      n,
      type,
      input: JSON.stringify(input ?? null),
      action: operation.action?.id ?? null,
      at: operation.timestampUtcMs ?? operation.timestamp ?? "",
      error: operation.error ?? null
    }).execute()
  }

  async onDisconnect(): Promise<void> {}
}

interface Update {
  readonly documentId: string
  readonly scope: string
  readonly branch: string
  readonly operations: ReadonlyArray<Flat>
}

class Strands extends Keeping {
  async onStrands(strands: ReadonlyArray<Update>): Promise<void> {
    for (const { branch, documentId, operations, scope } of strands) {
      for (const operation of operations) await this.keep(documentId, `${scope} ${branch}`, operation)
    }
  }
}

class Operations extends Keeping {
  async onOperations(operations: ReadonlyArray<OperationWithContext>): Promise<void> {
    for (const { context, operation } of operations) {
      const { action, ...rest } = operation
      await this.keep(context.documentId, `${context.scope} ${context.branch}`, {
        ...rest,
        action,
        type: action.type,
        input: action.input
      })
    }
  }
}

/** Without what comes again. */
const once = (strands: ReadonlyArray<Source.Unplaced>): ReadonlyArray<Source.Unplaced> => {
  const known = new Set<string>()
  return strands.map((strand) => ({
    ...strand,
    operations: strand.operations.filter(({ hash, index, skip }) => {
      const key = JSON.stringify([strand.documentId, strand.scope, strand.branch, index, skip, hash])
      return !known.has(key) && known.add(key)
    })
  }))
}

const recorded = (name: string): ReadonlyArray<Source.Unplaced> =>
  gunzipSync(readFileSync(fileURLToPath(new URL(`../../examples/data/${name}.ndjson.gz`, import.meta.url))))
    .toString("utf8").trimEnd().split("\n")
    .flatMap((line) => Either.getOrThrow(Envelope.decode(JSON.parse(line))))

/** The class over a Kysely of `pg`, called with each operation once, in order. */
const byItself = async (
  url: string,
  generation: Generation,
  driveId: string,
  filter: TheirFilter,
  strands: ReadonlyArray<Source.Unplaced>
) => {
  const kysely = new Kysely<unknown>({
    dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: url, max: 2 }) })
  })
  const db = processors.createRelationalDb(kysely)
  const namespace = `by_itself_${generation}`
  const own = await db.createNamespace<Schema>(namespace)
  const wanted = Filter.compile(
    generation === "G3" ? filter : { ...filter, driveId: [driveId] },
    generation === "G3" ? "reactor" : "drive"
  )
  const placed = strands.map((strand, i): Strand.Strand => ({ ...strand, position: Position.make(BigInt(i + 1)) }))
  if (generation === "G3") {
    const instance = new Operations(namespace, filter, own)
    await instance.initAndUpgrade()
    for (const strand of placed.filter(wanted)) {
      await instance.onOperations(Delivery.operations(strand) as ReadonlyArray<OperationWithContext>)
    }
  } else {
    const instance = new Strands(namespace, filter, own)
    await instance.initAndUpgrade()
    for (const strand of placed.filter(wanted)) {
      await instance.onStrands([Delivery.update(generation, driveId, strand, undefined) as never])
    }
  }
  const rows = await own.selectFrom("seen").selectAll().orderBy("key").execute()
  await kysely.destroy()
  return rows
}

const byKey = (a: { readonly [column: string]: unknown }, b: { readonly [column: string]: unknown }) =>
  String(a["key"]) < String(b["key"]) ? -1 : 1

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  it.scopedLive.each<[string, Generation, TheirFilter]>([
    ["g1-strands", "G1", { documentType: ["*"], branch: ["main"], scope: ["global"], documentId: ["*"] }],
    ["g2-strands", "G2", { documentType: ["*"], branch: ["main"], scope: ["global"], documentId: ["*"] }],
    ["g2-backfill-30", "G2", {}],
    ["g3-operations", "G3", {}],
    ["g3-operations", "G3", { scope: ["global"], documentType: ["powerhouse/document-drive"], documentId: ["*"] }],
    ["g3-reshuffle", "G3", {}]
  ])("%s of %s", ([file, generation, filter]) =>
    Effect.gen(function*() {
      const strands = recorded(file)
      const driveId = strands.find((strand) => strand.driveId !== undefined)?.driveId ?? "drive"
      const { url } = yield* Database.postgres
      const expected = yield* Effect.promise(() => byItself(url, generation, driveId, filter, once(strands)))
      expect(expected.length).toBeGreaterThan(5)
      const database = yield* fresh
      const legacy = generation === "G3" ? Operations : Strands
      const processor = Run.decided("kept", legacy, { driveId, generation, filter, namespace: "kept", tables: "ours" })
      // What it has committed is not delivered again, however often it is supplied.
      yield* Run.run(database, strands.slice(0, Math.ceil(strands.length / 2)), processor)
      const [outcome] = yield* Run.run(database, [...strands, ...strands], processor)
      expect(outcome).toMatchObject({ phase: "ended", waiting: 0 })
      const rows = yield* Run.rows(database, "kept", "seen", "ours")
      expect([...rows].sort(byKey)).toEqual([...expected].sort(byKey))
    }))
})
