/**
 * What the package declares, to a project that has only what every project needs: neither Kysely nor `@types/node`, and a
 * compiler that checks declarations as well.
 *
 *     src, layers ──▶ declarations ──▶ a project in a temporary folder, where the other packages are links ──▶ tsc
 */
import { describe, expect, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))

const tsc = (...args: ReadonlyArray<string>): string => {
  const compiler = join(root, "node_modules", "typescript", "bin", "tsc")
  return spawnSync(process.execPath, [compiler, ...args], { cwd: root, encoding: "utf8" }).stdout
}

/** What the compiler says to a file of such a project. */
const consume = (text: string): string => {
  const folder = mkdtempSync(join(tmpdir(), "effect-processors-consumer-"))
  const installed = join(folder, "node_modules")
  const framework = join(installed, "effect-processors")
  mkdirSync(framework, { recursive: true })
  for (const name of ["effect", "@effect"]) symlinkSync(join(root, "node_modules", name), join(installed, name))
  symlinkSync(join(root, "package.json"), join(framework, "package.json"))
  const write = (name: string, config: object) => writeFileSync(join(folder, name), JSON.stringify(config))
  write("emit.json", {
    extends: join(root, "tsconfig.json"),
    compilerOptions: {
      rootDir: root,
      outDir: join(framework, "dist"),
      emitDeclarationOnly: true,
      sourceMap: false,
      typeRoots: [join(root, "node_modules", "@types")]
    },
    include: [join(root, "src"), join(root, "layers"), join(root, "migrations")]
  })
  write("package.json", { type: "module" })
  writeFileSync(join(folder, "index.ts"), text)
  write("tsconfig.json", {
    compilerOptions: {
      target: "ES2022",
      module: "NodeNext",
      strict: true,
      noEmit: true,
      skipLibCheck: false,
      types: []
    },
    include: ["index.ts"]
  })
  const said = tsc("-p", join(folder, "emit.json")) + tsc("-p", folder)
  rmSync(folder, { recursive: true })
  return said
}

describe("a project without optional packages", () => {
  it("is told when what it imports is not there", () => {
    expect(consume(`import { Query } from "effect-processors/layers/Kysely"`)).toContain("TS2307")
  })

  it("compiles against the index and the layers, with skipLibCheck off", () => {
    expect(consume(`
      import { Processor, Query } from "effect-processors"
      import * as Sqlite from "effect-processors/layers/Sqlite"
      import * as Test from "effect-processors/layers/Test"
      export const all = [Processor.make, Query.kysely, Sqlite.layerMemory, Test.layer]`)).toBe("")
  })
})
