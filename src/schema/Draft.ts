/**
 * A draft: a migration that is written from what the types say.
 *
 *     initial     definitions ─────────────────────────────────────────────▶ changes, up and down for both databases
 *     difference  migrations ─▶ shadow ─▶ introspection ─ compared ─▶ …      changes, up and down for the database at hand
 *                 definitions ────────────────────────────┘
 *
 * A draft is run at once (`migration`) or kept as files (`files`, `module`), whose text is the same each time, byte by byte.
 * One that was drafted in place follows the types: once they change, a database that has applied it reports it as edited, and
 * a difference from it is empty. What is released is kept.
 *
 * A difference is tried before it is handed out: in a shadow that the migrations have built it goes up, down and up again,
 * and what stands then has to be what the types say. What may lose or refuse rows has to be allowed. `down` leads back to
 * the same shapes; what `up` has dropped comes back empty (see `Alteration.blank`).
 */

import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import { dialectOf } from "../domain/Dialect.js"
import type { Dialect } from "../domain/Dialect.js"
import type { Namespace } from "../domain/Namespace.js"
import * as Fault from "../process/Fault.js"
import * as Migration from "../process/Migration.js"
import type * as Permit from "../process/Permit.js"
import * as Catalogue from "../store/Catalogue.js"
import * as Shadow from "../store/Shadow.js"
import * as Column from "../table/Column.js"
import * as Definition from "../table/Definition.js"
import * as Alteration from "./Alteration.js"
import * as Blueprint from "./Blueprint.js"
import * as Comparison from "./Comparison.js"
import * as Introspection from "./Introspection.js"

export { ShadowFailed } from "../store/Shadow.js"
export { type Change, describe, type Renames } from "./Comparison.js"

/** The statements of each direction. */
export interface Directions {
  readonly up: ReadonlyArray<string>
  readonly down: ReadonlyArray<string>
}

export interface Draft {
  /** Empty when there is nothing to do. */
  readonly changes: ReadonlyArray<Comparison.Change>
  /** At least one of them. */
  readonly sql: { readonly sqlite?: Directions | undefined; readonly pg?: Directions | undefined }
}

export interface Options<E = never> {
  /** An empty database, which SQLite needs. */
  readonly shadow?: Layer.Layer<SqlClient.SqlClient, E> | undefined
  /** What is to keep its rows under another name. */
  readonly renames?: Comparison.Renames | undefined
  /** By table and column, as the types call them: what rows that are there already get, as a value of the column's type. */
  readonly defaults?: { readonly [table: string]: { readonly [column: string]: unknown } } | undefined
  /** Whether rows may be lost or refused, and what types do not say be dropped. Default: false. */
  readonly allowLossy?: boolean | undefined
  /** Tables that the types say nothing about and that stay as they are. */
  readonly ignore?: ReadonlyArray<string> | undefined
  /** What migrations may send to build the shadow, as in `Migrator.Options`. Default: `"any"`. */
  readonly statements?: Permit.Permit | undefined
}

/** Some changes may lose rows or values, or fail for rows that do not fit. */
export class LossyChange extends Data.TaggedError("LossyChange")<{
  readonly changes: ReadonlyArray<Comparison.Change>
}> {
  override get message(): string {
    return `${
      this.changes.map(Comparison.describe).join("\n")
    }\nsay allowLossy: true if that is meant, or name a rename`
  }
}

/** A column takes no NULL, and nothing says what the rows get that are there already. */
export class DefaultWanted extends Data.TaggedError("DefaultWanted")<{
  readonly table: string
  readonly column: string
  /** Why the default that was given is none. */
  readonly reason: string | undefined
}> {
  override get message(): string {
    const { column, reason, table } = this
    return reason === undefined
      ? `rows of ${table} need a value for ${column}: give defaults: { ${table}: { ${column}: … } }, or make it nullable`
      : `the default of ${table}.${column} does not fit: ${reason}`
  }
}

/** A rename of what the migrations do not make, or to what the types do not name. */
export class RenameUnknown extends Data.TaggedError("RenameUnknown")<{ readonly names: ReadonlyArray<string> }> {
  override get message(): string {
    return `nothing can be renamed by ${
      this.names.join(", ")
    }: the old name has to be in the database, the new in the types`
  }
}

/** The tables cannot be brought to the types by a draft. */
export class Unalterable extends Data.TaggedError("Unalterable")<{
  /** `undefined` when it is not about one table. */
  readonly table: string | undefined
  readonly reasons: ReadonlyArray<string>
}> {
  override get message(): string {
    return `${this.table ?? "the draft"} cannot be altered: ${this.reasons.join("; ")}`
  }
}

export type DifferenceError = LossyChange | DefaultWanted | RenameUnknown | Unalterable | Shadow.ShadowFailed

/** Makes the tables, in their order. Throws a `TypeError` for two tables of one name. */
export const initial = (tables: ReadonlyArray<Definition.Declared>): Draft => {
  const definitions = tables.map(Definition.shapeOf)
  Blueprint.check(definitions)
  const comparison = Comparison.between([], definitions)
  return {
    changes: Comparison.changesOf(comparison),
    sql: {
      sqlite: directionsOf(comparison, "sqlite", noFill, new Set()),
      pg: directionsOf(comparison, "pg", noFill, new Set())
    }
  }
}

/**
 * What leads from the tables that the migrations make to those that the types say, on the database of the client, which is
 * not changed. No changes when nothing leads anywhere. Throws a `TypeError` for two tables of one name.
 */
export const difference = <E = never>(
  namespace: Namespace,
  migrations: Migration.Migrations,
  tables: ReadonlyArray<Definition.Declared>,
  options: Options<E> = {}
): Effect.Effect<Draft, DifferenceError | Migration.MigrationMisnamed | E, SqlClient.SqlClient> => {
  const definitions = tables.map(Definition.shapeOf)
  Blueprint.check(definitions)
  return Effect.gen(function*() {
    const basis = yield* basisOf(namespace, migrations, options)
    const { dialect, found } = basis
    const before = found.tables.map(Introspection.shapeOf)
    const renames = options.renames ?? {}
    const stray = Comparison.strayRenames(before, definitions, renames)
    if (stray.length > 0) return yield* new RenameUnknown({ names: stray })

    const comparison = Comparison.between(before, definitions, renames)
    const conformed = yield* conformedOf(basis, comparison)
    const changes = [...Comparison.changesOf(comparison), ...conformedChanges(conformed)]
    if (changes.length === 0) return { changes, sql: { [dialect]: { up: [], down: [] } } }

    const allowLossy = options.allowLossy === true
    const defaults = yield* defaultsOf(definitions, options.defaults ?? {})
    if (!allowLossy) yield* refuseLossy(changes)
    yield* wantDefaults(comparison, defaults, allowLossy)
    yield* refuseReferenced(found.tables, comparison, dialect, conformed)
    const fill: Alteration.Fill = (table, column) => defaults(table.name, column.name)
    const directions = directionsOf(comparison, dialect, fill, new Set(conformed.keys()))
    const draft: Draft = { changes, sql: { [dialect]: directions } }
    yield* tried(basis, draft, before, definitions)
    return draft
  })
}

/** Both in one: of a difference on SQLite and the same on PostgreSQL. Where both have one database's, the second counts. */
export const combine = (first: Draft, second: Draft): Draft => ({
  changes: [
    ...new Map([...first.changes, ...second.changes].map((each) => [Comparison.describe(each), each])).values()
  ],
  sql: { ...first.sql, ...second.sql }
})

/**
 * The migration, to be applied as it is. On a database that it was not drafted for it fails. Keep what is released as
 * {@link files} or as a {@link module}: drafted in place it changes with the types.
 */
export const migration = ({ sql }: Draft): Migration.Migration => {
  const text = (direction: keyof Directions): Migration.SqlText => {
    const sqlite = sql.sqlite === undefined ? undefined : scriptOf(sql.sqlite[direction])
    const pg = sql.pg === undefined ? undefined : scriptOf(sql.pg[direction])
    return { sqlite: sqlite ?? "", pg: pg ?? "" }
  }
  const both = Migration.fromSql({ up: text("up"), down: text("down") })
  return { ...both, up: onlyDrafted(sql, both.up), down: onlyDrafted(sql, both.down) }
}

export interface File {
  readonly name: string
  readonly text: string
}

/**
 * As files for a directory of migrations. What was drafted for one database alone has names without a dialect, and a first
 * line which says so.
 */
export const files = (id: string, { changes, sql }: Draft): ReadonlyArray<File> => {
  const only = sql.sqlite === undefined ? "pg" : sql.pg === undefined ? "sqlite" : undefined
  return (["up", "down"] as const).flatMap((direction) =>
    (["pg", "sqlite"] as const).flatMap((dialect) => {
      const directions = sql[dialect]
      if (directions === undefined) return []
      const head = [
        ...(only === undefined ? [] : [`drafted for ${nameOf[dialect]} alone`]),
        ...(direction === "up" ? changes.map(Comparison.describe) : ["takes back what up does"])
      ]
      const comment = head.map((each) => `-- ${inLine(each)}\n`).join("")
      return [{
        name: only === undefined ? `${id}.${direction}.${dialect}.sql` : `${id}.${direction}.sql`,
        text: `${comment}\n${scriptOf(directions[direction])}`
      }]
    })
  )
}

/** As the text of a module which exports `up` and `down`. */
export const module = ({ changes, sql }: Draft): string => {
  const comment = changes.map((each) => ` * - ${inLine(Comparison.describe(each)).replaceAll("*/", "* /")}\n`).join("")
  const listed = (direction: keyof Directions, dialect: Dialect) => {
    const texts = sql[dialect]?.[direction]
    if (texts === undefined) return `Effect.dieMessage("drafted for ${nameOf[other(dialect)]} alone")`
    return texts.length === 0 ? "Effect.void" : `all(sql, [\n${texts.map(templated).join(",\n")}\n    ])`
  }
  const exported = (direction: keyof Directions) =>
    `export const ${direction}: Effect.Effect<void, SqlError, SqlClient.SqlClient> = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql.onDialectOrElse({
    sqlite: () => ${listed(direction, "sqlite")},
    orElse: () => ${listed(direction, "pg")}
  })
)
`
  return `/**
 * Drafted by effect-processors from types:
 *
${comment} */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"

const all = (sql: SqlClient.SqlClient, statements: ReadonlyArray<string>) =>
  Effect.forEach(statements, (statement) => sql.unsafe(statement), { discard: true })

${exported("up")}
${exported("down")}`
}

/** Nothing that would end a comment of one line. */
const inLine = (text: string): string => text.replace(/\s+/g, " ")

const nameOf = { pg: "PostgreSQL", sqlite: "SQLite" } as const

const other = (dialect: Dialect): Dialect => dialect === "pg" ? "sqlite" : "pg"

const templated = (text: string): string =>
  `      \`${text.replaceAll("\\", "\\\\").replaceAll("`", "\\`").replaceAll("${", "\\${")}\``

const scriptOf = (texts: ReadonlyArray<string>): string => texts.map((text) => `${text};\n`).join("")

const onlyDrafted = (sql: Draft["sql"], run: Migration.Migration["up"]): Migration.Migration["up"] =>
  Effect.flatMap(SqlClient.SqlClient, (client) => {
    const dialect = dialectOf(client)
    return sql[dialect] === undefined
      ? Effect.fail(new SqlError({ cause: undefined, message: `it was drafted for ${nameOf[other(dialect)]} alone` }))
      : run
  })

const noFill: Alteration.Fill = () => undefined

const directionsOf = (
  comparison: Comparison.Comparison,
  dialect: Dialect,
  fill: Alteration.Fill,
  conformed: ReadonlySet<string>
): Directions => ({
  up: Alteration.statements(comparison, dialect, { fill, isRebuilt: ({ after }) => conformed.has(after.name) }),
  down: Alteration.statements(Comparison.inverse(comparison), dialect, {
    fill: (_, column) => Alteration.blank(column),
    isRebuilt: () => false
  })
})

interface Shadows<E> {
  readonly namespace: string
  readonly steps: ReadonlyArray<Shadow.Step>
  readonly permit: Permit.Permit | undefined
  readonly layer: Layer.Layer<SqlClient.SqlClient, E> | undefined
}

interface Found {
  readonly tables: ReadonlyArray<Introspection.FoundTable>
  readonly items: ReadonlyArray<Catalogue.Item>
}

const look: Effect.Effect<Found, SqlError, SqlClient.SqlClient> = Effect.all({
  tables: Introspection.read,
  items: Catalogue.read
})

/** What a difference starts from. */
interface Basis<E> {
  readonly dialect: Dialect
  readonly shadows: Shadows<E>
  readonly ignored: ReadonlySet<string>
  /** What the migrations make, without the tables that are ignored. */
  readonly found: Found
}

const basisOf = <E>(
  namespace: Namespace,
  migrations: Migration.Migrations,
  options: Options<E>
): Effect.Effect<Basis<E>, Migration.MigrationMisnamed | Shadow.ShadowFailed | E, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const dialect = dialectOf(yield* SqlClient.SqlClient)
    const ids = yield* Migration.check(migrations, namespace)
    const shadows: Shadows<E> = {
      namespace,
      steps: ids.map((id) => ({ id, migration: migrations[id]! })),
      permit: options.statements,
      layer: options.shadow
    }
    const { items, tables } = yield* inShadow(shadows, look)
    const ignored = new Set(options.ignore ?? [])
    return { dialect, shadows, ignored, found: { items, tables: tables.filter(({ name }) => !ignored.has(name)) } }
  })

/** What `body` sees where the migrations have been applied. */
const inShadow = <A, E extends { readonly _tag: string }, E2>(
  { layer, namespace, permit, steps }: Shadows<E2>,
  body: Effect.Effect<A, E, SqlClient.SqlClient>
): Effect.Effect<A, Exclude<E, SqlError> | E2 | Shadow.ShadowFailed, SqlClient.SqlClient> =>
  Effect.flatMap(
    Shadow.run(
      namespace,
      Effect.map(Effect.zipRight(Shadow.build(namespace, steps, permit), body), (seen) => ({ seen })),
      layer
    ),
    (answer) =>
      answer === undefined
        ? new Shadow.ShadowFailed({
          namespace,
          id: undefined,
          cause: new Error("SQLite needs the option shadow, such as Sqlite.layerMemory")
        })
        : Effect.succeed(answer.seen)
  ) as Effect.Effect<A, Exclude<E, SqlError> | E2 | Shadow.ShadowFailed, SqlClient.SqlClient>

/** The tables that are not as a blueprint of their shape would make them, and what is not. */
const handWritten = <E>({ found, shadows }: Basis<E>) =>
  Effect.gen(function*() {
    const unfit = found.tables.filter(({ columns }) => columns.some(({ fit }) => fit !== "exact"))
    const fit = found.tables.filter((table) => !unfit.includes(table)).map(Introspection.shapeOf)
    const blueprint = migration(initial(fit))
    const alone = { ...shadows, steps: [{ id: "blueprint", migration: blueprint }] }
    const expected = yield* inShadow(alone, Catalogue.read)
    const byHand = new Map<string, ReadonlyArray<string>>()
    for (const { columns, name } of unfit) {
      const notes = columns.flatMap((column) => column.note === undefined ? [] : [`${column.name}: ${column.note}`])
      byHand.set(name, notes)
    }
    for (const { name } of fit) {
      const reasons = deviations(itemsOf(found.items, name), itemsOf(expected, name))
      if (reasons.length > 0) byHand.set(name, reasons)
    }
    return byHand
  })

const itemsOf = (items: ReadonlyArray<Catalogue.Item>, owner: string): ReadonlyMap<string, string> =>
  new Map(
    items
      .filter((item) => item.owner === owner)
      .map(({ definition, kind, name }) => [`${kind} ${name}`, definition])
  )

const deviations = (
  found: ReadonlyMap<string, string>,
  expected: ReadonlyMap<string, string>
): ReadonlyArray<string> => [
  ...[...found].filter(([name, text]) => expected.get(name) !== text).map(([name, text]) => `${name} is ${text}`),
  ...[...expected].filter(([name]) => !found.has(name)).map(([name]) => `${name} is missing`)
]

/** Of those, the tables that have to change, by the names they get, and what is not as a blueprint would make it. */
const conformedOf = <E>(basis: Basis<E>, { kept }: Comparison.Comparison) =>
  Effect.map(handWritten(basis), (byHand): ReadonlyMap<string, ReadonlyArray<string>> =>
    new Map(
      kept.filter((pair) => Comparison.changesWithin(pair).length > 0).flatMap((pair) => {
        const reasons = byHand.get(pair.before.name)
        return reasons === undefined ? [] : [[pair.after.name, reasons] as const]
      })
    ))

const conformedChanges = (conformed: ReadonlyMap<string, ReadonlyArray<string>>): ReadonlyArray<Comparison.Change> =>
  [...conformed].map(([table, reasons]) => ({
    what: "table conformed",
    table,
    column: undefined,
    detail: reasons.join("; "),
    loss: "it is built anew, and keeps only what its type says"
  }))

/** The cell that rows get in a column, by table and column. */
type Defaults = (table: string, column: string) => Column.Cell | undefined

/** The defaults as cells, once each has been found to fit. */
const defaultsOf = (
  definitions: ReadonlyArray<Definition.Shape>,
  given: NonNullable<Options["defaults"]>
): Effect.Effect<Defaults, DefaultWanted> =>
  Effect.gen(function*() {
    const cells = new Map<Column.Shape, Column.Cell>()
    const find = (table: string, column: string) =>
      definitions.find(({ name }) => name === table)?.columns.find(({ name }) => name === column)
    for (const [table, columns] of Object.entries(given)) {
      for (const [column, value] of Object.entries(columns)) {
        const shape = find(table, column)
        if (shape === undefined) return yield* new DefaultWanted({ table, column, reason: "there is no such column" })
        const cell = encoded(shape, value)
        if (cell instanceof Column.Unfit) return yield* new DefaultWanted({ table, column, reason: cell.reason })
        cells.set(shape, cell)
      }
    }
    return (table, column) => {
      const shape = find(table, column)
      return shape === undefined ? undefined : cells.get(shape)
    }
  })

/** What rows may be refused for is left to `wantDefaults` where a default can help. */
const refuseLossy = (changes: Draft["changes"]): Effect.Effect<void, LossyChange> => {
  const lossy = changes.filter(({ loss, what }) => loss !== undefined && what !== "made required")
  return lossy.length === 0 ? Effect.void : new LossyChange({ changes: lossy })
}

/** Rows that are there already need a value in a new column that takes no NULL, and, unless they may be refused, in an old one. */
const wantDefaults = (
  { kept }: Comparison.Comparison,
  defaults: Defaults,
  allowLossy: boolean
): Effect.Effect<void, DefaultWanted> => {
  const wanted = kept.flatMap((pair) => {
    const required = allowLossy ? [] : pair.kept.filter(({ before }) => before.nullable).map(({ after }) => after)
    return [...pair.added, ...required]
      .filter(({ nullable }) => !nullable)
      .map((column) => ({ table: pair.after.name, column: column.name, reason: undefined }))
  })
  const first = wanted.find(({ column, table }) => defaults(table, column) === undefined)
  return first === undefined ? Effect.void : new DefaultWanted(first)
}

/** By the column's own Schema, where there is one. */
const encoded = (column: Column.Shape, value: unknown): Column.Cell | Column.Unfit =>
  "encode" in column ? (column as Column.Column).encode(value) : value as Column.Cell

/** Dropping a table that others refer to would, on SQLite, delete their rows or fail, depending on the foreign key. */
const refuseReferenced = (
  tables: ReadonlyArray<Introspection.FoundTable>,
  { dropped, kept }: Comparison.Comparison,
  dialect: Dialect,
  conformed: ReadonlyMap<string, unknown>
): Effect.Effect<void, Unalterable> => {
  const rebuilt = kept.filter((pair) => conformed.has(pair.after.name) || Alteration.rebuilds(pair, dialect))
  const gone = new Set([...dropped, ...rebuilt.map(({ before }) => before)].map(({ name }) => name))
  const referenced = tables.find(({ name, referencedBy }) => gone.has(name) && referencedBy.length > 0)
  return referenced === undefined ? Effect.void : new Unalterable({
    table: referenced.name,
    reasons: [`foreign keys of ${referenced.referencedBy.join(", ")} refer to it, and it would have to be dropped`]
  })
}

/** Up, down and up again, each with what it has to lead to. */
const tried = <E>(
  { ignored, shadows }: Basis<E>,
  draft: Draft,
  before: ReadonlyArray<Definition.Shape>,
  after: ReadonlyArray<Definition.Shape>
) => {
  const { down, up } = migration(draft)
  const failed = (cause: SqlError) => new Unalterable({ table: undefined, reasons: [Fault.describe(cause)] })
  const expecting = (direction: string, shapes: ReadonlyArray<Definition.Shape>) =>
    Effect.flatMap(look, ({ items, tables }) => {
      const found = tables.filter(({ name }) => !ignored.has(name)).map(Introspection.shapeOf)
      return fingerprint(found) === fingerprint(shapes)
        ? Effect.succeed(Catalogue.render(items))
        : new Unalterable({ table: undefined, reasons: [`${direction} does not lead to what it should`] })
    })
  return inShadow(
    shadows,
    Effect.gen(function*() {
      yield* up
      const first = yield* expecting("up", after)
      yield* down
      yield* expecting("down", before)
      yield* up
      const second = yield* expecting("up", after)
      if (first !== second) {
        return yield* new Unalterable({ table: undefined, reasons: ["up leads elsewhere the second time"] })
      }
    }).pipe(Effect.catchTag("SqlError", failed))
  )
}

/** Equal for the same tables, in whatever order they, and their columns, come. */
const fingerprint = (shapes: ReadonlyArray<Definition.Shape>): string => {
  const byName = (a: { readonly name: string }, b: { readonly name: string }) => (a.name < b.name ? -1 : 1)
  return JSON.stringify(
    [...shapes].sort(byName).map((shape) => {
      const { columns, indexes, key, name, unique } = Blueprint.canonical(shape)
      const plain = columns.map((column) => [column.name, column.kind, column.nullable, column.values] as const)
      return [name, [...plain].sort(([a], [b]) => (a < b ? -1 : 1)), key, unique, indexes]
    })
  )
}
