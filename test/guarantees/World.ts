/**
 * World: a source that is a pure function of a seed, with everything in it that a commit may have to deal with.
 *
 *     truth      each document's operations, in order; one document has an operation that is refused
 *     delivery   the truth in strands, interleaved, with strands that come twice and one that comes too late
 *
 * The checker holds the tables of a world against it, at any instant: see {@link violations}.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Slice from "../../src/domain/Slice.js"
import type * as Source from "../../src/ingest/Source.js"
import * as Policy from "../../src/process/Policy.js"
import * as Cursors from "../../src/store/Cursors.js"
import * as Follow from "./Follow.js"
import * as Ledger from "./Ledger.js"

export interface World {
  /** The truth of each document, in order. */
  readonly documents: ReadonlyArray<ReadonlyArray<Ledger.Op>>
  /** The operation that its handler refuses: its document waits from there on. */
  readonly refused: Ledger.Op
  /** How its handler writes: with statements of its own where the seed is odd, through tables where it is even. */
  readonly kind: Ledger.Kind
  /** What the source supplies, the first at position 1. */
  readonly delivery: ReadonlyArray<ReadonlyArray<Ledger.Op>>
}

/** A pure stream of numbers below 2^32 (mulberry32). */
const numbers = (seed: number): () => number => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return (t ^ (t >>> 14)) >>> 0
  }
}

export const make = (seed: number, size: { readonly documents: number; readonly operations: number }): World => {
  const next = numbers(seed)
  const documents = Array.from({ length: size.documents }, (_, d) => {
    const documentId = `doc-${seed}-${d}`
    const ops: Array<Ledger.Op> = []
    for (let index = 0; ops.length < size.operations; index++) {
      // Every second document jumps an index now and then, and takes it back with a skip.
      const skip = d % 2 === 1 && index > 0 && next() % 4 === 0 ? 1 : 0
      index += skip
      ops.push({ documentId, index, skip, amount: Ledger.amountOf(documentId, index) })
    }
    return ops
  })
  const chopped = documents.map((ops) => {
    const strands: Array<ReadonlyArray<Ledger.Op>> = []
    for (let at = 0; at < ops.length;) {
      const count = 1 + next() % 3
      strands.push(ops.slice(at, at + count))
      at += count
    }
    return strands
  })
  // The first document's second strand comes after its third, so there is a gap that closes.
  const late = chopped[0]!
  if (late.length > 2) [late[1], late[2]] = [late[2]!, late[1]!]
  const delivery: Array<ReadonlyArray<Ledger.Op>> = []
  const queues = chopped.map((strands) => strands.slice())
  for (let left = queues.filter((queue) => queue.length > 0); left.length > 0;) {
    delivery.push(left[next() % left.length]!.shift()!)
    left = left.filter((queue) => queue.length > 0)
  }
  const again = delivery[next() % Math.max(1, delivery.length - 2)]!
  delivery.splice(delivery.length - 1, 0, again)
  const last = documents[documents.length - 1]!
  return { documents, refused: last[1]!, kind: seed % 2 === 1 ? "operations" : "tables", delivery }
}

/** The id of the document at this place. */
export const documentIdOf = (world: World, place: number): string => world.documents[place]![0]!.documentId

export const strands = (world: World): ReadonlyArray<Source.Unplaced> => world.delivery.map((ops) => Ledger.strand(ops))

/** The processor of a world, in small batches; `more` is done besides. */
export const processor = (world: World, partitions = 1, more: Pick<Ledger.Options, "opened" | "before"> = {}) =>
  Ledger.make({
    ...more,
    kind: world.kind,
    partitions,
    batch: { operations: 5 },
    before: (strand, operation) =>
      strand.documentId === world.refused.documentId && operation.index === world.refused.index
        ? new Ledger.Refused({ index: operation.index })
        : more.before?.(strand, operation) ?? Effect.void,
    policy: { Refused: Policy.park }
  })

/** What the tables come to in the end. */
export const balances = (world: World): ReadonlyArray<Ledger.Balance> =>
  Ledger.fold(world.documents.flatMap((ops) => ops.slice(0, waitsFrom(world, ops))))

/** What waits in the end: the refused operation and those behind it. */
export const waiting = (world: World): ReadonlyArray<string> =>
  world.documents.flatMap((ops) => ops.slice(waitsFrom(world, ops))).map(nameOf).sort()

const waitsFrom = (world: World, ops: ReadonlyArray<Ledger.Op>): number =>
  ops.includes(world.refused) ? ops.indexOf(world.refused) : ops.length

const nameOf = (op: Ledger.Op): string => `${op.documentId} ${op.index}/${op.skip ?? 0}`

interface Letter {
  readonly document_id: string
  readonly op_index: number
  readonly op_skip: number
}

/** The names of what waits in the tables. */
export const letters: Effect.Effect<ReadonlyArray<string>, SqlError, SqlClient.SqlClient> = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    Effect.map(
      sql<Letter>`SELECT document_id, op_index, op_skip FROM processor_dead_letter`,
      (rows) =>
        rows.map((row) => nameOf({ documentId: row.document_id, index: row.op_index, skip: row.op_skip, amount: 0 }))
          .sort()
    )
)

const hasTable = (name: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql.onDialectOrElse({
        sqlite: () => sql`SELECT name FROM sqlite_master WHERE name = ${name}`,
        orElse: () => sql`SELECT tablename FROM pg_tables WHERE tablename = ${name}`
      }),
      (rows) => rows.length > 0
    ))

/** What is wrong with the tables at this instant, in words; nothing when every promise holds. */
export const violations = (world: World): Effect.Effect<ReadonlyArray<string>, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    if (!(yield* hasTable("processor_cursor"))) {
      return (yield* hasTable("ledger_balance")) ? ["a namespace was migrated before the framework's own tables"] : []
    }
    const hasLedger = yield* hasTable("ledger_balance")
    if (hasLedger !== (yield* hasTable("ledger_entry"))) return ["half a migration is there"]
    const cursors = yield* Cursors.all(Follow.keyOf(processor(world), "world"))
    if (!hasLedger) return cursors.length === 0 ? [] : ["a cursor is there before its tables"]

    const found: Array<string> = []
    const entries = yield* Ledger.entries()
    const applied = new Set(entries.map(nameOf))
    if (applied.size !== entries.length) found.push("an operation was applied twice")
    if (JSON.stringify(yield* Ledger.balances()) !== JSON.stringify(Ledger.fold(entries))) {
      found.push("the balances are not the fold of the entries")
    }
    found.push(...outOfOrder(entries))

    const held = yield* letters
    if (new Set(held).size !== held.length) found.push("an operation waits twice")
    if (held.some((name) => applied.has(name))) found.push("an operation is applied and waits as well")
    if (applied.has(nameOf(world.refused))) found.push("a refused operation was applied")
    const parked = cursors.reduce((sum, cursor) => sum + cursor.parked, 0)
    if (held.length !== parked) found.push(`${held.length} wait, the cursors say ${parked}`)
    if (!areWhole(cursors)) found.push(`the cursors are ${JSON.stringify(cursors.map(({ slices }) => slices))}`)

    const settled = new Set([...applied, ...held])
    const reachable = new Set<string>()
    for (const slice of new Set(world.documents.map(([op]) => Slice.of(op!.documentId)))) {
      const position = positionOf(cursors, slice)
      const own = world.delivery.map((ops) => Slice.of(ops[0]!.documentId) === slice ? ops : [])
      for (const op of own.slice(0, position).flat()) {
        if (!settled.has(nameOf(op)) && !isSuperseded(entries, op)) found.push(`${nameOf(op)} is lost`)
      }
      // A strand that is longer than a batch is committed in pieces, the cursor before it.
      const next = own.slice(position).find((ops) => ops.length > 0) ?? []
      for (const op of [...own.slice(0, position).flat(), ...next]) reachable.add(nameOf(op))
    }
    for (const name of settled) if (!reachable.has(name)) found.push(`${name} is ahead of the cursor`)
    found.push(...(yield* strayProgress(entries)))
    return found
  })

/** Whether the cursors hold all slices, side by side; before the first claim there are none. */
const areWhole = (cursors: ReadonlyArray<Cursors.Cursor>): boolean =>
  cursors.length === 0 || (cursors[0]!.slices.first === 0 && cursors.at(-1)!.slices.last === Slice.count - 1 &&
    cursors.every(({ slices }, i) => i === 0 || slices.first === cursors[i - 1]!.slices.last + 1))

/** How far a slice has come. */
const positionOf = (cursors: ReadonlyArray<Cursors.Cursor>, slice: number): number => {
  const cursor = cursors.find(({ slices }) => Slice.isIn(slices, slice))
  const ahead = cursor?.ahead.find(({ slices }) => Slice.isIn(slices, slice))
  return Number(ahead?.position ?? cursor?.position ?? 0n)
}

const isSuperseded = (entries: ReadonlyArray<Ledger.Entry>, op: Ledger.Op): boolean =>
  entries.some((entry) =>
    entry.documentId === op.documentId && entry.index > op.index && entry.index - entry.skip <= op.index
  )

/** Each stream's entries are numbered from 1, and each continues the one before it. */
const outOfOrder = (entries: ReadonlyArray<Ledger.Entry>): ReadonlyArray<string> => {
  const heads = new Map<string, { readonly index: number; readonly n: number }>()
  return entries.flatMap((entry) => {
    const before = heads.get(entry.documentId) ?? { index: -1, n: 0 }
    heads.set(entry.documentId, entry)
    const isNext = entry.n === before.n + 1 && entry.index > before.index &&
      entry.index - entry.skip <= before.index + 1
    return isNext ? [] : [`${nameOf(entry)} came after index ${before.index}`]
  })
}

/** The progress of every stream ends at its last entry. */
const strayProgress = (entries: ReadonlyArray<Ledger.Entry>) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const rows = yield* sql<{ readonly document_id: string; readonly head: number }>`
      SELECT document_id, MAX(last_index) AS head FROM processor_stream GROUP BY document_id`
    const heads = new Map<string, number>()
    for (const entry of entries) heads.set(entry.documentId, entry.index)
    const known = new Map(rows.map((row) => [row.document_id, row.head]))
    return Array.from(new Set([...heads.keys(), ...known.keys()])).flatMap((documentId) =>
      heads.get(documentId) === known.get(documentId)
        ? []
        : [`${documentId} was applied up to ${heads.get(documentId)}, its progress is ${known.get(documentId)}`]
    )
  })
