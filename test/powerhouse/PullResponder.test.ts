/**
 * The pull responder, against the endpoint of a real document-drive: what its own client pulls is in the journal, each
 * operation once, whatever happens to requests and answers on the way.
 */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { Journal, Powerhouse } from "../../src/index.js"
import * as Home from "../journal/Home.js"
import * as Database from "../support/Database.js"
import * as HttpProxy from "../support/HttpProxy.js"
import * as Mishap from "./wire/Mishap.js"
import * as Real from "./wire/Real.js"

const pauses = { min: "5 millis", max: "40 millis", failing: "40 millis" } as const

const world = Effect.gen(function*() {
  const storage = yield* Real.storage
  const drive = yield* Real.drive(storage)
  yield* Effect.promise(() => drive.createDrive("home"))
  const documents = yield* Effect.forEach(
    ["a", "b", "c"],
    (id) => Effect.promise(() => drive.createDocument("home", id))
  )
  const endpoint = yield* Real.serveDrive(drive, "home")
  return { storage, drive, documents, endpoint }
})

const follow = (
  database: Database.Database,
  url: string,
  options: Partial<Powerhouse.PullResponder.Options> = {}
) =>
  Effect.gen(function*() {
    const context = yield* Home.open(database)
    const following = yield* Powerhouse.PullResponder.follow({ url, listenerId: "ours", pauses, ...options }).pipe(
      Effect.provide(FetchHttpClient.layer),
      Effect.provide(context),
      Effect.provide(Home.silent)
    )
    return { journal: Context.get(context, Journal.Journal), following }
  })

const flat = (strands: ReadonlyArray<Real.PulledStrand>) =>
  strands.flatMap(({ operations, ...stream }) =>
    operations.map(({ hash, index, input, skip, type }) =>
      JSON.stringify([
        stream.driveId,
        stream.documentId,
        stream.documentType,
        stream.scope,
        stream.branch,
        index,
        skip,
        hash,
        type,
        input
      ])
    )
  ).sort()

/** Waits until the journal holds as much as the real client pulls, and compares. */
const agree = (journal: Home.Home, drive: Real.Drive, url: string) =>
  Effect.gen(function*() {
    const truth = flat(yield* Effect.promise(() => drive.all("home", url)))
    const held = Effect.map(Home.all(journal), (strands) => flat(strands as ReadonlyArray<Real.PulledStrand>))
    yield* held.pipe(
      Effect.filterOrFail((found) => found.length >= truth.length),
      Effect.retry(Schedule.spaced("20 millis").pipe(Schedule.upTo("40 seconds"))),
      Effect.ignore
    )
    expect(yield* held).toEqual(truth)
    expect(truth.length).toBeGreaterThan(0)
  })

const write = Real.writing(11)

describe.each(Database.dialects)(
  "a pull responder into a journal on $dialect",
  ({ dialect, fresh }) => {
    it.scopedLive("brings what was there and what comes, and acknowledges what is in the journal and no more", () =>
      Effect.gen(function*() {
        const { documents, drive, endpoint } = yield* world
        yield* Effect.promise(() => drive.write("a", ["1", "2", "3"]))
        const { following, journal } = yield* follow(yield* fresh, endpoint.url)
        yield* agree(journal, drive, endpoint.url)
        yield* write(drive, documents, 5)
        yield* agree(journal, drive, endpoint.url)
        while (!(yield* following.status.get).isCaughtUp) yield* Effect.sleep(5)
        const acknowledged = endpoint.requests.filter(({ operationName }) => operationName === "acknowledge")
          .flatMap(({ variables }) => variables["revisions"] as ReadonlyArray<{ documentId: string; revision: number }>)
          .filter(({ documentId }) => documentId === "a").map(({ revision }) => revision)
        const held = Home.flat(yield* Home.all(journal)).filter(({ documentId }) => documentId === "a")
        expect(acknowledged.at(-1)).toBe(held.length)
        expect(acknowledged).toEqual(acknowledged.toSorted((a, b) => a - b))
      }))

    it.scopedLive(
      "loses nothing and stores nothing twice while requests and answers are lost, torn and doubled",
      () =>
        Effect.gen(function*() {
          const { documents, drive, endpoint } = yield* world
          const proxy = yield* HttpProxy.make(endpoint.url, 20261123)
          proxy.setTrouble(0.35)
          const { journal } = yield* follow(yield* fresh, proxy.url)
          yield* write(drive, documents, 60)
          yield* agree(journal, drive, endpoint.url)
          expect(Object.values(proxy.counts).filter((count) => count > 0)).toHaveLength(HttpProxy.faults.length)
        })
    )

    it.scopedLive("registers again with a server that has forgotten it, and with one that was started anew", () =>
      Effect.gen(function*() {
        const { drive, endpoint, storage } = yield* world
        const proxy = yield* HttpProxy.make(endpoint.url, 1)
        const { following, journal } = yield* follow(yield* fresh, proxy.url)
        // A round that is overtaken before its acknowledgement fails, and what it did is not counted.
        const registered = Effect.fnUntraced(function*(times: number) {
          while ((yield* following.status.get).registrations < times) yield* Effect.sleep(5)
        })
        yield* Effect.promise(() => drive.write("a", ["1", "2"]))
        yield* agree(journal, drive, endpoint.url)
        yield* registered(1)
        yield* Effect.promise(() => drive.forget("home", "ours"))
        yield* Effect.promise(() => drive.write("a", ["3"]))
        yield* agree(journal, drive, endpoint.url)
        yield* registered(2)
        const anew = yield* Real.drive(storage)
        const other = yield* Real.serveDrive(anew, "home")
        yield* Effect.promise(() => anew.write("b", ["4"]))
        proxy.setTarget(other.url)
        yield* agree(journal, anew, other.url)
        yield* registered(3)
      }))

    it.scopedLive("finds what the server believes to have been taken when it registers anew, also where nothing follows", () =>
      Effect.gen(function*() {
        const { drive, endpoint } = yield* world
        const { following, journal } = yield* follow(yield* fresh, endpoint.url, { registerEvery: "300 millis" })
        while (!(yield* following.status.get).isCaughtUp) yield* Effect.sleep(5)
        yield* Effect.promise(() => drive.pretend("home", "ours", "a", 99))
        yield* Effect.promise(() => drive.write("a", ["1", "2", "3", "4"]))
        yield* agree(journal, drive, endpoint.url)
      }))

    it.scopedLive("has everything sent again when the server leaves out what it believes to have been taken", () =>
      Effect.gen(function*() {
        const { drive, endpoint } = yield* world
        const { following, journal } = yield* follow(yield* fresh, endpoint.url)
        while (!(yield* following.status.get).isCaughtUp) yield* Effect.sleep(5)
        yield* Effect.promise(() => drive.pretend("home", "ours", "a", 2))
        yield* Effect.promise(() => drive.write("a", ["1", "2", "3", "4"]))
        yield* agree(journal, drive, endpoint.url)
      }))

    it.scopedLive(
      "loses nothing and stores nothing twice when its process is killed again and again",
      () =>
        Effect.gen(function*() {
          const { documents, drive, endpoint } = yield* world
          const database = yield* fresh
          const target = database.dialect === "sqlite" ? database.filename : database.url
          const { kills } = yield* Mishap.killing(
            { dialect, target, url: endpoint.url, remote: "responder", driveId: "home" },
            endpoint,
            HttpProxy.chances(5),
            Effect.zipRight(write(drive, documents, 40), Effect.sleep("2500 millis"))
          )
          expect(kills).toBeGreaterThanOrEqual(3)
          const context = yield* Home.open(database)
          yield* agree(Context.get(context, Journal.Journal), drive, endpoint.url)
        })
    )
  }
)
