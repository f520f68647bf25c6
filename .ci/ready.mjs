/**
 * Readiness: the step before every script. It makes a fresh clone runnable and a changed one current.
 *
 *     package-lock.json ──▶ node_modules     npm ci, unless exactly the locked versions are installed
 *     the sources       ──▶ dist             tsc, unless the last build is younger than every source
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

if (!isInstalled()) {
  run("installing the dependencies (npm ci)", "npm", ["ci", "--include=dev", "--no-audit", "--no-fund"])
}
if (!isBuilt()) build()

/** npm records what it installed in the same form as the lock file; optional packages of other platforms are absent. */
function isInstalled() {
  const record = join(root, "node_modules", ".package-lock.json")
  if (!existsSync(record)) return false
  const installed = packagesOf(record)
  return Object.entries(packagesOf(join(root, "package-lock.json"))).every(([path, wanted]) =>
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
  return readdirSync(join(root, name), { recursive: true }).map((entry) => join(name, entry))
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

function run(what, command, args) {
  console.error(`effect-processors: ${what}`)
  const { error, status } = spawnSync(command, args, {
    cwd: root,
    stdio: ["ignore", process.stderr, process.stderr],
    shell: process.platform === "win32" && command === "npm"
  })
  if (error !== undefined) console.error(error.message)
  if (status !== 0) process.exit(status ?? 1)
}
