/**
 * Resulting states: what a document has come to after each operation, as the current reactor tells a processor live, in the
 * text of `context.resultingState`; here live, in a backfill and again.
 *
 *     CREATE_DOCUMENT, UPGRADE_DOCUMENT   { header, auth, document, … }      the document as it begins
 *     other operations of the document    { header, document }               its relationships, its end
 *     operations of any other scope       { auth, document, global, local, …, header }
 *
 * Invariants: a state is that of all operations of the document that come before in the source, in whatever scope, by the
 * protocol of its creation, whatever was parked here. Nothing depends on what is kept, so a batch that is tried again has the
 * same states; but every scope of a document has to be handed over, in the order of the source. One that a policy has
 * skipped is in the state of its own scope at once, and in that of others when the document is folded anew. At most
 * {@link keptMax} documents are kept, and one that is not is folded from its operations in the source.
 *
 * A document whose creation the source does not have, whose model nobody gave, or that was upgraded from one version of its
 * model to another, has none. `header.revision` counts the operations of each scope; the real one tells of other scopes what
 * it had in its cache, and at an undo what is left.
 */

import { SqlError } from "@effect/sql/SqlError"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Predicate from "effect/Predicate"
import * as Stream from "effect/Stream"
import { History, isMark, protocolOf } from "../domain/History.js"
import type { Operation } from "../domain/Operation.js"
import type { Strand } from "../domain/Strand.js"
import * as Source from "../ingest/Source.js"
import * as Transaction from "../store/Transaction.js"
import type { LegacyFailure } from "./Call.js"
import { attempt, isSame, keptMax, reduced } from "./States.js"
import type { Module, Modules } from "./States.js"

/** A JSON object. */
type Fields = { readonly [name: string]: unknown }

/** One operation, and the scope it is of. */
interface Step {
  readonly strand: Pick<Strand, "documentId" | "scope" | "protocol">
  readonly operation: Operation
}

/** A document up to an operation. */
interface Whole {
  readonly module: Module
  /** As the reducer takes it; `undefined` as long as, or where, its state cannot be told. */
  document: { readonly header: Fields; readonly state: Fields } | undefined
  protocol: 1 | 2 | undefined
  readonly streams: Map<string, { readonly history: History; last: Operation }>
}

export class ResultingStates {
  private readonly kept = new Map<string, Whole>()

  constructor(private readonly modules: Modules, private readonly source: Context.Tag.Service<Source.Source>) {}

  /** The text for each operation of the strand, `undefined` where there is none. */
  readonly of = (strand: Strand): Effect.Effect<ReadonlyArray<string | undefined>, SqlError | LegacyFailure> =>
    Effect.gen(this, function*() {
      const module = Object.hasOwn(this.modules, strand.documentType) ? this.modules[strand.documentType] : undefined
      const [first] = strand.operations
      if (module === undefined || first === undefined) return strand.operations.map(() => undefined)
      const key = JSON.stringify([strand.documentId, strand.branch])
      let whole = this.kept.get(key)
      this.kept.delete(key)
      if (whole === undefined || !goesOn(whole, strand, first)) {
        whole = yield* fold(module, yield* this.before(strand, first))
      }
      const texts: Array<string | undefined> = []
      for (const operation of strand.operations) {
        if (!take(whole, { strand, operation })) {
          // What was taken back is unmade by making the rest anew.
          const steps = yield* this.before(strand, operation)
          whole = yield* fold(module, [...steps, { strand, operation }])
        } else yield* apply(whole, { strand, operation })
        texts.push(textOf(whole, { strand, operation }))
      }
      this.kept.set(key, whole)
      const [oldest] = this.kept.keys()
      if (this.kept.size > keptMax && oldest !== undefined) this.kept.delete(oldest)
      return texts
    })

  /** The operations of the document before one of it. */
  private before(strand: Strand, operation: Operation): Effect.Effect<ReadonlyArray<Step>, SqlError> {
    const steps: Array<Step> = []
    return Source.documentOf(this.source, strand.documentId, strand.position).pipe(
      Stream.runForEachWhile((each) =>
        Effect.sync(() => {
          if (each.branch !== strand.branch) return true
          for (const one of each.operations) {
            if (each.scope === strand.scope && isSame(one, operation)) return false
            steps.push({ strand: each, operation: one })
          }
          return true
        })
      ),
      // The source may be in a database as well, and has nothing to do with our transaction.
      Transaction.outside,
      Effect.as(steps),
      // A source that is away is waited for, as the database is.
      Effect.mapError((cause) => new SqlError({ cause, message: `No states: ${cause.message}` }))
    )
  }
}

/** The scope of a document as a whole. */
const documentScope = "document"

/** Whether the operation is the next one of a document. */
const goesOn = ({ streams }: Whole, { scope }: Strand, operation: Operation): boolean => {
  const stream = streams.get(scope)
  return stream === undefined
    ? operation.index === 0
    : operation.index === stream.last.index + 1 && stream.history.isNext(operation)
}

/** What survives of the operations, in their document. */
const fold = (module: Module, steps: ReadonlyArray<Step>): Effect.Effect<Whole, LegacyFailure> =>
  Effect.gen(function*() {
    const whole: Whole = { module, document: undefined, protocol: undefined, streams: new Map() }
    const standing: Array<Step> = []
    for (const step of steps) {
      const stream = whole.streams.get(step.strand.scope)
      if (stream !== undefined && !stream.history.isNext(step.operation)) continue
      take(whole, step)
      standing.push(step)
    }
    for (const step of standing) {
      const { operation, strand: { scope } } = step
      const survives = scope === documentScope || whole.streams.get(scope)?.history.survives(operation.index) === true
      if (survives) yield* apply(whole, step)
    }
    return whole
  })

/** Takes an operation into the history of its stream; says whether nothing was taken or brought back by it. */
const take = (whole: Whole, { operation, strand: { protocol, scope } }: Step): boolean => {
  if (scope === documentScope) whole.protocol = protocolOf(operation) ?? whole.protocol
  const stream = whole.streams.get(scope) ??
    { history: History.make(whole.protocol ?? protocol ?? 2), last: operation }
  whole.streams.set(scope, stream)
  stream.last = operation
  // Nothing of the document's own scope is ever taken back.
  if (scope === documentScope) return true
  const { broughtBack, takenBack } = Either.getOrElse(stream.history.take(operation), () => nothing)
  return takenBack.length + broughtBack.length === 0
}

const nothing = { takenBack: [], broughtBack: [] }

/** Brings the document to where it is after the operation. */
const apply = (whole: Whole, step: Step): Effect.Effect<void, LegacyFailure> =>
  Effect.gen(function*() {
    const { operation, strand } = step
    if (strand.scope === documentScope) whole.document = yield* applyToWhole(whole, step)
    else if (whole.document !== undefined && !isMark(operation)) {
      const { header } = whole.document
      const reducedDocument = yield* reduced(whole.module, whole.document, strand, operation)
      whole.document = { ...reducedDocument, header, state: fieldsOf(reducedDocument, "state") ?? {} }
    }
  })

const applyToWhole = (
  { document, module }: Whole,
  { operation, strand }: Step
): Effect.Effect<Whole["document"], LegacyFailure> => {
  const input = operation.input
  if (operation.error !== undefined) return Effect.succeed(document)
  if (operation.type === "CREATE_DOCUMENT") {
    return Effect.map(attempt(strand, () => module.utils.createDocument()), (begun) => ({
      ...begun,
      header: headerOf(input, strand, operation),
      state: baseOf(fieldsOf(begun, "state") ?? {})
    }))
  }
  if (document === undefined) return Effect.succeed(undefined)
  const own = fieldsOf(document.state, documentScope)
  if (operation.type === "UPGRADE_DOCUMENT") {
    const from = numberOf(input, "fromVersion")
    const to = numberOf(input, "toVersion")
    if (from > 0) return Effect.succeed(from === to ? document : undefined)
    const state = { ...document.state, ...(fieldsOf(input, "initialState") ?? fieldsOf(input, "state")) }
    return Effect.succeed({
      ...document,
      state: { ...state, [documentScope]: { ...fieldsOf(state, documentScope), version: to } }
    })
  }
  return Effect.succeed(
    operation.type === "DELETE_DOCUMENT"
      ? {
        ...document,
        state: { ...document.state, [documentScope]: { ...own, isDeleted: true, deletedAtUtcIso: operation.timestamp } }
      }
      : document
  )
}

/** What a document consists of before it is given its model. */
const baseOf = (state: Fields): Fields => ({
  ...("auth" in state ? { auth: state["auth"] } : {}),
  [documentScope]: { ...fieldsOf(state, documentScope), version: 0 }
})

/** The header that the reactor makes of a creation. */
const headerOf = (input: unknown, { documentId }: Step["strand"], { timestamp }: Operation): Fields => {
  const signing = fieldsOf(input, "signing")
  const given = Predicate.isRecord(input) ? input : {}
  const slug = given["slug"]
  return {
    id: documentId,
    sig: { publicKey: signing?.["publicKey"] ?? {}, nonce: signing?.["nonce"] ?? "" },
    documentType: given["model"],
    createdAtUtcIso: signing?.["createdAtUtcIso"] ?? timestamp,
    slug: typeof slug === "string" && slug !== "" ? slug : documentId,
    name: given["name"] ?? "",
    branch: given["branch"] ?? "main",
    lastModifiedAtUtcIso: signing?.["createdAtUtcIso"] ?? timestamp,
    meta: given["meta"] ?? {},
    ...("protocolVersions" in given ? { protocolVersions: given["protocolVersions"] } : {})
  }
}

/** Operations that tell of the document as it was before they counted. */
const uncounted = new Set(["CREATE_DOCUMENT", "UPGRADE_DOCUMENT", "DELETE_DOCUMENT"])

/** The text as the reactor writes it for the last operation that was taken. */
const textOf = ({ document, streams }: Whole, { operation, strand: { scope } }: Step): string | undefined => {
  if (document === undefined) return undefined
  const isOwn = scope === documentScope
  const isUncounted = isOwn && uncounted.has(operation.type)
  const revision = Object.fromEntries(Array.from(streams, ([name, { last }]) => [
    name,
    name === scope && isUncounted ? last.index : last.index + 1
  ]))
  const header = {
    ...document.header,
    revision,
    ...(isUncounted ? {} : { lastModifiedAtUtcIso: operation.timestamp })
  }
  const { state } = document
  if (!isOwn) return JSON.stringify({ ...state, header })
  return operation.type === "CREATE_DOCUMENT" || operation.type === "UPGRADE_DOCUMENT"
    ? JSON.stringify({ header, ...state })
    : JSON.stringify({ header, [documentScope]: state[documentScope] ?? {} })
}

const fieldsOf = (value: unknown, name: string): Fields | undefined =>
  Predicate.hasProperty(value, name) && Predicate.isRecord(value[name]) ? value[name] : undefined

const numberOf = (value: unknown, name: string): number =>
  Predicate.hasProperty(value, name) && typeof value[name] === "number" ? value[name] : 0
