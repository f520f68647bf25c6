/**
 * Claims: how the partitions of a processor come by their cursors.
 *
 *     first opening of any  ──▶ all are claimed, and divided anew if they were divided otherwise
 *     opening again         ──▶ its own alone is; one that is somebody else's by now, or not there any more, is `Fenced`
 *
 * So of two reactors the one that starts later has all of a processor, and the other nothing, whatever makes it open again.
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Partition from "../domain/Partition.js"
import { origin } from "../domain/Position.js"
import type { Position } from "../domain/Position.js"
import * as Cursors from "./Cursors.js"
import type { JointClaims } from "./JointClaims.js"
import * as Permits from "./Permits.js"
import type { TransactionError } from "./Transaction.js"

export class Claims {
  /** The last claim of each partition, by its number. */
  private readonly last: Array<Cursors.Cursor | undefined>
  /** Those that were claimed together with another and wait to be taken. */
  private readonly fresh: Array<boolean>
  /** How often each was claimed again since its last claim without it being known what became of that. */
  private unanswered: Map<number, bigint> | undefined = undefined
  private readonly one: Permits.Permits

  constructor(
    private readonly key: Cursors.Key,
    private readonly partitions: number,
    /** Runs around each transaction. */
    private readonly turn: Permits.Permits = identity,
    /** Claims cursors that are not divided together with those of other processors. */
    private readonly joint?: JointClaims | undefined
  ) {
    // As long as they have to be, since thousands of these may be there.
    this.last = new Array<undefined>(partitions + 1).fill(undefined)
    this.fresh = new Array<boolean>(partitions + 1).fill(false)
    this.one = partitions === 1 ? identity : Permits.make(1)
  }

  /**
   * The cursor of a partition, which is the caller's from here on. Where there is none yet, `begin` says where it begins;
   * before the first strand, when it is left out.
   */
  claim<E = never, R = never>(
    { number }: Partition.Partition,
    begin?: Effect.Effect<Position, E, R>
  ): Effect.Effect<Cursors.Cursor, E | Cursors.Fenced | TransactionError, R | SqlClient.SqlClient> {
    return this.one(Effect.gen(this, function*() {
      const before = this.last[number]
      const isFresh = this.fresh[number] === true
      this.fresh[number] = false
      if (before !== undefined && isFresh) return before
      const again = before === undefined ? undefined : yield* this.reclaim(number, before)
      const cursor = again ?? (yield* this.claimAll(number, begin))
      this.last[number] = cursor
      return cursor
    }))
  }

  /** Cursors that were claimed and not taken yet are not where they were: each claims its own again. */
  forget(): void {
    this.fresh.fill(false)
  }

  /**
   * Claims a partition again. As long as it is not known what became of that, since it was interrupted or not answered, the
   * next epoch may be its own.
   */
  private reclaim(number: number, { epoch, slices }: Cursors.Cursor) {
    return Effect.suspend(() => {
      const unanswered = this.unanswered ??= new Map<number, bigint>()
      const before = unanswered.get(number) ?? 0n
      unanswered.set(number, before + 1n)
      return this.turn(Cursors.reclaim(this.key, slices, epoch + before)).pipe(
        Effect.tapBoth({
          onFailure: (failure) =>
            Effect.sync(() => failure._tag === "CommitUnknown" ? undefined : unanswered.set(number, before)),
          onSuccess: (cursor) =>
            Effect.sync(() => {
              unanswered.delete(number)
              this.last[number] = cursor
            })
        })
      )
    })
  }

  private claimAll<E, R>(number: number, begin: Effect.Effect<Position, E, R> | undefined) {
    return Effect.gen(this, function*() {
      const isNew = begin !== undefined && (yield* Cursors.peek(this.key)) === undefined
      const start = isNew ? yield* begin : origin
      if (this.partitions === 1 && this.joint !== undefined) return yield* this.joint({ ...this.key, start })
      const all = Partition.all(this.partitions)
      const cursors = yield* this.turn(Cursors.claimAll(this.key, all.map(Partition.slices), start))
      for (const [i, each] of all.entries()) {
        this.last[each.number] = cursors[i]!
        this.fresh[each.number] = each.number !== number
      }
      return cursors[number - 1]!
    })
  }
}
