import { describe, expect, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as fc from "fast-check"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { gunzipSync } from "node:zlib"
import { History, HistoryTooBroken, protocolOf, runsMax, surviving, textMax } from "../../src/domain/History.js"
import type { Protocol, Trace } from "../../src/domain/History.js"
import { OperationType, skipMax } from "../../src/domain/Operation.js"
import { decode } from "../../src/ingest/Envelope.js"
import { disagreement, recorded } from "../support/RealHistories.js"
import type { RealHistory } from "../support/RealHistories.js"

/** `3↶2` is the operation with index 3 and skip 2, `N4↶1` a mark, `F5` one that the document refused. */
const read = (drawing: string): ReadonlyArray<Trace> =>
  drawing.split(/\s+/).map((word) => {
    const [, letter = "", index, skip = "0"] = /^([NF]?)(\d+)(?:↶(\d+))?$/.exec(word)!
    return {
      index: Number(index),
      skip: Number(skip),
      type: OperationType.make(letter === "N" ? "NOOP" : "PUSH"),
      ...(letter === "F" ? { error: "refused" } : {})
    }
  })

const tellAll = (drawing: string, protocol: Protocol) => {
  const history = History.make(protocol)
  const steps = read(drawing).map((operation) => Either.getOrThrow(history.take(operation)))
  return { history, last: steps[steps.length - 1]!, left: history.survivors().join(" ") }
}

const leftOf = (drawing: string, protocol: Protocol) => tellAll(drawing, protocol).left

describe("a history", () => {
  it("that nothing was taken back of survives whole", () => {
    for (const protocol of [1, 2] as const) {
      const { last, left } = tellAll("0 1 2", protocol)
      expect(left).toBe("0 1 2")
      expect(last).toEqual({ takenBack: [], broughtBack: [] })
    }
  })

  it("loses what a skip reaches, highest first", () => {
    for (const protocol of [1, 2] as const) {
      const { last, left } = tellAll("0 1 2 3↶2", protocol)
      expect(left).toBe("0 3")
      expect(last).toEqual({ takenBack: [2, 1], broughtBack: [] })
    }
  })

  it("loses to a mark the operation before it", () => {
    for (const protocol of [1, 2] as const) {
      const { last, left } = tellAll("0 1 2 N3↶1", protocol)
      expect(left).toBe("0 1")
      expect(last).toEqual({ takenBack: [2], broughtBack: [] })
    }
  })

  it("goes on after an undo", () => {
    expect(leftOf("0 1 2 N3↶1 4 5", 1)).toBe("0 1 4 5")
    expect(leftOf("0 1 2 N3↶1 4 5", 2)).toBe("0 1 4 5")
  })

  it("keeps in place what its document refused, and lets its skip take nothing back", () => {
    for (const protocol of [1, 2] as const) {
      expect(leftOf("0 1 F2↶2", protocol)).toBe("0 1 2")
      expect(leftOf("0 1 F2 N3↶1", protocol)).toBe("0 1")
    }
  })

  it("is not changed by an operation that comes again or too late", () => {
    for (const protocol of [1, 2] as const) {
      const { history } = tellAll("0 1 2 3↶2", protocol)
      const before = history.encode()
      for (const late of read("3↶2 3↶1 3 2↶2 N1↶1 0")) {
        expect(history.isNext(late)).toBe(false)
        expect(Either.getOrThrow(history.take(late))).toEqual({ takenBack: [], broughtBack: [] })
      }
      expect(history.encode()).toBe(before)
    }
  })

  it("loses no more to a skip that reaches before the beginning", () => {
    expect(tellAll("0 1 2↶9", 1).last.takenBack).toEqual([1, 0])
    expect(tellAll("0 1 2↶9", 2).last.takenBack).toEqual([1, 0])
  })
})

describe("protocol 1", () => {
  it("undoes again by a longer skip at the same index", () => {
    const { last, left } = tellAll("0 1 2 N3↶1 N3↶2", 1)
    expect(left).toBe("0")
    expect(last).toEqual({ takenBack: [1], broughtBack: [] })
  })

  it("lets an operation that was refused at an index used again replace the one before it there", () => {
    const { last, left } = tellAll("0 1↶1 F1↶2 2", 1)
    expect(left).toBe("1 2")
    expect(last).toEqual({ takenBack: [], broughtBack: [] })
  })

  it("takes nothing back where what was undone never came", () => {
    expect(tellAll("0 1 N4↶2 5", 1).last.takenBack).toEqual([])
    expect(leftOf("0 1 N4↶2 5", 1)).toBe("0 1 5")
    expect(leftOf("0 1 2 3 N4↶2 5", 1)).toBe("0 1 5")
  })

  it("takes back for good: a skip over a mark brings nothing back", () => {
    const { last, left } = tellAll("0 1 2 N3↶1 4↶1", 1)
    expect(left).toBe("0 1 4")
    expect(last).toEqual({ takenBack: [], broughtBack: [] })
  })

  it("takes back for good where a skip ends within the reach of an earlier one", () => {
    // garbageCollect of all four at once would leave 0 and 1 as well; the reducers collect as operations come.
    expect(leftOf("0 1 2↶2 3↶1", 1)).toBe("3")
  })
})

describe("protocol 2", () => {
  it("undoes as many operations as a chain has marks", () => {
    const { last, left } = tellAll("0 1 2 N3↶1 N4↶1", 2)
    expect(left).toBe("0")
    expect(last).toEqual({ takenBack: [1], broughtBack: [] })
  })

  it("undoes past an earlier undo", () => {
    expect(leftOf("0 1 N2↶1 3 N4↶1 N5↶1", 2)).toBe("")
    expect(leftOf("0 1 2 N3↶1 4 N5↶1 N6↶1", 2)).toBe("0")
  })

  it("counts marks, not their skips", () => {
    expect(leftOf("0 1 2 N3↶3", 2)).toBe("0 1")
  })

  it("has nothing to undo in an empty history, and owes nothing to later ones", () => {
    expect(leftOf("0 N1↶1 N2↶1 3 4", 2)).toBe("3 4")
  })

  it("lets a NOOP without skip be undone like an operation", () => {
    expect(leftOf("0 1 N2 N3↶1", 2)).toBe("0 1")
  })

  it("brings back what a mark had undone when a skip takes the mark back", () => {
    const { last, left } = tellAll("0 1 2 N3↶1 4↶1", 2)
    expect(left).toBe("0 1 2 4")
    expect(last).toEqual({ takenBack: [], broughtBack: [2] })
  })

  it("counts a mark twice once a skip comes after it", () => {
    const { last, left } = tellAll("0 1 2 N3↶1 4 5↶1", 2)
    expect(left).toBe("0 5")
    expect(last).toEqual({ takenBack: [4, 1], broughtBack: [] })
  })

  it("lets the marks of a chain take each other back once a skip comes after it", () => {
    const { last, left } = tellAll("0 1 2 N3↶1 N4↶1 5 6↶1", 2)
    expect(left).toBe("0 1 6")
    expect(last).toEqual({ takenBack: [5], broughtBack: [1] })
  })

  it("takes an index that is used again for a redelivery: the reactor stores each once", () => {
    expect(leftOf("0 1 2 N3↶1 N3↶2", 2)).toBe("0 1")
  })
})

describe("beside the real packages", () => {
  const histories = recorded()

  it("agrees with every recorded history, operation by operation, stored and read again after each", () => {
    expect(histories.map(disagreement).filter((words) => words !== undefined)).toEqual([])
  })

  it("was compared with enough of each", () => {
    const counts = new Map<string, { histories: number; takenBack: number; broughtBack: number }>()
    for (const { protocol, steps, truth } of histories) {
      const count = counts.get(truth) ?? { histories: 0, takenBack: 0, broughtBack: 0 }
      const history = History.make(protocol)
      count.histories++
      for (const [{ index, skip, type }] of steps) {
        const step = Either.getOrThrow(history.take({
          index,
          skip,
          type: OperationType.make(type),
          ...(type === "FAIL" ? { error: "refused" } : {})
        }))
        count.takenBack += step.takenBack.length
        count.broughtBack += step.broughtBack.length
      }
      counts.set(truth, count)
    }
    expect(Array.from(counts.keys()).sort()).toEqual(truths)
    for (const count of counts.values()) {
      expect(count.histories).toBeGreaterThanOrEqual(200)
      expect(count.takenBack).toBeGreaterThanOrEqual(200)
    }
    expect(counts.get("rebuild-2")!.broughtBack).toBeGreaterThanOrEqual(50)
    expect(counts.get("live-2")!.broughtBack).toBeGreaterThanOrEqual(50)
  })

  // Node's own import, since Vite would look into the packages.
  const module = new URL("../powerhouse/histories.mjs", import.meta.url)

  it("agrees with them as they are installed", async () => {
    const { record } = await import(/* @vite-ignore */ module.href) as {
      readonly record: (seed: number, count: number) => Promise<ReadonlyArray<RealHistory>>
    }
    const fresh = await record(Number(process.env["HISTORY_SEED"] ?? 2), Number(process.env["HISTORY_COUNT"] ?? 100))
    expect(fresh.length).toBeGreaterThan(truths.length)
    expect(fresh.map(disagreement).filter((words) => words !== undefined)).toEqual([])
  })

  it("leaves of a real reshuffle and two undos what the real document is left with", () => {
    const file = fileURLToPath(new URL("../../examples/data/g3-reshuffle.ndjson.gz", import.meta.url))
    const lines = gunzipSync(readFileSync(file)).toString("utf8").trimEnd().split("\n")
    const operations = lines
      .flatMap((line) => Either.getOrThrow(decode(JSON.parse(line))))
      .filter(({ scope }) => scope === "global")
      .flatMap((strand) => strand.operations)
    const left = Either.getOrThrow(surviving(operations, 2))
    expect(left.map(({ index }) => index)).toEqual([0, 3, 4])
    // What documentModelReducer of the reactor 6.2.2 rebuilds from them is the name A2 and the description B1.
    expect(left.map(({ input }) => input)).toEqual([{ name: "A1" }, { description: "B1" }, { name: "A2" }])
  })
})

const truths = [
  "collect-1",
  "collect-1-v4",
  "collect-1-v5",
  "live-1",
  "live-1-v4",
  "live-1-v5",
  "live-2",
  "rebuild-1",
  "rebuild-2"
]

/** Operations in index order with any gaps, skips, marks and refusals. */
const operations = fc.array(
  fc.record({
    gap: fc.oneof({ weight: 5, arbitrary: fc.constant(1) }, fc.integer({ min: 0, max: 4 })),
    skip: fc.oneof(
      { weight: 3, arbitrary: fc.constant(0) },
      fc.integer({ min: 0, max: 8 }),
      fc.integer({ max: skipMax, min: 0 })
    ),
    type: fc.constantFrom("PUSH", "PUSH", "NOOP"),
    refused: fc.boolean()
  }),
  { maxLength: 60 }
).map((draws) => {
  let index = -1
  return draws.map(({ gap, refused, skip, type }): Trace => ({
    index: index = Math.max(0, index + gap),
    skip,
    type: OperationType.make(type),
    ...(refused && type === "PUSH" ? { error: "refused" } : {})
  }))
})

describe("any history", () => {
  it("is told by its steps: what stands is what came, less what was taken back, with what was brought back", () => {
    fc.assert(fc.property(operations, fc.constantFrom(1 as const, 2 as const), (all, protocol) => {
      const history = History.make(protocol)
      const standing = new Set<number>()
      for (const operation of all) {
        const isNext = history.isNext(operation)
        const { broughtBack, takenBack } = Either.getOrThrow(history.take(operation))
        expect(takenBack).toEqual([...takenBack].sort((a, b) => b - a))
        expect(broughtBack).toEqual([...broughtBack].sort((a, b) => a - b))
        expect(takenBack.every((index) => standing.delete(index))).toBe(true)
        expect(broughtBack.some((index) => standing.has(index))).toBe(false)
        for (const index of broughtBack) standing.add(index)
        const isMark = operation.type === "NOOP" && operation.skip > 0
        if (isNext && !isMark) standing.add(operation.index)
        expect(history.survivors()).toEqual(Array.from(standing).sort((a, b) => a - b))
      }
    }))
  })

  it("is the same after it was stored and read again at any point", () => {
    fc.assert(fc.property(operations, fc.constantFrom(1 as const, 2 as const), (all, protocol) => {
      const history = History.make(protocol)
      let stored = history
      for (const operation of all) {
        stored = Option.getOrThrow(History.decode(stored.encode()))
        expect(stored.take(operation)).toEqual(history.take(operation))
        expect(stored.survivors()).toEqual(history.survivors())
        expect(stored.encode()).toBe(history.encode())
      }
    }))
  })

  it("is the same in whatever order, and however often, its operations come", () => {
    const shuffled = operations.chain((all) =>
      fc.tuple(fc.constant(all), fc.shuffledSubarray([...all, ...all], { minLength: all.length * 2 }))
    )
    fc.assert(fc.property(shuffled, fc.constantFrom(1 as const, 2 as const), ([all, twice], protocol) => {
      // Of several with one index and skip, which comes first is chance.
      const distinct = all.filter(({ index }, i) => i === 0 || all[i - 1]!.index !== index)
      const again = twice.filter((operation) => distinct.includes(operation))
      expect(surviving(again, protocol)).toEqual(surviving(distinct, protocol))
    }))
  })
})

describe("a history as text", () => {
  it("is short, and readable", () => {
    expect(History.make(2).encode()).toBe("2:-1.0:")
    expect(tellAll("0 1 2 3↶2 4 5 6 N7↶1 N8↶1", 2).history.encode()).toBe("2:8.1:+.2+4~2")
    expect(tellAll("0 1 2 N3↶1 N3↶2 4", 1).history.encode()).toBe("1:4.0:+.3+")
    expect(tellAll("40 N41↶3", 2).history.encode()).toBe("2:41.3:.14+~*3")
  })

  it("is refused where it is none", () => {
    const none = [
      "",
      "2",
      "3:0.0:+",
      "2:0.0:+ ",
      "2:0.0:-",
      "2:0.0:+:",
      "2:0.0:+2",
      "2:1.0:+0+",
      "2:9.0:+*2",
      "2:9.0:~*0",
      "1:9.0:+~",
      "2:-2.0:",
      "2:9999999999.0:+",
      "2:9.0:zzzzzzzzz+",
      `2:9.0:${"+".repeat(textMax)}`
    ]
    expect(none.filter((text) => Option.isSome(History.decode(text)))).toEqual([])
  })

  it("keeps within its bound at the greatest number of runs, and one more is refused", () => {
    const history = History.make(2)
    for (let i = 0; i < runsMax; i++) {
      const [operation] = read(i % 2 === 0 ? `${1_000_000_000 + i * 3}` : `N${1_000_000_000 + i * 3}↶${skipMax}`)
      expect(Either.isRight(history.take(operation!))).toBe(true)
    }
    const text = history.encode()
    expect(text.length).toBeLessThanOrEqual(textMax)
    expect(Option.getOrThrow(History.decode(text)).encode()).toBe(text)
    const [operation] = read("2000000000")
    expect(history.take(operation!)).toEqual(Either.left(new HistoryTooBroken({ index: 2_000_000_000 })))
  })
})

describe("the protocol of a document", () => {
  const create = OperationType.make("CREATE_DOCUMENT")

  it("is what its creation says", () => {
    expect(protocolOf({ type: create, input: { protocolVersions: { "base-reducer": 2 } } })).toBe(2)
    expect(protocolOf({ type: create, input: { protocolVersions: { "base-reducer": 3 } } })).toBe(2)
    expect(protocolOf({ type: create, input: { protocolVersions: { "base-reducer": 1 } } })).toBe(1)
  })

  it("is the first where its creation says nothing", () => {
    const silent = [{}, { protocolVersions: {} }, { protocolVersions: { "base-reducer": "2" } }, null, "text"]
    expect(silent.map((input) => protocolOf({ type: create, input }))).toEqual([1, 1, 1, 1, 1])
  })

  it("is told by no other operation", () => {
    expect(
      protocolOf({ type: OperationType.make("UPGRADE_DOCUMENT"), input: { protocolVersions: { "base-reducer": 2 } } })
    )
      .toBeUndefined()
  })
})
