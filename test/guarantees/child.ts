/**
 * The child of the kill tests: follows a world into a database and kills itself at a statement, as a power cut would.
 *
 *     node child.js '{"dialect":"sqlite","target":"file","seed":1,"size":{…},"killAt":17,"moment":"before","program":"reactor"}'
 *
 * It prints how many statements it sent when it came to the end alive.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import * as Reactor from "../../src/Reactor.js"
import * as Errand from "../../src/store/Errand.js"
import * as Namespaces from "../../src/store/Namespaces.js"
import * as Ledger from "./Ledger.js"
import * as Mortal from "./Mortal.js"
import * as Naive from "./Naive.js"
import type { Order } from "./Sweep.js"
import * as World from "./World.js"

const order = JSON.parse(process.argv[2] ?? "{}") as Order

const statements = Mortal.watch(order)

const store = order.dialect === "sqlite"
  ? Sqlite.layer({ filename: order.target, synchronous: "normal" })
  : Postgres.layer({ url: Redacted.make(order.target) })

const limits = Layer.succeed(
  Errand.Limits,
  order.errands === true ? { operations: 1, calm: 0, factor: 1, calmMax: 0 } : Errand.defaults
)

const world = World.make(order.seed, order.size)
const program: Effect.Effect<unknown, unknown, Namespaces.Namespaces> = order.program === "reactor"
  ? Effect.provide(Reactor.run(World.processor(world, order.partitions)), Ledger.source("world", World.strands(world)))
  : Namespaces.within(Ledger.namespace, Naive.run(world, order.program))

await Effect.runPromise(
  program.pipe(Effect.provide(Layer.mergeAll(Layer.orDie(store), limits, Logger.remove(Logger.defaultLogger))))
)
if (order.errands === true && order.dialect === "sqlite" && Mortal.messages() < 10) {
  throw new Error("hardly anything was run on a thread")
}
process.stdout.write(String(statements()))
