/**
 * The FIFO: what an array would be, whatever comes and goes.
 */
import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { Fifo } from "../../src/ingest/Fifo.js"

/** So many come, and then so many go, as far as there are any. */
const steps = FastCheck.array(FastCheck.tuple(FastCheck.nat(1_500), FastCheck.nat(1_500)), { maxLength: 12 })

describe("a FIFO", () => {
  it.prop("holds what has come and not left, in order", { steps }, (given) => {
    const fifo = new Fifo<{ readonly n: number }>()
    const model: Array<{ readonly n: number }> = []
    let made = 0
    for (const [come, go] of given.steps) {
      for (let i = 0; i < come; i++) {
        const item = { n: made++ }
        fifo.push(item)
        model.push(item)
      }
      for (let i = 0; i < go && model.length > 0; i++) expect(fifo.shift()).toBe(model.shift())
      expect(fifo.length).toBe(model.length)
      expect(fifo.isEmpty).toBe(model.length === 0)
      expect(fifo.first).toBe(model[0])
      expect(fifo.from(0)).toEqual(model)
      const middle = model.length >> 1
      if (model.length > 0) expect(fifo.at(middle)).toBe(model[middle])
      expect(fifo.from(middle)).toEqual(model.slice(middle))
    }
  }, { fastCheck: { numRuns: 50 } })
})
