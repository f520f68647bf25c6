/**
 * Couriers: those of a reactor, one for each namespace, and what they tell.
 *
 *     commit that has sent ─▶ stir its namespace's courier ─▶ Dispatcher
 *                                                 └▶ metrics, incidents, log
 *
 * A reactor whose context has no `Dispatcher` has none, and no processor that would need one.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Namespace } from "../domain/Namespace.js"
import { Dispatcher } from "../process/Dispatcher.js"
import type { Message } from "../process/Dispatcher.js"
import type { Commit } from "../store/Commit.js"
import * as Courier from "../store/Courier.js"
import type { Key } from "../store/Cursors.js"
import * as Incident from "../store/Incident.js"
import { Namespaces } from "../store/Namespaces.js"
import * as Metrics from "./Metrics.js"

export interface Couriers {
  /** Tells the namespace's courier of commits; it wakes if any of them has sent. */
  readonly stir: (namespace: Namespace, commits: Iterable<Commit>) => Effect.Effect<void>
  /** Waits until everything is delivered that can be. */
  readonly settled: Effect.Effect<void>
  /** Whether anything was ever sent from there. */
  readonly isUsed: (namespace: Namespace) => boolean
}

/** The namespaces have been opened. */
export const make = (
  places: Iterable<Namespace>,
  report: (incident: Incident.Incident) => Effect.Effect<void>
): Effect.Effect<Couriers, never, Namespaces | Scope.Scope> =>
  Effect.gen(function*() {
    const couriers = new Map<Namespace, Courier.Courier>()
    const dispatcher = Option.getOrUndefined(yield* Effect.serviceOption(Dispatcher))
    const namespaces = yield* Namespaces
    if (dispatcher !== undefined) {
      const told = tell(report)
      for (const namespace of new Set(places)) {
        const sql = yield* Effect.orDie(namespaces.open(namespace))
        const courier = yield* Effect.provideService(Courier.make(dispatcher, told), SqlClient.SqlClient, sql)
        couriers.set(namespace, courier)
      }
    }
    return {
      stir: (namespace, commits) =>
        Effect.suspend(() => {
          for (const { dispatched } of commits) {
            if (dispatched > 0) return couriers.get(namespace)?.wake ?? Effect.void
          }
          return Effect.void
        }),
      settled: Effect.forEach(couriers.values(), ({ settled }) => settled, {
        concurrency: "unbounded",
        discard: true
      }),
      isUsed: (namespace) => couriers.get(namespace)?.isUsed() ?? false
    }
  })

const tell = (report: (incident: Incident.Incident) => Effect.Effect<void>): Courier.Told => {
  const meters = new Map<string, Metrics.DispatchMeter>()
  const meterOf = ({ processor }: Message) => {
    const meter = meters.get(processor) ?? new Metrics.DispatchMeter(processor)
    meters.set(processor, meter)
    return meter
  }
  return {
    delivered: (message) => Effect.sync(() => meterOf(message).delivered()),
    postponed: (message, failure) =>
      Effect.zipRight(
        Effect.sync(() => meterOf(message).postponed()),
        Effect.logDebug(`the receiver of ${message.id} is not available: ${failure.message}`)
      ),
    refused: (message, failure) =>
      Effect.zipRight(
        Effect.sync(() => meterOf(message).refused()),
        report(Incident.Undeliverable({ ...keyOf(message), id: message.id, documentId: message.documentId, failure }))
      )
  }
}

/** The names were checked when the message was sent. */
const keyOf = ({ processor, source }: Message): Key => ({ processor, source } as Key)
