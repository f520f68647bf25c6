/**
 * Guarantee 16, on both databases.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Database from "../support/Database.js"
import * as RebuildSweep from "./RebuildSweep.js"

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  const size = { documents: 4, operations: 5 }
  const moments = dialect === "sqlite" ? (["before", "after"] as const) : (["before", "sent"] as const)

  describe("Rebuild equals live: replay into shadow tables, row-hash diff, after every campaign", () => {
    it.scopedLive.each(
      [
        { program: "shadow", seed: 7, stride: 16 },
        { program: "document", seed: 8, stride: 16 },
        { program: "in place", seed: 8, stride: 5 }
      ] as const
    )(
      "killed at each statement of a rebuild, $program: the old rows or the new ones, never a mixture",
      ({ program, seed, stride }) =>
        Effect.gen(function*() {
          const result = yield* RebuildSweep.everyStatement(fresh, {
            dialect,
            seed,
            size,
            program,
            moments,
            stride
          })
          expect(result.violations).toEqual([])
          expect(result.kills).toBeGreaterThan(30)
          expect(result.old).toBeGreaterThan(10)
          // In place there is no instant of exchange: what is there is the beginning of the new ones.
          expect(program === "in place" ? result.kills - result.old : result.new).toBeGreaterThan(0)
        }),
      480_000
    )

    it.scopedLive(
      "control: rows that are emptied and filled without a transaction are found out",
      () =>
        Effect.gen(function*() {
          const result = yield* RebuildSweep.everyStatement(fresh, {
            dialect,
            seed: 8,
            size,
            program: "torn",
            moments: ["before"],
            stride: 5
          })
          expect(result.kills).toBeGreaterThan(4)
          expect(result.violations.filter((what) => what.endsWith("neither the old ones nor the new ones")).length)
            .toBeGreaterThan(0)
        }),
      60_000
    )
  })
})
