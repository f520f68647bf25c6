/**
 * The child of the kill tests of rebuilds: projects a world anew in a database that has followed it, and kills itself at a
 * statement, as a power cut would.
 *
 * It prints how many statements it sent when it came to the end alive, and between which the subscription had to stand still.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import type { Source } from "../../src/ingest/Source.js"
import * as Reactor from "../../src/Reactor.js"
import * as Rebuild from "../../src/Rebuild.js"
import * as Namespaces from "../../src/store/Namespaces.js"
import * as Ledger from "./Ledger.js"
import * as Mortal from "./Mortal.js"
import type { Order } from "./RebuildSweep.js"
import * as World from "./World.js"

const order = JSON.parse(process.argv[2] ?? "{}") as Order

const statements = Mortal.watch(order)
let from = 0
let to = Number.POSITIVE_INFINITY

const store = order.dialect === "sqlite"
  ? Sqlite.layer({ filename: order.target, synchronous: "normal" })
  : Postgres.layer({ url: Redacted.make(order.target) })

const world = World.make(order.seed, order.size)
const processor = World.processor(world, order.partitions)
const alone = <A, E, R>(work: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    from = statements()
    return Effect.ensuring(work, Effect.sync(() => to = statements()))
  })

/** What a rebuild without a transaction would be: the control, which has to be found out. */
const torn = Namespaces.within(
  Ledger.namespace,
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`DELETE FROM ledger_balance`
    for (const { h, n, stream } of World.balances(world)) {
      const [document_id, scope, branch] = stream.split(" ")
      yield* sql`INSERT INTO ledger_balance ${sql.insert({ document_id, scope, branch, n, h })}`
    }
  })
)

const programs: { readonly [P in Order["program"]]: Effect.Effect<unknown, unknown, Namespaces.Namespaces | Source> } =
  {
    shadow: Rebuild.run(processor, {}, { alone }),
    document: Rebuild.run(processor, { documentId: World.documentIdOf(world, 0) }, { alone }),
    "in place": Effect.zipRight(Rebuild.run(processor, { how: "in place" }, { alone }), Reactor.run(processor)),
    torn: alone(torn)
  }

await Effect.runPromise(
  programs[order.program].pipe(
    Effect.provide(Ledger.source("world", World.strands(world))),
    Effect.provide(Layer.merge(Layer.orDie(store), Logger.remove(Logger.defaultLogger)))
  )
)
process.stdout.write(JSON.stringify({ statements: statements(), from, to }))
