/**
 * The child of the kill tests of rewritten history: follows documents that take operations back, and kills itself at a
 * statement, as a power cut would. It prints how many statements it sent when it came to the end alive.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import * as Source from "../../src/ingest/Source.js"
import * as Reactor from "../../src/Reactor.js"
import type * as Database from "../support/Database.js"
import * as Lists from "../support/Lists.js"
import * as Mortal from "./Mortal.js"

/** What a child is told. */
export interface Order extends Mortal.Fate {
  readonly dialect: Database.Database["dialect"]
  /** A file name or a URL. */
  readonly target: string
  readonly options: Pick<Lists.Options, "history" | "wantsState" | "batch">
  readonly strands: ReadonlyArray<Source.Unplaced>
}

const order = JSON.parse(process.argv[2] ?? "{}") as Order

const statements = Mortal.watch(order)

const store = order.dialect === "sqlite"
  ? Sqlite.layer({ filename: order.target, synchronous: "normal" })
  : Postgres.layer({ url: Redacted.make(order.target) })

await Effect.runPromise(
  Reactor.run(Lists.make(order.options)).pipe(
    Effect.provide(Layer.succeed(Source.Source, Source.fromIterable("s", order.strands))),
    Effect.provide(Layer.merge(Layer.orDie(store), Logger.remove(Logger.defaultLogger)))
  )
)
process.stdout.write(String(statements()))
