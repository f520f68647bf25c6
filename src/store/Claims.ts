/**
 * Claims: how the partitions of a processor come by their cursors.
 *
 *     first opening of any  ──▶ all are claimed, and divided anew if they were divided otherwise
 *     opening again         ──▶ its own alone is; one that is not there any more is `Fenced`
 *
 * So of two reactors that divide a processor differently, the one that starts later has all of it, and the other nothing.
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Partition from "../domain/Partition.js"
import { origin } from "../domain/Position.js"
import type { Position } from "../domain/Position.js"
import * as Cursors from "./Cursors.js"
import type { JointClaims } from "./JointClaims.js"
import type { TransactionError } from "./Transaction.js"

export class Claims {
  /** The last claim of each partition, by its number; those that wait to be taken for the first time, too. */
  private readonly last = new Map<number, Cursors.Cursor>()
  private readonly fresh = new Set<number>()
  private readonly one = Effect.unsafeMakeSemaphore(1)

  constructor(
    private readonly key: Cursors.Key,
    private readonly partitions: number,
    /** Runs around each transaction. */
    private readonly turn: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> = identity,
    /** Claims cursors that are not divided together with those of other processors. */
    private readonly joint?: JointClaims | undefined
  ) {}

  /**
   * The cursor of a partition, which is the caller's from here on. Where there is none yet, `begin` says where it begins;
   * before the first strand, when it is left out.
   */
  claim<E = never, R = never>(
    partition: Partition.Partition,
    begin?: Effect.Effect<Position, E, R>
  ): Effect.Effect<Cursors.Cursor, E | Cursors.Fenced | TransactionError, R | SqlClient.SqlClient> {
    return this.one.withPermits(1)(Effect.gen(this, function*() {
      const before = this.last.get(partition.number)
      const isFresh = this.fresh.delete(partition.number)
      if (before !== undefined && isFresh) return before
      const again = before === undefined
        ? undefined
        : yield* this.turn(Cursors.reclaim(this.key, before.slices, before.epoch))
      const cursor = again ?? (yield* this.claimAll(partition, begin))
      this.last.set(partition.number, cursor)
      return cursor
    }))
  }

  private claimAll<E, R>(partition: Partition.Partition, begin: Effect.Effect<Position, E, R> | undefined) {
    return Effect.gen(this, function*() {
      const isNew = begin !== undefined && (yield* Cursors.peek(this.key)) === undefined
      const start = isNew ? yield* begin : origin
      if (this.partitions === 1 && this.joint !== undefined) return yield* this.joint({ ...this.key, start })
      const all = Partition.all(this.partitions)
      const cursors = yield* this.turn(Cursors.claimAll(this.key, all.map(Partition.slices), start))
      for (const [i, each] of all.entries()) {
        this.last.set(each.number, cursors[i]!)
        if (each.number !== partition.number) this.fresh.add(each.number)
      }
      return cursors[partition.number - 1]!
    })
  }
}
