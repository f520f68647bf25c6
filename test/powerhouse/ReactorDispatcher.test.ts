/**
 * A reactor dispatcher, with the real reactor as the receiver: what is sent to its documents is applied once and in order.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Test from "../../layers/Test.js"
import {
  Courier,
  Dispatch,
  Dispatcher,
  DocumentModel,
  Namespace,
  Outbox,
  Policy,
  Powerhouse,
  Processor,
  Reactor,
  Source
} from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Feed from "../support/Feed.js"
import * as Receiver from "../support/Receiver.js"
import * as Store from "../support/Store.js"
import * as Lists from "./Lists.js"

const silent = Logger.remove(Logger.defaultLogger)

const List = DocumentModel.make(Lists.documentType, {
  PUSH: Schema.Struct({ number: Schema.Int }),
  FAIL: Schema.Struct({})
})

const push = (documentId: string, number: number) =>
  Dispatch.send({ documentId, actions: [Dispatch.action(List, "PUSH", { number })] })

/** What comes to `ping` goes on to `pong`, and comes back from there as a hundred more, which goes nowhere. */
const Rally = Processor.make("rally", {
  namespace: "rally",
  handler: Processor.onOperations(List, {
    PUSH: ({ input: { number }, strand: { documentId } }) =>
      documentId === "pong"
        ? push("ping", number + 100)
        : number < 100
        ? push("pong", number)
        : Effect.void
  })
}).pipe(Processor.withPolicy(Policy.standard))

/** Feeds what the documents have and the feed has not, for as long as the scope is open. */
const follow = (client: Lists.Client, feed: Feed.Feed, ...ids: ReadonlyArray<string>) => {
  const next = new Map(ids.map((id) => [id, 0]))
  const look = Effect.forEach(ids, (documentId) =>
    Effect.gen(function*() {
      const view = { branch: "main", scopes: ["global"] }
      const from = next.get(documentId)!
      const { results } = yield* Effect.promise(() =>
        client.getOperations(documentId, view, { sinceRevision: from }, { cursor: "0", limit: 100 })
      )
      if (results.length === 0) return
      next.set(documentId, results.at(-1)!.index + 1)
      yield* feed.push(Test.strand({
        documentId,
        documentType: Lists.documentType,
        operations: results.map(({ action, hash, index, skip, timestampUtcMs }) => ({
          type: action.type,
          input: action.input,
          index,
          skip,
          hash,
          timestamp: timestampUtcMs
        }))
      }))
    }))
  return Effect.forkScoped(Effect.repeat(look, Schedule.spaced("5 millis")))
}

const place = { branch: "main", scopes: ["global"] }

let made = 0

/** A message of a processor, such as the outbox delivers. */
const message = (documentId: string, ...types: ReadonlyArray<string>): Dispatcher.Message => {
  const id = `message-${++made}`
  return {
    id,
    processor: "p",
    source: "s",
    cause: {
      documentId: "c",
      scope: "global",
      branch: "main",
      index: made,
      skip: 0,
      hash: "",
      timestamp: "2026-01-01T00:00:00.000Z"
    },
    nth: 0,
    documentId,
    scope: "global",
    branch: "main",
    actions: types.map((type, i) => ({ id: `${id}-${i}`, type, input: { number: i } })),
    sentAtMillis: 1_790_000_000_000
  }
}

const deliver = (sent: Dispatcher.Message) =>
  Effect.flatMap(Dispatcher.Dispatcher, (dispatcher) => dispatcher.deliver(sent))

describe("a message for a document of the real reactor", () => {
  const onLists = <A, E>(
    use: (lists: Effect.Effect.Success<typeof Lists.make>) => Effect.Effect<A, E, Dispatcher.Dispatcher>
  ) =>
    Effect.flatMap(Lists.make, (lists) => Effect.provide(use(lists), Powerhouse.ReactorDispatcher.layer(lists.client)))

  it.scopedLive("is applied with its actions in order, under their ids, and once when it comes again", () =>
    onLists(({ client, create }) =>
      Effect.gen(function*() {
        yield* create("a")
        const sent = message("a", "PUSH", "PUSH", "PUSH")
        yield* deliver(sent)
        yield* deliver(sent)
        // From a database that was put back: it is sent at another time, for the same operation.
        yield* deliver({ ...sent, sentAtMillis: sent.sentAtMillis + 5_000 })
        expect(yield* Lists.numbers(client, "a")).toEqual([0, 1, 2])
        const { results } = yield* Effect.promise(() =>
          client.getOperations("a", place, {}, { cursor: "0", limit: 10 })
        )
        expect(results.map(({ action }) => action.id)).toEqual(sent.actions.map(({ id }) => id))
        expect(results[0]?.timestampUtcMs).toBe("2026-09-21T14:13:20.000Z")
      })
    ))

  it.scopedLive("of which a part was applied gets the rest applied", () =>
    onLists(({ client, create }) =>
      Effect.gen(function*() {
        yield* create("a")
        const sent = message("a", "PUSH", "PUSH", "PUSH")
        yield* deliver({ ...sent, actions: sent.actions.slice(0, 1) })
        yield* deliver(sent)
        expect(yield* Lists.numbers(client, "a")).toEqual([0, 1, 2])
      })
    ))

  it.scopedLive("that comes again while its job is at work joins it", () =>
    onLists(({ client, create }) =>
      Effect.gen(function*() {
        yield* create("a")
        const sent = message("a", "PUSH")
        yield* Effect.all([deliver(sent), Effect.timeoutOption(deliver(sent), 0), deliver(sent)], {
          concurrency: "unbounded"
        })
        expect(yield* Lists.numbers(client, "a")).toEqual([0])
      })
    ))

  it.scopedLive("control: the reactor itself applies what it is given twice", () =>
    onLists(({ client, create }) =>
      Effect.gen(function*() {
        yield* create("a")
        const { actions, scope } = message("a", "PUSH")
        const action = { ...actions[0]!, scope, timestampUtcMs: "2026-01-01T00:00:00.000Z" }
        yield* Effect.promise(() => client.execute("a", "main", [action]))
        yield* Effect.promise(() => client.execute("a", "main", [action]))
        expect(yield* Lists.numbers(client, "a")).toEqual([0, 0])
      })
    ))

  it.scopedLive("that is not there is refused for good, and one whose reducer refuses has it recorded", () =>
    onLists(({ client, create }) =>
      Effect.gen(function*() {
        yield* create("a")
        const refused = yield* Effect.either(deliver(message("nowhere", "PUSH")))
        expect(Either.getLeft(refused)).toMatchObject({
          value: { _tag: "MessageRefused", reason: expect.stringMatching(/DocumentNotFoundError.*nowhere/) as string }
        })
        yield* deliver(message("a", "FAIL"))
        const { results } = yield* Effect.promise(() =>
          client.getOperations("a", place, {}, { cursor: "0", limit: 10 })
        )
        expect(results).toMatchObject([{ action: { type: "FAIL" }, error: "refused" }])
      })
    ))
})

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  it.scopedLive(
    "a processor that follows the real reactor and answers it comes to the state that it should, though answers are lost",
    () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const { client, create } = yield* Lists.make
        yield* create("ping")
        yield* create("pong")
        const feed = yield* Feed.make("reactor")
        yield* follow(client, feed, "ping", "pong")

        let delivered = 0
        let lost = 0
        /** The answer to every third delivery is lost, so that the message comes again. */
        const lossy = Layer.effect(
          Dispatcher.Dispatcher,
          Effect.map(Dispatcher.Dispatcher, (dispatcher) => ({
            deliver: (sent) =>
              Effect.zipRight(
                dispatcher.deliver(sent),
                Effect.suspend(() => {
                  if (++delivered % 3 !== 0) return Effect.void
                  lost++
                  return new Dispatcher.ReceiverUnavailable({ reason: "the answer is lost" })
                })
              )
          }))
        ).pipe(Layer.provide(Powerhouse.ReactorDispatcher.layer(client)))

        const wanted = Array.from({ length: 12 }, (_, i) => i + 1)
        yield* Effect.gen(function*() {
          for (const number of wanted) {
            yield* Effect.promise(() =>
              client.execute("ping", "main", [{
                id: `user-${number}`,
                type: "PUSH",
                input: { number },
                scope: "global",
                timestampUtcMs: "2026-01-01T00:00:00.000Z"
              }])
            )
          }
          yield* Lists.numbers(client, "ping").pipe(
            Effect.repeat({
              schedule: Schedule.spaced("10 millis"),
              until: (numbers) => numbers.length >= 2 * wanted.length
            }),
            Effect.timeout("5 minutes")
          )
          yield* Namespace.query("rally", Outbox.summary).pipe(
            Effect.repeat({ schedule: Schedule.spaced("10 millis"), until: ({ undelivered }) => undelivered === 0 }),
            Effect.timeout("5 minutes")
          )
        }).pipe(
          Effect.provide(Reactor.layer(Rally)),
          Effect.provide(Layer.mergeAll(
            Store.layerMany(database),
            Layer.succeed(Source.Source, feed.source),
            lossy,
            Layer.succeed(Courier.Settings, Receiver.impatient),
            silent
          ))
        )
        const ping = yield* Lists.numbers(client, "ping")
        expect(lost).toBeGreaterThan(5)
        expect(yield* Lists.numbers(client, "pong")).toEqual(wanted)
        expect(ping.filter((number) => number < 100)).toEqual(wanted)
        expect(ping.filter((number) => number > 100)).toEqual(wanted.map((number) => number + 100))
      })
  )
})
