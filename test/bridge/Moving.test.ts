/**
 * The page about moving a processor over: its code compiles against the published types, and prints what it says.
 */
import { describe, expect, it } from "@effect/vitest"
import { build } from "esbuild"
import { execFile } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import * as Compiler from "../support/Compiler.js"

const root = fileURLToPath(new URL("../..", import.meta.url))
const page = readFileSync(join(root, "examples/powerhouse/MOVING.md"), "utf8")
const packages = "test/powerhouse/node_modules"

/** The blocks of code, each named by its first line. */
const files = Array.from(page.matchAll(/```ts\n\/\/ (\S+\.ts)\n([^]*?)```/g), ([, name, text]) => ({
  name: name ?? "",
  text: text ?? ""
}))

describe("the page", () => {
  it("has no code without a name", () => {
    expect(files.map(({ name }) => name)).toEqual([
      "schema.ts",
      "migrations.ts",
      "processor.ts",
      "moved.ts",
      "factory.ts"
    ])
    expect(page.match(/```ts/g)).toHaveLength(files.length)
  })

  it("has code that compiles against the published types", () => {
    expect(Compiler.compile(files, {
      "effect-processors/layers/*": "layers/*.ts",
      "@powerhousedao/shared/*": `${packages}/@powerhousedao/shared/dist/*/index.d.ts`,
      kysely: `${packages}/kysely/dist/esm/index.d.ts`
    })).toBe("")
  })

  it("prints what it says", async () => {
    mkdirSync(join(root, "bench-output"), { recursive: true })
    const folder = mkdtempSync(join(root, "bench-output", "moving-"))
    for (const { name, text } of files) writeFileSync(join(folder, name), text)
    await build({
      entryPoints: [join(folder, "moved.ts")],
      outfile: join(folder, "moved.mjs"),
      bundle: true,
      platform: "node",
      format: "esm",
      logLevel: "silent",
      external: ["pg-native", "better-sqlite3"],
      nodePaths: [join(root, packages)],
      alias: {
        "effect-processors": join(root, "src/index.ts"),
        "effect-processors/layers/Test": join(root, "layers/Test.ts")
      },
      banner: { js: `import { createRequire } from "node:module"; const require = createRequire(import.meta.url);` }
    })
    const { stdout } = await promisify(execFile)(process.execPath, [join(folder, "moved.mjs")], { encoding: "utf8" })
    rmSync(folder, { recursive: true })
    const said = /It prints `([^`]+)`/.exec(page)?.[1]
    expect(stdout.split("\n").filter((line) => line.startsWith("[ {")).join()).toBe(said)
  })
})
