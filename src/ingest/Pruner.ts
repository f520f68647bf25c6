/**
 * A pruner: has the lines of a long backfill pruned by a thread, which parses all of a line, so that this one need only parse
 * what is left of it.
 *
 *     blocks ─┬─ until lines were seen to carry much state ──────────────────┬─▶ blocks, the lines of some pruned
 *             └─ from then on, some blocks ahead ──▶ thread ──▶ their lines ─┘
 *
 * Invariants: blocks come in their order, each once, with its lines or without; whoever reads them makes the same of both,
 * since a pruned line says the same (see `Pruning`), and of any other looks at the bytes. A thread that cannot be started, or
 * that dies, is done without.
 */

import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import { availableParallelism } from "node:os"
import type * as Blocks from "./Blocks.js"
import * as PrunerThread from "./PrunerThread.js"
import type { Lines } from "./PrunerThread.js"
import { prune } from "./Pruning.js"

/** A block, and its lines if they were looked for. */
export interface Piece {
  readonly block: Buffer
  readonly lines: Lines | undefined
}

/** As of `Blocks`. */
export interface Read {
  readonly pieces: ReadonlyArray<Piece>
  readonly end: Blocks.Read["end"]
}

/** When a thread is started, and how far it goes ahead. */
export interface Bounds {
  /** Bytes of lines that are read before: of fewer, the start of a thread costs more than it saves. */
  readonly bytes: number
  /** What pruning leaves of those lines, at most: a part of 1. */
  readonly left: number
  /** Threads of this process, at most. */
  readonly threadsMax: number
  /** Reads that are ahead of what is asked for, at most. */
  readonly readsMax: number
  /** Bytes that are ahead; the read that reaches the bound may exceed it. */
  readonly bytesMax: number
  /** Whether it is started before the first byte, whatever there is, and waited for. */
  readonly isAtOnce: boolean
}

export const defaults: Bounds = {
  bytes: 4 * 1024 * 1024,
  left: 0.75,
  threadsMax: Math.floor(availableParallelism() / 2),
  readsMax: 8,
  bytesMax: 2 * 1024 * 1024,
  isAtOnce: false
}

/** The bounds of the sources that are made here; {@link defaults} unless given. */
export class Limits extends Context.Reference<Limits>()("effect-processors/Pruner/Limits", {
  defaultValue: (): Bounds => defaults
}) {}

/** The longest line that a thread parses, in bytes. */
const lineBytesMost = 4 * 1024 * 1024

/** How many lines are tried before a thread is started. */
const trials = 16

/** Threads of this process. */
let running = 0

/** A pruner for one reading of a source whose lines are so long at most. Its thread ends with the scope. */
export const make = (bounds: Bounds, lineBytesMax: number): Effect.Effect<Pruner, never, Scope.Scope> =>
  Effect.map(Effect.scope, (scope) => new Pruner(bounds, Math.min(lineBytesMax, lineBytesMost), scope))

export class Pruner {
  private thread: PrunerThread.PrunerThread | undefined = undefined
  private isDue: boolean
  private bytes = 0
  private readonly tried = { bytes: 0, left: 0 }
  private trialAt: number

  constructor(
    private readonly bounds: Bounds,
    private readonly lineBytesMax: number,
    private readonly scope: Scope.Scope
  ) {
    this.isDue = bounds.isAtOnce
    this.trialAt = bounds.bytes / trials
  }

  /** Learns from a line that was read as it is. */
  saw(text: string, bytes: number): void {
    if (this.bytes >= this.bounds.bytes) return
    this.bytes += bytes
    if (this.bytes < this.trialAt) return
    this.trialAt += this.bounds.bytes / trials
    this.tried.bytes += text.length
    this.tried.left += (prune(text) ?? text).length
    if (this.bytes >= this.bounds.bytes) this.isDue = this.tried.left <= this.bounds.left * this.tried.bytes
  }

  /** The reads of a file, one after another. `held` is the start of the line that the next one goes on with. */
  over(blocks: Blocks.Blocks, held: () => Uint8Array): Effect.Effect<Effect.Effect<Read>, never, Scope.Scope> {
    return Effect.map(Effect.scope, (scope) => {
      let ahead: Effect.Effect<Read> | undefined
      const next: Effect.Effect<Read> = Effect.suspend(() => {
        const { bounds, thread } = this
        if (ahead !== undefined) return ahead
        if (this.isDue) return Effect.zipRight(this.start, next)
        if (thread?.isReady !== true) return Effect.map(blocks.next, withoutLines)
        return Effect.flatMap(Scope.extend(readAhead(blocks, thread, held(), bounds), scope), (reads) => {
          ahead = reads
          return reads
        })
      })
      return next
    })
  }

  /** Starts the thread, where there may be one more. */
  private get start(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.isDue = false
      if (running >= this.bounds.threadsMax) return Effect.void
      return Effect.acquireRelease(Effect.sync(() => running++), () => Effect.sync(() => running--)).pipe(
        Effect.zipRight(PrunerThread.start({ lineBytesMax: this.lineBytesMax })),
        Effect.tap((thread) => {
          this.thread = thread
          return this.bounds.isAtOnce ? thread?.started : undefined
        }),
        Scope.extend(this.scope)
      )
    })
  }
}

const withoutLines = ({ blocks, end }: Blocks.Read): Read => ({
  pieces: blocks.map((block) => ({ block, lines: undefined })),
  end
})

/** A read of which the thread looks through the blocks. */
interface Pending {
  readonly pieces: ReadonlyArray<{ readonly block: Buffer; lines: Lines | undefined }>
  /** Of how many it is still to tell. */
  open: number
  readonly bytes: number
  readonly end: Read["end"]
}

/** Reads on in a fiber of the scope, so many reads and bytes ahead of what is returned. */
const readAhead = (
  blocks: Blocks.Blocks,
  thread: PrunerThread.PrunerThread,
  held: Uint8Array,
  { bytesMax, readsMax }: Bounds
): Effect.Effect<Effect.Effect<Read>, never, Scope.Scope> =>
  Effect.gen(function*() {
    // A queue's own nodes would live on, each with the next one, until old garbage is collected, and all the text with them.
    const reads: Array<Pending> = []
    const news = yield* Effect.makeLatch(false)
    const room = yield* Effect.makeLatch(true)
    let bytes = 0
    let begun: Uint8Array | undefined = held
    // What is ahead, and what was returned last.
    blocks.keep(readsMax + 1)

    const put = (one: Pending): void => {
      reads.push(one)
      bytes += one.bytes
      if (reads.length >= readsMax || bytes >= bytesMax) room.unsafeClose()
      for (const piece of one.pieces) {
        thread.ask(piece.block, begun, (lines) => {
          piece.lines = lines
          if (--one.open === 0) news.unsafeOpen()
        })
        begun = undefined
      }
      if (one.open === 0) news.unsafeOpen()
    }
    const read = Effect.map(Effect.zipRight(room.await, blocks.next), ({ blocks: found, end }) => {
      put({
        pieces: found.map((block) => ({ block, lines: undefined })),
        open: found.length,
        bytes: found.reduce((sum, { length }) => sum + length, 0),
        end
      })
      return end === "no"
    })
    yield* Effect.forkScoped(Effect.repeat(read, { while: (isMore) => isMore }))

    const next: Effect.Effect<Read> = Effect.suspend(() => {
      if (reads[0]?.open !== 0) {
        news.unsafeClose()
        return Effect.zipRight(news.await, next)
      }
      const one = reads.shift()!
      bytes -= one.bytes
      if (bytes < bytesMax) room.unsafeOpen()
      return Effect.succeed(one)
    })
    return Effect.zipRight(turn, next)
  })

/** One turn of the event loop: what is ahead comes without one, and others wait for answers meanwhile. */
const turn: Effect.Effect<void> = Effect.async((resume) => {
  const immediate = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(immediate))
})
