/**
 * An inbox: the source of what is delivered to us and cannot be asked for again, but for a document in the archive.
 *
 *     put(strands) ──▶ │ waiting, each with its position │ ──▶ subscription ──▶ commit ──▶ settled ──▶ put returns
 *                                    └─ supplied again when the subscription opens again
 *
 * A position is a mark and a number: 32 bits of how far the archive of the reactor has been read through, and 31 bits that
 * count the strands since. So the cursor, which is committed with the writes, also says from where the archive has to be
 * read after a restart. Without an archive the mark stays 0.
 *
 * Invariants: positions ascend and are never given twice, also where the subscription opens again; a strand leaves only
 * when a commit of this very inbox has passed it, or all are given back with a failure. What is not in the inbox is read
 * from nowhere: after a restart it is the reactor, or its archive, that supplies what was not committed, and what was
 * committed and comes again is dropped by the progress of its stream.
 */

import * as Chunk from "effect/Chunk"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Position from "../domain/Position.js"
import { Branch, DocumentId, DocumentType, Scope } from "../domain/Strand.js"
import type { Strand } from "../domain/Strand.js"
import * as Source from "../ingest/Source.js"
import type { SourceError, Unplaced } from "../ingest/Source.js"

/** The bits of a position that count strands. */
const countBits = 31n

/** The highest mark that a position holds, 2^32 - 1: the ordinals of the real system have 31 bits. */
export const markMax = 4_294_967_295

/** The position right at a mark. */
export const positionOf = (mark: number): Position.Position => Position.make(BigInt(mark) << countBits)

/** How far the archive was read through at a position. */
export const markOf = (position: Position.Position): number => Number(position >> countBits)

/** The most strands that are supplied at once. */
const chunkMax = 1_000

/** Where a processor begins that wants nothing of what was before it came, and there is no archive to tell where that is. */
const behindNothing = Position.make(1n)

export interface Inbox<E> {
  readonly source: Context.Tag.Service<Source.Source>
  /** The mark of the cursor, once the subscription has opened. */
  readonly opened: Effect.Effect<number>
  /** Resolves once all of it is committed, and fails as {@link fail} says. */
  readonly put: (strands: ReadonlyArray<Unplaced>) => Effect.Effect<void, E>
  /** Moves the mark behind all that was put before; the cursor follows in its own time. A lower mark does nothing. */
  readonly mark: (mark: number) => Effect.Effect<void>
  /** What has a position up to this one is in the database. */
  readonly settled: (position: Position.Position) => Effect.Effect<void>
  /** Gives back all that waits, of which nothing is known to be in the database, and refuses what comes. */
  readonly fail: (failure: E) => Effect.Effect<void>
  /** What it was failed with first. */
  readonly failure: () => E | undefined
}

/** What an archive adds to an inbox. */
export interface Past {
  /** The mark at which a processor begins that wants only what comes from now on. */
  readonly head: Effect.Effect<number, SourceError>
  /** All of a document that the archive has. */
  readonly document: (documentId: string) => Stream.Stream<Unplaced, SourceError>
}

/** An empty inbox. */
export const make = <E>(name: string, past: Past | undefined): Effect.Effect<Inbox<E>> =>
  Effect.gen(function*() {
    const opened = yield* Deferred.make<number>()
    const pile = new Pile<E>(name, yield* Effect.makeLatch(false))
    return {
      source: {
        name: Source.name(name),
        strands: (after) => pile.read(after, opened),
        head: Effect.suspend(() =>
          pile.isOpened
            ? Effect.succeed(Option.some(pile.last))
            : Effect.map(
              past?.head ?? Effect.succeed(0),
              (mark) => Option.some(mark === 0 ? behindNothing : positionOf(mark))
            )
        ),
        ...(past === undefined ? { onlyOnce: notKept } : {
          onlyOnce: notInOrder,
          // The archive knows nothing of our positions. What was not committed yet, the progress of its stream tells.
          document: (documentId, through) =>
            Stream.map(past.document(documentId), (strand) => ({ ...strand, position: through }))
        })
      },
      opened: Deferred.await(opened),
      put: (strands) => strands.length === 0 ? Effect.void : pile.put(strands),
      mark: (mark) => Effect.sync(() => pile.mark(mark)),
      settled: (position) => Effect.suspend(() => pile.settled(position)),
      fail: (failure) => Effect.suspend(() => pile.fail(failure)),
      failure: () => pile.failure
    }
  })

const notKept = "what a reactor delivers is not kept here; give the bridge an archive of its store, " +
  "or have the processor follow an OperationStore"

const notInOrder = "what a reactor delivers is not kept here, and its archive has single documents alone; have the " +
  "processor follow an OperationStore, or begin anew under another name"

/** A strand that waits; without one it is a mark. */
interface Entry<E> {
  readonly strand: Unplaced
  readonly mark: number
  position: Position.Position
  /** Completed once this and all before it is committed. */
  done: Deferred.Deferred<void, E> | undefined
}

/** What waits, in the order in which it came. */
class Pile<E> {
  private entries: Array<Entry<E>> = []
  /** How many of {@link entries} the reader has been given. */
  private supplied = 0
  /** Which reading is the present one: a subscription that opens again reads from the first entry. */
  private reading = 0
  private isRead = false
  isOpened = false
  failure: E | undefined = undefined
  /** The highest position given. */
  last: Position.Position = Position.origin

  constructor(private readonly name: string, private readonly news: Effect.Latch) {}

  read(after: Position.Position, opened: Deferred.Deferred<number>): Stream.Stream<Strand, SourceError> {
    return Stream.unwrapScoped(
      Effect.as(
        Effect.acquireRelease(Effect.suspend(() => this.begin(after, opened)), (reading) =>
          Effect.sync(() => {
            if (reading === this.reading) this.isRead = false
          })),
        Stream.repeatEffectChunk(this.next)
      )
    )
  }

  put(strands: ReadonlyArray<Unplaced>): Effect.Effect<void, E> {
    return Effect.flatMap(Deferred.make<void, E>(), (done) => {
      if (this.failure !== undefined) return Effect.fail(this.failure)
      for (const strand of strands) this.add(strand, 0)
      this.entries.at(-1)!.done = done
      return Deferred.await(done)
    })
  }

  mark(mark: number): void {
    if (mark > markOf(this.last)) this.add(nothing, Math.min(mark, markMax))
  }

  settled(position: Position.Position): Effect.Effect<void> {
    const left = this.entries.findIndex((entry) => entry.position > position)
    return this.leave(left === -1 ? this.entries.length : left, (done) => Deferred.succeed(done, undefined))
  }

  fail(failure: E): Effect.Effect<void> {
    this.failure ??= failure
    return this.leave(this.entries.length, (done) => Deferred.fail(done, failure))
  }

  private begin(after: Position.Position, opened: Deferred.Deferred<number>) {
    if (this.isRead) {
      return Effect.fail(
        new Source.SourceUnavailable({
          source: this.name,
          reason: "what is delivered is supplied to one subscription; read the reactor's own store for its history"
        })
      )
    }
    this.isRead = true
    this.isOpened = true
    this.supplied = 0
    if (after > this.last) this.last = after
    for (const entry of this.entries) entry.position = this.place(entry.mark)
    return Effect.as(Deferred.succeed(opened, markOf(after)), ++this.reading)
  }

  private readonly next: Effect.Effect<Chunk.Chunk<Strand>> = Effect.suspend(() => {
    const chunk = this.entries.slice(this.supplied, this.supplied + chunkMax)
    if (chunk.length === 0) {
      this.news.unsafeClose()
      return Effect.zipRight(this.news.await, this.next)
    }
    this.supplied += chunk.length
    return Effect.succeed(
      Chunk.unsafeFromArray(chunk.map(({ position, strand }): Strand => ({ position, ...strand })))
    )
  })

  private add(strand: Unplaced, mark: number): void {
    this.entries.push({ strand, mark, position: this.place(mark), done: undefined })
    this.news.unsafeOpen()
  }

  private place(mark: number): Position.Position {
    const next = this.last + 1n
    const least = BigInt(mark) << countBits
    this.last = Position.make(next > least ? next : least)
    return this.last
  }

  private leave(
    count: number,
    complete: (done: Deferred.Deferred<void, E>) => Effect.Effect<unknown>
  ): Effect.Effect<void> {
    const left = this.entries.splice(0, count)
    this.supplied = Math.max(0, this.supplied - left.length)
    return Effect.forEach(left, ({ done }) => done === undefined ? Effect.void : complete(done), { discard: true })
  }
}

/** The strand of a mark: nothing to apply, so that the cursor only moves. */
const nothing: Unplaced = {
  driveId: undefined,
  documentId: Schema.decodeSync(DocumentId)("-"),
  documentType: Schema.decodeSync(DocumentType)("-"),
  scope: Schema.decodeSync(Scope)("-"),
  branch: Schema.decodeSync(Branch)("-"),
  operations: [],
  bytes: 0
}
