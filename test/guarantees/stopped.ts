/**
 * The child of the tests that stop a process: follows a scene into a database, stops itself at a statement if it is told to,
 * and ends by itself once nothing holds it any more.
 *
 *     node child.js '{"dialect":"sqlite","target":"file","name":"first","script":{…},"fate":{…}}'
 *
 * It says "begun" when it begins, and in the end how each subscription stands and how many statements it has counted.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import { writeSync } from "node:fs"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import * as Source from "../../src/ingest/Source.js"
import * as Reactor from "../../src/Reactor.js"
import type * as Namespaces from "../../src/store/Namespaces.js"
import * as Mortal from "./Mortal.js"
import * as Scene from "./Scene.js"
import type { Ending, Order } from "./Takeover.js"

const order = JSON.parse(process.argv[2] ?? "{}") as Order
const statements = Mortal.watch(order.fate)
const scene = Scene.make(order.script)

const store = order.dialect === "sqlite"
  ? Sqlite.layer({ filename: order.target, synchronous: "normal" })
  : Postgres.layer({
    url: Redacted.make(order.target),
    applicationName: order.name,
    idleInTransactionTimeout: order.idleInTransactionMillis,
    lockTimeout: 2_000
  })

let chunks = 0

/** Stops before the second chunk, with nothing left to do, and finds its source away when it goes on. */
const standing: Scene.Gate = Effect.suspend(() =>
  ++chunks !== 2 ? Effect.sleep(1) : Effect.flatMap(Effect.sleep(200), () => {
    Mortal.end("SIGSTOP")
    return new Source.SourceUnavailable({ source: "world", reason: "it was not heard of for long" })
  })
)

const followed: Effect.Effect<Pick<Ending, "outcomes" | "refused">, unknown, Namespaces.Namespaces> = Effect.flatMap(
  Reactor.Reactor,
  ({ ended, outcomes }) => Effect.zipRight(ended, outcomes)
).pipe(
  Effect.provide(Scene.reactor(scene, order.isStoppedAtSource ? standing : Effect.sleep(1))),
  Effect.map((all): Ending["outcomes"] =>
    all.map(({ failure, phase, processor }) => ({
      processor,
      phase,
      failure: failure?._tag
    }))
  ),
  Effect.map((all) => ({ outcomes: all, refused: undefined })),
  Effect.catchTag("MigrationFailed", ({ _tag }) => Effect.succeed({ outcomes: [], refused: _tag }))
)
const none: Pick<Ending, "outcomes" | "refused"> = { outcomes: [], refused: undefined }

writeSync(1, "begun\n")
const ending = await Effect.runPromise(
  (scene.script.kind === "naive" ? Effect.as(Scene.naive(scene), none) : followed).pipe(
    Effect.provide(Layer.merge(Layer.orDie(store), Logger.remove(Logger.defaultLogger)))
  )
)
writeSync(1, `${JSON.stringify({ ...ending, statements: statements() } satisfies Ending)}\n`)
