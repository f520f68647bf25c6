/**
 * Dispatch: how a handler sends actions back to documents.
 *
 *     handler ─ Dispatch.send ─▶ outbox, in the batch's transaction ─▶ courier ─▶ Dispatcher
 *
 *     COMPLETE: ({ input, strand }) =>
 *       Dispatch.send({ documentId: input.listId, actions: [Dispatch.action(List, "CROSS_OFF", { id: strand.documentId })] })
 *
 * A message is known by its key: the processor, the source, the operation that was handled, and which of the operation's
 * messages it is. The same operation handled again sends messages of the same keys, so send them one after another, never
 * side by side.
 *
 * A handler that sends has `Dispatch` in its type. Two things satisfy it: a commit, and {@link silent}. The first is made
 * by the engine from a cursor that it holds and cannot be had otherwise; whoever runs a handler to repeat what it did uses the second, which no
 * other implementation gets past.
 */

import type { SqlError } from "@effect/sql/SqlError"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Option from "effect/Option"
import type * as Schema from "effect/Schema"
import type * as DocumentModel from "../domain/DocumentModel.js"
import { quote } from "../domain/Operation.js"
import type { Operation } from "../domain/Operation.js"
import type { Stream } from "../domain/Strand.js"
import { Replaying } from "./Replaying.js"

export class Dispatch extends Context.Tag("effect-processors/Dispatch")<Dispatch, {
  /** Takes a message in; it is sent if the transaction is committed. `cause` is what {@link because} has named. */
  readonly send: (
    message: Draft,
    cause: Context.Tag.Service<Handling> | undefined
  ) => Effect.Effect<void, MalformedAction | SqlError>
}>() {}

/**
 * Which operation a message is sent for. `Processor.onOperations` knows; in other handlers it has to be named, by
 * {@link because}, or the handler does not compile.
 */
export class Handling extends Context.Tag("effect-processors/Dispatch/Handling")<Handling, {
  readonly stream: Stream
  readonly operation: Pick<Operation, "index" | "skip" | "hash" | "timestamp">
}>() {}

/** What is to be done to a document. */
export interface Action {
  readonly type: string
  /** As the document's model has it where `model` is set, and as it is sent otherwise: what JSON can carry. */
  readonly input: unknown
  readonly model: Pick<DocumentModel.DocumentModel<DocumentModel.Operations>, "type" | "encode"> | undefined
}

/** Actions for one document, to be done together and in this order. */
export interface Draft {
  readonly documentId: string
  /** `main` when left out. */
  readonly branch?: string
  /** `global` when left out. */
  readonly scope?: string
  /** 1 to {@link actionsMax}. */
  readonly actions: ReadonlyArray<Action>
}

/** The most actions of one message. */
export const actionsMax = 100

/** The longest a message's actions may be as JSON, in UTF-16 code units. */
export const lengthMax = 1024 * 1024

/** A message cannot be sent as it is: an input that does not fit its model, or something that cannot be stored. */
export class MalformedAction extends Data.TaggedError("MalformedAction")<{
  /** The document that it was for. */
  readonly documentId: string
  /** The action's type; `undefined` where it is not about one of them. */
  readonly type: string | undefined
  readonly reason: string
  readonly cause?: unknown
}> {
  override get message(): string {
    const what = this.type === undefined ? "a message" : `the action ${quote(this.type)}`
    return `${what} for document ${quote(this.documentId)} cannot be sent: ${this.reason}`
  }
}

/** An action that a model declares; its input is encoded by the model's Schema when it is sent. */
export const action: {
  <Ops extends DocumentModel.Operations, Type extends keyof Ops & string>(
    model: DocumentModel.DocumentModel<Ops>,
    type: Type,
    input: Schema.Schema.Type<Ops[Type]>
  ): Action
  /** One that every document understands, such as `SET_NAME`, or whose model is not at hand. */
  (type: string, input: unknown): Action
} = (...args: readonly [unknown, unknown, unknown?]): Action =>
  typeof args[0] === "string"
    ? { type: args[0], input: args[1], model: undefined }
    : { type: args[1] as string, input: args[2], model: args[0] as Action["model"] }

/** Sends a message once the operation that is being handled is committed; never, if it is not. */
export const send = (message: Draft): Effect.Effect<void, MalformedAction | SqlError, Dispatch | Handling> =>
  Effect.contextWithEffect((context: Context.Context<Dispatch>) =>
    Context.get(context, Dispatch).send(message, Option.getOrUndefined(Context.getOption(context, Handling)))
  )

/** Names the operation that messages of the effect are sent for. */
export const because: {
  (
    stream: Stream,
    operation: Context.Tag.Service<Handling>["operation"]
  ): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, Exclude<R, Handling>>
  <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    stream: Stream,
    operation: Context.Tag.Service<Handling>["operation"]
  ): Effect.Effect<A, E, Exclude<R, Handling>>
} = dual(
  3,
  <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    stream: Stream,
    operation: Context.Tag.Service<Handling>["operation"]
  ): Effect.Effect<A, E, Exclude<R, Handling>> => Effect.provideService(effect, Handling, { stream, operation })
)

/** Runs a handler, or anything else, to repeat what it did before: nothing in it is sent, whoever runs this. */
export const silent = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, Exclude<R, Dispatch>> =>
  effect.pipe(
    Effect.provideService(Dispatch, { send: () => Effect.void }),
    Effect.provideService(Replaying, true)
  )
