/**
 * Guarantee 5: a reactor that lost its subscription cannot write. The process that owns it is stopped, another one takes
 * over, and the first goes on.
 *
 *     FENCE_ROUNDS=1000 FENCE_SEED=1 npx vitest run test/guarantees/fenced.test.ts     a campaign, of so many a dialect
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Bundle from "../support/Bundle.js"
import * as Database from "../support/Database.js"
import * as HttpProxy from "../support/HttpProxy.js"
import * as Ledger from "./Ledger.js"
import type * as Scene from "./Scene.js"
import * as Sweep from "./Sweep.js"
import * as Takeover from "./Takeover.js"

const isCampaign = process.env["FENCE_ROUNDS"] !== undefined
const roundsMin = Number(process.env["FENCE_ROUNDS"] ?? 24)
const seed = Number(process.env["FENCE_SEED"] ?? 1)
/** So long everything may take that a test does. */
const testMillis = Math.max(600_000, roundsMin * 5_000)

const lanes = 4

const program = (changes: ReadonlyArray<Bundle.Change> = []) =>
  Bundle.make(new URL("stopped.ts", import.meta.url), changes)

/** A server that ends soon what holds a transaction open and says nothing, and one that never does. */
const impatient = 500
const patient = 60_000

const world: Scene.Script = {
  kind: "world",
  seed: 7,
  size: { documents: 6, operations: 8 },
  partitions: 1,
  errands: false
}
const crowd: Scene.Script = { ...world, kind: "crowd", size: { documents: 6, operations: 12 } }

/** Statements of which a moment is told. */
const claims = "UPDATE processor_cursor SET epoch"
const writes = "INSERT INTO \"?ledger_(balance|entry)"
const moves = "UPDATE processor_cursor\\s+SET (position = (?!v\\.)|sequence)"

const later = { since: claims, moment: "before" } as const

type Moments = ReadonlyArray<readonly [name: string, script: Scene.Script, stop: Takeover.Plot["stop"]]>

/** Once its cursor is claimed, outside any transaction. */
const outside: Moments = [
  ["between two transactions", world, { ...later, among: "^BEGIN", killAt: 2 }],
  ["between the transactions of a crowd", crowd, { ...later, among: "^BEGIN", killAt: 3 }]
]

/** Once its cursor is claimed, in a transaction that holds it. */
const insideOn = (dialect: Database.Database["dialect"]): Moments => {
  const sent = dialect === "sqlite" ? "after" : "sent"
  const convoyMoves = `${
    dialect === "sqlite" ? "" : "WITH moved AS \\(\\s*"
  }UPDATE processor_cursor SET position = v\\.`
  return [
    ["before its first write", world, { ...later, among: writes, killAt: 1 }],
    ["between two writes", world, { ...later, among: writes, killAt: 4 }],
    ["between its writes and the cursor's move", world, { ...later, among: moves, killAt: 2 }],
    ["just before COMMIT is sent", world, { ...later, among: "^COMMIT", killAt: 3 }],
    ["once a convoy holds its cursors", crowd, {
      ...later,
      among: "CROSS JOIN processor_cursor",
      killAt: 1,
      moment: sent
    }],
    ["before a convoy's cursors are moved", crowd, { ...later, among: convoyMoves, killAt: 1 }],
    ["during a move of idle cursors", crowd, {
      ...later,
      among: "UPDATE processor_cursor SET position = v\\.[^]*RETURNING processor",
      killAt: 1,
      moment: sent
    }]
  ]
}

describe.each(Database.dialects)("on $dialect", ({ dialect }) => {
  const inside = insideOn(dialect)

  /** One takeover, in a database of its own. */
  const one = (plot: Takeover.Plot, changes: ReadonlyArray<Bundle.Change> = []) =>
    Effect.gen(function*() {
      const file = yield* program(changes)
      const database = yield* Effect.flatten(Sweep.lane(dialect))
      return yield* Takeover.run(file, database, plot, "first")
    })

  const failures = ({ first }: Takeover.Course) => first.outcomes.map(({ failure }) => failure)

  describe("Fenced. A reactor that lost its subscription cannot write", () => {
    it.scopedLive.each(outside)(
      "stopped %s, it is refused and says so once it goes on",
      ([, script, stop]) =>
        Effect.gen(function*() {
          for (const second of ["ends", "claims"] as const) {
            const course = yield* one({ script, partitions: 1, stop, second, idleInTransactionMillis: patient })
            expect(course.violations).toEqual([])
            expect(course).toMatchObject({ isStopped: true, second: "took over", said: [] })
            expect(new Set(failures(course))).toEqual(new Set(["Fenced"]))
          }
        }),
      testMillis
    )

    it.scopedLive.each([["alone", world], ["in a crowd", crowd]] as const)(
      "stopped as it waits for its source, %s, it claims nothing back when it opens again",
      ([, script]) =>
        Effect.gen(function*() {
          for (const second of ["ends", "claims"] as const) {
            const stop = "at its source"
            const course = yield* one({ script, partitions: 1, stop, second, idleInTransactionMillis: patient })
            expect(course.violations).toEqual([])
            expect(course).toMatchObject({ isStopped: true, second: "took over", said: [] })
            expect(new Set(failures(course))).toEqual(new Set(["Fenced"]))
          }
        }),
      testMillis
    )

    it.scopedLive.each(inside)(
      "stopped %s, it holds up who takes over, who says so, and both come to a right end",
      ([, script, stop]) =>
        Effect.gen(function*() {
          const course = yield* one({ script, partitions: 1, stop, second: "ends", idleInTransactionMillis: patient })
          expect(course.violations).toEqual([])
          expect(course).toMatchObject({ isStopped: true, second: "waited" })
          expect(course.said.length).toBeGreaterThan(0)
        }),
      testMillis
    )

    it.scopedLive.each(dialect === "pg" ? inside : [])(
      "stopped %s, the server ends its transaction, who takes over gets on, and it is refused",
      ([, script, stop]) =>
        Effect.gen(function*() {
          for (const second of ["ends", "claims"] as const) {
            const course = yield* one({ script, partitions: 1, stop, second, idleInTransactionMillis: impatient })
            expect(course.violations).toEqual([])
            expect(course).toMatchObject({ isStopped: true, second: "took over" })
            expect(failures(course)).toContain("Fenced")
          }
        }),
      testMillis
    )

    it.scopedLive(
      "stopped at moments nobody chose, round after round, it never writes again",
      () =>
        Effect.gen(function*() {
          const told = yield* campaign
          if (isCampaign) {
            process.stdout.write(`${dialect}: ${JSON.stringify({ ...told, violations: told.violations.length })}\n`)
          }
          expect(told.violations).toEqual([])
          expect(told.stopped).toBeGreaterThanOrEqual(roundsMin)
          expect(told.fenced).toBeGreaterThan(roundsMin / 8)
          expect(told.tookOver).toBeGreaterThan(roundsMin / 8)
        }),
      testMillis
    )

    it.scopedLive("control: a loop that asks nobody whose the cursor is is found out", () =>
      Effect.gen(function*() {
        const { violations } = yield* one({
          script: { ...world, kind: "naive" },
          partitions: 1,
          stop: { among: "^BEGIN", killAt: 5, moment: "before" },
          second: "ends",
          idleInTransactionMillis: patient
        })
        expect(violations).toContain("the tables are not the fold of the source")
      }), testMillis)

    it.scopedLive.each(
      [
        ["the epoch of its cursor", "found.epoch === expected.epoch &&", "", "claims"],
        ["its cursor", "found.epoch === expected.epoch &&", "found !== undefined ||", "ends"]
      ] as const
    )("control: an engine that does not look at %s is found out", ([, from, to, second]) =>
      Effect.gen(function*() {
        const { violations } = yield* one({
          script: world,
          partitions: 1,
          stop: { ...later, among: "^BEGIN", killAt: 2 },
          second,
          idleInTransactionMillis: patient
        }, [{ file: "src/store/Cursors.ts", from, to }])
        expect(violations.length).toBeGreaterThan(0)
      }), testMillis)
  })

  interface Told {
    rounds: number
    stopped: number
    tookOver: number
    /** Rounds in which the first said for all it had that it was refused, and for some of it. */
    fenced: number
    partly: number
    readonly violations: Array<string>
  }

  /** Rounds at moments of chance, each of another world, until enough have stopped a process before its end. */
  const campaign = Effect.gen(function*() {
    const file = yield* program()
    const told: Told = { rounds: 0, stopped: 0, tookOver: 0, fenced: 0, partly: 0, violations: [] }
    /** How many statements there are to be stopped at, and for how long it works, as far as is known. */
    const longest = { statements: { world: 400, crowd: 400, naive: 0 }, millis: 400 }
    let next = seed
    const round = (empty: Effect.Effect<Database.Database, never, Scope.Scope>) =>
      Effect.scoped(Effect.gen(function*() {
        const number = next++
        const plot = plotOf(number, longest)
        const course = yield* Takeover.run(file, yield* empty, plot, `first_${number}`)
        told.rounds++
        if (!course.isStopped) {
          const { kind } = plot.script
          if (typeof plot.stop === "object" && "afterMillis" in plot.stop) {
            longest.millis = Math.max(20, longest.millis * 0.9)
          } else longest.statements[kind] = Math.max(10, Math.min(longest.statements[kind], course.first.statements))
          return
        }
        told.stopped++
        if (course.second === "took over") told.tookOver++
        const { outcomes } = course.first
        const refused = outcomes.filter(({ failure }) => failure === "Fenced").length
        if (refused === outcomes.length) told.fenced++
        else if (refused > 0) told.partly++
        told.violations.push(...course.violations.map((what) => `round ${number}, ${JSON.stringify(plot)}: ${what}`))
      }))
    const work = Effect.scoped(Effect.gen(function*() {
      const empty = yield* Sweep.lane(dialect, Ledger.namespace)
      while (told.stopped < roundsMin && told.rounds < 3 * roundsMin) yield* round(empty)
    }))
    yield* Effect.all(Array.from({ length: lanes }, () => work), { concurrency: lanes, discard: true })
    return told
  })

  /** The round of this number. */
  const plotOf = (
    number: number,
    longest: { readonly statements: { readonly [kind in Scene.Script["kind"]]: number }; readonly millis: number }
  ): Takeover.Plot => {
    const random = HttpProxy.chances(number * 7_919)
    const below = (bound: number) => Math.floor(random() * bound)
    const kind = below(5) < 3 ? "world" : "crowd"
    const isTimed = below(4) === 0
    const errands = dialect === "sqlite" && below(3) === 0
    const moments = errands ? ["sent", "after"] as const : dialect === "sqlite"
      ? ["before", "after"] as const
      : ["before", "sent"] as const
    return {
      script: {
        kind,
        seed: number,
        size: { documents: 6, operations: isTimed ? 40 : 8 },
        partitions: kind === "crowd" ? 1 : 1 + below(4),
        errands
      },
      partitions: kind === "crowd" ? 1 : 1 + below(4),
      stop: isTimed
        ? { afterMillis: below(longest.millis) }
        : { killAt: 1 + below(longest.statements[kind]), moment: moments[below(2)]! },
      second: below(3) === 0 ? "claims" : "ends",
      idleInTransactionMillis: below(3) === 0 ? patient : impatient
    }
  }
})
