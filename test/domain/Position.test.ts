/** Positions: their bounds, their order, and the way back from a database. */
import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as Position from "../../src/domain/Position.js"

describe("a position", () => {
  it.each([-1n, Position.max + 1n, 2n ** 64n])("is not %s", (value) => {
    expect(() => Position.make(value)).toThrow(/Expected a bigint between/i)
  })

  it.each(["x", "1.5", "-1", "9223372036854775808"])("is not read from %j", (value) => {
    expect(() => Position.fromSql(value)).toThrow(/Cannot convert|Expected/)
  })

  it("starts at the origin and ends at the largest BIGINT", () => {
    expect(Position.origin).toBe(0n)
    expect(Position.make(Position.max)).toBe(2n ** 63n - 1n)
  })

  it("keeps every digit and its order on the way through a database's text", () => {
    const value = FastCheck.bigInt({ min: 0n, max: Position.max })
    FastCheck.assert(FastCheck.property(value, value, (a, b) => {
      const back = [Position.fromSql(String(a)), Position.fromSql(b)] as const
      expect(back).toEqual([a, b])
      expect(back[0] < back[1]).toBe(a < b)
    }))
  })
})
