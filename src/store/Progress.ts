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
import type { Operation } from "../domain/Operation.js"
import { origin } from "../domain/Position.js"
import type { Stream } from "../domain/Strand.js"
import * as Bulk from "../table/Bulk.js"
import type { Cursor, Key } from "./Cursors.js"

/**
 * What an operation is to a stream:
 * - `next`: it continues the stream, or supersedes its end;
 * - `redelivered`: exactly this operation was applied;
 * - `superseded`: a later operation took its place before it came, or it was given up;
 * - `gap`: operations before it are missing;
 * - `rewritten`: another operation was applied at its index.
 */
export type Placement = "next" | "redelivered" | "superseded" | "gap" | "rewritten"

const pageSize = 32
const slotSize = 8
/** The number under which a stream's newest page is kept, so that it is found whatever its own number. */
export const newest = 2_147_483_647
const emptySlot = " ".repeat(slotSize)
/** Stands in place of a fingerprint's first character where the operation was left out. No fingerprint has it. */
const leftOutMark = "!"
const leftOutSlot = (slot: string): string => leftOutMark + slot.slice(1)

/** What tells an operation from the others of its stream. */
export type Identity = Pick<Operation, "index" | "skip" | "hash">

/** One stream's progress: read from its rows, advanced in memory, written back. */
export class StreamProgress {
  /** The highest index applied; -1 before the first. */
  head = -1
  private headSkip = 0
  private past: History | undefined = undefined
  /** The history as it was stored, until someone asks for it. */
  private pastText: string | null = null
  private readonly pages = new Map<number, Array<string>>()
  private readonly changed = new Set<number>()

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
    if (row.page === newest && this.head === -1) {
      this.head = row.last_index
      this.headSkip = row.last_skip
      this.pastText = row.history
    }
    const page = row.page === newest ? pageOf(row.last_index) : row.page
    if (!this.pages.has(page)) this.pages.set(page, splitSlots(row.slots))
  }

  place(operation: Identity): Placement {
    const { index, skip } = operation
    if (index > this.head) return this.isOpen || index - skip <= this.head + 1 ? "next" : "gap"
    if (this.fateOf(operation) !== undefined) return "redelivered"
    // The real system gives a longer undo the index of the shorter one it replaces.
    if (index === this.head && skip !== this.headSkip) return skip > this.headSkip ? "next" : "superseded"
    return this.slotAt(index) === emptySlot ? "superseded" : "rewritten"
  }

  /** What the operation was to its handler; `undefined` where another one, or none, was applied at its index. */
  fateOf(operation: Identity): "applied" | "left out" | undefined {
    const slot = this.slotAt(operation.index)
    return slot === fingerprint(operation)
      ? "applied"
      : slot === leftOutSlot(fingerprint(operation))
      ? "left out"
      : undefined
  }

  /** Whether the operation at this index, whichever it is, was left out. Its page has to be loaded. */
  isLeftOut(index: number): boolean {
    return this.slotAt(index).startsWith(leftOutMark)
  }

  /** Whether the page with this index is loaded. */
  knowsPageOf(index: number): boolean {
    return this.pages.has(pageOf(index))
  }

  /**
   * Records that the operation was deliberately left out: the stream goes on after it. An operation that another one was
   * applied in place of leaves no trace, so that the applied one is still known when it comes again.
   */
  leaveOut(operation: Identity): void {
    if (this.place(operation) !== "rewritten") this.record(operation, leftOutSlot(fingerprint(operation)))
  }

  /** Records that the operation was applied: the stream goes on after it. */
  advance(operation: Identity): void {
    this.record(operation, fingerprint(operation))
  }

  /** {@link advance}, and what takes it back, provided that all that was recorded since was taken back before. */
  advanceRevocably(operation: Identity): () => void {
    const { head, headSkip } = this
    const page = pageOf(operation.index)
    const slot = this.pages.get(page)?.[operation.index % pageSize]
    const unchanged = [page, pageOf(head)].filter((each) => !this.changed.has(each))
    this.advance(operation)
    return () => {
      if (slot === undefined) this.pages.delete(page)
      else this.pages.get(page)![operation.index % pageSize] = slot
      for (const each of unchanged) this.changed.delete(each)
      this.head = head
      this.headSkip = headSkip
    }
  }

  private slotAt(index: number): string {
    return this.pages.get(pageOf(index))?.[index % pageSize] ?? emptySlot
  }

  private record(operation: Identity, slot: string): void {
    const page = pageOf(operation.index)
    let slots = this.pages.get(page)
    if (slots === undefined) {
      slots = new Array<string>(pageSize).fill(emptySlot)
      this.pages.set(page, slots)
    }
    slots[operation.index % pageSize] = slot
    this.changed.add(page)
    if (operation.index >= this.head) {
      // The page that was the newest one is filed under its own number from now on.
      if (this.head >= 0 && pageOf(this.head) !== page) this.changed.add(pageOf(this.head))
      this.head = operation.index
      this.headSkip = operation.skip
    }
  }

  /** The rows to write back. */
  changes(documentId: string): ReadonlyArray<Row> {
    return Array.from(this.changed, (page) => ({
      document_id: documentId,
      scope: this.scope,
      branch: this.branch,
      page: page === pageOf(this.head) ? newest : page,
      last_index: this.head,
      last_skip: this.headSkip,
      history: page === pageOf(this.head) ? this.pastText ?? this.past?.encode() ?? null : null,
      slots: this.pages.get(page)!.join("").trimEnd()
    }))
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

  changes(): ReadonlyArray<Row> {
    const rows: Array<Row> = []
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

/** Whose progress it is, and where its cursor began; nothing is before the start of what has none. */
export type Follower = Key & Partial<Pick<Cursor, "start">>

/** Operations of a stream, by what tells them apart. */
export type Wanted = Stream & { readonly operations: ReadonlyArray<Pick<Identity, "index">> }

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
    const { progressOf, statements: wanted } = loading(yield* SqlClient.SqlClient, key, strands, options)
    return progressOf(yield* Effect.forEach(wanted, (statement) => statement))
  })

/** Reads more pages. What is known already stays as it is. */
export const more = (
  progress: Progress,
  key: Key,
  strands: ReadonlyArray<Wanted>
): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const wanted = asking(yield* SqlClient.SqlClient, progress, key, strands)
    restore(progress, yield* Effect.forEach(wanted, (statement) => statement))
  })

/** The statements of {@link load}, and what their answers come to. */
export const loading = (
  sql: SqlClient.SqlClient,
  key: Follower,
  strands: ReadonlyArray<Wanted>,
  options: { readonly keepsHistory: boolean } = { keepsHistory: true }
): {
  readonly statements: ReadonlyArray<Statement<object>>
  readonly progressOf: (answers: ReadonlyArray<ReadonlyArray<object>>) => Progress
} => {
  const progress = new Progress((key.start ?? origin) > origin, options.keepsHistory)
  return {
    statements: asking(sql, progress, key, strands),
    progressOf: (answers) => {
      restore(progress, answers)
      return progress
    }
  }
}

/** Whose progress it is, and of which streams. */
export interface Question {
  readonly follower: Follower
  readonly strands: ReadonlyArray<Wanted>
}

/** {@link loading} for several at once, which keep no history. */
export const loadingAll = (sql: SqlClient.SqlClient, questions: ReadonlyArray<Question>): {
  readonly statements: ReadonlyArray<Statement<object>>
  readonly progressOf: (answers: ReadonlyArray<ReadonlyArray<object>>) => ReadonlyArray<Progress>
} => {
  const all = questions.map(({ follower }) => new Progress((follower.start ?? origin) > origin, false))
  const wanted = questions.flatMap(({ follower, strands }, i) =>
    pagesOf(all[i]!, follower, strands).map((cells) => [...cells, i])
  )
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
  progress: Progress,
  key: Key,
  strands: ReadonlyArray<Wanted>
): ReadonlyArray<Statement<object>> =>
  Bulk.calls(statementsOf(sql).load, pagesOf(progress, key, strands)).map(([text, cells]) => sql.unsafe(text, cells))

/** The newest page of each stream and those that its operations lie in, as the statements ask for them. */
const pagesOf = (progress: Progress, key: Key, strands: ReadonlyArray<Wanted>): ReadonlyArray<Bulk.Cells> => {
  const touched = new Map<StreamProgress, { readonly stream: Stream; page: number; last_page: number }>()
  for (const strand of strands) {
    const stream = progress.of(strand)
    let entry = touched.get(stream)
    if (entry === undefined) {
      entry = { stream: strand, page: newest, last_page: 0 }
      touched.set(stream, entry)
    }
    for (const { index } of strand.operations) {
      const page = pageOf(index)
      if (page < entry.page) entry.page = page
      if (page > entry.last_page) entry.last_page = page
    }
  }
  return Array.from(touched.values(), ({ last_page, page, stream }) => [
    key.processor,
    key.source,
    stream.documentId,
    stream.scope,
    stream.branch,
    page,
    last_page
  ])
}

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
  const changed = all.flatMap(({ key, progress }) => changesOf(key, progress))
  return Bulk.calls(statementsOf(sql).save, changed).map(([text, cells]) => sql.unsafe(text, cells))
}

const changesOf = (key: Key, progress: Progress): ReadonlyArray<Bulk.Cells> =>
  progress.changes().map((row) => [
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
  ])

const statementsOf = (sql: SqlClient.SqlClient) => statements[dialectOf(sql)]

const selectPages = (table: string, others: string) => `
    SELECT s.document_id, s.scope, s.branch, s.page, s.last_index, s.last_skip, s.history, s.slots${others}
    FROM ${table}
    CROSS JOIN processor_stream AS s
    WHERE s.processor = v.column1 AND s.source = v.column2
      AND s.document_id = v.column3 AND s.scope = v.column4 AND s.branch = v.column5
      AND (s.page BETWEEN v.column6 AND v.column7 OR s.page = ${newest})`

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
  save: bulk(["text", "text", "text", "text", "text", "integer", "integer", "integer", "text", "text"], ({ list }) => `
    INSERT INTO processor_stream
      (processor, source, document_id, scope, branch, page, last_index, last_skip, history, slots)
    ${list}
    ON CONFLICT (processor, source, document_id, scope, branch, page)
    DO UPDATE SET last_index = excluded.last_index, last_skip = excluded.last_skip,
      history = excluded.history, slots = excluded.slots`)
}), { repeats: true })

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

/** The text of every 12 bits, the lower six first. */
const twoCharacters = Array.from({ length: 4096 }, (_, bits) => alphabet[bits & 63]! + alphabet[bits >> 6]!)

/**
 * The fingerprints that were made last: an operation has one for each processor that wants it, and each of them asks. The
 * place of one is told by the last characters of its hash, which differ where all begin alike; what else comes there takes it.
 */
const made = new Array<{ readonly skip: number; readonly hash: string; readonly text: string } | undefined>(8_192)
  .fill(undefined)

const placeOf = (hash: string): number => {
  const end = hash.length
  let place = end
  for (let i = Math.max(0, end - 6); i < end; i++) place = Math.imul(place, 31) + hash.charCodeAt(i)
  return place & (made.length - 1)
}

/**
 * 48 bits over skip and hash, in 8 characters. Two FNV-1a sums with different starts; what it must tell apart is an
 * operation and its replacement at one index, not an adversary's choice.
 */
export const fingerprint = ({ hash, skip }: Identity): string => {
  const place = placeOf(hash)
  const known = made[place]
  if (known !== undefined && known.hash === hash && known.skip === skip) return known.text
  const text = sumOf(hash, skip)
  made[place] = { skip, hash, text }
  return text
}

const sumOf = (hash: string, skip: number): string => {
  let a = 0x811c9dc5 ^ skip
  let b = 0x01000193 + skip
  for (let i = 0; i < hash.length; i++) {
    const unit = hash.charCodeAt(i)
    a = Math.imul(a ^ unit, 0x01000193)
    b = Math.imul(b ^ unit, 0x85ebca6b)
    b ^= b >>> 13
  }
  a ^= a >>> 15
  b ^= b >>> 16
  return twoCharacters[a & 4095]! + twoCharacters[(a >>> 12) & 4095]! + twoCharacters[b & 4095]! +
    twoCharacters[(b >>> 12) & 4095]!
}

const pageOf = (index: number) => Math.floor(index / pageSize)

/** Slots of a row; those at the end that are empty are not in its text. */
const splitSlots = (text: string): Array<string> => {
  const slots = new Array<string>(pageSize).fill(emptySlot)
  for (let i = 0; i * slotSize < text.length; i++) slots[i] = text.slice(i * slotSize, (i + 1) * slotSize)
  return slots
}
