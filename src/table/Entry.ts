/**
 * An entry: what a fold knows of one row, and what is to become of it.
 *
 *     base       unknown · absent · the row, as the database has it
 *     pending    as a function of the base:
 *
 *     | form     | if the base is there                | if it is absent  | flushed as                |
 *     | Kept     | some columns set or added to        | `row`, or none   | UPDATE, or INSERT … count |
 *     | Replaced | `row` in its place                  | `row`            | upsert                    |
 *     | Removed  | gone                                | none             | DELETE                    |
 *     | Remade   | deleted, then `row`                 | `row`            | DELETE and INSERT         |
 *     | Fresh    | an insert has failed                | `row`, or none   | INSERT                    |
 *
 * Invariant: carrying out what is pending has the outcome of the changes that were folded in, one after another. A change
 * for which that cannot be said is not folded, and leaves the entry as it was:
 *
 * - `flush` stands for: first flush what is pending. It would hide whether a sum still fits;
 * - `fails` stands for: the database has to refuse it, or to say what becomes of it. First flush, then send it.
 */

import type { Cells } from "./Bulk.js"
import type { Change, Insert, Patch, Touched } from "./Change.js"
import type { Cell } from "./Column.js"
import type { Definition } from "./Definition.js"
import type { Mask } from "./Plan.js"

export type Form = "Kept" | "Replaced" | "Removed" | "Remade" | "Fresh"

export type Folded = "folded" | "flush" | "fails"

type Numeric = number | bigint

export class Entry {
  /** The row as the database has it; `null` if there is none, `undefined` if that is not known. */
  base: Cells | null | undefined = undefined
  form: Form = "Kept"
  /** The row if the base is absent, and unless it is `Kept`, whatever the base. */
  row: Cells | null = null
  /** What a `Kept` row has set, by column. */
  sets: Array<Cell | undefined> | undefined = undefined
  /** What is added to a `Kept` row, by column: one sum, or several to be added one by one since that may differ. */
  adds: Array<Array<Numeric> | undefined> | undefined = undefined

  constructor(readonly definition: Definition, readonly key: Cells) {}

  /** Whether there is nothing to flush. */
  get isClean(): boolean {
    return this.form === "Kept" && this.sets === undefined && this.adds === undefined && this.row === null
  }

  /** Whether there is certainly no row now. */
  get isAbsent(): boolean {
    return this.row === null && (this.form === "Kept" ? this.base === null : true)
  }

  /** The row as it is now; `null` if there is none, `undefined` if only the database can tell. */
  get current(): Cells | null | undefined {
    if (this.form !== "Kept" || this.base === null) return this.row
    if (this.base === undefined) return undefined
    return this.adds === undefined && this.sets === undefined ? this.base : this.patched(this.base)
  }

  /** Takes note of what the database has; what was kept for the other case is void. */
  found(base: Cells | null): void {
    this.base = base
    if (this.form !== "Kept") return
    if (base !== null) {
      this.row = null
    } else {
      this.sets = undefined
      this.adds = undefined
    }
  }

  fold(change: Change): Folded {
    switch (change._tag) {
      case "Insert":
        return this.insert(change)
      case "Upsert":
        if (this.adds !== undefined) return "flush"
        this.sets = undefined
        this.row = change.row
        if (this.form === "Kept") this.form = "Replaced"
        else if (this.form === "Removed") this.form = "Remade"
        return "folded"
      case "Remove":
        return this.remove()
      case "Patch":
        return change.adds ? this.add(change) : this.set(change)
    }
  }

  private insert({ row }: Insert): Folded {
    if (!this.isAbsent && (this.form !== "Kept" || this.base !== undefined || this.row !== null)) return "fails"
    if (this.adds !== undefined) return "flush"
    this.sets = undefined
    this.row = row
    if (this.form === "Kept") this.form = "Fresh"
    else if (this.form === "Removed") this.form = "Remade"
    return "folded"
  }

  private remove(): Folded {
    if (this.adds !== undefined) return "flush"
    this.sets = undefined
    this.row = null
    if (this.form === "Kept" ? this.base !== null : this.form !== "Fresh") this.form = "Removed"
    return "folded"
  }

  private set({ touched }: Patch): Folded {
    if (this.adds?.some((add, i) => add !== undefined && touched[i] !== undefined) === true) return "flush"
    if (this.form === "Kept" && this.base !== null) {
      this.sets ??= blank(touched)
      for (let i = 0; i < touched.length; i++) if (touched[i] !== undefined) this.sets[i] = touched[i]
    }
    if (this.row !== null) this.row = this.row.map((cell, i) => touched[i] === undefined ? cell : touched[i])
    return "folded"
  }

  private add({ otherwise, touched }: Patch): Folded {
    const row = this.row === null ? otherwise ?? null : this.sumRow(this.row, touched)
    if (row === undefined) return "fails"
    if (this.form === "Kept" && this.base !== null && !this.addToKept(touched)) return "fails"
    if (this.form === "Removed" && row !== null) this.form = "Remade"
    this.row = row
    return "folded"
  }

  /** Adds where it is not known what is there; false, with nothing done, if what is set already cannot hold the sum. */
  private addToKept(touched: Touched): boolean {
    const { sets } = this
    if (sets !== undefined) {
      const sums = this.sumSets(sets, touched)
      if (sums === undefined) return false
      this.sets = sums
    }
    for (let i = 0; i < touched.length; i++) {
      const delta = touched[i]
      if (delta === undefined || sets?.[i] !== undefined) continue
      this.adds ??= blank(touched)
      this.adds[i] = this.joined(i, this.adds[i], delta as Numeric)
    }
    return true
  }

  /** What is set, with what is added to it; `undefined` if it cannot hold the sum. */
  private sumSets(sets: ReadonlyArray<Cell | undefined>, touched: Touched): Array<Cell | undefined> | undefined {
    const sums = sets.slice()
    for (let i = 0; i < touched.length; i++) {
      const known = sets[i]
      if (touched[i] === undefined || known === undefined) continue
      const sum = this.sum(i, known, touched[i] as Numeric)
      if (sum === undefined) return undefined
      sums[i] = sum
    }
    return sums
  }

  /**
   * Whole numbers of one sign may be added at once: their sum fits if and only if each step does. Others are added one by
   * one, since steps of both signs can leave the range and come back, and since floating point rounds at each.
   */
  private joined(column: number, before: Array<Numeric> | undefined, delta: Numeric): Array<Numeric> {
    const last = before?.at(-1)
    if (before === undefined || last === undefined) return [delta]
    const isWhole = this.definition.columns[column]!.kind !== "double"
    if (isWhole && before.length === 1 && last >= 0 === delta >= 0) {
      const sum = this.sum(column, last, delta)
      if (sum !== undefined && sum !== null) {
        before[0] = sum as Numeric
        return before
      }
    }
    before.push(delta)
    return before
  }

  /** The row with what is pending carried out on it; `undefined` if a sum does not fit. */
  patched(base: Cells): Cells | undefined {
    const row = base.slice()
    for (let i = 0; i < row.length; i++) {
      const set = this.sets?.[i]
      if (set !== undefined) row[i] = set
      for (const delta of this.adds?.[i] ?? []) {
        const sum = this.sum(i, row[i]!, delta)
        if (sum === undefined) return undefined
        row[i] = sum
      }
    }
    return row
  }

  private sumRow(row: Cells, touched: Touched): Cells | undefined {
    const sums = row.slice()
    for (let i = 0; i < touched.length; i++) {
      const delta = touched[i]
      if (delta === undefined) continue
      const sum = this.sum(i, row[i]!, delta as Numeric)
      if (sum === undefined) return undefined
      sums[i] = sum
    }
    return sums
  }

  /** A sum as the databases make it; `undefined` where it does not fit, or is beyond what a `number` holds exactly. */
  private sum(column: number, to: Cell, delta: Numeric): Cell | undefined {
    if (to === null) return null
    if (typeof to === "bigint") {
      const sum = to + (delta as bigint)
      return BigInt.asIntN(64, sum) === sum ? sum : undefined
    }
    const sum = (to as number) + (delta as number)
    const fits = this.definition.columns[column]!.kind === "double" ? Number.isFinite(sum) : Number.isSafeInteger(sum)
    return fits ? sum + 0 : undefined
  }

  /** What is pending of a `Kept` row as one patch; `undefined` if the base has to be read first. */
  get mask(): Mask | undefined {
    let mask = ""
    for (let i = 0; i < this.definition.columns.length; i++) {
      const add = this.adds?.[i]
      if (add !== undefined && (add.length > 1 || this.sets?.[i] !== undefined)) return undefined
      mask += add !== undefined ? "a" : this.sets?.[i] !== undefined ? "s" : "-"
    }
    return mask
  }

  /** The cells of that patch, in the table's order. */
  get patch(): Cells {
    const cells: Array<Cell> = []
    for (let i = 0; i < this.definition.columns.length; i++) {
      const cell = this.adds?.[i]?.[0] ?? this.sets?.[i]
      if (cell !== undefined) cells.push(cell)
    }
    return cells
  }

  /** Whether inserting `row`, or else patching the row that is there, comes to the same as what is pending. */
  get isCount(): boolean {
    return this.row !== null && this.row.every((cell, i) => {
      const add = this.adds?.[i]
      const set = this.sets?.[i]
      return add === undefined ? set === undefined || set === cell : add.length === 1 && add[0] === cell
    })
  }
}

/** A place for each column, with nothing in it. */
const blank = (columns: ReadonlyArray<unknown>): Array<undefined> => {
  const places: Array<undefined> = []
  for (let i = 0; i < columns.length; i++) places.push(undefined)
  return places
}
