/**
 * Readiness: the step before every script. It makes a fresh clone runnable and a changed one current.
 *
 *     package-lock.json ──▶ node_modules     npm ci, unless exactly the locked versions are installed
 *     the sources       ──▶ dist             tsc, unless the last build is younger than every source
 *
 * Its arguments name folders with a package of their own that this script needs as well, such as `bench/peers`.
 *
 * It says on stderr what it does and keeps silent when nothing is to be done: stdout belongs to the script that follows.
 * It needs Node and npm, nothing else. A failed step ends it with that step's exit code.
 */
import { spawnSync } from "node:child_process"
import { existsSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))
const sources = ["src", "layers", "migrations", "examples", "bench", "test", "vitest.config.ts", "tsconfig.json"]
const dist = join(root, "dist")
const stamp = join(dist, ".built")

for (const folder of [".", ...process.argv.slice(2)]) {
  if (isInstalled(folder)) continue
  const what = folder === "." ? "the dependencies" : `what ${folder} needs`
  run(`installing ${what} (npm ci)`, "npm", ["ci", "--include=dev", "--no-audit", "--no-fund"], join(root, folder))
}
if (!isBuilt()) build()

/** npm records what it installed in the same form as the lock file; optional packages of other platforms are absent. */
function isInstalled(folder) {
  const record = join(root, folder, "node_modules", ".package-lock.json")
  if (!existsSync(record)) return false
  const installed = packagesOf(record)
  return Object.entries(packagesOf(join(root, folder, "package-lock.json"))).every(([path, wanted]) =>
    path === "" || installed[path]?.version === wanted.version || (wanted.optional && installed[path] === undefined)
  )
}

function packagesOf(lockFile) {
  return JSON.parse(readFileSync(lockFile, "utf8")).packages
}

/** A folder's own time tells of a deleted file. */
function isBuilt() {
  if (!existsSync(stamp)) return false
  const builtAt = statSync(stamp).mtimeMs
  const paths = sources.filter((name) => existsSync(join(root, name))).flatMap((name) => [name, ...entriesBelow(name)])
  return [...paths, "package-lock.json"].every((path) => statSync(join(root, path)).mtimeMs < builtAt)
}

function entriesBelow(name) {
  if (!statSync(join(root, name)).isDirectory()) return []
  return readdirSync(join(root, name)).filter((entry) => entry !== "node_modules").flatMap((entry) => {
    const path = join(name, entry)
    return [path, ...entriesBelow(path)]
  })
}

/** The stamp bears the time the build began: a source saved meanwhile counts as newer. What tsc no longer emits goes. */
function build() {
  const begun = new Date()
  run("compiling (tsc)", process.execPath, [join("node_modules", "typescript", "bin", "tsc"), "-p", "tsconfig.json"])
  for (const entry of readdirSync(dist, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath ?? entry.path, entry.name)
    if (entry.isFile() && statSync(path).mtimeMs < begun.getTime()) rmSync(path)
  }
  writeFileSync(stamp, "")
  utimesSync(stamp, begun, begun)
}

function run(what, command, args, cwd = root) {
  console.error(`effect-processors: ${what}`)
  const { error, status } = spawnSync(command, args, {
    cwd,
    stdio: ["ignore", process.stderr, process.stderr],
    shell: process.platform === "win32" && command === "npm"
  })
  if (error !== undefined) console.error(error.message)
  if (status !== 0) process.exit(status ?? 1)
}
