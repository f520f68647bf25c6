/**
 * A wait: until a processor has dealt with an operation, so that whoever wrote it can read what became of it.
 *
 *     append ─▶ wait ─▶ look ─┬─ applied, left out, superseded ─▶ where the cursor stands
 *                        ▲    ├─ set aside ─────────────────────▶ OperationParked
 *                        │    ├─ not wanted ────────────────────▶ OperationUnwanted
 *                        └────┴─ not yet: a commit's news, or a pause, 5 ms doubling to 250 ms
 *
 *     Wait.until(TodoList, Source.name("home"), { documentId, scope, branch, index })   in any process
 *     reactor.waitFor(TodoList, { documentId, scope, branch, index })                   where the reactor runs
 *
 * Invariants: a look is one statement, which reads what the processor's namespace has committed, whichever process did; it
 * serves all who wait at that moment, and between looks no connection is held. Not to be used in a handler, which would wait
 * for its own commit.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Index, quote } from "../domain/Operation.js"
import * as Position from "../domain/Position.js"
import * as Slice from "../domain/Slice.js"
import * as Strand from "../domain/Strand.js"
import * as Filter from "../ingest/Filter.js"
import type { SourceName } from "../ingest/Source.js"
import * as Fault from "../process/Fault.js"
import type { Processor } from "../process/Processor.js"
import type { Key } from "../store/Cursors.js"
import * as Ledger from "../store/Ledger.js"
import * as Letters from "../store/Letters.js"
import * as Namespaces from "../store/Namespaces.js"
import * as Progress from "../store/Progress.js"
import * as Rows from "../store/Rows.js"
import type { StoreUnavailable } from "../store/StoreUnavailable.js"
import type { Phase } from "./Pulse.js"

/** What is waited for: that one operation was dealt with, or that everything up to a position was looked at. */
export type Place = OperationPlace | { readonly position: Position.Position }

export interface OperationPlace {
  readonly documentId: string
  readonly scope: string
  readonly branch: string
  readonly index: number
  /** Lets a filter that does not want such documents be told at once. */
  readonly documentType?: string | undefined
  /** Where the operation is in its source, such as `Receipt.position`: a cursor that has passed it tells what was not wanted. */
  readonly position?: Position.Position | undefined
}

export interface Options {
  /** Default: 5 seconds. A statement that is under way then is waited for. */
  readonly timeout?: Duration.DurationInput | undefined
}

/** What has to be known of the processor that is waited for. */
export type Followed = Pick<Processor<unknown, unknown>, "name" | "namespace" | "filter" | "filterDialect">

/**
 * The operation was set aside, or stands behind one of its document that was: it waits for somebody to put that right, and
 * `DeadLetters` tells more. One that only waits for missing operations is not meant; it may leave at any moment.
 * Another operation with its index that was set aside counts as it, even where one of them was applied.
 */
export class OperationParked extends Data.TaggedError("OperationParked")<
  Key & {
    readonly place: OperationPlace
    /** The dead letter to be looked at: the operation's own, or the one that it stands behind. */
    readonly ordinal: bigint
    /** The tag of the failure in it, and what it says. */
    readonly cause: string
    readonly reason: string
    /** Whether it is another operation's. */
    readonly isBehind: boolean
  }
> {
  override get message(): string {
    const how = this.isBehind ? "waits behind dead letter" : "is dead letter"
    return `${
      show(this.place)
    } ${how} ${this.ordinal} of ${this.processor} on ${this.source}: ${this.cause}: ${this.reason}`
  }
}

/** The processor will not deal with the operation. */
export class OperationUnwanted extends Data.TaggedError("OperationUnwanted")<
  Key & {
    readonly place: OperationPlace
    /**
     * - `filter`: its filter does not want the stream;
     * - `passed`: its cursor is past the position, so the filter did not want it, or the cursor began behind it;
     * - `impossible`: there can be no such operation, by its name or index.
     */
    readonly why: "filter" | "passed" | "impossible"
  }
> {
  override get message(): string {
    return `${this.processor} on ${this.source} does not follow ${show(this.place)} (${this.why})`
  }
}

/** It has not come so far in time. Each figure is that of the last look, `undefined` where there is none. */
export class WaitTimedOut extends Data.TaggedError("WaitTimedOut")<
  Key & {
    readonly place: Place
    readonly timeoutMillis: number
    /** The last index of the stream that was dealt with. */
    readonly lastIndex: number | undefined
    /** Where the cursor stands: that of the document's partition, or the lowest where a position is waited for. */
    readonly position: Position.Position | undefined
    /** What the subscription is at, where it runs in this process. */
    readonly phase: Phase | undefined
    /** Whether the operation has come and waits for missing ones before it. */
    readonly isHeld: boolean
    /** Why the last look came to nothing, such as a database that is away. */
    readonly failure: unknown
  }
> {
  override get message(): string {
    const stands = this.position === undefined ? "it has no cursor" : `its cursor is at position ${this.position}`
    const told = [
      stands,
      ...("index" in this.place ? [this.lastIndex === undefined ? "no index" : `index ${this.lastIndex}`] : [])
        .map((index) => `the stream at ${index}`),
      ...(this.isHeld ? ["the operation waits for missing ones"] : []),
      ...(this.phase === undefined ? [] : [`it is ${this.phase}`]),
      ...(this.failure === undefined ? [] : [Fault.describe(this.failure)])
    ]
    return `${this.processor} on ${this.source} has not come to ${show(this.place)} in ${this.timeoutMillis} ms: ` +
      told.join(", ")
  }
}

export type WaitError =
  | OperationParked
  | OperationUnwanted
  | WaitTimedOut
  | Namespaces.NamespaceMismatch
  | StoreUnavailable
  | SqlError

/** Looks for all who wait for one processor on one source. */
export interface Lookout {
  /** Waits, and returns where the cursor stands then. A namespace or a cursor that is not there yet is waited for too. */
  readonly until: (place: Place, options?: Options) => Effect.Effect<Position.Position, WaitError>
  /** Tells that there may be news, so that it need not be waited for the next look. */
  readonly stir: Effect.Effect<void>
}

/** How long is waited before looking again, in milliseconds, doubling, and what the subscription is at. */
export interface LookoutOptions {
  readonly minMillis?: number | undefined
  readonly maxMillis?: number | undefined
  readonly phase?: (() => Phase) | undefined
}

/** Waits for one operation or position. Many waiters had better share a {@link lookout}. */
export const until = (
  processor: Followed,
  source: SourceName,
  place: Place,
  options: Options = {}
): Effect.Effect<Position.Position, WaitError, Namespaces.Namespaces> =>
  Effect.scoped(Effect.flatMap(lookout(processor, source), (shared) => shared.until(place, options)))

/** Lookouts for the processors of one source, each made when somebody first waits: for most nobody does. */
export interface Lookouts {
  /** The processor's own; `phase` tells what its subscription is at. */
  readonly of: (processor: Followed, phase: () => Phase) => Effect.Effect<Lookout>
  /** {@link Lookout.stir} of this processor's, if it was made. */
  readonly stir: (processor: Followed["name"]) => Effect.Effect<void>
}

/** They last as long as the scope. */
export const lookouts = (
  source: SourceName,
  options: Pick<LookoutOptions, "minMillis" | "maxMillis"> = {}
): Effect.Effect<Lookouts, never, Namespaces.Namespaces | Scope.Scope> =>
  Effect.map(Effect.context<Namespaces.Namespaces | Scope.Scope>(), (context): Lookouts => {
    const made = new Map<Followed["name"], Lookout>()
    return {
      of: (processor, phase) =>
        Effect.suspend(() => {
          const known = made.get(processor.name)
          if (known !== undefined) return Effect.succeed(known)
          return Effect.map(
            Effect.provide(lookout(processor, source, { ...options, phase }), context),
            (fresh) => {
              const first = made.get(processor.name) ?? fresh
              made.set(processor.name, first)
              return first
            }
          )
        }),
      stir: (processor) => made.get(processor)?.stir ?? Effect.void
    }
  })

/** A lookout for as long as the scope lasts. It looks only while somebody waits. */
export const lookout = (
  processor: Followed,
  source: SourceName,
  { maxMillis = 250, minMillis = 5, phase }: LookoutOptions = {}
): Effect.Effect<Lookout, never, Namespaces.Namespaces | Scope.Scope> =>
  Effect.gen(function*() {
    const key: Key = { processor: processor.name, source }
    const excludes = exclusion(processor)
    const waiters = new Set<Waiter>()
    const news = yield* Effect.makeLatch(false)
    const scope = yield* Effect.scope
    const context = yield* Effect.context<Namespaces.Namespaces>()
    let pauseMillis = minMillis
    let isLooking = false

    const settle = (waiter: Waiter, answer: Exit.Exit<Position.Position, WaitError>) => {
      if (waiters.delete(waiter)) waiter.resume(answer)
    }

    const tell = (some: ReadonlyArray<Waiter>, found: Exit.Exit<ReadonlyArray<Standing>, LookError>) => {
      for (const [i, waiter] of some.entries()) {
        if (Exit.isSuccess(found)) {
          waiter.standing = found.value[i]
          waiter.failure = undefined
          const answer = judge(key, waiter.place, found.value[i], excludes)
          if (answer !== undefined) settle(waiter, answer)
        } else {
          const failure = Option.getOrUndefined(Cause.failureOption(found.cause))
          if (failure === undefined || !isPassing(failure)) settle(waiter, Exit.failCause(asLasting(found.cause)))
          else waiter.failure = failure
        }
      }
    }

    const round = Effect.gen(function*() {
      if (waiters.size === 0) {
        news.unsafeClose()
        yield* news.await
      }
      news.unsafeClose()
      const all = Array.from(waiters)
      for (let i = 0; i < all.length; i += lookMax) {
        const some = all.slice(i, i + lookMax)
        tell(some, yield* Effect.exit(look(processor.namespace, key, some.map(({ place }) => place))))
      }
      if (waiters.size === 0) return
      const told = yield* Effect.timeoutOption(news.await, pauseMillis)
      if (Option.isNone(told)) pauseMillis = Math.min(2 * pauseMillis, maxMillis)
    })
    /** Somebody has to wait before there is a fiber that looks: most lookouts of a reactor are never asked. */
    const begin = Effect.uninterruptible(Effect.suspend(() => {
      if (isLooking) return Effect.void
      isLooking = true
      return Effect.forkIn(Effect.interruptible(Effect.provide(Effect.forever(round), context)), scope)
    }))

    const enter = (waiter: Omit<Waiter, "resume">) =>
      Effect.async<Position.Position, WaitError>((resume) => {
        const entered: Waiter = Object.assign(waiter, { resume })
        waiters.add(entered)
        pauseMillis = minMillis
        news.unsafeOpen()
        return Effect.sync(() => waiters.delete(entered))
      })

    return {
      until: (place, { timeout = "5 seconds" } = {}) =>
        Effect.suspend(() => {
          if ("index" in place && !isPossible(place)) {
            return new OperationUnwanted({ ...key, place, why: "impossible" })
          }
          const waiter: Omit<Waiter, "resume"> = { place, standing: undefined, failure: undefined }
          return Effect.timeoutFail(Effect.zipRight(begin, enter(waiter)), {
            duration: timeout,
            onTimeout: () => timedOut(key, waiter, Duration.toMillis(timeout), phase?.())
          })
        }),
      stir: Effect.suspend(() => waiters.size === 0 ? Effect.void : news.open)
    }
  })

/** Somebody who waits, and what the last look told. */
interface Waiter {
  readonly place: Place
  readonly resume: (answer: Exit.Exit<Position.Position, WaitError>) => void
  standing: Standing | undefined
  failure: unknown
}

/** How many are looked for in one statement. */
const lookMax = 500

const timedOut = (
  key: Key,
  { failure, place, standing }: Omit<Waiter, "resume">,
  timeoutMillis: number,
  phase?: Phase
) =>
  new WaitTimedOut({
    ...key,
    place,
    timeoutMillis,
    lastIndex: standing?.lastIndex,
    position: standing?.position,
    phase,
    isHeld: standing?.own !== undefined,
    failure
  })

/** What one look found about one place. */
interface Standing {
  readonly position: Position.Position | undefined
  readonly lastIndex: number | undefined
  /** The operation's own letter, and the first of its document that blocks. */
  readonly own: Letter | undefined
  readonly blocking: Letter | undefined
}

type Letter = Pick<OperationParked, "ordinal" | "cause" | "reason">

/** What a look says to somebody who waits; `undefined`: not yet. */
const judge = (
  key: Key,
  place: Place,
  standing: Standing | undefined,
  excludes: (place: OperationPlace) => boolean
): Exit.Exit<Position.Position, OperationParked | OperationUnwanted> | undefined => {
  const { blocking, lastIndex, own, position } = standing ?? {}
  const isPassed = position !== undefined && place.position !== undefined && position >= place.position
  if (!("index" in place)) return isPassed ? Exit.succeed(position) : undefined
  const letter = own === undefined || Letters.blocks(own) ? own : blocking
  if (letter !== undefined) {
    return Exit.fail(new OperationParked({ ...key, place, ...letter, isBehind: letter !== own }))
  }
  if (position !== undefined && lastIndex !== undefined && lastIndex >= place.index) return Exit.succeed(position)
  if (own !== undefined) return undefined
  if (isPassed) return Exit.fail(new OperationUnwanted({ ...key, place, why: "passed" }))
  return excludes(place) ? Exit.fail(new OperationUnwanted({ ...key, place, why: "filter" })) : undefined
}

/** Whether the filter does not want a stream, as far as the place tells. */
const exclusion = ({ filter, filterDialect }: Followed) => {
  const constraints = Filter.constraints(filter, filterDialect)
  return (place: OperationPlace): boolean =>
    constraints.some(({ field, values }) => {
      const value = field === "driveId" ? undefined : place[field]
      return value !== undefined && !values.has(value)
    })
}

/** Text that no database would take must not spoil the look of those who share it. */
const isPossible: (place: OperationPlace) => boolean = Schema.is(Schema.Struct({
  documentId: Strand.DocumentId,
  scope: Strand.Scope,
  branch: Strand.Branch,
  index: Index
}))

type LookError = Namespaces.NamespaceError

interface Row {
  readonly ordinal: number
  readonly position: string | null
  readonly last_index: number | null
  readonly own_ordinal: string | null
  readonly own_cause: string
  readonly own_reason: string
  readonly blocking_ordinal: string | null
  readonly blocking_cause: string
  readonly blocking_reason: string
}

/** How the processor stands towards each place. Before it was first started it stands nowhere. */
const look = (
  namespace: string,
  key: Key,
  places: ReadonlyArray<Place>
): Effect.Effect<ReadonlyArray<Standing>, LookError, Namespaces.Namespaces> =>
  Namespaces.query(namespace, Effect.flatMap(SqlClient.SqlClient, (sql) => statement(sql, key, places))).pipe(
    Effect.map((rows) => {
      const standings = new Array<Standing>(places.length)
      for (const row of rows) standings[row.ordinal] = fromRow(row)
      return standings
    }),
    Effect.catchIf(
      (failure) => failure._tag === "NamespaceMissing" || (failure._tag === "SqlError" && Ledger.isNoTable(failure)),
      () => Effect.succeed(places.map(() => nowhere))
    )
  )

const statement = (sql: SqlClient.SqlClient, key: Key, places: ReadonlyArray<Place>) => {
  const columns = {
    ordinal: "integer",
    document_id: "text",
    scope: "text",
    branch: "text",
    op_index: "integer",
    slice: "integer"
  } as const
  const wanted = Rows.table(
    sql,
    "wanted",
    columns,
    places.map((place, ordinal) =>
      "index" in place
        ? {
          ordinal,
          document_id: place.documentId,
          scope: place.scope,
          branch: place.branch,
          op_index: place.index,
          slice: Slice.of(place.documentId)
        }
        : { ordinal, document_id: null, scope: null, branch: null, op_index: null, slice: null }
    )
  )
  const ofKey = (table: string) =>
    sql`${sql(table)}.processor = ${key.processor} AND ${sql(table)}.source = ${key.source}`
  return sql<Row>`
    SELECT wanted.ordinal, (
        SELECT CAST(MIN(c.position) AS TEXT) FROM processor_cursor AS c
        WHERE ${ofKey("c")} AND (wanted.slice IS NULL OR wanted.slice BETWEEN c.first_slice AND c.last_slice)
      ) AS position, s.last_index,
      CAST(own.ordinal AS TEXT) AS own_ordinal, own.cause AS own_cause, own.reason AS own_reason,
      CAST(blocking.ordinal AS TEXT) AS blocking_ordinal, blocking.cause AS blocking_cause,
      blocking.reason AS blocking_reason
    FROM ${wanted}
    LEFT JOIN processor_stream AS s ON ${ofKey("s")} AND s.document_id = wanted.document_id
      AND s.scope = wanted.scope AND s.branch = wanted.branch AND s.page = ${Progress.newest}
    LEFT JOIN processor_dead_letter AS own ON ${ofKey("own")} AND own.ordinal = (
      SELECT MIN(l.ordinal) FROM processor_dead_letter AS l
      WHERE ${ofKey("l")} AND l.document_id = wanted.document_id
        AND l.scope = wanted.scope AND l.branch = wanted.branch AND l.op_index = wanted.op_index)
    LEFT JOIN processor_dead_letter AS blocking ON ${ofKey("blocking")} AND blocking.ordinal = (
      SELECT MIN(l.ordinal) FROM processor_dead_letter AS l
      WHERE ${ofKey("l")} AND l.document_id = wanted.document_id
        AND l.cause NOT IN (${Letters.queued}, ${Letters.gap}))`
}

const nowhere: Standing = { position: undefined, lastIndex: undefined, own: undefined, blocking: undefined }

const fromRow = (row: Row): Standing => ({
  position: row.position === null ? undefined : Position.fromSql(row.position),
  lastIndex: row.last_index ?? undefined,
  own: row.own_ordinal === null
    ? undefined
    : { ordinal: BigInt(row.own_ordinal), cause: row.own_cause, reason: row.own_reason },
  blocking: row.blocking_ordinal === null
    ? undefined
    : { ordinal: BigInt(row.blocking_ordinal), cause: row.blocking_cause, reason: row.blocking_reason }
})

/** What waiting may cure. */
const isPassing = (failure: LookError): boolean =>
  failure._tag === "SqlError"
    ? Fault.isPassing(failure)
    : failure._tag === "StoreUnavailable" && failure.transient

/** A namespace that is missing is waited for; see {@link look}. */
const asLasting = (cause: Cause.Cause<LookError>): Cause.Cause<Exclude<LookError, Namespaces.NamespaceMissing>> =>
  cause as Cause.Cause<Exclude<LookError, Namespaces.NamespaceMissing>>

const show = (place: Place): string =>
  "index" in place
    ? `index ${place.index} of document ${quote(place.documentId)} (${quote(place.scope)}, ${quote(place.branch)})`
    : `position ${place.position}`
