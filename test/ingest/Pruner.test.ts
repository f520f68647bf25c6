/** Pruned lines: what is left out of them, that nobody can tell, and the thread that does it: its start, its ends, its death. */
import { afterAll, beforeAll, describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { execFile } from "node:child_process"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { isDeepStrictEqual } from "node:util"
import { Worker } from "node:worker_threads"
import * as zlib from "node:zlib"
import * as Position from "../../src/domain/Position.js"
import type { Strand } from "../../src/domain/Strand.js"
import * as Envelope from "../../src/ingest/Envelope.js"
import * as Ndjson from "../../src/ingest/Ndjson.js"
import * as Pruner from "../../src/ingest/Pruner.js"
import type { Request } from "../../src/ingest/PrunerThread.js"
import { prune } from "../../src/ingest/Pruning.js"
import * as Bundle from "../support/Bundle.js"

const temporary = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "pruner-test-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true }))
)

const write = (...contents: ReadonlyArray<string | Buffer>) =>
  Effect.map(temporary, (directory) =>
    contents.map((content, i) => {
      const file = path.join(directory, `${i}.ndjson`)
      fs.writeFileSync(file, content)
      return file
    }))

/** Every thread of this process, from the time it was started. */
const workers = new Set<Worker>()
const note = (worker: Worker) => void workers.add(worker)
beforeAll(() => void process.on("worker", note))
afterAll(() => void process.off("worker", note))

const alive = (): number => Array.from(workers).filter(({ threadId }) => threadId !== -1).length

/** Has a look at each message to a thread, of which it is the `n`-th from 1. */
const watching = (look: (worker: Worker, n: number, request: Request) => void) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const original = Object.getOwnPropertyDescriptor(Worker.prototype, "postMessage")!
      const send = original.value as (this: Worker, request: Request) => void
      let n = 0
      Object.defineProperty(Worker.prototype, "postMessage", {
        ...original,
        value: function(this: Worker, request: Request) {
          look(this, ++n, request)
          send.call(this, request)
        }
      })
      return () => Object.defineProperty(Worker.prototype, "postMessage", original)
    }),
    (restore) => Effect.sync(restore)
  )

const never: Pruner.Bounds = { ...Pruner.defaults, threadsMax: 0 }
const atOnce: Pruner.Bounds = { ...Pruner.defaults, threadsMax: Infinity, isAtOnce: true }

type Settings = Partial<Omit<Ndjson.Options, "files">>

const sourceOf = (files: ReadonlyArray<string>, bounds: Pruner.Bounds, settings: Settings = {}) =>
  Effect.provideService(Ndjson.make({ name: "test", files, ...settings }), Pruner.Limits, bounds)

interface Outcome {
  /** The strands of each chunk. */
  readonly chunks: ReadonlyArray<ReadonlyArray<Strand>>
  readonly head: Position.Position | undefined
  readonly error: unknown
}

/** All that can be told of a reading. */
const read = (
  files: ReadonlyArray<string>,
  bounds: Pruner.Bounds,
  settings: Settings = {},
  after: Position.Position = Position.origin
): Effect.Effect<Outcome> =>
  Effect.gen(function*() {
    const source = yield* Effect.orDie(sourceOf(files, bounds, settings))
    const chunks: Array<ReadonlyArray<Strand>> = []
    const error = yield* source.strands(after).pipe(
      Stream.runForEachChunk((chunk) => Effect.sync(() => chunks.push(Chunk.toReadonlyArray(chunk)))),
      Effect.flip,
      Effect.option
    )
    return {
      chunks,
      head: Option.getOrUndefined(yield* Effect.orDie(source.head)),
      error: Option.match(error, { onNone: () => undefined, onSome: wordsOf })
    }
  })

/** What an error says, and what it says that it came of. */
const wordsOf = (error: unknown): unknown =>
  error instanceof Error
    ? { fields: Object.entries(error), of: error.constructor.name, says: error.message, cause: wordsOf(error.cause) }
    : error

const expectSame = (pruned: Outcome, plain: Outcome) => {
  // One that shows where they differ, and one that also tells 0 from -0 and own keys from inherited ones.
  expect(pruned).toEqual(plain)
  expect(isDeepStrictEqual(pruned, plain)).toBe(true)
}

/** A value with the text that it is parsed from: no value stands for -0, 1e999 or a key that comes twice. */
const json = {
  object: (fields: ReadonlyArray<readonly [string, string]>) =>
    `{${fields.map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(",")}}`,
  list: (values: ReadonlyArray<string>) => `[${values.join(",")}]`
}

const scalar = FastCheck.oneof(
  FastCheck.constantFrom("7", "0.1", "1E2", "12345678901234567890", "null", "true", "[]", "{}", "\"\"", "\"text\""),
  FastCheck.constantFrom("\"é 文 😀\"", "\"\\ud800\"", "\"\\u0000\"", "\"\\u2028\"", "\"{\\\"a\\\":1}\"", "\"[-0]\""),
  FastCheck.constantFrom("-0", "-0.0", "-1e-400", "1e999", "-1e999")
)
const key = FastCheck.constantFrom(
  "a",
  "b",
  "2",
  "1",
  "__proto__",
  "toJSON",
  "state",
  "previousState",
  "é",
  "",
  "length"
)
const { value } = FastCheck.letrec<{ value: string }>((tie) => ({
  value: FastCheck.oneof(
    { depthSize: "small" },
    { weight: 4, arbitrary: scalar },
    { weight: 1, arbitrary: FastCheck.array(FastCheck.tuple(key, tie("value")), { maxLength: 4 }).map(json.object) },
    { weight: 1, arbitrary: FastCheck.array(tie("value"), { maxLength: 3 }).map(json.list) },
    { weight: 1, arbitrary: FastCheck.integer({ min: 1, max: 80 }).map((n) => "[".repeat(n) + "]".repeat(n)) }
  )
}))

/** `none` most of the time. */
const seldom = <A>(none: A, some: FastCheck.Arbitrary<A>): FastCheck.Arbitrary<A> =>
  FastCheck.oneof({ weight: 250, arbitrary: FastCheck.constant(none) }, { weight: 1, arbitrary: some })

/** Fields of which one is seldom anything, or missing. */
const fieldsOf = (expected: { readonly [name: string]: string }) => {
  const name = FastCheck.constantFrom(...Object.keys(expected))
  return FastCheck.record({
    replaced: seldom<readonly [string, string] | undefined>(undefined, FastCheck.tuple(name, value)),
    removed: seldom<string | undefined>(undefined, name)
  }).map(({ removed, replaced }) =>
    Object.entries(expected)
      .filter(([field]) => field !== removed)
      .map(([field, text]) => [field, field === replaced?.[0] ? replaced[1] : text] as const)
  )
}

const long = FastCheck.integer({ min: 0, max: 400 }).map((n) => `{"text":"${"state ".repeat(n)}"}`)
/** Fields that hold state, and that nobody reads. */
const states = (...names: ReadonlyArray<string>) =>
  FastCheck.array(FastCheck.tuple(FastCheck.constantFrom(...names), FastCheck.oneof(value, long)), { maxLength: 3 })

const inAnyOrder = (...parts: ReadonlyArray<FastCheck.Arbitrary<ReadonlyArray<readonly [string, string]>>>) =>
  FastCheck.tuple(...parts).chain((all) => {
    const fields = all.flat()
    return FastCheck.shuffledSubarray(fields, { minLength: fields.length })
  }).map(json.object)

const instant = "\"2026-11-21T18:25:11.310Z\""
const operation = FastCheck.tuple(FastCheck.nat(9), FastCheck.oneof(value, FastCheck.constant("{\"id\":\"1\"}")))
  .chain(([index, input]) =>
    inAnyOrder(
      fieldsOf({
        id: `"op-${index}"`,
        index: String(index),
        skip: "0",
        type: "\"ADD\"",
        timestamp: instant,
        hash: "\"h\"",
        input
      }),
      states("state", "previousState", "resultingState", "error", "actionId", "context", "other")
    )
  )
const nested = FastCheck.tuple(FastCheck.nat(9), value, value).chain(([index, input, signer]) =>
  inAnyOrder(
    fieldsOf({
      id: `"op-${index}"`,
      index: String(index),
      skip: "0",
      timestampUtcMs: instant,
      hash: "\"h\"",
      action: json.object([["id", "\"action\""], ["type", "\"ADD\""], ["input", input], [
        "context",
        json.object([["prevOpIndex", "-1"], ["signer", signer], ["state", "1"]])
      ]])
    }),
    states("state", "previousState", "resultingState", "input", "type")
  )
)
const header = {
  documentId: "\"doc\"",
  documentType: "\"acme/todo\"",
  scope: "\"global\"",
  branch: "\"main\""
}
const strand = FastCheck.array(FastCheck.oneof(operation, nested), { maxLength: 4 }).chain((operations) =>
  inAnyOrder(
    fieldsOf({ ...header, driveId: "\"drive\"", operations: json.list(operations) }),
    states("state", "document", "other")
  )
)
const withContext = FastCheck.tuple(
  nested,
  inAnyOrder(fieldsOf(header), states("resultingState", "state", "ordinal"))
).chain(([sent, context]) => inAnyOrder(fieldsOf({ operation: sent, context }), states("state", "operations")))

const envelope = FastCheck.oneof(
  strand,
  withContext,
  FastCheck.array(FastCheck.oneof(strand, withContext), { maxLength: 3 }).map(json.list)
)

/** A line of one operation with this state. */
const lineOf = (documentId: string, state: string): string =>
  json.object([
    ...Object.entries({ ...header, documentId: JSON.stringify(documentId), state: "{}" }),
    [
      "operations",
      json.list([json.object([
        ...Object.entries({ id: "\"1\"", index: "0", skip: "0", type: "\"ADD\"", timestamp: instant, hash: "\"\"" }),
        ["state", state]
      ])])
    ]
  ])

/** Text of 512 characters that no packing makes much shorter. */
const noise = (seed: number): string =>
  Array.from({ length: 4 }, (_, i) => createHash("sha512").update(`${seed} ${i}`).digest("hex")).join("")

describe("a pruned text", () => {
  const decode = (text: string) => Envelope.decode(JSON.parse(text), text.length)

  it("decodes to the same as the whole, or in the same words to none", () => {
    let pruned = 0
    FastCheck.assert(
      FastCheck.property(FastCheck.oneof(envelope, value), (text) => {
        const left = prune(text)
        if (left === undefined) return
        pruned++
        const [a, b] = [Envelope.decode(JSON.parse(left), text.length), decode(text)]
        expect(Either.mapLeft(a, wordsOf)).toEqual(Either.mapLeft(b, wordsOf))
        expect(isDeepStrictEqual(Either.getOrUndefined(a), Either.getOrUndefined(b))).toBe(true)
      }),
      { numRuns: 3000 }
    )
    expect(pruned).toBeGreaterThan(300)
  })

  it.each([
    [
      "a strand",
      `{"state":{"a":1},"document":{"b":2},"operations":[{"state":1,"previousState":2,"resultingState":"3","input":{"state":4}}]}`,
      `{"state":null,"operations":[{"input":{"state":4}}]}`
    ],
    [
      "an operation with its context",
      `[{"operation":{"id":"1","resultingState":"x","action":{"input":{"state":4}}},"context":{"scope":"s","resultingState":"{}"}}]`,
      `[{"operation":{"id":"1","action":{"input":{"state":4}}},"context":{"scope":"s"}}]`
    ]
  ])("is without the state of %s, and nothing else is missing", (_, text, left) => {
    expect(prune(text)).toBe(left)
  })

  it.each([
    ["no state in it", `{"state":null,"operations":[{"input":{"state":4}}]}`],
    ["no envelope", `{"state":{"a":1},"hello":[{"state":1}]}`],
    ["no JSON", `{"state":{"a":1},"operations":[{"state":1}]`],
    ["a -0 in it", `{"operations":[{"state":1,"input":[-0.0]}]}`],
    ["a number in it that is too large", `{"operations":[{"state":1,"input":{"a":1e999}}]}`],
    ["too deep a value in it", `{"operations":[{"state":1,"input":${"[".repeat(1e5)}${"]".repeat(1e5)}}]}`]
  ])("is none where there is %s", (_, text) => {
    expect(prune(text)).toBeUndefined()
  })

  it("keeps that a strand has a state, by which text is told from the wire form", () => {
    const text = (state: string) =>
      `{"documentId":"d","documentType":"t","scope":"s","branch":"b",${state}"operations":[{"id":"1","index":0,"skip":0,` +
      `"type":"SET_NAME","timestamp":${instant},"hash":"","input":"\\"name\\"","previousState":{}}]}`
    const inputOf = (line: string) =>
      Either.getOrThrow(decode(prune(line) ?? "")).map(({ operations }) => operations[0]?.input)
    expect(inputOf(text("\"state\":{},"))).toEqual(["\"name\""])
    expect(inputOf(text(""))).toEqual(["name"])
  })
})

describe("a source that is read with a thread", () => {
  const bad = FastCheck.oneof(
    FastCheck.constantFrom("not JSON", "{\"operations\":[", "[{}]", "\"text\"", "\ufeff{}", "{\"a\":1} {\"a\":1}"),
    envelope.map((text) => Buffer.from(text.replace("acme/todo", "acme/café"), "latin1")),
    envelope.map((text) => Buffer.concat([Buffer.from(text), Buffer.from([0xff])])),
    envelope.map((text) => Buffer.from(text).subarray(0, -1))
  )
  const row = FastCheck.oneof(
    { weight: 60, arbitrary: envelope },
    { weight: 2, arbitrary: FastCheck.constantFrom("", "  ", "[]", "\t\r") },
    { weight: 1, arbitrary: bad }
  )
  const contents = FastCheck.record({
    rows: FastCheck.array(row, { maxLength: 12 }),
    newline: FastCheck.constantFrom("\n", "\r\n"),
    mark: FastCheck.boolean(),
    packed: FastCheck.boolean(),
    ended: FastCheck.boolean()
  }).map(({ ended, mark, newline, packed, rows }) => {
    const parts = rows.flatMap((text, i) => i === 0 ? [text] : [newline, text])
    const bytes = Buffer.concat(
      [...mark ? ["\ufeff"] : [], ...parts, ...ended ? [newline] : []].map((part) =>
        typeof part === "string" ? Buffer.from(part) : part
      )
    )
    return packed ? zlib.gzipSync(bytes) : bytes
  })
  const input = FastCheck.record({
    files: FastCheck.array(contents, { minLength: 1, maxLength: 3 }),
    blockBytes: FastCheck.oneof(
      { weight: 1, arbitrary: FastCheck.integer({ min: 1, max: 40 }) },
      { weight: 5, arbitrary: FastCheck.integer({ min: 41, max: 5000 }) },
      { weight: 1, arbitrary: FastCheck.constant(262_144) }
    ),
    lineBytesMax: FastCheck.oneof(FastCheck.constant(16_777_216), FastCheck.integer({ min: 300, max: 20_000 })),
    ahead: FastCheck.record({
      readsMax: FastCheck.integer({ min: 1, max: 8 }),
      bytesMax: FastCheck.constantFrom(1, 5000)
    }),
    /** Which of the positions it is read from, as a part of all. */
    from: FastCheck.double({ min: 0, max: 1, noNaN: true })
  })

  it("supplies and fails as without, from every position, whatever the lines and the block size", async () => {
    let strands = 0
    let failures = 0
    await FastCheck.assert(
      FastCheck.asyncProperty(input, ({ ahead, blockBytes, files, from, lineBytesMax }) =>
        Effect.gen(function*() {
          const paths = yield* write(...files)
          const settings = { blockBytes, lineBytesMax }
          const plain = yield* read(paths, never, settings)
          expectSame(yield* read(paths, { ...atOnce, ...ahead }, settings), plain)
          const positions = [Position.origin, ...plain.chunks.flat().map(({ position }) => position)]
          const after = positions[Math.round(from * (positions.length - 1))]
          expectSame(
            yield* read(paths, { ...atOnce, ...ahead }, settings, after),
            yield* read(paths, never, settings, after)
          )
          strands += plain.chunks.flat().length
          if (plain.error !== undefined) failures++
          expect(alive()).toBe(0)
        }).pipe(Effect.scoped, Effect.runPromise)),
      { numRuns: 60 }
    )
    expect(strands).toBeGreaterThan(100)
    expect(failures).toBeGreaterThan(3)
    expect(failures).toBeLessThan(50)
  })

  it.scoped("refuses what is not UTF-8 in a line that could be pruned", () =>
    Effect.gen(function*() {
      const files = yield* write(Buffer.from(`${lineOf("doc", "{}")}\n${lineOf("café", "{}")}\n`, "latin1"))
      const outcome = yield* read(files, atOnce)
      expectSame(outcome, yield* read(files, never))
      expect(outcome.chunks.flat()).toHaveLength(1)
      expect(JSON.stringify(outcome.error)).toContain("line 2: the line is not UTF-8")
    }))

  const dataIn = (folder: string) => {
    const directory = fileURLToPath(new URL(`../../${folder}/`, import.meta.url))
    return fs.readdirSync(directory).filter((name) => name.includes(".ndjson")).map((name) =>
      path.join(directory, name)
    )
  }

  it.scoped.each(
    [...dataIn("examples/data"), ...dataIn("test/data")].map((file) => [path.basename(file), file] as const)
  )(
    "supplies what is recorded as without: %s",
    ([, file]) =>
      Effect.gen(function*() {
        const [unpacked = ""] = yield* write(zlib.gunzipSync(fs.readFileSync(file)))
        for (const files of [[file], [unpacked], [unpacked, file]]) {
          expectSame(yield* read(files, atOnce), yield* read(files, never))
        }
        expectSame(
          yield* read([unpacked], atOnce, { blockBytes: 10_000 }),
          yield* read([unpacked], never, { blockBytes: 10_000 })
        )
      })
  )

  const stateful = (from: number, to: number): string =>
    Array.from({ length: to - from + 1 }, (_, i) => `${lineOf(`doc-${from + i}`, JSON.stringify(noise(i)))}\n`).join("")

  it.scoped.each<readonly [string, (text: string) => string | Buffer, number]>([
    ["plain", (text) => text, 1000],
    ["gzip", (text) => zlib.gzipSync(text), 500]
  ])(
    "loses and doubles nothing when the thread dies, whenever that is: %s",
    ([, pack, blockBytes]) =>
      Effect.gen(function*() {
        const files = yield* write(pack(stateful(1, 400)), pack(stateful(401, 500)))
        const plain = yield* read(files, never, { blockBytes })
        expect(plain.chunks.flat()).toHaveLength(500)
        for (const at of [1, 2, 3, 7, 8, 20]) {
          let asked = 0
          const outcome = yield* Effect.scoped(Effect.zipRight(
            watching((worker, n) => {
              asked = n
              if (n === at) void worker.terminate()
            }),
            read(files, atOnce, { blockBytes })
          ))
          expectSame(outcome, plain)
          expect(asked).toBeGreaterThanOrEqual(at)
          // What was ahead when it died, and no more.
          expect(asked).toBeLessThan(at + 32)
          expect(alive()).toBe(0)
        }
      })
  )

  it.scoped("is read on without one that fails of itself", () =>
    Effect.gen(function*() {
      const files = yield* write(stateful(1, 400))
      const plain = yield* read(files, never, { blockBytes: 1000 })
      // What it takes for a request is none.
      yield* watching((worker, n) => n === 5 && void worker.emit("messageerror", new Error("not to be read")))
      expectSame(yield* read(files, atOnce, { blockBytes: 1000 }), plain)
      expect(alive()).toBe(0)
    }))

  const waitingFor = (workersBefore: number) =>
    Effect.iterate(0, {
      while: (turns) => turns < 10_000 && workers.size === workersBefore,
      body: (turns) => Effect.async<number>((resume) => void setImmediate(() => resume(Effect.succeed(turns + 1))))
    })

  it.scoped(
    "ends its thread with its scope: at the end, by take, by failure and by interruption whenever it comes",
    () =>
      Effect.gen(function*() {
        const files = yield* write(stateful(1, 2000))
        const source = yield* sourceOf(files, atOnce, { blockBytes: 1000 })
        const strands = source.strands(Position.origin)
        const before = workers.size
        expect(yield* strands.pipe(Stream.take(1), Stream.map(alive), Stream.runSum)).toBe(1)
        expect(alive()).toBe(0)
        yield* Stream.runDrain(strands)
        expect(alive()).toBe(0)
        yield* strands.pipe(Stream.runForEach(() => Effect.fail("stop")), Effect.flip)
        expect(alive()).toBe(0)
        for (let turns = 0; turns < 20; turns++) {
          const started = workers.size
          const fiber = yield* Effect.fork(Stream.runDrain(strands))
          yield* waitingFor(started)
          for (let i = 0; i < turns * turns; i++) {
            yield* Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))
          }
          yield* Fiber.interrupt(fiber)
          expect(alive()).toBe(0)
        }
        expect(workers.size - before).toBe(23)
      })
  )

  it.scoped.each<readonly [string, Partial<Pruner.Bounds>]>([
    ["reads", { readsMax: 4 }],
    ["bytes", { bytesMax: 3500 }]
  ])(
    "is asked for no more %s than may be ahead while nobody takes what there is",
    ([, ahead]) =>
      Effect.gen(function*() {
        const files = yield* write(stateful(1, 2000))
        let asked = 0
        yield* watching(() => void asked++)
        const source = yield* sourceOf(files, { ...atOnce, ...ahead }, { blockBytes: 1000 })
        const scope = yield* Scope.make()
        const pull = yield* Scope.extend(Stream.toPull(source.strands(Position.origin)), scope)
        yield* pull
        for (let i = 0; i < 1000; i++) {
          yield* Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))
        }
        // What was taken, what is ahead, and what waits to be.
        expect(asked).toBeLessThanOrEqual(1 + 4 + 1)
        expect(asked).toBeGreaterThan(1)
        yield* Scope.close(scope, Exit.void)
        expect(alive()).toBe(0)
      })
  )
})

describe("a thread is started", () => {
  const bytes = 50_000
  const bounds: Pruner.Bounds = { ...Pruner.defaults, threadsMax: 1, bytes }
  const lines = (total: number, state: string) => {
    const line = `${lineOf("doc", state)}\n`
    return line.repeat(Math.ceil(total / line.length))
  }
  const large = JSON.stringify(noise(0))

  /** How many threads are started for it. */
  const started = (files: ReadonlyArray<string>, limits: Pruner.Bounds = bounds) =>
    Effect.gen(function*() {
      const before = workers.size
      const source = yield* sourceOf(files, limits, { blockBytes: 1000 })
      yield* source.strands(Position.origin).pipe(
        // The time that a thread takes to start is longer than that of so short a file.
        Stream.runForEachChunk(() => Effect.async<void>((resume) => void setTimeout(() => resume(Effect.void), 1)))
      )
      return workers.size - before
    })

  it.scopedLive("once a source has been read for a while and its lines carried much state, and then is asked", () =>
    Effect.gen(function*() {
      const files = yield* write(lines(6 * bytes, large))
      const asked: Array<Request> = []
      yield* watching((_worker, _n, { block, held }) => void asked.push({ block: Uint8Array.from(block), held }))
      expect(yield* started(files)).toBe(1)
      expect(asked.length).toBeGreaterThan(10)
      // It is told how the line begins in whose middle it comes.
      const [first, ...others] = asked.map(({ block, held }) => [held, Buffer.from(block).toString()] as const)
      const whole = `${Buffer.from(first?.[0] ?? "").toString()}${first?.[1]}`.split("\n")
      expect(first?.[0]?.length).toBeGreaterThan(0)
      expect(`${whole[0]}\n`).toBe(lines(1, large))
      expect(others.every(([held]) => held === undefined)).toBe(true)
      expectSame(yield* read(files, bounds, { blockBytes: 1000 }), yield* read(files, never, { blockBytes: 1000 }))
    }))

  it.scopedLive("once for all files of a source", () =>
    Effect.gen(function*() {
      const part = lines(bytes / 2, large)
      expect(yield* started(yield* write(...Array.from({ length: 8 }, () => part)))).toBe(1)
    }))

  it.scopedLive("not for a short source, nor where lines carry little state, nor where there may be none", () =>
    Effect.gen(function*() {
      expect(yield* started(yield* write(lines(0.9 * bytes, large)))).toBe(0)
      expect(yield* started(yield* write(lines(3 * bytes, "{}")))).toBe(0)
      expect(yield* started(yield* write(lines(3 * bytes, large)), { ...bounds, threadsMax: 0 })).toBe(0)
    }))

  it.scopedLive("no more often than there may be threads, and again once one has ended", () =>
    Effect.gen(function*() {
      const files = yield* write(lines(3 * bytes, large))
      expect(yield* Effect.all([started(files), started(files)], { concurrency: 2 })).toSatisfy(
        ([a, b]: ReadonlyArray<number>) => Math.max(a!, b!) === 1
      )
      expect(yield* started(files)).toBe(1)
    }))
})

describe("a process of its own", () => {
  const run = (args: ReadonlyArray<string>) =>
    Effect.async<{ readonly code: number | string; readonly out: string; readonly err: string }>((resume) => {
      const child = execFile(
        process.execPath,
        args,
        { timeout: 300_000 },
        (error, out, err) =>
          resume(Effect.succeed({ code: error === null ? 0 : error.code ?? error.signal ?? "", out, err }))
      )
      return Effect.sync(() => void child.kill("SIGKILL"))
    })

  it.scopedLive(
    "reads the same where threads are not permitted, and is not kept alive by one that rests",
    () =>
      Effect.gen(function*() {
        const child = yield* Bundle.make(new URL("pruning.ts", import.meta.url))
        const [file = ""] = yield* write(zlib.gunzipSync(fs.readFileSync(
          fileURLToPath(new URL("../../examples/data/g1-strands.ndjson.gz", import.meta.url))
        )))
        const permitted = yield* run([child, file])
        expect(permitted).toEqual({ code: 0, out: "1 thread, 222 strands\n", err: "" })
        const refused = yield* run(["--experimental-permission", "--allow-fs-read=*", "--no-warnings", child, file])
        expect(refused).toEqual({ code: 0, out: "0 threads, 222 strands\n", err: "" })
      })
  )
})
