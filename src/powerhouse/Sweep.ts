/**
 * A sweep: the comparison of the archive with what was delivered, so that what a reactor never delivers arrives all the same.
 *
 *     archive:    … 41 │ 42  43  44  45  46      above the mark, 41
 *     delivered:             43      45          put: 42, 44, 46; then the mark goes to what was there a grace period ago
 *
 * Invariant: the mark moves only behind everything below it: what was found at or below it was put before, and what was not
 * there to be found had longer than the grace period to appear.
 */

import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Elapsed from "../domain/Elapsed.js"
import type { Archive, ArchiveUnavailable, Found } from "./Archive.js"

/** What a sweep is for. */
export interface Errand<E> {
  readonly archive: Archive
  readonly drive: string
  readonly isolated: boolean
  readonly graceMillis: number
  /** Takes what was found; returns once it is committed. */
  readonly put: (found: ReadonlyArray<Found>) => Effect.Effect<void, E>
  /** Moves the mark of the cursor. */
  readonly mark: (mark: number) => Effect.Effect<void>
}

/** How far the sweeps of one opening have come. */
export class Sweep<E> {
  /** Ordinals above the mark that were put or delivered. */
  private readonly known = new Set<number>()
  /** Where there are no ordinals: how each strand ended when it was put. */
  private readonly ends = new Map<string, string>()
  /** What was the highest ordinal, and when. */
  private tops: Array<{ readonly atMillis: number; readonly top: number }> = []

  constructor(private readonly errand: Errand<E>, private mark: number) {}

  /** Counts operations as delivered. */
  delivered(ordinals: Iterable<number>): void {
    for (const ordinal of ordinals) if (ordinal > this.mark) this.known.add(ordinal)
  }

  /** Puts everything that was not delivered yet, and moves the mark. */
  readonly run: Effect.Effect<void, E | ArchiveUnavailable> = Effect.suspend(() => {
    const { archive, drive, isolated, put } = this.errand
    let top = this.mark
    return Elapsed.millis.pipe(
      Effect.tap(Stream.runForEach(archive.since(this.mark, drive, isolated), (page) => {
        for (const { ordinal } of page) if (ordinal !== undefined && ordinal > top) top = ordinal
        const missing = page.filter((found) => this.isMissing(found))
        return missing.length === 0
          ? Effect.void
          : Effect.zipRight(put(missing), Effect.sync(() => this.remember(missing)))
      })),
      Effect.flatMap((began) => this.advance(began, top))
    )
  })

  private isMissing({ envelope, ordinal }: Found): boolean {
    if (ordinal !== undefined) return !this.known.has(ordinal)
    const { end, stream } = endOf(envelope)
    return this.ends.get(stream) !== end
  }

  private remember(found: ReadonlyArray<Found>): void {
    for (const { envelope, ordinal } of found) {
      if (ordinal !== undefined) {
        this.known.add(ordinal)
      } else {
        const { end, stream } = endOf(envelope)
        this.ends.set(stream, end)
      }
    }
  }

  private advance(atMillis: number, top: number): Effect.Effect<void> {
    const settled = this.tops.filter((each) => each.atMillis <= atMillis - this.errand.graceMillis).at(-1)
    this.tops = [...this.tops.filter((each) => settled === undefined || each.atMillis > settled.atMillis), {
      atMillis,
      top
    }]
    if (settled === undefined || settled.top <= this.mark) return Effect.void
    this.mark = settled.top
    for (const ordinal of this.known) if (ordinal <= this.mark) this.known.delete(ordinal)
    return this.errand.mark(this.mark)
  }
}

/** A strand that ends as it did has nothing new: indexes grow, or the same one comes with a longer skip. */
const endOf = (envelope: unknown): { readonly stream: string; readonly end: string } => {
  const { documentId, operations, scope } = envelope as {
    readonly documentId: string
    readonly scope: string
    readonly operations: ReadonlyArray<{ readonly index?: number; readonly skip?: number }>
  }
  const last = operations.at(-1)
  return {
    stream: JSON.stringify([documentId, scope]),
    end: JSON.stringify([operations.length, last?.index, last?.skip])
  }
}
