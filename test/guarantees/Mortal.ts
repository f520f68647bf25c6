/**
 * Mortal: a program that counts the statements it sends, and kills itself at one of them, as a power cut would. What it sends
 * to a thread at once counts as one, and is carried out, or is being, once it has been sent.
 */
import Sqlite3 from "better-sqlite3"
import { Worker } from "node:worker_threads"
import pg from "pg"
import type { Moment } from "./Sweep.js"

/** When to die. */
export interface Fate {
  /** The statement to die at, from 1; 0: none. */
  readonly killAt: number
  readonly moment: Moment
}

let posted = 0

/** What was sent to threads so far. */
export const messages = (): number => posted

/** Watches every statement of this process from now on, and returns how many there were so far. */
export const watch = ({ killAt, moment }: Fate): () => number => {
  let statements = 0
  const die = (): void => void process.kill(process.pid, "SIGKILL")

  /** Counts a statement and dies at its turn: before it, right after it was sent, or once it has been answered. */
  const count = <A>(send: () => A): A => {
    const isTurn = ++statements === killAt
    if (isTurn && moment === "before") die()
    const answer = send()
    if (isTurn && moment === "after") die()
    // The bytes leave with this turn of the event loop, and no answer is read before the next.
    if (isTurn && moment === "sent") setImmediate(die)
    return answer
  }

  const statement = Object.getPrototypeOf(new Sqlite3(":memory:").prepare("SELECT 1")) as {
    [name in "run" | "all"]: (...params: Array<unknown>) => unknown
  }
  for (const name of ["run", "all"] as const) {
    const send = statement[name]
    statement[name] = function(...params) {
      return count(() => send.apply(this, params))
    }
  }
  const worker = Worker.prototype as { postMessage: (this: Worker, ...args: Array<unknown>) => void }
  const post = worker.postMessage
  worker.postMessage = function(...args) {
    posted++
    return count(() => {
      post.apply(this, args)
      if (statements === killAt && moment === "after") {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, killAt % 4)
      }
    })
  }
  const client = pg.Client.prototype as unknown as { query: (...args: Array<unknown>) => unknown }
  const query = client.query
  client.query = function(...args) {
    return count(() => query.apply(this, args))
  }
  return () => statements
}
