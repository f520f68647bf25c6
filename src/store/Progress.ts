/**
 * Progress: which operations of each document have been applied, so that a redelivered one is dropped and a missing one is
 * noticed.
 *
 *     stream (document, scope, branch)     page 0: indexes 0–31    page 1: indexes 32–63    …
 *                                          one fingerprint per index: of the skip and hash applied there
 *                                          history, where the processor copes with what is taken back
 *
 * Invariants: a stream's head is the highest index applied; every index up to it was applied, superseded by a later skip,
 * given up, or before the start of a cursor that began after others' operations: then the first operation that is seen of a
 * stream is where it begins, whatever its index, and those below count as superseded. An operation is told by (document,
 * scope, branch, index, skip, hash), never by its id, which the real system uses again. Kept in the same transaction as the
 * writes it speaks of.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type { Statement } from "@effect/sql/Statement"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { dialectOf } from "../domain/Dialect.js"
import { History } from "../domain/History.js"
import { origin } from "../domain/Position.js"
import type { Stream } from "../domain/Strand.js"
import * as Bulk from "../table/Bulk.js"
import type { Kind } from "../table/Column.js"
import type { Cursor, Key } from "./Cursors.js"
import * as Outline from "./Outline.js"
import * as Slots from "./Slots.js"

/**
 * What an operation is to a stream:
 * - `next`: it continues the stream, or supersedes its end;
 * - `redelivered`: exactly this operation was applied;
 * - `superseded`: a later operation took its place before it came, or it was given up;
 * - `gap`: operations before it are missing;
 * - `rewritten`: another operation was applied at its index.
 */
export type Placement = "next" | "redelivered" | "superseded" | "gap" | "rewritten"

/** The number under which a stream's newest page is kept, so that it is found whatever its own number. */
export const newest = Slots.pageMax

/** One stream's progress: read from its rows, advanced in memory, written back. */
export class StreamProgress {
  /** The highest index applied; -1 before the first. */
  head = -1
  private headSkip = 0
  private past: History | undefined = undefined
  /** The history as it was stored, until someone asks for it. */
  private pastText: string | null = null
  private readonly pages = new Map<number, string>()
  private readonly changed = new Set<number>()
  /** The numbers of its rows that are in the database, as far as they were read. */
  private readonly stored: Array<number> = []

  constructor(
    readonly scope: string,
    readonly branch: string,
    /** Whether operations before the first that is seen may be before the cursor's start. */
    private readonly isCut = false
  ) {}

  /** Whether the next operation begins the stream, whatever its index. */
  get isOpen(): boolean {
    return this.isCut && this.head === -1
  }

  /** What survives of the stream; `undefined` where that was not kept from its first operation on. */
  get history(): History | undefined {
    if (this.pastText !== null) {
      this.past = Option.getOrUndefined(History.decode(this.pastText))
      this.pastText = null
    }
    return this.past
  }

  set history(history: History | undefined) {
    this.past = history
    this.pastText = null
  }

  /** Takes in one row; of what is known, and perhaps moved on, it says nothing new. */
  restore(row: Row): void {
    this.stored.push(row.page)
    if (row.page === newest && this.head === -1) {
      this.head = row.last_index
      this.headSkip = row.last_skip
      this.pastText = row.history
    }
    const page = row.page === newest ? Slots.pageOf(row.last_index) : row.page
    if (!this.pages.has(page)) this.pages.set(page, row.slots)
  }

  place(operation: Slots.Identity): Placement {
    const { index, skip } = operation
    if (index > this.head) return this.reaches(operation) ? "next" : "gap"
    if (this.fateOf(operation) !== undefined) return "redelivered"
    // The real system gives a longer undo the index of the shorter one it replaces.
    if (index === this.head && skip !== this.headSkip) return skip > this.headSkip ? "next" : "superseded"
    return this.slotAt(index) === Slots.empty ? "superseded" : "rewritten"
  }

  /** What the operation was to its handler; `undefined` where another one, or none, was applied at its index. */
  fateOf(operation: Slots.Identity): "applied" | "left out" | undefined {
    const slot = this.slotAt(operation.index)
    return slot === Slots.fingerprint(operation)
      ? "applied"
      : slot === Slots.leftOut(Slots.fingerprint(operation))
      ? "left out"
      : undefined
  }

  /** Whether the operation at this index, whichever it is, was left out. Its page has to be loaded. */
  isLeftOut(index: number): boolean {
    return Slots.isLeftOut(this.slotAt(index))
  }

  /** Whether the page with this index is loaded. */
  knowsPageOf(index: number): boolean {
    return this.pages.has(Slots.pageOf(index))
  }

  /**
   * Records that the operation was deliberately left out: the stream goes on after it. An operation that another one was
   * applied in place of leaves no trace, so that the applied one is still known when it comes again.
   */
  leaveOut(operation: Slots.Identity): void {
    if (this.place(operation) !== "rewritten") this.record(operation, Slots.leftOut(Slots.fingerprint(operation)))
  }

  /** Records that the operation was applied: the stream goes on after it. */
  advance(operation: Slots.Identity): void {
    this.record(operation, Slots.fingerprint(operation))
  }

  /** Whether this is continued by a chain: its first operation is next, and higher than all before. */
  isContinuedBy({ first }: Outline.Chain): boolean {
    return first.index > this.head && this.reaches(first)
  }

  /** {@link advance} for each operation of a chain that {@link isContinuedBy} is true of. */
  extend({ first, last, pieces }: Outline.Chain): void {
    this.retire(Slots.pageOf(first.index))
    for (const { from, page, slots } of pieces) {
      this.pages.set(page, Slots.append(this.pages.get(page) ?? "", from, slots))
      this.changed.add(page)
    }
    this.head = last.index
    this.headSkip = last.skip
  }

  /** Whether nothing is missing between what was applied and an operation that is higher. */
  private reaches({ index, skip }: Slots.Identity): boolean {
    return this.isOpen || index - skip <= this.head + 1
  }

  /** {@link advance}, and what takes it back, provided that all that was recorded since was taken back before. */
  advanceRevocably(operation: Slots.Identity): () => void {
    const { head, headSkip } = this
    const page = Slots.pageOf(operation.index)
    const slots = this.pages.get(page)
    const unchanged = [page, Slots.pageOf(head)].filter((each) => !this.changed.has(each))
    this.advance(operation)
    return () => {
      if (slots === undefined) this.pages.delete(page)
      else this.pages.set(page, slots)
      for (const each of unchanged) this.changed.delete(each)
      this.head = head
      this.headSkip = headSkip
    }
  }

  private slotAt(index: number): string {
    return Slots.at(this.pages.get(Slots.pageOf(index)) ?? "", index)
  }

  private record(operation: Slots.Identity, slot: string): void {
    const { index } = operation
    const page = Slots.pageOf(index)
    this.pages.set(page, Slots.put(this.pages.get(page) ?? "", index, slot))
    this.changed.add(page)
    if (index >= this.head) {
      this.retire(page)
      this.head = index
      this.headSkip = operation.skip
    }
  }

  /** Another page is the newest now: the one that was is filed under its own number. */
  private retire(page: number): void {
    if (this.head >= 0 && Slots.pageOf(this.head) !== page) this.changed.add(Slots.pageOf(this.head))
  }

  /** The rows to write back. */
  changes(documentId: string): ReadonlyArray<Change> {
    const last = Slots.pageOf(this.head)
    return Array.from(this.changed, (page) => {
      const number = page === last ? newest : page
      return {
        document_id: documentId,
        scope: this.scope,
        branch: this.branch,
        page: number,
        last_index: this.head,
        last_skip: this.headSkip,
        history: number === newest ? this.pastText ?? this.past?.encode() ?? null : null,
        slots: this.pages.get(page)!,
        isStored: this.stored.includes(number)
      }
    })
  }
}

/** The progress of the documents of one commit. */
export class Progress {
  private readonly documents = new Map<string, Array<StreamProgress>>()

  constructor(private readonly isCut = false, private readonly keepsHistory = true) {}

  /** The stream's progress; a stream that was never seen starts before its first operation. */
  of(stream: { readonly [Part in keyof Stream]: string }): StreamProgress {
    const streams = this.documents.get(stream.documentId)
    // Asked for each strand of a batch: a function given to `find` would be made as often.
    if (streams !== undefined) {
      for (const each of streams) if (each.scope === stream.scope && each.branch === stream.branch) return each
    }
    const fresh = new StreamProgress(stream.scope, stream.branch, this.isCut)
    if (streams === undefined) this.documents.set(stream.documentId, [fresh])
    else streams.push(fresh)
    return fresh
  }

  /** The streams of a document, as far as they are loaded. */
  streamsOf(documentId: string): ReadonlyArray<StreamProgress> {
    return this.documents.get(documentId) ?? []
  }

  restore(row: Row): void {
    this.of({ documentId: row.document_id, scope: row.scope, branch: row.branch }).restore(
      this.keepsHistory ? row : { ...row, history: null }
    )
  }

  changes(): ReadonlyArray<Change> {
    const rows: Array<Change> = []
    for (const [documentId, streams] of this.documents) {
      for (const stream of streams) rows.push(...stream.changes(documentId))
    }
    return rows
  }
}

interface Row {
  readonly document_id: string
  readonly scope: string
  readonly branch: string
  readonly page: number
  readonly last_index: number
  readonly last_skip: number
  /** As `History.encode` writes it. */
  readonly history: string | null
  readonly slots: string
}

/** A row to write, and whether it takes the place of one. */
interface Change extends Row {
  readonly isStored: boolean
}

/** Whose progress it is, and where its cursor began; nothing is before the start of what has none. */
export type Follower = Key & Partial<Pick<Cursor, "start">>

/** Operations of a stream, by what tells them apart. */
export type Wanted = Stream & { readonly operations: ReadonlyArray<Indexed> }
type Indexed = Pick<Slots.Identity, "index">

/**
 * Reads the newest page of each stream of `strands` and those that their operations lie in: a thousand a statement. What is
 * saved of a progress that keeps no history has none any more.
 */
export const load = (
  key: Follower,
  strands: ReadonlyArray<Wanted>,
  options: { readonly keepsHistory: boolean } = { keepsHistory: true }
): Effect.Effect<Progress, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const { progressOf, statements: wanted } = loading(
      yield* SqlClient.SqlClient,
      key,
      Outline.make(strands),
      options
    )
    return progressOf(yield* Effect.forEach(wanted, (statement) => statement))
  })

/** Reads more pages. What is known already stays as it is. */
export const more = (
  progress: Progress,
  key: Key,
  strands: ReadonlyArray<Wanted>
): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const wanted = asking(yield* SqlClient.SqlClient, key, Outline.make(strands))
    restore(progress, yield* Effect.forEach(wanted, (statement) => statement))
  })

/** The statements of {@link load}, and what their answers come to. */
export const loading = (
  sql: SqlClient.SqlClient,
  key: Follower,
  outline: Outline.Outline<Indexed>,
  options: { readonly keepsHistory: boolean } = { keepsHistory: true }
): {
  readonly statements: ReadonlyArray<Statement<object>>
  readonly progressOf: (answers: ReadonlyArray<ReadonlyArray<object>>) => Progress
} => {
  const progress = new Progress((key.start ?? origin) > origin, options.keepsHistory)
  return {
    statements: asking(sql, key, outline),
    progressOf: (answers) => {
      restore(progress, answers)
      return progress
    }
  }
}

/** Whose progress it is, and of which streams. */
export interface Question {
  readonly follower: Follower
  readonly outline: Outline.Outline<Indexed>
}

/** {@link loading} for several at once, which keep no history. */
export const loadingAll = (sql: SqlClient.SqlClient, questions: ReadonlyArray<Question>): {
  readonly statements: ReadonlyArray<Statement<object>>
  readonly progressOf: (answers: ReadonlyArray<ReadonlyArray<object>>) => ReadonlyArray<Progress>
} => {
  const all = questions.map(({ follower }) => new Progress((follower.start ?? origin) > origin, false))
  const wanted = questions.flatMap(({ follower, outline }, i) => pagesOf(follower, outline, i))
  return {
    statements: Bulk.calls(statementsOf(sql).loadAll, wanted).map(([text, cells]) => sql.unsafe(text, cells)),
    progressOf: (answers) => {
      for (const rows of answers) {
        for (const row of rows as ReadonlyArray<Row & { readonly asked: number | string }>) {
          all[Number(row.asked)]!.restore(row)
        }
      }
      return all
    }
  }
}

/** Asks for the newest page of each stream and for those that its operations lie in. */
const asking = (
  sql: SqlClient.SqlClient,
  key: Key,
  outline: Outline.Outline<Indexed>
): ReadonlyArray<Statement<object>> =>
  Bulk.calls(statementsOf(sql).load, pagesOf(key, outline)).map(([text, cells]) => sql.unsafe(text, cells))

/** The newest page of each stream and those that its operations lie in, as the statements ask for them. */
const pagesOf = (key: Key, outline: Outline.Outline<Indexed>, ...asked: Bulk.Cells): ReadonlyArray<Bulk.Cells> =>
  outline.map(({ branch, documentId, pages, scope }) => [
    key.processor,
    key.source,
    documentId,
    scope,
    branch,
    pages.first,
    pages.last,
    ...asked
  ])

const restore = (progress: Progress, answers: ReadonlyArray<ReadonlyArray<object>>): void => {
  for (const rows of answers) for (const row of rows as ReadonlyArray<Row>) progress.restore(row)
}

/** Writes back what changed. One statement for a thousand pages, or none. */
export const save = (key: Key, progress: Progress): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => Effect.forEach(saving(sql, key, progress), (statement) => statement, { discard: true })
  )

/** The statements of {@link save}. */
export const saving = (
  sql: SqlClient.SqlClient,
  key: Key,
  progress: Progress
): ReadonlyArray<Statement<object>> => savingAll(sql, [{ key, progress }])

/** {@link saving} for several at once, in as few statements. */
export const savingAll = (
  sql: SqlClient.SqlClient,
  all: ReadonlyArray<{ readonly key: Key; readonly progress: Progress }>
): ReadonlyArray<Statement<object>> => {
  const isApart = dialectOf(sql) === "pg"
  const [added, others]: [Array<Bulk.Cells>, Array<Bulk.Cells>] = [[], []]
  for (const { key, progress } of all) {
    for (const change of progress.changes()) {
      const rows = isApart && !change.isStored ? added : others
      rows.push(cellsOf(key, change))
    }
  }
  const calls = added.length < addedMin
    ? Bulk.calls(statementsOf(sql).save, [...others, ...added])
    : [...Bulk.calls(add, added), ...Bulk.calls(statementsOf(sql).save, others)]
  return calls.map(([text, cells]) => sql.unsafe(text, cells))
}

const cellsOf = (key: Key, row: Row): Bulk.Cells => [
  key.processor,
  key.source,
  row.document_id,
  row.scope,
  row.branch,
  row.page,
  row.last_index,
  row.last_skip,
  row.history,
  row.slots
]

const statementsOf = (sql: SqlClient.SqlClient) => statements[dialectOf(sql)]

/**
 * No page has a higher number than the newest, so it is among those from the first wanted one on, and the key leads to them:
 * what came before, which may be a long history, is not read. That no number is outside the bounds lets PostgreSQL expect few
 * rows to ask for, and keep a plan that goes by the key, where it would otherwise read the table or make a plan for each call.
 */
const selectPages = (table: string, others: string) => `
    SELECT s.document_id, s.scope, s.branch, s.page, s.last_index, s.last_skip, s.history, s.slots${others}
    FROM ${table}
    CROSS JOIN processor_stream AS s
    WHERE s.processor = v.column1 AND s.source = v.column2
      AND s.document_id = v.column3 AND s.scope = v.column4 AND s.branch = v.column5
      AND s.page >= v.column6 AND (s.page <= v.column7 OR s.page = ${newest})
      AND v.column6 BETWEEN 0 AND ${newest}`

const rowKinds: ReadonlyArray<Kind> = [
  "text",
  "text",
  "text",
  "text",
  "text",
  "integer",
  "integer",
  "integer",
  "text",
  "text"
]

const into = `INSERT INTO processor_stream
      (processor, source, document_id, scope, branch, page, last_index, last_skip, history, slots)`

/**
 * Rows that are not there yet: their stream was read in this transaction, in which nobody else may write it. PostgreSQL looks
 * for a row before it writes one that may be there, and notes each attempt, which is a third of what writing it costs.
 */
const add = Bulk.pg(rowKinds, rowKinds.map((_, i) => `column${i + 1}`), ({ list }) => `${into} ${list}`)

/** So many of them are worth a statement of their own. */
const addedMin = 20

/**
 * In texts that stay the same, with a parameter for each column: of a row as JSON, SQLite reads all for each of them. Rows
 * may be sent twice, to fill a call up: one is then read twice, or written twice as it is.
 */
const statements = Bulk.both((bulk) => ({
  load: bulk(["text", "text", "text", "text", "text", "integer", "integer"], ({ table }) => selectPages(table, "")),
  loadAll: bulk(
    ["text", "text", "text", "text", "text", "integer", "integer", "integer"],
    ({ table }) => selectPages(table, ", v.column8 AS asked")
  ),
  save: bulk(rowKinds, ({ list }) => `
    ${into} ${list}
    ON CONFLICT (processor, source, document_id, scope, branch, page)
    DO UPDATE SET last_index = excluded.last_index, last_skip = excluded.last_skip,
      history = excluded.history, slots = excluded.slots`)
}), { repeats: true })
