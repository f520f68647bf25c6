/**
 * follower: a process that fills a journal from a remote until it is killed.
 *
 *     node follower.mjs '{"dialect":"sqlite","target":"file","url":"http://…","remote":"channel","driveId":"…"}'
 */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Postgres from "../../../layers/Postgres.js"
import * as Sqlite from "../../../layers/Sqlite.js"
import { Journal, Powerhouse } from "../../../src/index.js"
import type { Database } from "../../support/Database.js"

export interface Order {
  readonly dialect: Database["dialect"]
  readonly target: string
  readonly url: string
  readonly remote: "channel" | "responder"
  readonly driveId: string
}

const order = JSON.parse(process.argv[2] ?? "{}") as Order

/** One that was killed may still hold the file for a moment. */
const store = (order.dialect === "sqlite"
  ? Sqlite.layer({ filename: order.target, synchronous: "normal" })
  : Postgres.layer({ url: Redacted.make(order.target), maxConnections: 2 })).pipe(
    Layer.retry(Schedule.spaced("20 millis").pipe(Schedule.upTo("5 minutes")))
  )

const pauses = { min: "5 millis", max: "40 millis", failing: "40 millis" } as const

const following = order.remote === "channel"
  ? Powerhouse.SyncChannel.layer({
    url: order.url,
    driveId: order.driveId,
    channelId: "ours",
    lookEvery: "200 millis",
    pauses
  })
  : Powerhouse.PullResponder.layer({ url: order.url, listenerId: "ours", pauses })

await Effect.flatMap(Powerhouse.Following.Following, (it) => it.await).pipe(
  Effect.provide(following.pipe(
    Layer.provide([Journal.layer("home").pipe(Layer.provide(store)), FetchHttpClient.layer]),
    Layer.provide(Logger.remove(Logger.defaultLogger))
  )),
  Effect.runPromise
)
