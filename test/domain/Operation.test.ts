/** What an operation may hold, and how text from outside is shown. */
import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as Schema from "effect/Schema"
import { depthMax, Index, indexMax, inputFlaw, quote, Skip, skipMax, Timestamp } from "../../src/domain/Operation.js"

const nested = (depth: number): unknown => JSON.parse("[".repeat(depth) + "]".repeat(depth))

describe("an input's flaw", () => {
  it.each<readonly [string, unknown, RegExp]>([
    ["NUL in text", "a\u0000", /NUL/],
    ["NUL in a key", JSON.parse("{\"a\\u0000\":1}"), /NUL/],
    ["NUL far down", { a: [{ b: "\u0000" }] }, /NUL/],
    ["a lone surrogate in text", { a: "\ud800" }, /lone surrogate/],
    ["a lone surrogate in a key", { "\udfff": 1 }, /lone surrogate/],
    ["a __proto__ key", JSON.parse("{\"__proto__\":{\"admin\":true}}"), /__proto__/],
    ["a __proto__ key far down", JSON.parse("[{\"a\":{\"__proto__\":1}}]"), /__proto__/],
    ["lists nested one level too deep", nested(depthMax + 1), /nests deeper than 64/],
    ["lists nested 100,000 deep", nested(100_000), /nests deeper than 64/]
  ])("is named: %s", (_, input, words) => expect(inputFlaw(input)).toMatch(words))

  it.each<readonly [string, unknown]>([
    ["nothing", undefined],
    ["null", null],
    ["the deepest that is allowed", nested(depthMax)],
    ["whole surrogate pairs and control characters in text", { a: "😀\n\t\u0007" }],
    ["keys that only look dangerous", { constructor: 1, prototype: 2, proto: 3 }]
  ])("is absent: %s", (_, input) => expect(inputFlaw(input)).toBeUndefined())
})

describe("an operation's fields", () => {
  it.each([-1, 1.5, indexMax + 1, NaN, Infinity, "0", null])(
    "an index is not %s",
    (n) => expect(Schema.is(Index)(n)).toBe(false)
  )
  it.each([-1, 0.1, skipMax + 1, "0"])("a skip is not %s", (n) => expect(Schema.is(Skip)(n)).toBe(false))
  it.each([
    "",
    "yesterday",
    "2026-11-21",
    "2026-11-21T17:27:02",
    "2026-11-21T17:27:02+01:00",
    "2026-13-01T00:00:00Z",
    "2026-02-29T00:00:00Z",
    "1900-02-29T00:00:00Z",
    "2026-04-31T00:00:00Z",
    "2026-11-21T25:00:00Z",
    "2026-11-21T17:27:02.0000000000Z",
    " 2026-11-21T17:27:02Z",
    1_795_284_586_573
  ])("a timestamp is not %j", (text) => expect(Schema.is(Timestamp)(text)).toBe(false))
  it.each(["2026-11-21T17:27:02.007Z", "2024-02-29T00:00:00Z", "2000-02-29T23:59:59Z", "2026-12-31T00:00:00Z"])(
    "a timestamp may be %j",
    (text) => expect(Schema.is(Timestamp)(text)).toBe(true)
  )
})

describe("quoted text", () => {
  it.each([
    ["an escape sequence", "\u001b[2J"],
    ["C1 controls", "\u009b2J"],
    ["DEL", "\u007f"],
    [
      "a change of direction",
      "\u202e"
    ],
    ["a line separator", "\u2028"],
    ["NUL", "\u0000"],
    ["a lone surrogate", "\ud800"]
  ])("escapes %s", (_, text) => expect(quote(text)).toMatch(/^"\\u[0-9a-f]{4}.*"$/))

  it("is printable and short, whatever is quoted", () => {
    FastCheck.assert(FastCheck.property(FastCheck.string16bits({ maxLength: 500 }), (text) => {
      const shown = quote(text)
      expect(shown.isWellFormed()).toBe(true)
      expect(shown).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028-\u202e]/)
      expect(shown.length).toBeLessThanOrEqual(201 * 6 + 2)
    }))
  })
})
