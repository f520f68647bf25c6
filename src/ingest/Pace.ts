/**
 * A pace: how fast a processor may go, where the database is to be spared.
 *
 *     concurrency    so many of its partitions commit at once
 *     rate           so many operations in a time, as a bucket that holds as many and fills up evenly
 *     commitMillis   what a commit may take: a batch that took longer makes the next ones smaller, see `Tempo`
 */

import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Elapsed from "../domain/Elapsed.js"
import * as Brake from "./Brake.js"

export interface Pace {
  /** How many of its partitions may commit at once; default: all. At least 1. */
  readonly concurrency?: number | undefined
  /** How many operations may be committed in a time, all partitions together. No batch holds more. */
  readonly rate?: Rate | undefined
  /**
   * What a commit should take at most, in milliseconds; above 0. Default: that of {@link unasked}, and no bound where it is said
   * how many operations a batch may hold.
   */
  readonly commitMillis?: number | undefined
}

/**
 * What a commit should take at most where nothing is said, since others may wait for it, and operations that a batch may hold
 * all the same: in a crowd, where commits are slow because there are so many, small ones would only be more.
 */
export const unasked = { budgetMillis: 250, least: 1_000 } as const

export interface Rate {
  /** At least 1. */
  readonly operations: number
  /** Above 0. */
  readonly per: Duration.DurationInput
}

const Positive = Schema.Int.pipe(Schema.positive())

const Checked = Schema.partialWith(
  Schema.Struct({
    concurrency: Positive,
    commitMillis: Schema.Finite.pipe(Schema.positive()),
    rate: Schema.Struct({ operations: Positive, per: Schema.Finite.pipe(Schema.positive()) })
  }),
  { exact: true }
)

/** A pace that can be; throws a `ParseError` for others, such as a rate of no operations, at which nothing would ever go on. */
export const checked = (pace: Pace): Pace => {
  const { commitMillis, concurrency, rate } = pace
  return Schema.decodeUnknownSync(Checked)({
    ...(concurrency === undefined ? {} : { concurrency }),
    ...(commitMillis === undefined ? {} : { commitMillis }),
    ...(rate === undefined
      ? {}
      : { rate: { operations: rate.operations, per: Duration.toMillis(rate.per) } })
  })
}

/** Why a batch waits that would go beyond the rate. */
export class Paced extends Data.TaggedClass("Paced")<{ readonly rate: Rate }> {
  get message(): string {
    return `its rate is ${this.rate.operations} operations in ${Duration.format(Duration.decode(this.rate.per))}`
  }
}

/** The brake of a rate, shared by all partitions of a processor. Operations are paid for before they are committed. */
export const brake = (rate: Rate | undefined): Brake.Brake<Paced> => {
  if (rate === undefined) return Brake.none
  const perMillis = Duration.toMillis(rate.per)
  const why = new Paced({ rate })
  /** When the bucket will be full again. */
  let fullMillis = -Infinity
  return {
    release: (batch, held) =>
      Effect.flatMap(Elapsed.millis, (now) => {
        fullMillis = Math.max(fullMillis, now) + batch.operations * perMillis / rate.operations
        const waitMillis = fullMillis - perMillis - now
        const released = { first: batch, rest: undefined }
        // A wait of nothing but a rounding error is none.
        return waitMillis < 0.001
          ? Effect.succeed(released)
          : Effect.as(Effect.zipRight(held(why), Effect.sleep(Math.ceil(waitMillis))), released)
      })
  }
}
