/** Envelopes of the three generations: what is refused, what is flawed, and what is read. */
import { describe, expect, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Schema from "effect/Schema"
import { readFileSync } from "node:fs"
import { gunzipSync } from "node:zlib"
import { indexMax, inputFlaw, Operation, skipMax } from "../../src/domain/Operation.js"
import { Strand } from "../../src/domain/Strand.js"
import * as Envelope from "../../src/ingest/Envelope.js"
import type { Unplaced } from "../../src/ingest/Source.js"

type Fields = Record<string, unknown>

const at = "2026-11-21T18:25:11.310Z"
const g1Operation = (fields: Fields = {}): Fields => ({
  hash: "OMyzIA6Shc4e6Zypmxkhg1arX80=",
  index: 3,
  timestamp: at,
  type: "ADD_FOLDER",
  input: { id: "f1" },
  skip: 0,
  id: "op-3",
  state: { nodes: [1] },
  previousState: { nodes: [] },
  ...fields
})
const strand = (operations: unknown, fields: Fields = {}): Fields => ({
  driveId: "drive-1",
  documentId: "doc-1",
  documentType: "acme/todo",
  scope: "global",
  branch: "main",
  operations,
  state: {},
  ...fields
})
const g2Operation = (fields: Fields = {}): Fields => {
  const { timestamp, ...rest } = g1Operation()
  return {
    ...rest,
    actionId: "action-3",
    timestampUtcMs: timestamp,
    action: { id: "action-3", type: "ADD_FOLDER", timestampUtcMs: timestamp, input: { id: "f1" }, scope: "global" },
    ...fields
  }
}
const g3 = (operation: Fields = {}, context: Fields = {}, action: Fields = {}): Fields => ({
  operation: {
    id: "op-3",
    index: 3,
    skip: 0,
    hash: "",
    timestampUtcMs: at,
    action: { id: "action-3", type: "ADD_FOLDER", timestampUtcMs: at, input: { id: "f1" }, scope: "global", ...action },
    ...operation
  },
  context: {
    documentId: "doc-1",
    documentType: "acme/todo",
    scope: "global",
    branch: "main",
    ordinal: 7,
    resultingState: "{}",
    ...context
  }
})
/** What the pull responder sends: no state, inputs as JSON text. */
const wire = (operations: ReadonlyArray<Fields>, fields: Fields = {}): Fields => {
  const { state: _, ...rest } = strand(
    operations.map((fieldsOfOne) => {
      const { action: _action, previousState: _previous, state: _state, ...sent } = g2Operation()
      return { ...sent, context: null, ...fieldsOfOne }
    }),
    fields
  )
  return rest
}

const refusal = (value: unknown): string => {
  const result = Envelope.decode(value)
  return Either.isLeft(result) ? result.left.message : expect.unreachable("was read")
}
const strands = (value: unknown, bytes?: number): ReadonlyArray<Unplaced> =>
  Either.getOrThrowWith(Envelope.decode(value, bytes), (error) => error)
const operation = (value: unknown): Operation => {
  const [first, ...others] = strands(value).flatMap((one) => one.operations)
  return first !== undefined && others.length === 0 ? first : expect.unreachable("not one operation")
}

describe("is refused, naming the field:", () => {
  it.each<readonly [string, unknown, string]>([
    ["null", null, "the value is null, neither a strand"],
    ["text", "x", "the value is \"x\", neither a strand"],
    ["an object of another kind", { hello: 1 }, "the value is an object, neither a strand"],
    ["a list in a list", [[g3()]], "[0] is a list, neither a strand"],
    ["operations that are no list", strand({}), "the value is an object, neither"],
    ["an operation without context", { operation: {} }, "the value is an object, neither"],
    ["no documentId", strand([], { documentId: undefined }), "documentId is missing"],
    [
      "an empty documentId without a drive",
      strand([], { documentId: "", driveId: null }),
      "documentId is \"\", not clean text of 1 to 512 characters: an empty id stands for the drive"
    ],
    ["a documentId that is a number", strand([], { documentId: 7 }), "documentId is 7, not clean text"],
    ["a documentId with NUL", strand([], { documentId: "a\u0000" }), "documentId is \"\"a\\u0000\"\", not clean text"],
    ["a documentId that is too long", strand([], { documentId: "a".repeat(513) }), "documentId is \"aaa"],
    [
      "a documentId that nests 100,000 deep",
      strand([], { documentId: JSON.parse("[".repeat(1e5) + "]".repeat(1e5)) }),
      "documentId is a list, not clean text"
    ],
    [
      "no documentType, as the older wire omits it",
      strand([], { documentType: undefined }),
      "documentType is missing: the pull responder of document-drive 4"
    ],
    ["a scope with a lone surrogate", strand([], { scope: "\ud800" }), "scope is"],
    ["no branch", strand([], { branch: null }), "branch is null, not clean text"],
    ["a driveId that is not text", strand([], { driveId: {} }), "driveId is an object, not clean text"],
    ["an operation that is no object", strand([g1Operation(), 7]), "operations[1] is 7, not an operation"],
    ["no index", strand([g1Operation({ index: undefined })]), "operations[0].index is missing"],
    [
      "an index that is text",
      strand([g1Operation({ index: "3" })]),
      "operations[0].index is \"3\", not a whole number from 0 to 2147483647"
    ],
    ["an index below 0", strand([g1Operation({ index: -1 })]), "operations[0].index is -1"],
    ["an index beyond 32 bits", strand([g1Operation({ index: indexMax + 1 })]), "operations[0].index is 2147483648"],
    [
      "an index that is no whole number",
      strand([g1Operation(), g1Operation({ index: 1.5 })]),
      "operations[1].index is 1.5"
    ],
    ["no skip", g3({ skip: undefined }), "operation.skip is missing"],
    [
      "a skip beyond its bound",
      [g3(), g3({ skip: skipMax + 1 })],
      "[1].operation.skip is 1000001, not a whole number from 0 to 1000000"
    ],
    ["a context without documentId", [g3({}, { documentId: undefined })], "[0].context.documentId is missing"],
    ["an empty documentId in a context", g3({}, { documentId: "" }), "context.documentId is \"\""],
    [
      "the second of two strands",
      [strand([]), strand([g1Operation({ index: null })])],
      "[1].operations[0].index is null"
    ]
  ])("%s", (_, value, words) => expect(refusal(value)).toContain(words))

  it("in words that are printable and short, whatever was sent", () => {
    FastCheck.assert(FastCheck.property(FastCheck.string16bits({ maxLength: 2000 }), (text) => {
      const words = refusal(strand([], { scope: `${text}\u0000` }))
      expect(words).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/)
      expect(words.length).toBeLessThan(1500)
    }))
  })
})

describe("is flawed and keeps its place and its input:", () => {
  it.each<readonly [string, Fields, string]>([
    ["a timestamp that is no instant", { timestamp: "yesterday" }, "timestamp is \"yesterday\", not an instant"],
    ["a timestamp that does not exist", { timestamp: "2026-13-01T00:00:00Z" }, "timestamp is"],
    ["a timestamp in milliseconds", { timestamp: 1_795_284_586_573 }, "timestamp is 1795284586573"],
    ["no timestamp", { timestamp: undefined }, "timestamp is missing"],
    ["no type", { type: undefined }, "type is missing"],
    ["an empty type", { type: "" }, "type is \"\", not clean text"],
    ["a type with a control character", { type: "ADD\u001b[2J" }, "type is \"\"ADD\\u001b[2J\"\", not clean text"],
    ["a hash that is not text", { hash: 42 }, "hash is 42, not text"],
    ["a hash with NUL", { hash: "\u0000" }, "hash is"],
    ["an id that is too long", { id: "i".repeat(513) }, "id is \"iii"],
    ["an id with a lone surrogate", { id: "\udead" }, "id is"],
    ["an error that is not text", { error: { message: "no" } }, "error is an object, not text"],
    ["two faults at once", { hash: null, type: 1 }, "type is 1, not clean text of 1 to 512 characters; hash is null"]
  ])("%s", (_, fields, words) => {
    const read = operation(strand([g1Operation(fields)]))
    expect(read.flaw).toContain(words)
    expect(read).toMatchObject({ index: 3, skip: 0, input: { id: "f1" } })
    expect(Schema.is(Operation)(read)).toBe(true)
  })

  it.each<readonly [string, string, string]>([
    ["NUL in text", "{\"a\":\"\\u0000\"}", "input holds a NUL character"],
    ["NUL in a key", "{\"\\u0000\":1}", "input holds a NUL character"],
    ["a lone surrogate", "{\"a\":\"\\ud800\"}", "input holds a lone surrogate"],
    ["a __proto__ key", "{\"__proto__\":{\"polluted\":true}}", "input has a __proto__ key"],
    ["nesting 100,000 deep", `${"[".repeat(1e5)}${"]".repeat(1e5)}`, "input nests deeper than 64 levels"]
  ])("an input with %s", (_, json, words) => {
    const input: unknown = JSON.parse(json)
    for (const value of [strand([g1Operation({ input })]), g3({}, {}, { input })]) {
      const read = operation(value)
      expect(read.flaw).toBe(words)
      expect(read.input === input).toBe(true)
    }
  })

  it("an input on top of a field: both are named", () => {
    expect(operation(strand([g1Operation({ type: 7, input: "\u0000" })])).flaw).toMatch(
      /^type is 7.*; input holds a NUL/
    )
  })

  it("an error that cannot be read is an error all the same", () => {
    expect(operation(g3({ error: 7 }))).toMatchObject({ error: "7", flaw: expect.stringContaining("error is 7") })
  })

  it("its neighbours are as they were", () => {
    const read = strands(strand([g1Operation(), g1Operation({ index: 4, type: null }), g1Operation({ index: 5 })]))
    expect(read[0]?.operations.map(({ flaw, index }) => [index, flaw === undefined])).toEqual([[3, true], [4, false], [
      5,
      true
    ]])
  })

  it("a flaw that was sent is no flaw", () => {
    expect(operation(strand([g1Operation({ flaw: "made up" })]))).not.toHaveProperty("flaw")
  })
})

describe("a __proto__ key", () => {
  const pollute = "\"__proto__\":{\"polluted\":true,\"operations\":[],\"skip\":9}"
  it("changes no prototype, wherever it stands", () => {
    const text = JSON.stringify(strand([g1Operation()])).replaceAll("{", `{${pollute},`).replaceAll(",}", "}")
    const [read] = strands(JSON.parse(text))
    const reached = [read, read?.operations, read?.operations[0]]
    expect(reached.map((value) => Object.getPrototypeOf(value))).toEqual([
      Object.prototype,
      Array.prototype,
      Object.prototype
    ])
    expect(reached.map((value) => Object.hasOwn(value ?? {}, "__proto__"))).toEqual([false, false, false])
    expect(Object.hasOwn(Object.prototype, "polluted")).toBe(false)
    expect(read?.operations[0]).toMatchObject({ skip: 0, flaw: "input has a __proto__ key" })
  })
  it("supplies no field that is missing", () => {
    expect(refusal(JSON.parse(`{${pollute}}`))).toContain("neither a strand")
  })
})

describe("is read:", () => {
  const sound = { id: "op-3", index: 3, skip: 0, type: "ADD_FOLDER", timestamp: at, input: { id: "f1" } }
  const hash = "OMyzIA6Shc4e6Zypmxkhg1arX80="
  const actionId = "action-3"
  const header = { documentId: "doc-1", documentType: "acme/todo", scope: "global", branch: "main" }

  it("a strand of G1, without its states", () => {
    expect(strands(strand([g1Operation()]), 100)).toEqual([
      { ...header, driveId: "drive-1", operations: [{ ...sound, hash }], protocol: 1, bytes: 100 }
    ])
  })
  it("a strand of G2, without its document", () => {
    expect(strands(strand([g2Operation()], { document: { header: {}, operations: {} } }), 100)).toEqual([
      { ...header, driveId: "drive-1", operations: [{ ...sound, hash, actionId }], protocol: 1, bytes: 100 }
    ])
  })
  it("an operation of G3, without its resulting state", () => {
    const read = strands(g3(), 100)
    expect(read).toEqual([
      { ...header, driveId: undefined, operations: [{ ...sound, hash: "", actionId }], protocol: 2, bytes: 100 }
    ])
    expect(read).toEqual(strands([g3()], 100))
  })
  it("what an action's author saw last and who signed it, and nothing else of its context", () => {
    const context = { prevOpIndex: 2, prevOpHash: "before", nonce: "n", signer: { signatures: [] } }
    const seen = { prevOpIndex: 2, prevOpHash: "before", signer: { signatures: [] } }
    expect(operation(g3({}, {}, { context }))).toEqual({ ...sound, hash: "", actionId, ...seen })
    expect(operation(strand([g1Operation({ context })]))).toEqual({ ...sound, hash, ...seen })
    expect(operation(g3({}, {}, { context: { prevOpIndex: -1, prevOpHash: "" } }))).toMatchObject({ prevOpIndex: -1 })
    const nothings = [null, "text", [1], {}, { prevOpIndex: null, prevOpHash: null }, { signer: "me" }, {
      signer: { user: "\u0000" }
    }]
    for (const nothing of nothings) {
      expect(operation(g3({}, {}, { context: nothing }))).toEqual({ ...sound, hash: "", actionId })
    }
    const flawed = operation(g3({}, {}, { context: { prevOpIndex: -2, prevOpHash: "\u0000" } }))
    expect(flawed).toEqual({
      ...sound,
      hash: "",
      actionId,
      flaw: `prevOpIndex is -2, not a whole number from -1 to ${indexMax}; ` +
        "prevOpHash is \"\"\\u0000\"\", not text of at most 512 characters, without NUL or lone surrogates"
    })
    expect(operation(g3({}, {}, { context: { prevOpIndex: 1.5, prevOpHash: "before" } }))).toMatchObject({
      prevOpHash: "before",
      flaw: `prevOpIndex is 1.5, not a whole number from -1 to ${indexMax}`
    })
  })
  it("a call of G3: neighbours of one stream are one strand, and share its bytes", () => {
    const read = strands([
      g3({ index: 1 }),
      g3({ index: 2 }),
      g3({ index: 1 }, { scope: "local" }),
      g3({ index: 1 }, { documentId: "doc-2" }),
      g3({ index: 3 }),
      g3({ index: 1 }, { branch: "draft" })
    ], 1001)
    expect(
      read.map(({ branch, documentId, operations, scope }) => [
        documentId,
        scope,
        branch,
        operations.map(({ index }) => index)
      ])
    )
      .toEqual([
        ["doc-1", "global", "main", [1, 2]],
        ["doc-1", "local", "main", [1]],
        ["doc-2", "global", "main", [1]],
        ["doc-1", "global", "main", [3]],
        ["doc-1", "global", "draft", [1]]
      ])
    expect(read.map(({ bytes }) => bytes)).toEqual([201, 201, 201, 201, 201])
  })
  it("a call of G1 or G2: each strand stays one", () => {
    expect(strands([strand([g1Operation()]), strand([g1Operation({ index: 4 })])])).toHaveLength(2)
  })
  it("a call without operations, and a strand without operations", () => {
    expect(strands([])).toEqual([])
    expect(strands(strand([]))).toMatchObject([{ documentId: "doc-1", operations: [] }])
  })
  it.each<readonly [string, unknown]>([
    ["error", g3({ error: "Task not found", deniedReason: "no" })],
    ["deniedReason", g3({ error: null, deniedReason: "Task not found" })]
  ])("what the reducer refused, from %s", (_, value) => expect(operation(value).error).toBe("Task not found"))
  it("null where the wire says that there is no error", () => {
    expect(operation(g3({ error: null, deniedReason: null }))).not.toHaveProperty("error")
  })
  it("a missing input as undefined, and null as null", () => {
    const { input: _, ...noop } = g1Operation({ type: "NOOP" })
    expect(operation(strand([noop])).input).toBeUndefined()
    expect(operation(strand([g1Operation({ input: null })])).input).toBeNull()
  })
  it("an empty documentId as the drive", () => {
    expect(strands(strand([], { documentId: "" }))).toMatchObject([{ documentId: "drive-1", driveId: "drive-1" }])
  })
  it("a drive that is not named, as none", () => {
    expect(strands(strand([], { driveId: null }))[0]?.driveId).toBeUndefined()
  })

  it("wire input as the value that its text stands for", () => {
    const read = strands(
      wire([{ input: "{\"name\":\"Hello\"}" }, { input: "\"Title\"", type: "SET_NAME" }, { input: undefined }])
    )
    expect(read[0]?.operations.map(({ input }) => input)).toEqual([{ name: "Hello" }, "Title", undefined])
  })
  it("text as text, in process, where SET_NAME sends it", () => {
    expect(operation(strand([g1Operation({ type: "SET_NAME", input: "{\"a\":1}" })])).input).toBe("{\"a\":1}")
    expect(operation(g3({}, {}, { type: "SET_NAME", input: "7" })).input).toBe("7")
  })
  it("text as text in a strand without state, beside an input that is no text", () => {
    expect(strands(wire([{ input: "7" }, { input: { a: 1 } }]))[0]?.operations.map(({ input }) => input)).toEqual([
      "7",
      { a: 1 }
    ])
  })
  it.each([["not JSON", "{", "input is text that is not JSON"], [
    "hostile JSON",
    "{\"__proto__\":1}",
    "input has a __proto__ key"
  ]])(
    "wire input that is %s as the text that was sent, with a flaw",
    (_, input, flaw) => expect(operation(wire([{ input }]))).toMatchObject({ input, flaw })
  )

  it("everything that is read satisfies the Schemas of the domain, whatever was sent", () => {
    const hostile = FastCheck.oneof(
      { weight: 4, arbitrary: FastCheck.constantFrom(undefined, at, "ADD", 0, 3, null) },
      FastCheck.string16bits(),
      FastCheck.jsonValue(),
      FastCheck.dictionary(FastCheck.constantFrom("prevOpIndex", "prevOpHash"), FastCheck.jsonValue({ maxDepth: 0 })),
      FastCheck.double()
    )
    const fields = FastCheck.dictionary(
      FastCheck.constantFrom(
        "id",
        "type",
        "timestamp",
        "timestampUtcMs",
        "hash",
        "input",
        "error",
        "deniedReason",
        "context",
        "action"
      ),
      hostile
    )
    const isStrand = Schema.is(Strand.omit("position"))
    FastCheck.assert(
      FastCheck.property(fields, fields, (a, b) => {
        for (const value of [strand([g1Operation(a)]), strand([g2Operation(b)]), g3(a, {}, b), wire([a, b])]) {
          expect(strands(value).every(isStrand)).toBe(true)
        }
      }),
      { numRuns: 500 }
    )
  })

  it("what a flaw spares, the Schema accepts; what it names, the Schema refuses", () => {
    const candidate = FastCheck.record({
      id: FastCheck.oneof(FastCheck.string(), FastCheck.string16bits(), FastCheck.constant(7)),
      type: FastCheck.oneof(FastCheck.string(), FastCheck.string16bits(), FastCheck.constantFrom("ADD", "")),
      timestamp: FastCheck.oneof(
        FastCheck.date({ noInvalidDate: true, min: new Date(0), max: new Date(4e12) }).map((date) =>
          date.toISOString()
        ),
        FastCheck.constantFrom("2026-02-31T00:00:00Z", "2026-11-30T23:59:60Z", "2026-11-31T00:00:00Z")
      ),
      hash: FastCheck.oneof(FastCheck.string16bits(), FastCheck.constant(""))
    })
    FastCheck.assert(
      FastCheck.property(candidate, (sent) => {
        const isSound = Schema.is(Operation)({ ...sent, index: 0, skip: 0, input: null })
        expect(operation(strand([g1Operation({ ...sent, input: null })])).flaw === undefined).toBe(isSound)
      }),
      { numRuns: 1000 }
    )
  })

  it("what is read of recorded envelopes satisfies the Schemas, whatever is put into any of their fields", () => {
    const recorded = ["g1-strands", "g2-strands", "g3-operations"].flatMap((name) =>
      gunzipSync(readFileSync(new URL(`../../examples/data/${name}.ndjson.gz`, import.meta.url)))
        .toString("utf8").trim().split("\n").slice(0, 40)
    )
    const hostile = FastCheck.oneof(
      FastCheck.constantFrom(
        undefined,
        null,
        "",
        "main",
        at,
        "2026-02-30T00:00:00Z",
        -1,
        0.5,
        2 ** 31,
        [],
        {},
        "\u0000"
      ),
      FastCheck.string16bits(),
      FastCheck.jsonValue()
    )
    const isStrand = Schema.is(Strand.omit("position"))
    const isSound = Schema.is(Operation.omit("flaw"))
    FastCheck.assert(
      FastCheck.property(FastCheck.constantFrom(...recorded), FastCheck.nat(), hostile, (line, choice, other) => {
        const value: unknown = JSON.parse(line)
        const places = placesOf(value)
        const [holder, key] = places[choice % places.length]!
        holder[key] = other
        const found = Either.getOrElse(Envelope.decode(value), () => [])
        expect(found.every(isStrand)).toBe(true)
        const unsound = found.flatMap(({ operations }) => operations).filter(({ flaw, ...rest }) =>
          !isSound(rest) || (flaw === undefined && inputFlaw(rest.input) !== undefined)
        )
        expect(unsound).toEqual([])
      }),
      { numRuns: 2_000 }
    )
  })
})

/** Every field that an envelope has down to its operations' own, as its holder and its name. */
const placesOf = (value: unknown, depth = 0): ReadonlyArray<readonly [Fields, string]> =>
  typeof value !== "object" || value === null || depth > 3
    ? []
    : Object.entries(value).flatMap(([key, inner]) => [
      [value as Fields, key] as const,
      ...placesOf(inner, depth + 1)
    ])
