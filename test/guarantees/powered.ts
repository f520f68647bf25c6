/**
 * The child of the power cuts: follows a world into a database, and says of each commit that it is there, once it was told.
 *
 *     node child.js '{"dialect":"sqlite","target":"file","seed":7,"size":{…},"synchronous":"full"}'
 *
 * Each line is the position of a commit.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { writeSync } from "node:fs"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import * as Errand from "../../src/store/Errand.js"
import * as Namespaces from "../../src/store/Namespaces.js"
import * as Subscription from "../../src/Subscription.js"
import * as Follow from "./Follow.js"
import * as Ledger from "./Ledger.js"
import * as World from "./World.js"

export interface Order {
  readonly dialect: "sqlite" | "pg"
  /** A file name or a URL. */
  readonly target: string
  readonly seed: number
  readonly size: { readonly documents: number; readonly operations: number }
  /** SQLite's; "off" is none that our layer has, and what the controls are made of. */
  readonly synchronous: "full" | "normal" | "off"
  /** Whether commits are errands from the first on, so that SQLite's run on a thread. */
  readonly errands: boolean
}

const order = JSON.parse(process.argv[2] ?? "{}") as Order
const { synchronous } = order

const store = order.dialect === "sqlite"
  ? Sqlite.layer({ filename: order.target, synchronous: synchronous === "off" ? "normal" : synchronous })
  : Postgres.layer({ url: Redacted.make(order.target) })

const world = World.make(order.seed, order.size)
const processor = World.processor(world)

const follow = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  if (order.dialect === "sqlite" && synchronous === "off") yield* sql`PRAGMA synchronous = OFF`
  yield* Follow.prepare(processor)
  yield* Stream.runForEach(
    Subscription.commits(processor),
    ({ position }) => Effect.sync(() => void writeSync(1, `${position}\n`))
  ).pipe(Effect.provide(Ledger.source("world", World.strands(world))))
})

await Effect.runPromise(
  Namespaces.within(Ledger.namespace, follow).pipe(
    Effect.provide(Layer.mergeAll(
      Layer.orDie(store),
      Layer.succeed(
        Errand.Limits,
        order.errands ? { operations: 1, calm: 0, factor: 1, calmMax: 0 } : Errand.defaults
      ),
      Logger.remove(Logger.defaultLogger)
    ))
  )
)
