/**
 * What a source over the wire complains of, in the health of the reactor whose processors follow it.
 */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { Health, Journal, Policy, Powerhouse, Processor, Reactor } from "../../src/index.js"
import * as Home from "../journal/Home.js"
import * as Database from "../support/Database.js"
import * as Scripted from "../support/Scripted.js"
import * as Store from "../support/Store.js"
import * as Real from "./wire/Real.js"

const pauses = { min: "2 millis", max: "10 millis", failing: "10 millis" } as const

const Watching = Processor.make("watching", {
  namespace: "watching",
  filter: {},
  migrations: {},
  handler: Effect.succeed(Processor.onBatch(() => Effect.void))
}).pipe(Processor.withPolicy(Policy.standard))

/** A reactor whose processor follows the journal that the remote fills, and its health. */
const watched = (
  database: Database.Database,
  remote: Layer.Layer<
    Powerhouse.Following.Following,
    never,
    Journal.Journal | Layer.Layer.Context<ReturnType<typeof Powerhouse.SyncChannel.layer>>
  >
) =>
  Health.layer().pipe(
    Layer.provideMerge(Reactor.layer(Watching)),
    Layer.provideMerge(remote),
    Layer.provideMerge(Journal.layer("home")),
    Layer.provide(FetchHttpClient.layer),
    Layer.provideMerge(Store.layer(database)),
    Layer.provide(Home.silent)
  )

/** Checks until there is a report like that. */
const reported = (isMeant: (report: Health.Report) => boolean) =>
  Effect.gen(function*() {
    const { check } = yield* Health.Health
    for (;;) {
      const report = yield* check
      if (isMeant(report)) return report
      yield* Effect.sleep("5 millis")
    }
  })

describe.each(Database.dialects)("the health of a reactor on $dialect", ({ fresh }) => {
  it.scopedLive("says that a real endpoint lets the channel in no more, and what to do", () =>
    Effect.gen(function*() {
      const theirs = yield* Database.postgres
      const reactor = yield* Real.reactor(theirs.url)
      const endpoint = yield* Real.serve(reactor, { token: "right" })
      const driveId = yield* Effect.promise(() => reactor.createDrive("home"))
      let token = Redacted.make("right")
      const remote = Powerhouse.SyncChannel.layer({
        url: endpoint.url,
        driveId,
        channelId: "ours",
        pauses,
        token: Effect.sync(() => token)
      })
      yield* Effect.gen(function*() {
        const following = yield* Powerhouse.Following.Following
        while (!(yield* following.status.get).isCaughtUp) yield* Effect.sleep(2)
        const well = yield* reported(({ isHealthy }) => isHealthy)
        expect(well.sources).toEqual([{ source: "home", complaints: [] }])
        token = Redacted.make("wrong")
        const ill = yield* reported(({ isHealthy }) => !isHealthy)
        const complaint = expect.stringMatching(
          /^is filled from http:.*, which has halted: .* does not let us in: .*; start it anew with a token that is let in$/
        )
        expect(ill.sources).toEqual([{ source: "home", complaints: [complaint] }])
        expect(ill.complaints).toEqual([`source home ${ill.sources[0]?.complaints[0]}`])
        expect(ill.complaints.join()).not.toContain("wrong")
      }).pipe(Effect.provide(watched(yield* fresh, remote)))
    }))

  it.scopedLive("names a stream that the remote cannot complete, until it can", () =>
    Effect.gen(function*() {
      let isWhole = false
      const server = yield* Scripted.make(({ body }) => ({
        body: {
          data: body.operationName === "strands"
            ? {
              system: {
                sync: { strands: [...(isWhole ? [0, 1, 2] : []), 3].map((index) => Scripted.strand("late", index)) }
              }
            }
            : { registerPullResponderListener: { listenerId: "ours" }, acknowledge: true }
        }
      }))
      const remote = Powerhouse.PullResponder.layer({ url: server.url, listenerId: "ours", pauses })
      yield* Effect.gen(function*() {
        const ill = yield* reported(({ isHealthy }) => !isHealthy)
        expect(ill.complaints).toEqual([expect.stringMatching(
          /^source home is filled from .*, which has a stream that cannot go on, first with PUT at index 3 of document late .*: indexes 0 to 2 are missing before it; the remote does not have it either: have it send/
        )])
        expect(ill.subscriptions.flatMap(({ complaints }) => complaints)).toEqual([])
        isWhole = true
        yield* reported(({ isHealthy }) => isHealthy)
      }).pipe(Effect.provide(watched(yield* fresh, remote)))
    }))

  it.scopedLive("says nothing more of one that has ended with its scope", () =>
    Effect.gen(function*() {
      const server = yield* Scripted.make(() => ({ status: 401, body: {} }))
      const filling = Powerhouse.PullResponder.follow({ url: server.url, listenerId: "ours", pauses })
      yield* Effect.gen(function*() {
        yield* Effect.scoped(Effect.zipRight(filling, reported(({ isHealthy }) => !isHealthy)))
        const { sources } = yield* Effect.flatMap(Health.Health, ({ check }) => check)
        expect(sources).toEqual([{ source: "home", complaints: [] }])
      }).pipe(
        Effect.provide(
          Health.layer().pipe(
            Layer.provideMerge(Reactor.layer(Watching)),
            Layer.provideMerge(Journal.layer("home")),
            Layer.provideMerge(FetchHttpClient.layer),
            Layer.provideMerge(Store.layer(yield* fresh)),
            Layer.provide(Home.silent)
          )
        )
      )
    }))
})
