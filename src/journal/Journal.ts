/**
 * A journal: an append-only log of operations in SQL, on SQLite and PostgreSQL, which many append to and many follow.
 *
 *     append ──▶ order checked ──▶ log ──▶ backfill, page by page ──▶ live ──▶ strands, for ever
 *
 * Invariants: a stored operation is `next` for its stream, so every reader gets each document's operations in order and
 * each once; positions are those of commits, so a reader that has passed a position has missed nothing below it, however
 * many append at once; appending again stores nothing again. Several journals live in one database, each by its name.
 *
 * It is a {@link Source} as well, whose name is the journal's: processors follow it as they follow a file.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as migration from "../../migrations/0001_journal.js"
import { origin } from "../domain/Position.js"
import type { Position } from "../domain/Position.js"
import type { Strand, Stream as StreamOfStrands } from "../domain/Strand.js"
import * as Filter from "../ingest/Filter.js"
import {
  MalformedSource,
  name as nameOf,
  Source,
  SourceShortened,
  SourceTruncated,
  SourceUnavailable
} from "../ingest/Source.js"
import type { SourceError, SourceName } from "../ingest/Source.js"
import { Wakeups } from "../ingest/Wakeups.js"
import * as Fault from "../process/Fault.js"
import * as Migrator from "../store/Migrator.js"
import * as Transaction from "../store/Transaction.js"
import * as Appends from "./Appends.js"
import * as Group from "./Group.js"
import * as Log from "./Log.js"
import * as Retention from "./Retention.js"
import { Tail } from "./Tail.js"
import * as Watch from "./Watch.js"

export { AppendTooLarge, ChainBroken, type Refusal } from "./Admission.js"
export { type AppendError, JournalUnavailable } from "./Appends.js"
export type { Head, Receipt } from "./Group.js"
export type { Bounds, Page } from "./Log.js"

export interface Options {
  /** How long an append or a truncation is tried while the database is away. Default: 30 seconds. */
  readonly patience?: Duration.DurationInput | undefined
}

/** What a reader wants of a journal, and in what portions. */
export interface Reading {
  /** Which strands; all, unless it is said. The database leaves the others out. */
  readonly filter?: Filter.Filter | undefined
  readonly filterDialect?: Filter.Dialect | undefined
  /** Operations in a page; default: 1,000. The strand that reaches the bound may exceed it. */
  readonly operations?: number | undefined
  /** Bytes in a page, likewise; default: 4 MiB. */
  readonly bytes?: number | undefined
}

export class Journal extends Context.Tag("effect-processors/Journal")<Journal, {
  readonly name: SourceName
  /**
   * Stores strands behind all that is there: all of them or, where one is refused, none. What is there already is not
   * stored again. Once it returns, the strands are in the database; interrupted, it ends when what was begun has ended.
   */
  readonly append: Appends.Append
  /** Where the journal begins and ends. */
  readonly bounds: Effect.Effect<Log.Bounds, SourceError>
  /** Where each of these streams ends. */
  readonly heads: (streams: ReadonlyArray<StreamOfStrands>) => Effect.Effect<ReadonlyArray<Group.Head>, SourceError>
  /** The next strands above a position that are there now, and how far was looked for them. */
  readonly page: (after: Position, reading?: Reading) => Effect.Effect<Log.Page, SourceError>
  /**
   * Page after page, for ever: first what is there, then what comes. Each goes further than the one before it, also where
   * nothing in it was wanted.
   */
  readonly pages: (after: Position, reading?: Reading) => Stream.Stream<Log.Page, SourceError>
  /** The strands of {@link pages}. */
  readonly strands: (after: Position, reading?: Reading) => Stream.Stream<Strand, SourceError>
  /** Makes the complaints of somebody who fills it its own, until the scope closes; see {@link Source}. */
  readonly heed: (complaints: Effect.Effect<ReadonlyArray<string>>) => Effect.Effect<void, never, Scope.Scope>
  /** Those of all who fill it here. */
  readonly complaints: Effect.Effect<ReadonlyArray<string>>
  /** Waits until there may be more above a position; many may wait at once, and one look at the database serves them all. */
  readonly beyond: Watch.Beyond
  /** Removes what every cursor has passed, and returns the new floor. See {@link Retention}. */
  readonly truncate: (options?: Retention.Options) => Effect.Effect<Position, Appends.JournalUnavailable>
}>() {}

/** What opening a journal may fail with. */
export type OpenError = Migrator.MigrationError | Appends.JournalUnavailable

/**
 * A journal of this name in the database of the context, and the source that it is. Its tables are made where missing. Throws
 * a `ParseError` when the name is empty, too long or not clean text.
 */
export const layer = (
  name: string,
  options: Options = {}
): Layer.Layer<Journal | Source, OpenError, SqlClient.SqlClient> =>
  Layer.scopedContext(
    Effect.map(make(name, options), (journal) =>
      Context.make(Journal, journal).pipe(Context.add(Source, asSource(journal))))
  )

/** {@link layer} without the layer. */
export const make = (
  name: string,
  options: Options = {}
): Effect.Effect<Context.Tag.Service<Journal>, OpenError, SqlClient.SqlClient | Scope.Scope> => {
  const journal = nameOf(name)
  return Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const patience = options.patience ?? "30 seconds"
    yield* Migrator.prepare
    yield* Migrator.upNoting(own.namespace, own.migrations, {}, [])
    const log = yield* patiently(journal, patience, Log.open(journal))
    const { hints } = yield* Wakeups
    const watch = yield* Watch.make(Effect.map(Log.bounds(log), ({ head }) => head), hints(log.topic))
    const tail = new Tail()
    const append = yield* Appends.make(log, { patience }, (addition) =>
      Effect.suspend(() => {
        tail.add(addition)
        return watch.tell(addition.positions.at(-1) ?? addition.before.head)
      }))
    const alone = outside(sql)
    const heeded = new Set<{ readonly complaints: Effect.Effect<ReadonlyArray<string>> }>()
    const page = (after: Position, reading: Reading = {}) => alone(read(log, after, reading))
    const pages = (after: Position, reading: Reading = {}) => {
      const constraints = constraintsOf(reading)
      const limits = limitsOf(reading)
      return follow({
        page: (at) => page(at, reading),
        recent: (at) => tail.page(at, constraints, limits),
        beyond: watch.beyond
      }, after)
    }
    return {
      name: log.name,
      append: (strands) => alone(append(strands)),
      bounds: alone(Effect.mapError(Log.bounds(log), (failure) => sourceError(log, failure))),
      heads: (streams) => alone(Effect.mapError(Group.heads(log, streams), (failure) => sourceError(log, failure))),
      page,
      pages,
      strands: (after, reading) =>
        Stream.mapConcatChunk(pages(after, reading), ({ strands }) => Chunk.unsafeFromArray(strands)),
      heed: (complaints) =>
        Effect.asVoid(Effect.acquireRelease(
          Effect.sync(() => {
            const own = { complaints }
            heeded.add(own)
            return own
          }),
          (own) => Effect.sync(() => heeded.delete(own))
        )),
      complaints: Effect.suspend(() =>
        Effect.map(Effect.forEach(heeded, ({ complaints }) => complaints), (all) => all.flat())
      ),
      beyond: watch.beyond,
      truncate: (retention) => alone(patiently(log.name, patience, Retention.truncate(log, retention)))
    }
  })
}

/** The journal as processors follow it. */
export const asSource = (journal: Context.Tag.Service<Journal>): Context.Tag.Service<Source> => ({
  name: journal.name,
  strands: (after) => journal.strands(after),
  head: Effect.map(journal.bounds, ({ head }) => Option.some(head)),
  page: (after, wanted) => journal.page(after, wanted),
  complaints: journal.complaints,
  document: (documentId, through) =>
    journal.pages(origin, { filter: { documentId: [documentId] } }).pipe(
      Stream.takeUntil(({ position }) => position >= through),
      Stream.mapConcat(({ strands }) => strands.filter(({ position }) => position <= through))
    )
})

/**
 * Runs on the journal's own client, and in no transaction that the caller may be in: that may be another database's. SQLite
 * has one connection, and whoever holds it for a transaction would wait for itself.
 */
const outside = (sql: SqlClient.SqlClient) => <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient>) =>
  Effect.flatMap(
    Effect.serviceOption(SqlClient.TransactionConnection),
    (transaction): Effect.Effect<A, E> =>
      Option.isNone(transaction)
        ? Effect.provideService(effect, SqlClient.SqlClient, sql)
        : sql.onDialectOrElse({
          sqlite: () =>
            Effect.dieMessage("a journal on SQLite is not to be used inside a transaction: wait for its end"),
          orElse: () => Transaction.outside(Effect.provideService(effect, SqlClient.SqlClient, sql))
        })
  )

/** The journals' own tables, under a name that no namespace of a user can have. */
const own = { namespace: "processor_journal", migrations: { "0001_journal": migration } } as const

const defaults: Log.Limits = { operations: 1_000, bytes: 4 * 1024 * 1024, positions: 50_000 }

const constraintsOf = ({ filter, filterDialect }: Reading): ReadonlyArray<Filter.Constraint> =>
  Filter.constraints(filter ?? Filter.all, filterDialect)

const limitsOf = ({ bytes, operations }: Reading): Log.Limits => ({
  operations: Math.max(1, operations ?? defaults.operations),
  bytes: Math.max(1, bytes ?? defaults.bytes),
  positions: defaults.positions
})

const read = (
  log: Log.Log,
  after: Position,
  reading: Reading
): Effect.Effect<Log.Page, SourceError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const page = yield* Effect.mapError(
      Log.read(log, after, constraintsOf(reading), limitsOf(reading)),
      (failure) => sourceError(log, failure)
    )
    if (after < page.floor) return yield* new SourceTruncated({ source: log.name, after, floor: page.floor })
    if (after > page.head) {
      return yield* new SourceShortened({
        source: log.name,
        after,
        reason:
          `the journal ends at ${page.head}: its database was put back to an earlier time, or this is another journal`
      })
    }
    return page
  })

/** What a follower goes by. */
interface Supply {
  /** What the database has above a position. */
  readonly page: (after: Position) => Effect.Effect<Log.Page, SourceError>
  /** All that there is above it, where that is known without asking. */
  readonly recent: (after: Position) => Log.Page | undefined
  readonly beyond: Watch.Beyond
}

/**
 * Reads on and on, with a turn for others after each page that is not the last; waits whenever there is no more. Only who has
 * waited takes what is recent: it stands where the log ended when it was last asked, or told.
 */
const follow = ({ beyond, page, recent }: Supply, after: Position): Stream.Stream<Log.Page, SourceError> =>
  Stream.suspend(() => {
    let at = after
    let isAtEnd = false
    const next: Effect.Effect<Log.Page, SourceError> = Effect.suspend(() =>
      isAtEnd
        ? Effect.zipRight(beyond(at), Effect.suspend(() => take(recent(at)) ?? ask))
        : ask
    )
    const ask: Effect.Effect<Log.Page, SourceError> = Effect.flatMap(
      Effect.suspend(() => page(at)),
      (found) => take(found) ?? Effect.zipRight(Transaction.turn, next)
    )
    /** `undefined` for what goes no further. */
    const take = (found: Log.Page | undefined): Effect.Effect<Log.Page> | undefined => {
      if (found === undefined) return undefined
      isAtEnd = found.position === found.head
      if (found.position === at) return undefined
      at = found.position
      return isAtEnd ? Effect.succeed(found) : Effect.as(Transaction.turn, found)
    }
    return Stream.repeatEffect(next)
  })

/** What the reader cannot wait out is lasting: no table, or no right to read it. */
const sourceError = (log: Log.Log, failure: SqlError): SourceError =>
  Fault.isPassing(failure)
    ? new SourceUnavailable({ source: log.name, reason: Fault.describe(failure), cause: failure })
    : new MalformedSource({ source: log.name, at: "its tables", reason: Fault.describe(failure), cause: failure })

/** Tries again while the database is away. What is tried can be repeated without harm. */
const patiently = <A, E, R>(
  journal: SourceName,
  patience: Duration.DurationInput,
  attempt: Effect.Effect<A, E, R>
): Effect.Effect<A, Appends.JournalUnavailable, R> =>
  attempt.pipe(
    Effect.retry({ schedule: Appends.pausesOf(patience), while: Appends.isPassing }),
    Effect.mapError((cause) => new Appends.JournalUnavailable({ journal, outcome: "unknown", cause }))
  )
