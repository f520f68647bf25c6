/**
 * A processor: a name, a namespace, a filter, migrations, and the handler that turns strands into writes.
 *
 *     Processor.make("todo-list", { namespace: "todos", filter, migrations, handler })   Processor<E, R>
 *       .pipe(Processor.withPolicy(Policy.standard))                                     Processor<never, R>
 *
 * `E` is the set of failures that nobody has decided about yet. A policy takes tags out of it, and a reactor accepts only
 * what is left with none.
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { TreeFormatter } from "effect/ParseResult"
import { pipeArguments } from "effect/Pipeable"
import type { Pipeable } from "effect/Pipeable"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Covariant } from "effect/Types"
import type * as DocumentModel from "../domain/DocumentModel.js"
import { Chosen } from "../domain/Name.js"
import * as Namespace from "../domain/Namespace.js"
import type { Operation } from "../domain/Operation.js"
import * as Partition from "../domain/Partition.js"
import type { Position } from "../domain/Position.js"
import type { Retraction, Told } from "../domain/Retraction.js"
import type { Strand } from "../domain/Strand.js"
import * as Batch from "../ingest/Batch.js"
import * as Filter from "../ingest/Filter.js"
import * as Pace from "../ingest/Pace.js"
import type { Definition } from "../table/Definition.js"
import type { Fold } from "../table/Fold.js"
import { foldOf } from "../table/FoldingConnection.js"
import { Forecast } from "../table/Forecast.js"
import type { Attempt } from "./Attempt.js"
import type { Handling } from "./Dispatch.js"
import { MalformedOperation, subject, UnknownOperation } from "./Failure.js"
import type { HistoryLost } from "./Failure.js"
import * as Migration from "./Migration.js"
import type * as Policy from "./Policy.js"

export const ProcessorName = Chosen.pipe(Schema.brand("ProcessorName"))
export type ProcessorName = typeof ProcessorName.Type

/** What turns the strands of one commit into writes. Built by {@link onStrands}, {@link onBatch} or {@link onOperations}. */
export interface Handler<out E, out R> {
  readonly run: (strands: ReadonlyArray<Told>, attempt: Attempt) => Effect.Effect<void, E, R>
  /** Set where it has nothing that undoes what a retraction takes back. */
  readonly isForwardOnly?: boolean
  /** How the states that it wants are folded, by document type. */
  readonly states?: ReadonlyMap<string, DocumentModel.Folding>
}

const TypeId: unique symbol = Symbol.for("effect-processors/Processor")

export interface Processor<out E, out R> extends Pipeable {
  readonly [TypeId]: { readonly _E: Covariant<E>; readonly _R: Covariant<R> }
  /** Names the cursor; choose it once and keep it. */
  readonly name: ProcessorName
  readonly namespace: Namespace.Namespace
  readonly filter: Filter.Filter
  readonly filterDialect: Filter.Dialect
  readonly migrations: Migration.Migrations
  readonly startFrom: StartFrom
  readonly limits: Partial<Batch.Limits>
  /** The processors whose tables it reads, and so never runs ahead of. */
  readonly after: ReadonlyArray<ProcessorName>
  readonly pace: Pace.Pace
  /** Into how many partitions its documents are divided. */
  readonly partitions: number
  readonly history: History
  /** The tables that it alone writes. */
  readonly tables: ReadonlyArray<Owned>
  readonly policy: Policy.Table
  /** Built once per subscription, in a scope that closes with it. */
  readonly handler: Effect.Effect<Handler<unknown, R>, SqlError, R | Scope.Scope>
}

/** A table as a processor owns it. */
export interface Owned {
  readonly name: string
  readonly definition: Definition
}

/** The failures that are still undecided. */
export type Failure<P> = P extends Processor<infer E, unknown> ? E : never

/** The services a processor needs. */
export type Services<P> = P extends Processor<unknown, infer R> ? R : never

/**
 * Where a processor that has no cursor yet begins on a source: with its first strand, after its head, or after a position.
 * Later starts go on from the cursor, whatever it says.
 */
export type StartFrom = "beginning" | "current" | Position

/**
 * How a processor copes with documents that take operations back (a skip, an undo, a merge with another history):
 *
 * - `recorded`: it is given every operation as it was recorded, in index order, those too that are taken back later;
 * - `append`: it is told by a `Retraction`, before the operation that takes back, which of the operations that it was given
 *   are to be undone;
 * - `replay`: where an operation takes back what it was given, the rows of the document are removed from its
 *   {@link Options.tables}, and the operations that survive are given to it again, `Replaying`, in the same transaction.
 *   What is taken back in the very commit that brings it is never given.
 *
 * With the latter two it is never given a mark, a `NOOP` that only undoes. What is in the scope `document` is never taken
 * back.
 */
export type History = "recorded" | "append" | "replay"

/** What a processor can fail with because it copes with rewritten history. */
type Lost<H extends History> = H extends "recorded" ? never : HistoryLost

export interface Options<E extends Policy.Tagged, R, RB, H extends History = History> {
  /** Where its tables are: letters, digits, `_` and `-`, a letter first, at most 128 characters. `Shop` is not `shop`. */
  readonly namespace: string
  /** The strands that are wanted; all of them when left out. */
  readonly filter?: Filter.Filter
  /** Which generation's wildcard rules the filter follows: `drive` (the default) or `reactor`. */
  readonly filterDialect?: Filter.Dialect
  /** The steps of the namespace's schema. */
  readonly migrations?: Migration.Migrations
  /**
   * Where it begins; default: `"beginning"`. Otherwise the first operation that it sees of a stream is taken for the
   * stream's beginning, whatever its index; gaps behind that one are gaps.
   */
  readonly startFrom?: StartFrom
  /** How it copes with documents that take operations back; default: `"recorded"`, not at all. */
  readonly history?: H
  /**
   * The tables that this processor writes, and nobody else. They are what is emptied when it is projected anew; a processor
   * that names none cannot be. With `history: "replay"` each names the column of its `document`; rows are removed from the
   * last table first.
   */
  readonly tables?: ReadonlyArray<Owned>
  /**
   * Processors whose tables it reads: of the same reactor, in any namespace. It commits an operation only once they have
   * committed all that they want up to it; they may be ahead of it. What they have set aside as dead letters does not hold it up, and is missing in
   * their tables; while one of them has halted, it waits.
   */
  readonly after?: ReadonlyArray<{ readonly name: ProcessorName }>
  /** How fast it may go; default: as fast as it can. */
  readonly pace?: Pace.Pace
  /**
   * How many subscriptions share its documents, each with a cursor of its own, so that they commit side by side on PostgreSQL;
   * default: 1, at most 64. Each document is in one partition, and its operations stay in order; those of different documents
   * do not. So no two partitions may write a row from what they have read of it, unless the database keeps them apart, as
   * it does for `Table.increment`. It may be changed from one start to the next.
   */
  readonly partitions?: number
  /** Bounds of a batch, where the defaults of `Batch.defaults` do not fit. */
  readonly batch?: Partial<Batch.Limits>
  /**
   * The handler, or an effect that builds it: run once per subscription, its finalizers are the processor's onDisconnect.
   */
  readonly handler: Handler<E, R> | Effect.Effect<Handler<E, R>, SqlError, RB>
}

/**
 * Declares a processor. The result can fail with whatever the handler fails with and with what the engine raises itself;
 * {@link withPolicy} decides. Throws a `ParseError` when the name, the namespace, a bound of the batch, the pace or the
 * number of partitions is not allowed, and a `TypeError` when its tables or its handler do not suit its `history`.
 */
export const make = <E extends Policy.Tagged, R = never, RB = never, H extends History = "recorded">(
  name: string,
  options: Options<E, R, RB, H>
): Processor<E | Policy.EngineFailure | Lost<H>, R | Exclude<RB, Scope.Scope> | SqlClient.SqlClient> => {
  const history = options.history ?? "recorded"
  const tables = options.tables ?? []
  if (history === "replay") checkTables(name, tables)
  const suiting = (handler: Handler<E, R>) => checkHandler(name, handler, history, options.startFrom)
  return fromParts({
    name: Schema.decodeUnknownSync(ProcessorName)(name),
    namespace: Namespace.make(options.namespace),
    filter: options.filter ?? Filter.all,
    filterDialect: options.filterDialect ?? "drive",
    migrations: options.migrations ?? Migration.none,
    startFrom: options.startFrom ?? "beginning",
    limits: Batch.checked(options.batch ?? {}),
    after: (options.after ?? []).map((before) => before.name),
    pace: Pace.checked(options.pace ?? {}),
    partitions: Schema.decodeUnknownSync(Partition.Count)(options.partitions ?? 1),
    history,
    tables,
    policy: new Map(),
    handler: Effect.isEffect(options.handler)
      ? Effect.map(options.handler, suiting)
      : Effect.succeed(suiting(options.handler))
  })
}

/** Throws a `TypeError` that names the table whose rows of a document could not be removed. */
const checkTables = (name: string, tables: ReadonlyArray<Owned>): void => {
  if (tables.length === 0) throw new TypeError(`${name} replays documents and has to name its tables`)
  const other = tables.find(({ definition }) => definition.document === undefined)
  if (other !== undefined) {
    throw new TypeError(
      `${name} replays documents, and its table ${other.name} does not name the column of the document's id: ` +
        "Table.make(…, { document: \"document_id\" })"
    )
  }
}

/** Throws a `TypeError` that says what the handler lacks, or could not be given. */
const checkHandler = <E, R>(
  name: string,
  handler: Handler<E, R>,
  history: History,
  startFrom: StartFrom = "beginning"
): Handler<E, R> => {
  if (history === "append" && handler.isForwardOnly === true) {
    throw new TypeError(`${name} is told what is taken back, and its handler has no \`retract\``)
  }
  if (
    handler.states !== undefined && handler.states.size > 0 && (history === "recorded" || startFrom !== "beginning")
  ) {
    throw new TypeError(
      `${name} wants the state of documents, which is known only from the beginning on and ` +
        "with `history: \"replay\"` or \"append\""
    )
  }
  return handler
}

type Parts<R> = Omit<Processor<unknown, R>, typeof TypeId | "pipe">

// The phantom type parameters make this the one place where a processor's type is asserted instead of inferred.
const fromParts = <E, R>(parts: object): Processor<E, R> =>
  ({
    ...parts,
    [TypeId]: { _E: (_: never) => _, _R: (_: never) => _ },
    pipe() {
      return pipeArguments(this, arguments)
    }
  }) as unknown as Processor<E, R>

/**
 * Decides failures by tag and takes them out of `E`. A tag of `Policy.standard` may be decided again, and the later decision
 * counts; any other tag that the processor cannot fail with, or not any more, does not compile.
 */
export const withPolicy = <
  E extends Policy.Tagged,
  P extends
    & Policy.Policy<E | Policy.StandardFailure>
    & {
      readonly [Tag in Exclude<keyof P, (E | Policy.StandardFailure)["_tag"]>]: Policy.NoSuchFailure<Tag, E["_tag"]>
    }
>(policy: P) =>
<R>(self: Processor<E, R>): Processor<Exclude<E, { readonly _tag: Policy.Decides<P> }>, R> => {
  const parts: Parts<R> = self
  return fromParts({ ...parts, policy: new Map([...self.policy, ...Object.entries(policy)]) })
}

/** The same processor in another namespace. Throws a `ParseError` when the name is not allowed. */
export const inNamespace = (namespace: string) => <E, R>(self: Processor<E, R>): Processor<E, R> => {
  const parts: Parts<R> = self
  return fromParts({ ...parts, namespace: Namespace.make(namespace) })
}

/**
 * A handler over the Stream of a batch's strands, in order, already rid of redelivered operations. The stream is drained
 * inside the batch's transaction; whatever it fails with, the policy decides.
 */
export const onStrands = <E, R>(
  handle: (strands: Stream.Stream<Told>) => Stream.Stream<unknown, E, R>
): Handler<E, R> => ({
  run: (strands) => Stream.runDrain(handle(Stream.fromChunk(Chunk.unsafeFromArray(strands))))
})

/** A handler that takes the whole batch at once, for bulk statements. Never called with no strands. */
export const onBatch = <E, R>(
  handle: (strands: ReadonlyArray<Told>) => Effect.Effect<unknown, E, R>
): Handler<E, R> => ({ run: (strands) => Effect.asVoid(handle(strands)) })

/** What an operation's handler is given. */
export interface Received<Type extends string, Input, State = never> {
  readonly type: Type
  /** The input as the model's Schema decodes it. */
  readonly input: Input
  readonly operation: Operation
  readonly strand: Strand
  /** The document's state after this operation, where its model says how it is folded. It is not to be changed. */
  readonly state: State
  /** And before it. */
  readonly previousState: State
}

type Handlers<Ops extends DocumentModel.Operations, State> = {
  readonly [Type in keyof Ops & string]?: (
    received: Received<Type, Schema.Schema.Type<Ops[Type]>, State>
  ) => Effect.Effect<unknown, unknown, unknown>
}

/** What may be said of a model's operations beside how they are handled. */
export interface OperationsOptions<Ops extends DocumentModel.Operations, E, R> {
  /**
   * Undoes what a `Retraction` takes back, in a processor with `history: "append"`: called before the operation `by` is
   * handled, in its place where that is a mark. Operations that the document refused are among the indexes; nothing was
   * handled for them.
   */
  readonly retract?: (received: Retracted) => Effect.Effect<unknown, E, R>
  /**
   * By operation type, the rows that its handler will ask tables for: `({ input }) => Todos.prefetch([{ id: input.id }])`.
   * Called for each operation of a batch before the first is handled, so that all are read together. Most need not be
   * declared: a key that is the document's or operation's own id, or a field of the input, is soon foreseen.
   */
  readonly prefetch?: {
    readonly [Type in keyof Ops & string]?: (
      received: Omit<Received<Type, Schema.Schema.Type<Ops[Type]>>, "state" | "previousState">
    ) => Effect.Effect<void>
  }
}

/** What undoes is given. */
export interface Retracted {
  readonly retraction: Retraction
  readonly strand: Strand
}

/** What a handler would have to hold under the name of an operation that its model does not have. Nothing is of this type. */
export interface NoSuchOperation<out Name, out Known> {
  readonly [noSuchOperation]: readonly [Name, Known]
}

declare const noSuchOperation: unique symbol

type HandlerEffect<H> = {
  [Type in keyof H]: H[Type] extends (received: never) => infer Result
    ? Extract<Result, Effect.Effect<unknown, unknown, unknown>>
    : never
}[keyof H]

/**
 * A handler with one function per operation of a model. Operations that the model declares and the handler leaves out, and
 * those that every document has, pass by; so do operations that the document's own reducer refused, which changed nothing.
 * An operation that the model does not know fails with `UnknownOperation`, an input that does not fit its Schema with
 * `MalformedOperation`. Strands of other document types pass by.
 */
export const onOperations = <
  Ops extends DocumentModel.Operations,
  State,
  H extends Handlers<Ops, State> & { readonly [Name in Exclude<keyof H, keyof Ops>]: NoSuchOperation<Name, keyof Ops> },
  ER = never,
  RR = never
>(
  model: DocumentModel.DocumentModel<Ops, State>,
  handlers: H,
  options: OperationsOptions<Ops, ER, RR> = {}
): Handler<
  Effect.Effect.Error<HandlerEffect<H>> | ER | MalformedOperation | UnknownOperation,
  Exclude<Effect.Effect.Context<HandlerEffect<H>>, Handling> | RR
> => {
  type E = Effect.Effect.Error<HandlerEffect<H>>
  // Which operation is handled is read from the attempt, which costs less than a service for each.
  type R = Exclude<Effect.Effect.Context<HandlerEffect<H>>, Handling>
  type Handle = (received: Received<string, unknown, unknown>) => Effect.Effect<unknown, E, R>
  const handles = new Map(Object.entries(handlers) as Iterable<readonly [string, Handle]>)
  const prefetches = new Map(Object.entries(options.prefetch ?? {}) as Iterable<readonly [string, Prefetch]>)
  const forecast = new Forecast(model.type)
  return {
    isForwardOnly: options.retract === undefined,
    ...(model.state === undefined ? {} : { states: new Map([[model.type, model.state as DocumentModel.Folding]]) }),
    run: Effect.fnUntraced(function*(strands, attempt) {
      const clock = yield* Effect.clock
      const fold = yield* currentFold
      if (fold !== undefined) {
        forecast.begin(fold, strands)
        if (prefetches.size > 0) yield* prefetchAll(model, prefetches, strands)
      }
      for (const strand of strands) {
        if (strand.documentType !== model.type) continue
        if (strand.retraction !== undefined && options.retract !== undefined) {
          attempt.current = attempt.by.get(strand.retraction)
          forecast.between()
          yield* options.retract({ retraction: strand.retraction, strand })
        }
        for (const operation of strand.operations) {
          if (operation.error !== undefined) continue
          attempt.current = operation
          attempt.stream = strand
          const change = attempt.states?.at(strand, operation)
          if (change !== undefined && Either.isLeft(change)) return yield* change.left
          const handle = handles.get(operation.type)
          if (handle === undefined) {
            if (model.knows(operation.type)) continue
            return yield* new UnknownOperation({ ...subject(strand, operation), documentType: model.type })
          }
          const input = model.decode(operation.type, operation.input)
          if (input === undefined || Either.isLeft(input)) {
            return yield* malformed(strand, operation, input?.left)
          }
          if (fold !== undefined) forecast.at(strand, operation)
          const started = clock.unsafeCurrentTimeNanos()
          yield* handle({
            type: operation.type,
            input: input.right,
            operation,
            strand,
            state: change?.right.state,
            previousState: change?.right.previous
          })
          attempt.record(operation.type, clock.unsafeCurrentTimeNanos() - started)
        }
      }
      attempt.current = undefined
      forecast.end()
    })
  }
}

type Prefetch = (received: Omit<Received<string, unknown>, "state" | "previousState">) => Effect.Effect<void>

const currentFold = Effect.withFiberRuntime<Fold | undefined>((fiber) => Effect.succeed(foldOf(fiber)))

/** Lets operations say which rows they will ask for. One whose input does not fit says nothing: it will fail in its turn. */
const prefetchAll = <Ops extends DocumentModel.Operations, State>(
  model: DocumentModel.DocumentModel<Ops, State>,
  prefetches: ReadonlyMap<string, Prefetch>,
  strands: ReadonlyArray<Strand>
) =>
  Effect.gen(function*() {
    for (const strand of strands) {
      if (strand.documentType !== model.type) continue
      for (const operation of strand.operations) {
        const prefetch = operation.error === undefined ? prefetches.get(operation.type) : undefined
        const input = prefetch === undefined ? undefined : model.decode(operation.type, operation.input)
        if (prefetch === undefined || input === undefined || Either.isLeft(input)) continue
        yield* prefetch({ type: operation.type, input: input.right, operation, strand })
      }
    }
  })

const malformed = (
  strand: Strand,
  operation: Operation,
  cause: Parameters<typeof TreeFormatter.formatErrorSync>[0] | undefined
) =>
  new MalformedOperation({
    ...subject(strand, operation),
    reason: cause === undefined
      ? "the input does not fit the model"
      : `the input does not fit the model: ${TreeFormatter.formatErrorSync(cause)}`,
    cause
  })

/** One handler of several: each gets the whole batch, in the order given. For processors that follow several models. Of models of one type, only one may want state. */
export const merge = <E, R, E2, R2>(first: Handler<E, R>, second: Handler<E2, R2>): Handler<E | E2, R | R2> => ({
  run: (strands, attempt) => Effect.zipRight(first.run(strands, attempt), second.run(strands, attempt)),
  isForwardOnly: first.isForwardOnly === true || second.isForwardOnly === true,
  states: new Map([...first.states ?? [], ...second.states ?? []])
})
