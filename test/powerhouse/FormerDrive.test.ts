/**
 * The pull responder, against the endpoint of a real document-drive 4.0.6, which speaks another dialect than version 5: what
 * its own client pulls is in the journal, each operation once, and it believes of us what is so.
 */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { Journal, Powerhouse } from "../../src/index.js"
import * as Home from "../journal/Home.js"
import * as Database from "../support/Database.js"
import * as HttpProxy from "../support/HttpProxy.js"
import * as Scripted from "../support/Scripted.js"
import * as Real from "./wire/Real.js"

const pauses = { min: "5 millis", max: "40 millis", failing: "40 millis" } as const

const world = Effect.gen(function*() {
  const drive = yield* Real.formerDrive
  yield* Effect.promise(() => drive.createDrive("home"))
  const documents = yield* Effect.forEach(
    ["a", "b", "c"],
    (id) => Effect.promise(() => drive.createDocument("home", id))
  )
  return { drive, documents, endpoint: yield* Real.serveFormerDrive(drive, "home") }
})

const follow = (database: Database.Database, url: string) =>
  Effect.gen(function*() {
    const context = yield* Home.open(database)
    const following = yield* Powerhouse.PullResponder.follow({ url, listenerId: "ours", pauses }).pipe(
      Effect.provide(FetchHttpClient.layer),
      Effect.provide(context),
      Effect.provide(Home.silent)
    )
    return { journal: Context.get(context, Journal.Journal), following }
  })

/** What its client does not say: what a document is. */
const typed = (strand: Real.PulledStrand): Real.PulledStrand =>
  strand.documentId === strand.driveId
    ? { ...strand, documentType: "powerhouse/document-drive" }
    : { ...strand, documentType: "powerhouse/document-model" }

const flat = (strands: ReadonlyArray<Real.PulledStrand>) =>
  strands.flatMap(({ branch, documentId, documentType, driveId, operations, scope }) =>
    operations.map(({ hash, index, input, skip, type }) =>
      JSON.stringify([driveId, documentId, documentType, scope, branch, index, skip, hash, type, input])
    )
  ).sort()

/** Waits until the journal holds what the real client pulls. */
const agree = (journal: Home.Home, drive: Real.FormerDrive, url: string) =>
  Effect.gen(function*() {
    const truth = flat((yield* Effect.promise(() => drive.all("home", url))).map(typed))
    expect(truth.length).toBeGreaterThan(3)
    const held = Effect.map(Home.all(journal), (strands) => flat(strands as ReadonlyArray<Real.PulledStrand>))
    for (let tries = 0; tries < 1_000 && (yield* held).length < truth.length; tries++) yield* Effect.sleep("20 millis")
    expect(yield* held).toEqual(truth)
  })

const write = Real.writing(13)

describe.each(Database.dialects)(
  "a pull responder of version 4 into a journal on $dialect",
  ({ fresh }) => {
    it.scopedLive("brings what was there and what comes, and acknowledges it in the words of the server", () =>
      Effect.gen(function*() {
        const { documents, drive, endpoint } = yield* world
        yield* Effect.promise(() => drive.write("a", ["1", "2", "3"]))
        const { following, journal } = yield* follow(yield* fresh, endpoint.url)
        yield* agree(journal, drive, endpoint.url)
        yield* write(drive, documents, 5)
        yield* agree(journal, drive, endpoint.url)
        yield* Effect.promise(() => drive.createDocument("home", "d"))
        yield* Effect.promise(() => drive.write("d", ["1"]))
        yield* agree(journal, drive, endpoint.url)
        const held = Home.flat(yield* Home.all(journal))
        const lastOf = (id: string) =>
          Math.max(...held.filter(({ documentId }) => documentId === id).map(({ index }) => index))
        const last: Record<string, number> = { home: lastOf("home"), a: lastOf("a"), d: lastOf("d") }
        const taken = Effect.promise(() => drive.taken("home", "ours"))
        const isTaken = Effect.map(taken, (known) => Object.keys(last).every((id) => known[id] === last[id]))
        // It is acknowledged once it is stored, so somewhat later.
        for (let tries = 0; tries < 1_000 && !(yield* isTaken); tries++) yield* Effect.sleep(5)
        expect(yield* taken).toMatchObject(last)
        while (!(yield* following.status.get).isCaughtUp) yield* Effect.sleep(5)
        // What was acknowledged is not sent again.
        expect((yield* following.status.get).known).toBe(0)
        // It was asked once in the words of version 5, and once for each document what it is.
        expect(endpoint.requests.filter(({ query }) => query.includes("actionId"))).toHaveLength(1)
        expect(endpoint.requests.filter(({ operationName }) => operationName === "type").length).toBe(
          new Set(held.map(({ documentId }) => documentId as string)).size
        )
      }))

    it.scopedLive("loses nothing and stores nothing twice while requests and answers are lost, torn and doubled", () =>
      Effect.gen(function*() {
        const { documents, drive, endpoint } = yield* world
        const proxy = yield* HttpProxy.make(endpoint.url, 20261124)
        proxy.setTrouble(0.35, [...HttpProxy.faults, "crossed"])
        const { journal } = yield* follow(yield* fresh, proxy.url)
        yield* write(drive, documents, 60)
        yield* agree(journal, drive, endpoint.url)
        yield* Effect.promise(() => drive.forget("home", "ours"))
        yield* write(drive, documents, 20)
        yield* agree(journal, drive, endpoint.url)
        const asked = endpoint.requests.map(({ operationName }) => operationName)
        expect(asked.filter((name) => name === "registerPullResponderListener").length).toBeGreaterThanOrEqual(2)
        expect(HttpProxy.faults.filter((fault) => proxy.counts[fault] === 0)).toEqual([])
      }))

    it.scopedLive("leaves out, and tells of, a document of which the server does not say what it is", () =>
      Effect.gen(function*() {
        const strand = (documentId: string) => ({
          driveId: "home",
          documentId,
          scope: "global",
          branch: "main",
          operations: [{
            id: `${documentId} 0`,
            index: 0,
            skip: 0,
            hash: "h",
            timestamp: "2026-11-22T00:00:00.000Z",
            type: "PUT",
            input: "{}"
          }]
        })
        const server = yield* Scripted.make(({ body: { operationName, query, variables } }) => {
          const reply = (data: unknown) => ({ body: { data } })
          const refuse = (message: string) => ({ body: { errors: [{ message }] } })
          if (operationName === "strands") {
            return query.includes("documentType")
              ? refuse("Cannot query field \"documentType\" on type \"StrandUpdate\".")
              : reply({ system: { sync: { strands: [strand("lost"), strand(""), strand("good")] } } })
          }
          if (operationName !== "type") {
            return reply({ registerPullResponderListener: { listenerId: "ours" }, acknowledge: true })
          }
          return variables["id"] === "lost"
            ? refuse("no such document")
            : reply(Scripted.dataOf(query, "document", { documentType: "test/list" }))
        })
        const { following, journal } = yield* follow(yield* fresh, server.url)
        while (server.asked.length < 12) yield* Effect.sleep(2)
        const held = Home.flat(yield* Home.all(journal))
        expect(held.map(({ documentId, documentType }) => [documentId, documentType])).toEqual([
          ["home", "test/list"],
          ["good", "test/list"]
        ])
        expect((yield* following.status.get).refused).toMatchObject([
          { documentId: "lost", index: 0, refusal: { _tag: "QuestionRejected", reasons: ["no such document"] } }
        ])
        const revisions = server.asked.flatMap(({ body }) =>
          (body.variables["revisions"] ?? []) as ReadonlyArray<object>
        )
        expect(revisions.slice(0, 2)).toEqual([
          { driveId: "home", documentId: "", scope: "global", branch: "main", status: "SUCCESS", revision: 0 },
          { driveId: "home", documentId: "good", scope: "global", branch: "main", status: "SUCCESS", revision: 0 }
        ])
      }))
  }
)
