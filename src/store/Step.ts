/**
 * A step: one migration, in one direction, run together with its record.
 *
 *     inside a transaction     BEGIN ─▶ lock ─▶ decide again ─▶ run, guarded ─▶ record ─▶ COMMIT
 *     outside                  lock or claim ─▶ decide again ─▶ recorded as started ─▶ run ─▶ recorded as done
 *
 * `Ledger.Busy` says that somebody else is at it, or was faster: everything is to be looked at again.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import { hostname } from "node:os"
import * as Fault from "../process/Fault.js"
import type * as Permit from "../process/Permit.js"
import * as Claim from "./Claim.js"
import * as Guard from "./Guard.js"
import type * as Itinerary from "./Itinerary.js"
import * as Ledger from "./Ledger.js"
import * as Transaction from "./Transaction.js"

/** A step that was run. */
export interface Step {
  readonly id: string
  readonly direction: "up" | "down"
  readonly durationMillis: number
}

/**
 * A migration did not run; nothing of it is in the database unless it is declared not to be transactional, and what came
 * before it is. Without an `id`, the ledger could not be read. A reactor reports everything that keeps its tables from being
 * ready as this one error, with the other error as its cause.
 */
export class MigrationFailed extends Data.TaggedError("MigrationFailed")<{
  readonly namespace: string
  readonly id: string | undefined
  /** How many statements it had sent, the one that failed included. */
  readonly statements?: number
  readonly cause: unknown
}> {
  override get message(): string {
    const what = this.id === undefined ? "the migrations" : `migration ${this.id}`
    const where = this.statements === undefined ? "" : ` at statement ${this.statements}`
    // A failure of the migrator's own names the migration and the namespace itself.
    if (Predicate.hasProperty(this.cause, "namespace")) return Fault.describe(this.cause)
    return `${what} of namespace ${this.namespace} failed${where}: ${Fault.describe(this.cause)}`
  }
}

/**
 * A migration began or ended a transaction. With a `statement`, that was refused and everything was rolled back. Without,
 * it did so in a way that was not foreseen, and is recorded as failed.
 */
export class MigrationEndedTransaction extends Data.TaggedError("MigrationEndedTransaction")<{
  readonly namespace: string
  readonly id: string
  readonly statement: string | undefined
}> {
  override get message(): string {
    const how = this.statement === undefined ? "ended its transaction by itself" : `may not run ${this.statement}`
    return `migration ${this.id} of namespace ${this.namespace} ${how}; its transaction belongs to the migrator`
  }
}

/**
 * A migration has a statement that it is not permitted to send. It was not sent; what it had sent before was rolled back,
 * unless it is declared not to be transactional.
 */
export class MigrationRefused extends Data.TaggedError("MigrationRefused")<{
  readonly namespace: string
  readonly id: string
  /** Its first 80 characters, without what is quoted in it. */
  readonly statement: string
  /** What would have to be permitted. */
  readonly needs: string
}> {
  override get message(): string {
    const what = `migration ${this.id} of namespace ${this.namespace} may not run ${this.statement}`
    const name = JSON.stringify(this.needs)
    return `${what}; leave that to whoever administers the database, or permit ${name} in the option "statements"`
  }
}

/** Why a step was not run. */
export type StepError =
  | Itinerary.ItineraryError
  | MigrationFailed
  | MigrationEndedTransaction
  | MigrationRefused
  | Ledger.MigrationLocked

/** A guard's refusal, as what it means for the migration. */
export const refusedAs = (
  refused: Guard.EndedTransaction | Guard.StatementRefused,
  migration: { readonly namespace: string; readonly id: string }
): MigrationEndedTransaction | MigrationRefused =>
  refused._tag === "StatementRefused"
    ? new MigrationRefused({ ...migration, statement: refused.statement, needs: refused.needs })
    : new MigrationEndedTransaction({ ...migration, statement: refused.statement })

/** Where it is run, and who decides what comes next. */
export interface Journey {
  readonly namespace: string
  readonly lockTimeout: Duration.DurationInput | undefined
  /** See `Migrator.Options`. */
  readonly statements?: Permit.Permit | undefined
  readonly decide: Itinerary.Decide
}

/** A step that meets a deadlock or a serialization failure is run again, so often at most. */
const conflictsMax = 100

/** One step, or `undefined` when there is none left. */
export const take = (
  journey: Journey
): Effect.Effect<Step | undefined, StepError | Ledger.Busy, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const { decide, namespace } = journey
    const failed = (cause: Transaction.TransactionError) =>
      isPassing(cause) ? new Ledger.Busy({ cause }) : new MigrationFailed({ namespace, id: undefined, cause })
    const entries = yield* Effect.mapError(Ledger.read(namespace), failed)
    const found = yield* decide(entries ?? [])
    if (found === undefined) return undefined
    if (entries === undefined) {
      yield* Effect.mapError(Ledger.create, (cause) => cause._tag === "Busy" ? cause : failed(cause))
    }
    return yield* found.migration.transactional === false ? outside(journey, found) : inside(journey, found)
  })

/** In one transaction with its record. */
const inside = (
  journey: Journey,
  next: Itinerary.Next
): Effect.Effect<Step, StepError | Ledger.Busy, SqlClient.SqlClient> =>
  Effect.suspend(() => {
    const { namespace } = journey
    const { id } = next
    let hasBegun = false
    let statements = 0
    const body = Effect.gen(function*() {
      hasBegun = true
      statements = 0
      yield* Ledger.lock(namespace)
      const entries = yield* confirm(journey, next)
      const [elapsed] = yield* Effect.timed(
        Guard.run(next.migration[next.direction], { permit: journey.statements, onStatement: () => statements++ })
      )
      const durationMillis = Math.round(Duration.toMillis(elapsed))
      if (next.direction === "down") yield* Ledger.remove(namespace, id)
      else yield* Ledger.write(namespace, yield* entryFor(next, entries, { state: "applied", durationMillis }))
      return { id, direction: next.direction, durationMillis }
    })
    return Transaction.run(body).pipe(
      Effect.retry({ while: (failure) => Fault.classify(failure) === "conflict", times: conflictsMax }),
      Effect.catchAll((failure): Effect.Effect<Step, StepError | Ledger.Busy, SqlClient.SqlClient> => {
        switch (failure._tag) {
          case "EndedTransaction":
            return Effect.zipRight(
              failure.statement === undefined ? recordFailed(journey, next) : Effect.void,
              Effect.fail(refusedAs(failure, { namespace, id }))
            )
          case "StatementRefused":
            return Effect.fail(refusedAs(failure, { namespace, id }))
          case "CommitUnknown":
            return resolve(journey, next, failure)
          case "SqlError":
          case "RolledBack":
            return isPassing(failure) && (!hasBegun || isLockedFile(failure))
              ? new Ledger.Busy({ cause: failure })
              : new MigrationFailed({ namespace, id, statements, cause: failure })
          default:
            return failure
        }
      })
    )
  })

/** Whether the step is in the database is what the ledger says; if it is not, everything is looked at again. */
const resolve = (journey: Journey, next: Itinerary.Next, cause: Transaction.CommitUnknown) =>
  Ledger.patiently(
    journey.namespace,
    journey.lockTimeout,
    Effect.mapError(Ledger.read(journey.namespace), (failure) => new Ledger.Busy({ cause: failure }))
  ).pipe(Effect.flatMap((entries = []): Effect.Effect<Step, Ledger.Busy> => {
    const isRecorded = entries.some(({ id }) => id === next.id)
    return isRecorded === (next.direction === "up")
      ? Effect.succeed({ id: next.id, direction: next.direction, durationMillis: 0 })
      : new Ledger.Busy({ cause })
  }))

/** Recorded as started, run, recorded as done. */
const outside = (
  journey: Journey,
  next: Itinerary.Next
): Effect.Effect<Step, StepError | Ledger.Busy, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const { namespace } = journey
    const { id } = next
    const sql = yield* SqlClient.SqlClient
    const failed = (cause: Transaction.TransactionError) => new MigrationFailed({ namespace, id, cause })
    const state = next.direction === "up" ? "started" : "reverting"
    const work = (claim: string | undefined) =>
      Effect.gen(function*() {
        const entry = yield* Transaction.run(Effect.gen(function*() {
          const entries = yield* confirm(journey, next)
          const holder = entries.find((each) => each.id === id)?.claim
          if (holder !== undefined && Claim.isAlive(holder)) {
            return yield* new Ledger.Busy({ cause: `held by ${holder}` })
          }
          const started = { ...yield* entryFor(next, entries, { state, durationMillis: 0 }), claim }
          yield* Ledger.write(namespace, started)
          return started
        })).pipe(Effect.mapError((failure) =>
          Fault.classify(failure) === "infrastructure" || failure._tag === "CommitUnknown"
            ? new Ledger.Busy({ cause: failure })
            : failure._tag === "SqlError" || failure._tag === "RolledBack"
            ? failed(failure)
            : failure
        ))
        const [elapsed] = yield* Guard.outside(next.migration[next.direction], { permit: journey.statements }).pipe(
          Effect.mapError((failure) =>
            failure._tag === "SqlError" ? failed(failure) : refusedAs(failure, { namespace, id })
          ),
          Effect.timed
        )
        const durationMillis = Math.round(Duration.toMillis(elapsed))
        const done = next.direction === "down"
          ? Ledger.remove(namespace, id)
          : Ledger.write(namespace, { ...entry, state: "applied", durationMillis, claim: undefined })
        yield* done.pipe(
          Effect.retry({ while: isLockedFile, schedule: Schedule.spaced("25 millis"), times: 400 }),
          Effect.mapError(failed)
        )
        return { id, direction: next.direction, durationMillis }
      })
    return yield* sql.onDialectOrElse({
      sqlite: () => Claim.hold(work),
      orElse: () =>
        Ledger.lockOutside(namespace, work(undefined)).pipe(
          Effect.mapError((failure) => failure instanceof SqlError ? new Ledger.Busy({ cause: failure }) : failure)
        )
    })
  })

/** What is recorded now, under the lock. If somebody was faster, everything is looked at again. */
const confirm = (journey: Journey, next: Itinerary.Next) =>
  Effect.gen(function*() {
    const entries = (yield* Ledger.read(journey.namespace)) ?? []
    const still = yield* journey.decide(entries)
    return still?.id === next.id && still.direction === next.direction ? entries : yield* new Ledger.Busy({})
  })

const entryFor = (
  { id, migration }: Itinerary.Next,
  entries: ReadonlyArray<Ledger.Entry>,
  how: Pick<Ledger.Entry, "state" | "durationMillis">
): Effect.Effect<Ledger.Entry> =>
  Effect.map(Clock.currentTimeMillis, (appliedAtMillis) => ({
    ...how,
    id,
    ordinal: entries.find((entry) => entry.id === id)?.ordinal ?? (entries.at(-1)?.ordinal ?? 0) + 1,
    digest: migration.digest,
    signedBy: migration.signedBy,
    appliedBy: `${hostname()}:${process.pid}`,
    appliedAtMillis,
    claim: undefined
  }))

const recordFailed = (journey: Journey, next: Itinerary.Next): Effect.Effect<void, StepError, SqlClient.SqlClient> =>
  Ledger.patiently(
    journey.namespace,
    journey.lockTimeout,
    Transaction.run(Effect.gen(function*() {
      yield* Ledger.lock(journey.namespace)
      const entries = (yield* Ledger.read(journey.namespace)) ?? []
      yield* Ledger.write(journey.namespace, yield* entryFor(next, entries, { state: "failed", durationMillis: 0 }))
    }))
  ).pipe(Effect.mapError((cause) =>
    cause instanceof Ledger.MigrationLocked
      ? cause
      : new MigrationFailed({ namespace: journey.namespace, id: next.id, cause })
  ))

/** A failure that waiting may cure. */
export const isPassing = (failure: unknown): boolean => Fault.classify(failure) === "infrastructure"

const isLockedFile = (failure: unknown): boolean => Fault.codeOf(failure)?.startsWith("SQLITE_BUSY") === true
