/**
 * A subject: a program under measurement, run in a process of its own so that none profits from another's warm-up.
 *
 *     run ──▶ node program <args> ──▶ its last line: a reading
 */
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import type * as Search from "../subjects/search.js"
import { digestOf } from "../subjects/search.js"
import type { Quantiles } from "./Quantiles.js"

/** What a subject prints, as one line of JSON, when it is done. */
export interface Reading {
  /** Operations read, redelivered ones included. */
  readonly operations: number
  /** From opening the database to the last commit, in seconds; the start of the process is not in it. */
  readonly seconds: number
  /** The largest resident set of the process until then, in megabytes. */
  readonly peakMegabytes: number
  /** Transactions. */
  readonly commits: number
  /** What the search index held afterwards. */
  readonly outcome: Search.Digest
  /** Of the subjects that measure it: how long each took. */
  readonly latency?: { readonly [what in Timing]?: Quantiles }
}

/**
 * A commit, the read of one row by its key, or from the begin of an operation's append until its row can be read, or until it
 * is committed.
 */
export type Timing = "commit" | "read" | "append" | "appendToCommit"

export interface Subject {
  readonly name: string
  /** Its program: a URL, or a path beside the benchmark, `subjects/….js`. */
  readonly program: string
}

/** Runs a subject once and returns what it reports. Throws with the subject's own output when it fails. */
export const run = <A = Reading>(subject: Subject, args: ReadonlyArray<string>): Promise<A> => {
  const program = fileURLToPath(new URL(subject.program, new URL("..", import.meta.url)))
  return new Promise((resolve, reject) => {
    let said = ""
    let complained = ""
    const child = spawn(process.execPath, [program, ...args], { stdio: ["ignore", "pipe", "pipe"] })
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      said += text
    })
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      complained = (complained + text).slice(-10_000)
    })
    child.once("error", reject)
    child.once("close", (code) => {
      if (code === 0) resolve(JSON.parse(said.trim().split("\n").at(-1) || "null") as A)
      else reject(new Error(`${subject.name} failed\n${said}${complained}`))
    })
  })
}

/** Called by a subject at its last commit: stops the clock, then looks at the table. */
export const report = async (
  done: Pick<Reading, "operations" | "commits" | "latency"> & { readonly started: number },
  table: () => Iterable<Search.SearchRow> | Promise<Iterable<Search.SearchRow>>
): Promise<void> => {
  const seconds = (performance.now() - done.started) / 1000
  const peakMegabytes = process.resourceUsage().maxRSS / 1024
  const { started: _, ...rest } = done
  const reading: Reading = { ...rest, seconds, peakMegabytes, outcome: digestOf(await table()) }
  process.stdout.write(`${JSON.stringify(reading)}\n`)
}
