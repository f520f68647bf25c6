/**
 * A codec: rows of a table between the values of a program and cells.
 *
 *     { id: "1", done: true } ──▶ ["1", true]
 *     { id: "1", done: true } ◀── ["1", true]
 *
 * What has no cell is an `SqlError` that names the table, the column and why.
 */

import { SqlError } from "@effect/sql/SqlError"
import type * as Schema from "effect/Schema"
import * as AST from "effect/SchemaAST"
import type { Cells } from "./Bulk.js"
import type { Insert, Patch, Remove, Touched, Upsert } from "./Change.js"
import { Unfit } from "./Column.js"
import type { Cell, Column } from "./Column.js"
import type { Definition } from "./Definition.js"
import { keyOf } from "./Plan.js"
import { refused } from "./Refusal.js"

/** Values by column. */
export type Values = { readonly [column: string]: unknown }

/** Told by where it comes from: a row may have any property. */
export const isRefusal = (made: unknown): made is SqlError => made instanceof SqlError

export class Codec {
  private readonly keyAt: ReadonlyArray<number>
  /** Which place of the key each column has; -1: none. */
  private readonly placeInKey: ReadonlyArray<number>
  private readonly at: ReadonlyMap<string, number>
  private readonly construct: (values: Values) => unknown

  constructor(private readonly definition: Definition, schema: Schema.Schema.AnyNoContext) {
    this.keyAt = keyOf(definition)
    this.placeInKey = definition.columns.map((_, i) => this.keyAt.indexOf(i))
    this.at = new Map(definition.columns.map(({ name }, i) => [name, i]))
    this.construct = constructorOf(schema)
  }

  insert(values: Values): Insert | SqlError {
    const row = this.row(values)
    return isRefusal(row) ? row : { _tag: "Insert", row }
  }

  upsert(values: Values): Upsert | SqlError {
    const row = this.row(values)
    return isRefusal(row) ? row : { _tag: "Upsert", row }
  }

  remove(values: Values): Remove | SqlError {
    const key = this.key(values)
    return isRefusal(key) ? key : { _tag: "Remove", key }
  }

  set(values: Values, columns: Values): Patch | SqlError {
    const key = this.key(values)
    if (isRefusal(key)) return key
    const touched = this.touched(columns, encoderOf)
    return isRefusal(touched) ? touched : { _tag: "Patch", key, touched, adds: false, otherwise: undefined }
  }

  add(values: Values, by: Values, otherwise: Values | undefined): Patch | SqlError {
    const key = this.key(values)
    if (isRefusal(key)) return key
    const touched = this.touched(by, adderOf)
    if (isRefusal(touched)) return touched
    const row = otherwise === undefined ? undefined : this.rest(otherwise, key, touched)
    return isRefusal(row) ? row : { _tag: "Patch", key, touched, adds: true, otherwise: row }
  }

  /** The key's cells, in its own order. */
  key(values: Values): Cells | SqlError {
    const cells: Array<Cell> = []
    for (let at = 0; at < this.keyAt.length; at++) {
      const column = this.definition.columns[this.keyAt[at]!]!
      const cell = column.encode(values[column.name])
      if (cell instanceof Unfit) return this.refusal(column, cell)
      cells.push(cell)
    }
    return cells
  }

  /** The columns that rows are looked for by. */
  where(values: Values): ReadonlyArray<readonly [column: number, cell: Cell]> | SqlError {
    const where: Array<readonly [number, Cell]> = []
    for (const name of Object.keys(values).sort()) {
      const i = this.at.get(name)
      const column = this.definition.columns[i ?? -1]
      if (i === undefined || column === undefined || column.kind === "json") {
        return refused(this.definition.name, name, "it is no column that rows can be looked for by")
      }
      const cell = column.encode(values[name])
      if (cell instanceof Unfit) return this.refusal(column, cell)
      where.push([i, cell])
    }
    return where
  }

  /** What the program sees of a row. */
  decode(row: Cells): { readonly value: unknown } | SqlError {
    const values: Record<string, unknown> = {}
    const { columns } = this.definition
    for (let i = 0; i < columns.length; i++) {
      const column = columns[i]!
      const value = column.decode(row[i]!)
      if (value instanceof Unfit) return this.refusal(column, value)
      values[column.name] = value
    }
    return { value: this.construct(values) }
  }

  /** A whole row. */
  private row(values: Values): Cells | SqlError {
    const { columns } = this.definition
    const cells = new Array<Cell>(columns.length)
    // Mostly a row has the columns in their order: it is read along its properties, which costs less than to look them up.
    let known = 0
    for (const name in values) {
      const column = columns[known]
      if (column?.name !== name) break
      const cell = column.encode(values[name])
      if (cell instanceof Unfit) return this.refusal(column, cell)
      cells[known++] = cell
    }
    for (let i = known; i < columns.length; i++) {
      const column = columns[i]!
      const cell = column.encode(values[column.name])
      if (cell instanceof Unfit) return this.refusal(column, cell)
      cells[i] = cell
    }
    return cells
  }

  /** A whole row of what is given as cells already, and the values of the other columns. */
  private rest(values: Values, key: Cells, touched: Touched): Cells | SqlError {
    const { columns } = this.definition
    const cells = new Array<Cell>(columns.length)
    for (let i = 0; i < columns.length; i++) {
      const column = columns[i]!
      const place = this.placeInKey[i]!
      const cell = place < 0 ? touched[i] ?? column.encode(values[column.name]) : key[place]!
      if (cell instanceof Unfit) return this.refusal(column, cell)
      cells[i] = cell
    }
    return cells
  }

  private touched(
    values: Values,
    writerOf: (column: Column) => ((value: unknown) => Cell | Unfit) | undefined
  ): Touched | SqlError {
    const touched: Array<Cell | undefined> = []
    for (let i = 0; i < this.definition.columns.length; i++) touched.push(undefined)
    for (const name of Object.keys(values)) {
      const i = this.at.get(name)
      const column = this.definition.columns[i ?? -1]
      const write = column === undefined ? undefined : writerOf(column)
      if (i === undefined || column === undefined || write === undefined || this.placeInKey[i]! >= 0) {
        return refused(this.definition.name, name, "it is no column that can be written this way")
      }
      const cell = write(values[name])
      if (cell instanceof Unfit) return this.refusal(column, cell)
      touched[i] = cell
    }
    return touched
  }

  private refusal(column: Column, { reason }: Unfit): SqlError {
    return refused(this.definition.name, column.name, reason)
  }
}

const encoderOf = (column: Column) => column.encode

const adderOf = (column: Column) => column.delta

/** Rows of a class are its instances. */
const constructorOf = (schema: Schema.Schema.AnyNoContext): (values: Values) => unknown => {
  if (!AST.isTransformation(schema.ast)) return (values) => values
  const Class = schema as unknown as new(values: Values, options: { readonly disableValidation: true }) => unknown
  return (values) => new Class(values, { disableValidation: true })
}
