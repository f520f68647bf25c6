/**
 * A forecast: which rows the operations of a batch will ask for, learned from those before.
 *
 *     COMPLETE asked for todos "7", and its input has id "7"     seen three times ─▶ a rule
 *     what follows has COMPLETE 8, 9, 10                         ─▶ todos 8, 9, 10 are expected, and read together
 *
 * A rule says where in an operation each column of the key is found: its document, drive, scope, branch or id, or a field
 * of its input at most two deep. There is one for each table, operation type and time that the type's handler asks the
 * table. It never decides what an operation sees: a wrong rule costs a row that is read and not asked for, and is
 * forgotten.
 */

import type { Operation } from "../domain/Operation.js"
import type { Strand } from "../domain/Strand.js"
import type { Cells } from "./Bulk.js"
import type { Cell, Column } from "./Column.js"
import { Unfit } from "./Column.js"
import type { Entry } from "./Entry.js"
import type { Fold } from "./Fold.js"
import type { Plan } from "./Plan.js"

/** How often in a row an operation has to be found to hold the key before that is believed. */
const seenMin = 3

/** How often a rule may turn out wrong before none is looked for any more. */
const wrongMax = 10

/** Rules are kept for the first times that an operation asks a table, and for this many operation types. */
const timesMax = 4
const typesMax = 1_000

/** Fields of an input that are looked at, at each depth. */
const fieldsMax = 50

/** A rule is forgotten when fewer than one in this many of the rows that it foresaw were asked for. */
const wasteMax = 20

export class Forecast {
  private readonly rules = new Map<Plan, Map<string, Array<Rule>>>()
  private origin: Origin | undefined = undefined
  private batch: Batch | undefined = undefined
  private readonly times = new Map<Plan, number>()

  /** For the documents of one type. */
  constructor(private readonly documentType: string) {}

  /** Tells a fold what is expected of these strands, and learns from what is asked of it. */
  begin(fold: Fold, strands: ReadonlyArray<Strand>): void {
    this.origin = undefined
    fold.watch = (plan, key, entry) => this.asked(plan, key, entry)
    const ours = strands.filter(({ documentType }) => documentType === this.documentType)
    for (const [plan, types] of this.rules) {
      for (const rules of types.values()) for (const rule of rules) rule.review()
      fold.expect(plan, expected(plan, types, ours))
    }
    this.batch = { fold, strands: ours }
  }

  /** What is asked for until the next operation, none asks for. */
  between(): void {
    this.origin = undefined
  }

  /** What is asked for from now on, no operation asks for. */
  end(): void {
    this.origin = undefined
    this.batch = undefined
  }

  /** What is asked for from now on, this operation asks for. */
  at(strand: Strand, operation: Operation): void {
    this.origin = { strand, operation }
    if (this.times.size > 0) this.times.clear()
  }

  private asked(plan: Plan, key: Cells, entry: Entry | undefined): void {
    if (this.origin === undefined) return
    const time = this.times.get(plan) ?? 0
    this.times.set(plan, time + 1)
    if (time >= timesMax || this.batch === undefined) return
    const { type } = this.origin.operation
    const rule = this.rule(plan, type, time)
    const isNew = rule?.observe(plan, key, entry, this.origin) === true
    // The rest of this batch has its use of it, too.
    if (rule !== undefined && isNew) {
      this.batch.fold.expect(plan, expected(plan, new Map([[type, [rule]]]), this.batch.strands))
    }
  }

  private rule(plan: Plan, type: string, time: number): Rule | undefined {
    const types = this.rules.get(plan) ?? new Map<string, Array<Rule>>()
    this.rules.set(plan, types)
    const rules = types.get(type) ?? []
    if (rules.length === 0) {
      if (types.size >= typesMax) return undefined
      types.set(type, rules)
    }
    return rules[time] ??= new Rule()
  }
}

function* expected(plan: Plan, types: ReadonlyMap<string, ReadonlyArray<Rule>>, strands: ReadonlyArray<Strand>) {
  for (const strand of strands) {
    for (const operation of strand.operations) {
      for (const rule of types.get(operation.type) ?? []) {
        const key = rule.foresee(plan, { strand, operation })
        if (key !== undefined) yield key
      }
    }
  }
}

/** What operations come from. */
interface Batch {
  readonly fold: Fold
  readonly strands: ReadonlyArray<Strand>
}

/** An operation with what surrounds it. */
interface Origin {
  readonly strand: Strand
  readonly operation: Operation
}

/** Where in an operation a value is found. */
type Place = ReadonlyArray<string>

class Rule {
  /** For each column of the key, the places that have held it every time. */
  private places: ReadonlyArray<ReadonlyArray<Place>> | undefined = undefined
  private seen = 0
  private wrong = 0
  /** Rows foreseen, and asked for, since the last review. */
  private foreseen = 0
  private asked = 0

  foresee(plan: Plan, origin: Origin): Cells | undefined {
    if (this.places === undefined || this.seen < seenMin) return undefined
    const key: Array<Cell> = []
    for (const [i, [place]] of this.places.entries()) {
      const cell = cellAt(columnOf(plan, i), origin, place!)
      if (cell === undefined) return undefined
      key.push(cell)
    }
    this.foreseen++
    return key
  }

  /** Learns from a row that is asked for; true when that has made a rule of it. */
  observe(plan: Plan, key: Cells, entry: Entry | undefined, origin: Origin): boolean {
    this.asked++
    if (this.wrong >= wrongMax || (this.seen < seenMin && entry?.current !== undefined)) return false
    const before = this.places
    const places = key.map((cell, i) => {
      const column = columnOf(plan, i)
      return before === undefined
        ? placesOf(column, cell, origin)
        : before[i]!.filter((place) => cellAt(column, origin, place) === cell)
    })
    if (places.some((some) => some.length === 0)) {
      this.forget()
      return false
    }
    this.places = places
    this.seen++
    return this.seen === seenMin
  }

  /** Forgets a rule that foresees what nobody asks for. */
  review(): void {
    if (this.asked * wasteMax < this.foreseen) this.forget()
    this.foreseen = 0
    this.asked = 0
  }

  private forget(): void {
    this.places = undefined
    this.seen = 0
    this.wrong++
  }
}

const columnOf = (plan: Plan, i: number): Column => plan.definition.columns[plan.keyAt[i]!]!

const placesOf = (column: Column, cell: Cell, origin: Origin): ReadonlyArray<Place> =>
  [...surroundings, ...inputPlaces(origin.operation.input)].filter((place) => cellAt(column, origin, place) === cell)

const surroundings: ReadonlyArray<Place> = [["documentId"], ["driveId"], ["scope"], ["branch"], ["id"]]

const inputPlaces = (input: unknown): ReadonlyArray<Place> =>
  fieldsOf(input).flatMap(([name, value]) => [
    ["input", name],
    ...fieldsOf(value).map(([inner]) => ["input", name, inner])
  ])

const fieldsOf = (value: unknown): ReadonlyArray<readonly [string, unknown]> =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? Object.entries(value).slice(0, fieldsMax) : []

const cellAt = (column: Column, { operation, strand }: Origin, [first, ...rest]: Place): Cell | undefined => {
  let value: unknown
  switch (first) {
    case "documentId":
    case "driveId":
    case "scope":
    case "branch":
      value = strand[first]
      break
    case "id":
      value = operation.id
      break
    default:
      value = operation.input
  }
  for (const name of rest) {
    value = typeof value === "object" && value !== null && Object.hasOwn(value, name)
      ? (value as { readonly [name: string]: unknown })[name]
      : undefined
  }
  if (value === undefined || value === null) return undefined
  const cell = column.read(value)
  return cell instanceof Unfit || cell === null ? undefined : cell
}
