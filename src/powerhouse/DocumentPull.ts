/**
 * A document pull: asks the current reactor for one document's operations, or for what documents a drive has.
 *
 *     stream, from an index ──▶ documentOperations, page after page ──▶ journal
 *     drive ──▶ document, findDocuments, page after page ──▶ each document's streams and how far they go
 *
 * The reactor answers from its store, which has everything, and not from a channel, which keeps in memory what it believes
 * that we miss. So this is what repairs a channel.
 *
 * The operations of an answer do not say whose they are, so an answer to another question, out of a cache or a proxy that
 * mixes them up, would put one document's operations into another. Each question therefore asks for its answer under a name
 * that is made of what it asks, and an answer without it is malformed.
 */

import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { createHash } from "node:crypto"
import { DocumentId, DocumentType, Scope } from "../domain/Strand.js"
import type { Branch, Stream } from "../domain/Strand.js"
import * as Envelope from "../ingest/Envelope.js"
import type { Unplaced } from "../ingest/Source.js"
import * as Endpoint from "./Endpoint.js"

/** Where a stream stands at the reactor. */
export interface Standing extends Stream {
  readonly documentType: DocumentType
  /** The index that its next operation will have. */
  readonly next: number
}

/**
 * What the server is known to understand. `deniedReason` and `errorType` came later than the rest, and a server without them
 * refuses a question that has them as a whole.
 */
export interface Vocabulary {
  hasDecisions: boolean
}

/** Asks with the newer fields and, where the server does not know them, without from then on. */
export const ask = <A, I>(
  endpoint: Endpoint.Endpoint,
  vocabulary: Vocabulary,
  question: (hasDecisions: boolean) => Endpoint.Question<A, I>
): Effect.Effect<A, Endpoint.AskError> =>
  Effect.suspend(() => endpoint.ask(question(vocabulary.hasDecisions))).pipe(
    Effect.catchIf(
      (failure) =>
        vocabulary.hasDecisions && failure._tag === "QuestionRejected" &&
        failure.reasons.some((reason) => /deniedReason|errorType/.test(reason)),
      () => {
        vocabulary.hasDecisions = false
        return endpoint.ask(question(false))
      }
    )
  )

const operationsMax = 100
const documentsMax = 50
/** Pages of documents; a drive has fewer than a million. */
const documentPagesMax = 20_000

/**
 * Asks for the operations of a stream from an index on, and hands them on a page at a time, until there are no more or
 * `use` wants none. Returns the highest index that it has seen, or the one before the first where it has seen none.
 */
export const operations = <E>(
  endpoint: Endpoint.Endpoint,
  vocabulary: Vocabulary,
  stream: Stream & Pick<Unplaced, "documentType">,
  fromIndex: number,
  use: (strands: ReadonlyArray<Unplaced>, lastIndex: number) => Effect.Effect<boolean, E>
): Effect.Effect<number, Endpoint.AskError | E> =>
  Effect.gen(function*() {
    let last = fromIndex - 1
    let cursor: string | undefined
    do {
      const page = yield* operationsPage(endpoint, vocabulary, stream, fromIndex, cursor)
      const before = last
      for (const strand of page.strands) for (const { index } of strand.operations) last = Math.max(last, index)
      if (!(yield* use(page.strands, last))) return last
      cursor = page.cursor
      if (cursor !== undefined && last === before) return yield* astray(endpoint, "documentOperations")
    } while (cursor !== undefined)
    return last
  })

interface Page {
  readonly strands: ReadonlyArray<Unplaced>
  /** Where to go on; `undefined` after the last. */
  readonly cursor: string | undefined
}

const operationsPage = (
  endpoint: Endpoint.Endpoint,
  vocabulary: Vocabulary,
  { branch, documentId, documentType, scope }: Stream & Pick<Unplaced, "documentType">,
  fromIndex: number,
  cursor: string | undefined
): Effect.Effect<Page, Endpoint.AskError> =>
  ask(endpoint, vocabulary, (hasDecisions) =>
    questionOf(questions.operations(hasDecisions), {
      filter: { documentId, branch, scopes: [scope], sinceRevision: fromIndex },
      paging: { limit: operationsMax, ...(cursor === undefined ? undefined : { cursor }) }
    })).pipe(
      Effect.flatMap(({ cursor: next, hasNextPage, items }) => {
        const values = items.map((operation) => ({ operation, context: { documentId, documentType, scope, branch } }))
        return Either.match(Envelope.decode(values, JSON.stringify(values).length), {
          onLeft: ({ field, reason }) =>
            new Endpoint.MalformedAnswer({ endpoint: endpoint.name, at: `documentOperations${field}`, reason }),
          onRight: (strands) =>
            Effect.map(onwards(endpoint, "documentOperations", hasNextPage, next), (to) => ({ strands, cursor: to }))
        })
      })
    )

/** Where the next page is. A server that says that there is one has to say where. */
const onwards = (
  endpoint: Endpoint.Endpoint,
  at: string,
  hasNextPage: boolean,
  cursor: string | null | undefined
): Effect.Effect<string | undefined, Endpoint.MalformedAnswer> =>
  !hasNextPage
    ? Effect.succeed(undefined)
    : typeof cursor === "string" && cursor !== ""
    ? Effect.succeed(cursor)
    : astray(endpoint, at)

const astray = (endpoint: Endpoint.Endpoint, at: string): Endpoint.MalformedAnswer =>
  new Endpoint.MalformedAnswer({
    endpoint: endpoint.name,
    at: `${at}.cursor`,
    reason: "it leads to no further page"
  })

/** How far the drive's own streams go. */
export const drive = (
  endpoint: Endpoint.Endpoint,
  driveId: string,
  branch: Branch
): Effect.Effect<ReadonlyArray<Standing>, Endpoint.AskError> =>
  Effect.map(
    endpoint.ask(questionOf(questions.drive, { identifier: driveId, view: { branch } })),
    (found) => found === null ? [] : standingsOf(found.document, branch)
  )

/** Asks how far the streams of the drive's documents go, and hands it on a page at a time. */
export const documents = <E>(
  endpoint: Endpoint.Endpoint,
  driveId: string,
  branch: Branch,
  use: (standings: ReadonlyArray<Standing>) => Effect.Effect<void, E>
): Effect.Effect<void, Endpoint.AskError | E> =>
  Effect.gen(function*() {
    let cursor: string | undefined
    for (let pages = 0; pages < documentPagesMax; pages++) {
      const { cursor: next, hasNextPage, items } = yield* endpoint.ask(questionOf(questions.documents, {
        search: { parentId: driveId },
        view: { branch },
        paging: { limit: documentsMax, ...(cursor === undefined ? undefined : { cursor }) }
      }))
      yield* use(items.flatMap((document) => standingsOf(document, branch)))
      cursor = yield* onwards(endpoint, "findDocuments", hasNextPage, next)
      if (cursor === undefined) return
    }
    return yield* astray(endpoint, "findDocuments")
  })

const standingsOf = (
  { documentType, id, revisionsList }: typeof Document.Type,
  branch: Branch
): ReadonlyArray<Standing> =>
  revisionsList.map(({ revision, scope }) => ({ documentType, documentId: id, scope, branch, next: revision }))

const Document = Schema.Struct({
  id: DocumentId,
  documentType: DocumentType,
  revisionsList: Schema.Array(Schema.Struct({ scope: Scope, revision: Schema.Int }))
})

const paged = <A, I>(item: Schema.Schema<A, I>) =>
  Schema.Struct({
    items: Schema.Array(item),
    hasNextPage: Schema.Boolean,
    cursor: Schema.optional(Schema.NullOr(Schema.String))
  })

const documentFields = "id documentType revisionsList { scope revision }"

/** A question about one thing, whose answer is to come under a name. */
export interface Inquiry<A, I> {
  readonly operationName: string
  readonly query: (name: string) => string
  readonly answer: Schema.Schema<A, I>
}

/** The inquiry about these variables, and about no others. */
export const questionOf = <A, I>(
  { answer, operationName, query }: Inquiry<A, I>,
  variables: object
): Endpoint.Question<A, { readonly [name: string]: I }> => {
  const name = `of_${createHash("sha256").update(JSON.stringify(variables)).digest("hex").slice(0, 16)}`
  const named = Schema.Struct({ [name]: answer })
  return { operationName, query: query(name), variables, answer: Schema.pluck(named, name) }
}

const questions = {
  operations: (hasDecisions: boolean) => ({
    operationName: "DocumentOperations",
    query: (name: string) =>
      `query DocumentOperations($filter: OperationsFilterInput!, $paging: PagingInput) {
      ${name}: documentOperations(filter: $filter, paging: $paging) {
        items {
          index timestampUtcMs hash skip error ${hasDecisions ? "deniedReason" : ""} id
          action { id type timestampUtcMs input scope }
        }
        hasNextPage cursor
      }
    }`,
    answer: paged(Schema.Unknown)
  }),
  drive: {
    operationName: "Drive",
    query: (name: string) =>
      `query Drive($identifier: String!, $view: ViewFilterInput) {
      ${name}: document(identifier: $identifier, view: $view) { document { ${documentFields} } }
    }`,
    answer: Schema.NullOr(Schema.Struct({ document: Document }))
  },
  documents: {
    operationName: "Documents",
    query: (name: string) =>
      `query Documents($search: SearchFilterInput!, $view: ViewFilterInput, $paging: PagingInput) {
      ${name}: findDocuments(search: $search, view: $view, paging: $paging) {
        items { ${documentFields} } hasNextPage cursor
      }
    }`,
    answer: paged(Document)
  }
}
