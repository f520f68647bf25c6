/**
 * Metrics: what a subscription counts, under the name of its processor.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import * as Test from "../../layers/Test.js"
import { Metrics, Policy, Processor, Reactor } from "../../src/index.js"
import type { Source } from "../../src/index.js"
import * as Ledger from "../support/Ledger.js"

class Flaky extends Data.TaggedError("Flaky") {}

/** The metrics of one processor; each test names its processors differently, since metrics are the process's. */
const counted = (processor: string) => {
  const of = <Type, In, Out>(metric: Metric.Metric<Type, In, Out>) =>
    Metric.value(Metric.tagged(metric, "processor", processor))
  const handled = (operation: string) =>
    Metric.value(Metrics.handlerDurationMillis.pipe(
      Metric.tagged("processor", processor),
      Metric.tagged("operation", operation)
    ))
  return Effect.all({
    operations: Effect.map(of(Metrics.operations), (state) => state.count),
    commits: Effect.map(of(Metrics.commits), (state) => state.count),
    commitDurations: Effect.map(of(Metrics.commitDurationMillis), (state) => state.count),
    puts: Effect.map(handled("PUT"), (state) => state.count),
    passes: Effect.map(handled("PASS"), (state) => state.count),
    retries: Effect.map(of(Metrics.retries), (state) => state.count),
    parked: Effect.map(of(Metrics.parked), (state) => state.value),
    redelivered: Effect.map(of(Metrics.redelivered), (state) => state.count),
    skipped: Effect.map(of(Metrics.skipped), (state) => state.count)
  })
}

const nothing = {
  operations: 0,
  commits: 0,
  commitDurations: 0,
  puts: 0,
  passes: 0,
  retries: 0,
  parked: 0,
  redelivered: 0,
  skipped: 0
}

const follow = <R>(processor: Processor.Processor<never, R>, ...strands: ReadonlyArray<Source.Unplaced>) =>
  Reactor.run(processor).pipe(Effect.provide(Test.layer(strands)))

describe("what fails", () => {
  it.effect("is counted as a retry each time that it is tried again", () =>
    Effect.gen(function*() {
      let tries = 0
      const flaky = Ledger.undecided("m_retries", () => ++tries <= 3 ? new Flaky() : Effect.void).pipe(
        Processor.withPolicy({
          ...Policy.standard,
          Flaky: Policy.retry(Schedule.recurs(5), { otherwise: Policy.halt })
        })
      )
      yield* follow(flaky, Ledger.strand("d1", "a"))
      expect(yield* counted("m_retries")).toEqual({
        ...nothing,
        operations: 1,
        commits: 1,
        commitDurations: 1,
        puts: 1,
        retries: 3
      })
    }))

  it.effect("and is left out is counted as skipped", () =>
    Effect.gen(function*() {
      const skipping = Ledger.undecided("m_skipped", () => new Flaky()).pipe(
        Processor.withPolicy({ ...Policy.standard, Flaky: Policy.skip })
      )
      yield* follow(skipping, Ledger.strand("d1", "a", "b"))
      expect((yield* counted("m_skipped")).skipped).toBe(2)
    }))

  it.effect("and waits is the parked gauge", () =>
    Effect.gen(function*() {
      const unknown = Test.strand({
        documentId: "d1",
        documentType: Ledger.Model.type,
        operations: [{ type: "NEW" }, { type: "NEW" }]
      })
      yield* follow(Ledger.make("m_parked"), unknown)
      expect(yield* counted("m_parked")).toMatchObject({ operations: 0, parked: 2 })
    }))

  it.effect("before it is committed is not counted", () =>
    Effect.gen(function*() {
      yield* follow(Ledger.make("m_broken", () => Effect.dieMessage("a bug")), Ledger.strand("d1", "a"))
      expect(yield* counted("m_broken")).toEqual(nothing)
    }))
})

describe("what is committed", () => {
  it.effect("is counted: operations, commits, how long they took, and the handler by operation type", () =>
    Effect.gen(function*() {
      const passing = Processor.make("m_commits", {
        namespace: "m_commits",
        batch: { operations: 2 },
        handler: Processor.onOperations(Ledger.Model, { PUT: () => Effect.void, PASS: () => Effect.void })
      }).pipe(Processor.withPolicy(Policy.standard))
      const passes = Test.strand({
        documentId: "d2",
        documentType: Ledger.Model.type,
        operations: [{ type: "PASS", input: { text: "x" } }]
      })
      yield* follow(passing, Ledger.strand("d1", "a", "b", "c"), passes)
      expect(yield* counted("m_commits")).toEqual({
        ...nothing,
        operations: 4,
        commits: 2,
        commitDurations: 2,
        puts: 3,
        passes: 1
      })
    }))

  it.effect("of one processor is not counted for another", () =>
    Effect.gen(function*() {
      yield* Reactor.run(
        Ledger.make("m_one"),
        Ledger.make("m_other", undefined, { filter: { documentId: ["d2"] } })
      ).pipe(Effect.provide(Test.layer([Ledger.strand("d1", "a", "b"), Ledger.strand("d2", "c")])))
      expect(yield* counted("m_one")).toMatchObject({ operations: 3 })
      expect(yield* counted("m_other")).toMatchObject({ operations: 1 })
    }))

  it.effect("already and comes again is counted as redelivered", () =>
    Effect.gen(function*() {
      yield* follow(Ledger.make("m_again"), Ledger.strand("d1", "a", "b"), Ledger.strand("d1", "a", "b", "c"))
      expect(yield* counted("m_again")).toMatchObject({ operations: 3, redelivered: 2 })
    }))
})
