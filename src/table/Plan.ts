/**
 * A plan: what is sent for each operation on a table, in one dialect, for one row or for many.
 *
 *     insert   INSERT INTO t AS t … rows
 *     copy     COPY t … rows
 *     upsert   INSERT INTO t AS t … rows ON CONFLICT (key) DO UPDATE SET a = excluded.a, …
 *     count    INSERT INTO t AS t … rows ON CONFLICT (key) DO UPDATE SET n = t.n + excluded.n
 *     patch    UPDATE t SET a = v.a, n = t.n + v.n FROM rows AS v WHERE t.key = v.key
 *     remove   DELETE FROM t … rows
 *     read     SELECT … FROM t … rows
 *
 * Texts are made once for a table, a dialect and a set of columns; names are those that `Definition` has let through.
 */

import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type { Dialect } from "../domain/Dialect.js"
import * as Bulk from "./Bulk.js"
import type { Cells, Send } from "./Bulk.js"
import * as Column from "./Column.js"
import type { Cell } from "./Column.js"
import * as Copy from "./Copy.js"
import type { Definition } from "./Definition.js"
import { refused } from "./Refusal.js"

/** What a patch does to each column, in the table's order: `s` sets it, `a` adds to it, `-` leaves it. */
export type Mask = string

/** Statements of one mask or one set of columns are kept for this many of them. */
const kept = 200

export class Plan {
  readonly insert: Bulk.Bulk
  /** What `insert` does, for many rows on a connection that takes copies. */
  readonly copy: Bulk.Bulk
  readonly upsert: Bulk.Bulk
  readonly remove: Bulk.Bulk
  /** Reads the rows with these keys. */
  readonly read: Bulk.Bulk
  /** As `read`, and holds the rows until the transaction ends. */
  readonly hold: Bulk.Bulk
  /** Where the key's columns are among the columns. */
  readonly keyAt: ReadonlyArray<number>
  /** The columns of which rows may not share values, apart from the key. */
  readonly unique: ReadonlyArray<number>
  private readonly patches = new Map<Mask, Bulk.Bulk>()
  private readonly counts = new Map<Mask, Bulk.Bulk>()
  private readonly finds = new Map<string, string>()
  private readonly table: string
  private readonly names: ReadonlyArray<string>
  private readonly key: ReadonlyArray<string>

  constructor(readonly definition: Definition, readonly dialect: Dialect) {
    this.table = quote(definition.name)
    this.names = definition.columns.map(({ name }) => quote(name))
    this.keyAt = keyOf(definition)
    this.unique = this.names.map((_, i) => i).filter((i) => isUnique(definition, i))
    this.key = this.keyAt.map((at) => this.names[at]!)
    const all = this.names.map((_, i) => i)
    const others = all.filter((i) => !this.keyAt.includes(i))
    this.insert = this.rows(all, ({ list }) => `${this.into} ${list}`)
    this.copy = Copy.into(this.table, this.names, definition.columns.map(({ kind }) => kind))
    this.upsert = this.rows(
      all,
      ({ list }) =>
        `${this.into} ${list} ${this.onConflict(others.map((i) => `${this.names[i]} = excluded.${this.names[i]}`))}`
    )
    this.remove = this.keys(
      ({ list }) => `DELETE FROM ${this.table} AS t WHERE ${this.tuple} IN (${this.inList(list)})`,
      ({ table }) => `DELETE FROM ${this.table} AS t USING ${table} WHERE ${this.sameKey}`
    )
    this.read = this.reading("")
    this.hold = this.reading(dialect === "pg" ? " FOR UPDATE OF t" : "")
  }

  /** Whether rows mean in a COPY what they mean in a statement, as a table's types are. */
  fits(types: { readonly [column: string]: string } | undefined): boolean {
    return types !== undefined &&
      this.definition.columns.every(({ kind, name }) => types[name] === Bulk.pgTypes[kind])
  }

  /** Rows hold the key and then the cells of the columns that the mask names, in the table's order. */
  patch(mask: Mask): Bulk.Bulk {
    return remembered(this.patches, mask, () => {
      const touched = touchedBy(mask)
      const columns = [...this.keyAt, ...touched]
      const sets = touched.map((i, at) => {
        const given = `v.${
          this.dialect === "pg" ? `c${at + this.keyAt.length}` : `column${at + this.keyAt.length + 1}`
        }`
        return `${this.names[i]} = ${mask[i] === "a" ? this.sum(i, `t.${this.names[i]}`, given) : given}`
      })
      return this.rows(
        columns,
        ({ table }) => `UPDATE ${this.table} AS t SET ${sets.join(", ")} FROM ${table} WHERE ${this.sameKey}`
      )
    })
  }

  /** Rows are whole; where there is one with their key, the mask says what becomes of that. */
  count(mask: Mask): Bulk.Bulk {
    return remembered(this.counts, mask, () => {
      const sets = touchedBy(mask).map((i) => {
        const given = `excluded.${this.names[i]}`
        return `${this.names[i]} = ${mask[i] === "a" ? this.sum(i, `t.${this.names[i]}`, given) : given}`
      })
      return this.rows(this.names.map((_, i) => i), ({ list }) => `${this.into} ${list} ${this.onConflict(sets)}`)
    })
  }

  /** The rows with these cells in these columns, in the order of the key, and the parameters that this takes. */
  find(
    where: ReadonlyArray<readonly [column: number, cell: Cell]>,
    limit: number
  ): readonly [string, ReadonlyArray<unknown>] {
    const asked = where.map(([column, cell]) => `${column}${cell === null ? "n" : ""}`).join()
    const given = where.filter(([, cell]) => cell !== null)
    const text = remembered(this.finds, asked, () => {
      let parameters = 0
      const parameter = (type: string) => this.dialect === "pg" ? `$${++parameters}::${type}` : "?"
      const tests = where.map(([column, cell]) =>
        `t.${this.names[column]} ${cell === null ? "IS NULL" : `= ${parameter(this.typeOf(column))}`}`
      )
      const order = this.keyAt.map((i) => `t.${this.names[i]}${this.collationOf(i)}`)
      return `SELECT ${this.selected} FROM ${this.table} AS t WHERE ${["TRUE", ...tests].join(" AND ")} ` +
        `ORDER BY ${order.join(", ")} LIMIT ${parameter("bigint")}`
    })
    const cells = given.map(([, cell]) => this.dialect === "sqlite" ? Bulk.sqliteParameter(cell) : cell)
    return [text, [...cells, limit]]
  }

  /** The rows that a SELECT has returned. */
  cellsOf(rows: ReadonlyArray<ReadonlyArray<unknown>>): Effect.Effect<ReadonlyArray<Cells>, SqlError> {
    const found: Array<Cells> = []
    for (const row of rows) {
      const cells: Array<Cell> = []
      for (let i = 0; i < this.definition.columns.length; i++) {
        const column = this.definition.columns[i]!
        const cell = column.read(row[i])
        if (cell instanceof Column.Unfit) return Effect.fail(refused(this.definition.name, column.name, cell.reason))
        cells.push(cell)
      }
      found.push(cells)
    }
    return Effect.succeed(found)
  }

  /** Reads the rows with these keys; those that are not there are left out. */
  readRows(
    bulk: Bulk.Bulk,
    keys: ReadonlyArray<Cells>,
    send: Send<ReadonlyArray<ReadonlyArray<unknown>>>
  ): Effect.Effect<ReadonlyArray<Cells>, SqlError> {
    return Effect.flatMap(Bulk.run(bulk, keys, send), (answers) => this.cellsOf(answers.flat()))
  }

  private rows(columns: ReadonlyArray<number>, write: Bulk.Write): Bulk.Bulk {
    const kinds = columns.map((i) => this.definition.columns[i]!.kind)
    return this.dialect === "pg"
      ? Bulk.pg(kinds, columns.map((_, at) => `c${at}`), write)
      : Bulk.sqlite(kinds, ({ list, table }) => write({ list: `VALUES ${list}`, table }))
  }

  /** A statement over keys, of which one may come twice. */
  private keys(sqlite: Bulk.Write, pg: Bulk.Write): Bulk.Bulk {
    return this.dialect === "pg"
      ? this.rows(this.keyAt, pg)
      : Bulk.sqlite(this.keyAt.map((i) => this.definition.columns[i]!.kind), sqlite, true)
  }

  private reading(lock: string): Bulk.Bulk {
    return this.keys(
      ({ list }) => `SELECT ${this.selected} FROM ${this.table} AS t WHERE ${this.tuple} IN (${this.inList(list)})`,
      ({ table }) => `SELECT ${this.selected} FROM ${table} JOIN ${this.table} AS t ON ${this.sameKey}${lock}`
    )
  }

  private get into(): string {
    // By another name, since a table may be called excluded.
    return `INSERT INTO ${this.table} AS t (${this.names.join(", ")})`
  }

  private onConflict(sets: ReadonlyArray<string>): string {
    return `ON CONFLICT (${this.key.join(", ")}) DO ${sets.length === 0 ? "NOTHING" : `UPDATE SET ${sets.join(", ")}`}`
  }

  private get selected(): string {
    // The driver would parse JSON, and what it makes of it is not what was stored.
    return this.names.map((name, i) =>
      this.dialect === "pg" && this.definition.columns[i]!.kind === "json" ? `t.${name}::text` : `t.${name}`
    ).join(", ")
  }

  private get tuple(): string {
    return this.key.length === 1 ? `t.${this.key[0]}` : `(${this.key.map((name) => `t.${name}`).join(", ")})`
  }

  /** SQLite takes `a IN (?, ?)` and `(a, b) IN (VALUES (?, ?), …)`. */
  private inList(list: string): string {
    return this.key.length === 1 ? list.replaceAll(/[()]/g, "") : `VALUES ${list}`
  }

  private get sameKey(): string {
    const given = (at: number) => this.dialect === "pg" ? `v.c${at}` : `v.column${at + 1}`
    return this.key.map((name, at) => `t.${name} = ${given(at)}`).join(" AND ")
  }

  /** PostgreSQL refuses a sum that does not fit; SQLite would store it as something else, unless it is made to fail. */
  private sum(column: number, stored: string, given: string): string {
    const sum = `${stored} + ${given}`
    if (this.dialect === "pg") return sum
    const isLost = this.definition.columns[column]!.kind === "double"
      ? `${sum} IN (9e999, -9e999)`
      : `typeof(${sum}) = 'real'`
    return `${sum} + abs(iif(${isLost}, -9223372036854775808, 0))`
  }

  private typeOf(column: number): string {
    return Bulk.pgTypes[this.definition.columns[column]!.kind]
  }

  /** SQLite compares text byte by byte; PostgreSQL is told to. */
  private collationOf(column: number): string {
    return this.dialect === "pg" && this.typeOf(column) === "text" ? " COLLATE \"C\"" : ""
  }
}

/** Where the key's columns are among the columns, in the key's order. */
export const keyOf = ({ columns, key }: Definition): ReadonlyArray<number> =>
  key.map((name) => columns.findIndex((column) => column.name === name))

const isUnique = ({ columns, unique }: Definition, column: number): boolean =>
  unique.some((set) => set.includes(columns[column]!.name))

/** Removes the rows with one value in a column. */
export const removal = (table: string, column: string, dialect: Dialect): string =>
  `DELETE FROM ${quote(table)} WHERE ${quote(column)} = ${dialect === "pg" ? "$1" : "?"}`

const quote = (name: string): string => `"${name}"`

const touchedBy = (mask: Mask): ReadonlyArray<number> =>
  Array.from(mask, (mark, i) => mark === "-" ? -1 : i).filter((i) => i >= 0)

const remembered = <K, V>(known: Map<K, V>, key: K, make: () => V): V => {
  const found = known.get(key)
  if (found !== undefined) return found
  if (known.size >= kept) known.clear()
  const made = make()
  known.set(key, made)
  return made
}
