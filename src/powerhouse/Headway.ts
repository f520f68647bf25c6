/**
 * Headway: how far each stream has been delivered, so that what was left out before a delivery is seen at once.
 *
 *     delivered up to 4, now comes 7 (skip 0) ──▶ 5 and 6 are missing ──▶ read from the archive, put before it
 *
 * Invariants: a stream's head is at least what its processor has dealt with, and never above what was delivered in order or
 * asked for in the archive. At most {@link streamsMax} heads are remembered; one that was forgotten is read from the
 * processor's progress again.
 */

import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type { Unplaced } from "../ingest/Source.js"
import * as Cursors from "../store/Cursors.js"
import * as Namespaces from "../store/Namespaces.js"
import * as Progress from "../store/Progress.js"
import type { Missing } from "./Archive.js"

/** How many streams are remembered. */
const streamsMax = 10_000

export class Headway {
  private readonly heads = new Map<string, number>()

  constructor(private readonly namespace: string, private readonly key: Cursors.Key) {}

  /** What is missing before the first operation of each strand. Counts the strands, and what is missing, as delivered. */
  missing(
    strands: ReadonlyArray<Unplaced>
  ): Effect.Effect<
    ReadonlyArray<Missing | undefined>,
    SqlError | Namespaces.NamespaceError,
    Namespaces.Namespaces
  > {
    const unknown = strands.filter((strand) => !this.heads.has(nameOf(strand)) && lowestOf(strand) > 0)
    return Effect.map(
      unknown.length === 0 ? Effect.succeed(undefined) : this.load(unknown),
      (progress) => strands.map((strand) => this.take(strand, progress))
    )
  }

  private take(strand: Unplaced, progress: Progress.Progress | undefined): Missing | undefined {
    const name = nameOf(strand)
    const lowest = lowestOf(strand)
    const head = this.heads.get(name) ?? this.headIn(progress, strand, lowest)
    this.remember(name, Math.max(head, strand.operations.at(-1)?.index ?? head))
    const { branch, documentId, documentType, scope } = strand
    return lowest > head + 1 ? { documentId, documentType, scope, branch, from: head + 1, to: lowest - 1 } : undefined
  }

  /** A stream whose beginning its processor has left out begins with what comes. */
  private headIn(progress: Progress.Progress | undefined, strand: Unplaced, lowest: number): number {
    if (progress === undefined) return -1
    const stream = progress.of(strand)
    return stream.isOpen ? lowest - 1 : stream.head
  }

  private load(strands: ReadonlyArray<Unplaced>) {
    return Namespaces.query(
      this.namespace,
      Effect.flatMap(Cursors.peek(this.key), (cursor) => Progress.load(cursor ?? this.key, strands))
    )
  }

  private remember(name: string, head: number): void {
    // Taken out and put back, so that the first is the one that was not heard of for longest.
    this.heads.delete(name)
    this.heads.set(name, head)
    if (this.heads.size <= streamsMax) return
    for (const oldest of this.heads.keys()) {
      this.heads.delete(oldest)
      return
    }
  }
}

/** Only to look it up. */
const nameOf = ({ branch, documentId, scope }: Unplaced): string => JSON.stringify([documentId, scope, branch])

/** The lowest index that the strand continues or takes back. */
const lowestOf = ({ operations: [first] }: Unplaced): number => first === undefined ? 0 : first.index - first.skip
