/**
 * What the other tests stand on: the PostgreSQL server, a database per test, and the proxy with its faults.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import { existsSync, writeFileSync } from "node:fs"
import { dirname } from "node:path"
import pg from "pg"
import { inject } from "vitest"
import * as Database from "./Database.js"
import * as PostgresFrames from "./PostgresFrames.js"
import * as PostgresServer from "./PostgresServer.js"
import * as Proxy from "./Proxy.js"

/** One connection; a lost one fails its queries, and that is all it does. */
const connect = (url: string): Effect.Effect<pg.Client, unknown, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: async () => {
        const client = new pg.Client({ connectionString: url })
        client.on("error", () => undefined)
        await client.connect()
        return client
      },
      catch: (cause) => cause
    }),
    (client) => Effect.promise(() => client.end().catch(() => undefined))
  )

const query = (client: pg.Client, text: string): Effect.Effect<ReadonlyArray<unknown>, unknown> =>
  Effect.tryPromise({ try: async () => (await client.query<Record<string, unknown>>(text)).rows, catch: (e) => e })

const queryOnce = (url: string, text: string): Effect.Effect<ReadonlyArray<unknown>, unknown> =>
  Effect.scoped(Effect.flatMap(connect(url), (client) => query(client, text)))

describe("PostgresServer", () => {
  it.live("the server of the test run answers", () =>
    Effect.gen(function*() {
      expect(yield* queryOnce(inject("postgresUrl"), "SELECT 1 AS one")).toEqual([{ one: 1 }])
    }))

  it.scopedLive("a restart keeps what was committed and ends every connection", () =>
    Effect.gen(function*() {
      const server = yield* PostgresServer.make
      const client = yield* connect(server.url)
      yield* query(client, "CREATE TABLE kept (id int)")
      yield* query(client, "INSERT INTO kept VALUES (1)")

      yield* server.restart
      expect(Exit.isFailure(yield* Effect.exit(query(client, "SELECT 1")))).toBe(true)
      expect(yield* queryOnce(server.url, "SELECT id FROM kept")).toEqual([{ id: 1 }])
    }))

  it.live("a stopped server refuses, and its directory is gone with the scope", () =>
    Effect.gen(function*() {
      const directory = yield* Effect.scoped(Effect.gen(function*() {
        const server = yield* PostgresServer.make
        const [settings] = yield* queryOnce(server.url, "SHOW data_directory")
        yield* server.stop
        expect(yield* Effect.flip(connect(server.url))).toMatchObject({ code: "ECONNREFUSED" })
        return (settings as { readonly data_directory: string }).data_directory
      }))
      expect(existsSync(dirname(directory))).toBe(false)
    }))
})

describe("Database", () => {
  it.scopedLive("two PostgreSQL databases do not see each other's tables", () =>
    Effect.gen(function*() {
      const one = yield* Database.postgres
      const other = yield* Database.postgres
      yield* queryOnce(one.url, "CREATE TABLE only_in_one (id int)")
      expect(yield* Effect.flip(queryOnce(other.url, "SELECT * FROM only_in_one"))).toMatchObject({ code: "42P01" })
    }))

  it.live("a PostgreSQL database is dropped with its scope, though a connection is open", () =>
    Effect.scoped(Effect.gen(function*() {
      const { url } = yield* Effect.scoped(Effect.tap(Database.postgres, (database) => leaveOpen(database.url)))
      expect(yield* Effect.flip(connect(url))).toMatchObject({ code: "3D000" })
    })))

  it.live("two SQLite files are apart, and each is gone with its scope, journals included", () =>
    Effect.gen(function*() {
      const filenames = yield* Effect.scoped(Effect.gen(function*() {
        const one = yield* Database.sqlite
        const other = yield* Database.sqlite
        writeFileSync(one.filename, "")
        writeFileSync(`${one.filename}-wal`, "")
        expect(existsSync(other.filename)).toBe(false)
        return [one.filename, `${one.filename}-wal`]
      }))
      expect(filenames.filter(existsSync)).toEqual([])
    }))
})

const leaveOpen = (url: string): Effect.Effect<void> =>
  Effect.promise(async () => {
    const client = new pg.Client({ connectionString: url })
    client.on("error", () => undefined)
    await client.connect()
  })

describe("Proxy", () => {
  /** A table `rows`, the way to it through the proxy, and a count that goes past the proxy. */
  const setUp = Effect.gen(function*() {
    const database = yield* Database.postgres
    yield* queryOnce(database.url, "CREATE TABLE rows (id int)")
    const proxy = yield* Proxy.make(database.url)
    const client = yield* connect(proxy.url)
    return {
      proxy,
      client,
      rows: Effect.map(queryOnce(database.url, "SELECT id FROM rows"), (rows) => rows.length)
    }
  })

  const insertAndCommit = (client: pg.Client): Effect.Effect<void, unknown> =>
    Effect.gen(function*() {
      yield* query(client, "BEGIN")
      yield* query(client, "INSERT INTO rows VALUES (1)")
      yield* query(client, "COMMIT")
    })

  it.scopedLive("passes everything at first", () =>
    Effect.gen(function*() {
      const { client, proxy, rows } = yield* setUp
      yield* insertAndCommit(client)
      expect(yield* rows).toBe(1)
      expect(yield* proxy.connections).toBe(1)
    }))

  it.scopedLive("cutBeforeCommit leaves nothing, and the client has an error", () =>
    Effect.gen(function*() {
      const { client, proxy, rows } = yield* setUp
      const happened = yield* proxy.cutBeforeCommit
      expect(yield* Effect.flip(insertAndCommit(client))).toBeInstanceOf(Error)
      yield* happened
      expect(yield* rows).toBe(0)
    }))

  it.scopedLive("cutAfterCommit leaves the row, and the client has an error", () =>
    Effect.gen(function*() {
      const { client, proxy, rows } = yield* setUp
      const happened = yield* proxy.cutAfterCommit
      expect(yield* Effect.flip(insertAndCommit(client))).toBeInstanceOf(Error)
      yield* happened
      expect(yield* rows).toBe(1)
    }))

  it.scopedLive("a cut happens once: the next connection commits", () =>
    Effect.gen(function*() {
      const { client, proxy, rows } = yield* setUp
      yield* proxy.cutBeforeCommit
      yield* Effect.flip(insertAndCommit(client))
      yield* insertAndCommit(yield* connect(proxy.url))
      expect(yield* rows).toBe(1)
    }))

  it.scopedLive("a COMMIT that the server answers with ROLLBACK is none to cut after", () =>
    Effect.gen(function*() {
      const { client, proxy } = yield* setUp
      yield* proxy.cutAfterCommit
      yield* query(client, "BEGIN")
      yield* Effect.flip(query(client, "SELECT 1 / 0"))
      yield* query(client, "COMMIT")
      expect(yield* proxy.connections).toBe(1)
    }))

  it.scopedLive("a black hole answers nothing, and what it held arrives afterwards", () =>
    Effect.gen(function*() {
      const { client, proxy, rows } = yield* setUp
      yield* proxy.setMode("blackhole")
      const insert = yield* Effect.fork(query(client, "INSERT INTO rows VALUES (1)"))
      const first = yield* Effect.raceFirst(
        Effect.as(Effect.exit(insert.await), "answer"),
        Effect.as(Effect.sleep("300 millis"), "silence")
      )
      expect(first).toBe("silence")
      expect(yield* rows).toBe(0)

      yield* proxy.setMode("pass")
      yield* insert
      expect(yield* rows).toBe(1)
    }))

  it.scopedLive("refuse turns a new connection away and lets an open one live", () =>
    Effect.gen(function*() {
      const { client, proxy } = yield* setUp
      yield* proxy.setMode("refuse")
      expect(yield* Effect.flip(connect(proxy.url))).toBeInstanceOf(Error)
      expect(yield* query(client, "SELECT 1 AS one")).toEqual([{ one: 1 }])
    }))

  it.scopedLive("cutAll resets what is open, and a new connection is let through", () =>
    Effect.gen(function*() {
      const { client, proxy } = yield* setUp
      yield* proxy.cutAll
      expect(yield* Effect.flip(query(client, "SELECT 1"))).toBeInstanceOf(Error)
      expect(yield* queryOnce(proxy.url, "SELECT 1 AS one")).toEqual([{ one: 1 }])
    }))

  it.scopedLive("latency is waited in both directions, and the rate bounds the bytes", () =>
    Effect.gen(function*() {
      const { client, proxy } = yield* setUp
      yield* proxy.setLatency("50 millis")
      const [late] = yield* Effect.timed(query(client, "SELECT 1"))
      expect(Duration.toMillis(late)).toBeGreaterThanOrEqual(95)

      yield* proxy.setLatency(0)
      yield* proxy.setRate(10_000)
      const [slow] = yield* Effect.timed(query(client, "SELECT repeat('x', 2000)"))
      expect(Duration.toMillis(slow)).toBeGreaterThanOrEqual(195)
    }))
})

describe("PostgresFrames", () => {
  const frame = (type: string, body: string): Buffer => {
    const bytes = Buffer.alloc(5 + Buffer.byteLength(body))
    bytes.write(type)
    bytes.writeUInt32BE(bytes.length - 1, 1)
    bytes.write(body, 5)
    return bytes
  }
  const startup = Buffer.from([0, 0, 0, 9, 0, 3, 0, 0, 0])
  const encryptionRequest = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])

  it("finds a COMMIT wherever TCP cuts the bytes", () => {
    const bytes = Buffer.concat([
      encryptionRequest,
      startup,
      frame("Q", `INSERT INTO notes VALUES ('${"COMMIT ".repeat(100)}')`),
      frame("P", "\0COMMIT\0\0\0")
    ])
    for (let at = 0; at <= bytes.length; at++) {
      const read = PostgresFrames.fromClient()
      const messages = [bytes.subarray(0, at), bytes.subarray(at)].flatMap((chunk) => read(chunk))
      expect(messages.filter(PostgresFrames.asksForCommit)).toHaveLength(1)
    }
  })
})
