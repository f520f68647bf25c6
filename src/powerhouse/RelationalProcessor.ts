/**
 * A relational processor: a class of theirs that extends `RelationalDbProcessor`, as a processor of ours, unchanged.
 *
 *     const TodoList = RelationalProcessor.make("todo-list", TheirTodoList, { driveId, filter })
 *
 *     subscription opens    transaction ─▶ createNamespace ─▶ new TheirTodoList(…) ─▶ initAndUpgrade()
 *     a commit              transaction ─▶ onOperations(…) or onStrands(…) ─▶ its queries ─▶ our cursor
 *     subscription closes   onDisconnect(), with no database
 *
 * What they write and how far they have come is one transaction, so an operation's effect is there exactly once. They are
 * called one call at a time, with each document's operations in index order and without those that came again: a strand a
 * call where the class has `onOperations`, all strands of the commit in one call where it has `onStrands`.
 *
 * A subscription closes with every restart, and there are processors that empty their tables in `onDisconnect`, for which the
 * real system calls it when a drive is deleted. So queries are refused there.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Predicate from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { createHash } from "node:crypto"
import { dialectOf } from "../domain/Dialect.js"
import type { Namespace } from "../domain/Namespace.js"
import type { Strand } from "../domain/Strand.js"
import type * as Batch from "../ingest/Batch.js"
import type { Filter } from "../ingest/Filter.js"
import * as Filters from "../ingest/Filter.js"
import { Source } from "../ingest/Source.js"
import type { Attempt } from "../process/Attempt.js"
import * as Fault from "../process/Fault.js"
import * as KyselyDialect from "../process/KyselyDialect.js"
import * as Policy from "../process/Policy.js"
import * as Processor from "../process/Processor.js"
import * as Transaction from "../store/Transaction.js"
import * as Call from "./Call.js"
import type { LegacyFailure, Unawaited, UnawaitedQuery } from "./Call.js"
import * as Delivery from "./Delivery.js"
import type { Generation } from "./Delivery.js"
import { getNamespace } from "./HashNamespace.js"
import * as LegacyDb from "./LegacyDb.js"
import { ResultingStates } from "./ResultingStates.js"
import { States } from "./States.js"
import type { Modules } from "./States.js"

export { LegacyFailure, LegacyRefused, QueryOutsideCall, UnawaitedQuery } from "./Call.js"
export type { CallError, Unawaited } from "./Call.js"
export type { Generation } from "./Delivery.js"

/** What an instance has; each generation has one of the two handlers. */
export interface Instance {
  readonly onOperations?: (operations: never) => PromiseLike<unknown>
  readonly onStrands?: (strands: never) => PromiseLike<unknown>
  readonly onDisconnect: () => PromiseLike<unknown>
  readonly initAndUpgrade?: () => PromiseLike<unknown>
  readonly filter?: object
}

/** A class of theirs. */
export interface Class {
  new(namespace: string, filter: never, relationalDb: never): Instance
  readonly getNamespace?: (driveId: string) => string
}

/** What a factory of theirs returns in a list. */
export interface Record {
  readonly processor: object
  readonly filter: object
}

export interface Options {
  /** The drive that the class is made for; it is in the name of the namespace, and stands in strands that name no drive. */
  readonly driveId: string
  /**
   * The filter that their factory gives to the class. G1 and G2 are given strands of their drive alone, unless it says
   * otherwise in `driveId`; G3 is given those of all drives, as the real reactor does.
   */
  readonly filter?: Filter
  /** Which generation's deliveries it takes: G3 where the class has `onOperations`, otherwise G2, unless told. */
  readonly generation?: Generation
  /** Our namespace: its cursor is there. Default: what the class calls its namespace for the drive. */
  readonly namespace?: string
  /**
   * Where its tables are on PostgreSQL: in the schema of the real system, which its subgraphs read, or beside the cursor, in
   * the schema of our namespace. On SQLite they are always beside the cursor. Default: `"theirs"`.
   */
  readonly tables?: "theirs" | "ours"
  /**
   * The models whose documents are to have their states, by document type: their own `DocumentModelModule`s. G1 and G2 have
   * `state` and `previousState` then, G3 `resultingState`, which the real reactor gives live and leaves out in a backfill.
   * See `States` and `ResultingStates` for what it costs; without a model there is no state.
   */
  readonly models?: Modules
  /** What becomes of queries that it does not await; see `Call`. Default: `"fail"`. */
  readonly unawaited?: Unawaited
  /** How long one call of it may take, after which it counts as having thrown; 1 minute when left out. */
  readonly within?: Duration.DurationInput
  /** Where it begins when it has no cursor yet; default: `"beginning"`. */
  readonly startFrom?: Processor.StartFrom
  readonly batch?: Partial<Batch.Limits>
}

/** What a legacy processor may fail with. */
export type Failure = LegacyFailure | UnawaitedQuery | Policy.EngineFailure

/** A legacy processor that is yet to be given a policy. */
export type RelationalProcessor = Processor.Processor<Failure, SqlClient.SqlClient | Source>

/**
 * What suits most: an operation at which it throws is tried again for some seconds and then parked, so that its document
 * waits for someone and all others go on; one that leaves a query behind halts, since more of its writes may be missing.
 */
export const policy = {
  ...Policy.standard,
  LegacyFailure: Policy.retry(Schedule.intersect(Schedule.exponential("100 millis"), Schedule.recurs(5)), {
    otherwise: Policy.park
  }),
  UnawaitedQuery: Policy.halt
} as const

/**
 * The class as a processor. `name` is its cursor's: choose it once and keep it. Throws a `ParseError` when the name, or the
 * namespace that the class has for the drive, is not allowed here; then choose one with `namespace`.
 */
export const make = (name: string, legacy: Class, options: Options): RelationalProcessor => {
  const { driveId } = options
  const theirs = legacy.getNamespace?.(driveId) ?? getNamespace(legacy.name, driveId)
  const filter = options.filter ?? {}
  return fromParts(name, legacy.name, generationOf(legacy, options), {
    ...options,
    namespace: options.namespace ?? theirs,
    theirs,
    build: (db) =>
      createNamespace(db, theirs).then((own) => Reflect.construct(legacy, [theirs, filter, own]) as Instance)
  })
}

/** What a factory of theirs is called with: the database; build the rest of their host module around it. */
export type Factory<Db> = (relationalDb: Db) => Made | PromiseLike<Made>

type Made = Instance | Record | ReadonlyArray<Record>

export interface FactoryOptions extends Options {
  readonly namespace: string
  readonly generation: Generation
  /** What the factory calls its namespace, by which subgraphs ask for it. Default: as `namespace`. */
  readonly theirs?: string
  /** Which of the factory's records it is, from 0. */
  readonly record?: number
}

/**
 * What a factory of theirs makes, as a processor: `(relationalDb) => theirFactory({ relationalDb, … })(driveHeader)`. The
 * factory is called once each time the subscription opens, in a transaction.
 */
export const fromFactory = <Db>(name: string, factory: Factory<Db>, options: FactoryOptions): RelationalProcessor =>
  fromParts(name, name, options.generation, {
    ...options,
    theirs: options.theirs ?? options.namespace,
    build: (db) => Promise.resolve(factory(db as Db)).then((made) => instanceOf(made, options.record ?? 0))
  })

const instanceOf = (made: Made, index: number): Instance => {
  const one = Array.isArray(made) ? (made as ReadonlyArray<Record>)[index] : made as Instance | Record
  if (one === undefined) throw new Call.LegacyRefused({ reason: `the factory made no record ${index}` })
  return "processor" in one ? one.processor as Instance : one
}

const createNamespace = (db: object, namespace: string): Promise<object> =>
  (db as { readonly createNamespace: (name: string) => Promise<object> }).createNamespace(namespace)

const generationOf = (legacy: Class, { generation }: Options): Generation => {
  if (generation !== undefined) return generation
  const prototype = legacy.prototype as object
  return Predicate.hasProperty(prototype, "onStrands") && !Predicate.hasProperty(prototype, "onOperations")
    ? "G2"
    : "G3"
}

interface Parts extends Options {
  readonly namespace: string
  readonly theirs: string
  readonly build: (db: object) => PromiseLike<Instance>
}

const fromParts = (name: string, title: string, generation: Generation, parts: Parts): RelationalProcessor => {
  // The whole state of a document is that of all its scopes; the class is handed those that it wants.
  const isWhole = generation === "G3" && parts.models !== undefined
  const processor = Processor.make(name, {
    namespace: parts.namespace,
    filter: generation === "G3"
      ? withScopes(parts.filter ?? {}, !isWhole)
      : { driveId: [parts.driveId], ...parts.filter },
    filterDialect: generation === "G3" ? "reactor" : "drive",
    ...(parts.startFrom === undefined ? {} : { startFrom: parts.startFrom }),
    ...(parts.batch === undefined ? {} : { batch: parts.batch }),
    handler: open(title, generation, parts)
  })
  const legacy: Legacy = {
    namespace: processor.namespace,
    theirs: parts.theirs,
    tables: parts.tables ?? "theirs"
  }
  return Object.assign(processor, { [legacyId]: legacy })
}

const withScopes = ({ scope, ...filter }: Filter, isKept: boolean): Filter =>
  isKept && scope !== undefined ? { ...filter, scope } : filter

const legacyId = Symbol.for("effect-processors/powerhouse/Legacy")

/** Where the tables of a legacy processor are. */
export interface Legacy {
  readonly namespace: Namespace
  /** What the class calls its namespace. */
  readonly theirs: string
  readonly tables: "theirs" | "ours"
}

/** What is known of a processor that was made here, whatever policies it was given since. */
export const legacyOf = (processor: object): Legacy | undefined =>
  Predicate.hasProperty(processor, legacyId) ? processor[legacyId] as Legacy : undefined

/** A processor that is open: the instance, and how it is called. */
interface Open {
  readonly title: string
  readonly instance: Instance
  readonly manner: Call.Manner
  readonly states: States | undefined
  readonly resulting: ResultingStates | undefined
  /** The strands that it is handed, of those that it follows. */
  readonly isWanted: (strand: Strand) => boolean
}

/** Makes the instance and its tables, alone and in one transaction. */
const open = (
  title: string,
  generation: Generation,
  parts: Parts
): Effect.Effect<
  Processor.Handler<Call.CallError, SqlClient.SqlClient>,
  SqlError,
  SqlClient.SqlClient | Source | Scope.Scope
> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const kysely = yield* Effect.mapError(
      KyselyDialect.load,
      (cause) => new SqlError({ cause, message: "A relational processor needs the package kysely" })
    )
    const manner: Call.Manner = {
      unawaited: parts.unawaited ?? "fail",
      within: parts.within ?? "1 minute",
      isCareful: false
    }
    const dialect = dialectOf(sql)
    const db = LegacyDb.make(kysely, {
      dialect,
      open: lineOf,
      inside: Call.insideTransaction,
      hasSchemas: () => dialect === "pg" && parts.tables !== "ours",
      hasPlaces: false
    })
    const begin = Call.all(
      manner,
      Call.run(
        `${title}.initAndUpgrade`,
        () => parts.build(db).then((instance) => Promise.resolve(instance.initAndUpgrade?.()).then(() => instance)),
        manner
      )
    )
    const instance = yield* pipe(
      Transaction.run(Effect.zipRight(lock(sql, parts.namespace), begin)),
      Effect.catchTags({
        CommitUnknown: (cause) => Effect.fail(unopened(title, cause)),
        RolledBack: (cause) => Effect.fail(unopened(title, cause)),
        // Nothing that a subscription could wait for: it halts, and says what was thrown.
        LegacyFailure: (failure) =>
          failure.cause instanceof SqlError ? Effect.fail(failure.cause) : Effect.die(failure),
        UnawaitedQuery: Effect.die
      })
    )
    yield* complain(title, generation, parts, instance)
    yield* Effect.addFinalizer(() => disconnect(title, instance, manner))
    const source = yield* Source
    const { models } = parts
    const states = models === undefined || generation === "G3" ? undefined : new States(models, source)
    const resulting = models === undefined || generation !== "G3" ? undefined : new ResultingStates(models, source)
    const isWanted = Filters.compile(parts.filter ?? {}, generation === "G3" ? "reactor" : "drive")
    return handler({ title, instance, manner, states, resulting, isWanted }, generation, parts)
  })

const unopened = (title: string, cause: unknown) => new SqlError({ cause, message: `Failed to open ${title}` })

/** Two processes do not make the same tables at the same time. On SQLite the transaction is the lock. */
const lock = (sql: SqlClient.SqlClient, namespace: string): Effect.Effect<unknown, SqlError> => {
  const key = createHash("sha256").update(`effect-processors/legacy\u0000${namespace}`).digest().readBigInt64BE()
  return sql.onDialectOrElse<Effect.Effect<unknown, SqlError>, Effect.Effect<unknown, SqlError>>({
    sqlite: () => Effect.void,
    orElse: () => sql`SELECT pg_advisory_xact_lock(${key})`
  })
}

/** What is not as it would be in the real system, and could be overlooked. */
const complain = (title: string, generation: Generation, parts: Parts, { filter }: Instance): Effect.Effect<void> =>
  Effect.gen(function*() {
    const own = filter ?? {}
    const differs = fields.some((field) => textOf(own, field) !== textOf(parts.filter ?? {}, field))
    if (differs) {
      yield* Effect.logWarning(
        `${title} has the filter ${JSON.stringify(own)}, and is run with ${JSON.stringify(parts.filter ?? {})}`
      )
    }
    const stars = generation === "G3" ? Filters.dialectDifferences(parts.filter ?? {}) : []
    if (stars.length > 0) {
      yield* Effect.logWarning(`${title} has "*" in ${stars.join(", ")}, which matches nothing in G3`)
    }
  })

const fields = ["documentType", "documentId", "scope", "branch"] as const

const textOf = (filter: object, field: (typeof fields)[number]): string => {
  const wanted: unknown = Predicate.hasProperty(filter, field) ? filter[field] : []
  return JSON.stringify(Array.isArray(wanted) ? wanted.map(String).sort((a, b) => (a < b ? -1 : 1)) : wanted)
}

/**
 * Told that it is over, and given 5 seconds, or what a call is given if that is less; what it throws is told, and stops
 * nobody. Without a call around it, its queries are refused.
 */
const disconnect = (title: string, instance: Instance, { within }: Call.Manner): Effect.Effect<void> =>
  Effect.tryPromise({
    try: () => Promise.resolve(Call.outside(() => instance.onDisconnect())),
    catch: (thrown) => thrown
  }).pipe(
    // A finalizer is not interruptible by itself, and could not be given up.
    Effect.interruptible,
    Effect.timeout(Duration.min(within, "5 seconds")),
    Effect.catchAll((thrown) => Effect.logWarning(`${title}.onDisconnect: ${Fault.describe(thrown)}`)),
    Effect.asVoid
  )

const handler = (
  processor: Open,
  generation: Generation,
  parts: Parts
): Processor.Handler<Call.CallError, SqlClient.SqlClient> => ({
  run: (strands, attempt) => {
    const wanted = strands.filter((strand) => Delivery.isDelivered(generation, strand))
    if (wanted.length === 0) return Effect.void
    return Call.all(
      processor.manner,
      generation === "G3"
        ? Effect.forEach(wanted, (strand) => strandByStrand(processor, strand, attempt), { discard: true })
        : Effect.flatMap(
          Effect.forEach(wanted, (strand) => update(processor, generation, parts.driveId, strand)),
          (updates) => call(processor, "onStrands", () => updates)
        )
    )
  }
})

const update = (
  { states }: Open,
  generation: "G1" | "G2",
  driveId: string,
  strand: Strand
): Effect.Effect<Delivery.InternalTransmitterUpdate, SqlError | LegacyFailure> =>
  Effect.map(
    states?.steps(strand) ?? Effect.succeed(undefined),
    (steps) => Delivery.update(generation, driveId, strand, steps)
  )

/** A call a strand, which is what the real reactor makes of a job. */
const strandByStrand = (processor: Open, strand: Strand, attempt: Attempt) =>
  Effect.suspend(() => {
    attempt.current = strand.operations.length === 1 ? strand.operations[0] : undefined
    return (processor.resulting?.of(strand) ?? Effect.succeed([])).pipe(
      Effect.flatMap((resulting) =>
        processor.isWanted(strand)
          ? call(processor, "onOperations", () => Delivery.operations(strand, resulting))
          : Effect.void
      ),
      Effect.tap(() => {
        attempt.current = undefined
      })
    )
  })

const call = (
  { instance, manner, title }: Open,
  method: "onOperations" | "onStrands",
  delivery: () => unknown
) => {
  const handle = instance[method] as ((given: unknown) => PromiseLike<unknown>) | undefined
  return handle === undefined
    ? Effect.die(new Call.LegacyRefused({ reason: `${title} has no ${method}` }))
    : Effect.asVoid(Call.run(`${title}.${method}`, () => handle.call(instance, delivery()), manner))
}

/** A connection whose statements are those of the call that the code belongs to. */
const lineOf = (): LegacyDb.Line => {
  const line = new Call.Line()
  return {
    execute: (text, parameters) => Call.current(text).execute(line, text, parameters),
    stream: (text, parameters) => Call.current(text).stream(text, parameters),
    begin: () => Call.current("BEGIN").begin(line),
    commit: () => Call.current("COMMIT").commit(line),
    rollback: () => Call.current("ROLLBACK").rollback(line),
    release: () => line.inTransaction ? Call.current("a release").release(line) : undefined
  }
}
