/**
 * A rebuild: a processor's tables as its source and its handler make them today, in place of those that are there.
 *
 *     in the shadow   an empty place ─▶ migrations ─▶ replay to the cursor ─▶ stop ─▶ replay the rest ─▶ exchange ─▶ go on
 *     in place        stop ─▶ tables emptied, cursor back at its start ─▶ go on, from there
 *     one document    an empty place ─▶ migrations ─▶ replay of its operations ─▶ stop ─▶ … ─▶ exchange of its rows ─▶ go on
 *     verify          an empty place ─▶ migrations ─▶ replay to the cursor ─▶ stop ─▶ replay the rest ─▶ compare ─▶ go on
 *
 *     Rebuild.run(Todos)                   beside whoever owns the cursor, in any process
 *     reactor.rebuild(Todos)               where its reactor runs, which stops it for the exchange alone
 *
 * Where a processor is divided, the cursor is those of all its partitions, or that of the one document's.
 *
 * Invariants: a replay's rows take the place of the live ones in one transaction that holds the cursor, and only if that has
 * not moved since; so whoever is killed leaves the old rows or the new ones. Where an owner runs elsewhere, it is told by a
 * `CursorConflict` at its next commit, and opens again.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { dialectOf } from "./domain/Dialect.js"
import type { Position } from "./domain/Position.js"
import * as Slice from "./domain/Slice.js"
import type { DocumentId, Strand } from "./domain/Strand.js"
import * as Filter from "./ingest/Filter.js"
import { Source } from "./ingest/Source.js"
import type { SourceTruncated } from "./ingest/Source.js"
import type { Dispatch } from "./process/Dispatch.js"
import * as Fault from "./process/Fault.js"
import * as Pauses from "./process/Pauses.js"
import type { Processor } from "./process/Processor.js"
import * as Anew from "./store/Anew.js"
import { NotRebuildable } from "./store/Anew.js"
import { patience } from "./store/Commit.js"
import * as Cursors from "./store/Cursors.js"
import * as Exchange from "./store/Exchange.js"
import * as Letters from "./store/Letters.js"
import * as Migrator from "./store/Migrator.js"
import { Namespaces } from "./store/Namespaces.js"
import type { Aside } from "./store/Namespaces.js"
import type { Side } from "./store/Pages.js"
import * as Progress from "./store/Progress.js"
import * as Ranges from "./store/Ranges.js"
import * as RowHash from "./store/RowHash.js"
import * as Standing from "./store/Standing.js"
import * as Survey from "./store/Survey.js"
import * as Transaction from "./store/Transaction.js"

import * as Replay from "./Replay.js"
import { isPassing, patiently, peek } from "./Replay.js"

export { NotRebuildable } from "./store/Anew.js"
export type { Comparison, Difference } from "./store/RowHash.js"

/** The replay, or the exchange, failed with `cause`. The live tables are as they were. */
export class RebuildFailed extends Data.TaggedError("RebuildFailed")<
  Cursors.Key & { readonly cause: unknown }
> {
  override get message(): string {
    return `${this.processor} on ${this.source} was not projected anew: ${Fault.describe(this.cause)}`
  }
}

/** What the source no longer has cannot be replayed; that is said before anything is emptied. */
export type RebuildError = NotRebuildable | SourceTruncated | RebuildFailed

export interface Options {
  /** The document whose rows alone are projected anew; all when left out. */
  readonly documentId?: string | undefined
  /**
   * `"shadow"`, the default: readers see the old rows until the new ones take their place. `"in place"` needs no room and no
   * right to make a schema, and lets the handler see other processors' tables; but readers see the tables fill, and `Health`
   * complains meanwhile. It returns once the tables are empty. An owner in another process begins to fill them when it next
   * commits anything, each partition by itself, and tells of the cursor as it was until then: where little comes, ask its
   * reactor, and truncate no journal by what it tells.
   */
  readonly how?: "shadow" | "in place" | undefined
}

/** What was done. */
export interface Rebuilt extends Cursors.Key {
  /** Up to where the tables are those of a replay; in place: will be, once the cursor is there again. */
  readonly through: Position
  /** Where the cursor stands; of several the lowest, though the rows of each partition are those of its own. */
  readonly position: Position
  /** Operations that the handler was given by the replay. In place it is yet to come. */
  readonly operations: number
  /** Dead letters of the processor that wait now. */
  readonly waiting: number
}

export interface VerifyOptions {
  /** The document whose rows alone are compared; all when left out. */
  readonly documentId?: string | undefined
  /** Differences that are told of each table; all are counted. Default: 100. */
  readonly differencesMax?: number | undefined
}

/** What a comparison with a replay found. */
export interface Verdict extends Cursors.Key {
  /** The position that both were at; of several partitions the lowest, though each was compared where it stands. */
  readonly position: Position
  /** Whether nothing differs. */
  readonly isClean: boolean
  /** The processor's tables, then those in which the framework keeps what it has applied and set aside. */
  readonly tables: ReadonlyArray<RowHash.Comparison>
}

/** What a reactor adds; a rebuild that runs by itself needs none of it. */
export interface Around extends Replay.Around {
  /** Runs work for which the subscriptions have to stand still: all partitions, or that of one document. */
  readonly alone?: <A, E, R>(
    work: Effect.Effect<A, E, R>,
    documentId: DocumentId | undefined
  ) => Effect.Effect<A, E, R>
  /** Called with the cursors whose rows were exchanged, while their subscriptions still stand. */
  readonly exchanged?: (cursors: ReadonlyArray<Cursors.Cursor>) => void
}

/** What a rebuild of a processor needs. */
export type Needs<R> = Exclude<Exclude<R, Dispatch>, SqlClient.SqlClient> | Source | Namespaces

/** Projects a processor anew, or one document of it. */
export const run = <R>(
  processor: Processor<never, R>,
  options: Options = {},
  around: Around = {}
): Effect.Effect<Rebuilt, RebuildError, Needs<R>> =>
  told(
    processor,
    around,
    Effect.gen(function*() {
      const work = yield* begin(processor, options.documentId, around)
      if (options.how !== "in place") return yield* inShadow(work)
      return options.documentId === undefined
        ? yield* inPlace(work)
        : yield* refuse(processor, "one document is projected anew in the shadow alone; leave `how` out")
    })
  )

/** Compares a processor's tables with those of a replay up to its cursor, and changes nothing. */
export const verify = <R>(
  processor: Processor<never, R>,
  options: VerifyOptions = {},
  around: Around = {}
): Effect.Effect<Verdict, RebuildError, Needs<R>> =>
  told(
    processor,
    around,
    Effect.gen(function*() {
      const work = yield* begin(processor, options.documentId, around)
      const replay = yield* Replay.make(work)
      yield* approach(work, replay)
      return yield* work.alone(judged(work, replay, options.differencesMax ?? 100), work.documentId)
    })
  )

/** One rebuild or comparison. */
interface Work<R> extends Replay.Subject<R> {
  readonly around: Around
  readonly alone: NonNullable<Around["alone"]>
  /** Those of which rows are meant: all, or that of the one document. */
  readonly slices: Slice.Range
}

/** The cursors that hold the slices of the work; none once they are gone. */
const standing = ({ key, live, slices }: Work<unknown>) => peek(live, key, slices)

const refuse = (processor: { readonly name: string }, reason: string) =>
  new NotRebuildable({ processor: processor.name, reason })

/** Keeps the failures that say what to do, and has all others say whose they are. */
const told = <A, E, R>(
  processor: Processor<never, unknown>,
  around: Around,
  work: Effect.Effect<A, E, R | Scope.Scope>
): Effect.Effect<A, RebuildError, Exclude<R, Scope.Scope> | Source> =>
  Effect.flatMap(Source, (source) =>
    Effect.scoped(work).pipe(
      Effect.mapError((failure): RebuildError => {
        if (failure instanceof NotRebuildable || failure instanceof RebuildFailed) return failure
        const tag = failure as { readonly _tag?: unknown }
        return tag._tag === "SourceTruncated"
          ? failure as unknown as SourceTruncated
          : new RebuildFailed({ processor: processor.name, source: source.name, cause: failure })
      }),
      Effect.ensuring(Effect.sync(() => around.told?.(undefined))),
      Effect.provideService(Replay.Onlooker, { waits: around.waits ?? logged(processor.name, source.name) })
    ))

/** Who has nobody to tell has it in the log. */
const logged = (processor: string, source: string) => (waiting: Replay.Waiting | undefined): Effect.Effect<void> =>
  waiting === undefined
    ? Effect.void
    : Effect.logWarning(`a rebuild waits (${waiting.attempt}): ${Fault.describe(waiting.failure)}`).pipe(
      Effect.annotateLogs({ processor, source })
    )

const begin = <R>(processor: Processor<never, R>, documentId: string | undefined, around: Around) =>
  Effect.gen(function*() {
    yield* Anew.definitionsOf(processor, documentId)
    const source = yield* Source
    if (source.onlyOnce !== undefined) {
      return yield* refuse(processor, `${source.name} supplies nothing a second time: ${source.onlyOnce}`)
    }
    const key: Cursors.Key = { processor: processor.name, source: source.name }
    const live = yield* Effect.flatMap(Namespaces, ({ open }) => open(processor.namespace))
    const slice = documentId === undefined ? undefined : Slice.of(documentId)
    const slices = slice === undefined ? Slice.whole : { first: slice, last: slice }
    const cursors = yield* peek(live, key, slices)
    const [cursor] = cursors
    if (cursor === undefined) return yield* refuse(processor, `it has not begun on ${source.name} yet`)
    yield* readable(source, cursors)
    const work: Work<R> = {
      processor,
      documentId: documentId as DocumentId | undefined,
      slices,
      around,
      alone: around.alone ?? ((body) => body),
      source,
      key,
      live,
      start: cursor.start
    }
    return work
  })

/** Whether the source still has what the cursors have passed, from their start on. */
const readable = (source: Context.Tag.Service<Source>, cursors: ReadonlyArray<Cursors.Cursor>) => {
  const { start } = cursors[0]!
  const { highest: position } = Ranges.bounds(cursors.flatMap(Ranges.stretches))
  return position === start ? Effect.void : patiently(Effect.gen(function*() {
    const head = Option.getOrUndefined(yield* source.head)
    if (head !== undefined && head < position) {
      return yield* new Replay.Shortened({ position, head })
    }
    yield* Stream.runDrain(Stream.take(source.strands(start), 1))
    // Where a source does not tell its end, only who goes there learns whether it comes so far.
    if (head === undefined) {
      yield* Effect.timeoutOption(Stream.runDrain(Stream.take(source.strands(position), 1)), "5 seconds")
    }
  }))
}

/** Another owner of the cursor commits all the time. */
class Outrun extends Data.TaggedError("Outrun")<{ readonly rounds: number }> {
  override get message(): string {
    return `an owner in another process has moved the cursor ${this.rounds} times meanwhile; stop it, or ask its reactor`
  }
}

/** So often a replay goes on to where the cursor has come meanwhile. */
const roundsMax = 10

/** Where the aside is read from inside a transaction of the live namespace. */
const sideOf = ({ live }: Work<unknown>, { schema, sql }: Aside): Side =>
  schema === undefined
    ? { sql, schema: undefined, isElsewhere: true }
    : { sql: live, schema, isElsewhere: false }

/** Replays beside the subscription until little is left, and stops it for the rest. */
const inShadow = <R>(work: Work<R>) =>
  Effect.gen(function*() {
    const replay = yield* Replay.make(work)
    yield* approach(work, replay)
    return yield* work.alone(settle(work, replay), work.documentId)
  })

/** Replays beside the subscription, until a round handled no more than one batch would. */
const approach = <R>(work: Work<R>, replay: Replay.Replay<R>) =>
  Effect.gen(function*() {
    for (let round = 0; round < roundsMax; round++) {
      const before = replay.operations()
      yield* replay.to(yield* standing(work))
      if (replay.operations() - before <= 1_000) return
    }
  })

/** Replays up to where the cursors stand, and exchanges, unless somebody elsewhere has moved one meanwhile. */
const settle = <R>(work: Work<R>, replay: Replay.Replay<R>) =>
  Effect.gen(function*() {
    for (let round = 0; round < roundsMax; round++) {
      const expected = yield* standing(work)
      if (expected.length === 0) return yield* refuse(work.processor, "its cursor is gone")
      yield* replay.to(expected)
      const [cursor] = yield* peek(replay.aside.sql, work.key)
      if (cursor === undefined) return yield* refuse(work.processor, "the cursor of its replay is gone")
      const origin = { side: sideOf(work, replay.aside), letters: cursor.letters }
      const done = yield* exchanged(work, expected, Exchange.run(replay.anew, expected, origin, (held) => held))
      if (done !== undefined) return yield* rebuilt(work, done, lowestOf(done), replay.operations())
    }
    return yield* new Outrun({ rounds: roundsMax })
  })

const lowestOf = (cursors: ReadonlyArray<Cursors.Cursor>): Position => Ranges.bounds(cursors).lowest

const rebuilt = (
  { key, live }: Work<unknown>,
  cursors: ReadonlyArray<Cursors.Cursor>,
  through: Position,
  operations: number
) =>
  Effect.map(peek(live, key), (all): Rebuilt => ({
    ...key,
    through,
    position: lowestOf(cursors),
    operations,
    waiting: all.reduce((sum, { parked }) => sum + parked, 0)
  }))

/** Commits an exchange, however often the database has to be asked; `undefined` if a cursor has moved. */
const exchanged = <E>(
  { around, key, live, slices }: Work<unknown>,
  expected: ReadonlyArray<Cursors.Cursor>,
  body: Effect.Effect<ReadonlyArray<Cursors.Cursor>, E, SqlClient.SqlClient>
) =>
  Effect.gen(function*() {
    const pauses = yield* Pauses.make(patience)
    let intended: ReadonlyArray<Cursors.Cursor> = []
    const noted = Effect.tap(body, (cursors) => Effect.sync(() => intended = cursors))
    for (;;) {
      const exit = yield* Effect.exit((around.turn ?? ((commit) => commit))(Transaction.run(noted)))
      if (Exit.isSuccess(exit)) return exit.value
      const failure = Option.getOrUndefined(Cause.failureOption(exit.cause))
      if (failure instanceof Cursors.CursorConflict || failure instanceof Cursors.Fenced) return undefined
      if (failure === undefined || !isPassing(failure)) return yield* Effect.failCause(exit.cause)
      if (failure instanceof Transaction.CommitUnknown) {
        const found = yield* patiently(Cursors.allSettled(key, slices))
        if (areAll(found, intended, isSame)) return found
        if (!areAll(found, expected, (now, before) => now.sequence === before.sequence)) return undefined
      }
      yield* pauses.next(failure, () => Effect.void)
    }
  }).pipe(
    Effect.tap((cursors) => Effect.sync(() => cursors === undefined ? undefined : around.exchanged?.(cursors))),
    Effect.provideService(SqlClient.SqlClient, live)
  )

type Same = (found: Cursors.Cursor, other: Cursors.Cursor) => boolean

const areAll = (found: ReadonlyArray<Cursors.Cursor>, others: ReadonlyArray<Cursors.Cursor>, are: Same): boolean =>
  found.length === others.length && found.every((cursor, i) => are(cursor, others[i]!))

const isSame: Same = (a, b) =>
  Cursors.isWhere(a, b) && a.letters === b.letters && a.parked === b.parked &&
  Ranges.toText(a.handled) === Ranges.toText(b.handled)

/** Empties the tables but for what migrations put there, and lets the subscription begin anew. */
const inPlace = <R>(work: Work<R>) =>
  Effect.gen(function*() {
    const { live, processor } = work
    const definitions = yield* Anew.definitionsOf(processor, undefined)
    const names = [...definitions, ...Standing.tables].map(({ name }) => name)
    const survey = yield* patiently(Effect.provideService(Survey.of(names), SqlClient.SqlClient, live))
    const anew = yield* Anew.plan(processor.name, dialectOf(live), definitions, survey, {
      documentId: undefined,
      isCopied: false
    })
    const origin = yield* seeds(work, anew, names)
    const emptied = Effect.gen(function*() {
      for (let round = 0; round < roundsMax; round++) {
        const expected = yield* standing(work)
        if (expected.length === 0) return yield* refuse(processor, "its cursor is gone")
        const done = yield* exchanged(
          work,
          expected,
          Exchange.run(anew, expected, origin, (held) => ({
            position: held.start,
            ahead: [],
            handled: Ranges.furthest(Ranges.stretches(held), held.handled)
          }))
        )
        const handled = expected.flatMap((held) => Ranges.furthest(Ranges.stretches(held), held.handled))
        if (done !== undefined) return yield* rebuilt(work, done, Ranges.bounds(handled).highest, 0)
      }
      return yield* new Outrun({ rounds: roundsMax })
    })
    return yield* work.alone(emptied, undefined)
  })

/** What migrations put into the tables, as far as another place can be had to see it in. */
const seeds = <R>(work: Work<R>, anew: Anew.Anew, names: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const namespaces = yield* Namespaces
    const aside = yield* Effect.option(patiently(namespaces.aside(work.processor.namespace)))
    if (Option.isNone(aside)) return undefined
    const { sql } = aside.value
    return yield* Effect.gen(function*() {
      yield* Migrator.prepare
      yield* Migrator.up(
        work.processor.namespace,
        work.around.migrations ?? work.processor.migrations,
        work.around.migrating
      )
      const filled = yield* Survey.filled(anew.definitions.map(({ name }) => name))
      if (filled.length === 0) return undefined
      const difference = Anew.differing(anew, yield* Survey.of(names))
      const triggered = filled.find((name) => anew.survey.triggers.has(name))
      if (difference !== undefined || triggered !== undefined) {
        return yield* refuse(
          work.processor,
          `its migrations put rows into ${filled.join(", ")}, which cannot be put there again: ` +
            (triggered === undefined ? `${difference?.table} is not what they make` : `${triggered} has a trigger`)
        )
      }
      return { side: sideOf(work, aside.value), letters: 0n }
    }).pipe(Effect.provideService(SqlClient.SqlClient, sql))
  })

/** Compares, at one position of both. */
const judged = <R>(work: Work<R>, replay: Replay.Replay<R>, differencesMax: number) =>
  Effect.gen(function*() {
    const { key, live, processor } = work
    const keptMax = Math.max(differencesMax, begunMax)
    let isCut = false
    for (let round = 0; round < roundsMax; round++) {
      const expected = yield* standing(work)
      if (expected.length === 0) return yield* refuse(processor, "its cursor is gone")
      yield* replay.to(expected)
      const found = yield* Effect.provideService(
        patiently(Transaction.run(compared(work, replay, expected, keptMax))),
        SqlClient.SqlClient,
        live
      )
      if (found === undefined && !isCut) continue
      if (found === undefined) break
      const differing = found.flatMap(({ differences, table }) => table.startsWith("processor_") ? differences : [])
      if (differing.length === 0 || isCut) {
        const isClean = found.every(({ different }) => different === 0)
        const tables = found.map((each) => ({ ...each, differences: each.differences.slice(0, differencesMax) }))
        return { ...key, position: lowestOf(expected), isClean, tables }
      }
      isCut = true
      const documentIds = new Set(differing.map((difference) => String(difference.key["document_id"])))
      yield* replay.besides(yield* begunStrands(work, expected, documentIds))
    }
    return yield* new Outrun({ rounds: roundsMax })
  })

/** More documents cannot be half dealt with: one for each partition, and few more where it was divided anew since. */
const begunMax = 256

/** The comparison of each table, with the cursors held; `undefined` if one has moved. */
const compared = <R>(
  work: Work<R>,
  { anew, aside }: Replay.Replay<R>,
  expected: ReadonlyArray<Cursors.Cursor>,
  differencesMax: number
) =>
  Effect.gen(function*() {
    const held = yield* Cursors.allSettled(work.key, work.slices)
    const hasStayed: Same = (now, { position, sequence, slices }) =>
      now.sequence === sequence && now.position === position && Slice.isSame(now.slices, slices)
    if (!areAll(held, expected, hasStayed)) return undefined
    const here: Side = { sql: work.live, schema: undefined, isElsewhere: false }
    const there = sideOf(work, aside)
    const all = [
      ...anew.definitions.map((definition) =>
        RowHash.ofDefinition(dialectOf(work.live), definition, Anew.pagedOf(anew, definition))
      ),
      ...Standing.tables.map((kept) =>
        RowHash.ofExpressions(Exchange.keptPages(anew, work.key, kept, kept.identity), kept.compared)
      )
    ]
    return yield* Effect.forEach(all, (each) => RowHash.compare(here, there, each, differencesMax))
  })

/**
 * The first strand of each of these documents behind its cursor, as far as it was dealt with: one that is longer than a batch
 * is committed in pieces, the cursor before it. None where nothing of it was.
 */
const begunStrands = <R>(
  { key, live, processor, source }: Work<R>,
  cursors: ReadonlyArray<Cursors.Cursor>,
  documentIds: ReadonlySet<string>
) =>
  Effect.gen(function*() {
    const head = Option.getOrUndefined(yield* source.head)
    const passed = cursors.flatMap(Ranges.stretches)
    const { lowest } = Ranges.bounds(passed)
    if (head !== undefined && head <= lowest) return []
    const wanted = Filter.compile(processor.filter, processor.filterDialect)
    const first = new Map<string, Strand>()
    const isFirst = (strand: Strand) =>
      documentIds.has(strand.documentId) && !first.has(strand.documentId) && strand.operations.length > 0 &&
      strand.position > Ranges.positionIn(passed, Slice.of(strand.documentId)) && wanted(strand)
    const reading = source.strands(lowest).pipe(
      Stream.takeUntil(({ position }) => head !== undefined && position >= head),
      Stream.runForEachWhile((strand) =>
        Effect.sync(() => {
          if (isFirst(strand)) first.set(strand.documentId, strand)
          return first.size < documentIds.size
        })
      )
    )
    yield* Effect.timeoutOption(reading, head === undefined ? "5 seconds" : "1 hour")
    const strands = Array.from(first.values())
    const { progress, queues } = yield* Effect.all({
      progress: Progress.load(cursors[0]!, strands),
      queues: Letters.queues(key, strands)
    }).pipe(Effect.provideService(SqlClient.SqlClient, live))
    return strands.flatMap((strand) => {
      const stream = progress.of(strand)
      const operations = strand.operations.filter((operation) => {
        const placement = stream.place(operation)
        return (placement !== "next" && placement !== "gap") ||
          queues.get(strand.documentId)?.holds(strand, operation) === true
      })
      return operations.length === 0 ? [] : [{ ...strand, operations }]
    })
  })
