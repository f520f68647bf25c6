/**
 * What is promised of memory, as a test of the same words.
 *
 *     BURST_OPERATIONS=1000000 npx vitest run test/guarantees/memory.test.ts     the whole burst: a million
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { dirname } from "node:path"
import * as Bundle from "../support/Bundle.js"
import * as Database from "../support/Database.js"
import type { Order } from "./burst.js"

const operations = Number(process.env["BURST_OPERATIONS"] ?? 60_000)

interface Done {
  readonly slow: number
  readonly fast: number
  readonly peakMegabytes: number
}

/** Runs it with so much memory; `undefined` when that was not enough. */
const run = (file: string, heapMegabytes: number, order: Order): Effect.Effect<Done | undefined> =>
  Effect.async((resume) => {
    const child = spawn(process.execPath, [`--max-old-space-size=${heapMegabytes}`, file, JSON.stringify(order)], {
      stdio: ["ignore", "pipe", "pipe"]
    })
    let out = ""
    let err = ""
    child.stdout.on("data", (text) => out += String(text))
    child.stderr.on("data", (text) => err += String(text))
    child.once("close", (code, signal) => {
      if (code === 0) resume(Effect.succeed(JSON.parse(out) as Done))
      else if (/heap out of memory/.test(err)) resume(Effect.succeed(undefined))
      else resume(Effect.dieMessage(`${code ?? signal}: ${err}`))
    })
    return Effect.sync(() => void child.kill("SIGKILL"))
  })

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  const target = (database: Database.Database) =>
    database.dialect === "sqlite" ? dirname(database.filename) : database.url

  describe("Bounded. Memory does not grow with the backlog", () => {
    it.scopedLive(
      "a burst is appended while a slow processor follows, in little memory: it finishes",
      () =>
        Effect.gen(function*() {
          const file = yield* Bundle.make(new URL("burst.ts", import.meta.url))
          const order = { dialect, target: target(yield* fresh), operations, way: "reactor" } as const
          const done = yield* run(file, 96, order)
          expect(done).toMatchObject({ slow: operations, fast: operations })
          expect(done?.peakMegabytes).toBeLessThan(256)
        }),
      60_000 + operations
    )
  })
})

describe("Bounded. Memory does not grow with the backlog", () => {
  it.scopedLive("control: a queue without bounds does not finish in the same memory", () =>
    Effect.gen(function*() {
      const file = yield* Bundle.make(new URL("burst.ts", import.meta.url))
      const order = { dialect: "sqlite", target: "", operations: Math.max(operations, 200_000), way: "naive" } as const
      expect(yield* run(file, 96, order)).toBeUndefined()
    }))
})
