/**
 * The sync channel, against the endpoint of a real reactor: what the reactor holds is in the journal, each operation once,
 * whatever happens to requests and answers on the way.
 */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import pg from "pg"
import { Journal, Powerhouse } from "../../src/index.js"
import * as Home from "../journal/Home.js"
import * as Database from "../support/Database.js"
import * as HttpProxy from "../support/HttpProxy.js"
import * as Real from "./wire/Real.js"

const pauses = { min: "5 millis", max: "40 millis", failing: "40 millis" } as const

/** A reactor on PostgreSQL with a drive and some documents, behind an endpoint. */
const world = (options: { readonly documents?: number; readonly concurrency?: number } & Real.ServeOptions = {}) =>
  Effect.gen(function*() {
    const database = yield* Database.postgres
    const reactor = yield* Real.reactor(database.url, options)
    const endpoint = yield* Real.serve(reactor, options)
    const driveId = yield* Effect.promise(() => reactor.createDrive("home"))
    const documents = yield* Effect.forEach(
      Array.from({ length: options.documents ?? 2 }),
      () => Effect.promise(() => reactor.createDocument(driveId))
    )
    return { database, reactor, endpoint, driveId, documents }
  })

/** A journal, and a channel that fills it. */
const follow = (
  database: Database.Database,
  url: string,
  driveId: string,
  options: Partial<Powerhouse.SyncChannel.Options> = {}
) =>
  Effect.gen(function*() {
    const context = yield* Home.open(database)
    const following = yield* Powerhouse.SyncChannel.follow({ url, driveId, channelId: "ours", pauses, ...options })
      .pipe(
        Effect.provide(FetchHttpClient.layer),
        Effect.provide(context),
        Effect.provide(Home.silent)
      )
    return { journal: Context.get(context, Journal.Journal), following }
  })

/** What is compared: everything of an operation that a processor may see. */
const key = (
  one: Readonly<Record<"documentId" | "documentType" | "scope" | "branch" | "type" | "hash", string>> & {
    readonly index: number
    readonly skip: number
    readonly input: unknown
    readonly error?: string | undefined
  }
) =>
  JSON.stringify([
    one.documentId,
    one.documentType,
    one.scope,
    one.branch,
    one.index,
    one.skip,
    one.hash,
    one.type,
    one.input,
    one.error ?? null
  ])

/** What the reactor's own tables hold. */
const truthOf = (database: Database.PostgresDatabase) =>
  Effect.acquireUseRelease(
    Effect.promise(async () => {
      const client = new pg.Client({ connectionString: database.url })
      await client.connect()
      return client
    }),
    (client) =>
      Effect.promise(async () => {
        const { rows } = await client.query<
          Parameters<typeof key>[0] & { readonly action: { type: string; input: unknown } }
        >(
          `SELECT "documentId", "documentType", scope, branch, "index", skip, hash, error, action FROM reactor."Operation"`
        )
        return rows.map((row) => key({ ...row, ...row.action, error: row.error ?? undefined })).sort()
      }),
    (client) => Effect.promise(() => client.end())
  )

const heldBy = (journal: Home.Home) =>
  Effect.map(Home.all(journal), (strands) => Home.flat(strands).map((one) => key({ ...one })).sort())

/** Waits until the journal holds as much as the reactor, and compares. */
const agree = (journal: Home.Home, database: Database.PostgresDatabase, seconds = 20) =>
  Effect.gen(function*() {
    const truth = yield* truthOf(database)
    yield* heldBy(journal).pipe(
      Effect.filterOrFail((held) => held.length >= truth.length, (held) => `${held.length} of ${truth.length}`),
      Effect.retry(Schedule.spaced("20 millis").pipe(Schedule.upTo(`${seconds} seconds`))),
      Effect.ignore
    )
    expect(yield* heldBy(journal)).toEqual(truth)
  })

describe.each(Database.dialects)("a sync channel into a journal on $dialect", ({ fresh }) => {
  it.scopedLive("brings what was there, what comes, and which operations were refused", () =>
    Effect.gen(function*() {
      const { database, documents, driveId, endpoint, reactor } = yield* world()
      yield* Effect.promise(() => reactor.write(documents[0]!, Array.from({ length: 130 }, (_, i) => `name ${i}`)))
      const { following, journal } = yield* follow(yield* fresh, endpoint.url, driveId)
      yield* agree(journal, database)
      yield* Effect.promise(() => reactor.addTwice(driveId, "file"))
      yield* Effect.promise(() => reactor.write(documents[1]!, ["a", "b", "c"]))
      yield* Effect.promise(() => reactor.undo(documents[1]!))
      yield* agree(journal, database)
      const refused = Home.flat(yield* Home.all(journal)).filter(({ error }) => error !== undefined)
      expect(refused.map(({ type }) => type)).toEqual(["ADD_FILE"])
      expect((yield* following.status.get).refused).toEqual([])
    }))

  it.scopedLive(
    "loses nothing and stores nothing twice while requests and answers are lost, torn and doubled",
    () =>
      Effect.gen(function*() {
        const { database, documents, driveId, endpoint, reactor } = yield* world({ documents: 6 })
        const proxy = yield* HttpProxy.make(endpoint.url, 20261122)
        proxy.setTrouble(0.35)
        const { journal } = yield* follow(yield* fresh, proxy.url, driveId, { lookEvery: "200 millis" })
        const random = HttpProxy.chances(7)
        for (let round = 0; round < 60; round++) {
          const document = documents[Math.floor(random() * documents.length)]!
          const count = 1 + Math.floor(random() * 12)
          yield* Effect.promise(() =>
            random() < 0.15
              ? reactor.undo(document).catch(() => undefined)
              : reactor.write(document, Array.from({ length: count }, (_, i) => `${round} ${i}`))
          )
        }
        yield* agree(journal, database)
        const kinds = Object.values(proxy.counts).filter((count) => count > 0)
        expect(kinds).toHaveLength(HttpProxy.faults.length)
      }),
    60_000
  )
})
