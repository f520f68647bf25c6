/**
 * Shapes: tables of random types, as definitions and as what a reader would write down for them, and rows that they hold.
 */
import * as Schema from "effect/Schema"
import * as fc from "fast-check"
import type { Dialect } from "../../src/domain/Dialect.js"
import { type Column, Definition, type Draft } from "../../src/index.js"
import * as Blueprint from "../../src/schema/Blueprint.js"

/** A column as the test says it, independent of what the framework makes of it. */
export interface Field {
  readonly kind: Column.Kind
  readonly nullable: boolean
  readonly values: ReadonlyArray<string>
}

/** A table, as a Schema that is built from it says it again. */
export interface Spec extends Definition.Options {
  readonly name: string
  readonly fields: ReadonlyArray<readonly [name: string, field: Field]>
  readonly unique: ReadonlyArray<ReadonlyArray<string>>
  readonly indexes: ReadonlyArray<ReadonlyArray<string>>
}

const longName = "a_name_of_sixty_three_bytes_which_is_as_many_as_postgresql_keeps"

const columnNames = [
  "id",
  "title",
  "order",
  "Group",
  "select",
  "x",
  "_1",
  "a_b",
  "value",
  "check",
  longName.slice(0, 63)
]
const tableNames = [
  "todos",
  "table",
  "User",
  "search_index",
  "a",
  `${longName.slice(0, 60)}_t1`,
  `${longName.slice(0, 60)}_t2`
]

const kinds: ReadonlyArray<Column.Kind> = [
  "text",
  "enum",
  "integer",
  "double",
  "bigint",
  "boolean",
  "timestamp",
  "bytes",
  "json"
]

const enumValues = fc.uniqueArray(fc.constantFrom("open", "done", "it's", "b\\c", "", "%_", "$1", "\"q\"", "x, 'y'"), {
  minLength: 1,
  maxLength: 4
})

const field: fc.Arbitrary<Field> = fc
  .record({ kind: fc.constantFrom(...kinds), nullable: fc.boolean(), values: enumValues })
  .map((each) => ({ ...each, values: each.kind === "enum" ? each.values : [] }))

const keyField = field.filter(({ kind, nullable }) => kind !== "json" && !nullable)

/** Lists of columns that an index can have. */
const sets = (columns: ReadonlyArray<string>, maxLength: number) =>
  fc.array(fc.shuffledSubarray([...columns], { minLength: 1, maxLength: Math.min(3, columns.length) }), { maxLength })

const specOf = (name: string): fc.Arbitrary<Spec> =>
  fc
    .tuple(fc.uniqueArray(fc.constantFrom(...columnNames), { minLength: 1, maxLength: 7 }), keyField)
    .chain(([columns, first]) =>
      fc.tuple(...columns.map((column, i) => fc.tuple(fc.constant(column), i === 0 ? fc.constant(first) : field)))
    )
    .chain((fields) => withSets(name, fields))

const withSets = (name: string, fields: Spec["fields"]): fc.Arbitrary<Spec> => {
  const keys = fields.filter(([, { kind, nullable }]) => kind !== "json" && !nullable).map(([column]) => column)
  const indexed = fields.filter(([, { kind }]) => kind !== "json").map(([column]) => column)
  return fc.record({
    name: fc.constant(name),
    fields: fc.shuffledSubarray([...fields], { minLength: fields.length }),
    key: fc.shuffledSubarray(keys, { minLength: 1, maxLength: Math.min(2, keys.length) }),
    unique: sets(indexed, 2),
    indexes: sets(indexed, 2)
  })
}

/** One to three tables. */
export const specs: fc.Arbitrary<ReadonlyArray<Spec>> = fc
  .uniqueArray(fc.constantFrom(...tableNames), { minLength: 1, maxLength: 3 })
  .chain((all) => fc.tuple(...all.map(specOf)))

/** Tables, and the same with some things changed: columns, kinds, keys, tables. */
export const pairs: fc.Arbitrary<readonly [before: ReadonlyArray<Spec>, after: ReadonlyArray<Spec>]> = fc.oneof(
  { weight: 3, arbitrary: specs.chain((before) => fc.tuple(fc.constant(before), changed(before))) },
  { weight: 1, arbitrary: fc.tuple(specs, specs) }
)

const changed = (before: ReadonlyArray<Spec>): fc.Arbitrary<ReadonlyArray<Spec>> =>
  fc.tuple(...before.map((spec) =>
    fc
      .tuple(
        fc.subarray([...spec.fields], { minLength: 1 }).chain((kept) =>
          fc.tuple(
            ...kept.map(([name, each]) =>
              fc.tuple(fc.constant(name), fc.oneof({ weight: 3, arbitrary: fc.constant(each) }, field))
            )
          )
        ),
        fc.array(fc.tuple(fc.constantFrom(...columnNames), field), { maxLength: 2 }),
        keyField,
        fc.boolean()
      )
      .chain(([kept, more, first, isSameSets]) => {
        const added = more.filter(([name], i) =>
          !kept.some(([other]) => other === name) && more.findIndex(([other]) => other === name) === i
        )
        const all = [...kept, ...added]
        const isKeyed = all.some(([, { kind, nullable }]) => kind !== "json" && !nullable)
        const fields = isKeyed ? all : all.map(([name, each], i) => [name, i === 0 ? first : each] as const)
        const isWhole = isSameSets && isKeyed && kept.length === spec.fields.length
        return isWhole ? fc.constant({ ...spec, fields }) : withSets(spec.name, fields)
      })
  ))

/** Tables, and the same with changes that keep every row and its meaning. */
export const grown: fc.Arbitrary<readonly [before: ReadonlyArray<Spec>, after: ReadonlyArray<Spec>]> = specs.chain(
  (before) => fc.tuple(fc.constant(before), fc.tuple(...before.map(grownOf)))
)

const grownOf = (spec: Spec): fc.Arbitrary<Spec> => {
  const indexed = new Set([...spec.key, ...spec.unique.flat()])
  const free = columnNames.filter((name) => !spec.fields.some(([other]) => other === name))
  const kept = spec.fields.map(([name, each]) =>
    // Equal values must not become so, nor must a key be nullable.
    fc.tuple(fc.constant(name), indexed.has(name) ? fc.constant(each) : wider(each))
  )
  return fc
    .tuple(fc.tuple(...kept), fc.subarray(free, { maxLength: Math.min(2, free.length) }), field, fc.boolean())
    .chain(([fields, more, each, keepsUnique]) => {
      const all: Spec["fields"] = [...fields, ...more.map((name) => [name, each] as const)]
      return fc.record({
        name: fc.constant(spec.name),
        fields: fc.constant(all),
        key: fc.constant(spec.key),
        unique: fc.constant(keepsUnique ? spec.unique : []),
        indexes: sets(all.filter(([, { kind }]) => kind !== "json").map(([name]) => name), 2)
      })
    })
}

const wider = (each: Field): fc.Arbitrary<Field> =>
  fc.record({
    kind: fc.constantFrom(each.kind, ...widerKinds[each.kind] ?? []),
    nullable: fc.boolean(),
    more: fc.boolean()
  }).map(({ kind, more, nullable }) => ({
    kind,
    // On the way back a default of another kind could not be read as one of this.
    nullable: kind === each.kind ? nullable : each.nullable || nullable,
    values: kind !== "enum" ? [] : more ? [...each.values, "new"] : each.values
  }))

const widerKinds: { readonly [K in Column.Kind]?: ReadonlyArray<Column.Kind> } = {
  enum: ["text"],
  integer: ["bigint", "double", "text"],
  bigint: ["text"],
  boolean: ["integer", "bigint", "text"],
  timestamp: ["text"],
  json: ["text"]
}

/** What a row that was inserted as `rowsOf` holds once its table has grown, in the form of `comparable`. */
export const grownRows = (before: Spec, after: Spec): ReadonlyArray<ReadonlyArray<string>> =>
  rowsOf(before).map((row) =>
    after.fields.map(([name, to]) => {
      const i = before.fields.findIndex(([other]) => other === name)
      const from = before.fields[i]?.[1]
      const cell = from === undefined ? null : row[i] ?? null
      // Where a value is asked for, it is the default that the test gives.
      if (from === undefined || cell === null) return to.nullable ? "null" : comparable(sample(to, 0), to)
      if (from.kind === "boolean" && to.kind !== "text") return cell === true ? "1" : "0"
      return comparable(cell, from.kind === "json" ? from : to)
    })
  )

/** A value as it was written or read, the same text for the same meaning. */
export const comparable = (value: unknown, { kind }: Pick<Field, "kind">): string => {
  if (value === null) return "null"
  if (value instanceof Date) return value.toISOString()
  if (value instanceof Uint8Array) return Buffer.from(value).toString("hex")
  // As text, JSON is written with other spaces by each database.
  const isJsonText = typeof value === "string" && (kind === "json" || value.startsWith("{"))
  const parsed: unknown = isJsonText ? JSON.parse(value) : value
  if (kind === "json" || isJsonText) return JSON.stringify(parsed, ["i", "text"])
  if (kind === "boolean" && typeof value === "boolean") return value ? "1" : "0"
  return typeof value === "string" ? value : typeof value === "bigint" ? value.toString() : JSON.stringify(value)
}

/** Tables, and the same with their names and those of their columns given to one another, and which went where. */
export const renamed: fc.Arbitrary<{
  readonly before: ReadonlyArray<Spec>
  readonly after: ReadonlyArray<Spec>
  readonly renames: Draft.Renames
}> = specs.chain((before) =>
  fc
    .tuple(
      shuffled([...before.map(({ name }) => name), "another"]),
      fc.tuple(...before.map(({ fields }) => shuffled([...fields.map(([name]) => name), "other"])))
    )
    .map(([tables, columns]) => {
      const all = before.map((spec, i) => {
        const to = new Map(spec.fields.map(([name], k) => [name, columns[i]![k]!]))
        const each = (own: ReadonlyArray<string>) => own.map((name) => to.get(name)!)
        const after: Spec = {
          name: tables[i]!,
          fields: spec.fields.map(([name, type]) => [to.get(name)!, type]),
          key: each(spec.key),
          unique: spec.unique.map(each),
          indexes: spec.indexes.map(each)
        }
        return {
          after,
          columns: [after.name, Object.fromEntries(to)] as const,
          table: [spec.name, after.name] as const
        }
      })
      return {
        before,
        after: all.map(({ after }) => after),
        renames: {
          tables: Object.fromEntries(all.map(({ table }) => table)),
          columns: Object.fromEntries(all.map((each) => each.columns))
        }
      }
    })
)

const shuffled = (all: ReadonlyArray<string>) => fc.shuffledSubarray([...all], { minLength: all.length })

/** As the framework is told. */
export const definitionOf = ({ fields, indexes, key, name, unique }: Spec): Definition.Definition =>
  Definition.make(name, Schema.Struct(Object.fromEntries(fields.map(([column, each]) => [column, schemaOf(each)]))), {
    key,
    unique,
    indexes
  })

/** What is to be found again. */
export const shapeOf = ({ fields, indexes, key, name, unique }: Spec): Definition.Shape =>
  Blueprint.canonical({
    name,
    columns: fields.map(([column, { kind, nullable, values }]) => ({ name: column, kind, nullable, values })),
    key,
    unique,
    indexes
  })

const schemaOf = ({ kind, nullable, values }: Field): Schema.Schema.AnyNoContext => {
  const schema = kind === "enum" ? Schema.Literal(...values) : schemas[kind]
  return nullable ? Schema.NullOr(schema) : schema
}

const schemas: { readonly [K in Exclude<Column.Kind, "enum">]: Schema.Schema.AnyNoContext } = {
  text: Schema.String,
  integer: Schema.Int,
  double: Schema.Finite,
  bigint: Schema.BigIntFromSelf,
  boolean: Schema.Boolean,
  timestamp: Schema.DateFromSelf,
  bytes: Schema.Uint8ArrayFromSelf,
  json: Schema.Unknown
}

/** The type of a row, as it would be written by hand. */
export const typeOf = ({ fields }: Spec): string =>
  `{ ${
    fields.map(([name, { kind, nullable, values }]) => {
      const type = kind === "enum" ? values.map((value) => JSON.stringify(value)).join(" | ") : types[kind]
      return `readonly ${name}: ${nullable ? `${type} | null` : type}`
    }).join("; ")
  } }`

const types: { readonly [K in Exclude<Column.Kind, "enum">]: string } = {
  text: "string",
  integer: "number",
  double: "number",
  bigint: "bigint",
  boolean: "boolean",
  timestamp: "Date",
  bytes: "Uint8Array",
  json: "unknown"
}

/** Two rows that differ in every column, or one where a key allows no more. */
export const rowsOf = (spec: Spec): ReadonlyArray<ReadonlyArray<Column.Cell>> => {
  const isSingle = (name: string) => spec.fields.find(([each]) => each === name)?.[1].values.length === 1
  const count = [spec.key, ...spec.unique].some((columns) => columns.every(isSingle)) ? 1 : 2
  return [0, 1].slice(0, count).map((i) => spec.fields.map(([, each]) => sample(each, i)))
}

/** A value of the column's type, as a default. */
export const sample = ({ kind, nullable, values }: Field, i: number): Column.Cell => {
  if (nullable && i === 1) return null
  switch (kind) {
    case "text":
      return `it's ${i} \\ "\u00e9"`
    case "enum":
      return values[i % values.length] ?? null
    case "integer":
      return i === 0 ? Number.MIN_SAFE_INTEGER : i
    case "double":
      return i === 0 ? -1.7976931348623157e308 : 0.1
    case "bigint":
      return i === 0 ? 9223372036854775807n : -9223372036854775808n
    case "boolean":
      return i === 0
    case "timestamp":
      return i === 0 ? "0001-01-01T00:00:00.000Z" : "9999-12-31T23:59:59.999Z"
    case "bytes":
      return new Uint8Array([i, 255])
    case "json":
      return JSON.stringify({ i, text: "it's" })
  }
}

export const insert = (spec: Spec, row: ReadonlyArray<Column.Cell>, dialect: Dialect): string =>
  `INSERT INTO ${Blueprint.quote(spec.name)} (${Blueprint.list(spec.fields.map(([name]) => name))}) VALUES (${
    spec.fields.map((_, i) => Blueprint.literal(row[i] ?? null, dialect)).join(", ")
  })`
