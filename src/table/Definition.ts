/**
 * A definition: the name, columns and keys of a table, the same on both databases.
 *
 *     Definition.make("search_index", Schema.Struct({ id: Schema.String, content: Schema.String }), { key: ["id"] })
 *
 * Invariants: names are plain identifiers of at most 63 bytes; a table's hides nothing that the framework asks; no two columns
 * differ in case alone, and none is one that PostgreSQL has in every table; the key has at least one column and none that is
 * nullable; what `unique` and `indexes` name are columns.
 */

import type * as Schema from "effect/Schema"
import * as AST from "effect/SchemaAST"
import * as Column from "./Column.js"

/** What the database is told of a table. */
export interface Shape {
  readonly name: string
  /** In the order of the Schema's properties. */
  readonly columns: ReadonlyArray<Column.Shape>
  /** The primary key's columns, in order. */
  readonly key: ReadonlyArray<string>
  /** Further sets of columns of which no two rows have the same values. */
  readonly unique: ReadonlyArray<ReadonlyArray<string>>
  readonly indexes: ReadonlyArray<ReadonlyArray<string>>
}

export interface Definition extends Shape {
  readonly columns: ReadonlyArray<Column.Column>
  /** The column that holds the id of the document a row was projected from, where rows are of one document each. */
  readonly document: string | undefined
}

/** A definition, or what has one: a `Table`. */
export type Declared = Shape | { readonly definition: Shape }

export const shapeOf = (declared: Declared): Shape => "definition" in declared ? declared.definition : declared

export interface Options {
  readonly key: ReadonlyArray<string>
  readonly unique?: ReadonlyArray<ReadonlyArray<string>> | undefined
  readonly indexes?: ReadonlyArray<ReadonlyArray<string>> | undefined
  readonly document?: string | undefined
}

const identifier = /^[A-Za-z_][A-Za-z0-9_]{0,62}$/
const identifiers = "a name is A-Z, a-z, 0-9 and _, no digit first, at most 63 characters"
const reserved = /^(processor_|sqlite_|pg_)/i
/** Functions of SQLite that the framework's statements select from: a table of the name takes their place, in any case. */
const functions = /^(json_each$|pragma_)/i
/** What every table of PostgreSQL has by itself. */
const systemColumns: ReadonlySet<string> = new Set(["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"])

/** Throws a `TypeError` that names what cannot be: a name, a key, or a property that no column can hold. */
export const make = (name: string, schema: Schema.Schema.AnyNoContext, options: Options): Definition => {
  if (!identifier.test(name)) throw new TypeError(`${JSON.stringify(name)} cannot name a table: ${identifiers}`)
  if (reserved.test(name)) {
    throw new TypeError(`${name} cannot name a table: processor_, sqlite_ and pg_ begin names that are taken`)
  }
  if (functions.test(name)) {
    throw new TypeError(
      `${name} cannot name a table: json_each and pragma_ are functions of SQLite, which it would hide`
    )
  }
  const columns = propertiesOf(name, schema.ast).map(({ isOptional, name: property, type }) => {
    if (typeof property !== "string" || !identifier.test(property)) {
      throw new TypeError(`${String(property)} cannot name a column of ${name}: ${identifiers}`)
    }
    if (systemColumns.has(property)) {
      throw new TypeError(`${property} cannot name a column of ${name}: PostgreSQL has one of that name in every table`)
    }
    if (isOptional) throw new TypeError(`${name}.${property} is optional; a column is always there, so use NullOr`)
    return Column.fromAst(property, type)
  })
  const { document: documentColumn, indexes = [], key, unique = [] } = options
  const isFound = documentColumn === undefined ||
    [key, ...unique, ...indexes].some(([first]) => first === documentColumn)
  const definition = {
    name,
    columns,
    key,
    unique,
    // The rows of a document are looked for whenever it is projected anew.
    indexes: isFound ? indexes : [...indexes, [documentColumn]],
    document: documentColumn
  }
  const document = columns.find((column) => column.name === documentColumn)
  if (documentColumn !== undefined && (document?.kind !== "text" || document.nullable)) {
    throw new TypeError(`${name}.${documentColumn} holds no document's id: it has to be a column of text, never NULL`)
  }
  check(definition)
  return definition
}

/** Throws a `TypeError` that names what breaks an invariant. */
export const check = ({ columns, indexes, key, name, unique }: Shape): void => {
  const known = new Map(columns.map((column) => [column.name, column]))
  const folded = new Set(columns.map((column) => column.name.toLowerCase()))
  if (folded.size < columns.length) throw new TypeError(`two columns of ${name} differ in case alone`)
  for (const names of [key, ...unique, ...indexes]) {
    if (names.length === 0) throw new TypeError(`a key or index of ${name} has no columns`)
    if (new Set(names).size < names.length) throw new TypeError(`a key or index of ${name} has a column twice`)
    for (const each of names) {
      const column = known.get(each)
      if (column === undefined) throw new TypeError(`${name} has no column ${each}`)
      if (column.kind === "json") throw new TypeError(`${name}.${each} is JSON, which cannot be a key`)
    }
  }
  const empty = key.find((each) => known.get(each)?.nullable === true)
  if (empty !== undefined) throw new TypeError(`${name}.${empty} is nullable, which the key cannot be`)
}

/** The properties of a struct or of a class made of one. */
const propertiesOf = (name: string, ast: AST.AST): ReadonlyArray<AST.PropertySignature> => {
  if (AST.isTypeLiteral(ast) && ast.indexSignatures.length === 0) return ast.propertySignatures
  if (AST.isTransformation(ast) && AST.isTypeLiteral(ast.from) && AST.isDeclaration(ast.to)) {
    return propertiesOf(name, ast.from)
  }
  throw new TypeError(`the rows of ${name} are no Struct and no Class: ${String(ast)}`)
}
