/**
 * The operation store as a source: what the real reactor has stored, in the order of its ordinals, each once, however its
 * transactions end.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import pg from "pg"
import * as Pglite from "../../layers/Pglite.js"
import { Position, Powerhouse, Source } from "../../src/index.js"
import type { Strand } from "../../src/index.js"
import * as Database from "../support/Database.js"
import { chances } from "../support/HttpProxy.js"
import * as Store from "../support/Store.js"
import * as Real from "./wire/Real.js"

const pauses = { minMillis: 2, maxMillis: 20 } as const

const sourceOn = (
  database: Database.PostgresDatabase | Real.Memory,
  options: Partial<Powerhouse.OperationStore.Options> = {}
) =>
  Effect.map(
    Layer.build(
      Powerhouse.OperationStore.layer({ name: "store", pauses, ...options }).pipe(
        Layer.provide("url" in database ? Store.layer(database) : Pglite.layer(database))
      )
    ),
    (context) => Context.get(context, Source.Source)
  )

const clientOf = (database: Database.PostgresDatabase) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const client = new pg.Client({ connectionString: database.url })
      await client.connect()
      return client
    }),
    (client) => Effect.promise(() => client.end())
  )

/** The reactor's tables, as its own migrations make them. */
const tables = Effect.gen(function*() {
  const database = yield* Database.postgres
  yield* Effect.scoped(Real.reactor(database.url))
  return { database, client: yield* clientOf(database) }
})

const insert = (documentId: string, index: number) => ({
  text: `INSERT INTO reactor.operation_index_operations
    ("opId", "documentId", "documentType", scope, branch, "timestampUtcMs", "index", skip, hash, action)
    VALUES ($1, $2, 'test/list', 'global', 'main', '2026-11-22T00:00:00.000Z', $3, 0, $1, $4) RETURNING ordinal`,
  values: [`${documentId} ${index}`, documentId, index, JSON.stringify({ id: "a", type: "PUT", input: { index } })]
})

const ordinalsIn = async (client: pg.Client): Promise<ReadonlyArray<number>> =>
  (await client.query<{ ordinal: number }>("SELECT ordinal FROM reactor.operation_index_operations ORDER BY ordinal"))
    .rows.map(({ ordinal }) => ordinal)

/** The strands above a position, as many as there are now. */
const some = (source: Source.Source["Type"], count: number, after = Position.origin) =>
  Effect.map(Stream.runCollect(Stream.take(source.strands(after), count)), Chunk.toReadonlyArray)

const ordinals = (strands: Iterable<Strand.Strand>) => Array.from(strands, ({ position }) => Number(position))

const everything = Position.make(Position.max)

/** Long enough for a reader that does not wait to have read. */
const settled = Effect.sleep("100 millis")

/** Waits until so many have been read. */
const reaches = (read: ReadonlyArray<number>, count: number) =>
  Effect.repeat(Effect.sleep("5 millis"), { until: () => read.length >= count })

describe("an operation store", () => {
  it.scopedLive("supplies what the reactor stored, and what it says of errors elsewhere", () =>
    Effect.gen(function*() {
      const database = yield* Database.postgres
      const reactor = yield* Real.reactor(database.url)
      const driveId = yield* Effect.promise(() => reactor.createDrive("home"))
      const documentId = yield* Effect.promise(() => reactor.createDocument(driveId))
      yield* Effect.promise(() => reactor.addTwice(driveId, "file"))
      yield* Effect.promise(() => reactor.write(documentId, ["a", "b"]))
      yield* Effect.promise(() => reactor.undo(documentId))
      yield* Effect.promise(() => reactor.remove(documentId))
      const source = yield* sourceOn(database)
      const stored = yield* Effect.promise(async () => {
        const client = new pg.Client({ connectionString: database.url })
        await client.connect()
        const found = await ordinalsIn(client)
        await client.end()
        return found
      })
      const strands = yield* some(source, stored.length)
      expect(ordinals(strands)).toEqual(stored)
      const told = strands.flatMap(({ operations }) => operations.map(({ error, skip, type }) => [type, skip, error]))
      expect(told).toContainEqual(["ADD_FILE", 0, "Node with id file already exists!"])
      expect(told).toContainEqual(["ADD_FILE", 0, undefined])
      expect(told).toContainEqual(["NOOP", 1, undefined])
      expect(told).toContainEqual(["DELETE_DOCUMENT", 0, undefined])
      expect(yield* source.head).toEqual(Option.some(Position.make(BigInt(stored.at(-1)!))))

      const id = strands.find((strand) => strand.documentId === documentId)!.documentId
      const through = Position.make(BigInt(stored.at(-1)! - 1))
      const own = yield* Effect.map(Stream.runCollect(source.document!(id, through)), Chunk.toReadonlyArray)
      expect(own).toEqual(strands.filter((strand) => strand.documentId === id && strand.position <= through))
    }))

  it.scopedLive("supplies the same strands whatever the pages, the position and the filter", () =>
    Effect.gen(function*() {
      const { client, database } = yield* tables
      yield* Effect.promise(async () => {
        for (let i = 0; i < 25; i++) await client.query(insert(`document ${i % 3}`, Math.floor(i / 3)))
      })
      const whole = yield* Effect.flatMap(sourceOn(database), (source) => some(source, 25))
      for (const page of [1, 2, 7, 25]) {
        const source = yield* sourceOn(database, { page })
        expect(yield* some(source, 25 - page, whole[page - 1]!.position)).toEqual(whole.slice(page))
        const filtered = yield* sourceOn(database, { page, filter: { documentId: ["document 1"], branch: ["main"] } })
        const wanted = whole.filter(({ documentId }) => documentId === "document 1")
        expect(yield* some(filtered, wanted.length)).toEqual(wanted)
        expect(yield* Effect.map(Stream.runCollect(source.document!(whole[1]!.documentId, everything)), Chunk.size))
          .toBe(wanted.length)
      }
    }))

  it.scopedLive("supplies what was denied as refused, and all of a store that knows of no denials", () =>
    Effect.gen(function*() {
      const { client, database } = yield* tables
      yield* Effect.promise(async () => {
        await client.query(insert("a", 0))
        await client.query(`UPDATE reactor.operation_index_operations SET "deniedReason" = 'not yours'`)
      })
      const errors = Effect.map(
        Effect.flatMap(sourceOn(database), (source) => some(source, 1)),
        (strands) => strands.flatMap(({ operations }) => operations.map(({ error }) => error))
      )
      expect(yield* errors).toEqual(["not yours"])
      yield* Effect.promise(() =>
        client.query(`ALTER TABLE reactor.operation_index_operations DROP COLUMN "deniedReason"`)
      )
      expect(yield* errors).toEqual([undefined])
    }))

  it.scopedLive("supplies nothing above a transaction that is open, and all once it has ended, by either end", () =>
    Effect.gen(function*() {
      const { client, database } = yield* tables
      const source = yield* sourceOn(database)
      const read: Array<number> = []
      yield* Effect.forkScoped(
        Stream.runForEach(
          source.strands(Position.origin),
          ({ position }) => Effect.sync(() => read.push(Number(position)))
        )
      )
      const first = yield* Effect.promise(() => client.query(insert("a", 0)))
      const base = (first.rows as ReadonlyArray<{ ordinal: number }>)[0]!.ordinal
      for (const [ending, before, after] of [["COMMIT", 1, 3], ["ROLLBACK", 3, 4]] as const) {
        const slow = yield* clientOf(database)
        yield* Effect.promise(async () => {
          await slow.query("BEGIN")
          await slow.query(insert(ending, 0))
          await client.query(insert("a", before))
        })
        yield* reaches(read, before)
        yield* settled
        expect(read).toHaveLength(before)
        yield* Effect.promise(() => slow.query(ending))
        yield* reaches(read, after)
      }
      expect(read).toEqual([0, 1, 2, 4].map((step) => base + step))
    }))

  it.scopedLive("is held up by no transaction that writes elsewhere, nor by holes that are old", () =>
    Effect.gen(function*() {
      const { client, database } = yield* tables
      const elsewhere = yield* clientOf(database)
      yield* Effect.promise(async () => {
        await client.query("CREATE TABLE elsewhere (id INT)")
        await elsewhere.query("BEGIN")
        await elsewhere.query("INSERT INTO elsewhere VALUES (1)")
        await elsewhere.query("SELECT count(*) FROM reactor.operation_index_operations")
        for (let i = 0; i < 3; i++) {
          await client.query("BEGIN")
          await client.query(insert("gone", 0))
          await client.query("ROLLBACK")
          await client.query(insert("a", i))
        }
      })
      expect(yield* Effect.flatMap(sourceOn(database), (source) => some(source, 3))).toHaveLength(3)
    }))

  it.scopedLive("loses nothing to 16 writers whose commits are slow and rolled back, where a naive reader does", () =>
    Effect.gen(function*() {
      const { client, database } = yield* tables
      const source = yield* sourceOn(database, { page: 50 })
      const read: Array<number> = []
      yield* Effect.forkScoped(
        Stream.runForEach(
          source.strands(Position.origin),
          ({ position }) => Effect.sync(() => read.push(Number(position)))
        )
      )
      const naive: Array<number> = []
      const looking = yield* clientOf(database)
      const naiveReader = yield* Effect.fork(Effect.forever(Effect.promise(async () => {
        const { rows } = await looking.query<{ ordinal: number }>({
          text: `SELECT ordinal FROM reactor.operation_index_operations WHERE ordinal > $1 ORDER BY ordinal LIMIT 50`,
          values: [naive.at(-1) ?? 0]
        })
        naive.push(...rows.map(({ ordinal }) => ordinal))
      })))
      yield* Effect.forEach(
        Array.from({ length: 16 }, (_, writer) => writer),
        (writer) =>
          Effect.gen(function*() {
            const random = chances(writer)
            const own = yield* clientOf(database)
            yield* Effect.promise(async () => {
              for (let round = 0, index = 0; round < 25; round++) {
                await own.query("BEGIN")
                const count = 1 + Math.floor(random() * 4)
                for (let i = 0; i < count; i++) await own.query(insert(`writer ${writer}`, index + i))
                await own.query("SELECT pg_sleep($1)", [random() * 0.008])
                const isKept = random() > 0.2
                await own.query(isKept ? "COMMIT" : "ROLLBACK")
                if (isKept) index += count
              }
            })
          }),
        { concurrency: "unbounded" }
      )
      const truth = yield* Effect.promise(() => ordinalsIn(client))
      yield* reaches(read, truth.length)
      yield* settled
      yield* Fiber.interrupt(naiveReader)
      expect(read).toEqual(truth)
      expect(naive.length).toBeLessThan(truth.length)
    }))

  it.scopedLive("supplies what the reactor's own delivery loses under concurrent writers", () =>
    Effect.gen(function*() {
      const database = yield* Database.postgres
      const reactor = yield* Real.reactor(database.url)
      const driveId = yield* Effect.promise(() => reactor.createDrive("home"))
      const documents = yield* Effect.forEach(
        Array.from({ length: 4 }),
        () => Effect.promise(() => reactor.createDocument(driveId))
      )
      const client = yield* clientOf(database)
      const before = yield* Effect.promise(() => ordinalsIn(client))
      const delivered = yield* Effect.promise(() => reactor.deliver("theirs"))
      const source = yield* sourceOn(database)
      const read: Array<number> = []
      yield* Effect.forkScoped(
        Stream.runForEach(
          source.strands(Position.origin),
          ({ position }) => Effect.sync(() => read.push(Number(position)))
        )
      )
      const random = chances(3)
      yield* Effect.forEach(
        documents,
        (document) =>
          Effect.promise(async () => {
            for (let round = 0; round < 12; round++) {
              await reactor.write(
                document,
                Array.from({ length: 1 + Math.floor(random() * 10) }, (_, i) => `${round} ${i}`)
              )
            }
          }),
        { concurrency: "unbounded" }
      )
      const truth = yield* Effect.promise(() => ordinalsIn(client))
      yield* reaches(read, truth.length)
      // What comes late has come when nothing has come for a while.
      for (let came = -1; came < delivered.length;) {
        came = delivered.length
        yield* Effect.sleep("300 millis")
      }
      expect(read).toEqual(truth)
      const written = truth.slice(before.length)
      const theirs = new Set(delivered)
      expect(written.filter((ordinal) => !theirs.has(ordinal))).not.toEqual([])
    }))

  it.scopedLive("reads the reactor's own PGlite, and nothing of what its open transaction may take back", () =>
    Effect.gen(function*() {
      const memory = Real.memory()
      const reactor = yield* Real.reactor(memory)
      const driveId = yield* Effect.promise(() => reactor.createDrive("home"))
      const source = yield* sourceOn(memory)
      const read: Array<number> = []
      yield* Effect.forkScoped(
        Stream.runForEach(
          source.strands(Position.origin),
          ({ position }) => Effect.sync(() => read.push(Number(position)))
        )
      )
      const documents = yield* Effect.forEach(
        Array.from({ length: 3 }),
        () => Effect.promise(() => reactor.createDocument(driveId)),
        { concurrency: "unbounded" }
      )
      yield* Effect.forEach(
        documents,
        (document) => Effect.promise(() => reactor.write(document, ["a", "b", "c"])),
        { concurrency: "unbounded" }
      )
      const stored = yield* Effect.promise(() =>
        memory.query("SELECT ordinal FROM reactor.operation_index_operations ORDER BY ordinal")
      )
      yield* reaches(read, stored.rows.length)
      expect(read).toEqual(stored.rows.map((row) => (row as { readonly ordinal: number }).ordinal))

      const { text, values } = insert("taken back", 0)
      yield* Effect.promise(async () => {
        await memory.exec("BEGIN")
        await memory.query(text, values)
      })
      yield* settled
      yield* Effect.promise(() => memory.exec("ROLLBACK"))
      yield* settled
      expect(read).toHaveLength(stored.rows.length)
      yield* Effect.promise(() => memory.query(text, values))
      yield* reaches(read, stored.rows.length + 1)
    }))

  it.scopedLive("says what is wrong with a database that has no such store, or not the one that it had", () =>
    Effect.gen(function*() {
      const empty = yield* tables
      const other = yield* sourceOn(empty.database)
      expect((yield* Effect.flip(Stream.runDrain(other.strands(Position.make(7n))))).message)
        .toContain("the store ends at 0")
      const fails = (database: Database.Database) =>
        Effect.flip(
          Effect.flatMap(
            Powerhouse.OperationStore.make({ name: "store" }),
            (source) => Stream.runDrain(source.strands(Position.origin))
          ).pipe(Effect.provide(Store.layer(database)))
        )
      expect((yield* fails(yield* Database.postgres)).message).toContain("does not exist")
      expect((yield* fails(yield* Database.sqlite)).message).toContain("the reactor stores in PostgreSQL only")
    }))
})
