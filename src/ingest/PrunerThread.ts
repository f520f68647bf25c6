/**
 * A pruner's thread: looks for the lines of blocks and prunes them, while this one goes on.
 *
 *     block ──▶ message ──▶ `PrunerWorker` ──▶ message ──▶ its lines
 *
 * Invariants: answers come in the order of the blocks; once the thread is over each is `undefined`. It keeps the process alive
 * only while answers are waited for.
 */

import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import type * as Scope from "effect/Scope"
import { Worker } from "node:worker_threads"

/** What a thread is started with. */
export interface Start {
  /** Lines that are longer, in bytes, are not pruned. */
  readonly lineBytesMax: number
}

/** A block to be looked through. */
export interface Request {
  readonly block: Uint8Array
  /** How the line begins that the block goes on with, where that was not in the block before. */
  readonly held: Uint8Array | undefined
}

/** The lines that end in a block. */
export interface Lines {
  /** Where each ends: the place of its newline in the block. */
  readonly ends: ReadonlyArray<number>
  /** What is left of each, with what blocks before hold of it; empty for one that is to be read as it is. */
  readonly texts: ReadonlyArray<string>
}

type Tell = (lines: Lines | undefined) => void

/** Starts one; `undefined` where there can be no threads. It ends with the scope, and is waited for. */
export const start = (options: Start): Effect.Effect<PrunerThread | undefined, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.orElseSucceed(Effect.try(() => new PrunerThread(options)), () => undefined),
    (thread) => thread?.close ?? Effect.void
  )

export class PrunerThread {
  private readonly worker: Worker
  private readonly waiting: Array<Tell> = []
  private readonly settled = Deferred.unsafeMake<void>(FiberId.none)
  private state: "starting" | "ready" | "over" = "starting"

  /** Throws where there can be no threads. */
  constructor(options: Start) {
    // What the program preloads is none of its business.
    this.worker = new Worker(new URL("./PrunerWorker.js", import.meta.url), { workerData: options, execArgv: [] })
    this.worker.unref()
    this.worker.on("message", (message: Lines | "ready") => this.told(message))
    this.worker.on("messageerror", () => void this.worker.terminate())
    // Whatever it died of, its work is done without it; unheard, this would end the process.
    this.worker.on("error", () => {})
    this.worker.once("exit", () => this.exited())
  }

  get isReady(): boolean {
    return this.state === "ready"
  }

  /** Waits until it is ready, or over. */
  get started(): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.state === "starting") this.worker.ref()
      return Deferred.await(this.settled)
    })
  }

  /** Has it look through a block, which must not be overwritten before `tell` was called with the answer. */
  ask(block: Buffer, held: Uint8Array | undefined, tell: Tell): void {
    if (this.state === "over") return tell(undefined)
    if (this.waiting.push(tell) === 1) this.worker.ref()
    const request: Request = { block: portable(block), held }
    this.worker.postMessage(request)
  }

  private told(message: Lines | "ready"): void {
    if (message === "ready") {
      this.state = "ready"
      if (this.waiting.length === 0) this.worker.unref()
      this.settle()
    } else {
      this.answer(message)
    }
  }

  private answer(lines: Lines | undefined): void {
    const tell = this.waiting.shift()
    if (this.waiting.length === 0) this.worker.unref()
    tell?.(lines)
  }

  private exited(): void {
    this.state = "over"
    this.settle()
    while (this.waiting.length > 0) this.answer(undefined)
  }

  private settle(): void {
    Deferred.unsafeDone(this.settled, Effect.void)
  }

  get close(): Effect.Effect<void> {
    return Effect.promise(() => this.worker.terminate())
  }
}

/** Shared memory is seen by both, and anything else is copied with all that lies under it: no more than needed. */
const portable = (block: Buffer): Uint8Array =>
  block.buffer instanceof SharedArrayBuffer || block.byteLength === block.buffer.byteLength
    ? block
    : new Uint8Array(block)
