/**
 * Scene: what two processes follow, one after the other or at once, and what is right about it.
 *
 *     world   one processor, perhaps in partitions, with everything in its source that a commit may have to deal with
 *     crowd   several of one namespace, each with a document of its own: their commits go together, and their cursors are
 *             moved past what they do not want
 *     naive   a loop that asks nobody whose the cursor is, the control
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as Source from "../../src/ingest/Source.js"
import type { Processor } from "../../src/process/Processor.js"
import * as Reactor from "../../src/Reactor.js"
import * as Errand from "../../src/store/Errand.js"
import * as Namespaces from "../../src/store/Namespaces.js"
import * as Follow from "./Follow.js"
import * as Ledger from "./Ledger.js"
import * as Naive from "./Naive.js"
import * as World from "./World.js"

/** What a process is told to follow. */
export interface Script {
  readonly kind: "world" | "crowd" | "naive"
  readonly seed: number
  readonly size: { readonly documents: number; readonly operations: number }
  /** Into how many partitions the processor of a world is divided. */
  readonly partitions: number
  /** Whether commits are errands from the first on, so that SQLite's run on a thread. */
  readonly errands: boolean
}

export interface Scene {
  readonly script: Script
  readonly processors: ReadonlyArray<Processor<never, SqlClient.SqlClient>>
  readonly strands: ReadonlyArray<Source.Unplaced>
  /** What is wrong with the tables at this instant, in words. */
  readonly violations: Effect.Effect<ReadonlyArray<string>, SqlError, SqlClient.SqlClient>
  /** What is wrong with them in the end, besides. */
  readonly missing: Effect.Effect<ReadonlyArray<string>, SqlError, SqlClient.SqlClient>
}

const sourceName = "world"

export const make = (script: Script): Scene => script.kind === "crowd" ? crowd(script) : world(script)

const same = (one: unknown, other: unknown): boolean => JSON.stringify(one) === JSON.stringify(other)

const world = (script: Script): Scene => {
  const made = World.make(script.seed, script.size)
  const isNaive = script.kind === "naive"
  return {
    script,
    processors: [World.processor(made, script.partitions)],
    strands: World.strands(made),
    violations: isNaive ? Effect.succeed([]) : World.violations(made),
    missing: Effect.gen(function*() {
      const expected = isNaive ? Ledger.fold(made.delivery.flat()) : World.balances(made)
      const found = same(yield* Ledger.balances(), expected) ? [] : ["the tables are not the fold of the source"]
      return isNaive || same(yield* World.letters, World.waiting(made))
        ? found
        : [...found, "other operations wait than should"]
    })
  }
}

/** Strands of all documents in turns, an operation each. */
const crowd = (script: Script): Scene => {
  const histories = Array.from(
    { length: script.size.documents },
    (_, d) => Ledger.history(`crowd-${script.seed}-${d}`, script.size.operations)
  )
  const inTurns = Array.from(
    { length: script.size.operations },
    (_, i) => histories.map((ops) => ops[i]!)
  ).flat()
  return {
    script,
    processors: histories.map((ops, d) => ({
      ...Ledger.make({
        name: `p${d}`,
        kind: d % 2 === 0 ? "operations" : "tables",
        batch: { operations: 4, unwanted: 2, unwantedMillis: 1 }
      }),
      filter: { documentId: [ops[0]!.documentId] }
    })),
    strands: inTurns.map((op) => Ledger.strand([op])),
    violations: Effect.gen(function*() {
      const entries = yield* Effect.orElseSucceed(Ledger.entries(), () => [])
      const balances = yield* Effect.orElseSucceed(Ledger.balances(), () => [])
      return same(balances, Ledger.fold(entries)) &&
          new Set(entries.map(({ documentId, index }) => `${documentId} ${index}`)).size === entries.length
        ? []
        : ["the balances are not the fold of entries that are there once"]
    }),
    missing: Effect.map(
      Ledger.balances(),
      (balances) => same(balances, Ledger.fold(inTurns)) ? [] : ["the tables are not the fold of the source"]
    )
  }
}

/** What comes before each chunk of a source. */
export type Gate = Effect.Effect<void, Source.SourceError>

/** The source of a scene, each chunk of which comes when `gate` lets it. */
const source = (scene: Scene, gate: Gate): Layer.Layer<Source.Source> =>
  Layer.map(Ledger.source(sourceName, scene.strands), (context) => {
    const whole = Context.get(context, Source.Source)
    return Context.make(Source.Source, {
      ...whole,
      strands: (after) => whole.strands(after).pipe(Stream.rechunk(12), Stream.tap(() => gate))
    })
  })

/** A reactor over all of a scene. */
export const reactor = (scene: Scene, gate: Gate = Effect.sleep(1)) => {
  const { errands, kind } = scene.script
  return Reactor.layer(...scene.processors).pipe(
    Layer.provide(Layer.mergeAll(
      source(scene, gate),
      Layer.succeed(Reactor.Settings, {
        // One commit at a time is what makes others wait for it, and go together.
        concurrency: kind === "crowd" ? 1 : 8,
        reopenings: Schedule.intersect(Schedule.spaced("20 millis"), Schedule.recurs(10))
      }),
      Layer.succeed(Errand.Limits, errands ? { operations: 1, calm: 0, factor: 1, calmMax: 0 } : Errand.defaults)
    ))
  )
}

/** The loop that asks nobody. */
export const naive = ({ script }: Scene): Effect.Effect<void, unknown, Namespaces.Namespaces> =>
  Namespaces.within(Ledger.namespace, Naive.run(World.make(script.seed, script.size), "cursor-unfenced"))

/** The key of each cursor. */
export const keys = (scene: Scene) => scene.processors.map((processor) => Follow.keyOf(processor, sourceName))
