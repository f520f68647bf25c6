/**
 * Mortal: a program that counts the statements it sends, and kills itself at one of them, as a power cut would, or stops
 * itself until somebody wakes it, or asks itself to end. What it sends to a thread at once counts as one, and is carried out, or is being, once it
 * has been sent.
 */
import Sqlite3 from "better-sqlite3"
import { writeSync } from "node:fs"
import { Worker } from "node:worker_threads"
import pg from "pg"
import type { Moment } from "./Sweep.js"

/** When to die. */
export interface Fate {
  /** The statement to die at, from 1; 0: none. */
  readonly killAt: number
  readonly moment: Moment
  /** A regular expression: only statements that match it are counted. Default: all are. */
  readonly among?: string | undefined
  /** A regular expression: nothing is counted before a statement that matches it. Default: all is. */
  readonly since?: string | undefined
  /** Before any but the default, SIGKILL, it says so in a line of its own. */
  readonly signal?: "SIGSTOP" | "SIGTERM" | undefined
}

/** That line. */
export const signalled = "signalled"

let posted = 0

/** What was sent to threads so far. */
export const messages = (): number => posted

/** Sends a signal to this process. */
export const end = (signal: Fate["signal"]): void => {
  if (signal !== undefined) writeSync(1, `${signalled}\n`)
  process.kill(process.pid, signal ?? "SIGKILL")
}

let isSpared = false

/** Nothing happens to this process any more. */
export const spare = (): void => {
  isSpared = true
}

/** Watches every statement of this process from now on, and returns how many there were so far. */
export const watch = ({ killAt, moment, ...fate }: Fate): () => number => {
  const among = fate.among === undefined ? undefined : new RegExp(fate.among)
  const since = fate.since === undefined ? undefined : new RegExp(fate.since)
  let isSince = since === undefined
  let statements = 0
  const die = (): void => {
    if (!isSpared) end(fate.signal)
  }

  /** Counts a statement and dies at its turn: before it, right after it was sent, or once it has been answered. */
  const count = <A>(text: string, send: () => A): A => {
    const isCounted = isSince && among?.test(text) !== false
    isSince ||= since?.test(text) === true
    const isTurn = isCounted && ++statements === killAt
    if (isTurn && moment === "before") die()
    const answer = send()
    if (isTurn && moment === "after") die()
    // The bytes leave with this turn of the event loop, and no answer is read before the next.
    if (isTurn && moment === "sent") setImmediate(die)
    return answer
  }

  const statement = Object.getPrototypeOf(new Sqlite3(":memory:").prepare("SELECT 1")) as
    & { readonly source: string }
    & { [name in "run" | "all"]: (...params: Array<unknown>) => unknown }
  for (const name of ["run", "all"] as const) {
    const send = statement[name]
    statement[name] = function(...params) {
      return count(this.source, () => send.apply(this, params))
    }
  }
  const worker = Worker.prototype as { postMessage: (this: Worker, ...args: Array<unknown>) => void }
  const post = worker.postMessage
  worker.postMessage = function(...args) {
    posted++
    return count("", () => {
      post.apply(this, args)
      if (statements === killAt && moment === "after") {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, killAt % 4)
      }
    })
  }
  const client = pg.Client.prototype as unknown as { query: (...args: Array<unknown>) => unknown }
  const query = client.query
  client.query = function(...args) {
    return count(textOf(args[0]), () => query.apply(this, args))
  }
  return () => statements
}

/** The text of what \`pg\` is asked. */
const textOf = (query: unknown): string =>
  typeof query === "object" && query !== null && "text" in query ? String(query.text) : String(query)
