/**
 * The child of the tests that end a process by a signal: a program such as a user's, of layers, run by `NodeRuntime.runMain`.
 * It follows a world for ever, and comes to where it is told to stay.
 *
 *     node child.js '{"dialect":"sqlite","target":"file","name":"graceful","seed":7,"size":{…},"stay":"in a handler","fate":{…}}'
 *
 * It says "here" when it has come there, "waiting" when it waits for its database, and "released" when what its handler was
 * built with has been released.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { once } from "node:events"
import { writeSync } from "node:fs"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import * as Source from "../../src/ingest/Source.js"
import * as Reactor from "../../src/Reactor.js"
import * as Ledger from "./Ledger.js"
import * as Mortal from "./Mortal.js"
import * as World from "./World.js"

export interface Order {
  readonly dialect: "sqlite" | "pg"
  /** A file name or a URL. */
  readonly target: string
  /** What the server calls its sessions. */
  readonly name: string
  readonly seed: number
  readonly size: { readonly documents: number; readonly operations: number }
  /** Where it stays, until it is ended. */
  readonly stay: typeof places[number]
  readonly fate: Mortal.Fate
  /** How long the server may be at a statement; a silent network is waited for twice as long. */
  readonly statementMillis: number
}

export const places = [
  "opening",
  "in a migration",
  "in a migration's statement",
  "in a handler",
  "in a statement",
  "between commits",
  "at the end"
] as const

const order = JSON.parse(process.argv[2] ?? "{}") as Order
Mortal.watch(order.fate)

const say = (what: string) => Effect.sync(() => void writeSync(1, `${what}\n`))
/** Whoever hears this may be sure that no signal comes from elsewhere. */
const here = Effect.zipRight(Effect.sync(Mortal.spare), say("here"))
const stay = (place: Order["stay"]) => place === order.stay ? here : Effect.void
const stayForEver = (place: Order["stay"]) =>
  Effect.zipRight(stay(place), place === order.stay ? Effect.never : Effect.void)

const { statementMillis } = order
const store = order.dialect === "sqlite"
  ? Sqlite.layer({ filename: order.target, synchronous: "normal" })
  : Postgres.layer({
    url: Redacted.make(order.target),
    applicationName: order.name,
    statementTimeout: statementMillis,
    lockTimeout: statementMillis,
    connectTimeout: statementMillis,
    socketTimeout: 2 * statementMillis
  })

/** A statement that takes longer than anybody waits; on SQLite something else that cannot be interrupted. */
const stayAt = (place: Order["stay"]): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  place !== order.stay ? Effect.void : Effect.zipRight(
    here,
    order.dialect === "sqlite"
      ? Effect.uninterruptible(Effect.sleep("1 minute"))
      : Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.asVoid(sql`SELECT pg_sleep(60)`))
  )

const world = World.make(order.seed, order.size)
const processor = {
  ...World.processor(world, 1, {
    opened: Effect.zipRight(Effect.addFinalizer(() => say("released")), stayForEver("opening")),
    before: (_, { index }) =>
      index < 2 ? Effect.void : Effect.zipRight(stayForEver("in a handler"), stayAt("in a statement"))
  }),
  migrations: {
    ...Ledger.migrations,
    "0002_half": {
      up: Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE half (id TEXT)`
        yield* stayForEver("in a migration")
        yield* stayAt("in a migration's statement")
      }),
      down: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE half`)
    }
  }
}

/** The world, in whose middle it waits for a word where it is to stay between commits, and that goes on for ever. */
const source = Layer.map(Ledger.source("world", World.strands(world)), (context) => {
  const whole = Context.get(context, Source.Source)
  const word = Effect.zipRight(stay("between commits"), Effect.promise(() => once(process.stdin, "data")))
  const middle = BigInt(Math.floor(world.delivery.length / 2))
  return Context.make(Source.Source, {
    ...whole,
    strands: (after) =>
      whole.strands(after).pipe(
        Stream.rechunk(1),
        Stream.tap(({ position }) => order.stay === "between commits" && position === middle ? word : Effect.void),
        Stream.concat(Stream.fromEffect(Effect.zipRight(stay("at the end"), Effect.never)))
      )
  })
})

/** Says when it waits for its database. */
const listening = Layer.scopedDiscard(
  Effect.flatMap(
    Reactor.Reactor,
    ({ incidents }) =>
      Effect.forkScoped(
        Stream.runForEach(incidents, ({ _tag }) =>
          _tag === "Waiting" || _tag === "Reopening" ? say("waiting") : Effect.void)
      )
  )
)

writeSync(1, "begun\n")
listening.pipe(
  Layer.provide(Reactor.layer(processor)),
  Layer.provide(source),
  Layer.provide(store),
  Layer.launch,
  Effect.provide(Logger.remove(Logger.defaultLogger)),
  NodeRuntime.runMain({ disablePrettyLogger: true })
)
