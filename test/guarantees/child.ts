/**
 * The child of the kill tests: follows a world into a database and kills itself at a statement, as a power cut would.
 *
 *     node child.cjs '{"dialect":"sqlite","target":"file","seed":1,"size":{…},"killAt":17,"moment":"before","program":"reactor"}'
 *
 * It prints how many statements it sent when it came to the end alive.
 */
import Sqlite3 from "better-sqlite3"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import pg from "pg"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import * as Reactor from "../../src/Reactor.js"
import * as Namespaces from "../../src/store/Namespaces.js"
import * as Ledger from "./Ledger.js"
import * as Naive from "./Naive.js"
import type { Order } from "./Sweep.js"
import * as World from "./World.js"

const order = JSON.parse(process.argv[2] ?? "{}") as Order

let statements = 0

const die = (): void => void process.kill(process.pid, "SIGKILL")

/** Counts a statement and dies at its turn: before it, right after it was sent, or once it has been answered. */
const watch = <A>(send: () => A): A => {
  const isTurn = ++statements === order.killAt
  if (isTurn && order.moment === "before") die()
  const answer = send()
  if (isTurn && order.moment === "after") die()
  // The bytes leave with this turn of the event loop, and no answer is read before the next.
  if (isTurn && order.moment === "sent") setImmediate(die)
  return answer
}

const statement = Object.getPrototypeOf(new Sqlite3(":memory:").prepare("SELECT 1")) as {
  [name in "run" | "all"]: (...params: Array<unknown>) => unknown
}
for (const name of ["run", "all"] as const) {
  const send = statement[name]
  statement[name] = function(...params) {
    return watch(() => send.apply(this, params))
  }
}
const client = pg.Client.prototype as unknown as { query: (...args: Array<unknown>) => unknown }
const query = client.query
client.query = function(...args) {
  return watch(() => query.apply(this, args))
}

const store = order.dialect === "sqlite"
  ? Sqlite.layer({ filename: order.target, synchronous: "normal" })
  : Postgres.layer({ url: Redacted.make(order.target) })

const world = World.make(order.seed, order.size)
const program: Effect.Effect<unknown, unknown, Namespaces.Namespaces> = order.program === "reactor"
  ? Effect.provide(Reactor.run(World.processor(world)), Ledger.source("world", World.strands(world)))
  : Namespaces.within(Ledger.namespace, Naive.run(world, order.program))

await Effect.runPromise(
  program.pipe(Effect.provide(Layer.merge(Layer.orDie(store), Logger.remove(Logger.defaultLogger))))
)
process.stdout.write(String(statements))
