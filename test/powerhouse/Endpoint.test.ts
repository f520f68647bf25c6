/**
 * Endpoints that are away, slow, hostile or do not let us in: each failure is typed, nothing is skipped in silence, what is
 * good of an answer is taken, and the token is told to nobody else.
 */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { inspect } from "node:util"
import { Journal, Powerhouse } from "../../src/index.js"
import * as Home from "../journal/Home.js"
import * as Database from "../support/Database.js"
import * as Scripted from "../support/Scripted.js"

const { Endpoint, Following, PullResponder, SyncChannel } = Powerhouse

const pauses = { min: "2 millis", max: "10 millis", failing: "10 millis" } as const

const question = {
  query: "{ answer }",
  variables: {},
  answer: Schema.Struct({ answer: Schema.Array(Schema.Struct({ n: Schema.Number })) })
}

const ask = (options: Powerhouse.Endpoint.Options) =>
  Effect.flatMap(Endpoint.make(options), (endpoint) => endpoint.ask(question)).pipe(
    Effect.provide(FetchHttpClient.layer)
  )

const failureOn = (reply: Scripted.Reply, options: Partial<Powerhouse.Endpoint.Options> = {}) =>
  Effect.scoped(
    Effect.flatMap(Scripted.make(() => reply), ({ url }) => Effect.flip(ask({ url, ...options })))
  )

describe("an endpoint", () => {
  const malformed: ReadonlyArray<readonly [string, unknown]> = [
    ["nothing", ""],
    ["half of a text", `{"data":{"answer":[{"n":1`],
    ["no JSON", "<html>"],
    ["no UTF-8", Buffer.from([0x7b, 0xff, 0xfe, 0x7d])],
    ["null", null],
    ["a list", []],
    ["no data", {}],
    ["null as data", { data: null }],
    ["data of another kind", { data: { answer: [{ n: "1" }] } }],
    ["errors of another kind", { errors: "no" }],
    ["a million open brackets", "[".repeat(1_000_000)],
    ["a million nested lists", "[".repeat(1_000_000) + "]".repeat(1_000_000)]
  ]
  for (const [what, body] of malformed) {
    it.live(`that answers with ${what} has a malformed answer`, () =>
      Effect.map(failureOn({ body }), (failure) => {
        expect(failure._tag).toBe("MalformedAnswer")
        expect(failure.message.length).toBeLessThan(1_000)
      }))
  }

  it.live("that says what is wrong with the question rejects it, in words that are cut and escaped", () =>
    Effect.gen(function*() {
      const errors = Array.from({ length: 50 }, () => ({ message: `\u001b[31m${"x".repeat(10_000)}` }))
      for (const status of [200, 400]) {
        const failure = yield* failureOn({ status, body: { errors, data: null } })
        expect(failure._tag).toBe("QuestionRejected")
        expect(failure.message.length).toBeLessThan(2_000)
        expect(failure.message).not.toContain("\u001b")
      }
    }))

  it.live("that fails, or is not there, is not available", () =>
    Effect.gen(function*() {
      for (const status of [404, 429, 500, 503]) {
        expect(yield* failureOn({ status, body: "<html>" })).toMatchObject({
          _tag: "EndpointUnavailable",
          reason: `it answered with status ${status}`
        })
      }
      expect((yield* Effect.flip(ask({ url: "http://127.0.0.1:9/" })))._tag).toBe("EndpointUnavailable")
    }))

  it.scopedLive("that takes too long is not available", () =>
    Effect.gen(function*() {
      const server = yield* Scripted.make(() => ({ body: "" }))
      const never = Layer.succeed(FetchHttpClient.Fetch, () => new Promise<Response>(() => {}))
      const failure = yield* Effect.flip(
        ask({ url: server.url, answerWithin: "20 millis" }).pipe(Effect.provide(never))
      )
      expect(failure.message).toContain("no answer within 20ms")
    }))

  it.live("that answers with more than is allowed is read no further", () =>
    Effect.map(failureOn({ body: "x".repeat(1_000_000) }, { answerBytesMax: 1_000 }), (failure) => {
      expect(failure._tag).toBe("AnswerTooLarge")
    }))

  it.scopedLive("is given the token, which is told to nobody else, and a fresh one once it refuses that", () =>
    Effect.gen(function*() {
      const secret = "s3cret-token"
      const told: Array<unknown> = []
      const logger = Logger.replace(Logger.defaultLogger, Logger.make((entry) => void told.push(entry)))
      let tokens = 0
      const server = yield* Scripted.make(({ headers }) =>
        headers.authorization === `Bearer ${secret}-2`
          ? { body: { data: { answer: [] } } }
          : { status: 401, body: secret }
      )
      const token = Effect.sync(() => Redacted.make(`${secret}-${++tokens}`))
      expect(yield* ask({ url: server.url, token })).toEqual({ answer: [] })
      told.push(yield* Effect.flip(ask({ url: server.url, token: Redacted.make(secret) })))
      told.push(
        yield* Effect.flip(ask({ url: `http://u:${secret}@127.0.0.1:9/?key=${secret}`, token: Redacted.make(secret) }))
      )
      const context = yield* Home.open(yield* Database.sqlite)
      const following = yield* PullResponder.follow({
        url: server.url,
        listenerId: "ours",
        token: Redacted.make(secret),
        pauses
      }).pipe(Effect.provide(FetchHttpClient.layer), Effect.provide(context), Effect.provide(logger))
      const halted = yield* Effect.flip(following.await)
      expect(halted._tag).toBe("Unauthorized")
      const status = yield* following.status.get
      expect(status.phase).toBe("halted")
      expect(Following.complaints(status, status.sinceMillis)[0]).toContain("does not let us in")
      told.push(halted, status, following)
      expect(told.map((one) => inspect(one, { depth: 10 }) + JSON.stringify(one, cycleless())).join()).not.toContain(
        secret
      )
      expect(told.length).toBeGreaterThan(5)
    }))
})

/** Leaves out what was written already. */
const cycleless = () => {
  const seen = new Set<unknown>()
  return (_: string, value: unknown): unknown => {
    if (typeof value === "bigint") return String(value)
    if (typeof value !== "object" || value === null) return value
    if (seen.has(value)) return undefined
    seen.add(value)
    return value
  }
}

describe("a pull responder with a server that sends nonsense", () => {
  it.scopedLive("takes what is good, acknowledges that alone, and says what is not", () =>
    Effect.gen(function*() {
      let deep: unknown = 1
      for (let i = 0; i < 500; i++) deep = [deep]
      const strands: ReadonlyArray<unknown> = [
        Scripted.strand("good", 0),
        Scripted.strand("deep", 0, { input: JSON.stringify(deep) }),
        Scripted.strand("late", 3),
        { ...Scripted.strand("good", 2), extra: deep },
        { ...Scripted.strand("bad", 0), documentId: "\u0000" },
        Scripted.strand("huge", 0, { index: 1e300 }),
        null,
        "strand",
        Scripted.strand("good", 1)
      ]
      const server = yield* Scripted.make(({ body }) => ({
        body: {
          data: body.operationName === "strands"
            ? { system: { sync: { strands } } }
            : { registerPullResponderListener: { listenerId: "ours" }, acknowledge: true }
        }
      }))
      const context = yield* Home.open(yield* Database.sqlite)
      const following = yield* PullResponder.follow({ url: server.url, listenerId: "ours", pauses }).pipe(
        Effect.provide(FetchHttpClient.layer),
        Effect.provide(context),
        Effect.provide(Home.silent)
      )
      while (server.asked.length < 12) yield* Effect.sleep(2)
      const held = Home.flat(yield* Home.all(Context.get(context, Journal.Journal)))
      expect(held.map(({ documentId, index }) => [documentId, index])).toEqual([["good", 0], ["good", 1], ["good", 2]])
      const acknowledged = server.asked.filter(({ body }) => body.operationName === "acknowledge")
        .map(({ body }) => body.variables["revisions"])
      expect(new Set(acknowledged.map((one) => JSON.stringify(one))).size).toBe(1)
      expect(acknowledged[0]).toMatchObject([{ documentId: "good", revision: 3 }])
      const status = yield* following.status.get
      expect(status.phase).toBe("waiting")
      expect(status.failure?.message).toContain("strands[4].documentId")
    }))

  it.scopedLive("tells which streams cannot go on, while the others do", () =>
    Effect.gen(function*() {
      let next = 0
      const server = yield* Scripted.make(({ body }) => ({
        body: {
          data: body.operationName === "strands"
            ? { system: { sync: { strands: [Scripted.strand("late", 3), Scripted.strand("good", next++)] } } }
            : { registerPullResponderListener: { listenerId: "ours" }, acknowledge: true }
        }
      }))
      const context = yield* Home.open(yield* Database.sqlite)
      const following = yield* PullResponder.follow({ url: server.url, listenerId: "ours", pauses }).pipe(
        Effect.provide(FetchHttpClient.layer),
        Effect.provide(context),
        Effect.provide(Home.silent)
      )
      while (server.asked.length < 40) yield* Effect.sleep(2)
      const status = yield* following.status.get
      expect(status.refused).toMatchObject([{ documentId: "late", index: 3, refusal: { _tag: "StrandGap" } }])
      expect(status.appended).toBeGreaterThan(10)
      expect(Following.complaints(status, status.sinceMillis)[0]).toContain(
        "has a stream that cannot go on, first with PUT at index 3 of document late"
      )
      // It asked once to be sent everything again, and no more.
      expect(server.asked.filter(({ body }) => body.operationName === "registerPullResponderListener")).toHaveLength(2)
    }))
})

describe("a sync channel", () => {
  const item = (documentId: string, index: number, ordinal: number) => ({
    operation: operation(documentId, index),
    context: { documentId, documentType: "test/list", scope: "global", branch: "main", ordinal }
  })
  const operation = (documentId: string, index: number) => ({
    index,
    skip: 0,
    hash: `${documentId} ${index}`,
    id: `${documentId} ${index}`,
    timestampUtcMs: "2026-11-22T00:00:00.000Z",
    action: { id: "a", type: "PUT", timestampUtcMs: "2026-11-22T00:00:00.000Z", input: {}, scope: "global" }
  })

  it.scopedLive("follows no server from page to page that leads nowhere", () =>
    Effect.gen(function*() {
      let pages = 0
      const server = yield* Scripted.make(({ body: { operationName, query, variables } }) => {
        const reply = (data: unknown) => ({ body: { data } })
        if (operationName === "DocumentOperations") {
          const items = [operation("a", 0)]
          return reply(
            Scripted.dataOf(query, "documentOperations", { items, hasNextPage: true, cursor: String(++pages) })
          )
        }
        if (variables["input"] !== undefined) return reply({ touchChannel: { success: true } })
        return reply({
          pollSyncEnvelopes: { envelopes: [{ type: "OPERATIONS", operations: [item("a", 1, 1)] }], hasMore: false }
        })
      })
      const context = yield* Home.open(yield* Database.sqlite)
      const following = yield* SyncChannel.follow({ url: server.url, channelId: "ours", driveId: "home", pauses }).pipe(
        Effect.provide(FetchHttpClient.layer),
        Effect.provide(context),
        Effect.provide(Home.silent)
      )
      while ((yield* following.status.get).failure === undefined) yield* Effect.sleep(2)
      expect((yield* following.status.get).failure?.message).toContain("it leads to no further page")
    }))

  it.scopedLive("takes no answer to another question, which may hold another document's operations, for its own", () =>
    Effect.gen(function*() {
      const known: { readonly [documentId: string]: number } = { one: 4, other: 6 }
      const answers: Array<object> = []
      let isHonest = false
      const server = yield* Scripted.make(({ body: { operationName, query, variables } }) => {
        const reply = (data: object) => ({ body: { data } })
        if (operationName === "DocumentOperations") {
          const { documentId, sinceRevision } = variables["filter"] as { documentId: string; sinceRevision: number }
          const items = Array.from(
            { length: known[documentId]! - sinceRevision },
            (_, i) => operation(documentId, sinceRevision + i)
          )
          answers.push(Scripted.dataOf(query, "documentOperations", { items, hasNextPage: false }))
          // The first answer to any such question is the answer to all of them.
          return reply(answers[isHonest ? answers.length - 1 : 0]!)
        }
        if (operationName === "Drive") return reply(Scripted.dataOf(query, "document", null))
        if (operationName === "Documents") {
          const items = Object.entries(known).map(([id, revision]) => ({
            id,
            documentType: "test/list",
            revisionsList: [{ scope: "global", revision }]
          }))
          return reply(Scripted.dataOf(query, "findDocuments", { items, hasNextPage: false }))
        }
        if (variables["input"] !== undefined) return reply({ touchChannel: { success: true } })
        return reply({ pollSyncEnvelopes: { envelopes: [], hasMore: false } })
      })
      const context = yield* Home.open(yield* Database.sqlite)
      const following = yield* SyncChannel.follow({ url: server.url, channelId: "ours", driveId: "home", pauses }).pipe(
        Effect.provide(FetchHttpClient.layer),
        Effect.provide(context),
        Effect.provide(Home.silent)
      )
      const held = Effect.map(
        Home.all(Context.get(context, Journal.Journal)),
        (strands) => Home.flat(strands).map(({ documentId, hash }) => [documentId, hash])
      )
      const whole = (id: string) => Array.from({ length: known[id]! }, (_, i) => [id, `${id} ${i}`])
      while (answers.length < 5) yield* Effect.sleep(2)
      expect((yield* following.status.get).failure?.message).toContain("is missing")
      expect(yield* held).toEqual(whole("one"))
      isHonest = true
      while (!(yield* following.status.get).isCaughtUp) yield* Effect.sleep(2)
      expect(yield* held).toEqual([...whole("one"), ...whole("other")])
    }))

  it.scopedLive("leaves a stream behind that cannot go on, tells so, and takes it up once the reactor can complete it", () =>
    Effect.gen(function*() {
      let isWhole = false
      const sent = [item("late", 3, 1), item("good", 0, 2), item("good", 1, 5)]
      const server = yield* Scripted.make(({ body: { operationName, query, variables } }) => {
        const reply = (data: unknown) => ({ body: { data } })
        if (operationName === "DocumentOperations") {
          const { documentId, sinceRevision } = variables["filter"] as { documentId: string; sinceRevision: number }
          const known = documentId === "good" ? [0, 1] : isWhole ? [0, 1, 2, 3] : [3]
          const items = known.filter((index) => index >= sinceRevision).map((index) => operation(documentId, index))
          return reply(Scripted.dataOf(query, "documentOperations", { items, hasNextPage: false }))
        }
        if (operationName === "Drive") return reply(Scripted.dataOf(query, "document", null))
        if (operationName === "Documents") {
          const document = (id: string, revision: number) => ({
            id,
            documentType: "test/list",
            revisionsList: [{ scope: "global", revision }]
          })
          return reply(
            Scripted.dataOf(query, "findDocuments", {
              items: [document("late", 4), document("good", 2)],
              hasNextPage: false
            })
          )
        }
        if (variables["input"] !== undefined) return reply({ touchChannel: { success: true } })
        const envelopes = sent.filter(({ context }) => context.ordinal > (variables["outboxLatest"] as number))
          .map((one) => ({ type: "OPERATIONS", operations: [one] }))
        return reply({ pollSyncEnvelopes: { envelopes, hasMore: false } })
      })
      const context = yield* Home.open(yield* Database.sqlite)
      const journal = Context.get(context, Journal.Journal)
      const following = yield* SyncChannel.follow({
        url: server.url,
        channelId: "ours",
        driveId: "home",
        lookEvery: "50 millis",
        pauses
      }).pipe(Effect.provide(FetchHttpClient.layer), Effect.provide(context), Effect.provide(Home.silent))
      const held = Effect.map(
        Home.all(journal),
        (strands) => Home.flat(strands).map(({ documentId, index }) => [documentId, index])
      )
      while ((yield* held).length < 2) yield* Effect.sleep(2)
      yield* Effect.sleep(60)
      expect(yield* held).toEqual([["good", 0], ["good", 1]])
      const { refused } = yield* following.status.get
      expect(refused).toMatchObject([{ documentId: "late", index: 3, refusal: { _tag: "StrandGap", expected: 0 } }])
      expect(server.asked.some(({ body }) => body.variables["outboxAck"] === 5)).toBe(true)
      isWhole = true
      while ((yield* held).length < 6) yield* Effect.sleep(2)
      while (!(yield* following.status.get).isCaughtUp) yield* Effect.sleep(2)
      expect((yield* following.status.get).refused).toEqual([])
    }))

  it.scopedLive("is sent again what came while the journal was away, also below what it has acknowledged", () =>
    Effect.gen(function*() {
      // As the real server does: what was sent and lies at or below what is said to be there is not sent again.
      const outbox = [{ one: item("high", 0, 5), isSent: false }]
      const late = { one: item("low", 0, 3), isSent: false }
      const server = yield* Scripted.make(({ body: { operationName, query, variables } }) => {
        const reply = (data: unknown) => ({ body: { data } })
        if (operationName === "DocumentOperations") {
          return reply(Scripted.dataOf(query, "documentOperations", { items: [], hasNextPage: false }))
        }
        if (operationName === "Drive") return reply(Scripted.dataOf(query, "document", null))
        if (operationName === "Documents") {
          return reply(Scripted.dataOf(query, "findDocuments", { items: [], hasNextPage: false }))
        }
        if (variables["input"] !== undefined) return reply({ touchChannel: { success: true } })
        const latest = variables["outboxLatest"] as number
        if (latest === 5 && !outbox.includes(late)) outbox.push(late)
        const sent = outbox.filter(({ isSent, one }) => !isSent || one.context.ordinal > latest)
        for (const entry of sent) entry.isSent = true
        return reply({
          pollSyncEnvelopes: {
            envelopes: sent.map(({ one }) => ({ type: "OPERATIONS", operations: [one] })),
            hasMore: false
          }
        })
      })
      const context = yield* Home.open(yield* Database.sqlite)
      const journal = Context.get(context, Journal.Journal)
      let failures = 0
      const lame: Home.Home = {
        ...journal,
        append: (strands) =>
          Effect.suspend(() =>
            strands.some(({ documentId }) => documentId === "low") && failures++ === 0
              ? Effect.fail(new Journal.JournalUnavailable({ journal: "home", outcome: "nothing", cause: "gone" }))
              : journal.append(strands)
          )
      }
      yield* SyncChannel.follow({ url: server.url, channelId: "ours", driveId: "home", pauses }).pipe(
        Effect.provide(FetchHttpClient.layer),
        Effect.provideService(Journal.Journal, lame),
        Effect.provide(Home.silent)
      )
      while (Home.flat(yield* Home.all(journal)).length < 2) yield* Effect.sleep(2)
      expect(failures).toBe(2)
    }))
})
