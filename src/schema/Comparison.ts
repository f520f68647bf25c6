/**
 * A comparison: what becomes of each table and column on the way from some shapes to others.
 *
 *     before: todos (id, title, done)                      added    labels
 *     after:  todos (id, text), labels        ──▶          kept     todos: id, text (was title); done dropped
 *
 * A name that is gone and a name that is new are a drop and an add: a rename cannot be guessed, so it is said. The order of
 * columns is no difference, since rows are read and written by name.
 */

import type * as Column from "../table/Column.js"
import type * as Definition from "../table/Definition.js"
import * as Blueprint from "./Blueprint.js"

/** What is to keep its rows under another name, from the old name to the new one. */
export interface Renames {
  readonly tables?: { readonly [before: string]: string } | undefined
  /** By the new name of their table. */
  readonly columns?: { readonly [table: string]: { readonly [before: string]: string } } | undefined
}

/** How values get from one kind to another: as they are, without loss, with possible loss or refusal, or not at all. */
export type Passage = "same" | "widened" | "risky" | "none"

export interface ColumnPair {
  readonly before: Column.Shape
  readonly after: Column.Shape
  /** Never `none`: such a column is dropped and added. */
  readonly passage: Exclude<Passage, "none">
}

export interface TablePair {
  readonly before: Definition.Shape
  readonly after: Definition.Shape
  readonly kept: ReadonlyArray<ColumnPair>
  readonly added: ReadonlyArray<Column.Shape>
  readonly dropped: ReadonlyArray<Column.Shape>
}

export interface Comparison {
  readonly added: ReadonlyArray<Definition.Shape>
  readonly dropped: ReadonlyArray<Definition.Shape>
  readonly kept: ReadonlyArray<TablePair>
}

/** One thing that is to change. */
export interface Change {
  readonly what:
    | "table added"
    | "table dropped"
    | "table renamed"
    | "table conformed"
    | "column added"
    | "column dropped"
    | "column renamed"
    | "kind changed"
    | "column replaced"
    | "values changed"
    | "made nullable"
    | "made required"
    | "key changed"
    | "unique added"
    | "unique dropped"
    | "index added"
    | "index dropped"
  /** As the types call it; as the database does where it is dropped. */
  readonly table: string
  readonly column: string | undefined
  readonly detail: string
  /** What may be lost or refused; `undefined` when every row keeps its meaning. */
  readonly loss: string | undefined
}

/** Compares. A rename of what is not there is left out; see `strayRenames`. */
export const between = (
  before: ReadonlyArray<Definition.Shape>,
  after: ReadonlyArray<Definition.Shape>,
  renames: Renames = {}
): Comparison => {
  const found = renamedAll(before, renames.tables ?? {})
  const kept = after.flatMap((shape) => {
    const other = found.get(shape.name)
    return other === undefined ? [] : [pairOf(other, shape, renames.columns?.[shape.name] ?? {})]
  })
  return {
    added: after.filter((shape) => !kept.some((pair) => pair.after === shape)),
    dropped: before.filter((shape) => !kept.some((pair) => pair.before === shape)),
    kept
  }
}

/** The way back. */
export const inverse = ({ added, dropped, kept }: Comparison): Comparison => ({
  added: dropped,
  dropped: added,
  kept: kept.map((pair) => ({
    before: pair.after,
    after: pair.before,
    kept: pair.kept.map(({ after, before, passage }) => ({
      before: after,
      after: before,
      // What widens on the way there is narrowed on the way back, and nothing is impassable one way alone.
      passage: passage === "same" ? "same" : passageOf(after, before) === "widened" ? "widened" : "risky"
    })),
    added: pair.dropped,
    dropped: pair.added
  }))
})

/** Renames that name no table or column of before, or none of after, as `todos` or `todos.title`. */
export const strayRenames = (
  before: ReadonlyArray<Definition.Shape>,
  after: ReadonlyArray<Definition.Shape>,
  renames: Renames
): ReadonlyArray<string> => {
  const { kept } = between(before, after, renames)
  const tables = Object.entries(renames.tables ?? {})
    .filter(([from, to]) => !kept.some((pair) => pair.before.name === from && pair.after.name === to))
    .map(([from]) => from)
  const columns = Object.entries(renames.columns ?? {}).flatMap(([table, named]) =>
    Object.entries(named)
      .filter(([from, to]) =>
        !kept.some((pair) => pair.after.name === table && has(pair.before, from) && has(pair.after, to))
      )
      .map(([from]) => `${table}.${from}`)
  )
  return [...tables, ...columns]
}

/** What changes, in the order of the tables; empty when nothing does. */
export const changesOf = ({ added, dropped, kept }: Comparison): ReadonlyArray<Change> => [
  ...dropped.map(({ name }) => change("table dropped", name, undefined, name, "its rows are lost")),
  ...kept.flatMap(changesWithin),
  ...added.map(({ name }) => change("table added", name, undefined, name))
]

/** What changes within one table. */
export const changesWithin = (pair: TablePair): ReadonlyArray<Change> => {
  const { name } = pair.after
  const replaced = new Set(
    pair.dropped.map((column) => column.name).filter((each) => has({ columns: pair.added }, each))
  )
  return [
    ...(pair.before.name === name ? [] : [change("table renamed", name, undefined, `${pair.before.name} → ${name}`)]),
    ...pair.dropped.map((column) =>
      replaced.has(column.name)
        ? change(
          "column replaced",
          name,
          column.name,
          `${column.kind} → ${pair.added.find((each) => each.name === column.name)?.kind}`,
          "its values are lost"
        )
        : change("column dropped", name, column.name, column.kind, "its values are lost")
    ),
    ...pair.kept.flatMap((column) => changesOfColumn(name, column)),
    ...pair.added.filter((column) => !replaced.has(column.name)).map((column) =>
      change("column added", name, column.name, `${column.kind}${column.nullable ? ", nullable" : ""}`)
    ),
    ...changesOfSets(pair)
  ]
}

/** One line. */
export const describe = ({ column, detail, loss, table, what }: Change): string =>
  `${what}: ${column === undefined ? table : `${table}.${column}`}${detail === table ? "" : ` (${detail})`}${
    loss === undefined ? "" : `; ${loss}`
  }`

/** The name after of a column of before; `undefined` when its values do not stay. */
export const nameAfter = (pair: TablePair, name: string): string | undefined =>
  pair.kept.find((each) => each.before.name === name)?.after.name

/** How values get from one column to another. */
const passageOf = (before: Column.Shape, after: Column.Shape): Passage => {
  if (before.kind === "enum" && after.kind === "enum") {
    if (before.values.join("\0") === after.values.join("\0")) return "same"
    return before.values.every((value) => after.values.includes(value)) ? "widened" : "risky"
  }
  if (before.kind === after.kind) return "same"
  if (widenings[before.kind]?.includes(after.kind) === true) return "widened"
  return narrowings[before.kind]?.includes(after.kind) === true ? "risky" : "none"
}

type Kinds = { readonly [K in Column.Kind]?: ReadonlyArray<Column.Kind> }

const widenings: Kinds = {
  enum: ["text"],
  integer: ["bigint", "double", "text"],
  bigint: ["text"],
  boolean: ["integer", "bigint", "text"],
  timestamp: ["text"],
  json: ["text"]
}

const narrowings: Kinds = {
  text: ["enum", "integer", "bigint", "double", "boolean", "timestamp", "json"],
  integer: ["boolean"],
  bigint: ["integer", "double", "boolean"],
  double: ["integer", "bigint"]
}

const pairOf = (
  before: Definition.Shape,
  after: Definition.Shape,
  renamed: { readonly [before: string]: string }
): TablePair => {
  const found = renamedAll(before.columns, renamed)
  const kept = after.columns.flatMap((column): ReadonlyArray<ColumnPair> => {
    const other = found.get(column.name)
    if (other === undefined) return []
    const passage = passageOf(other, column)
    return passage === "none" ? [] : [{ before: other, after: column, passage }]
  })
  return {
    before,
    after,
    kept,
    added: after.columns.filter((column) => !kept.some((each) => each.after === column)),
    dropped: before.columns.filter((column) => !kept.some((each) => each.before === column))
  }
}

/** By their new names. What is renamed to a name has it, rather than what had it before. */
const renamedAll = <A extends { readonly name: string }>(
  all: ReadonlyArray<A>,
  renamed: { readonly [before: string]: string }
): ReadonlyMap<string, A> => {
  const named = new Map(Object.entries(renamed))
  return new Map([
    ...all.filter(({ name }) => !named.has(name)).map((each) => [each.name, each] as const),
    ...all.flatMap((each) => {
      const name = named.get(each.name)
      return name === undefined ? [] : [[name, each] as const]
    })
  ])
}

const changesOfColumn = (table: string, { after, before, passage }: ColumnPair): ReadonlyArray<Change> => {
  const { name } = after
  const isEnum = before.kind === "enum" && after.kind === "enum"
  const loss = passage === "risky" ? "values that do not fit are refused" : undefined
  return [
    ...(before.name === name ? [] : [change("column renamed", table, name, `${before.name} → ${name}`)]),
    ...(passage === "same"
      ? []
      : isEnum
      ? [change("values changed", table, name, `${before.values.join(", ")} → ${after.values.join(", ")}`, loss)]
      : [change("kind changed", table, name, `${before.kind} → ${after.kind}`, loss)]),
    ...(before.nullable === after.nullable
      ? []
      : after.nullable
      ? [change("made nullable", table, name, after.kind)]
      : [change("made required", table, name, after.kind, "rows without a value are refused")])
  ]
}

const changesOfSets = (pair: TablePair): ReadonlyArray<Change> => {
  const { name } = pair.after
  const mapped = (columns: ReadonlyArray<string>) =>
    columns.map((column) => nameAfter(pair, column) ?? `${column} before`).join(", ")
  const key = mapped(pair.before.key)
  const lists = (field: "unique" | "indexes") => ({
    before: Blueprint.canonical(pair.before)[field].map(mapped),
    after: Blueprint.canonical(pair.after)[field].map((columns) => columns.join(", "))
  })
  const loss = "rows with the same values are refused"
  const unique = lists("unique")
  const indexes = lists("indexes")
  const gone = (all: { readonly before: ReadonlyArray<string>; readonly after: ReadonlyArray<string> }) =>
    all.before.filter((each) => !all.after.includes(each))
  const come = (all: { readonly before: ReadonlyArray<string>; readonly after: ReadonlyArray<string> }) =>
    all.after.filter((each) => !all.before.includes(each))
  return [
    ...(key === pair.after.key.join(", ")
      ? []
      : [change("key changed", name, undefined, `${key} → ${pair.after.key.join(", ")}`, loss)]),
    ...gone(unique).map((each) => change("unique dropped", name, undefined, each)),
    ...come(unique).map((each) => change("unique added", name, undefined, each, loss)),
    ...gone(indexes).map((each) => change("index dropped", name, undefined, each)),
    ...come(indexes).map((each) => change("index added", name, undefined, each))
  ]
}

const change = (
  what: Change["what"],
  table: string,
  column: string | undefined,
  detail: string,
  loss?: string
): Change => ({ what, table, column, detail, loss })

const has = ({ columns }: { readonly columns: ReadonlyArray<Column.Shape> }, name: string): boolean =>
  columns.some((column) => column.name === name)
