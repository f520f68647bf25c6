/**
 * A delivery: strands in the shape in which a generation of the real system hands them to a processor.
 *
 *     strand ─┬─▶ G1   { driveId, documentId, documentType, scope, branch, operations: [{ …, timestamp }] }
 *             ├─▶ G2   the same, operations with `timestampUtcMs` and their `action`
 *             └─▶ G3   [{ operation: { …, action }, context: { documentId, …, ordinal } }, …]
 *
 * Invariants: nothing is there that a strand does not know. A state is there when somebody folds it (`States`, for G3
 * `ResultingStates`), and otherwise absent, as it is in a backfill of the real reactor; the whole `document` of G2 never is
 * there; `input` is absent where there was none. `ordinal` is the strand's position in its source. An operation that was
 * denied has an `error`, and not a `deniedReason`.
 */

import type { Operation } from "../domain/Operation.js"
import type { Strand } from "../domain/Strand.js"

/** The generations: document-drive up to 4, document-drive 5, and @powerhousedao/reactor. */
export type Generation = "G1" | "G2" | "G3"

/** `context` of an action. */
export interface ActionContext {
  readonly prevOpIndex?: number
  readonly prevOpHash?: string
  readonly signer?: unknown
}

export interface Action {
  readonly id: string
  readonly type: string
  readonly timestampUtcMs: string
  readonly input?: unknown
  readonly scope: string
  readonly context?: ActionContext
}

/** An operation with its context, as G3 has it. `timestampUtcMs` is ISO 8601 text in spite of its name. */
export interface OperationWithContext {
  readonly operation: {
    readonly id: string
    readonly index: number
    readonly skip: number
    readonly hash: string
    readonly timestampUtcMs: string
    readonly error?: string
    readonly action: Action
  }
  readonly context: {
    readonly documentId: string
    readonly documentType: string
    readonly scope: string
    readonly branch: string
    readonly ordinal: number
    /** The document after the operation, as JSON. */
    readonly resultingState?: string
  }
}

/** The state of a scope before and after an operation. */
export interface Step {
  readonly previousState: unknown
  readonly state: unknown
}

/** A strand as G1 and G2 have it, without what only one of them has. */
export interface InternalTransmitterUpdate {
  readonly driveId: string
  readonly documentId: string
  readonly documentType: string
  readonly scope: string
  readonly branch: string
  readonly operations: ReadonlyArray<object>
  /** Of the scope, after the last operation; absent where nobody folds it. */
  readonly state?: unknown
}

/** The scopes that processors of G1 and G2 are given: the drive server drops `local`, whatever their filter says. */
export const isDelivered = (generation: Generation, strand: Strand): boolean =>
  generation === "G3" || (strand.scope !== "local" && strand.scope !== "document")

/** As `onOperations` is handed it; `resulting` are the states that its operations result in, one for each. */
export const operations = (
  strand: Strand,
  resulting: ReadonlyArray<string | undefined> = []
): ReadonlyArray<OperationWithContext> =>
  strand.operations.map((operation, i) => ({
    operation: {
      id: operation.id,
      index: operation.index,
      skip: operation.skip,
      hash: operation.hash,
      timestampUtcMs: operation.timestamp,
      ...errorOf(operation),
      action: actionOf(operation, strand)
    },
    context: {
      documentId: strand.documentId,
      documentType: strand.documentType,
      scope: strand.scope,
      branch: strand.branch,
      ordinal: Number(strand.position),
      ...resultingOf(resulting[i])
    }
  }))

const resultingOf = (resultingState: string | undefined): { readonly resultingState?: string } =>
  resultingState === undefined ? {} : { resultingState }

/** As `onStrands` is handed it, in a drive; `steps` are those of its operations, one for each. */
export const update = (
  generation: "G1" | "G2",
  driveId: string,
  strand: Strand,
  steps: ReadonlyArray<Step> | undefined
): InternalTransmitterUpdate => ({
  driveId: strand.driveId ?? driveId,
  documentId: strand.documentId,
  documentType: strand.documentType,
  scope: strand.scope,
  branch: strand.branch,
  operations: strand.operations.map((operation, i) => ({
    ...(generation === "G1" ? flat(operation) : nested(operation, strand)),
    ...steps?.[i]
  })),
  ...stateOf(steps)
})

const stateOf = (steps: ReadonlyArray<Step> | undefined): { readonly state?: unknown } => {
  const last = steps?.at(-1)
  return last === undefined ? {} : { state: last.state }
}

const flat = (operation: Operation) => ({
  id: operation.id,
  index: operation.index,
  skip: operation.skip,
  hash: operation.hash,
  timestamp: operation.timestamp,
  type: operation.type,
  ...inputOf(operation),
  ...errorOf(operation),
  ...contextOf(operation)
})

const nested = (operation: Operation, strand: Strand) => ({
  id: operation.id,
  actionId: actionIdOf(operation),
  index: operation.index,
  skip: operation.skip,
  hash: operation.hash,
  timestampUtcMs: operation.timestamp,
  type: operation.type,
  ...inputOf(operation),
  ...errorOf(operation),
  action: actionOf(operation, strand)
})

const actionOf = (operation: Operation, { scope }: Strand): Action => ({
  id: actionIdOf(operation),
  type: operation.type,
  timestampUtcMs: operation.timestamp,
  ...inputOf(operation),
  scope,
  ...contextOf(operation)
})

/** G1 knows no actions: there, an operation's id is the id that its author gave it. */
const actionIdOf = ({ actionId, id }: Operation): string => actionId ?? id

const inputOf = ({ input }: Operation): { readonly input?: unknown } => input === undefined ? {} : { input }

const errorOf = ({ error }: Operation): { readonly error?: string } => error === undefined ? {} : { error }

const contextOf = ({ prevOpHash, prevOpIndex, signer }: Operation): { readonly context?: ActionContext } =>
  prevOpHash === undefined && prevOpIndex === undefined && signer === undefined ? {} : {
    context: {
      ...(prevOpIndex === undefined ? {} : { prevOpIndex }),
      ...(prevOpHash === undefined ? {} : { prevOpHash }),
      ...(signer === undefined ? {} : { signer })
    }
  }
