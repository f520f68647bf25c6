/**
 * RebuildSweep: a rebuild is killed at one statement after another, and leaves the old rows or the new ones.
 *
 *     a world followed ─▶ rows spoilt ─▶ child, SIGKILL at statement k ─▶ old or new? ─▶ rebuilt here ─▶ new? ─┐
 *                              ▲                                                                              │
 *                              └──────────────────────────────────────────────────────────────────────────────┘
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type * as Scope from "effect/Scope"
import * as Reactor from "../../src/Reactor.js"
import * as Rebuild from "../../src/Rebuild.js"
import { Namespaces } from "../../src/store/Namespaces.js"
import * as Bundle from "../support/Bundle.js"
import type * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"
import * as Ledger from "./Ledger.js"
import * as Sweep from "./Sweep.js"
import * as World from "./World.js"

export interface Order
  extends Pick<Sweep.Order, "dialect" | "target" | "seed" | "size" | "partitions" | "killAt" | "moment">
{
  readonly program: "shadow" | "document" | "in place" | "torn"
}

export interface Result {
  readonly kills: number
  /** Kills after which the rows were the old ones, and the new ones. */
  readonly old: number
  readonly new: number
  readonly violations: ReadonlyArray<string>
}

/** Kills at each statement of the exchange, and at every `stride`th of the others. */
export const everyStatement = (
  fresh: Effect.Effect<Database.Database, never, Scope.Scope>,
  options: Pick<Order, "dialect" | "seed" | "size" | "partitions" | "program"> & {
    readonly moments: ReadonlyArray<Sweep.Moment>
    readonly stride: number
  }
): Effect.Effect<Result, never, Scope.Scope> =>
  Effect.gen(function*() {
    const file = yield* Bundle.make(new URL("rebuilder.ts", import.meta.url))
    const database = yield* fresh
    const world = World.make(options.seed, options.size)
    const processor = World.processor(world, options.partitions)
    const violations: Array<string> = []
    const counts = { kills: 0, old: 0, new: 0 }
    const order = (killAt: number, moment: Sweep.Moment) =>
      Sweep.run(file, { ...options, target: Sweep.targetOf(database), killAt, moment })
    const here = <A, E>(effect: Effect.Effect<A, E, Namespaces | SqlClient.SqlClient>) =>
      Effect.provide(effect, Layer.merge(Store.layerOf(database, Ledger.namespace), silent))

    yield* here(Effect.provide(Reactor.run(processor), sourceOf(world)))
    const whole = yield* here(dump)
    yield* here(spoil(world))
    const spoilt = yield* here(dump)
    const alive = JSON.parse((yield* order(0, "before")) ?? "{}") as {
      readonly statements: number
      readonly from: number
      readonly to: number
    }
    /** The exchange is where it matters; the statement behind its last is when that has been answered. */
    const step = (killAt: number) => killAt >= alive.from && killAt <= alive.to ? 1 : options.stride
    const healed = yield* here(Effect.zipRight(Sweep.quiet, dump))
    if (options.program !== "document" && options.program !== "torn" && healed !== whole) {
      violations.push("a rebuild that was not killed is not live")
    }
    if (healed === spoilt) violations.push("nothing was rebuilt")

    for (const moment of options.moments) {
      for (let killAt = 1; killAt <= alive.statements; killAt += step(killAt)) {
        const tell = (what: string) => void violations.push(`killed ${moment} statement ${killAt}: ${what}`)
        yield* here(Effect.gen(function*() {
          // What was left out of the last round is put right first, and then spoilt the same way.
          yield* Rebuild.run(processor).pipe(Effect.provide(sourceOf(world)))
          if ((yield* dump) !== whole) tell("what the last round left cannot be put right")
          yield* spoil(world)
        }))
        if ((yield* order(killAt, moment)) !== undefined) continue
        counts.kills++
        yield* here(Effect.gen(function*() {
          yield* Sweep.quiet
          const found = yield* dump
          if (found === healed) counts.new++
          else if (found === spoilt) counts.old++
          else if (options.program === "in place") {
            for (const what of yield* World.violations(world)) tell(what)
          } else tell("the rows are neither the old ones nor the new ones")
          if (options.program === "torn") return
          const outcomes = yield* Effect.provide(Reactor.run(processor), sourceOf(world))
          for (const { phase } of outcomes) if (phase !== "ended") tell(`a subscription is ${phase}`)
          const resumed = yield* dump
          if (options.program === "in place" && found !== spoilt && resumed !== whole) {
            tell("it did not go on to the end")
          }
          if (options.program !== "in place" && resumed !== found) tell("the subscription changed rows")
          if (options.dialect === "pg" && (yield* leftovers) > 0) tell("a schema was left behind")
        }))
      }
    }
    return { ...counts, violations }
  }).pipe(Effect.orDie)

const silent = Logger.remove(Logger.defaultLogger)

const sourceOf = (world: World.World) => Ledger.source("world", World.strands(world))

/** Changes, loses and makes up rows of two documents, and forgets what was applied of one. */
export const spoil = (world: World.World) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const [first, second] = [World.documentIdOf(world, 0), World.documentIdOf(world, 1)]
    yield* sql`UPDATE ledger_balance SET h = h + 1 WHERE document_id IN (${first}, ${second})`
    yield* sql`DELETE FROM ledger_entry WHERE document_id = ${first} AND n = 2`
    yield* sql`INSERT INTO ledger_entry VALUES (${first}, 'made', 'up', 1, 1, 1, 1)`
    yield* sql`DELETE FROM processor_stream WHERE document_id = ${first}`
  })

/** Everything a rebuild may touch, but for what numbers commits and letters. */
export const dump = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  return JSON.stringify(
    yield* Effect.all([
      sql`SELECT * FROM ledger_balance ORDER BY document_id, scope, branch`,
      sql`SELECT * FROM ledger_entry ORDER BY document_id, scope, branch, n`,
      sql`SELECT document_id, scope, branch, page, slots FROM processor_stream ORDER BY document_id, scope, branch, page`,
      sql`SELECT document_id, op_index, op_skip, cause FROM processor_dead_letter ORDER BY document_id, op_index, op_skip`,
      sql`SELECT first_slice, position, ahead, parked FROM processor_cursor ORDER BY first_slice`
    ])
  )
})

/** Schemas of killed replays, once the reactor that started above has had the time to tidy up. */
const leftovers = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* Effect.flatMap(Namespaces, ({ tidy }) => tidy)
  const found = yield* sql`SELECT 1 FROM pg_namespace WHERE starts_with(nspname, 'processor_shadow_')`
  return found.length
})
