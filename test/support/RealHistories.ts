/**
 * How the real packages take operations back, as `test/powerhouse/histories.mjs` tells it, and whether `History`
 * agrees.
 */
import * as Either from "effect/Either"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { gunzipSync } from "node:zlib"
import { History, surviving } from "../../src/domain/History.js"
import type { Protocol, Step, Trace } from "../../src/domain/History.js"
import { OperationType } from "../../src/domain/Operation.js"

/** An operation on a list: PUSH adds its number, FAIL is refused, NOOP is a mark. */
export interface ListOperation {
  readonly type: "PUSH" | "FAIL" | "NOOP"
  readonly index: number
  readonly skip: number
  readonly number: number
}

/** A history, and after each operation what the real package left in the list; null where that was not asked. */
export interface RealHistory {
  readonly truth: string
  readonly protocol: Protocol
  readonly steps: ReadonlyArray<readonly [ListOperation, ReadonlyArray<number> | null]>
}

const file = fileURLToPath(new URL("../data/histories.ndjson.gz", import.meta.url))

export const recorded = (): ReadonlyArray<RealHistory> =>
  gunzipSync(readFileSync(file)).toString("utf8").trimEnd().split("\n").map((line) => JSON.parse(line) as RealHistory)

/** The operation as a source delivers it, as far as the rule looks at it. */
export const traceOf = ({ index, number, skip, type }: ListOperation) => ({
  index,
  number,
  skip,
  type: OperationType.make(type),
  ...(type === "FAIL" ? { error: "refused" } : {})
})

const numbersOf = (operations: ReadonlyArray<ReturnType<typeof traceOf>>) =>
  operations.filter(({ type }) => type === "PUSH").map(({ number }) => number)

/**
 * Where `History` says otherwise than the real package, in words; nothing where they agree. It is stored and read again
 * after each operation, and the list is also kept by its steps alone, as a processor that appends keeps it.
 */
export const disagreement = ({ protocol, steps, truth }: RealHistory): string | undefined => {
  let history = History.make(protocol)
  const told: Array<ReturnType<typeof traceOf>> = []
  const latest = new Map<number, ReturnType<typeof traceOf>>()
  const standing = new Set<number>()
  for (const [operation, left] of steps) {
    const trace = traceOf(operation)
    told.push(trace)
    const isMark = trace.type === "NOOP" && trace.skip > 0
    carryOut(standing, Either.getOrThrow(history.take(trace)))
    if (!isMark) standing.add(trace.index)
    latest.set(trace.index, trace)
    history = readAgain(history)
    if (left === null) continue
    const views = {
      survivors: numbersOf(history.survivors().map((index) => latest.get(index)!)),
      steps: numbersOf(Array.from(standing).sort((a, b) => a - b).map((index) => latest.get(index)!)),
      surviving: numbersOf(Either.getOrThrow(surviving(told, protocol)))
    }
    for (const [view, numbers] of Object.entries(views)) {
      if (numbers.join() !== left.join()) {
        return `${truth}: ${told.map(shown).join(" ")} leaves ${left.join(" ")}, ${view} say ${numbers.join(" ")}`
      }
    }
  }
  return undefined
}

/** Throws where a step takes back what does not stand, or brings back what does. */
const carryOut = (standing: Set<number>, { broughtBack, takenBack }: Step): void => {
  for (const index of takenBack) {
    if (!standing.delete(index)) throw new Error(`${index} is taken back and did not stand`)
  }
  for (const index of broughtBack) {
    if (standing.has(index)) throw new Error(`${index} is brought back and did stand`)
    standing.add(index)
  }
}

const readAgain = (history: History): History => {
  const again = History.decode(history.encode())
  if (again._tag === "None") throw new Error(`${history.encode()} cannot be read`)
  return again.value
}

const shown = ({ index, skip, type }: Trace) =>
  `${type === "PUSH" ? "" : type.slice(0, 1)}${index}${skip > 0 ? `↶${skip}` : ""}`
