/**
 * A document model: a document type and the input Schema of each of its operation types.
 *
 *     const Todo = DocumentModel.make("acme/todo", { ADD: Schema.Struct({ id: Schema.String }) })
 *
 * Every model also knows the operations that each Powerhouse document has whatever its type ({@link systemOperations});
 * they have no declared input. Any other type of operation is unknown to the model, and that is an error, not silence.
 */

import type * as Either from "effect/Either"
import type * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import type { Operation } from "./Operation.js"
import { DocumentType } from "./Strand.js"
import type { Scope } from "./Strand.js"

/** The input Schemas of a model by operation type. Inputs are decoded without services, so `R` is `never`. */
export type Operations = { readonly [type: string]: Schema.Schema.AnyNoContext }

/**
 * How the state of a document is folded. The state is JSON; `reduce` returns the one after the operation and leaves the one
 * it is given as it was. It is given every operation that survives, of all scopes that the processor's filter lets pass, and
 * none that the document refused. A reducer of Powerhouse changes a draft, so it goes into `create` of mutative or immer:
 *
 *     reduce: (state, { input, type }, scope) => create(state, (draft) => void reducer(draft, { input, type, scope }))
 */
export interface Folding<in out State = unknown> {
  readonly initial: State
  readonly reduce: (state: State, operation: Operation, scope: Scope) => State
}

/** What may be said of a model beside its operations. */
export interface Options<State> {
  /** Handlers of a model that says how its state is folded are given it; one that says nothing costs nothing. */
  readonly state?: Folding<State>
}

export interface DocumentModel<Ops extends Operations, State = never> {
  readonly type: DocumentType
  readonly operations: Ops
  readonly state: Folding<State> | undefined
  /** Whether operations of this type belong to the model, declared or common to all documents. */
  readonly knows: (operationType: string) => boolean
  /** Decodes the input of a declared operation; `undefined` for a type that the model does not declare. */
  readonly decode: (
    operationType: string,
    input: unknown
  ) => Either.Either<Input<Ops>, ParseResult.ParseError> | undefined
  /** Encodes the input of a declared operation, as it is sent; `undefined` for a type that the model does not declare. */
  readonly encode: (operationType: string, input: unknown) => Either.Either<unknown, ParseResult.ParseError> | undefined
}

export type Input<Ops extends Operations> = Schema.Schema.Type<Ops[keyof Ops]>

/**
 * Operations that any document may carry: the base reducer's (document-model `core/actions`) and the reactor's own in the
 * `document` scope.
 */
export const systemOperations: ReadonlySet<string> = new Set([
  "NOOP",
  "UNDO",
  "REDO",
  "PRUNE",
  "LOAD_STATE",
  "SET_NAME",
  "SET_PREFERRED_EDITOR",
  "CREATE_DOCUMENT",
  "UPGRADE_DOCUMENT",
  "DELETE_DOCUMENT",
  "ADD_RELATIONSHIP",
  "UPDATE_RELATIONSHIP",
  "REMOVE_RELATIONSHIP"
])

/** Declares a model. Decoders and encoders are built once, here. Throws a `ParseError` when the type is not clean text. */
export const make = <const Ops extends Operations, State = never>(
  type: string,
  operations: Ops,
  options: Options<State> = {}
): DocumentModel<Ops, State> => {
  const decoders = new Map(
    Object.entries(operations).map(([name, schema]) => [name, Schema.decodeUnknownEither(schema)] as const)
  )
  const encoders = new Map(
    Object.entries(operations).map(([name, schema]) => [name, Schema.encodeUnknownEither(schema)] as const)
  )
  return {
    type: Schema.decodeUnknownSync(DocumentType)(type),
    operations,
    state: options.state,
    knows: (operationType) => decoders.has(operationType) || systemOperations.has(operationType),
    decode: (operationType, input) =>
      decoders.get(operationType)?.(input) as
        | Either.Either<Input<Ops>, ParseResult.ParseError>
        | undefined,
    encode: (operationType, input) =>
      encoders.get(operationType)?.(input) as
        | Either.Either<unknown, ParseResult.ParseError>
        | undefined
  }
}
