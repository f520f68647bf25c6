/**
 * Retries: the policy's answer to an operation that has failed, over all its failures while its batch is worked off.
 *
 * Invariant: one schedule runs per operation and tag, so that a policy which is a function cannot start it over with each
 * failure.
 */

import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type { Operation } from "../domain/Operation.js"
import * as Pauses from "../process/Pauses.js"
import * as Policy from "../process/Policy.js"

type Answer =
  | { readonly verdict: Policy.Verdict }
  | { readonly pauses: Pauses.Pauses<unknown>; readonly otherwise: Policy.Verdict }

export class Retries {
  private readonly answers = new Map<Operation, Map<unknown, Answer>>()

  constructor(private readonly policy: Policy.Table) {}

  /** Pauses before another try and returns `undefined`, or returns the verdict that is due. */
  next(
    operation: Operation,
    failure: unknown,
    announce: (attempt: number) => Effect.Effect<void>
  ): Effect.Effect<Policy.Verdict | undefined> {
    return Effect.flatMap(this.answer(operation, failure), (answer) =>
      "verdict" in answer
        ? Effect.succeed(answer.verdict)
        : Effect.map(answer.pauses.next(failure, announce), (goesOn) => goesOn ? undefined : answer.otherwise))
  }

  private answer(operation: Operation, failure: unknown): Effect.Effect<Answer> {
    const tag = Predicate.hasProperty(failure, "_tag") ? failure._tag : undefined
    const tags = this.answers.get(operation) ?? new Map<unknown, Answer>()
    this.answers.set(operation, tags)
    const known = tags.get(tag)
    if (known !== undefined) return Effect.succeed(known)
    const decision = Policy.decide(this.policy, failure)
    const fresh: Effect.Effect<Answer> = decision._tag === "Retry"
      ? Effect.map(Pauses.make(decision.schedule), (pauses) => ({ pauses, otherwise: decision.otherwise }))
      : Effect.succeed({ verdict: decision })
    return Effect.tap(fresh, (answer) => Effect.sync(() => tags.set(tag, answer)))
  }
}
