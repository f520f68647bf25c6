/**
 * A replay: a processor run another time, from where its cursor began, in an empty place beside its namespace.
 *
 *     aside ─▶ migrations ─▶ others' tables dropped ─▶ cursor at the start ─▶ to(cursors) ─▶ to(cursors) ─▶ …
 *
 * It is never divided, whatever the processor is: one cursor goes through the source, and each document's operations are
 * handled up to where its own partition stands.
 *
 *     sent to    0–511 at 20 · 512–1,023 at 50
 *     handled    all up to 20 ── 512–1,023 alone up to 50         sent on to 60 and 55: back to 20, 512–1,023 ahead at 50
 *
 * Invariants: it runs the processor as it is, with its policy, batches and dead letters, on the source's operations up to the
 * cursors that it is sent to and no others, in `Replaying`; nothing of it is left when its scope closes. A handler finds the
 * processor's own tables and those that migrations fill; others' are not there, so that one who asks them fails instead of
 * finding nothing.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { dialectOf } from "./domain/Dialect.js"
import type { Position } from "./domain/Position.js"
import * as Slice from "./domain/Slice.js"
import type { DocumentId, Strand } from "./domain/Strand.js"
import { documentOf, Source } from "./ingest/Source.js"
import type { Dispatch } from "./process/Dispatch.js"
import * as Fault from "./process/Fault.js"
import type * as Migration from "./process/Migration.js"
import type { Processor } from "./process/Processor.js"
import { Replaying } from "./process/Replaying.js"
import * as Anew from "./store/Anew.js"
import { NotRebuildable } from "./store/Anew.js"
import { patience } from "./store/Commit.js"
import * as Cursors from "./store/Cursors.js"
import type { Incident } from "./store/Incident.js"
import * as Migrator from "./store/Migrator.js"
import { Namespaces } from "./store/Namespaces.js"
import type { Aside } from "./store/Namespaces.js"
import * as Ranges from "./store/Ranges.js"
import * as Standing from "./store/Standing.js"
import * as Survey from "./store/Survey.js"
import * as Transaction from "./store/Transaction.js"
import * as Subscription from "./Subscription.js"

/** What a reactor adds. */
export interface Around {
  /** Runs around each transaction. */
  readonly turn?: Subscription.Options["turn"]
  /** Called with each incident of the replay. */
  readonly report?: (incident: Incident) => Effect.Effect<void>
  /** Called with what is waited for, and with `undefined` once that is over; logged when left out. */
  readonly waits?: (waiting: Waiting | undefined) => Effect.Effect<void>
  /** Called as the replay comes along; `undefined` when it is over. */
  readonly told?: (stage: { readonly position: Position; readonly through: Position } | undefined) => void
  /** Those of all processors of the namespace; the processor's own when left out. */
  readonly migrations?: Migration.Migrations
  readonly migrating?: Migrator.Options | undefined
}

/** What is replayed. */
export interface Subject<R> {
  readonly processor: Processor<never, R>
  /** The document whose operations alone are replayed. */
  readonly documentId: DocumentId | undefined
  readonly around: Around
  readonly source: Context.Tag.Service<Source>
  readonly key: Cursors.Key
  /** The client of the processor's namespace. */
  readonly live: SqlClient.SqlClient
  /** Where the cursor began. */
  readonly start: Position
}

export interface Replay<R> {
  readonly aside: Aside
  readonly anew: Anew.Anew
  /** Goes on until each slice has come to where these cursors are, which hold all slices, or those of the one document. */
  readonly to: (cursors: ReadonlyArray<Cursors.Cursor>) => Gone<R>
  /** Handles strands that lie behind what it was sent to, in the order of their positions. It is not sent on then. */
  readonly besides: (strands: ReadonlyArray<Strand>) => Gone<R>
  /** Operations that were handled so far. */
  readonly operations: () => number
}

type Gone<R> = Effect.Effect<
  void,
  | Subscription.SubscriptionError
  | Shortened
  | Transaction.TransactionError
  | Cursors.Fenced
  | Cursors.CursorConflict,
  Exclude<Exclude<R, Dispatch>, SqlClient.SqlClient>
>

/** Builds the tables in an empty place, and the replay's cursor, for as long as the scope. */
export const make = <R>(subject: Subject<R>) =>
  Effect.gen(function*() {
    const { around, documentId, key, live, processor } = subject
    const definitions = yield* Anew.definitionsOf(processor, documentId)
    const names = [...definitions, ...Standing.tables].map(({ name }) => name)
    const here = yield* patiently(Effect.provideService(Survey.of(names), SqlClient.SqlClient, live))
    const anew = yield* Anew.plan(processor.name, dialectOf(live), definitions, here, { documentId, isCopied: true })
    const namespaces = yield* Namespaces
    const aside = yield* Effect.catchTag(
      patiently(namespaces.aside(processor.namespace)),
      "AsideUnavailable",
      ({ message }) => refuse(processor, `${message}; or rebuild it in place`)
    )
    yield* built(subject, anew, names).pipe(
      Effect.provideService(SqlClient.SqlClient, aside.sql),
      // That migrations have gone up here is no news.
      Logger.withMinimumLogLevel(LogLevel.Warning)
    )
    yield* Effect.provideService(patiently(Cursors.claim(key, subject.start)), SqlClient.SqlClient, aside.sql)
    let operations = 0
    let reached: ReadonlyArray<Ranges.Ahead> = [{ slices: Slice.whole, position: subject.start }]
    const follow = (source: Context.Tag.Service<Source>, through: Position) =>
      patiently(
        Stream.runForEach(
          Subscription.commits(processor, {
            meteredAs: `${processor.name} (replay)`,
            ...(around.turn === undefined ? {} : { turn: around.turn }),
            ...(around.report === undefined ? {} : { report: around.report })
          }),
          (commit) =>
            Effect.sync(() => {
              operations += commit.operations
              around.told?.({ position: commit.position, through })
            })
        ).pipe(
          Effect.provideService(Source, source),
          Effect.provideService(SqlClient.SqlClient, aside.sql),
          Effect.provideService(Replaying, true)
        )
      )
    const to: Replay<R>["to"] = (cursors) =>
      Effect.gen(function*() {
        const goal = goalOf(cursors, documentId)
        const left = Ranges.behind(reached, goal)
        if (left.length === 0) return
        const { lowest } = Ranges.bounds(left)
        const { highest } = Ranges.bounds(goal)
        around.told?.({ position: lowest, through: highest })
        yield* place(aside.sql, key, lowest, reached)
        yield* follow(
          documentId === undefined
            ? upTo(subject.source, goal, highest)
            : ofDocument(subject.source, documentId, highest),
          highest
        )
        const [stands] = yield* peek(aside.sql, key)
        if (documentId === undefined && stands !== undefined && stands.position < highest) {
          return yield* new Shortened({ position: highest, head: stands.position })
        }
        reached = Ranges.furthest(reached, goal)
      }) as Gone<R>
    const besides: Replay<R>["besides"] = (strands) =>
      Effect.gen(function*() {
        const ordered = strands.toSorted((a, b) => a.position < b.position ? -1 : 1)
        const last = ordered.at(-1)
        if (last === undefined) return
        yield* place(aside.sql, key, Ranges.bounds(reached).lowest, reached)
        yield* follow(sourceOf(subject.source, ordered, last.position), last.position)
      }) as Gone<R>
    const replay: Replay<R> = { aside, anew, to, besides, operations: () => operations }
    return replay
  })

/** How far each slice is to come: all that the cursors hold, or that of the one document. */
const goalOf = (
  cursors: ReadonlyArray<Cursors.Cursor>,
  documentId: DocumentId | undefined
): ReadonlyArray<Ranges.Ahead> => {
  const all = cursors.flatMap(Ranges.stretches)
  if (documentId === undefined) return all
  const slice = Slice.of(documentId)
  return [{ slices: { first: slice, last: slice }, position: Ranges.positionIn(all, slice) }]
}

/** Puts the replay's own cursor where it has to go on, with what is further ahead of it. */
const place = (
  sql: SqlClient.SqlClient,
  key: Cursors.Key,
  position: Position,
  reached: ReadonlyArray<Ranges.Ahead>
) => {
  const ahead = reached.filter((part) => part.position > position)
  const isThere = (cursor: Cursors.Cursor) =>
    cursor.position === position && Ranges.toText(cursor.ahead) === Ranges.toText(ahead)
  return patiently(
    Transaction.run(
      Effect.flatMap(Cursors.allSettled(key), (found) =>
        found.every(isThere) ? Effect.void : Effect.asVoid(
          Cursors.rebuilt(found, ({ letters }) => ({ position, ahead, handled: [], letters }))
        ))
    )
  ).pipe(Effect.provideService(SqlClient.SqlClient, sql))
}

/** The migrations, and none of the tables that others fill. */
const built = <R>({ around, processor }: Subject<R>, anew: Anew.Anew, names: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    yield* Migrator.prepare
    yield* Migrator.up(processor.namespace, around.migrations ?? processor.migrations, around.migrating)
    const dropped = new Set(yield* Survey.dropOthers(names))
    const own = new Set(names)
    const reference = anew.survey.references.find(({ from, to }) => own.has(from) && dropped.has(to))
    if (reference !== undefined) {
      return yield* refuse(
        processor,
        `table ${reference.from} refers to ${reference.to}, which others fill; add it to its tables, or rebuild in place`
      )
    }
    const difference = Anew.differing(anew, yield* Survey.of(names))
    if (difference !== undefined) {
      return yield* refuse(
        processor,
        `table ${difference.table} is not what its migrations make (${difference.columns}); see Drift.verify`
      )
    }
  })

/**
 * The source up to a position, and then its end. Of strands that the goal does not reach nothing is left but their position,
 * by which the cursor goes past them.
 */
const upTo = (
  source: Context.Tag.Service<Source>,
  goal: ReadonlyArray<Ranges.Ahead>,
  through: Position
): Context.Tag.Service<Source> => {
  const isReached = ({ documentId, position }: Strand) => position <= Ranges.positionIn(goal, Slice.of(documentId))
  const isAll = goal.every(({ position }) => position === through)
  return {
    name: source.name,
    strands: (after) =>
      after >= through ? Stream.empty : source.strands(after).pipe(
        Stream.takeUntil(({ position }) => position >= through),
        Stream.filter(({ position }) => position <= through),
        isAll ? identity : Stream.map((strand) => isReached(strand) ? strand : { ...strand, operations: [] })
      ),
    head: Effect.succeed(Option.some(through))
  }
}

const ofDocument = (
  source: Context.Tag.Service<Source>,
  documentId: DocumentId,
  through: Position
): Context.Tag.Service<Source> => ({
  name: source.name,
  strands: (after) =>
    Stream.filter(documentOf(source, documentId, through), ({ position }) => position > after && position <= through),
  head: Effect.succeed(Option.some(through))
})

/** A source of these strands alone, up to that of the last. */
const sourceOf = (
  source: Context.Tag.Service<Source>,
  strands: ReadonlyArray<Strand>,
  last: Position
): Context.Tag.Service<Source> => ({
  name: source.name,
  strands: (after) => Stream.fromIterable(strands.filter(({ position }) => position > after)),
  head: Effect.succeed(Option.some(last))
})

const refuse = (processor: { readonly name: string }, reason: string) =>
  new NotRebuildable({ processor: processor.name, reason })

/** The source ends before the cursor, so the operations that led there are not all in it. */
export class Shortened extends Data.TaggedError("Shortened")<{ readonly position: Position; readonly head: Position }> {
  override get message(): string {
    return `the source ends at position ${this.head}, before the cursor at ${this.position}`
  }
}

/** Reads the cursors of these slices. */
export const peek = (sql: SqlClient.SqlClient, key: Cursors.Key, slices: Slice.Range = Slice.whole) =>
  patiently(Effect.provideService(Cursors.all(key, slices), SqlClient.SqlClient, sql))

/** What is waited for: a source or a database that is away. */
export interface Waiting {
  readonly fault: Fault.Fault
  readonly failure: unknown
  /** How often it was tried, from 1. */
  readonly attempt: number
}

/** Who is told of what {@link patiently} waits for, and with `undefined` once that is over; nobody by default. */
export class Onlooker extends Context.Reference<Onlooker>()("effect-processors/Replay/Onlooker", {
  defaultValue: (): { readonly waits: (waiting: Waiting | undefined) => Effect.Effect<void> } => ({
    waits: () => Effect.void
  })
}) {}

/** Tries again, for as long as waiting may help. What is tried can be repeated without harm. */
export const patiently = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(Onlooker, ({ waits }) => {
    let attempt = 0
    return effect.pipe(
      Effect.tapError((failure) =>
        isPassing(failure) ? waits({ fault: faultOf(failure), failure, attempt: ++attempt }) : Effect.void
      ),
      Effect.retry({ schedule: patience, while: isPassing }),
      Effect.tap(() => attempt === 0 ? Effect.void : waits(undefined))
    )
  })

const faultOf = (failure: unknown): Fault.Fault =>
  failure instanceof Transaction.CommitUnknown
    ? "unknown"
    : failure instanceof SqlError
    ? Fault.classify(failure)
    : "infrastructure"

/** What waiting may cure; a COMMIT without an answer is cured by looking again. */
export const isPassing = (failure: unknown): boolean => {
  const tag = (failure as { readonly _tag?: unknown })._tag
  if (tag === "CommitUnknown" || tag === "SourceUnavailable") return true
  return failure instanceof SqlError && Fault.isPassing(failure)
}
