/**
 * The rules of the tree that neither the compiler nor the linter knows, each with what to do when it is broken.
 *
 * Source text is matched with comments and strings taken out by a rough scanner: enough for these rules, and no parser.
 */
import { describe, expect, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))

/** Every layer may import from itself and from those before it; what stands in one row is of one rank. */
const layers: ReadonlyArray<ReadonlyArray<string>> = [
  ["domain"],
  ["ingest"],
  ["table"],
  ["process"],
  ["store"],
  ["schema", "journal"],
  ["vitals"],
  ["Subscription.ts", "Intermission.ts"],
  ["Replay.ts"],
  ["Rebuild.ts"],
  ["Revision.ts"],
  ["Reactor.ts"],
  ["cli", "powerhouse", "testing"],
  ["index.ts"]
]

const drivers = ["better-sqlite3", "pg", "@effect/sql-pg", "@effect/sql-sqlite-node"]
const driverFolders = ["layers", "bench", "test"]

const bannedInSource: ReadonlyArray<{ readonly pattern: RegExp; readonly instead: string }> = [
  { pattern: /(?<![.\w$])async\s*(?=[\w$(*])/, instead: "Effect.gen or Effect.promise instead of async" },
  { pattern: /(?<![.\w$])try\s*\{/, instead: "Effect.try instead of try" },
  { pattern: /\bDate\.now\b/, instead: "Clock instead of Date.now" },
  { pattern: /\bnew\s+Date\s*\(/, instead: "Clock or DateTime instead of new Date" },
  { pattern: /\bMath\.random\b/, instead: "Random instead of Math.random" },
  { pattern: /(?<![.\w$])console\./, instead: "Effect.log instead of console" },
  { pattern: /\bas\s+any\b/, instead: "a type instead of as any" }
]

const namesOfNothing = ["utils", "helpers", "common", "types", "errors", "manager", "base"]

const topLevel = [
  "package.json",
  "package-lock.json",
  "tsconfig.json",
  "src",
  "migrations",
  "layers",
  "test",
  "examples",
  "bench",
  "README.md",
  "LICENSE",
  "vitest.config.ts",
  "dprint.json"
]

/** What git tracks or would track. A copy without its history is read from the disk. */
const listFiles = (): ReadonlyArray<string> => {
  if (!existsSync(join(root, ".git"))) {
    const generated = ["node_modules", "dist", "bench-output"]
    return readdirSync(root, { withFileTypes: true })
      .filter((entry) => !generated.includes(entry.name))
      .flatMap((entry) => entry.isDirectory() ? filesBelow(entry.name) : [entry.name])
  }
  // The tree may belong to somebody else than who runs the tests, which git takes for a danger; reading names is none.
  const args = ["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
  return execFileSync("git", args, { cwd: root, encoding: "utf8" })
    .split("\0")
    .filter((path) => path !== "" && existsSync(join(root, path)))
}

const filesBelow = (folder: string): ReadonlyArray<string> =>
  readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length))
    .filter((path) => !path.includes("/node_modules/"))

interface SourceFile {
  readonly path: string
  readonly text: string
}

const read = (path: string): SourceFile => ({ path, text: readFileSync(join(root, path), "utf8") })

const files = listFiles()

const sourcesIn = (...folders: ReadonlyArray<string>): ReadonlyArray<SourceFile> =>
  files.filter((path) => /\.[jt]s$/.test(path) && folders.includes(topOf(path))).map(read)

const topOf = (path: string): string => path.split("/")[0] ?? path

const comment = String.raw`\/\*[\s\S]*?\*\/|\/\/[^\n]*`
const string = String.raw`"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'`
const template = "`(?:\\\\[\\s\\S]|[^`\\\\])*`"

const withoutComments = (text: string): string =>
  text.replace(new RegExp(`${comment}|(${string}|${template})`, "g"), (_, kept: string | undefined) => kept ?? " ")

const withoutCommentsAndStrings = (text: string): string =>
  text.replace(new RegExp(`${comment}|${string}|${template}`, "g"), "\"\"")

const importsOf = (file: SourceFile): ReadonlyArray<string> =>
  Array.from(
    withoutComments(file.text).matchAll(/(?:\bfrom|\bimport|\bimport\s*\()\s*["']([^"'\n]+)["']/g),
    (match) => match[1] ?? ""
  )

const isFrom = (specifier: string, packageName: string): boolean =>
  specifier === packageName || specifier.startsWith(`${packageName}/`)

const rankOf = (path: string): number => layers.findIndex((names) => names.includes(path.split("/")[1] ?? ""))

const orderOfLayers = layers.map((names) => names.join(", ")).join(" → ")

const wrongImports = (file: SourceFile): ReadonlyArray<string> => {
  const rank = rankOf(file.path)
  if (rank === -1) return [`${file.path} is in no layer`]
  return importsOf(file)
    .filter((specifier) => specifier.startsWith("."))
    .map((specifier) => join(dirname(file.path), specifier).replace(/\.js$/, ".ts"))
    .filter((target) => topOf(target) === "src" && rankOf(target) > rank)
    .map((target) => `${file.path} imports ${target}`)
}

const strayDrivers = (file: SourceFile): ReadonlyArray<string> =>
  importsOf(file)
    .filter((specifier) => drivers.some((driver) => isFrom(specifier, driver)))
    .map((specifier) => `${file.path} imports ${specifier}`)

/** How the declarations of one file import the types of a package that may be missing; see the comment there. */
const optionalTypes = {
  path: "src/process/Query.ts",
  text: `/** @ts-ignore */\nimport type * as Kysely from "kysely"\n`
}

const bannedIn = (file: SourceFile): ReadonlyArray<string> => {
  const code = withoutCommentsAndStrings(file.text)
  const found = bannedInSource.filter(({ pattern }) => pattern.test(code)).map(({ instead }) => instead)
  const text = file.path === optionalTypes.path ? file.text.replace(optionalTypes.text, "") : file.text
  return (text.includes("@ts-ignore") ? [...found, "a type instead of @ts-ignore"] : found)
    .map((instead) => `${file.path}: ${instead}`)
}

/** Spelt so that this file does not break its own rule. */
const placesOfOneMachine = [/(?<![\w.])\/(?:root|home|work)\//, /https?:\/\/registry\./]

describe("the tree", () => {
  it("src imports in one direction", () => {
    expect(sourcesIn("src").flatMap(wrongImports), `the order is ${orderOfLayers}`).toEqual([])
  })

  it("only layers, bench and test import a database driver", () => {
    const others = sourcesIn("src", "migrations", "examples").flatMap(strayDrivers)
    expect(others, `a SqlClient comes from a Layer; drivers belong in ${driverFolders.join(", ")}`).toEqual([])
  })

  it("src loads kysely, which is optional, only once it is asked for", () => {
    const statement = /^(?:import|export) (?!type )(?:(?!\bfrom\b)[^])*?from "kysely"/m
    const atStart = sourcesIn("src").filter(({ text }) => statement.test(text))
    expect(atStart.map(({ path }) => path), "import its types, and the rest through KyselyDialect.load").toEqual([])
  })

  it("src leaves time, chance, output and failure to Effect", () => {
    expect(sourcesIn("src").flatMap(bannedIn), "write it with Effect, so that a test can drive it").toEqual([])
  })

  it("every file of src, layers and migrations opens by saying what it is", () => {
    const silent = sourcesIn("src", "layers", "migrations").filter(({ text }) => !text.startsWith("/**"))
    expect(silent.map(({ path }) => path), "the first line is /** and then the file's noun in a sentence").toEqual([])
  })

  it("no file has a name that fits anything", () => {
    const vague = files.filter((path) => namesOfNothing.includes(basename(path).split(".")[0]?.toLowerCase() ?? ""))
    expect(vague, "name the file for its one noun").toEqual([])
  })

  it("nothing names a place of one machine or a package registry", () => {
    const bound = files.map(read).filter(({ text }) => placesOfOneMachine.some((place) => place.test(text)))
    expect(bound.map(({ path }) => path), "use a relative path; leave the registry to npm's own settings").toEqual([])
  })

  it("the lock files leave the registry open", () => {
    const locks = files.filter((path) => basename(path) === "package-lock.json")
    // A package of the tree itself is resolved to its folder.
    const bound = locks.flatMap((path) => read(path).text.split("\n")).filter((line) => /"resolved": "\w+:/.test(line))
    expect(locks).toContain("package-lock.json")
    expect(bound, "run: npm install --package-lock-only --omit-lockfile-registry-resolved").toEqual([])
  })

  it("every script of package.json that another runs, and every benchmark, is there", () => {
    const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
      readonly scripts: { readonly [name: string]: string }
    }
    const run = Object.values(scripts).flatMap((text) =>
      Array.from(text.matchAll(/npm run ([\w:]+)/g), ([, name]) => name)
    )
    const benchmarks = files.flatMap((path) => /^bench\/([a-z]+)\.ts$/.exec(path)?.slice(1) ?? [])
    const wanted = new Set([...run, ...benchmarks.map((name) => `bench:${name}`)])
    expect(benchmarks.filter((name) => !run.includes(`bench:${name}`)), "name it in the script bench").toEqual([])
    expect([...wanted].filter((name) => !Object.hasOwn(scripts, name ?? "")), "give it a script").toEqual([])
  })

  it("the top level holds what the README shows, and dotfiles", () => {
    const strangers = new Set(files.map(topOf).filter((name) => !name.startsWith(".") && !topLevel.includes(name)))
    expect([...strangers], "find it a place below one of the folders").toEqual([])
  })
})

describe("the scanner of this test", () => {
  const scan = (text: string) => bannedIn({ path: "src/a.ts", text })

  it("sees code", () => {
    const code = [
      "async () => 1",
      "try {\n}",
      "Date.now()",
      "new Date()",
      "Math.random()",
      "console.log(1)",
      "x as any"
    ]
    expect(code.filter((text) => scan(text).length === 0)).toEqual([])
  })

  it("sees neither comments, strings nor Effect's own verbs", () => {
    const fine = ["// new Date()", "/* try { */", "\"as any\"", "`console.log`", "Effect.async(f)", "Effect.try({})"]
    expect(fine.flatMap(scan)).toEqual([])
  })

  it("sees every way to import", () => {
    const text = `import a from "pg"\nimport {\n  b\n} from "pg/b"\nexport * from "pg/c"\nimport("pg/d")\nimport "pg/e"`
    expect(strayDrivers({ path: "src/a.ts", text })).toHaveLength(5)
    expect(strayDrivers({ path: "src/a.ts", text: "// import \"pg\"\nimport \"pg-types\"" })).toEqual([])
  })

  it("knows which layer comes first", () => {
    const text = `import type { A } from "../store/A.js"`
    expect(wrongImports({ path: "src/vitals/B.ts", text })).toEqual([])
    expect(wrongImports({ path: "src/domain/B.ts", text })).toEqual(["src/domain/B.ts imports src/store/A.ts"])
    expect(wrongImports({ path: "src/elsewhere/B.ts", text: "" })).toEqual(["src/elsewhere/B.ts is in no layer"])
  })
})
