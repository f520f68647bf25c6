/**
 * The program: `examples/main.ts` as it is built and shipped, run in a process of its own.
 */
import * as Effect from "effect/Effect"
import { spawn, spawnSync } from "node:child_process"
import { join } from "node:path"
import type { Readable } from "node:stream"
import { fileURLToPath } from "node:url"
import type { Database } from "../support/Database.js"
import * as Store from "../support/Store.js"

export const root = fileURLToPath(new URL("../..", import.meta.url))

/** A file of `examples/data`. */
export const dataFile = (name: string): string => join(root, "examples", "data", name)

/** What `npm start` reads when it is not told otherwise. */
export const defaultFiles: ReadonlyArray<string> = [
  "g1-strands.ndjson.gz",
  "g2-backfill-30.ndjson.gz",
  "g3-operations.ndjson.gz",
  "g3-reshuffle.ndjson.gz",
  "g3-concurrent.delivered.ndjson.gz"
].map(dataFile)

/** Builds what is not built from the present sources, as `npm start` does. */
export const build = (): void => {
  const { status, stderr } = spawnSync(process.execPath, [join(root, ".ci", "ready.mjs")], { encoding: "utf8" })
  if (status !== 0) throw new Error(`the build failed: ${stderr}`)
}

export interface Options {
  readonly cwd: string
  readonly env?: { readonly [name: string]: string } | undefined
  readonly stdin?: Readable | undefined
  /** Ends the program by this signal after so many lines of progress; 0: as soon as it says that it reads. */
  readonly signal?: { readonly name: NodeJS.Signals; readonly afterLines: number } | undefined
}

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs it to its end, whatever that is. */
export const run = (args: ReadonlyArray<string>, options: Options): Effect.Effect<Ended> =>
  Effect.async<Ended>((resume) => {
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("EFFECT_PROCESSORS_"))
    const child = spawn(process.execPath, [join(root, "dist", "examples", "main.js"), ...args], {
      cwd: options.cwd,
      env: { ...Object.fromEntries(inherited), ...options.env },
      stdio: ["pipe", "pipe", "pipe"]
    })
    let stdout = ""
    let stderr = ""
    let isSignalled = false
    child.stdout.setEncoding("utf8").on("data", (text: string) => void (stdout += text))
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text
      const { signal } = options
      if (signal !== undefined && !isSignalled && stderr.split("\n").length - 2 >= signal.afterLines) {
        isSignalled = child.kill(signal.name)
      }
    })
    // A program that ends early leaves a pipe that nobody reads.
    child.stdin.on("error", () => undefined)
    if (options.stdin === undefined) child.stdin.end()
    else options.stdin.pipe(child.stdin)
    child.on("close", (code, signal) => resume(Effect.succeed({ code, signal, stdout, stderr })))
    return Effect.sync(() => void child.kill("SIGKILL"))
  })

/** How the program is told to use a database. */
export const addressOf = (database: Database): string =>
  database.dialect === "sqlite" ? Store.directoryOf(database) : database.url
