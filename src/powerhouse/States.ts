/**
 * States: what a document comes to after each operation, folded by its model's own reducer, as strands of G1 and G2 carry it.
 *
 *     strand ─▶ the document as it was before it ─▶ reducer ─▶ { previousState, state } ─▶ reducer ─▶ …
 *                 └ kept from the last strand, or else folded from the document's operations in the source
 *
 * Invariants: a state is that of the operation's own scope, by protocol 1, whatever was parked or skipped here, since the
 * document does not know of that; nothing depends on what is kept, so a batch that is tried again has the same states. At
 * most {@link keptMax} documents are kept.
 *
 * A document begins as its model creates it, or as its UPGRADE_DOCUMENT says, where the source has that. One that the real
 * system was given a beginning for, as document-drive does for drives, lacks that.
 */

import { SqlError } from "@effect/sql/SqlError"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Predicate from "effect/Predicate"
import * as Stream from "effect/Stream"
import { History } from "../domain/History.js"
import type { Operation } from "../domain/Operation.js"
import type { Strand } from "../domain/Strand.js"
import * as Source from "../ingest/Source.js"
import * as Transaction from "../store/Transaction.js"
import { LegacyFailure } from "./Call.js"
import type { Step } from "./Delivery.js"

/** What a `DocumentModelModule` of document-model 4 or later has, as far as it is used. */
export interface Module {
  readonly reducer: (document: never, action: never) => object
  readonly utils: { readonly createDocument: (state?: never) => object }
}

/** Modules by document type. */
export type Modules = { readonly [documentType: string]: Module }

/** Documents that are kept, the last that were asked for. */
export const keptMax = 256

/** A document up to an operation. */
interface Kept {
  readonly history: History
  last: Operation | undefined
  document: object
}

/** A reader of states, for one processor following one source. */
export class States {
  private readonly kept = new Map<string, Kept>()

  constructor(private readonly modules: Modules, private readonly source: Context.Tag.Service<Source.Source>) {}

  /** A step for each operation of the strand; `undefined` for a document whose model nobody gave. */
  readonly steps = (strand: Strand): Effect.Effect<ReadonlyArray<Step> | undefined, SqlError | LegacyFailure> =>
    Effect.gen(this, function*() {
      const module = Object.hasOwn(this.modules, strand.documentType) ? this.modules[strand.documentType] : undefined
      const [first] = strand.operations
      if (module === undefined || first === undefined) return undefined
      const key = JSON.stringify([strand.documentId, strand.scope, strand.branch])
      let at = this.kept.get(key)
      this.kept.delete(key)
      if (at === undefined || !goesOn(at, first)) at = yield* this.before(module, strand, first)
      const steps: Array<Step> = []
      for (const operation of strand.operations) {
        const previousState = stateOf(at.document, strand.scope)
        const { broughtBack, takenBack } = Either.getOrElse(at.history.take(operation), () => tooBroken)
        if (takenBack.length + broughtBack.length > 0) at = yield* this.through(module, strand, operation)
        else at.document = yield* reduced(module, at.document, strand, operation)
        at.last = operation
        steps.push({ previousState, state: stateOf(at.document, strand.scope) })
      }
      this.keep(key, at)
      return steps
    })

  private keep(key: string, at: Kept): void {
    this.kept.set(key, at)
    const [oldest] = this.kept.keys()
    if (this.kept.size > keptMax && oldest !== undefined) this.kept.delete(oldest)
  }

  private before(module: Module, strand: Strand, operation: Operation) {
    return Effect.flatMap(
      this.read(strand, operation),
      ({ beginning, operations }) => fold(module, beginning, strand, operations)
    )
  }

  private through(module: Module, strand: Strand, operation: Operation) {
    return Effect.flatMap(
      this.read(strand, operation),
      ({ beginning, operations }) => fold(module, beginning, strand, [...operations, operation])
    )
  }

  /** The operations of the strand's stream before one of it, and what its document began as. */
  private read(strand: Strand, operation: Operation): Effect.Effect<Past, SqlError> {
    const past: Past = { beginning: undefined, operations: [] }
    return Source.documentOf(this.source, strand.documentId, strand.position).pipe(
      Stream.runForEachWhile((each) =>
        Effect.sync(() => {
          if (each.branch !== strand.branch) return true
          if (each.scope === "document") past.beginning = beginningOf(each) ?? past.beginning
          if (each.scope !== strand.scope) return true
          for (const one of each.operations) {
            if (isSame(one, operation)) return false
            past.operations.push(one)
          }
          return true
        })
      ),
      // The source may be in a database as well, and has nothing to do with our transaction.
      Transaction.outside,
      Effect.as(past),
      // A source that is away is waited for, as the database is.
      Effect.mapError((cause) => new SqlError({ cause, message: `No states: ${cause.message}` }))
    )
  }
}

interface Past {
  beginning: unknown
  readonly operations: Array<Operation>
}

/** What survives of the operations, in a document. */
const fold = (
  module: Module,
  beginning: unknown,
  strand: Strand,
  operations: ReadonlyArray<Operation>
): Effect.Effect<Kept, LegacyFailure> =>
  Effect.gen(function*() {
    const history = History.make(1)
    const standing = new Map<number, Operation>()
    for (const operation of operations) {
      if (!history.isNext(operation)) continue
      const { takenBack } = Either.getOrElse(history.take(operation), () => tooBroken)
      for (const index of takenBack) standing.delete(index)
      standing.set(operation.index, operation)
    }
    let document = yield* attempt(strand, () => module.utils.createDocument(beginning as never))
    for (const operation of standing.values()) document = yield* reduced(module, document, strand, operation)
    return { history, last: operations.at(-1), document }
  })

const tooBroken = { takenBack: [], broughtBack: [] }

/** The document after an operation. What was refused, or only takes back, changes nothing by itself. What came before is let go: only the state counts. */
export const reduced = (
  module: Module,
  document: object,
  { documentId, scope }: Pick<Strand, "documentId" | "scope">,
  operation: Operation
): Effect.Effect<object, LegacyFailure> =>
  operation.error !== undefined || operation.type === "NOOP"
    ? Effect.succeed(document)
    : Effect.map(
      attempt({ documentId }, () =>
        module.reducer(document as never, {
          id: operation.actionId ?? operation.id,
          type: operation.type,
          input: operation.input,
          scope,
          timestamp: operation.timestamp,
          timestampUtcMs: operation.timestamp
        } as never)),
      withoutHistory
    )

const withoutHistory = (document: object): object =>
  Predicate.hasProperty(document, "operations") && Predicate.isRecord(document.operations)
    ? {
      ...document,
      operations: Object.fromEntries(Object.keys(document.operations).map((scope) => [scope, []])),
      clipboard: []
    }
    : document

/** What the model does; what it throws is the processor's failure. */
export const attempt = <A>({ documentId }: Pick<Strand, "documentId">, use: () => A): Effect.Effect<A, LegacyFailure> =>
  Effect.try({
    try: use,
    catch: (thrown) => new LegacyFailure({ method: `the reducer of ${documentId}`, thrown, cause: thrown })
  })

/** Whether the operation is the one after those that the document holds. */
const goesOn = ({ history, last }: Kept, operation: Operation): boolean =>
  last !== undefined && operation.index === last.index + 1 && history.isNext(operation)

export const isSame = (a: Operation, b: Operation): boolean =>
  a.index === b.index && a.skip === b.skip && a.hash === b.hash

const stateOf = (document: object, scope: string): unknown =>
  Predicate.hasProperty(document, "state") && Predicate.isRecord(document.state) ? document.state[scope] : undefined

const beginningOf = ({ operations }: Strand): unknown => {
  const upgrade = operations.findLast(({ type }) => type === "UPGRADE_DOCUMENT")
  return Predicate.hasProperty(upgrade?.input, "initialState") ? upgrade.input.initialState : undefined
}
