/**
 * The sync channel, against the endpoint of a real reactor: what the reactor holds is in the journal, each operation once,
 * whatever happens to requests and answers on the way.
 */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import pg from "pg"
import { DocumentModel, Journal, Policy, Powerhouse, Processor, Reactor } from "../../src/index.js"
import * as Home from "../journal/Home.js"
import * as Database from "../support/Database.js"
import * as HttpProxy from "../support/HttpProxy.js"
import * as Store from "../support/Store.js"
import * as Mishap from "./wire/Mishap.js"
import * as Real from "./wire/Real.js"

const pauses = { min: "5 millis", max: "40 millis", failing: "40 millis" } as const

/** `CHANNEL_ROUNDS`, from `CHANNEL_SEED` on, make a campaign of the chaos: each round is a test of its own seed. */
const chaos = {
  rounds: Number(process.env["CHANNEL_ROUNDS"] ?? 1),
  seed: Number(process.env["CHANNEL_SEED"] ?? 7)
}

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

/** Waits until the journal holds what the reactor does, which may still be at work. */
const agree = (journal: Home.Home, database: Database.PostgresDatabase, seconds = 40) =>
  Effect.gen(function*() {
    const both = Effect.all({ truth: truthOf(database), held: heldBy(journal) })
    yield* both.pipe(
      Effect.filterOrFail(({ held, truth }) => JSON.stringify(held) === JSON.stringify(truth)),
      Effect.retry(Schedule.spaced("20 millis").pipe(Schedule.upTo(`${seconds} seconds`))),
      Effect.ignore
    )
    const { held, truth } = yield* both
    expect(held).toEqual(truth)
  })

describe.each(Database.dialects)(
  "a sync channel into a journal on $dialect",
  ({ dialect, fresh }) => {
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

    it.scopedLive.each(Array.from({ length: chaos.rounds }, (_, i) => chaos.seed + i))(
      "loses nothing and stores nothing twice while requests and answers are lost, torn and doubled, by the seed %i",
      (seed) =>
        Effect.gen(function*() {
          const { database, documents, driveId, endpoint, reactor } = yield* world({ documents: 6 })
          const proxy = yield* HttpProxy.make(endpoint.url, 20261122 + seed)
          const troubles = [...HttpProxy.faults, "crossed"] as const
          proxy.setTrouble(0.35, troubles)
          const { journal } = yield* follow(yield* fresh, proxy.url, driveId, { lookEvery: "200 millis" })
          const random = HttpProxy.chances(seed)
          const happened = () => troubles.every((fault) => proxy.counts[fault] > 0)
          for (let round = 0; round < 40 || (round < 400 && !happened()); round++) {
            const document = documents[Math.floor(random() * documents.length)]!
            const count = 1 + Math.floor(random() * 12)
            yield* Effect.promise(() =>
              random() < 0.15
                ? reactor.undo(document).catch(() => undefined)
                : reactor.write(document, Array.from({ length: count }, (_, i) => `${round} ${i}`))
            )
          }
          yield* agree(journal, database)
          expect(happened()).toBe(true)
        })
    )

    it.scopedLive(
      "loses nothing and stores nothing twice when its process is killed again and again",
      () =>
        Effect.gen(function*() {
          const { database, documents, driveId, endpoint, reactor } = yield* world({ documents: 4 })
          const home = yield* fresh
          const target = home.dialect === "sqlite" ? home.filename : home.url
          const random = HttpProxy.chances(5)
          const work = Effect.forEach(
            Array.from({ length: 30 }, (_, round) => round),
            (round) =>
              Effect.zipRight(
                Effect.promise(() =>
                  reactor.write(documents[Math.floor(random() * 4)]!, ["a", "b"].map((text) => text + round))
                ),
                Effect.sleep(50)
              )
          )
          const order = { dialect, target, url: endpoint.url, remote: "channel", driveId } as const
          const { kills } = yield* Mishap.killing(order, endpoint, HttpProxy.chances(6), work)
          expect(kills).toBeGreaterThanOrEqual(3)
          const context = yield* Home.open(home)
          yield* agree(Context.get(context, Journal.Journal), database)
        })
    )

    it.scopedLive("acknowledges nothing while the journal stores nothing", () =>
      Effect.gen(function*() {
        const { database, documents, driveId, endpoint, reactor } = yield* world()
        yield* Effect.promise(() => reactor.write(documents[0]!, ["a", "b"]))
        const context = yield* Home.open(yield* fresh)
        const journal = Context.get(context, Journal.Journal)
        let isAway = true
        const unavailable = new Journal.JournalUnavailable({ journal: "home", outcome: "unknown", cause: "gone" })
        const lame: Home.Home = {
          ...journal,
          append: (strands) => Effect.suspend(() => isAway ? Effect.fail(unavailable) : journal.append(strands))
        }
        const following = yield* Powerhouse.SyncChannel.follow({
          url: endpoint.url,
          driveId,
          channelId: "ours",
          pauses
        })
          .pipe(
            Effect.provide(FetchHttpClient.layer),
            Effect.provideService(Journal.Journal, lame),
            Effect.provide(Home.silent)
          )
        while (endpoint.requests.length < 15) yield* Effect.sleep(5)
        const polls = endpoint.requests.flatMap(({ variables }) => variables["outboxAck"] ?? [])
        expect(polls.length).toBeGreaterThan(3)
        expect(new Set(polls)).toEqual(new Set([0]))
        expect((yield* following.status.get).failure).toBe(unavailable)
        isAway = false
        yield* agree(journal, database)
      }))

    it.scopedLive("is followed by a processor, whose tables are up to date with the drive", () =>
      Effect.gen(function*() {
        const { documents, driveId, endpoint, reactor } = yield* world()
        yield* Effect.promise(() => reactor.write(documents[0]!, ["draft", "about", "final"]))
        const remote = Powerhouse.SyncChannel.layer({ url: endpoint.url, driveId, channelId: "ours", pauses })
        yield* Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const names = sql<{ readonly name: string }>`SELECT name FROM model_names ORDER BY name`
          const become = (wanted: ReadonlyArray<string>) =>
            Effect.repeat(Effect.zipRight(Effect.sleep("10 millis"), Effect.orElseSucceed(names, () => [])), {
              until: (rows) => JSON.stringify(rows.map(({ name }) => name)) === JSON.stringify(wanted)
            })
          yield* become(["final"])
          yield* Effect.promise(() => reactor.write(documents[1]!, ["another"]))
          yield* become(["another", "final"])
        }).pipe(
          Effect.provide(
            Reactor.layer(Names).pipe(
              Layer.provideMerge(remote),
              Layer.provideMerge(Journal.layer("home")),
              Layer.provide(FetchHttpClient.layer),
              Layer.provideMerge(Store.layer(yield* fresh)),
              Layer.provide(Home.silent)
            )
          )
        )
      }))
  }
)

describe("a sync channel", () => {
  const sqlite = Database.sqlite

  it.scopedLive("has what a lost answer held, although it lies below what was acknowledged; the reactor's client has not", () =>
    Effect.gen(function*() {
      const { database, documents: [long, short], driveId, endpoint, reactor } = yield* world()
      const names = (count: number) => Array.from({ length: count }, (_, i) => `name ${i}`)
      yield* Effect.promise(() => reactor.write(long!, names(1)))
      yield* Effect.promise(() => reactor.write(short!, names(3)))
      yield* Effect.promise(() => reactor.write(long!, names(150)))
      /** The answer with the operations of the short document, which come after higher ones. */
      const isMeant = (text: string) => {
        const { data } = JSON.parse(text) as {
          readonly data?: { readonly pollSyncEnvelopes?: { readonly envelopes: ReadonlyArray<Envelope> } }
        }
        return data?.pollSyncEnvelopes?.envelopes.some(({ operations }) =>
          operations.some(({ context }) => context.documentId === short && context.scope === "global")
        ) === true
      }
      const ofShort = (keys: ReadonlyArray<string>) => keys.filter((text) => text.startsWith(`["${short}"`))

      const theirProxy = yield* HttpProxy.make(endpoint.url, 1)
      const lostToThem = theirProxy.loseWhere(isMeant)
      const theirs = yield* Database.postgres
      yield* Real.connect(theirs.url, theirProxy.url, driveId)
      const ourProxy = yield* HttpProxy.make(endpoint.url, 1)
      const lostToUs = ourProxy.loseWhere(isMeant)
      const { journal } = yield* follow(yield* sqlite, ourProxy.url, driveId)
      yield* Effect.promise(() => Promise.all([lostToThem, lostToUs]))
      yield* agree(journal, database)
      const truth = yield* truthOf(database)
      const sizeOfRest = truth.length - ofShort(truth).length
      const their = yield* Effect.repeat(Effect.delay(truthOf(theirs), "50 millis"), {
        until: (keys) => keys.length - ofShort(keys).length >= sizeOfRest
      })
      yield* Effect.sleep("500 millis")
      expect(ofShort(their).length).toBeLessThan(ofShort(truth).length)
    }))

  it.scopedLive("finds what the server's outbox has forgotten, at its next look", () =>
    Effect.gen(function*() {
      const { database, documents, driveId, endpoint, reactor } = yield* world()
      const { following, journal } = yield* follow(yield* sqlite, endpoint.url, driveId, { lookEvery: "100 millis" })
      while (!(yield* following.status.get).isCaughtUp) yield* Effect.sleep(5)
      const proof = Effect.gen(function*() {
        yield* Effect.promise(() => reactor.write(documents[0]!, ["a", "b", "c"]))
        reactor.forget("ours")
        yield* agree(journal, database)
      })
      yield* Effect.repeatN(proof, 4)
    }))

  it.scopedLive("makes its channel anew with a server that does not know it any more", () =>
    Effect.gen(function*() {
      const { database, documents, driveId, endpoint, reactor } = yield* world()
      const { following, journal } = yield* follow(yield* sqlite, endpoint.url, driveId)
      yield* agree(journal, database)
      yield* Effect.promise(() => reactor.drop("ours"))
      yield* Effect.promise(() => reactor.write(documents[0]!, ["a"]))
      yield* agree(journal, database)
      while ((yield* following.status.get).registrations < 2) yield* Effect.sleep(5)
    }))

  it.scopedLive("goes on with a reactor that was started anew over the same store", () =>
    Effect.gen(function*() {
      const database = yield* Database.postgres
      const scope = yield* Scope.make()
      const first = yield* Scope.extend(Real.reactor(database.url), scope)
      const endpoint = yield* Scope.extend(Real.serve(first), scope)
      const driveId = yield* Effect.promise(() => first.createDrive("home"))
      const document = yield* Effect.promise(() => first.createDocument(driveId))
      const proxy = yield* HttpProxy.make(endpoint.url, 1)
      const { following, journal } = yield* follow(yield* sqlite, proxy.url, driveId, { lookEvery: "100 millis" })
      yield* agree(journal, database)
      yield* Scope.close(scope, Exit.void)
      while ((yield* following.status.get).phase !== "waiting") yield* Effect.sleep(5)
      const second = yield* Real.reactor(database.url)
      yield* Effect.promise(() => second.write(document, ["while nobody followed"]))
      proxy.setTarget((yield* Real.serve(second)).url)
      yield* agree(journal, database)
      yield* Effect.promise(() => second.write(document, ["after"]))
      yield* agree(journal, database)
    }))

  it.scopedLive("asks a server of the older schema without the newer fields", () =>
    Effect.gen(function*() {
      const { database, documents, driveId, endpoint, reactor } = yield* world({ older: true })
      yield* Effect.promise(() => reactor.addTwice(driveId, "file"))
      yield* Effect.promise(() => reactor.write(documents[0]!, ["a"]))
      const { journal } = yield* follow(yield* sqlite, endpoint.url, driveId)
      yield* agree(journal, database)
      const rejected = endpoint.requests.filter(({ query }) => query.includes("deniedReason"))
      expect(rejected).toHaveLength(1)
    }))

  it.scopedLive("tells of a deleted document by what the drive says, since the deletion itself is sent to nobody", () =>
    Effect.gen(function*() {
      const { database, documents, driveId, endpoint, reactor } = yield* world()
      const { following, journal } = yield* follow(yield* sqlite, endpoint.url, driveId)
      yield* agree(journal, database)
      yield* Effect.promise(() => reactor.remove(documents[0]!))
      const told = Effect.map(Home.all(journal), (strands) => Home.flat(strands).map(({ type }) => type as string))
      while (!(yield* told).includes("REMOVE_RELATIONSHIP")) yield* Effect.sleep(5)
      const truth = yield* truthOf(database)
      const deletion = truth.filter((text) => text.includes("DELETE_DOCUMENT"))
      expect(deletion).toHaveLength(1)
      expect(yield* heldBy(journal)).toEqual(truth.filter((text) => !deletion.includes(text)))
      expect((yield* following.status.get).refused).toEqual([])
    }))

  it.scopedLive("leaves only the streams out whose filter says so", () =>
    Effect.gen(function*() {
      const { documents: [one, other], driveId, endpoint, reactor } = yield* world()
      yield* Effect.promise(() => reactor.write(one!, ["a"]))
      yield* Effect.promise(() => reactor.write(other!, ["b"]))
      const { following, journal } = yield* follow(yield* sqlite, endpoint.url, driveId, {
        documentId: [one!],
        scope: ["global"]
      })
      while (!(yield* following.status.get).isCaughtUp) yield* Effect.sleep(5)
      const held = Home.flat(yield* Home.all(journal))
      expect(held.map(({ documentId, driveId: from, scope }) => [documentId, scope, from])).toEqual([
        [one, "global", driveId]
      ])
    }))
})

const Model = DocumentModel.make("powerhouse/document-model", {
  SET_MODEL_NAME: Schema.Struct({ name: Schema.String }),
  SET_MODEL_DESCRIPTION: Schema.Struct({ description: Schema.String })
})

/** What each document model is called. */
const Names = Processor.make("names", {
  namespace: "names",
  filter: { documentType: [Model.type], scope: ["global"] },
  migrations: {
    "0001_names": {
      up: Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql`CREATE TABLE model_names (id TEXT PRIMARY KEY, name TEXT NOT NULL)`
      ),
      down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE model_names`)
    }
  },
  handler: Effect.map(SqlClient.SqlClient, (sql) =>
    Processor.onOperations(Model, {
      SET_MODEL_NAME: ({ input, strand }) =>
        sql`INSERT INTO model_names ${sql.insert({ id: strand.documentId, name: input.name })}
            ON CONFLICT (id) DO UPDATE SET name = excluded.name`,
      SET_MODEL_DESCRIPTION: () => Effect.void
    }))
}).pipe(Processor.withPolicy(Policy.standard))

interface Envelope {
  readonly operations: ReadonlyArray<{ readonly context: { readonly documentId: string; readonly scope: string } }>
}
