/**
 * A sweep: what may still appear below the highest ordinal is waited for, whatever the clock on the wall says.
 */
import { expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import type { Archive, Found } from "../../src/powerhouse/Archive.js"
import { Sweep } from "../../src/powerhouse/Sweep.js"
import * as WallClock from "../support/WallClock.js"

it.effect("moves its mark once the grace has gone by, and not because the clock was set forward", () =>
  Effect.gen(function*() {
    const { on, set } = yield* WallClock.make
    const ordinals = new Set([1, 2, 4])
    const put: Array<number> = []
    const marks: Array<number> = []
    const archive: Pick<Archive, "since"> = {
      since: (mark) =>
        Stream.sync((): ReadonlyArray<Found> =>
          Array.from(ordinals).filter((ordinal) => ordinal > mark).sort((a, b) => a - b).map((ordinal) => ({
            ordinal,
            envelope: {}
          }))
        )
    }
    const sweep = new Sweep({
      archive: archive as Archive,
      drive: "home",
      isolated: false,
      graceMillis: 60_000,
      put: (found) => Effect.sync(() => put.push(...found.flatMap(({ ordinal }) => ordinal ?? []))),
      mark: (mark) => Effect.sync(() => marks.push(mark))
    }, 0)
    yield* on(sweep.run)
    set(3_600_000)
    yield* on(sweep.run)
    // The transaction that has this ordinal is committed only now.
    ordinals.add(3)
    yield* on(sweep.run)
    expect(put).toEqual([1, 2, 4, 3])
    expect(marks).toEqual([])
    yield* TestClock.adjust("1 minute")
    yield* on(sweep.run)
    expect(marks).toEqual([4])
  }))
