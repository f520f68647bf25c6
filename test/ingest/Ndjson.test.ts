/** NDJSON files: how they fail, what is delivered before they do, and how they are read and resumed. */
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { PassThrough, Readable } from "node:stream"
import { fileURLToPath } from "node:url"
import * as zlib from "node:zlib"
import * as Position from "../../src/domain/Position.js"
import type { Strand } from "../../src/domain/Strand.js"
import * as Ndjson from "../../src/ingest/Ndjson.js"
import * as Source from "../../src/ingest/Source.js"

const temporary = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "ndjson-test-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true }))
)

type Contents = string | Buffer
const gzip = (contents: Contents): Buffer => zlib.gzipSync(contents)

/** Writes `0.ndjson`, `1.ndjson`, … and returns their paths. */
const write = (...contents: ReadonlyArray<Contents>) =>
  Effect.map(temporary, (directory) =>
    contents.map((content, i) => {
      const file = path.join(directory, `${i}.ndjson`)
      fs.writeFileSync(file, content)
      return file
    }))

const operation = (index: number, input: unknown = { n: index }) => ({
  id: `op-${index}`,
  index,
  skip: 0,
  type: "ADD",
  timestamp: "2026-11-21T18:25:11.310Z",
  hash: "",
  input
})
const line = (id: number | string, indexes: ReadonlyArray<number> = [0]): string =>
  JSON.stringify({
    driveId: "drive",
    documentId: `doc-${id}`,
    documentType: "acme/todo",
    scope: "global",
    branch: "main",
    operations: indexes.map((index) => operation(index)),
    state: {}
  })
/** One line of G3 that holds a strand for each id. */
const call = (...ids: ReadonlyArray<number | string>): string =>
  JSON.stringify(ids.map((id) => ({
    operation: { ...operation(0), timestampUtcMs: "2026-11-21T18:25:11.310Z", action: { type: "ADD", input: {} } },
    context: { documentId: `doc-${id}`, documentType: "acme/todo", scope: "global", branch: "main" }
  })))
const manyLines = (from: number, to: number): string =>
  Array.from({ length: to - from + 1 }, (_, i) => `${line(from + i)}\n`).join("")

type Settings = Partial<Omit<Ndjson.Options, "files">>

/** Everything that is delivered, and how it ends. */
const read = (files: ReadonlyArray<string>, settings: Settings = {}, after: Position.Position = Position.origin) =>
  Effect.gen(function*() {
    const source = yield* Ndjson.make({ name: "test", files, ...settings })
    const strands: Array<Strand> = []
    const end = yield* source.strands(after).pipe(
      Stream.runForEach((strand) => Effect.sync(() => strands.push(strand))),
      Effect.flip,
      Effect.option
    )
    return { strands, ids: strands.map(({ documentId }) => documentId.slice(4)), error: Option.getOrUndefined(end) }
  })

/** One turn of the event loop. */
const turn = Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))

const words = (error: Source.SourceError | undefined): string =>
  error === undefined ? "" : `${error._tag}: ${error.message}`

const openFiles = (directory: string): ReadonlyArray<string> =>
  fs.readdirSync("/proc/self/fd").flatMap((fd) => {
    const target = fs.existsSync(`/proc/self/fd/${fd}`) ? fs.readlinkSync(`/proc/self/fd/${fd}`) : ""
    return target.startsWith(directory) ? [target] : []
  })

describe("options are refused:", () => {
  it.effect.each<readonly [string, Partial<Ndjson.Options>, string]>([
    ["no files", { files: [] }, "files: there are none"],
    [
      "more files than a position tells apart",
      { files: Array.from({ length: 1025 }, () => "x") },
      "files: there are 1025, more than the 1024"
    ],
    ["a line limit of 0", { lineBytesMax: 0 }, "lineBytesMax: 0 is not a whole number"],
    ["a line limit that no text can reach", { lineBytesMax: 2 ** 40 }, "lineBytesMax: 1099511627776 is not"],
    ["a block of 1.5 bytes", { blockBytes: 1.5 }, "blockBytes: 1.5 is not"]
  ])("%s", ([, options, reason]) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Ndjson.make({ name: "test", files: ["x"], ...options }))
      expect(words(error)).toContain(`MalformedSource: source test, ${reason}`)
    }))
})

describe("a file that cannot be opened", () => {
  it.scoped("is missing: the strands of the files before it come first", () =>
    Effect.gen(function*() {
      const [first = ""] = yield* write(manyLines(1, 2))
      const { error, ids } = yield* read([first, `${first}.gone`])
      expect(ids).toEqual(["1", "2"])
      expect(words(error)).toMatch(/^SourceUnavailable: .*0\.ndjson\.gone: there is no such file: check the path/)
    }))

  it.scoped("is a directory", () =>
    Effect.gen(function*() {
      const { error } = yield* read([yield* temporary])
      expect(words(error)).toMatch(/^SourceUnavailable: .*it is a directory: name the files in it/)
    }))

  it.scoped("is a pipe: opening it does not wait for a writer", () =>
    Effect.gen(function*() {
      const pipe = path.join(yield* temporary, "pipe")
      execFileSync("mkfifo", [pipe])
      const { error } = yield* read([pipe])
      expect(words(error)).toMatch(/^SourceUnavailable: .*not a regular file.*Ndjson\.spool/)
    }))

  it.scoped("is not ours to read", () =>
    Effect.gen(function*() {
      const [file = ""] = yield* write(manyLines(1, 1))
      fs.chmodSync(file, 0o000)
      const asNobody = process.getuid?.() === 0
      const { error } = yield* Effect.acquireUseRelease(
        Effect.sync(() => asNobody && process.seteuid?.(65_534)),
        () => read([file]),
        () => Effect.sync(() => asNobody && process.seteuid?.(0))
      )
      expect(words(error)).toMatch(/^SourceUnavailable: .*permission denied: let this process's user read/)
    }))

  it.scoped("has a name that no file can have", () =>
    Effect.gen(function*() {
      const { error } = yield* read(["a\u0000b"])
      expect(words(error)).toMatch(/^SourceUnavailable: source test is not available: "a\\u0000b": reading failed/)
    }))
})

describe("a line is refused with its file and number, after the strands before it:", () => {
  const refused = (bad: Contents, expected: RegExp, settings: Settings = {}) =>
    Effect.gen(function*() {
      const whole = Buffer.concat([manyLines(1, 2), "\n", bad, `\n${line(9)}\n`].map((part) => Buffer.from(part)))
      const outcomes = yield* Effect.forEach([whole, gzip(whole)], (contents) =>
        Effect.gen(function*() {
          const [file = ""] = yield* write(contents)
          const { error, ids } = yield* read([file], settings)
          expect(ids).toEqual(["1", "2"])
          expect(error?._tag).toBe("MalformedSource")
          expect(words(error)).toMatch(/0\.ndjson, line 4: /)
          return words(error)
        }))
      for (const outcome of outcomes) expect(outcome).toMatch(expected)
    })

  it.scoped("JSON that breaks off", () =>
    refused("{\"driveId\": ", /not JSON: Unexpected end of JSON input, column 13, near \{"driveId": $/))
  it.scoped("JSON with a fault that the parser places", () =>
    refused("{\"a\": 1 \"b\": 2}", /not JSON: Expected ',' or '}'.*, column 9, near \{"a": 1 "b": 2\}/))
  it.scoped("what is no JSON at all, shown so that a terminal does not obey it", () =>
    refused("\u001b[2J\u009b hello", /not JSON: "Unexpected token '\\u001b'/))
  it.scoped("JSON that is no envelope", () => refused("{\"hello\":1}", /the value is an object, neither a strand/))
  it.scoped("an operation without its place", () =>
    refused(line(3).replace("\"index\":0", "\"index\":\"0\""), /operations\[0\]\.index is "0", not a whole number/))
  it.scoped("bytes that are not UTF-8", () => refused(Buffer.from(line("é"), "latin1"), /the line is not UTF-8/))
  it.scoped("a surrogate in bytes", () =>
    refused(
      Buffer.concat([Buffer.from("\""), Buffer.from([0xed, 0xa0, 0x80]), Buffer.from("\"")]),
      /the line is not UTF-8/
    ))
  it.scoped("a line over the limit, in a block", () =>
    refused(line("x".repeat(300)), /too long: \d+ bytes so far, at most 400 are read \(lineBytesMax\)/, {
      lineBytesMax: 400
    }))
  it.scoped("a line over the limit, over many blocks", () =>
    refused(line("x".repeat(300)), /too long: \d+ bytes so far, at most 400/, { lineBytesMax: 400, blockBytes: 7 }))
  it.scoped("a byte order mark anywhere but at the start", () => refused(`\ufeff${line(3)}`, /not JSON/))

  it.scoped("a line of 100 MB, before it is held or parsed", () =>
    Effect.gen(function*() {
      const part = Buffer.alloc(2 ** 20, "x")
      const directory = yield* temporary
      const file = path.join(directory, "long.ndjson")
      fs.writeFileSync(file, manyLines(1, 2))
      for (let i = 0; i < 100; i++) fs.appendFileSync(file, part)
      const packed = path.join(directory, "long.gz")
      fs.writeFileSync(packed, gzip(fs.readFileSync(file)))
      for (const name of [file, packed]) {
        const { error, ids } = yield* read([name])
        expect(ids).toEqual(["1", "2"])
        const bytes = Number(/(\d+) bytes so far, at most 16777216/.exec(words(error))?.[1])
        expect(bytes).toBeGreaterThan(16_777_216)
        expect(bytes).toBeLessThan(100_000_000)
      }
    }))

  it.scoped("a value that nests 100,000 deep", () =>
    refused("[".repeat(1e5) + "]".repeat(1e5), /\[0\] is a list, neither/))

  it.scoped("but not for an input that nests 100,000 deep: that operation is flawed", () =>
    Effect.gen(function*() {
      const deep = line(3).replace("{\"n\":0}", "[".repeat(1e5) + "]".repeat(1e5))
      const [file = ""] = yield* write(`${deep}\n${line(4)}\n`)
      const { error, strands } = yield* read([file])
      expect(error).toBeUndefined()
      expect(strands.map(({ operations }) => operations[0]?.flaw)).toEqual([
        "input nests deeper than 64 levels",
        undefined
      ])
    }))
})

describe("gzip that is broken", () => {
  const packed = gzip(manyLines(1, 500))

  it.scoped("cut off: every line that can be unpacked is delivered, then the source is not available", () =>
    Effect.gen(function*() {
      for (const blockBytes of [65_536, 50, 1]) {
        const [file = ""] = yield* write(packed.subarray(0, packed.length - 100))
        const unpacked = zlib.gunzipSync(packed.subarray(0, packed.length - 100), {
          finishFlush: zlib.constants.Z_SYNC_FLUSH
        })
        const complete = unpacked.toString().split("\n").length - 1
        const { error, ids } = yield* read([file], { blockBytes })
        expect(complete).toBeGreaterThan(100)
        expect(ids).toEqual(Array.from({ length: complete }, (_, i) => String(i + 1)))
        expect(words(error)).toMatch(
          new RegExp(
            `^SourceUnavailable: .*0\\.ndjson after line ${complete}: its gzip data end too early: wait if the file is still`
          )
        )
      }
    }))

  it.scoped("cut off after its header", () =>
    Effect.gen(function*() {
      const [file = ""] = yield* write(packed.subarray(0, 10))
      expect(words((yield* read([file])).error)).toMatch(/^SourceUnavailable: .*0\.ndjson: its gzip data end too early/)
    }))

  it.scoped("a checksum that does not hold: refused, after the lines of the blocks before", () =>
    Effect.gen(function*() {
      const bad = Buffer.from(packed)
      bad.writeUInt32LE(0, bad.length - 8)
      const [file = ""] = yield* write(bad)
      const { error, ids } = yield* read([file], { blockBytes: 1 })
      expect(ids).toEqual(Array.from({ length: 500 }, (_, i) => String(i + 1)))
      expect(words(error)).toMatch(
        /^MalformedSource: .*line 501: its gzip data are damaged \(incorrect data check\): copy it again/
      )
      expect(words((yield* read([file])).error)).toMatch(/^MalformedSource: .*incorrect data check/)
    }))

  it.scoped("damaged in the middle: refused, and nothing after the damage is delivered", () =>
    Effect.gen(function*() {
      const bad = Buffer.from(packed)
      bad.fill(0xff, 300, 330)
      const [file = ""] = yield* write(bad)
      const { error, ids } = yield* read([file], { blockBytes: 64 })
      expect(error).toBeDefined()
      expect(ids).toEqual(ids.map((_, i) => String(i + 1)))
      expect(ids.length).toBeLessThan(500)
    }))

  it.scoped("followed by plain lines or padding: refused, for they would be lost", () =>
    Effect.gen(function*() {
      for (const tail of [Buffer.from(manyLines(501, 502)), Buffer.alloc(512)]) {
        const [file = ""] = yield* write(Buffer.concat([packed, tail]))
        const { error } = yield* read([file])
        expect(words(error)).toMatch(/^MalformedSource: .*gzip data are (damaged|followed by something else)/)
      }
    }))
})

describe("is read:", () => {
  it.scoped("an empty file, a file of blank lines, and gzip of nothing", () =>
    Effect.gen(function*() {
      const files = yield* write("", "\n\r\n  \t\n", gzip(""), "\ufeff")
      expect(yield* read(files)).toEqual({ strands: [], ids: [], error: undefined })
    }))

  it.scoped("a byte order mark at the start, CRLF, blank lines and no newline at the end", () =>
    Effect.gen(function*() {
      const text = `\ufeff${line(1)}\r\n\r\n \n${line("é 文 😀")}\r\n${line(3)}`
      for (const blockBytes of [1, 2, 3, 5, 1000]) {
        const { error, ids, strands } = yield* read(yield* write(text, gzip(text)), { blockBytes })
        expect(error).toBeUndefined()
        expect(ids).toEqual(["1", "é 文 😀", "3", "1", "é 文 😀", "3"])
        expect(strands.map(({ position }) => Ndjson.placeOf(position))).toEqual(
          [[0, 1], [0, 4], [0, 5], [1, 1], [1, 4], [1, 5]].map(([file, row]) => ({ file, line: row, strand: 0 }))
        )
      }
    }))

  it.scoped("gzip of several members, told by its magic bytes and not its name", () =>
    Effect.gen(function*() {
      const members = Buffer.concat([gzip(manyLines(1, 3)), gzip(manyLines(4, 5)), gzip(""), gzip(manyLines(6, 6))])
      for (const blockBytes of [1, 100, 65_536]) {
        expect((yield* read(yield* write(members), { blockBytes })).ids).toEqual(["1", "2", "3", "4", "5", "6"])
      }
    }))

  it.scoped("a line exactly as long as the limit", () =>
    Effect.gen(function*() {
      const [file = ""] = yield* write(`${line(1)}\n`)
      expect((yield* read([file], { lineBytesMax: line(1).length })).ids).toEqual(["1"])
    }))

  it.scoped("several strands of a line, sharing its bytes", () =>
    Effect.gen(function*() {
      const text = call(1, 2, 3)
      const { strands } = yield* read(yield* write(`${text}\n`))
      expect(strands.map(({ bytes }) => bytes)).toEqual([1, 2, 3].map(() => Math.ceil(text.length / 3)))
      expect(strands.map(({ position }) => Ndjson.placeOf(position).strand)).toEqual([0, 1, 2])
    }))

  it.scoped("all the strands of a block as one chunk", () =>
    Effect.gen(function*() {
      const source = yield* Ndjson.make({
        name: "test",
        files: yield* write(manyLines(1, 50), gzip(manyLines(51, 90)))
      })
      const chunks = yield* Stream.runCollect(Stream.chunks(source.strands(Position.origin)))
      expect(Chunk.toReadonlyArray(chunks).map(Chunk.size)).toEqual([50, 40])
    }))

  it.scoped("the same by two readers at once", () =>
    Effect.gen(function*() {
      const source = yield* Ndjson.make({
        name: "test",
        files: yield* write(manyLines(1, 50), gzip(manyLines(51, 90))),
        blockBytes: 100
      })
      const [a, b] = yield* Effect.all([1, 2].map(() => Stream.runCollect(source.strands(Position.origin))), {
        concurrency: 2
      })
      expect(a).toEqual(b)
    }))

  it.scoped("its head is known once it has been read to the end", () =>
    Effect.gen(function*() {
      const source = yield* Ndjson.make({ name: "test", files: yield* write(manyLines(1, 3), "") })
      yield* Stream.runDrain(Stream.take(source.strands(Position.origin), 1))
      expect(yield* source.head).toEqual(Option.none())
      yield* Stream.runDrain(source.strands(Position.origin))
      const last = Ndjson.positionOf({ file: 0, line: 3, strand: 0 })
      expect(yield* source.head).toEqual(Option.some(last))
      yield* Stream.runDrain(source.strands(last))
      expect(yield* source.head).toEqual(Option.some(last))
    }))
})

const examples = fileURLToPath(new URL("../../examples/data/", import.meta.url))

describe.each([
  ["g1-strands.ndjson.gz", 222, 686, 26],
  ["g2-strands.ndjson.gz", 239, 523, 50],
  ["g3-operations.ndjson.gz", 191, 560, 40],
  ["g3-reshuffle.ndjson.gz", 8, 13, 2]
])("the recording %s", (file, strandCount, operationCount, documentCount) => {
  interface Recorded {
    readonly documentId: string
    readonly operations: ReadonlyArray<{ readonly index: number; readonly id: string }>
  }
  type Line =
    | Recorded
    | ReadonlyArray<{
      readonly operation: Recorded["operations"][number]
      readonly context: { readonly documentId: string }
    }>
  // Every recorded call of G3 is of one stream, so a line is a strand in all four.
  const recorded = zlib.gunzipSync(fs.readFileSync(path.join(examples, file))).toString().trimEnd().split("\n")
    .map((text): Line => JSON.parse(text))
    .map((value): Recorded =>
      "documentId" in value
        ? value
        : { documentId: value[0]?.context.documentId ?? "", operations: value.map((one) => one.operation) }
    )
  const operationsOf = (strands: ReadonlyArray<Recorded>) =>
    strands.flatMap(({ documentId, operations }) => operations.map(({ id, index }) => [documentId, index, id]))

  it.effect("has the strands, operations and documents that plain JSON.parse counts, in order and without flaw", () =>
    Effect.gen(function*() {
      const { error, strands } = yield* read([path.join(examples, file)])
      expect(error).toBeUndefined()
      expect(strands.map(({ documentId }) => documentId)).toEqual(recorded.map(({ documentId }) => documentId))
      expect(operationsOf(strands)).toEqual(operationsOf(recorded))
      expect([strands.length, operationsOf(strands).length, new Set(strands.map(({ documentId }) => documentId)).size])
        .toEqual([strandCount, operationCount, documentCount])
      expect(strands.flatMap(({ operations }) => operations).filter(({ flaw }) => flaw !== undefined)).toEqual([])
    }))
})

describe("resuming", () => {
  const content = FastCheck.array(
    FastCheck.oneof(
      FastCheck.constantFrom("", "  ", "[]"),
      FastCheck.array(FastCheck.nat(9), { minLength: 1, maxLength: 4 }).map((ids) => call(...ids)),
      FastCheck.tuple(FastCheck.nat(9), FastCheck.array(FastCheck.nat(5), { maxLength: 3 })).map(([id, ops]) =>
        line(id, ops)
      )
    ),
    { maxLength: 8 }
  )
  const contents = FastCheck.record({
    rows: content,
    newline: FastCheck.constantFrom("\n", "\r\n"),
    packed: FastCheck.boolean(),
    ended: FastCheck.boolean()
  }).map(({ ended, newline, packed, rows }) => {
    const text = rows.join(newline) + (ended ? newline : "")
    return packed ? gzip(text) : Buffer.from(text)
  })
  const input = FastCheck.record({
    files: FastCheck.array(contents, { minLength: 1, maxLength: 4 }),
    blockBytes: FastCheck.oneof(FastCheck.integer({ min: 1, max: 40 }), FastCheck.integer({ min: 41, max: 5000 }))
  })

  it(
    "from every position yields exactly the remainder, positions ascending, whatever the block size",
    () =>
      FastCheck.assert(
        FastCheck.asyncProperty(input, ({ blockBytes, files }) =>
          Effect.gen(function*() {
            const paths = yield* write(...files)
            const all = yield* read(paths, { blockBytes })
            expect(all.error).toBeUndefined()
            expect((yield* read(paths)).strands).toEqual(all.strands)
            const positions = [Position.origin, ...all.strands.map(({ position }) => position)]
            for (const [i, after] of positions.entries()) {
              if (i > 0) expect(after > (positions[i - 1] ?? after)).toBe(true)
              expect((yield* read(paths, { blockBytes }, after)).strands).toEqual(all.strands.slice(i))
            }
          }).pipe(Effect.scoped, Effect.runPromise)),
        { numRuns: 40 }
      )
  )

  it.scoped("does not parse the lines before, nor open the files before", () =>
    Effect.gen(function*() {
      const [second = ""] = yield* write(`not JSON\n${"x".repeat(5000)}\n${line(3)}\n${line(4)}\n`)
      const after = Ndjson.positionOf({ file: 1, line: 3, strand: 0 })
      const { error, ids } = yield* read([`${second}.gone`, second], { lineBytesMax: 1000, blockBytes: 100 }, after)
      expect([ids, error]).toEqual([["4"], undefined])
    }))

  it.scoped("after a file that is not named any more fails", () =>
    Effect.gen(function*() {
      const after = Ndjson.positionOf({ file: 7, line: 1, strand: 0 })
      const { error, ids } = yield* read(yield* write(manyLines(1, 3)), {}, after)
      expect(ids).toEqual([])
      expect(words(error)).toBe(
        `SourceShortened: source test ends before position ${after}, to which it was read: it was read to line 1 of ` +
          "file 8, and has 1: name all the files that it had, in their order"
      )
    }))
})

describe("a file that was read to line 3", () => {
  const after = Ndjson.positionOf({ file: 0, line: 3, strand: 0 })
  const whole = manyLines(1, 3)
  const packedApart = Buffer.concat([gzip(manyLines(1, 2)), gzip(line(3))])

  describe.each([["in one block", 1 << 18], ["in blocks of 7 bytes", 7]])("%s", (_, blockBytes) => {
    it.scoped.each<readonly [string, ReadonlyArray<Contents>, ReadonlyArray<string>]>([
      ["has the length that it had", [whole], []],
      ["has lost the end of its last line", [whole.slice(0, -1)], []],
      ["has grown", [whole + line(4)], ["4"]],
      ["has grown by a line that is empty", [`${whole}\n\n`], []],
      ["is packed now", [gzip(whole)], []],
      ["is packed in two parts", [packedApart], []],
      ["is followed by one that is empty", [whole, ""], []],
      ["is followed by another", [whole, manyLines(4, 5)], ["4", "5"]]
    ])("and %s is read on", ([, files, expected]) =>
      Effect.gen(function*() {
        const { error, ids } = yield* read(yield* write(...files), { blockBytes }, after)
        expect([ids, error]).toEqual([expected, undefined])
      }))

    it.scoped.each<readonly [string, ReadonlyArray<Contents>, "before" | "in"]>([
      ["is empty", [""], "before"],
      ["has no line 3", [manyLines(1, 2)], "before"],
      ["has no line 3, and is followed by another", [manyLines(1, 2), manyLines(1, 9)], "before"],
      ["ends with line 2 half way", [whole.slice(0, line(1).length + 9)], "before"],
      ["ends with line 3 half way", [whole.slice(0, -5)], "in"],
      ["is packed, and has no line 3", [gzip(manyLines(1, 2))], "before"],
      ["has lost the last part of its gzip data", [packedApart.subarray(0, gzip(manyLines(1, 2)).length)], "before"]
    ])("and %s fails, explained", ([, files, where]) =>
      Effect.gen(function*() {
        const paths = yield* write(...files)
        const { error, ids } = yield* read(paths, { blockBytes }, after)
        expect(ids).toEqual([])
        expect(words(error)).toBe(
          `SourceShortened: source test ends before position ${after}, to which it was read: ${paths[0]} ends ` +
            `${where} line 3, so that it was cut off, or is another file: put back what was read, or give the source ` +
            "another name and begin with empty tables"
        )
      }))
  })

  it.scoped("is empty and was never read: that is no failure", () =>
    Effect.gen(function*() {
      const { error, ids } = yield* read(yield* write(""))
      expect([ids, error]).toEqual([[], undefined])
    }))

  it.scoped("does not say that it has a head", () =>
    Effect.gen(function*() {
      const source = yield* Ndjson.make({ name: "test", files: yield* write(manyLines(1, 2)) })
      yield* Effect.flip(Stream.runDrain(source.strands(after)))
      expect(yield* source.head).toEqual(Option.none())
    }))
})

describe("a file that becomes shorter while it is read", () => {
  const kept = 20
  it.scoped.each<readonly [string, (contents: string) => Contents]>([
    ["plain", (contents) => contents],
    ["gzip", (contents) => gzip(contents)]
  ])("(%s) says so after what was read of it, and is not taken for the whole", ([, pack]) =>
    Effect.gen(function*() {
      const all = Array.from({ length: 2_000 }, (_, i) => `${line(i + 1, [i % 7])}\n`)
      const cut = all.slice(0, kept).join("")
      const [file = ""] = yield* write(pack(all.join("")))
      const source = yield* Ndjson.make({ name: "test", files: [file], blockBytes: 1_000 })
      const ids: Array<string> = []
      const failure = yield* Effect.flip(Stream.runForEach(source.strands(Position.origin), ({ documentId }) =>
        Effect.sync(() => {
          ids.push(documentId.slice(4))
          if (ids.length === 1) fs.truncateSync(file, pack(cut).length)
        })))
      expect(ids.length).toBeLessThan(all.length)
      expect(ids).toEqual(ids.map((_, i) =>
        `${i + 1}`
      ))
      expect(words(failure)).toMatch(
        /^SourceUnavailable: .*: it had \d+ bytes when it was opened and ends after \d+: it was cut off, or is being/
      )
      expect(yield* source.head).toEqual(Option.none())
    }))
})

describe("how far two places are apart", () => {
  const at = (file: number, number: number, strand = 0) => Ndjson.positionOf({ file, line: number, strand })

  it.scoped("is told in lines, or in strands of one line, and across files once those between were read", () =>
    Effect.gen(function*() {
      const files = yield* write(manyLines(1, 5), manyLines(6, 8), call(9, 10, 11))
      const source = yield* Ndjson.make({ name: "test", files })
      const distance = (from: Position.Position, to: Position.Position) => Source.distance(source, from, to)
      expect(distance(Position.origin, at(0, 4))).toBe(4)
      expect(distance(at(0, 2), at(0, 5))).toBe(3)
      expect(distance(at(2, 1), at(2, 1, 2))).toBe(2)
      expect(distance(at(0, 4), at(2, 1))).toBe(Infinity)
      yield* Stream.runDrain(source.strands(at(1, 2)))
      expect(distance(at(1, 2), at(2, 1))).toBeLessThanOrEqual(3)
      expect(distance(at(0, 4), at(2, 1))).toBe(Infinity)
      yield* Stream.runDrain(source.strands(Position.origin))
      expect(distance(at(0, 4), at(2, 1))).toBeGreaterThanOrEqual(5)
      expect(distance(at(0, 4), at(2, 1))).toBeLessThanOrEqual(7)
    }))
})

describe("a position", () => {
  const place = FastCheck.record({
    file: FastCheck.nat(Ndjson.filesMax - 1),
    line: FastCheck.integer({ min: 1, max: Ndjson.linesMax }),
    strand: FastCheck.nat(Ndjson.strandsPerLineMax - 1)
  })
  it("reaches the largest BIGINT at the largest place, and nothing beyond it", () => {
    const largest = { file: Ndjson.filesMax - 1, line: Ndjson.linesMax, strand: Ndjson.strandsPerLineMax - 1 }
    expect(Ndjson.positionOf(largest)).toBe(Position.max)
    expect(() => Ndjson.positionOf({ ...largest, file: Ndjson.filesMax })).toThrow(/bigint/)
  })
  it("is above the origin, returns its place, and is ordered as places are", () => {
    FastCheck.assert(FastCheck.property(place, place, (a, b) => {
      const position = Ndjson.positionOf(a)
      expect(position > Position.origin).toBe(true)
      expect(Ndjson.placeOf(position)).toEqual(a)
      const difference = a.file - b.file || a.line - b.line || a.strand - b.strand
      expect(position < Ndjson.positionOf(b)).toBe(difference < 0)
    }))
  })
  it.scoped("does not reach beyond its strands in a line: refused", () =>
    Effect.gen(function*() {
      const strand = "{\"documentId\":\"d\",\"documentType\":\"t\",\"scope\":\"s\",\"branch\":\"b\",\"operations\":[]}"
      const text = `[${Array.from({ length: Ndjson.strandsPerLineMax + 1 }, () => strand).join(",")}]`
      const { error } = yield* read(yield* write(text), { lineBytesMax: 2 ** 28 })
      expect(words(error)).toMatch(/line 1: holds 1048577 strands; a position counts no more than 1048576/)
    }))
})

describe("the file is closed", () => {
  const started = (directory: string, contents: Contents) =>
    Effect.gen(function*() {
      const file = path.join(directory, "0.ndjson")
      fs.writeFileSync(file, contents)
      return yield* Ndjson.make({ name: "test", files: [file, file], blockBytes: 100 })
    })
  const text = manyLines(1, 200)

  it.scoped.each([["plain", text], ["gzip", gzip(text)]] as const)(
    "by the end of the stream, by take and by failure: %s",
    ([, contents]) =>
      Effect.gen(function*() {
        const directory = yield* temporary
        const source = yield* started(directory, contents)
        const whileReading = yield* source.strands(Position.origin).pipe(
          Stream.take(1),
          Stream.map(() => openFiles(directory).length),
          Stream.runSum
        )
        expect(whileReading).toBe(1)
        expect(openFiles(directory)).toEqual([])
        yield* Stream.runDrain(source.strands(Position.origin))
        expect(openFiles(directory)).toEqual([])
        yield* source.strands(Position.origin).pipe(Stream.runForEach(() => Effect.fail("stop")), Effect.flip)
        expect(openFiles(directory)).toEqual([])
      })
  )

  it.scoped.each([["plain", text], ["gzip", gzip(text)]] as const)(
    "by interruption, whenever it comes: %s",
    ([, contents]) =>
      Effect.gen(function*() {
        const directory = yield* temporary
        const source = yield* started(directory, contents)
        for (let turns = 0; turns < 40; turns++) {
          const fiber = yield* Effect.fork(Stream.runDrain(source.strands(Position.origin)))
          for (let i = 0; i < turns; i++) yield* turn
          yield* Fiber.interrupt(fiber)
          expect(openFiles(directory)).toEqual([])
        }
      })
  )
})

describe("a spool", () => {
  it.effect("is a private copy that can be read twice, and goes with its scope", () =>
    Effect.gen(function*() {
      const gone = yield* Effect.scoped(Effect.gen(function*() {
        const copy = yield* Ndjson.spool(Readable.from([gzip(manyLines(1, 30))]))
        expect(fs.statSync(copy).mode & 0o777).toBe(0o600)
        expect(fs.statSync(path.dirname(copy)).mode & 0o777).toBe(0o700)
        expect((yield* read([copy])).ids).toHaveLength(30)
        expect((yield* read([copy])).ids).toHaveLength(30)
        return copy
      }))
      expect(fs.existsSync(path.dirname(gone))).toBe(false)
    }))

  it.scoped("fails when its stream does, and leaves nothing behind", () =>
    Effect.gen(function*() {
      const before = fs.readdirSync(os.tmpdir()).filter((name) => name.startsWith("strands-"))
      const broken = new PassThrough()
      broken.write(manyLines(1, 3))
      setImmediate(() => broken.destroy(new Error("the pipe broke")))
      const error = yield* Effect.flip(Effect.scoped(Ndjson.spool(broken)))
      expect(words(error)).toMatch(/^SourceUnavailable: source standard input .*copying broke off.*\(the pipe broke\)$/)
      expect(fs.readdirSync(os.tmpdir()).filter((name) => name.startsWith("strands-"))).toEqual(before)
    }))

  it.effect("stops when it is interrupted while its stream waits", () =>
    Effect.gen(function*() {
      const endless = new PassThrough()
      endless.write(manyLines(1, 3))
      const scope = yield* Scope.make()
      const fiber = yield* Effect.fork(Scope.extend(Ndjson.spool(endless), scope))
      for (let i = 0; i < 10_000 && endless.listenerCount("data") === 0; i++) yield* turn
      yield* Fiber.interrupt(fiber)
      yield* Scope.close(scope, Exit.void)
      expect(endless.destroyed).toBe(true)
    }))
})
