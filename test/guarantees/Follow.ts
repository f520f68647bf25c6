/**
 * Follow: a processor follows a list of strands to the end, or to where it fails, and everything it told is kept.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Partition from "../../src/domain/Partition.js"
import * as Source from "../../src/ingest/Source.js"
import type { Processor } from "../../src/process/Processor.js"
import { Claims } from "../../src/store/Claims.js"
import type { Commit } from "../../src/store/Commit.js"
import type { Key } from "../../src/store/Cursors.js"
import type { Incident } from "../../src/store/Incident.js"
import * as Migrator from "../../src/store/Migrator.js"
import * as Subscription from "../../src/Subscription.js"
import * as Ledger from "./Ledger.js"

export interface Followed {
  readonly commits: ReadonlyArray<Commit>
  readonly incidents: ReadonlyArray<Incident>
  /** Transactions that were begun for commits, those included that failed. */
  readonly transactions: number
  /** What ended it before the end of its source. */
  readonly failure: Subscription.SubscriptionError | undefined
}

/** The key of a processor's cursor on the source of this name. */
export const keyOf = (processor: { readonly name: Key["processor"] }, source: string): Key => ({
  processor: processor.name,
  source: Source.name(source)
})

export const prepare = (processor: Processor<never, SqlClient.SqlClient>) =>
  Effect.zipRight(Migrator.prepare, Migrator.up(processor.namespace, processor.migrations))

export const follow = (
  processor: Processor<never, SqlClient.SqlClient>,
  source: string,
  strands: ReadonlyArray<Source.Unplaced>
): Effect.Effect<Followed, Effect.Effect.Error<ReturnType<typeof prepare>>, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    yield* prepare(processor)
    const commits: Array<Commit> = []
    const incidents: Array<Incident> = []
    // The first turn is the claim's; what is counted are those after it.
    let transactions = -1
    const exit = yield* Subscription.commits(processor, {
      report: (incident) => Effect.sync(() => incidents.push(incident)),
      turn: (commit) =>
        Effect.suspend(() => {
          transactions++
          return commit
        })
    }).pipe(
      Stream.runForEachChunk((some) => Effect.sync(() => commits.push(...Chunk.toReadonlyArray(some)))),
      Effect.provide(Ledger.source(source, strands)),
      Effect.exit
    )
    if (Exit.isFailure(exit) && Option.isNone(Cause.failureOption(exit.cause))) {
      return yield* Effect.failCause(exit.cause as Cause.Cause<never>)
    }
    return {
      commits,
      incidents,
      transactions,
      failure: Exit.isSuccess(exit) ? undefined : Option.getOrUndefined(Cause.failureOption(exit.cause))
    }
  })

/** A division, and how many commits each of its partitions makes before the next; none: it is claimed and not opened. */
export interface Round {
  readonly partitions: number
  readonly commits: ReadonlyArray<number>
}

export const rounds = FastCheck.array(
  FastCheck.record({
    partitions: FastCheck.integer({ min: 1, max: 7 }),
    commits: FastCheck.array(FastCheck.nat(4), { minLength: 7, maxLength: 7 })
  }),
  { minLength: 1, maxLength: 5 }
)

const toTheEnd = 1_000_000

/** Follows a source in these partitions, side by side. */
export const divided = (
  processor: Processor<never, SqlClient.SqlClient>,
  source: string,
  strands: ReadonlyArray<Source.Unplaced>,
  round: Round
) =>
  Effect.gen(function*() {
    yield* prepare(processor)
    const claims = new Claims(keyOf(processor, source), round.partitions)
    const some = yield* Effect.forEach(Partition.all(round.partitions), (partition, i) => {
      const commits = round.commits[i] ?? toTheEnd
      return commits === 0 ? Effect.succeed<ReadonlyArray<Commit>>([]) : Subscription.commits(processor, {
        share: { partition, claims }
      }).pipe(
        Stream.take(commits),
        Stream.runCollect,
        Effect.map(Chunk.toReadonlyArray)
      )
    }, { concurrency: "unbounded" })
    return some.flat()
  }).pipe(Effect.provide(Ledger.source(source, strands)))
