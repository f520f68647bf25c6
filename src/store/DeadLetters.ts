/**
 * Dead letters: the operations that a subscription has set aside, for a person to look at, try again or give up.
 *
 *     DeadLetters.list(key)                          what waits, and why
 *     DeadLetters.retry(processor, source, id)       a document's letters, in order, through the processor's handler
 *     DeadLetters.drop(key, ordinal)                 one letter, for good
 *
 * All three are safe beside a running subscription, in its process or in another: they lock its cursor, and never move it.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import type { SourceName } from "../ingest/Source.js"
import type { Processor } from "../process/Processor.js"
import * as Commit from "./Commit.js"
import * as Cursors from "./Cursors.js"
import type { Incident } from "./Incident.js"
import * as Letters from "./Letters.js"
import * as Progress from "./Progress.js"
import * as Release from "./Release.js"
import * as Transaction from "./Transaction.js"

export type { Letter, Selection } from "./Letters.js"

/** There is no such letter: it has been applied or dropped, or never was. */
export class NoSuchLetter extends Data.TaggedError("NoSuchLetter")<Cursors.Key & { readonly ordinal: bigint }> {
  override get message(): string {
    return `${this.processor} on ${this.source} has no dead letter ${this.ordinal}`
  }
}

/** What a retry came to. */
export interface Retried {
  /** Letters that left, in order. */
  readonly released: number
  /** Letters of the document that still wait. */
  readonly waiting: number
  /** What the first of them failed with this time. */
  readonly incidents: ReadonlyArray<Incident>
}

/** Letters in the order of arrival, at most 1,000 unless the selection says otherwise. */
export const list = (
  key: Cursors.Key,
  selection: Letters.Selection = {}
): Effect.Effect<ReadonlyArray<Letters.Letter>, SqlError, SqlClient.SqlClient> => Letters.read(key, selection)

/**
 * Applies a document's letters in order, until one fails; that one stays with its new cause, and those behind it wait on.
 * The processor's own policy decides, so a letter may also be skipped, or halt the retry with `Halted`.
 */
export const retry = <R>(
  processor: Processor<never, R>,
  source: SourceName,
  documentId: string
): Effect.Effect<Retried, Commit.CommitError | SqlError, R | SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const key = { processor: processor.name, source }
    const cursor = yield* Cursors.peek(key)
    if (cursor === undefined) return { released: 0, waiting: 0, incidents: [] }
    const scope = yield* Effect.scope
    const incidents: Array<Incident> = []
    const owner: Commit.Owner<R> = {
      handler: yield* Effect.provideService(processor.handler, Scope.Scope, scope) as Effect.Effect<
        Commit.Owner<R>["handler"],
        SqlError,
        R
      >,
      policy: processor.policy,
      cursor,
      fenced: false,
      report: (incident) => Effect.sync(() => incidents.push(incident)),
      turn: (commit) => commit
    }
    const all = { documentId, limit: Number.MAX_SAFE_INTEGER }
    const commits = yield* Commit.letters(owner, yield* Release.inOrder(key, yield* Letters.read(key, all)))
    return {
      released: commits.reduce((sum, commit) => sum + commit.released, 0),
      waiting: (yield* Letters.read(key, all)).length,
      incidents
    }
  }).pipe(Effect.scoped)

/**
 * Gives one letter up: its operation is never applied, and neither are operations missing before it, should they still
 * come. What waited behind it leaves with the next {@link retry} of the document, or when the subscription opens again.
 */
export const drop = (
  key: Cursors.Key,
  ordinal: bigint
): Effect.Effect<Letters.Letter, NoSuchLetter | Transaction.TransactionError, SqlClient.SqlClient> =>
  Transaction.run(Effect.gen(function*() {
    const cursor = yield* Cursors.settled(key)
    const [letter] = yield* Letters.read(key, { ordinal })
    if (cursor === undefined || letter === undefined) return yield* new NoSuchLetter({ ...key, ordinal })
    const progress = yield* Progress.load(key, [letter.strand])
    progress.of(letter.strand).advance(letter.operation)
    yield* Progress.save(key, progress)
    yield* Letters.remove(key, [ordinal])
    yield* Cursors.countParked(cursor, -1)
    return letter
  }))
