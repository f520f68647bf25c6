/**
 * A benchmark's contest: a subject that fails, or that does other work than the rest, must not become a figure.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import * as Contest from "../../bench/support/Contest.js"
import type { Dialect } from "../../bench/support/Result.js"
import * as Strands from "../../bench/support/Strands.js"
import * as Bundle from "../support/Bundle.js"
import * as Database from "../support/Database.js"
import * as Directory from "../support/Directory.js"

interface Ground {
  readonly directory: string
  readonly stream: Strands.File
  readonly hold: (
    program: string,
    options?: Partial<Contest.Contender>
  ) => Effect.Effect<ReadonlyArray<Contest.Entry>, unknown>
}

const recorded = fileURLToPath(new URL("../../examples/data/g1-strands.ndjson.gz", import.meta.url))

/** A place where one subject competes alone, on the given database. */
const ground = (dialect: Dialect, database: () => Promise<string>) =>
  Effect.map(Directory.make(), (directory): Effect.Effect<Ground> =>
    Effect.promise(async () => {
      const stream = await Strands.repeat(recorded, 1_200, directory)
      const databases = { directory, make: database, remove: () => Promise.resolve() }
      return {
        directory,
        stream,
        hold: (program, options = {}) =>
          Effect.tryPromise({
            try: () => {
              const contender = { name: "the subject", program: pathToFileURL(program).href, dialect, how: "many" }
              return Contest.hold([{ ...contender, ...options }], stream, databases, 1)
            },
            catch: (failure) => failure
          })
      }
    })).pipe(Effect.flatten)

const alone = ground("sqlite", () => Promise.resolve("nowhere"))

const program = ({ directory }: Ground, text: string): string => {
  const path = join(directory, "subject.mjs")
  mkdirSync(directory, { recursive: true })
  writeFileSync(path, text)
  return path
}

const reporting = (reading: unknown) => `process.stdout.write(${JSON.stringify(JSON.stringify(reading))})`

describe("strands apart", () => {
  it.scopedLive("make a row of their own each, so that each can be waited for", () =>
    Effect.gen(function*() {
      const directory = yield* Directory.make()
      const apart = yield* Effect.promise(() => Strands.repeatApart(recorded, 800, directory))
      expect(apart.operations).toBeGreaterThanOrEqual(800)
      expect(apart.outcome.rows).toBe(apart.operations)
    }))
})

describe("a contest", () => {
  it.scopedLive("ends with what a subject said when it fails", () =>
    Effect.gen(function*() {
      const at = yield* alone
      const failure = yield* Effect.flip(at.hold(program(at, "console.error('no such table'); process.exit(3)")))
      expect(String(failure)).toContain("the subject failed\nno such table")
    }))

  it.scopedLive("ends when a subject leaves another table than the operations do", () =>
    Effect.gen(function*() {
      const at = yield* alone
      const { operations, outcome } = at.stream
      const reading = { operations, seconds: 1, peakMegabytes: 1, commits: 1 }
      const wrong = { ...reading, outcome: { ...outcome, sha256: "another" } }
      expect(String(yield* Effect.flip(at.hold(program(at, reporting(wrong)))))).toContain("another table")
      const fewer = { ...reading, operations: operations - 1, outcome }
      expect(String(yield* Effect.flip(at.hold(program(at, reporting(fewer)))))).toContain("another table")
      const [entry] = yield* at.hold(program(at, reporting({ ...reading, outcome })))
      expect(entry?.readings).toHaveLength(1)
    }))

  describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
    it.scopedLive.each(["framework", "by-hand"])(
      "%s leaves the table that the operations leave",
      (name) =>
        Effect.gen(function*() {
          const scope = yield* Effect.scope
          const make = Effect.map(fresh, (made) => made.dialect === "sqlite" ? made.filename : made.url)
          const at = yield* ground(dialect, () => Effect.runPromise(Effect.provideService(make, Scope.Scope, scope)))
          const subject = yield* Bundle.make(new URL(`../../bench/subjects/${name}.ts`, import.meta.url))
          for (const how of ["many", "one"]) {
            const [entry] = yield* at.hold(subject, { how })
            expect(entry?.readings.map((reading) => reading.outcome)).toEqual([at.stream.outcome])
          }
        })
    )
  })
})
