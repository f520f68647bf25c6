/**
 * A membership: which of the documents that are delivered belong to the drive of a processor.
 *
 *     strands ─▶ of the drive's own delivery, or known to be in it ─▶ in
 *            └─▶ asked of the archive, all unknown ones together ──▶ in, or left out
 *
 * A strand that is left out by mistake, since the archive could not be read or the document joins later, is found there by
 * the next sweep.
 */

import * as Effect from "effect/Effect"
import type { Unplaced } from "../ingest/Source.js"
import type { Archive, ArchiveUnavailable } from "./Archive.js"

export class Membership {
  private readonly inside = new Set<string>()

  constructor(private readonly archive: Archive, private readonly drive: string) {}

  /** Those of the strands that belong to the drive. */
  of(strands: ReadonlyArray<Unplaced>): Effect.Effect<ReadonlyArray<Unplaced>, ArchiveUnavailable> {
    return Effect.suspend(() => {
      const unknown = new Set(strands.flatMap((strand) => this.isKnown(strand) ? [] : [strand.documentId]))
      return unknown.size === 0
        ? Effect.succeed(strands)
        : Effect.map(this.archive.within(this.drive, Array.from(unknown)), (found) => {
          for (const id of found) this.inside.add(id)
          return strands.filter((strand) => this.isKnown(strand))
        })
    })
  }

  /** The drive's documents may have changed. */
  forget(): void {
    this.inside.clear()
  }

  /** The former reactors deliver for a drive, say so, and deliver nothing else. */
  private isKnown(strand: Unplaced): boolean {
    return strand.driveId !== undefined || this.inside.has(strand.documentId)
  }
}
