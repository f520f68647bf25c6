/**
 * A subject: a program under measurement, run in a process of its own so that none profits from another's warm-up.
 */
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"

/** What a subject prints, as one line of JSON, when it is done. */
export interface Reading {
  /** Operations read, redelivered ones included. */
  readonly operations: number
  /** From opening the database to closing it, in seconds; the start of the process is not in it. */
  readonly seconds: number
  /** The largest resident set of the process, in megabytes. */
  readonly peakMegabytes: number
  /** Transactions. */
  readonly commits: number
}

export interface Subject {
  readonly name: string
  /** Its program, beside the benchmark: `subjects/….js`. */
  readonly program: string
}

/** Runs a subject once and returns its reading. Throws with the subject's own output when it fails. */
export const run = (subject: Subject, args: ReadonlyArray<string>): Reading => {
  const program = fileURLToPath(new URL(`../${subject.program}`, import.meta.url))
  const done = spawnSync(process.execPath, [program, ...args], { encoding: "utf8" })
  if (done.status !== 0) throw new Error(`${subject.name} failed\n${done.stdout}${done.stderr}`)
  return JSON.parse(done.stdout.trim().split("\n").at(-1) ?? "") as Reading
}

/** Called by a subject at its end. */
export const report = (reading: Omit<Reading, "peakMegabytes">): void => {
  const peakMegabytes = process.resourceUsage().maxRSS / 1024
  process.stdout.write(`${JSON.stringify({ ...reading, peakMegabytes })}\n`)
}
