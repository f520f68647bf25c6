/**
 * Recorded exchanges: what the real clients asked real endpoints is what ours ask, and what these answered ours understand.
 */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { readFileSync } from "node:fs"
import { gunzipSync } from "node:zlib"
import { Journal, Powerhouse } from "../../src/index.js"
import * as Home from "../journal/Home.js"
import * as Database from "../support/Database.js"
import * as Scripted from "../support/Scripted.js"

interface Exchange {
  readonly url: string
  readonly request: Scripted.Asked["body"]
  readonly response: unknown
}

const recorded = (name: string): ReadonlyArray<Exchange> =>
  (JSON.parse(
    gunzipSync(readFileSync(new URL(`../data/${name}.exchanges.json.gz`, import.meta.url))).toString()
  ) as ReadonlyArray<Partial<Exchange>>).filter((exchange): exchange is Exchange => exchange.request !== undefined)

/** A question without its spaces, line ends and the commas that GraphQL does not need. */
const plain = ({ operationName, query, variables }: Scripted.Asked["body"]) => ({
  operationName,
  query: query.replaceAll(/[\s,]+/g, " ").replaceAll(/ ?([(){}:!]) ?/g, "$1").trim(),
  variables
})

const pauses = { min: "2 millis", max: "5 millis", failing: "5 millis" } as const

describe("recorded exchanges", () => {
  it.scopedLive("of a pull responder: the same questions in the same order, and everything read", () =>
    Effect.gen(function*() {
      const exchanges = recorded("g2-pull-responder").filter(({ request }) =>
        request.variables["listenerId"] !== "no-such-listener"
      )
      // The recording pulls twice before it acknowledges.
      const script = exchanges.filter((_, i) => i !== 1)
      const [registered] = script
      const { listenerId } = (registered!.response as {
        readonly data: { readonly registerPullResponderListener: { readonly listenerId: string } }
      }).data.registerPullResponderListener
      let turn = 0
      const server = yield* Scripted.make(({ body }) => {
        const next = script[turn]
        // What comes after the recording: nothing new, and what is acknowledged of its end.
        if (next === undefined) {
          return { body: { data: { acknowledge: true, system: { sync: { strands: [] } } } } }
        }
        turn++
        return { body: plain(body).query === plain(next.request).query ? next.response : "not what was recorded" }
      })
      const context = yield* Home.open(yield* Database.sqlite)
      yield* Powerhouse.PullResponder.follow({ url: `${server.url}${registered!.url}`, listenerId, pauses }).pipe(
        Effect.provide(FetchHttpClient.layer),
        Effect.provide(context)
      )
      while (server.asked.length < script.length + 2) yield* Effect.sleep(2)
      const asked = server.asked.map(({ body }) => plain(body))
      const wanted = script.map(({ request }) => plain(request))
      // The recorded client let the server choose its name.
      expect(asked[0]).toEqual({ ...wanted[0], variables: { ...wanted[0]!.variables, listenerId } })
      expect(asked.slice(1, wanted.length)).toEqual(wanted.slice(1))
      expect(asked[wanted.length]?.variables["revisions"]).toMatchObject([{ revision: 3, status: "SUCCESS" }])
      expect(server.asked.map(({ path }) => path)).toEqual(server.asked.map(() => "/d/wire"))
      const held = Home.flat(yield* Home.all(Context.get(context, Journal.Journal)))
      expect(held.map(({ index, input, type }) => [type, index, input])).toEqual([
        ["ADD_FOLDER", 0, { id: "f1", name: "folder", parentFolder: null }],
        ["ADD_FILE", 1, {
          id: "aaaaaaaa-0000-4000-8000-000000000001",
          name: "doc",
          documentType: "powerhouse/document-model",
          parentFolder: null
        }],
        ["SET_MODEL_NAME", 0, { name: "Hello" }],
        ["SET_MODEL_DESCRIPTION", 1, { description: "World" }],
        ["SET_MODEL_NAME", 2, { name: "Hello2" }]
      ])
    }))

  it.scopedLive("of a sync channel: the same questions in the same order, and everything read", () =>
    Effect.gen(function*() {
      const script = recorded("g3-sync-channel")
      const { id: channelId, collectionId } = script[0]!.request.variables["input"] as Record<string, string>
      const driveId = collectionId!.replace("drive.main.", "")
      let turn = 0
      const server = yield* Scripted.make(({ body }) => {
        // Not recorded: whether operations were refused, and what the channel left out.
        if (body.operationName === "DocumentOperations") {
          return {
            body: { data: Scripted.dataOf(body.query, "documentOperations", { items: [], hasNextPage: false }) }
          }
        }
        if (body.operationName === "Drive") {
          return { body: { data: Scripted.dataOf(body.query, "document", null) } }
        }
        if (body.operationName === "Documents") {
          return { body: { data: Scripted.dataOf(body.query, "findDocuments", { items: [], hasNextPage: false }) } }
        }
        return { body: (script[turn++] ?? script.at(-1)!).response }
      })
      const context = yield* Home.open(yield* Database.sqlite)
      yield* Powerhouse.SyncChannel.follow({
        url: `${server.url}${script[0]!.url}`,
        channelId: channelId!,
        driveId,
        pauses
      }).pipe(Effect.provide(FetchHttpClient.layer), Effect.provide(context))
      while (turn < script.length) yield* Effect.sleep(2)
      const asked = server.asked.filter(({ body }) => body.operationName === undefined)
        .slice(0, script.length).map(({ body }) => plain(body))
      expect(asked).toEqual(script.map(({ request }) => plain(request)))
      expect(server.asked[0]?.path).toBe("/graphql/r")
      const held = Home.flat(yield* Home.all(Context.get(context, Journal.Journal)))
      expect(held.map(({ index, scope, type }) => [type, scope, index])).toEqual([
        ["CREATE_DOCUMENT", "document", 0],
        ["UPGRADE_DOCUMENT", "document", 1],
        ["CREATE_DOCUMENT", "document", 0],
        ["UPGRADE_DOCUMENT", "document", 1],
        ["ADD_FILE", "global", 0],
        ["ADD_RELATIONSHIP", "document", 2],
        ["SET_MODEL_NAME", "global", 0],
        ["SET_MODEL_DESCRIPTION", "global", 1],
        ["SET_MODEL_NAME", "global", 2]
      ])
      expect(held.filter(({ flaw }) => flaw !== undefined)).toEqual([])
    }))
})
