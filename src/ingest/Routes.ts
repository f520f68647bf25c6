/**
 * Routes: who wants a strand, found by what the strand is and not by asking everyone.
 *
 *     filters that constrain the type            type ─────────────▶ followers
 *     filters that constrain the type and drive  type ─▶ drive ────▶ followers
 *     filters without constraints                ──────────────────▶ followers
 *
 * Filters that constrain the same fields share a table, so a strand is looked up once for each kind of filter that there is,
 * at most 32, however many filters there are of each kind. The answer is exactly that of {@link Filter.matches}.
 */

import type { Strand } from "../domain/Strand.js"
import * as Filter from "./Filter.js"

/** The constraints that a place in the index does not imply. */
type Rest = ReadonlyArray<Filter.Constraint>

/** One value of one field, and below it those of the next. */
interface Junction<To> {
  next: Map<string, Junction<To>> | undefined
  routes: Map<To, Rest> | undefined
  /** Those of the routes of which nothing is left to be tested, where that goes for all; made when they are asked for. */
  all: ReadonlyArray<To> | undefined
}

interface Table<To> {
  readonly fields: ReadonlyArray<keyof Filter.Filter>
  readonly root: Junction<To>
}

/** Places that one filter may take in the index; fields that would need more are tested strand by strand. */
const placesMax = 4_096

/** The most telling first: it is always in the index. */
const order: ReadonlyArray<keyof Filter.Filter> = ["documentId", "documentType", "driveId", "scope", "branch"]

export class Routes<To> {
  private readonly tables = new Map<number, Table<To>>()

  /** Adds who wants what meets these constraints; nobody is added twice. */
  add(constraints: ReadonlyArray<Filter.Constraint>, to: To): void {
    const { indexed, rest } = divide(constraints)
    enter(this.tableOf(indexed).root, indexed, 0, to, rest)
  }

  /** Removes who was added with these constraints. */
  remove(constraints: ReadonlyArray<Filter.Constraint>, to: To): void {
    const { indexed } = divide(constraints)
    leave(this.tableOf(indexed).root, indexed, 0, to)
  }

  /** Those who want the strand, each once. Thousands may want every one of many: where it can be, the list is the same. */
  wanting(strand: Strand): ReadonlyArray<To> {
    let found: ReadonlyArray<To> = []
    for (const { fields, root } of this.tables.values()) {
      let at: Junction<To> | undefined = root
      for (const field of fields) {
        const value: string | undefined = strand[field]
        at = value === undefined ? undefined : at.next?.get(value)
        if (at === undefined) break
      }
      if (at?.routes === undefined) continue
      const some = allOf(at) ?? wantingOf(at.routes, strand)
      found = found.length === 0 ? some : [...found, ...some]
    }
    return found
  }

  private tableOf(indexed: ReadonlyArray<Filter.Constraint>): Table<To> {
    const kind = indexed.reduce((sum, { field }) => sum + 2 ** order.indexOf(field), 0)
    const known = this.tables.get(kind)
    if (known !== undefined) return known
    const table: Table<To> = { fields: indexed.map(({ field }) => field), root: junction() }
    this.tables.set(kind, table)
    return table
  }
}

const junction = <To>(): Junction<To> => ({ next: undefined, routes: undefined, all: undefined })

const allOf = <To>(at: Junction<To>): ReadonlyArray<To> | undefined => {
  if (at.all !== undefined || at.routes === undefined) return at.all
  for (const rest of at.routes.values()) if (rest.length > 0) return undefined
  return at.all = Array.from(at.routes.keys())
}

const wantingOf = <To>(routes: ReadonlyMap<To, Rest>, strand: Strand): ReadonlyArray<To> => {
  const found: Array<To> = []
  for (const [to, rest] of routes) if (Filter.meets(strand, rest)) found.push(to)
  return found
}

const none: Rest = []

/** Which constraints have places in the index, in the order of its fields, and which are left to be tested. */
const divide = (constraints: ReadonlyArray<Filter.Constraint>) => {
  const sorted = constraints.toSorted((a, b) => order.indexOf(a.field) - order.indexOf(b.field))
  const indexed: Array<Filter.Constraint> = []
  let rest: Rest = none
  let places = 1
  for (const constraint of sorted) {
    const size = constraint.values.size
    if (indexed.length === 0 || size === 1 || places * size <= placesMax) {
      places *= size
      indexed.push(constraint)
    } else {
      rest = [...rest, constraint]
    }
  }
  return { indexed, rest }
}

const enter = <To>(
  at: Junction<To>,
  path: ReadonlyArray<Filter.Constraint>,
  depth: number,
  to: To,
  rest: Rest
): void => {
  const step = path[depth]
  if (step === undefined) {
    at.routes ??= new Map()
    at.routes.set(to, rest)
    at.all = undefined
    return
  }
  at.next ??= new Map()
  for (const value of step.values) {
    const below = at.next.get(value) ?? junction<To>()
    at.next.set(value, below)
    enter(below, path, depth + 1, to, rest)
  }
}

/** Takes junctions away that lead nowhere any more. */
const leave = <To>(at: Junction<To>, path: ReadonlyArray<Filter.Constraint>, depth: number, to: To): void => {
  const step = path[depth]
  if (step === undefined) {
    at.routes?.delete(to)
    at.all = undefined
    if (at.routes?.size === 0) at.routes = undefined
    return
  }
  for (const value of step.values) {
    const below = at.next?.get(value)
    if (below === undefined) continue
    leave(below, path, depth + 1, to)
    if (below.routes === undefined && below.next === undefined) at.next?.delete(value)
  }
  if (at.next?.size === 0) at.next = undefined
}
