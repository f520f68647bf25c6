/**
 * Killed at any instant, what a legacy processor writes is there exactly once; run as the real system runs it, it is not.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Database from "../support/Database.js"
import * as Kills from "./Kills.js"

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  it.scopedLive(
    "a legacy processor that is killed at each statement ends with the rows of one that was not",
    () =>
      Effect.gen(function*() {
        const { kills, violations } = yield* Kills.everyStatement({
          dialect,
          program: "ours",
          fresh,
          moments: [dialect === "sqlite" ? "after" : "sent"]
        })
        expect(violations).toEqual([])
        expect(kills).toBeGreaterThan(60)
      })
  )
})

it.scopedLive(
  "the control, run as the real manager runs it, applies operations twice, or cannot go on",
  () =>
    Effect.gen(function*() {
      const { kills, violations } = yield* Kills.everyStatement({
        dialect: "pg",
        program: "theirs",
        fresh: Database.postgres,
        moments: ["after"]
      })
      expect(kills).toBeGreaterThan(20)
      expect(violations.length).toBeGreaterThan(0)
    })
)
