/**
 * A replay: a processor run another time, from where its cursor began, in an empty place beside its namespace.
 *
 *     aside ─▶ migrations ─▶ others' tables dropped ─▶ cursor at the start ─▶ to(position) ─▶ to(position) ─▶ …
 *
 * Invariants: it runs the processor as it is, with its policy, batches and dead letters, on the source's operations up to the
 * position that it is sent to and no others, in `Replaying`; nothing of it is left when its scope closes. A handler finds the
 * processor's own tables and those that migrations fill; others' are not there, so that one who asks them fails instead of
 * finding nothing.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import type * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { dialectOf } from "./domain/Dialect.js"
import type { Position } from "./domain/Position.js"
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
import * as Standing from "./store/Standing.js"
import * as Survey from "./store/Survey.js"
import * as Subscription from "./Subscription.js"

/** What a reactor adds. */
export interface Around {
  /** Runs around each transaction. */
  readonly turn?: Subscription.Options["turn"]
  /** Called with each incident of the replay. */
  readonly report?: (incident: Incident) => Effect.Effect<void>
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
  /** Goes on until the aside has come to a position, by the strands of `source` where it is given. */
  readonly to: (
    through: Position,
    source?: Context.Tag.Service<Source>
  ) => Effect.Effect<
    void,
    Subscription.SubscriptionError | Shortened,
    Exclude<Exclude<R, Dispatch>, SqlClient.SqlClient>
  >
  /** Operations that were handled so far. */
  readonly operations: () => number
}

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
    const to: Replay<R>["to"] = (through, source) =>
      Effect.gen(function*() {
        const bounded = source ?? (documentId === undefined
          ? upTo(subject.source, through)
          : ofDocument(subject.source, documentId, through))
        const from = yield* peek(aside.sql, key)
        if (from !== undefined && from.position >= through) return
        around.told?.({ position: from?.position ?? subject.start, through })
        yield* patiently(
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
            Effect.provideService(Source, bounded),
            Effect.provideService(SqlClient.SqlClient, aside.sql),
            Effect.provideService(Replaying, true)
          )
        )
        const reached = yield* peek(aside.sql, key)
        if (documentId === undefined && reached !== undefined && reached.position < through) {
          return yield* new Shortened({ position: through, head: reached.position })
        }
      }) as ReturnType<Replay<R>["to"]>
    const replay: Replay<R> = { aside, anew, to, operations: () => operations }
    return replay
  })

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

/** The source up to a position, and then its end. */
const upTo = (source: Context.Tag.Service<Source>, through: Position): Context.Tag.Service<Source> => ({
  name: source.name,
  strands: (after) =>
    after >= through ? Stream.empty : source.strands(after).pipe(
      Stream.takeUntil(({ position }) => position >= through),
      Stream.filter(({ position }) => position <= through)
    ),
  head: Effect.succeed(Option.some(through))
})

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

/** A source of this strand alone. */
export const sourceOf = (source: Context.Tag.Service<Source>, strand: Strand): Context.Tag.Service<Source> => ({
  name: source.name,
  strands: (after) => after >= strand.position ? Stream.empty : Stream.make(strand),
  head: Effect.succeed(Option.some(strand.position))
})

const refuse = (processor: { readonly name: string }, reason: string) =>
  new NotRebuildable({ processor: processor.name, reason })

/** The source ends before the cursor, so the operations that led there are not all in it. */
export class Shortened extends Data.TaggedError("Shortened")<{ readonly position: Position; readonly head: Position }> {
  override get message(): string {
    return `the source ends at position ${this.head}, before the cursor at ${this.position}`
  }
}

/** Reads a cursor. */
export const peek = (sql: SqlClient.SqlClient, key: Cursors.Key) =>
  patiently(Effect.provideService(Cursors.peek(key), SqlClient.SqlClient, sql))

/** Tries again, for as long as waiting may help. What is tried can be repeated without harm. */
export const patiently = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.retry(effect, { schedule: patience, while: isPassing })

/** What waiting may cure; a COMMIT without an answer is cured by looking again. */
export const isPassing = (failure: unknown): boolean => {
  const tag = (failure as { readonly _tag?: unknown })._tag
  if (tag === "CommitUnknown" || tag === "SourceUnavailable") return true
  return failure instanceof SqlError && Fault.isPassing(failure)
}
