/**
 * Dead letters: the operations that a subscription has set aside, for a person to look at, try again or give up.
 *
 *     DeadLetters.summary(key)                       how much waits, by cause
 *     DeadLetters.list(key)                          what waits, and why
 *     DeadLetters.retry(processor, source, id)       a document's letters, in order, through the processor's handler
 *     DeadLetters.drop(key, ordinal)                 one letter, for good
 *
 * They are those of the namespace whose client is in the context: `Namespace.query("todos", DeadLetters.list(key))`, and
 * `Namespace.within` for the other two.
 *
 * All are safe beside a running subscription, in its process or in another: the first two only read, the others lock its
 * cursor while they write, and never move it.
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Slice from "../domain/Slice.js"
import { Source } from "../ingest/Source.js"
import type { SourceName } from "../ingest/Source.js"
import type { Dispatch } from "../process/Dispatch.js"
import type { Processor } from "../process/Processor.js"
import * as Commit from "./Commit.js"
import * as Cursors from "./Cursors.js"
import type { Incident } from "./Incident.js"
import * as Letters from "./Letters.js"
import * as Narrowing from "./Narrowing.js"
import * as Progress from "./Progress.js"
import * as Release from "./Release.js"
import { besides, remember } from "./Rewrite.js"
import * as States from "./States.js"
import * as Transaction from "./Transaction.js"

export type { Letter, Selection, Summary } from "./Letters.js"

/** There is no such letter: it has been applied or dropped, or never was. */
export class NoSuchLetter extends Data.TaggedError("NoSuchLetter")<Cursors.Key & { readonly ordinal: bigint }> {
  override get message(): string {
    return `${this.processor} on ${this.source} has no dead letter ${this.ordinal}`
  }
}

/** Operations of the same stream wait before this letter's; it cannot be given up before they have left. */
export class OutOfTurn extends Data.TaggedError("OutOfTurn")<
  Cursors.Key & { readonly ordinal: bigint; readonly first: bigint }
> {
  override get message(): string {
    return `${this.processor} on ${this.source}: dead letter ${this.first} comes before ${this.ordinal}; drop that one first`
  }
}

/** What a retry came to. */
export interface Retried {
  /** Letters that left, in order. */
  readonly released: number
  /** Letters of the document that still wait. */
  readonly waiting: number
  /** What was parked again, skipped, retried or waited for meanwhile. */
  readonly incidents: ReadonlyArray<Incident>
}

/** Letters in the order of arrival, at most 1,000 unless the selection says otherwise. */
export const list = (
  key: Cursors.Key,
  selection: Letters.Selection = {}
): Effect.Effect<ReadonlyArray<Letters.Letter>, SqlError, SqlClient.SqlClient> => Letters.read(key, selection)

/** How many operations of how many documents wait, by cause; those that only wait behind others come last. */
export const summary = (
  key: Cursors.Key
): Effect.Effect<ReadonlyArray<Letters.Summary>, SqlError, SqlClient.SqlClient> => Letters.summary(key)

/**
 * Applies a document's letters in order, until one fails; that one stays with its new cause, and those behind it wait on.
 * The processor's own policy decides, so a letter may also be skipped, or halt the retry with `Halted`.
 * A letter that takes operations back, of a processor that copes with that, may need the source: provide it, or it stays.
 */
export const retry = <R>(
  processor: Processor<never, R>,
  source: SourceName,
  documentId: string
): Effect.Effect<Retried, Commit.CommitError | SqlError, Exclude<R, Dispatch> | SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const key = { processor: processor.name, source }
    const cursor = yield* Cursors.peek(key, Slice.of(documentId))
    if (cursor === undefined) return { released: 0, waiting: 0, incidents: [] }
    const scope = yield* Effect.scope
    const at = yield* Effect.serviceOption(Source)
    const incidents: Array<Incident> = []
    const owner: Commit.Owner<Exclude<R, Dispatch>> = {
      handler: yield* Effect.provideService(processor.handler, Scope.Scope, scope) as Effect.Effect<
        Commit.Owner<Exclude<R, Dispatch>>["handler"],
        SqlError,
        Exclude<R, Dispatch>
      >,
      policy: processor.policy,
      coping: Commit.copingOf(processor, Option.getOrUndefined(Option.filter(at, ({ name }) => name === source))),
      cursor,
      fenced: false,
      report: (incident) => Effect.sync(() => incidents.push(incident)),
      committed: () => Effect.void,
      turn: (commit) => commit
    }
    const before = yield* Letters.headers(key, documentId)
    yield* Narrowing.letters(owner, yield* Release.inOrder(cursor, before))
    const left = yield* Letters.headers(key, documentId)
    const waiting = new Set(left.map((letter) => letter.ordinal))
    return {
      released: before.filter((letter) => !waiting.has(letter.ordinal)).length,
      waiting: left.length,
      incidents
    }
  }).pipe(Effect.scoped)

/**
 * Gives one letter up: its operation is never applied, and neither are operations missing before it, should they still
 * come. What waited behind it leaves with the next {@link retry} of the document, or when the subscription opens again.
 * Letters of its stream that wait before it have to go first: they would never be applied either.
 */
export const drop = (
  key: Cursors.Key,
  ordinal: bigint
): Effect.Effect<Letters.Letter, NoSuchLetter | OutOfTurn | Transaction.TransactionError, SqlClient.SqlClient> =>
  Transaction.run(Effect.gen(function*() {
    const cursor = yield* Cursors.settled(key, Letters.sliceOf(ordinal))
    const [letter] = yield* Letters.read(key, { ordinal })
    if (cursor === undefined || letter === undefined) return yield* new NoSuchLetter({ ...key, ordinal })
    const own = yield* Letters.headers(key, letter.strand.documentId)
    const progress = yield* Release.progressOf(cursor, own)
    const stream = progress.of(letter.strand)
    const first = own.find((each) =>
      progress.of(each.strand) === stream && each.operation.index > stream.head &&
      each.operation.index < letter.operation.index - letter.operation.skip
    )
    if (first !== undefined) return yield* new OutOfTurn({ ...key, ordinal, first: first.ordinal })
    yield* Progress.more(progress, key, besides(progress, [letter.strand], new Map()))
    Either.getOrUndefined(remember(progress, { strand: letter.strand, stream, operation: letter.operation }))
    stream.leaveOut(letter.operation)
    yield* Progress.save(key, progress)
    yield* States.forget(key, [letter.strand.documentId])
    yield* Letters.remove(key, [ordinal])
    yield* Cursors.countParked(cursor, -1)
    return letter
  }))
