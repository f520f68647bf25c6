/**
 * The main job as it is shipped: the built program in a process of its own, on files, pipes, both databases, and under
 * signals. What its tables hold is compared with an independent fold of the same files.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { createReadStream, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Readable } from "node:stream"
import { createGunzip, gzipSync } from "node:zlib"
import { beforeAll } from "vitest"
import { Namespace } from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"
import { fold, foldLines, linesOf } from "./fold.js"
import type { Folded } from "./fold.js"
import * as Program from "./Program.js"
import * as Tables from "./Tables.js"

beforeAll(Program.build, 120_000)

const runMillis = 300_000

/** An empty directory to run in, gone with the test. */
const workplace = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-processors-main-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

const within = <A, E>(database: Database.Database, look: Effect.Effect<A, E, Namespace.Namespaces>) =>
  Effect.provide(look, Store.layerMany(database))

const expectTables = (database: Database.Database, wanted: Folded) =>
  Effect.gen(function*() {
    expect(yield* within(database, Tables.read)).toEqual(Tables.sorted(wanted.tables))
    const letters = yield* within(database, Tables.letters)
    expect(letters).toHaveLength(wanted.held.length)
  })

const g1 = Program.dataFile("g1-strands.ndjson.gz")

describe.each(Database.dialects)("npm start on $dialect", ({ dialect, fresh }) => {
  it.scopedLive(
    "ends in what an independent fold of the five files says, row for row; run again, it does nothing",
    () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const cwd = yield* workplace
        const args = ["--database", Program.addressOf(database)]
        const wanted = fold(Program.defaultFiles)
        expect(wanted.held.length).toBeGreaterThan(300)

        const first = yield* Program.run(args, { cwd })
        expect(first).toMatchObject({ code: 0 })
        yield* expectTables(database, wanted)
        const before = yield* within(database, Tables.commits)
        expect(before).toHaveLength(3)

        for (const [table, rows] of Object.entries(Tables.sizes(wanted.tables))) {
          expect(rows, `rows of ${table}`).toBeGreaterThan(0)
          expect(first.stdout).toMatch(new RegExp(`^${table} +${rows.toLocaleString("en-US")}$`, "m"))
        }
        expect(first.stdout).toContain(`${wanted.applied.toLocaleString("en-US")} operations in`)
        expect(first.stdout).toMatch(/[\d,]+ operations per second/)
        expect(first.stdout).toMatch(/^Search for "governance": [1-9]\d* entries\n {2}.*governance/mi)
        expect(first.stdout).toMatch(
          /search-index: StrandGap, \d+ operations of 37 documents\n.*indexes 0 to 2 are missing/
        )
        expect(first.stdout).toMatch(/^Peak memory {2}\d+ MB$/m)
        expect(first.stdout).toContain(
          dialect === "sqlite" ? Program.addressOf(database) : new URL(Program.addressOf(database)).pathname
        )
        expect(first.stderr).toMatch(/^100 % {2}[\d,]+ operations/m)

        const second = yield* Program.run(args, { cwd })
        expect(second).toMatchObject({ code: 0 })
        expect(second.stdout).toContain("Resumed at the cursors: there was nothing new")
        expect(yield* within(database, Tables.commits)).toEqual(before)
        yield* expectTables(database, wanted)
      }),
    runMillis
  )

  it.scopedLive(
    "killed with SIGKILL at several points and started again, it ends in the same tables",
    () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const cwd = yield* workplace
        const args = ["--database", Program.addressOf(database)]
        const env = { EFFECT_PROCESSORS_BATCH: "10", EFFECT_PROCESSORS_PROGRESS_MILLIS: "20" }
        const reached: Array<string> = []
        const distinct = () => new Set(reached).size
        for (let run = 0; run < 24 && distinct() < 5; run++) {
          const afterLines = [0, 1, 2, 3, 5, 8][run % 6]!
          const killed = yield* Program.run(args, { cwd, env, signal: { name: "SIGKILL", afterLines } })
          expect(killed, `after ${afterLines} lines`).toMatchObject({ code: null, signal: "SIGKILL", stdout: "" })
          reached.push(JSON.stringify(yield* within(database, Effect.orElseSucceed(Tables.commits, () => []))))
        }
        expect(distinct(), "the kills hit at different points").toBe(5)

        const last = yield* Program.run(args, { cwd })
        expect(last).toMatchObject({ code: 0 })
        expect(last.stdout).toContain("Resumed at the cursors and went on to the end.")
        yield* expectTables(database, fold(Program.defaultFiles))
      }),
    runMillis
  )

  it.scopedLive(
    "stops on SIGTERM with what it has committed, says so, and goes on from there",
    () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const cwd = yield* workplace
        const args = ["--database", Program.addressOf(database)]
        const env = { EFFECT_PROCESSORS_BATCH: "5", EFFECT_PROCESSORS_PROGRESS_MILLIS: "20" }
        const stopped = yield* Program.run(args, { cwd, env, signal: { name: "SIGTERM", afterLines: 3 } })
        expect(stopped).toMatchObject({ code: 130, signal: null, stdout: "" })
        expect(stopped.stderr).toMatch(/stopped; what has been committed is kept, run again to go on from there\n$/)
        expect(yield* Program.run(args, { cwd })).toMatchObject({ code: 0 })
        yield* expectTables(database, fold(Program.defaultFiles))
      }),
    runMillis
  )

  it.scopedLive("reads standard input, plain or packed, and knows the same bytes again", () =>
    Effect.gen(function*() {
      const database = yield* fresh
      const cwd = yield* workplace
      const args = ["--input", "-", "--database", Program.addressOf(database)]
      const plain = yield* Program.run(args, { cwd, stdin: createReadStream(g1).pipe(createGunzip()) })
      expect(plain).toMatchObject({ code: 0 })
      yield* expectTables(database, fold([g1]))
      const packed = yield* Program.run(args, { cwd, stdin: createReadStream(g1) })
      expect(packed.stdout).toContain("there was nothing new")
      yield* expectTables(database, fold([g1]))
    }), runMillis)

  it.scopedLive(
    "takes input and database from the environment, and says what else the tables hold",
    () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const cwd = yield* workplace
        const env = { EFFECT_PROCESSORS_INPUT: g1, EFFECT_PROCESSORS_DATABASE: Program.addressOf(database) }
        expect(yield* Program.run([], { cwd, env })).toMatchObject({ code: 0 })
        yield* expectTables(database, fold([g1]))
        const other = Program.dataFile("g3-reshuffle.ndjson.gz")
        const next = yield* Program.run(["-i", other, "-s", "no-such-word-anywhere"], { cwd, env })
        expect(next.stdout).toContain("Read the input from its start to its end.")
        expect(next.stdout).toMatch(/The tables also hold what came from:\n {2}g1-strands\.ndjson\.gz#[0-9a-f]{12}\n/)
        expect(next.stdout).toContain("Search for \"no-such-word-anywhere\": 0 entries")
        yield* expectTables(database, fold([g1, other]))
      }),
    runMillis
  )

  it.scopedLive(
    "holds back what cannot be stored or does not fit, says why, and applies all the rest",
    () =>
      Effect.gen(function*() {
        const database = yield* fresh
        const cwd = yield* workplace
        const args = ["-d", Program.addressOf(database), "-i", "strands.ndjson", "-s", "fine words"]
        writeFileSync(
          join(cwd, "strands.ndjson"),
          [
            strand("nul", "acme/note", 0, "WRITE", `{"text":"a\\u0000b"}`),
            strand("surrogate", "acme/note", 0, "WRITE", `{"text":"\\ud800"}`),
            strand("surrogate", "acme/note", 1, "WRITE", `{"text":"waits"}`),
            strand("prototype", "acme/note", 0, "WRITE", `{"__proto__":{"text":"x"}}`),
            strand("named", "acme/note", 0, "__proto__", `{"id":"__proto__","text":"fine words"}`),
            strand("named", "acme/note", 1, "constructor", `{"text":"fine words"}`),
            strand("unknown", "powerhouse/document-drive", 0, "PAINT_NODE", `{"id":"1"}`),
            strand("misfit", "powerhouse/document-drive", 0, "ADD_FOLDER", `{"id":5,"name":"five"}`),
            strand("drive", "powerhouse/document-drive", 0, "ADD_FOLDER", `{"id":"6","name":"six"}`)
          ].join("\n")
        )
        const ended = yield* Program.run(args, { cwd })
        expect(ended).toMatchObject({ code: 0 })
        expect(ended.stdout).toContain("Search for \"fine words\": 2 entries")
        expect(ended.stdout).toContain("search-index: MalformedOperation, 3 operations of 3 documents")
        expect(ended.stdout).toContain("WRITE at index 0 of document nul (global, main): input holds a NUL character")
        expect(ended.stdout).toContain("document surrogate (global, main): input holds a lone surrogate")
        expect(ended.stdout).toContain("document prototype (global, main): input has a __proto__ key")
        expect(ended.stdout).toContain("search-index: 1 more, behind those of 1 document")
        expect(ended.stdout).toContain("node-tree: UnknownOperation, 1 operation of 1 document")
        expect(ended.stdout).toContain("the model powerhouse/document-drive has no such operation")
        expect(ended.stdout).toMatch(/ADD_FOLDER at index 0 of document misfit .* does not fit the model: .*"id"/)
        const { drive_node, search_entry } = yield* within(database, Tables.read)
        expect(drive_node.map((row) => row["name"])).toEqual(["six"])
        expect(search_entry.map((row) => row["document_id"])).toEqual(["drive", "misfit", "named", "named"])
      }),
    runMillis
  )

  it.scopedLive(
    "keeps a larger input's tables equal to the fold, within bounded memory",
    (context) =>
      Effect.gen(function*() {
        const database = yield* fresh
        const cwd = yield* workplace
        const given = process.env["EFFECT_PROCESSORS_LARGE"]
        const file = given ?? join(cwd, "large.ndjson.gz")
        if (given === undefined) writeFileSync(file, gzipSync(multiplied(linesOf(g1), 30).join("\n"), { level: 1 }))
        const wanted = foldLines(linesOf(file))
        expect(wanted.deliveries).toBeGreaterThan(20_000)
        const ended = yield* Program.run(["-i", file, "-d", Program.addressOf(database)], { cwd })
        expect(ended).toMatchObject({ code: 0 })
        yield* expectTables(database, wanted)
        const peakMegabytes = Number(/^Peak memory {2}(\d+) MB$/m.exec(ended.stdout)?.[1])
        expect(peakMegabytes).toBeLessThan(300)
        context.annotate(`${/^.*per second.*$/m.exec(ended.stdout)?.[0]}, ${peakMegabytes} MB`).catch(() => undefined)
      }),
    runMillis
  )
})

/** A strand of one operation as document-drive 4 delivers it, the input as JSON text. */
const strand = (documentId: string, documentType: string, index: number, type: string, input: string): string =>
  `{"driveId":"drive","documentId":"${documentId}","documentType":"${documentType}","scope":"global","branch":"main",` +
  `"state":{},"operations":[{"id":"${documentId}${index}","index":${index},"skip":0,"type":"${type}","hash":"h",` +
  `"timestamp":"2026-01-01T00:00:00.000Z","input":${input}}]}`

/** As many copies of the recording as wanted, told apart by their document ids, one after the other. */
const multiplied = (lines: ReadonlyArray<string>, copies: number): ReadonlyArray<string> => {
  const ids = new Set(lines.map((line) => (JSON.parse(line) as { readonly documentId: string }).documentId))
  const known = new RegExp(Array.from(ids).join("|"), "g")
  return Array.from({ length: copies }, (_, i) => i.toString(16).padStart(4, "0")).flatMap((copy) =>
    lines.map((line) => line.replaceAll(known, (id) => `${copy}${id.slice(4)}`))
  )
}

describe("npm start, given what it cannot use", () => {
  const refuses = (
    title: string,
    prepare: (cwd: string) => {
      readonly args: ReadonlyArray<string>
      readonly env?: { readonly [name: string]: string }
      readonly stdin?: Readable
    },
    message: RegExp
  ) =>
    it.scopedLive(title, () =>
      Effect.gen(function*() {
        const cwd = yield* workplace
        const { args, env, stdin } = prepare(cwd)
        const ended = yield* Program.run(args, { cwd, env, stdin })
        expect(ended).toMatchObject({ code: 1, signal: null, stdout: "" })
        expect(ended.stderr).toMatch(message)
        expect(ended.stderr, "no stack trace").not.toMatch(/^\s+at /m)
      }), runMillis)

  const packed = readFileSync(g1)
  const lines = linesOf(g1)

  refuses(
    "a missing file",
    () => ({ args: ["-i", "nowhere.ndjson"] }),
    /^effect-processors: cannot read nowhere\.ndjson: there is no such file; check the path/
  )
  refuses(
    "one missing file among several",
    () => ({ args: ["-i", g1, "-i", "nowhere.ndjson"] }),
    /^effect-processors: cannot read nowhere/
  )
  refuses("a directory", (cwd) => ({ args: ["-i", cwd] }), /it is a directory; name the files in it\n$/)
  refuses("a gzip file cut in its first line", (cwd) => {
    writeFileSync(join(cwd, "cut.gz"), packed.subarray(0, 40))
    return { args: ["-i", "cut.gz"] }
  }, /^effect-processors: cannot read cut\.gz: its gzip data end within the first line; copy the file again\n$/)
  refuses("standard input twice", () => ({ args: ["-i", "-", "-i", "-"] }), /standard input can be given once/)
  refuses("an input without its path", () => ({ args: ["--input"] }), /a path, or -, has to follow it/)
  refuses(
    "a database without its address",
    () => ({ args: ["--database"] }),
    /'--database'[^]*--help tells what can be given\n$/
  )
  refuses(
    "an empty address, such as that of a variable which is not set",
    () => ({ args: ["-i", g1, "-d", ""] }),
    /^effect-processors: the address of the database cannot be used: directory is empty/
  )
  refuses(
    "an unknown flag",
    () => ({ args: ["--bogus"] }),
    /unknown argument: '--bogus'[^]*--help tells what can be given\n$/
  )
  refuses("a database below a file", (cwd) => {
    writeFileSync(join(cwd, "file"), "")
    return { args: ["-i", g1, "-d", "file/strands"] }
  }, /^effect-processors: cannot open the sqlite store .*strands: .*file is a file; name a directory/)
  refuses(
    "a directory that nobody may write to",
    (cwd) => ({ args: ["-i", g1, "-d", join(readOnly(cwd), "new", "strands")] }),
    /^effect-processors: cannot open the sqlite store .*strands: E[A-Z]+: .*; name a directory/
  )
  const noDatabase = "not a database, and long enough to look like something else\n".repeat(20)
  refuses("a file in place of a directory", (cwd) => {
    writeFileSync(join(cwd, "notes.txt"), noDatabase)
    return { args: ["-i", g1, "-d", "notes.txt"] }
  }, /^effect-processors: cannot open the sqlite store .*notes\.txt is a file; name a directory/)
  refuses("a file that is no database where a namespace has its own", (cwd) => {
    mkdirSync(join(cwd, "strands"))
    writeFileSync(join(cwd, "strands", `${Namespace.place(Namespace.make("search"))}.db`), noDatabase)
    return { args: ["-i", g1, "-d", "strands"] }
  }, /strands.search_[0-9a-f]{20}\.db: it is not an SQLite database; name another file/)
  describe("an address that is neither a PostgreSQL URL nor a directory:", () => {
    for (
      const [address, scheme] of [
        ["mysql://root:secret@localhost/strands", "mysql:"],
        ["postgresq://user:secret@localhost/strands", "postgresq:"],
        ["HTTPS://example.com", "HTTPS:"],
        ["file:strands.db", "file:"],
        [" postgres://user:secret@localhost/strands", " postgres:"],
        ["127.0.0.1:5432/strands", "127.0.0.1:"],
        [":memory:", ":"]
      ] as const
    ) {
      const words = `what begins with "${scheme}" is neither a PostgreSQL URL nor a directory`
      it.scopedLive(address, () =>
        Effect.gen(function*() {
          const cwd = yield* workplace
          const given = yield* Program.run(["-i", g1, "-d", address], { cwd })
          const found = yield* Program.run(["-i", g1], { cwd, env: { EFFECT_PROCESSORS_DATABASE: address } })
          for (const ended of [given, found]) {
            expect(ended).toMatchObject({ code: 1, signal: null, stdout: "" })
            expect(ended.stderr.replaceAll(/\s+/g, " ")).toContain(words)
            expect(ended.stderr.replaceAll(/\s+/g, " ")).toContain("write the path of a directory, or postgres://user:")
            expect(ended.stderr).not.toMatch(/secret|^\s+at /m)
          }
          expect(readdirSync(cwd)).toEqual([])
        }), runMillis)
    }
  })
  it.scopedLive(
    "a directory with a colon in its name is one if that is not how it begins",
    () =>
      Effect.gen(function*() {
        const cwd = yield* workplace
        expect(yield* Program.run(["-i", g1, "-d", "./a:b"], { cwd })).toMatchObject({ code: 0, signal: null })
        expect(readdirSync(cwd)).toEqual(["a:b"])
      }),
    runMillis
  )
  refuses(
    "a PostgreSQL address that is none",
    () => ({ args: ["-i", g1, "-d", "postgres://localhost"] }),
    /^effect-processors: the address of the database cannot be used: username is missing/
  )

  it.scopedLive("a PostgreSQL server that is not there", () =>
    Effect.gen(function*() {
      const cwd = yield* workplace
      const port = yield* freePort
      const ended = yield* Program.run(["-d", `postgres://user:secret@127.0.0.1:${port}/strands`], { cwd })
      expect(ended).toMatchObject({ code: 1, stdout: "" })
      expect(ended.stderr).toBe(
        `effect-processors: cannot open the pg store 127.0.0.1:${port}/strands: nothing listens there; ` +
          "start the server, or correct host and port\n"
      )
    }), runMillis)

  it.scopedLive.each(
    [
      ["a truncated gzip", packed.subarray(0, packed.length >> 1), /its gzip data end too early/],
      [
        "damaged gzip",
        Buffer.concat([packed.subarray(0, 30_000), Buffer.alloc(200), packed.subarray(30_200)]),
        /gzip data|line \d+/
      ],
      [
        "a broken line",
        Buffer.from([...lines.slice(0, 100), "{\"broken\": ", ...lines.slice(100)].join("\n")),
        /line 101: not JSON/
      ],
      [
        "a line that is no strand",
        Buffer.from([...lines.slice(0, 100), "{\"a\": 1}", ...lines.slice(100)].join("\n")),
        /line 101/
      ]
    ] as const
  )(
    "%s ends the run where it is, keeps what came before it, and goes on once it is mended",
    ([, bytes, message]) =>
      Effect.gen(function*() {
        const database = yield* Database.sqlite
        const cwd = yield* workplace
        const args = ["-i", "strands.ndjson", "-d", Program.addressOf(database)]
        writeFileSync(join(cwd, "strands.ndjson"), bytes)
        for (const attempt of [1, 2]) {
          const ended = yield* Program.run(args, { cwd })
          expect(ended, `attempt ${attempt}`).toMatchObject({ code: 1, stdout: "" })
          expect(ended.stderr).toMatch(message)
          expect(ended.stderr).toMatch(/search-index, drive-analytics, node-tree stopped: .*strands\.ndjson/)
          expect(ended.stderr).toMatch(/run again to go on from there\n$/)
          expect(ended.stderr, "no stack trace").not.toMatch(/^\s+at /m)
        }
        const found = yield* within(database, Tables.read)
        expect(found.drive_activity.length).toBeGreaterThan(0)

        writeFileSync(join(cwd, "strands.ndjson"), packed)
        expect(yield* Program.run(args, { cwd })).toMatchObject({ code: 0 })
        yield* expectTables(database, fold([g1]))
      }),
    runMillis
  )

  it.scopedLive(
    "nothing but a message: no database is made for an input that is not there",
    () =>
      Effect.gen(function*() {
        const cwd = yield* workplace
        yield* Program.run(["-i", "nowhere.ndjson"], { cwd })
        expect(readdirSync(cwd)).toEqual([])
      }),
    runMillis
  )

  it.scopedLive("an empty input is read to its end", () =>
    Effect.gen(function*() {
      const cwd = yield* workplace
      const ended = yield* Program.run(["-i", "-"], { cwd, stdin: Readable.from([]) })
      expect(ended).toMatchObject({ code: 0 })
      expect(ended.stdout).toContain(join(".effect-processors", "strands"))
      expect(ended.stdout).toContain("Held back: nothing.")
    }), runMillis)
})

describe("npm start -- --help", () => {
  it.scopedLive("names every option and the environment", () =>
    Effect.gen(function*() {
      const { code, stdout } = yield* Program.run(["--help"], { cwd: yield* workplace })
      expect(code).toBe(0)
      for (
        const word of [
          "--input",
          "--database",
          "--search",
          "EFFECT_PROCESSORS_INPUT",
          "EFFECT_PROCESSORS_DATABASE",
          "examples/data",
          "postgres://"
        ]
      ) {
        expect(stdout).toContain(word)
      }
    }), runMillis)
})

/** Nobody may write there: not even root into the kernel's own tree, and a user not where the rights are missing. */
const readOnly = (cwd: string): string => {
  if (process.getuid?.() === 0) return "/sys"
  const directory = join(cwd, "locked")
  mkdirSync(directory, { mode: 0o555 })
  return directory
}

const freePort = Effect.async<number>((resume) => {
  const server = createServer()
  server.listen(0, "127.0.0.1", () => {
    const { port } = server.address() as AddressInfo
    server.close(() => resume(Effect.succeed(port)))
  })
})
