/**
 * The round trip: from types to a migrated database and back, and from some types to others, for random tables.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { beforeAll, describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as fc from "fast-check"
import * as Sqlite from "../../layers/Sqlite.js"
import type { Dialect } from "../../src/domain/Dialect.js"
import {
  Catalogue,
  type Column,
  type Definition,
  Draft,
  Introspection,
  Migrator,
  Namespace,
  Typings
} from "../../src/index.js"
import * as Blueprint from "../../src/schema/Blueprint.js"
import * as Comparison from "../../src/schema/Comparison.js"
import * as Compiler from "../support/Compiler.js"
import * as Database from "../support/Database.js"
import * as Shapes from "../support/Shapes.js"
import * as Store from "../support/Store.js"

const shop = Namespace.make("shop")
const seed = Number(process.env["SHAPES_SEED"] ?? 20_261_121)
/** A case takes a database, which costs more on PostgreSQL. */
const runs = { sqlite: 30, pg: 8 } as const

const catalogue = Effect.map(
  Catalogue.read,
  (items) => Catalogue.render(items.filter((item) => !Catalogue.isOwn(item)))
)

const found = Effect.map(Introspection.read, (tables) => tables.map(Introspection.shapeOf))

const byName = (a: { readonly name: string }, b: { readonly name: string }) => (a.name < b.name ? -1 : 1)

const byText = (a: ReadonlyArray<string>, b: ReadonlyArray<string>) => (a.join("\0") < b.join("\0") ? -1 : 1)

/** Apart from the order of columns, which PostgreSQL cannot change. */
const sortedShapes = (shapes: ReadonlyArray<Definition.Shape>) =>
  [...shapes].sort(byName).map((shape) => ({ ...shape, columns: [...shape.columns].sort(byName) }))

const insertAll = (specs: ReadonlyArray<Shapes.Spec>, dialect: Dialect) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.forEach(
      specs.flatMap((spec) => Shapes.rowsOf(spec).map((row) => Shapes.insert(spec, row, dialect))),
      (statement) => sql.unsafe(statement),
      { discard: true }
    ))

/** The rows of each table, apart from the names of its columns. */
const contents = (specs: ReadonlyArray<Shapes.Spec>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.forEach(specs, ({ fields, key, name }) =>
      Effect.map(
        sql.unsafe<Record<string, unknown>>(
          `SELECT ${Blueprint.list(fields.map(([column]) => column))} FROM ${Blueprint.quote(name)} ORDER BY ${
            Blueprint.list(key)
          }`
        ),
        (rows) => rows.map((row) => Object.values(row))
      )))

/** The rows of each table, as they compare with what was inserted. */
const comparable = (specs: ReadonlyArray<Shapes.Spec>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.forEach(specs, ({ fields, name }) =>
      Effect.map(
        sql.unsafe<Record<string, unknown>>(`SELECT * FROM ${Blueprint.quote(name)}`),
        (rows) => rows.map((row) => fields.map(([column, field]) => Shapes.comparable(row[column], field))).sort(byText)
      )))

/** Each case has a database of its own, so that a failing one can be made smaller. */
const holds = <A>(
  arbitrary: fc.Arbitrary<A>,
  { dialect, fresh }: (typeof Database.dialects)[number],
  body: (value: A) => Effect.Effect<unknown, unknown, SqlClient.SqlClient>
) =>
  Effect.promise(() =>
    fc.assert(
      fc.asyncProperty(arbitrary, (value) =>
        Effect.runPromise(
          Effect.flatMap(fresh, (database) => Effect.provide(body(value), Store.layer(database))).pipe(
            Effect.asVoid,
            Effect.scoped,
            Logger.withMinimumLogLevel(LogLevel.Warning)
          )
        )),
      { seed, numRuns: Number(process.env["SHAPES_RUNS"] ?? runs[dialect]) }
    )
  )

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  it.live(
    "tables of any types are found again in the catalogue, and up, down and up again is up",
    () =>
      holds(Shapes.specs, { dialect, fresh }, (specs) =>
        Effect.gen(function*() {
          const migrations = { "0001_tables": Draft.migration(Draft.initial(specs.map(Shapes.definitionOf))) }
          yield* Migrator.up(shop, migrations)
          const first = yield* catalogue
          expect(yield* found).toEqual(specs.map(Shapes.shapeOf).sort(byName))
          yield* insertAll(specs, dialect)
          yield* Migrator.down(shop, migrations, "nothing")
          expect(yield* catalogue).toBe("")
          yield* Migrator.up(shop, migrations)
          expect(yield* catalogue).toBe(first)
        }))
  )

  it.live(
    "the difference of a database and the types that it was made from is empty",
    () =>
      holds(Shapes.specs, { dialect, fresh }, (specs) =>
        Effect.gen(function*() {
          const definitions = specs.map(Shapes.definitionOf)
          const migrations = { "0001_tables": Draft.migration(Draft.initial(definitions)) }
          const draft = yield* Draft.difference(shop, migrations, definitions, { shadow: Sqlite.layerMemory })
          expect(draft).toEqual({ changes: [], sql: { [dialect]: { up: [], down: [] } } })
        }))
  )

  it.live(
    "a difference leads from any types to any others, byte by byte, and back",
    () =>
      holds(Shapes.pairs, { dialect, fresh }, ([before, after]) =>
        Effect.gen(function*() {
          const from = before.map(Shapes.definitionOf)
          const to = after.map(Shapes.definitionOf)
          const one = { "0001_tables": Draft.migration(Draft.initial(from)) }
          const draft = yield* Draft.difference(shop, one, to, {
            shadow: Sqlite.layerMemory,
            defaults: defaultsOf(after),
            allowLossy: true
          })
          const two = { ...one, "0002_difference": Draft.migration(draft) }
          yield* Migrator.up(shop, one)
          yield* Migrator.up(shop, two)
          const reached = yield* catalogue
          yield* Migrator.down(shop, two, { to: "0001_tables" })
          expect(sortedShapes(yield* found)).toEqual(sortedShapes(before.map(Shapes.shapeOf)))
          yield* Migrator.up(shop, two)
          expect(yield* catalogue).toBe(reached)
          expect(sortedShapes(yield* found)).toEqual(sortedShapes(after.map(Shapes.shapeOf)))
          const wanted = { "0001_tables": Draft.migration(Draft.initial(inOrder(from, to, dialect))) }
          const made = yield* Effect.scoped(
            Effect.flatMap(
              fresh,
              (database) => Effect.provide(Effect.zipRight(Migrator.up(shop, wanted), catalogue), Store.layer(database))
            )
          )
          expect(reached).toBe(made)
        }))
  )

  it.live(
    "what grows keeps every row and its meaning, with no loss allowed, and up, down and up again is up",
    () =>
      holds(Shapes.grown, { dialect, fresh }, ([before, after]) =>
        Effect.gen(function*() {
          const to = after.map(Shapes.definitionOf)
          const one = { "0001_tables": Draft.migration(Draft.initial(before.map(Shapes.definitionOf))) }
          const draft = yield* Draft.difference(shop, one, to, {
            shadow: Sqlite.layerMemory,
            defaults: defaultsOf(after)
          })
          const two = { ...one, "0002_grown": Draft.migration(draft) }
          yield* Migrator.up(shop, one)
          yield* insertAll(before, dialect)
          yield* Migrator.up(shop, two)
          expect(yield* comparable(after)).toEqual(
            after.map((spec, i) => Shapes.grownRows(before[i]!, spec).toSorted(byText))
          )
          const reached = yield* catalogue
          yield* Migrator.down(shop, two, { to: "0001_tables" })
          yield* Migrator.up(shop, two)
          expect(yield* catalogue).toBe(reached)
          expect((yield* Draft.difference(shop, two, to, { shadow: Sqlite.layerMemory })).changes).toEqual([])
        }))
  )

  it.live(
    "tables and columns that take each other's names keep their rows, and are as if they had been made so",
    () =>
      holds(Shapes.renamed, { dialect, fresh }, ({ after, before, renames }) =>
        Effect.gen(function*() {
          const to = after.map(Shapes.definitionOf)
          const one = { "0001_tables": Draft.migration(Draft.initial(before.map(Shapes.definitionOf))) }
          const draft = yield* Draft.difference(shop, one, to, { shadow: Sqlite.layerMemory, renames })
          const two = { ...one, "0002_renamed": Draft.migration(draft) }
          yield* Migrator.up(shop, one)
          yield* insertAll(before, dialect)
          const rows = yield* contents(before)
          yield* Migrator.up(shop, two)
          expect(yield* contents(after)).toEqual(rows)
          const reached = yield* catalogue
          yield* Migrator.down(shop, two, { to: "0001_tables" })
          expect(yield* contents(before)).toEqual(rows)
          yield* Migrator.up(shop, two)
          expect(yield* catalogue).toBe(reached)
          yield* Migrator.down(shop, two, "nothing")
          yield* Migrator.up(shop, { "0001_tables": Draft.migration(Draft.initial(to)) })
          expect(yield* catalogue).toBe(reached)
        }))
  )
})

const defaultsOf = (specs: ReadonlyArray<Shapes.Spec>) =>
  Object.fromEntries(specs.map(({ fields, name }) => [
    name,
    Object.fromEntries(
      fields
        .filter(([, { nullable }]) => !nullable)
        .map(([column, each]) => [column, valueOf(each.kind, Shapes.sample(each, 0))])
    )
  ]))

/** What the Schema of a kind takes. */
const valueOf = (kind: Column.Kind, cell: Column.Cell): unknown =>
  kind === "timestamp" ? new Date(String(cell)) : kind === "json" ? JSON.parse(String(cell)) : cell

/** With the columns of each table in the order that an alteration leaves. */
const inOrder = (
  from: ReadonlyArray<Definition.Shape>,
  to: ReadonlyArray<Definition.Shape>,
  dialect: Dialect
): ReadonlyArray<Definition.Shape> => {
  const { kept } = Comparison.between(from, to)
  return to.map((shape) => {
    const pair = kept.find(({ after }) => after === shape)
    const isChanged = pair !== undefined && Comparison.changesWithin(pair).length > 0
    if (pair === undefined) return shape
    if (isChanged && dialect === "pg") return { ...shape, columns: columnsAfter(pair) }
    // SQLite builds a table anew, in the order of the types, unless nothing but its indexes changes.
    return isChanged && isRebuilt(pair) ? shape : { ...shape, columns: pair.before.columns }
  })
}

/** On PostgreSQL: those that stayed, then those that came. */
const columnsAfter = ({ added, before, kept }: Comparison.TablePair): ReadonlyArray<Column.Shape> => [
  ...before.columns.flatMap((column) => kept.filter((each) => each.before === column).map(({ after }) => after)),
  ...added
]

const isRebuilt = (pair: Comparison.TablePair) =>
  Comparison.changesWithin(pair).some(({ what }) => !what.startsWith("unique ") && !what.startsWith("index "))

describe("the typings of a migrated database", () => {
  const specs = fc.sample(Shapes.specs, { seed, numRuns: 24 })
  let output: string | undefined

  beforeAll(async () => {
    const texts = await Effect.runPromise(
      Effect.scoped(
        Effect.forEach(
          Database.dialects,
          ({ dialect, fresh }) =>
            Effect.forEach(
              specs,
              (each) =>
                Effect.scoped(
                  Effect.flatMap(fresh, (database) => Effect.provide(generated(each, dialect), Store.layer(database)))
                )
            ).pipe(
              Effect.map((all) => all.map((text, i) => ({ name: `${dialect}${i}.ts`, text })))
            )
        )
      ).pipe(Logger.withMinimumLogLevel(LogLevel.Warning))
    )
    output = Compiler.compile(texts.flat())
  })

  it("compile, and are the types that the migration was generated from", () => {
    expect(output).toBe("")
  })

  it("would not be found equal if one were different", () => {
    const text = `import type * as Schema from "effect/Schema"
type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
export const one: Equal<Schema.Schema.Type<typeof Schema.String>, number> = true
`
    expect(Compiler.compile([{ name: "wrong.ts", text }])).toContain("TS2322")
  })
})

const generated = (specs: ReadonlyArray<Shapes.Spec>, dialect: Dialect) =>
  Effect.gen(function*() {
    yield* Migrator.up(shop, { "0001_tables": Draft.migration(Draft.initial(specs.map(Shapes.definitionOf))) })
    const tables = yield* Introspection.read
    const text = Typings.generate(tables, { dialect, source: "a test" })
    const sorted = [...specs].sort(byName)
    const rows = [...text.matchAll(/^export type (\w+Row) = /gm)].map((match) => match[1])
    expect(rows).toHaveLength(specs.length)
    return `${text}
type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
export const equal: [${sorted.map((spec, i) => `Equal<${rows[i]}, ${Shapes.typeOf(spec)}>`).join(", ")}] = [${
      sorted.map(() => "true").join(", ")
    }]
export const keys: Equal<keyof Database, ${sorted.map(({ name }) => JSON.stringify(name)).join(" | ")}> = true
`
  })
