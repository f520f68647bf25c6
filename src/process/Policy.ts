/**
 * A policy: for each failure, by its tag, what becomes of the operation that met it.
 *
 *     { ...Policy.standard,
 *       RateLimited: (e) => Policy.retry(Schedule.spaced(e.retryAfterMillis), { otherwise: Policy.halt }),
 *       BadInput: Policy.skip }
 *
 * A policy is asked only about poison: failures of the handler itself and statements refused for their data. A database
 * that is away is waited out, a conflict is run again, and neither ever reaches a policy.
 */

import type { SqlError } from "@effect/sql/SqlError"
import type * as Schedule from "effect/Schedule"
import type { MalformedAction } from "./Dispatch.js"
import type { HistoryLost, HistoryRewritten, MalformedOperation, StrandGap, UnknownOperation } from "./Failure.js"

/** Leave the operation out, count and log it, and go on. */
export interface Skip {
  readonly _tag: "Skip"
}

/** Set the operation aside with its cause; its document queues up behind it, all others flow on. */
export interface Park {
  readonly _tag: "Park"
}

/** Stop the subscription with its cursor before the operation. */
export interface Halt {
  readonly _tag: "Halt"
}

export type Verdict = Skip | Park | Halt

/** Try the operation again on a schedule, and fall back to a verdict when the schedule ends. */
export interface Retry<in E> {
  readonly _tag: "Retry"
  readonly schedule: Schedule.Schedule<unknown, E>
  readonly otherwise: Verdict
}

export type Decision<E> = Verdict | Retry<E>

export const skip: Verdict = { _tag: "Skip" }
export const park: Verdict = { _tag: "Park" }
export const halt: Verdict = { _tag: "Halt" }

/**
 * Tries again as long as `schedule` says, `otherwise` after it. One schedule is run per operation and tag: a policy that is
 * a function is asked once, with the first failure.
 */
export const retry = <E>(
  schedule: Schedule.Schedule<unknown, E>,
  options: { readonly otherwise: Verdict }
): Retry<E> => ({ _tag: "Retry", schedule, otherwise: options.otherwise })

/** Any failure that a policy can name. */
export interface Tagged {
  readonly _tag: string
}

/** Failures that are the same however often the operation is tried. A policy gives them a verdict, never a retry. */
export type Lasting =
  | MalformedOperation
  | UnknownOperation
  | StrandGap
  | HistoryRewritten
  | HistoryLost
  | MalformedAction

/** Failures that the engine itself can raise for an operation of any processor. */
export type EngineFailure = MalformedOperation | StrandGap | HistoryRewritten | SqlError

/** Failures that {@link standard} decides; a policy may name them whether or not the processor can fail so. */
export type StandardFailure = EngineFailure | UnknownOperation | HistoryLost | MalformedAction

/** What a policy may say about a failure `E`. */
export type Answer<E> = E extends Lasting ? Verdict | ((failure: E) => Verdict)
  : Decision<E> | ((failure: E) => Decision<E>)

/** A policy over the failures `E`. */
export type Policy<E extends Tagged> = {
  readonly [Tag in E["_tag"]]?: Answer<Extract<E, { readonly _tag: Tag }>>
}

/** The tags that a policy decides for certain: a property that may be left out decides nothing. */
export type Decides<P> = { [Tag in keyof P]-?: undefined extends P[Tag] ? never : Tag }[keyof P]

/** What a policy would have to hold under a tag that the processor cannot fail with. Nothing is of this type. */
export interface NoSuchFailure<out Tag, out Known> {
  readonly [noSuchFailure]: readonly [Tag, Known]
}

declare const noSuchFailure: unique symbol

/** The policy as the engine keeps it: looked up by tag at run time. */
export type Table = ReadonlyMap<string, Decision<unknown> | ((failure: unknown) => Decision<unknown>)>

/** Parks what the engine itself can raise, and actions that cannot be sent: nothing is lost, and one bad operation costs one document. */
export const standard = {
  SqlError: park,
  MalformedOperation: park,
  UnknownOperation: park,
  StrandGap: park,
  HistoryRewritten: park,
  HistoryLost: park,
  MalformedAction: park
} as const

/** The decision for a failure; a failure that the table does not know halts, which the types rule out. */
export const decide = (table: Table, failure: unknown): Decision<unknown> => {
  const tag = typeof failure === "object" && failure !== null && "_tag" in failure ? failure._tag : undefined
  const answer = typeof tag === "string" ? table.get(tag) : undefined
  return answer === undefined ? halt : typeof answer === "function" ? answer(failure) : answer
}

/** The verdict for a failure that lasts; the types keep a retry out. */
export const judge = (table: Table, failure: Lasting): Verdict => {
  const decision = decide(table, failure)
  return decision._tag === "Retry" ? decision.otherwise : decision
}
