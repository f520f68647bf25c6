/**
 * The child of the kill tests of what is sent: follows the orders of `Post` and kills itself at a statement.
 *
 *     node child.js '{"dialect":"sqlite","target":"file","received":"file","killAt":17,"moment":"before","program":"outbox"}'
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
import * as Mortal from "./Mortal.js"
import * as Post from "./Post.js"

const order = JSON.parse(process.argv[2] ?? "{}") as Post.Order

const statements = Mortal.watch(order)

const store = order.dialect === "sqlite"
  ? Sqlite.layer({ filename: order.target, synchronous: "normal" })
  : Postgres.layer({ url: Redacted.make(order.target) })

await Effect.runPromise(
  Effect.provide(
    Reactor.run(Post.processor(order)),
    Layer.mergeAll(Post.layer(order), Layer.orDie(store), Logger.remove(Logger.defaultLogger))
  )
)
process.stdout.write(String(statements()))
