/**
 * Anew: which rows are put in place of others when a processor is projected another time, and in which order.
 *
 *     emptied    what refers to others first     orders, customers
 *     filled     what others refer to first      customers, orders
 *
 * What cannot be exchanged without a guess is refused, with what to do about it, before anything is touched.
 */

import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type { Dialect } from "../domain/Dialect.js"
import type { Processor } from "../process/Processor.js"
import type { Definition } from "../table/Definition.js"
import type { Paged } from "./Pages.js"
import type { Column, Survey } from "./Survey.js"

/** The processor's rows cannot be projected anew as things are. Nothing was changed. */
export class NotRebuildable extends Data.TaggedError("NotRebuildable")<{
  readonly processor: string
  /** What stands in the way, and what to do about it. */
  readonly reason: string
}> {
  override get message(): string {
    return `${this.processor} cannot be projected anew: ${this.reason}`
  }
}

/** What has to be known of a processor. */
export type Projected = Pick<Processor<unknown, unknown>, "name" | "tables">

export interface Anew {
  readonly definitions: ReadonlyArray<Definition>
  /** What others refer to before what refers to it. */
  readonly order: ReadonlyArray<Definition>
  /** The live tables as they are. */
  readonly survey: Survey
  /** The one document whose rows are meant; `undefined`: all. */
  readonly documentId: string | undefined
}

/** The definitions of a processor's tables, if they can be told by document where that is asked for. */
export const definitionsOf = (
  { name, tables }: Projected,
  documentId: string | undefined
): Effect.Effect<ReadonlyArray<Definition>, NotRebuildable> => {
  const refuse = (reason: string) => new NotRebuildable({ processor: name, reason })
  if (tables.length === 0) {
    return refuse("it does not say which tables it alone writes; name them: Processor.make(…, { tables: [Todos] })")
  }
  const shared = documentId === undefined
    ? undefined
    : tables.find(({ definition }) => definition.document === undefined)
  return shared === undefined ? Effect.succeed(tables.map(({ definition }) => definition)) : refuse(
    `table ${shared.name} does not say which document a row is of; name the column: ` +
      "Table.make(…, { document: \"document_id\" }), or rebuild all of it"
  )
}

/** Decides how it is done. `isCopied`: rows are made elsewhere and copied, so what they set off happens there alone. */
export const plan = (
  processor: string,
  dialect: Dialect,
  definitions: ReadonlyArray<Definition>,
  survey: Survey,
  { documentId, isCopied }: { readonly documentId: string | undefined; readonly isCopied: boolean }
): Effect.Effect<Anew, NotRebuildable> => {
  const refuse = (reason: string) => new NotRebuildable({ processor, reason })
  const names = new Set(definitions.map(({ name }) => name))
  for (const { columns, name } of definitions) {
    const found = survey.columns.get(name)
    if (found === undefined) return refuse(`there is no table ${name}`)
    const missing = columns.find((column) => !found.some((each) => each.name === column.name))
    if (missing !== undefined) return refuse(`table ${name} has no column ${missing.name}; see Drift.verify`)
  }
  const intruder = survey.references.find(({ from, to }) => names.has(to) && !names.has(from))
  if (intruder !== undefined) {
    return refuse(
      `table ${intruder.from}, which is not among its tables, refers to ${intruder.to}: emptying that would break it`
    )
  }
  const triggered = definitions.find(({ name }) => survey.triggers.has(name))
  if (isCopied && triggered !== undefined) {
    return refuse(`table ${triggered.name} has a trigger, which copied rows would set off again; rebuild it in place`)
  }
  const order = inOrder(definitions, survey)
  return order === undefined && dialect === "pg"
    ? refuse("its tables refer to each other in a circle, so that none can be filled first")
    : Effect.succeed({ definitions, order: order ?? definitions, survey, documentId })
}

/** What others refer to first; `undefined` if they refer to each other in a circle. */
const inOrder = (definitions: ReadonlyArray<Definition>, { references }: Survey) => {
  const order: Array<Definition> = []
  const left = new Set(definitions)
  while (left.size > 0) {
    const names = new Set(Array.from(left, ({ name }) => name))
    const free = Array.from(left).filter(({ name }) =>
      references.every(({ from, to }) => from !== name || to === name || !names.has(to))
    )
    if (free.length === 0) return undefined
    for (const each of free) left.delete(each)
    order.push(...free)
  }
  return order
}

/** Whether rows of a table refer to others of it, so that no part of them can go or come first. */
export const refersToItself = ({ survey }: Anew, name: string): boolean =>
  survey.references.some(({ from, to }) => from === name && to === name)

/** The rows of a table that are meant, in the order of its key. */
export const pagedOf = ({ documentId, survey }: Anew, { document, key, name }: Definition): Paged => ({
  name,
  key: key.map((column) => ({ name: column, type: typeOf(survey, name, column) })),
  where: documentId === undefined || document === undefined ? [] : [[document, documentId]]
})

export const typeOf = (survey: Survey, table: string, column: string): string =>
  survey.columns.get(table)?.find(({ name }) => name === column)?.type ?? "text"

/**
 * The columns that are copied. Numbers that the database gives by itself, and the program does not know of, are given anew
 * where only some rows are exchanged: those of a replay would be those of other rows here.
 */
export const copied = ({ documentId, survey }: Anew, definition: Definition): ReadonlyArray<Column> =>
  (survey.columns.get(definition.name) ?? []).filter(({ isGenerated, name, sequence }) =>
    !isGenerated &&
    (documentId === undefined || sequence === undefined || definition.columns.some((column) => column.name === name))
  )

/** A table whose columns another place's migrations make in another way. */
export const differing = (
  { definitions, survey }: Anew,
  other: Survey
): { readonly table: string; readonly columns: string } | undefined => {
  for (const { name } of definitions) {
    const here = columnsOf(survey, name)
    const there = columnsOf(other, name)
    const columns = Array.from(new Set([...here.keys(), ...there.keys()])).filter((column) =>
      here.get(column) !== there.get(column)
    )
    if (columns.length > 0) return { table: name, columns: columns.join(", ") }
  }
  return undefined
}

const columnsOf = (survey: Survey, table: string): ReadonlyMap<string, string> =>
  new Map((survey.columns.get(table) ?? []).map(({ isGenerated, name, type }) => [name, `${type} ${isGenerated}`]))
