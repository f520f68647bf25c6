/**
 * The child of the bridge's kill tests: a legacy processor that follows strands into a database and kills itself at a
 * statement, as a power cut would.
 *
 *     node child.js '{"dialect":"pg","target":"url","killAt":17,"moment":"before","program":"ours"}'
 *
 * It prints how many statements it sent when it came to the end alive.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import * as Source from "../../src/ingest/Source.js"
import * as Reactor from "../../src/Reactor.js"
import * as Mortal from "../guarantees/Mortal.js"
import * as Accounts from "./Accounts.js"
import * as Control from "./Control.js"

const order = JSON.parse(process.argv[2] ?? "{}") as Accounts.Order

const statements = Mortal.watch(order)

if (order.program === "theirs") {
  await Control.run(order.target, Accounts.delivered)
} else {
  const store = order.dialect === "sqlite"
    ? Sqlite.layer({ filename: order.target, synchronous: "normal" })
    : Postgres.layer({ url: Redacted.make(order.target) })
  await Effect.runPromise(
    Reactor.run(Accounts.processor).pipe(
      Effect.provide(Source.layerIterable("strands", Accounts.strands)),
      Effect.provide(Layer.merge(Layer.orDie(store), Logger.remove(Logger.defaultLogger)))
    )
  )
}
process.stdout.write(String(statements()))
process.exit(0)
