/**
 * A migrator: brings a namespace's tables up to its migrations, or down again, step by step, in the place that the client in
 * the context reaches.
 *
 *     read the ledger ─▶ decide ─▶ nothing to do: done, and no lock was taken
 *          ▲                └ a step ─▶ BEGIN ─▶ lock ─▶ decide again ─▶ run, record ─▶ COMMIT ─┐
 *          └────────────────────────────────────────────────────────────────────────────────────┘
 *
 * Invariants: each step runs once, in a transaction with its record; two migrators of a namespace never work at the same
 * time, since the lock is taken before anything is created; what is wrong with the set of migrations (an edit, a late step)
 * is said before the first statement; nobody is told that a namespace is ready before it is.
 *
 * A step that is declared `transactional: false` is recorded as started, run, and recorded as applied. Its lock is held by a
 * session of its own on PostgreSQL. On SQLite it is a claim in the ledger, which counts for as long as its process lives.
 *
 * How long a statement may take is the layer's `statementTimeout`, 30 seconds by default; a backfill may want more.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as processors from "../../migrations/0001_processors.js"
import type { Namespace } from "../domain/Namespace.js"
import * as Migration from "../process/Migration.js"
import type * as Permit from "../process/Permit.js"
import * as Guard from "./Guard.js"
import * as Itinerary from "./Itinerary.js"
import * as Ledger from "./Ledger.js"
import * as Namespaces from "./Namespaces.js"
import * as Step from "./Step.js"
import * as Transaction from "./Transaction.js"

export { MigrationEdited, MigrationLate, MigrationMissing, MigrationUnfinished, type Standing } from "./Itinerary.js"
export { MigrationLocked } from "./Ledger.js"
export { MigrationEndedTransaction, MigrationFailed, MigrationRefused, type Step } from "./Step.js"

/** Everything that may keep a namespace from being ready. */
export type MigrationError = Step.StepError | Migration.MigrationMisnamed

export interface Options {
  /** Whether a new migration may sort before one that was applied. Default: false. */
  readonly allowLate?: boolean | undefined
  /** How long each step may wait for the lock. Default: 1 minute. */
  readonly lockTimeout?: Duration.DurationInput | undefined
  /**
   * What migrations may send. `"any"`, the default, is everything but what ends their transaction, for migrations of one's
   * own. `"schema"` is for those of others, signed ones too: what shapes and fills tables, and nothing that reaches rights,
   * files, other schemas, other sessions or languages other than SQL. A list permits what it names (see `Permit`).
   */
  readonly statements?: Permit.Permit | undefined
}

/** What was done to a namespace; no steps when there was nothing to do. */
export interface Summary {
  readonly namespace: string
  readonly steps: ReadonlyArray<Step.Step>
  readonly durationMillis: number
}

/** Where to go down to: a step that stays, or nothing. */
export type Target = { readonly to: string } | "nothing"

/** What a migration would send. */
export interface Planned {
  readonly id: string
  readonly transactional: boolean
  readonly statements: ReadonlyArray<Guard.Sent>
}

/** The framework's own tables, under a name that no namespace of a user can have. */
const own = { namespace: "processor_framework", migrations: { "0001_processors": processors } } as const

/** Whether it is the framework's own, whose steps every place has, and nobody has to hear of. */
const isFramework = (namespace: string): boolean => namespace.startsWith("processor_")

/** At most so many namespaces are migrated side by side. */
const namespacesMax = 4

/** Creates the framework's own tables of this place where they are missing. Safe to run from many processes at once. */
export const prepare: Effect.Effect<Summary, MigrationError, SqlClient.SqlClient> = Effect.suspend(() =>
  upNamed(own.namespace, own.migrations, {})
)

/** Applies what is missing, in order. With nothing to do it costs one read and takes no lock. */
export const up = (
  namespace: Namespace,
  migrations: Migration.Migrations,
  options: Options = {}
): Effect.Effect<Summary, MigrationError, SqlClient.SqlClient> => upNamed(namespace, migrations, options)

/** A namespace, and the steps that one of its processors brings. */
export interface Owner {
  readonly namespace: Namespace
  readonly migrations: Migration.Migrations
}

/**
 * {@link prepare} and {@link up} for many, each in its own place, side by side; those that share a namespace bring one set of
 * migrations together.
 */
export const upAll = (
  owners: ReadonlyArray<Owner>,
  options: Options = {}
): Effect.Effect<
  ReadonlyArray<Summary>,
  MigrationError | Migration.MigrationConflict | Exclude<Namespaces.OpenError, SqlError>,
  Namespaces.Namespaces
> =>
  Effect.gen(function*() {
    const shared = new Map<Namespace, Set<Migration.Migrations>>()
    for (const { migrations, namespace } of owners) {
      const known = shared.get(namespace) ?? new Set()
      shared.set(namespace, known.add(migrations))
    }
    const merged = yield* Effect.forEach(shared, ([namespace, all]) =>
      Effect.map(Migration.merge(namespace, Array.from(all)), (migrations) => ({ namespace, migrations })))
    const namespaces = yield* Namespaces.Namespaces
    return yield* Effect.forEach(merged, ({ migrations, namespace }) =>
      Effect.provideServiceEffect(
        bring(namespace, migrations, options),
        SqlClient.SqlClient,
        Effect.catchTag(
          namespaces.open(namespace),
          "SqlError",
          (cause) =>
            new Step.MigrationFailed({ namespace, id: undefined, cause })
        )
      ), { concurrency: namespacesMax })
  })

/** The framework's tables and then the namespace's own. With nothing to do for either it costs one read. */
const bring = (
  namespace: Namespace,
  migrations: Migration.Migrations,
  options: Options
): Effect.Effect<Summary, MigrationError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    yield* Migration.check(migrations, namespace)
    // A failure to read is judged by `prepare`, which reads again and knows when to wait.
    const ledgers = yield* Effect.orElseSucceed(Ledger.readMany([own.namespace, namespace]), () => undefined)
    const entriesIn = (name: string) => ledgers?.get(name) ?? []
    const isReady = ledgers !== undefined
      && (yield* Itinerary.upward(own.namespace, own.migrations, {})(entriesIn(own.namespace))) === undefined
      && (yield* Itinerary.upward(namespace, migrations, options)(entriesIn(namespace))) === undefined
    if (isReady) return { namespace, steps: [], durationMillis: 0 }
    const prepared = yield* prepare
    const { durationMillis, steps } = yield* up(namespace, migrations, options)
    return {
      namespace,
      steps: [...prepared.steps, ...steps],
      durationMillis: prepared.durationMillis + durationMillis
    }
  })

/** Takes back what went up after the target, the latest first. */
export const down = (
  namespace: Namespace,
  migrations: Migration.Migrations,
  target: Target,
  options: Options = {}
): Effect.Effect<Summary, MigrationError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    yield* Migration.check(migrations, namespace)
    const entries = yield* entriesOf(namespace)
    const from = target === "nothing" ? 0 : entries.findIndex(({ id }) => id === target.to) + 1
    if (target !== "nothing" && from === 0) return yield* new Itinerary.MigrationMissing({ namespace, id: target.to })
    const ids = entries.slice(from).map(({ id }) => id)
    return yield* downOf(namespace, migrations, ids, options)
  })

/** Takes back these steps, the last one first. Those that are not recorded are passed over. */
export const downOf = (
  namespace: Namespace,
  migrations: Migration.Migrations,
  ids: ReadonlyArray<string>,
  options: Options = {}
): Effect.Effect<Summary, MigrationError, SqlClient.SqlClient> =>
  Effect.suspend(() => {
    const decide = Itinerary.downward(namespace, migrations, ids)
    return advance(
      { namespace, lockTimeout: options.lockTimeout, statements: options.statements, decide },
      ids.length,
      []
    )
  })

/** Takes the latest step back and applies it again. */
export const redo = (
  namespace: Namespace,
  migrations: Migration.Migrations,
  options: Options = {}
): Effect.Effect<Summary, MigrationError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const entries = yield* entriesOf(namespace)
    const recorded = entries.map(({ id }) => id)
    const back = yield* downOf(namespace, migrations, recorded.slice(-1), options)
    const known = Object.fromEntries(Object.entries(migrations).filter(([id]) => recorded.includes(id)))
    const forth = yield* up(namespace, known, { ...options, allowLate: true })
    return {
      namespace,
      steps: [...back.steps, ...forth.steps],
      durationMillis: back.durationMillis + forth.durationMillis
    }
  })

/** How each migration stands, in their order. Reads, and judges nothing. */
export const status = (
  namespace: Namespace,
  migrations: Migration.Migrations
): Effect.Effect<ReadonlyArray<Itinerary.Standing>, Step.MigrationFailed, SqlClient.SqlClient> =>
  Effect.map(entriesOf(namespace), (entries) => Itinerary.standings(migrations, entries))

/**
 * The statements that `up` would send, by running it in a transaction that is rolled back. So they are the true ones, even
 * where they depend on data; but locks are held meanwhile, numbers drawn from a sequence stay drawn, and a migration that
 * does something outside the database does it. Those outside a transaction are not run: each of their statements is
 * recorded and answered with no rows, and later ones do not see what they would have done.
 */
export const plan = (
  namespace: Namespace,
  migrations: Migration.Migrations,
  options: Options = {}
): Effect.Effect<ReadonlyArray<Planned>, MigrationError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    yield* Migration.check(migrations, namespace)
    const entries = yield* entriesOf(namespace)
    yield* Itinerary.upward(namespace, migrations, options)(entries)
    const pending = Migration.order(migrations).filter((id) => entries.every((entry) => entry.id !== id))
    if (pending.length === 0) return []
    const rehearsal = Effect.flatMap(
      Effect.forEach(pending, (id) => rehearse(namespace, id, migrations[id]!, options)),
      (planned) => Effect.fail(new Rehearsed({ planned }))
    )
    return yield* Ledger.patiently(
      namespace,
      options.lockTimeout,
      Transaction.run(Effect.zipRight(Ledger.lock(namespace), rehearsal)).pipe(
        Effect.catchTag("Rehearsed", ({ planned }) => Effect.succeed(planned)),
        Effect.mapError((failure) => Step.isPassing(failure) ? new Ledger.Busy({ cause: failure }) : failure)
      )
    ).pipe(Effect.catchTags({
      SqlError: (cause) => new Step.MigrationFailed({ namespace, id: undefined, cause }),
      CommitUnknown: (cause) => new Step.MigrationFailed({ namespace, id: undefined, cause }),
      RolledBack: (cause) => new Step.MigrationFailed({ namespace, id: undefined, cause })
    }))
  })

/**
 * Records by hand how a migration that was left half-way stands: it is in the database, whole, or nothing of it is. Does
 * nothing for one that is not recorded.
 */
export const settle = (
  namespace: Namespace,
  id: string,
  as: "applied" | "absent"
): Effect.Effect<void, Step.MigrationFailed | Ledger.MigrationLocked, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    // A statement that fails for want of the table would cost the transaction.
    if ((yield* Ledger.read(namespace)) === undefined) return
    yield* Ledger.patiently(
      namespace,
      undefined,
      Transaction.run(Effect.gen(function*() {
        yield* Ledger.lock(namespace)
        const entry = (yield* Ledger.read(namespace))?.find((each) => each.id === id)
        if (entry === undefined) return
        if (as === "absent") return yield* Ledger.remove(namespace, id)
        yield* Ledger.write(namespace, { ...entry, state: "applied", claim: undefined })
      }))
    )
  }).pipe(
    Effect.mapError((cause) =>
      cause instanceof Ledger.MigrationLocked ? cause : new Step.MigrationFailed({ namespace, id, cause })
    )
  )

/** As the reactor reports it. */
export const asFailed = (cause: MigrationError | Migration.MigrationConflict): Step.MigrationFailed =>
  cause._tag === "MigrationFailed" ? cause : new Step.MigrationFailed({
    namespace: cause.namespace ?? own.namespace,
    id: "id" in cause ? cause.id : undefined,
    cause
  })

/** Adds each step to `steps` once it is in the database, so that an interrupted caller knows what was done. */
export const upNoting = (
  namespace: string,
  migrations: Migration.Migrations,
  options: Options,
  steps: Array<Step.Step>
): Effect.Effect<Summary, MigrationError, SqlClient.SqlClient> =>
  Effect.flatMap(Migration.check(migrations, namespace), (ids) => {
    const decide = Itinerary.upward(namespace, migrations, options)
    return advance(
      { namespace, lockTimeout: options.lockTimeout, statements: options.statements, decide },
      ids.length,
      steps
    )
  })

const upNamed = (namespace: string, migrations: Migration.Migrations, options: Options) =>
  Effect.suspend(() => upNoting(namespace, migrations, options, []))

const entriesOf = (
  namespace: string
): Effect.Effect<ReadonlyArray<Ledger.Entry>, Step.MigrationFailed, SqlClient.SqlClient> =>
  Ledger.read(namespace).pipe(
    Effect.map((entries) => entries ?? []),
    Effect.mapError((cause) => new Step.MigrationFailed({ namespace, id: undefined, cause }))
  )

/** Steps until there is nothing left to do. */
const advance = (
  journey: Step.Journey,
  stepsMax: number,
  steps: Array<Step.Step>
): Effect.Effect<Summary, MigrationError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const { lockTimeout, namespace } = journey
    for (;;) {
      const step = yield* Ledger.patiently(namespace, lockTimeout, Step.take(journey))
      if (step === undefined) return
      // Only somebody who undoes what is done here, at the same time, makes this longer than the list.
      if (steps.length === stepsMax) {
        return yield* new Ledger.MigrationLocked({
          namespace,
          waitedMillis: 0,
          cause: new Error("another process undoes it")
        })
      }
      steps.push(step)
      const log = isFramework(namespace) ? Effect.logDebug : Effect.logInfo
      yield* log(`migration ${step.id} is ${step.direction} after ${step.durationMillis} ms`)
    }
  }).pipe(
    Effect.annotateLogs({ namespace: journey.namespace }),
    Effect.timed,
    Effect.map(([elapsed]) => ({
      namespace: journey.namespace,
      steps: [...steps],
      durationMillis: Math.round(Duration.toMillis(elapsed))
    })),
    Effect.withSpan("Migrator.advance", { attributes: { namespace: journey.namespace } })
  )

/** What a rehearsal ends with, so that its transaction is rolled back. */
class Rehearsed extends Data.TaggedError("Rehearsed")<{ readonly planned: ReadonlyArray<Planned> }> {}

const rehearse = (namespace: string, id: string, migration: Migration.Migration, { statements: permit }: Options) =>
  Effect.gen(function*() {
    const statements: Array<Guard.Sent> = []
    const options: Guard.Options = { permit, onStatement: (sent) => statements.push(sent) }
    const transactional = migration.transactional !== false
    yield* (transactional ? Guard.run(migration.up, options) : Guard.pretend(migration.up, options)).pipe(
      Effect.mapError((failure) =>
        failure._tag === "SqlError"
          ? new Step.MigrationFailed({ namespace, id, statements: statements.length, cause: failure })
          : Step.refusedAs(failure, { namespace, id })
      )
    )
    return { id, transactional, statements }
  })
