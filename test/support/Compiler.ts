/**
 * The compiler: what TypeScript says about files of a test, by the project's own settings.
 */
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))

/**
 * Nothing when they compile. They find packages where the project does, or at these paths from the root, and the framework
 * by its name.
 */
export const compile = (
  files: ReadonlyArray<{ readonly name: string; readonly text: string }>,
  paths: { readonly [name: string]: string } = {}
): string => {
  mkdirSync(join(root, "bench-output"), { recursive: true })
  const folder = mkdtempSync(join(root, "bench-output", "typings-"))
  for (const { name, text } of files) writeFileSync(join(folder, name), text)
  const config = {
    extends: "../../tsconfig.json",
    compilerOptions: {
      noEmit: true,
      rootDir: "../..",
      pretty: false,
      paths: {
        "effect-processors": ["../../src/index.ts"],
        ...Object.fromEntries(Object.entries(paths).map(([name, path]) => [name, [`../../${path}`]]))
      }
    },
    include: ["."],
    exclude: []
  }
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(config))
  const tsc = join("node_modules", "typescript", "bin", "tsc")
  const { stderr, stdout } = spawnSync(process.execPath, [tsc, "-p", folder], { cwd: root, encoding: "utf8" })
  rmSync(folder, { recursive: true })
  return stdout + stderr
}
