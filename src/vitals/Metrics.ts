/**
 * Metrics: what a subscription counts and times, under the processor's name. Any exporter of Effect metrics shows them.
 *
 * | name                                   | kind      | tags                  | unit         |
 * | processor_operations_total             | counter   | processor             | operations   |
 * | processor_commits_total                | counter   | processor             | commits      |
 * | processor_commit_duration_ms           | histogram | processor             | milliseconds |
 * | processor_handler_duration_ms          | histogram | processor, operation  | milliseconds |
 * | processor_retries_total                | counter   | processor             | retries      |
 * | processor_parked                       | gauge     | processor             | dead letters |
 * | processor_redelivered_total            | counter   | processor             | operations   |
 * | processor_superseded_total             | counter   | processor             | operations   |
 * | processor_skipped_total                | counter   | processor             | operations   |
 * | processor_lag_ms                       | gauge     | processor             | milliseconds |
 * | processor_sent_total                   | counter   | processor             | messages     |
 * | processor_delivered_total              | counter   | processor             | messages     |
 * | processor_delivery_failures_total      | counter   | processor             | tries        |
 * | processor_undeliverable_total          | counter   | processor             | messages     |
 * | processor_outbox_undelivered           | gauge     | namespace             | messages     |
 * | processor_outbox_age_ms                | gauge     | namespace             | milliseconds |
 * | processor_moves_total                  | counter   | source                | cursors      |
 * | processor_relay_attached               | gauge     | source                | processors   |
 * | processor_relay_laggards               | gauge     | source                | processors   |
 * | processor_relay_bytes                  | gauge     | source                | bytes        |
 *
 * Where a processor has partitions, each of its metrics is tagged with the number of its `partition` as well.
 */

import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"
import * as Partition from "../domain/Partition.js"
import type { Standing } from "../ingest/Relay.js"
import type { Commit } from "../store/Commit.js"

const commitDuration = MetricBoundaries.exponential({ start: 1, factor: 2, count: 16 })
const handlerDuration = MetricBoundaries.exponential({ start: 0.01, factor: 2, count: 20 })

export const operations = Metric.counter("processor_operations_total", { incremental: true })
export const commits = Metric.counter("processor_commits_total", { incremental: true })
export const commitDurationMillis = Metric.histogram("processor_commit_duration_ms", commitDuration)
export const handlerDurationMillis = Metric.histogram("processor_handler_duration_ms", handlerDuration)
export const retries = Metric.counter("processor_retries_total", { incremental: true })
export const parked = Metric.gauge("processor_parked")
export const redelivered = Metric.counter("processor_redelivered_total", { incremental: true })
export const superseded = Metric.counter("processor_superseded_total", { incremental: true })
export const skipped = Metric.counter("processor_skipped_total", { incremental: true })
export const lagMillis = Metric.gauge("processor_lag_ms")
export const sent = Metric.counter("processor_sent_total", { incremental: true })
export const delivered = Metric.counter("processor_delivered_total", { incremental: true })
export const deliveryFailures = Metric.counter("processor_delivery_failures_total", { incremental: true })
export const undeliverable = Metric.counter("processor_undeliverable_total", { incremental: true })
/** Set by each check of health. */
export const outboxUndelivered = Metric.gauge("processor_outbox_undelivered")
export const outboxAgeMillis = Metric.gauge("processor_outbox_age_ms")

/** Cursors that were moved past what their processors did not want: no commits of theirs, and not counted as such. */
export const moves = Metric.counter("processor_moves_total", { incremental: true })
export const relayAttached = Metric.gauge("processor_relay_attached")
export const relayLaggards = Metric.gauge("processor_relay_laggards")
export const relayBytes = Metric.gauge("processor_relay_bytes")

/** What a reactor's relay tells of one source: who is near its head, who reads by itself, and what is in memory. */
export const relayTold = (source: string): (standing: Standing) => void => {
  const tag = (metric: Metric.Metric.Gauge<number>) => Metric.tagged(metric, "source", source)
  const gauges = { attached: tag(relayAttached), laggards: tag(relayLaggards), bytes: tag(relayBytes) }
  return ({ attached, bytes, laggards }) => {
    gauges.attached.unsafeUpdate(attached, [])
    gauges.laggards.unsafeUpdate(laggards, [])
    gauges.bytes.unsafeUpdate(bytes, [])
  }
}

/** Counts cursors of one source that were moved many at once, past what their processors did not want. */
export const moveTold = (source: string): () => void => {
  const counter = Metric.tagged(moves, "source", source)
  return () => counter.unsafeUpdate(1, [])
}

/** The metrics of one subscription, tagged once; updates cost nanoseconds. */
export class Meter {
  private readonly operations: Metric.Metric.Counter<number>
  private readonly commits: Metric.Metric.Counter<number>
  private readonly commitDuration: Metric.Metric.Histogram<number>
  private readonly handlerDuration: Metric.Metric.Histogram<number>
  private readonly retries: Metric.Metric.Counter<number>
  private readonly parked: Metric.Metric.Gauge<number>
  private readonly redelivered: Metric.Metric.Counter<number>
  private readonly superseded: Metric.Metric.Counter<number>
  private readonly skipped: Metric.Metric.Counter<number>
  private readonly lag: Metric.Metric.Gauge<number>
  private readonly sent: Metric.Metric.Counter<number>
  private readonly handlers = new Map<string, Metric.Metric.Histogram<number>>()

  constructor(processor: string, partition: Partition.Partition = Partition.whole) {
    const tag = <Type, In, Out>(metric: Metric.Metric<Type, In, Out>) => {
      const tagged = Metric.tagged(metric, "processor", processor)
      return partition.of === 1 ? tagged : Metric.tagged(tagged, "partition", String(partition.number))
    }
    this.operations = tag(operations)
    this.commits = tag(commits)
    this.commitDuration = tag(commitDurationMillis)
    this.handlerDuration = tag(handlerDurationMillis)
    this.retries = tag(retries)
    this.parked = tag(parked)
    this.redelivered = tag(redelivered)
    this.superseded = tag(superseded)
    this.skipped = tag(skipped)
    this.lag = tag(lagMillis)
    this.sent = tag(sent)
  }

  committed(commit: Commit): void {
    this.operations.unsafeUpdate(commit.operations, [])
    this.commits.unsafeUpdate(1, [])
    this.commitDuration.unsafeUpdate(commit.durationMillis, [])
    this.parked.unsafeUpdate(commit.waiting, [])
    this.redelivered.unsafeUpdate(commit.redelivered, [])
    this.superseded.unsafeUpdate(commit.superseded, [])
    this.skipped.unsafeUpdate(commit.skipped, [])
    if (commit.dispatched > 0) this.sent.unsafeUpdate(commit.dispatched, [])
    for (const [type, times] of commit.handled) {
      const handler = this.handler(type)
      for (const millis of times) handler.unsafeUpdate(millis, [])
    }
  }

  retried(): void {
    this.retries.unsafeUpdate(1, [])
  }

  /** How old the oldest operation is that was read and is not committed; 0 when there is none. */
  behind(millis: number): void {
    this.lag.unsafeUpdate(millis, [])
  }

  /** Operation types come from outside: past 200 of them they share one histogram, so that tags stay bounded. */
  private handler(type: string): Metric.Metric.Histogram<number> {
    const known = this.handlers.get(type)
    if (known !== undefined) return known
    if (this.handlers.size >= 200) return this.handlerDuration
    const fresh = Metric.tagged(this.handlerDuration, "operation", type)
    this.handlers.set(type, fresh)
    return fresh
  }
}

/** The metrics of what one processor's messages come to. */
export class DispatchMeter {
  private readonly counters: Readonly<Record<"delivered" | "postponed" | "refused", Metric.Metric.Counter<number>>>

  constructor(processor: string) {
    const tag = <Type, In, Out>(metric: Metric.Metric<Type, In, Out>) => Metric.tagged(metric, "processor", processor)
    this.counters = {
      delivered: tag(delivered),
      postponed: tag(deliveryFailures),
      refused: tag(undeliverable)
    }
  }

  delivered(): void {
    this.counters.delivered.unsafeUpdate(1, [])
  }

  postponed(): void {
    this.counters.postponed.unsafeUpdate(1, [])
  }

  refused(): void {
    this.counters.refused.unsafeUpdate(1, [])
  }
}
