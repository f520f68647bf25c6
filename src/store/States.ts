/**
 * States: the state of each document of a commit, folded by its model's own reducer from the operations that survive.
 *
 *     snapshot ─▶ operation ─▶ operation ─▶ … ─▶ snapshot       in the transaction that holds the writes and the cursor
 *                    └ the handler sees it before and after each
 *
 * Invariants: a state is that of the operations which the progress of its document says were applied or left out and which
 * survive, whether they came live, in a backfill or again; one that is not stored yet is folded from the source before
 * anything else. A state is JSON: what is stored and read again is the same.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type { Folding } from "../domain/DocumentModel.js"
import type { Operation } from "../domain/Operation.js"
import type { DocumentId, Strand } from "../domain/Strand.js"
import type * as Attempt from "../process/Attempt.js"
import { MalformedOperation, subject } from "../process/Failure.js"
import type { Key } from "./Cursors.js"
import * as Rows from "./Rows.js"

/** The largest state that is kept, in characters of JSON. */
export const stateMax = 8 * 1024 * 1024

/** An operation that is to be folded; one that was left out may be one that no reducer takes. */
export interface Step {
  readonly strand: Strand
  readonly operation: Operation
  readonly isLeftOut: boolean
}

/** One document on one branch. */
interface Entry {
  readonly documentId: DocumentId
  readonly branch: string
  readonly folding: Folding
  state: unknown
  /** Whether the state is that of all that was applied. */
  isKnown: boolean
  isChanged: boolean
  last: Step | undefined
  /** What is to be folded, up to the operation that is asked for. */
  queue: Array<Step>
}

export class States implements Attempt.States {
  private readonly entries = new Map<string, Map<string, Entry>>()

  constructor(private readonly foldings: ReadonlyMap<string, Folding>) {}

  /** The documents whose state has to be folded from their operations so far, each with one of its strands. */
  get unknown(): ReadonlyArray<DocumentId> {
    return this.all.flatMap(({ documentId, isKnown }) => isKnown ? [] : [documentId])
  }

  /** Makes the state of a document that of these operations alone. */
  seed(documentId: DocumentId, steps: ReadonlyArray<Step>): Either.Either<void, MalformedOperation> {
    this.reset(documentId)
    this.expect(steps)
    return this.settle()
  }

  /** Makes the state of a document that of no operation. */
  reset(documentId: DocumentId): void {
    for (const entry of this.entries.get(documentId)?.values() ?? []) {
      entry.state = entry.folding.initial
      entry.isKnown = true
      entry.isChanged = true
      entry.queue = []
    }
  }

  /** Operations that are folded next, in this order. */
  expect(steps: ReadonlyArray<Step>): void {
    for (const step of steps) this.of(step.strand)?.queue.push(step)
  }

  at(strand: Strand, operation: Operation): Either.Either<Attempt.Change, MalformedOperation> {
    const entry = this.of(strand)
    if (entry === undefined) return Either.right({ previous: undefined, state: undefined })
    const queue = entry.queue
    let previous = entry.state
    for (let i = 0; i < queue.length; i++) {
      const step = queue[i]!
      previous = entry.state
      const folded = fold(entry, step)
      if (folded !== undefined) return Either.left(folded)
      if (step.operation === operation) {
        entry.queue = queue.slice(i + 1)
        break
      }
    }
    return Either.right({ previous, state: entry.state })
  }

  /** Folds what nobody has asked for. */
  settle(): Either.Either<void, MalformedOperation> {
    for (const entry of this.all) {
      for (const step of entry.queue.splice(0)) {
        const failure = fold(entry, step)
        if (failure !== undefined) return Either.left(failure)
      }
    }
    return Either.right(undefined)
  }

  /** The rows to write back; or the last operation of a document whose state has become too large. */
  get changes(): Either.Either<ReadonlyArray<Row>, MalformedOperation> {
    const rows: Array<Row> = []
    for (const { branch, documentId, isChanged, last, state } of this.all) {
      if (!isChanged) continue
      const text = JSON.stringify(state) as string | undefined ?? "null"
      if (text.length > stateMax && last !== undefined) {
        const reason = `the document's state takes ${text.length} characters, and ${stateMax} are kept at most`
        return Either.left(new MalformedOperation({ ...subject(last.strand, last.operation), reason }))
      }
      rows.push({ document_id: documentId, branch, state: text })
    }
    return Either.right(rows)
  }

  /** Takes in what is stored of the strand's document. */
  restore(strand: Strand, text: string | null, isBegun: boolean): void {
    const entry = this.of(strand)
    if (entry === undefined) return
    entry.isKnown = text !== null || !isBegun
    if (text !== null) entry.state = JSON.parse(text)
  }

  private get all(): ReadonlyArray<Entry> {
    return Array.from(this.entries.values()).flatMap((branches) => Array.from(branches.values()))
  }

  private of({ branch, documentId, documentType }: Strand): Entry | undefined {
    const known = this.entries.get(documentId)?.get(branch)
    if (known !== undefined) return known
    const folding = this.foldings.get(documentType)
    if (folding === undefined) return undefined
    const entry: Entry = {
      documentId,
      branch,
      folding,
      state: folding.initial,
      isKnown: true,
      isChanged: false,
      last: undefined,
      queue: []
    }
    const branches = this.entries.get(documentId) ?? new Map<string, Entry>()
    this.entries.set(documentId, branches.set(branch, entry))
    return entry
  }
}

/** What the document's own reducer refused has changed nothing. */
const fold = (entry: Entry, step: Step): MalformedOperation | undefined => {
  const { operation, strand } = step
  entry.last = step
  if (operation.error !== undefined) return undefined
  const folded = Either.try(() => entry.folding.reduce(entry.state, operation, strand.scope))
  if (Either.isRight(folded)) {
    entry.state = folded.right
    entry.isChanged = true
    return undefined
  }
  return step.isLeftOut ? undefined : new MalformedOperation({
    ...subject(strand, operation),
    reason: `the model's reducer does not take it: ${String(folded.left)}`,
    cause: folded.left
  })
}

interface Row {
  readonly document_id: string
  readonly branch: string
  readonly state: string
}

/** Reads the states of the documents of these strands, in one statement. */
export const load = (
  key: Key,
  foldings: ReadonlyMap<string, Folding>,
  strands: ReadonlyArray<Strand>
): Effect.Effect<States, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const states = new States(foldings)
    const wanted = new Map<string, Strand>()
    for (const strand of strands) {
      if (foldings.has(strand.documentType)) wanted.set(JSON.stringify([strand.documentId, strand.branch]), strand)
    }
    if (wanted.size === 0) return states
    const sql = yield* SqlClient.SqlClient
    const asked = Array.from(wanted.values())
    const rows = yield* sql<{ readonly ordinal: number; readonly state: string | null; readonly begun: number }>`
      SELECT wanted.ordinal, s.state, CASE WHEN EXISTS (
        SELECT 1 FROM processor_stream AS p
        WHERE p.processor = ${key.processor} AND p.source = ${key.source}
          AND p.document_id = wanted.document_id AND p.branch = wanted.branch
      ) THEN 1 ELSE 0 END AS begun
      FROM ${
      Rows.table(
        sql,
        "wanted",
        { ordinal: "integer", document_id: "text", branch: "text" },
        asked.map(({ branch, documentId }, ordinal) => ({ ordinal, document_id: documentId, branch }))
      )
    }
      LEFT JOIN processor_state AS s ON s.processor = ${key.processor} AND s.source = ${key.source}
        AND s.document_id = wanted.document_id AND s.branch = wanted.branch`
    for (const { begun, ordinal, state } of rows) states.restore(asked[ordinal]!, state, begun === 1)
    return states
  })

/** Writes back the states that have changed, in one statement. */
export const save = (
  key: Key,
  states: States
): Effect.Effect<void, SqlError | MalformedOperation, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const rows = yield* states.changes
    if (rows.length === 0) return
    const sql = yield* SqlClient.SqlClient
    yield* sql`
      INSERT INTO processor_state (processor, source, document_id, branch, state)
      SELECT ${key.processor}, ${key.source}, document_id, branch, state
      FROM ${
      Rows.table(
        sql,
        "changed",
        { document_id: "text", branch: "text", state: "text" },
        rows.map((row) => ({ ...row }))
      )
    }
      WHERE TRUE
      ON CONFLICT (processor, source, document_id, branch) DO UPDATE SET state = excluded.state`
  })

/** Forgets the states of documents: they are folded anew when they are asked for again. */
export const forget = (
  key: Key,
  documentIds: ReadonlyArray<string>
): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.asVoid(sql`
      DELETE FROM processor_state
      WHERE processor = ${key.processor} AND source = ${key.source} AND ${sql.in("document_id", documentIds)}`))
