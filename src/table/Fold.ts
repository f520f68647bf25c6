/**
 * A fold: the table operations of one try of a commit, held back as rows until the database has to see them.
 *
 *     insert, upsert, update, … ──▶ entry of the row ──▶ flush: a few statements for each table, then COMMIT
 *     get ──▶ entry ──▶ else the row is read, with all others that are expected
 *
 * It flushes before COMMIT, before any statement of the handler's own, when a handler has failed, when it is full, and where
 * folding alone cannot tell what one statement for each operation would have done. Where the connection takes statements
 * without being waited for, it is sent what has come together now and then, so that the database works while the handler
 * does, unless rows are asked for, which had better be kept. Tables are flushed in the order in which they were first touched.
 *
 * Invariant: if all flushes succeed, the tables are as if every operation had been a statement of its own. If one fails,
 * nothing is said about why, nor by which operation: the whole try fails, and is repeated without a fold. Checks and
 * foreign keys see folded rows and not those between; the tables of a `Reach` are not folded.
 */

import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type { Dialect } from "../domain/Dialect.js"
import * as Bulk from "./Bulk.js"
import type { Cells, Send, Sent } from "./Bulk.js"
import * as Change from "./Change.js"
import * as Copy from "./Copy.js"
import { Entry } from "./Entry.js"
import type { Folded } from "./Entry.js"
import { hashAt, hashOf } from "./Key.js"
import type { Hash } from "./Key.js"
import type { Mask, Plan } from "./Plan.js"
import type { Reach } from "./Reach.js"
import { duplicate, isRefused, outOfRange } from "./Refusal.js"

/** Rows that are read because they are expected to be asked for: at most this many of a table at a time. */
export const expectedMax = 10_000

/** Rows of all tables that come together before they are sent early. */
const earlyRows = 1_000

/** Rows of a table that are held back: before there are more, they are flushed. */
const heldMax = 20_000

/**
 * One table's part of a fold. As long as nothing but inserts has come, its rows are only kept: whether two have one key, the
 * database says as well.
 */
class Sheet {
  readonly entries = new Map<Hash, Entry>()
  /** Rows that are inserted, while there are no entries. */
  private inserts: Array<Cells> = []
  /** Keys that are expected to be asked for, not read yet. */
  readonly expected = new Map<Hash, Cells>()
  /** Whether one of its unique values may be newly taken. */
  claims = false
  /** Whether it is among those of the fold that have something pending. */
  isPending = false

  /** `copiedFrom` so many rows on, they are copied. */
  constructor(readonly plan: Plan, private readonly copiedFrom: number) {}

  /** Keeps a row to be inserted: "flush" if there is no room, `undefined` where it takes an entry. */
  insert(row: Cells): Folded | undefined {
    if (this.entries.size > 0 || this.expected.size > 0) return undefined
    if (this.inserts.length >= heldMax) return "flush"
    this.inserts.push(row)
    return "folded"
  }

  /** Makes entries of rows that were only kept. False if two have one key, which the database would refuse. */
  enter(): boolean {
    const { inserts, plan } = this
    this.inserts = []
    for (const row of inserts) {
      const hash = hashAt(row, plan.keyAt)
      if (this.entries.has(hash)) return false
      this.entry(hash, plan.keyAt.map((i) => row[i]!)).fold({ _tag: "Insert", row })
    }
    return true
  }

  entry(hash: Hash, key: Cells): Entry {
    const found = this.entries.get(hash)
    if (found !== undefined) return found
    const entry = new Entry(this.plan.definition, key)
    this.entries.set(hash, entry)
    return entry
  }

  /** Forgets what the database may have changed meanwhile. */
  forget(): void {
    for (const [hash, entry] of this.entries) if (entry.isClean) this.entries.delete(hash)
  }

  /** Whether another row fits, if need be in place of rows that were read. */
  makeRoom(): boolean {
    if (this.entries.size >= heldMax) this.forget()
    return this.entries.size < heldMax
  }

  /** What is pending. */
  get pending(): Pending {
    return this.pendingOf(this.entries.values(), this.inserts)
  }

  /** What is pending of these. */
  pendingOf(entries: Iterable<Entry>, inserts: ReadonlyArray<Cells> = []): Pending {
    const sorted = new Sorted(this.plan, this.copiedFrom, inserts)
    const unsure: Array<Entry> = []
    for (const entry of entries) if (!entry.isClean && !sorted.add(entry)) unsure.push(entry)
    return { sorted, unsure }
  }

  /** Nothing is pending any more: it is written by others. */
  clear(): void {
    this.inserts = []
    for (const [hash, entry] of this.entries) if (!entry.isClean) this.entries.delete(hash)
    this.claims = false
    this.isPending = false
  }
}

/** What is pending of a table: by the statements that write it, and the entries of which that cannot be said yet. */
interface Pending {
  readonly sorted: Sorted
  readonly unsure: ReadonlyArray<Entry>
}

/** Told of each row that is asked for, before it is read. */
export type Watch = (plan: Plan, key: Cells, entry: Entry | undefined) => void

export class Fold {
  /**
   * What a flush failed with, or would: nothing of the transaction may be committed, and whatever the handler fails with, the flush
   * may be why. Unset, the handler's failure is what it would be if nothing had been held back.
   */
  failure: SqlError | undefined = undefined
  watch: Watch | undefined = undefined
  /** Whether an operation could not be put off, since only the database knows what it comes to. */
  hasReached = false
  /** So many rows are held back before they are sent early. */
  early = earlyRows
  /** Rows that are held back, about; read ones are none. */
  private held = 0
  /** Whether rows are asked for: what is known of them is kept. */
  private isAsked = false
  /** Whether statements were sent that may still fail. */
  private hasTold = false
  private readonly teller: Bulk.Teller | undefined
  private readonly copiedFrom: number
  private readonly sheets = new Map<Plan, Sheet>()
  /** The one that was asked for last. */
  private latest: Sheet | undefined = undefined
  /** Sheets with something pending, in the order in which they were touched. */
  private readonly pending = new Set<Sheet>()
  /** What {@link seal} kept. */
  private last: ReadonlyArray<Sent> = []
  /** Nothing is held back any more, since nobody would flush it. */
  private isClosed = false
  private readonly lock = Effect.unsafeMakeSemaphore(1)
  private readonly send: Send<unknown>
  private readonly query: Send<ReadonlyArray<ReadonlyArray<unknown>>>

  constructor(connection: Connection, readonly dialect: Dialect, private readonly reach: Reach) {
    this.teller = tellerOf(connection)
    this.copiedFrom = dialect === "pg" ? Copy.rowsFrom(connection) : Infinity
    this.send = (text, parameters) => connection.executeRaw(text, parameters)
    this.query = (text, parameters) => connection.executeValues(text, parameters)
  }

  /** Takes a change in, or carries it out where that cannot be put off. */
  change(plan: Plan, change: Change.Change): Effect.Effect<void, SqlError> {
    return this.take(plan, change) ?? Effect.void
  }

  /** Takes a change in; what is left to do about it, if anything is. */
  take(plan: Plan, change: Change.Change): Effect.Effect<void, SqlError> | undefined {
    if (this.isClosed) return Effect.zipRight(this.sendLast, Change.run(plan, change, this.send))
    if (this.reaches(plan)) return this.atOnce(plan, change)
    const folded = this.fold(this.sheet(plan), change)
    if (folded === "folded") return this.held < this.early || this.teller === undefined ? undefined : this.sendEarly
    return folded === "fails"
      ? this.atOnce(plan, change)
      : Effect.flatMap(this.flush, () => this.change(plan, change))
  }

  /** The row with this key as the operations so far leave it; `undefined` where it has to be {@link read} to tell. */
  known(plan: Plan, key: Cells): Cells | null | undefined {
    this.isAsked = true
    if (this.reaches(plan)) return undefined
    const entry = this.entered(this.sheet(plan)).entries.get(hashOf(key))
    this.watch?.(plan, key, entry)
    return entry?.current
  }

  /** Reads what is not {@link known}. */
  read(plan: Plan, key: Cells): Effect.Effect<Cells | null, SqlError> {
    return this.reaches(plan)
      ? this.alone(() => Effect.map(plan.readRows(plan.read, [key], this.query), ([row]) => row ?? null), null)
      : this.load(this.entered(this.sheet(plan)), hashOf(key), key)
  }

  /** Rows that are expected to be asked for: they are read together, once the first of them is. */
  expect(plan: Plan, keys: Iterable<Cells>): void {
    this.isAsked = true
    const sheet = this.entered(this.sheet(plan))
    for (const key of keys) {
      if (sheet.expected.size >= expectedMax) return
      sheet.expected.set(hashOf(key), key)
    }
  }

  /** The rows with these cells, as the operations so far leave them. */
  find(plan: Plan, query: readonly [string, ReadonlyArray<unknown>]): Effect.Effect<ReadonlyArray<Cells>, SqlError> {
    const sheet = this.sheet(plan)
    return this.alone(
      () => Effect.flatMap(this.query(...query), (rows) => plan.cellsOf(rows)),
      this.pending.has(sheet) ? sheet : null
    )
  }

  /** Sends all that is pending. */
  readonly flush: Effect.Effect<void, SqlError> = Effect.suspend(() =>
    this.hasNews ? this.alone(() => Effect.void) : Effect.void
  )

  /** Whether there is something to send, or to hear of what was sent. */
  get hasNews(): boolean {
    return this.pending.size > 0 || this.hasTold || this.failure !== undefined
  }

  /** What is pending, as statements, which nobody else writes; `undefined` where a row has to be read to tell. */
  private takeCalls(): ReadonlyArray<Sent> | undefined {
    const calls: Array<Sent> = []
    for (const sheet of this.pending) {
      const { sorted, unsure } = sheet.pending
      if (unsure.length > 0) return undefined
      for (const [bulk, rows] of sorted.bulks) calls.push(...Bulk.calls(bulk, rows))
    }
    for (const sheet of this.pending) sheet.clear()
    this.pending.clear()
    return calls
  }

  /** Sends what is pending and goes on. While another flush is under way, and where a row has to be read, it is kept. */
  private readonly sendEarly: Effect.Effect<void, SqlError> = Effect.suspend(() => {
    const { teller } = this
    this.held = 0
    if (teller === undefined || this.isAsked || this.failure !== undefined) return Effect.void
    return Effect.asVoid(Effect.uninterruptible(
      this.lock.withPermitsIfAvailable(1)(Effect.suspend(() => {
        const calls = this.takeCalls()
        if (calls === undefined) return Effect.void
        this.hasTold = true
        return this.noting(teller.tell(calls))
      }))
    ))
  })

  /** Hears of what was sent early. */
  private readonly hear: Effect.Effect<void, SqlError> = Effect.suspend(() => {
    if (!this.hasTold || this.teller === undefined) return Effect.void
    this.hasTold = false
    return this.noting(this.teller.told)
  })

  /** What a flush fails with is kept. */
  private noting<A>(flush: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> {
    return Effect.tapError(flush, (failure) => Effect.sync(() => void (this.failure = failure)))
  }

  /**
   * Sends all that is pending, for the last time. A fiber that outlives its handler has its operations sent as statements
   * from then on, which the connection takes or refuses; held back they would be lost, and the fiber told otherwise.
   */
  readonly close: Effect.Effect<void, SqlError> = Effect.suspend(() => {
    this.isClosed = this.pending.size === 0
    return this.isClosed ? this.flush : Effect.zipRight(this.flush, this.close)
  })

  /**
   * Ends it as {@link close} does, but keeps what is pending as statements for whoever commits, where no row has to be read
   * before: see {@link takeLast}. A flush that another fiber has begun is waited for, or its rows would miss the COMMIT.
   */
  readonly seal: Effect.Effect<void, SqlError> = Effect.suspend(() =>
    Effect.flatMap(
      this.undisturbed(() => {
        const last = this.takeCalls()
        if (last === undefined) return Effect.succeed(false)
        this.isClosed = true
        this.last = last
        return Effect.succeed(true)
      }),
      (isSealed) => isSealed ? Effect.void : this.close
    )
  )

  /** What {@link seal} kept, for whoever sends it. */
  readonly takeLast: Effect.Effect<ReadonlyArray<Sent>, SqlError> = Effect.suspend(() =>
    this.undisturbed(() => Effect.succeed(this.givenUp()))
  )

  /** Sends what {@link seal} kept. */
  readonly sendLast: Effect.Effect<void, SqlError> = Effect.suspend(() =>
    this.undisturbed(() =>
      Effect.zipRight(
        this.noting(
          Effect.forEach(this.givenUp(), ([text, parameters]) => this.send(text, parameters), { discard: true })
        ),
        this.hear
      )
    )
  )

  /** What {@link seal} kept; nobody else has it. */
  private givenUp(): ReadonlyArray<Sent> {
    const { last } = this
    this.last = []
    return last
  }

  /** Runs a statement that this fold knows nothing about, over rows as the operations so far leave them. */
  around<A, E>(statement: Effect.Effect<A, E>): Effect.Effect<A, E | SqlError> {
    return Effect.suspend(() => {
      const forgotten = this.forgetting(statement)
      return this.hasNews ? Effect.zipRight(this.flush, forgotten) : forgotten
    })
  }

  /**
   * As `Effect.ensuring` would, at a third of its price, which each statement of a handler pays: the connection does not let
   * a statement be interrupted, so nothing has to be made interruptible in here.
   */
  private forgetting<A, E>(statement: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.uninterruptible(Effect.matchCauseEffect(statement, {
      onFailure: (cause) => {
        this.forget()
        return Effect.failCause(cause)
      },
      onSuccess: (answer) => {
        this.forget()
        return Effect.succeed(answer)
      }
    }))
  }

  /** Forgets what was read: the database may have another row there by now. */
  forget(): void {
    for (const sheet of this.sheets.values()) sheet.forget()
  }

  /** Whether a change of the table may come to more, or to something else, than its row as a program sees it. */
  private reaches(plan: Plan): boolean {
    const { tables } = this.reach
    const reaches = tables.size > 0 && tables.has(plan.definition.name.toLowerCase())
    if (reaches) this.hasReached = true
    return reaches
  }

  /** Runs a statement that changes any rows, after all that is pending. */
  statement(text: string, parameters: ReadonlyArray<unknown>): Effect.Effect<void, SqlError> {
    return this.alone(() =>
      Effect.ensuring(Effect.asVoid(this.send(text, parameters)), Effect.sync(() => this.forget()))
    )
  }

  /** As a statement, after all that is pending. */
  private atOnce(plan: Plan, change: Change.Change): Effect.Effect<void, SqlError> {
    return this.alone(() => Effect.ensuring(Change.run(plan, change, this.send), Effect.sync(() => this.forget())))
  }

  private sheet(plan: Plan): Sheet {
    if (this.latest?.plan === plan) return this.latest
    const known = this.sheets.get(plan)
    const sheet = known ??
      new Sheet(plan, plan.fits(this.reach.types.get(plan.definition.name)) ? this.copiedFrom : Infinity)
    this.sheets.set(plan, sheet)
    this.latest = sheet
    return sheet
  }

  /** The sheet with an entry for each row. Two inserts of one key fail the whole try: that says which of them is refused. */
  private entered(sheet: Sheet): Sheet {
    if (!sheet.enter()) this.failure = duplicate(sheet.plan.definition.name)
    return sheet
  }

  private fold(sheet: Sheet, change: Change.Change): Folded {
    const { plan } = sheet
    const kept = change._tag === "Insert" ? sheet.insert(change.row) : undefined
    if (kept === "folded") {
      this.held++
      this.keep(sheet, plan.unique.length > 0)
    }
    if (kept !== undefined) return kept
    this.entered(sheet)
    const hash = hashIn(plan, change)
    let entry = sheet.entries.get(hash)
    if (entry === undefined) {
      if (!sheet.makeRoom()) return "flush"
      this.held++
      entry = sheet.entry(hash, keyIn(plan, change))
    }
    const stake = plan.unique.length === 0 ? nothing : stakeOf(plan, entry, change)
    if (stake.releases && sheet.claims) return "flush"
    const folded = entry.fold(change)
    if (folded === "folded") this.keep(sheet, stake.claims)
    return folded
  }

  /** Something of the sheet is pending. */
  private keep(sheet: Sheet, claims: boolean): void {
    if (claims) sheet.claims = true
    if (sheet.isPending) return
    sheet.isPending = true
    this.pending.add(sheet)
  }

  /** Flushes up to `last`, or everything, and then runs `then`; no other flush or read comes between. */
  private alone<A>(then: () => Effect.Effect<A, SqlError>, last?: Sheet | null): Effect.Effect<A, SqlError> {
    return this.undisturbed(() => {
      const work: Array<Effect.Effect<void, SqlError>> = []
      for (const sheet of last === null ? [] : this.pending) {
        this.pending.delete(sheet)
        work.push(this.write(sheet.plan, sheet.pending))
        sheet.clear()
        if (sheet === last) break
      }
      if (work.length === 0) return this.hasTold ? Effect.flatMap(this.hear, then) : then()
      const flushed = work.length === 1 ? work[0]! : Effect.all(work, { discard: true })
      return Effect.flatMap(Effect.zipRight(this.noting(flushed), this.hear), then)
    })
  }

  /** Runs when no flush or read of another fiber is under way, to its end, unless a flush has failed. */
  private undisturbed<A>(work: () => Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> {
    return Effect.uninterruptible(
      this.lock.withPermits(1)(
        Effect.suspend(() => this.failure === undefined ? work() : Effect.fail(this.failure))
      )
    )
  }

  /** Reads the row, and all that are expected, and answers. */
  private load(sheet: Sheet, hash: Hash, key: Cells): Effect.Effect<Cells | null, SqlError> {
    return this.alone(() => {
      sheet.makeRoom()
      const wanted = new Map(sheet.expected.has(hash) ? sheet.expected : [[hash, key]])
      for (const each of wanted.keys()) {
        sheet.expected.delete(each)
        const entry = sheet.entries.get(each)
        if (entry !== undefined && each !== hash && (entry.form !== "Kept" || entry.base !== undefined)) {
          wanted.delete(each)
        }
      }
      return Effect.flatMap(this.readExpected(sheet, hash, wanted), (rows) => {
        if (rows === undefined) return this.reload(sheet, hash, key)
        // Of rows that were inserted meanwhile, some may be among those that were read.
        this.entered(sheet)
        for (const [each, cells] of wanted) {
          const entry = sheet.entry(each, cells)
          entry.found(rows.get(each) ?? null)
        }
        const known = sheet.entries.get(hash)?.current
        return known === undefined ? this.reload(sheet, hash, key) : Effect.succeed(known)
      })
    }, null)
  }

  /**
   * What cannot be read of rows that nobody has asked for is no failure: then the one row is read alone. Nor is what
   * cannot be read of that, as long as a change of it is pending: `undefined`.
   */
  private readExpected(
    sheet: Sheet,
    asked: Hash,
    wanted: Map<Hash, Cells>
  ): Effect.Effect<ReadonlyMap<Hash, Cells> | undefined, SqlError> {
    return Effect.catchIf(this.fetch(sheet.plan, sheet.plan.read, wanted), isRefused, (failure) => {
      if (wanted.size > 1) {
        for (const each of wanted.keys()) if (each !== asked) wanted.delete(each)
        return this.readExpected(sheet, asked, wanted)
      }
      return sheet.entries.get(asked)?.isClean === false ? Effect.succeed(undefined) : Effect.fail(failure)
    })
  }

  /** The database has to say what becomes of a sum that does not fit. */
  private reload(sheet: Sheet, hash: Hash, key: Cells): Effect.Effect<Cells | null, SqlError> {
    const entry = sheet.entries.get(hash)
    if (entry === undefined) return Effect.succeed(null)
    sheet.entries.delete(hash)
    return Effect.flatMap(
      this.noting(this.write(sheet.plan, sheet.pendingOf([entry]))),
      () =>
        Effect.map(this.fetch(sheet.plan, sheet.plan.read, new Map([[hash, key]])), (rows) => rows.get(hash) ?? null)
    )
  }

  private fetch(plan: Plan, bulk: Bulk.Bulk, keys: ReadonlyMap<Hash, Cells>) {
    return Effect.map(
      plan.readRows(bulk, Array.from(keys.values()), this.query),
      (rows) => new Map(rows.map((row) => [hashAt(row, plan.keyAt), row]))
    )
  }

  /** Writes what is pending of one table. */
  private write(plan: Plan, { sorted, unsure }: Pending): Effect.Effect<void, SqlError> {
    const writing = Effect.suspend(() => this.writeSorted(sorted))
    return unsure.length === 0 ? writing : Effect.zipRight(this.resolve(plan, unsure, sorted), writing)
  }

  /** Reads the rows whose outcome depends on what is there, and decides. */
  private resolve(plan: Plan, entries: ReadonlyArray<Entry>, sorted: Sorted): Effect.Effect<void, SqlError> {
    const keys = new Map(entries.map((entry) => [hashOf(entry.key), entry.key]))
    return Effect.flatMap(this.fetch(plan, plan.hold, keys), (rows) => {
      for (const entry of entries) {
        const failure = settle(entry, rows.get(hashOf(entry.key)) ?? null)
        if (failure !== undefined) return Effect.fail(failure)
        sorted.add(entry)
      }
      return Effect.void
    })
  }

  private writeSorted(sorted: Sorted): Effect.Effect<void, SqlError> {
    const work = sorted.bulks.map(([bulk, rows]) => Bulk.run(bulk, rows, this.send))
    return work.length === 1 ? Effect.asVoid(work[0]!) : Effect.all(work, { discard: true })
  }
}

const tellerOf = (connection: Connection): Bulk.Teller | undefined =>
  "teller" in connection ? connection.teller as Bulk.Teller | undefined : undefined

const keyIn = (plan: Plan, change: Change.Change): Cells =>
  change._tag === "Insert" || change._tag === "Upsert" ? plan.keyAt.map((i) => change.row[i]!) : change.key

const hashIn = (plan: Plan, change: Change.Change): Hash =>
  change._tag === "Insert" || change._tag === "Upsert" ? hashAt(change.row, plan.keyAt) : hashOf(change.key)

/** Rows by the statement that writes them. */
class Sorted {
  private readonly removes: Array<Cells> = []
  private readonly patches = new Map<Mask, Array<Cells>>()
  private readonly upserts: Array<Cells> = []
  private readonly counts = new Map<Mask, Array<Cells>>()
  private readonly inserts: Array<Cells>

  constructor(private readonly plan: Plan, private readonly copiedFrom: number, inserts: ReadonlyArray<Cells>) {
    this.inserts = inserts.slice()
  }

  /** Its statements, in order: what gives unique values up goes before what takes them. */
  get bulks(): ReadonlyArray<readonly [Bulk.Bulk, ReadonlyArray<Cells>]> {
    const { inserts, plan } = this
    const all: Array<readonly [Bulk.Bulk, ReadonlyArray<Cells>]> = [
      [plan.remove, this.removes],
      ...Array.from(this.patches, ([mask, rows]) => [plan.patch(mask), rows] as const),
      [plan.upsert, this.upserts],
      ...Array.from(this.counts, ([mask, rows]) => [plan.count(mask), rows] as const),
      [inserts.length >= this.copiedFrom ? plan.copy : plan.insert, inserts]
    ]
    return all.filter(([, rows]) => rows.length > 0)
  }

  /** False if the base has to be read before it can be said. */
  add(entry: Entry): boolean {
    switch (entry.form) {
      case "Replaced":
        this.upserts.push(entry.row!)
        return true
      case "Removed":
        this.removes.push(entry.key)
        return true
      case "Remade":
        this.removes.push(entry.key)
        this.inserts.push(entry.row!)
        return true
      case "Fresh":
        if (entry.row !== null) this.inserts.push(entry.row)
        return entry.row !== null || entry.base === null
      case "Kept":
        return this.addKept(entry)
    }
  }

  private addKept(entry: Entry): boolean {
    const { base, row } = entry
    if (base === null) {
      if (row !== null) this.inserts.push(row)
      return true
    }
    const mask = entry.mask
    if (mask === undefined || (base === undefined && row !== null && !entry.isCount)) return false
    if (base === undefined && row !== null) push(this.counts, mask, row)
    else if (/[sa]/.test(mask)) push(this.patches, mask, [...entry.key, ...entry.patch])
    return true
  }
}

const push = (groups: Map<Mask, Array<Cells>>, mask: Mask, cells: Cells): void => {
  const group = groups.get(mask)
  if (group === undefined) groups.set(mask, [cells])
  else group.push(cells)
}

/** Decides an entry by what is there; or why the operations that it stands for fail. */
const settle = (entry: Entry, base: Cells | null): SqlError | undefined => {
  entry.found(base)
  if (base === null) return undefined
  if (entry.form === "Fresh") return duplicate(entry.definition.name)
  const row = entry.patched(base)
  if (row === undefined) return outOfRange(entry.definition.name, "a column")
  entry.sets = row.map((cell, i) => entry.adds?.[i] !== undefined || entry.sets?.[i] !== undefined ? cell : undefined)
  entry.adds = undefined
  return undefined
}

/** What a change does to the unique values of a table: whether it may take one, and give one up. */
interface Stake {
  readonly claims: boolean
  readonly releases: boolean
}

const nothing: Stake = { claims: false, releases: false }

const stakeOf = (plan: Plan, entry: Entry, change: Change.Change): Stake => {
  const releases = !entry.isAbsent
  switch (change._tag) {
    case "Insert":
      return { claims: true, releases: false }
    case "Remove":
      return { claims: false, releases }
    case "Upsert":
      return changes(plan, entry, change.row) ? { claims: true, releases } : nothing
    case "Patch": {
      const isCalm = change.otherwise === undefined &&
        (change.adds ? !touches(plan, change) : !changes(plan, entry, change.touched))
      return isCalm ? nothing : { claims: true, releases }
    }
  }
}

const touches = (plan: Plan, { touched }: Change.Patch): boolean => plan.unique.some((i) => touched[i] !== undefined)

/** Whether a unique value may become another than the row has. */
const changes = (plan: Plan, entry: Entry, to: Change.Touched): boolean => {
  const now = entry.current
  return plan.unique.some((i) => to[i] !== undefined && (now === undefined || now === null || now[i] !== to[i]))
}
