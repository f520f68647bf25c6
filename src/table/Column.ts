/**
 * A column: what one property of a row's Schema becomes in a table, the same on both databases.
 *
 *     Type ──encode, as the Schema says──▶ Encoded ──▶ cell ──▶ parameter
 *     Type ◀──decode──────────────────── Encoded ◀── cell ◀──read── what the database returned
 *
 * | kind      | Schema, for instance                   | cell       | PostgreSQL       | SQLite  |
 * | text      | String, brands and filters of it       | string     | TEXT             | TEXT    |
 * | enum      | Literal("a", "b")                      | string     | TEXT             | TEXT    |
 * | integer   | Int                                    | number     | BIGINT           | INTEGER |
 * | double    | Number                                 | number     | DOUBLE PRECISION | REAL    |
 * | bigint    | BigInt, BigIntFromSelf                 | bigint     | BIGINT           | INTEGER |
 * | boolean   | Boolean                                | boolean    | BOOLEAN          | INTEGER |
 * | timestamp | Date, DateFromSelf, DateTimeUtc        | ISO string | TIMESTAMPTZ      | TEXT    |
 * | bytes     | Uint8ArrayFromSelf, …FromBase64        | Uint8Array | BYTEA            | BLOB    |
 * | json      | a struct, an array, a record, Unknown  | JSON text  | JSONB            | TEXT    |
 *
 * Invariant: a cell means the same on both databases, so what only one of them could hold is refused before either sees
 * it: NUL characters, lone surrogates, NaN and the infinities, integers beyond 64 bits, years beyond 1 to 9999.
 */

import * as DateTime from "effect/DateTime"
import * as Either from "effect/Either"
import { constant } from "effect/Function"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import * as AST from "effect/SchemaAST"

export type Kind = "text" | "enum" | "integer" | "double" | "bigint" | "boolean" | "timestamp" | "bytes" | "json"

/** A value between a Schema and a database. */
export type Cell = string | number | bigint | boolean | Uint8Array | null

/** A column as it is declared, apart from how values get in and out of it. */
export interface Shape {
  readonly name: string
  readonly kind: Kind
  readonly nullable: boolean
  /** What an `enum` may hold, in the order in which it is declared; none for other kinds. */
  readonly values: ReadonlyArray<string>
}

export interface Column extends Shape {
  /** The cell of a value of the Schema's Type, or why it has none. */
  readonly encode: (value: unknown) => Cell | Unfit
  /** The value of the Schema's Type that a cell stands for, or an {@link Unfit} that says why the Schema refuses it. */
  readonly decode: (cell: Cell) => unknown
  /** The cell that a database returned, or why what it returned is none. */
  readonly read: (stored: unknown) => Cell | Unfit
  /**
   * What is added to the stored number, as a cell, or why it cannot be. None for a column that is no number, or whose
   * Schema stores another number than the one that a program sees.
   */
  readonly delta: ((value: unknown) => Cell | Unfit) | undefined
}

/** Why a value does not fit a column. */
export class Unfit {
  constructor(readonly reason: string) {}
}

const KindId: unique symbol = Symbol.for("effect-processors/Column/kind")

/**
 * Says which kind of column a Schema becomes, where the kind that is found by itself does not fit:
 * `Schema.String.pipe(Column.as("timestamp"))` for text that is an ISO 8601 instant. What is stored is the encoded side.
 */
export const as = (kind: Kind) => <A, I, R>(self: Schema.Schema<A, I, R>): Schema.Schema<A, I, R> =>
  self.annotations({ [KindId]: kind })

/** The column of a property; throws a `TypeError` that says why there is none. */
export const fromAst = (name: string, declared: AST.AST): Column => {
  const { ast, nullable } = withoutNull(declared)
  const said = Option.getOrUndefined(AST.getAnnotation<Kind>(KindId)(declared)) ??
    Option.getOrUndefined(AST.getAnnotation<Kind>(KindId)(ast))
  const natural = naturalKind(bare(AST.typeAST(ast)))
  const isNatural = natural !== undefined && (said === undefined || said === natural)
  const encoded = withoutNull(AST.encodedAST(ast))
  const kind = said ?? natural ?? encodedKind(name, ast, encoded.ast)
  const shape = {
    name,
    kind,
    nullable: nullable || (!isNatural && encoded.nullable),
    values: kind === "enum" ? literals(encoded.ast).map(String) : []
  }
  const isPlainNumber = isNatural ? kind === "bigint" : AST.isNumberKeyword(bare(ast))
  return {
    ...shape,
    ...codec(shape, isNatural ? AST.typeAST(ast) : ast),
    read: readerOf(shape),
    delta: isPlainNumber && isNumeric(kind) ? cellOf(shape) : undefined
  }
}

/** Whether the database can add to what it stores. */
const isNumeric = (kind: Kind): kind is "integer" | "double" | "bigint" =>
  kind === "integer" || kind === "double" || kind === "bigint"

const isAnything = (ast: AST.AST): boolean => AST.isUnknownKeyword(ast) || AST.isAnyKeyword(ast)

/** The kinds whose values go into a database as the Type has them, not as the Encoded side writes them. */
const naturalKind = (type: AST.AST): Kind | undefined => {
  if (AST.isBigIntKeyword(type)) return "bigint"
  switch (Option.getOrUndefined(AST.getIdentifierAnnotation(type))) {
    case "DateFromSelf":
    case "DateTimeUtcFromSelf":
      return "timestamp"
    case "Uint8ArrayFromSelf":
      return "bytes"
    default:
      return undefined
  }
}

const encodedKind = (name: string, declared: AST.AST, encoded: AST.AST): Kind => {
  switch (encoded._tag) {
    case "StringKeyword":
    case "TemplateLiteral":
      return "text"
    case "NumberKeyword":
      return isInteger(declared) ? "integer" : "double"
    case "BooleanKeyword":
      return "boolean"
    case "TypeLiteral":
    case "TupleType":
    case "UnknownKeyword":
    case "AnyKeyword":
    case "ObjectKeyword":
    case "Suspend":
      return "json"
    case "Literal":
    case "Union": {
      const found = literals(encoded)
      if (found.length === 0 || found.some((value) => value === undefined)) return "json"
      if (found.every((value) => typeof value === "string")) return "enum"
      if (found.every((value) => typeof value === "boolean")) return "boolean"
      if (found.every((value) => Number.isSafeInteger(value))) return "integer"
      return found.every((value) => typeof value === "number") ? "double" : "json"
    }
    default:
      throw new TypeError(`no column can hold ${name}: ${String(encoded)}; say which with Column.as`)
  }
}

/** The literals of a union of nothing else, `undefined` in the place of any other member. */
const literals = (ast: AST.AST): ReadonlyArray<AST.LiteralValue | undefined> => {
  const members = AST.isUnion(ast) ? ast.types : [ast]
  return members.map((member) => AST.isLiteral(member) ? member.literal : undefined)
}

const isInteger = (ast: AST.AST): boolean => {
  for (let at = ast; AST.isRefinement(at); at = at.from) {
    const json = Option.getOrUndefined(AST.getJSONSchemaAnnotation(at))
    if (json !== undefined && "type" in json && json.type === "integer") return true
  }
  return false
}

/** Without brands and filters. */
const bare = (ast: AST.AST): AST.AST => AST.isRefinement(ast) ? bare(ast.from) : ast

const withoutNull = (ast: AST.AST): { readonly ast: AST.AST; readonly nullable: boolean } => {
  if (!AST.isUnion(ast)) return { ast, nullable: false }
  const rest = ast.types.filter((member) => !(AST.isLiteral(member) && member.literal === null))
  return rest.length === ast.types.length
    ? { ast, nullable: false }
    : { ast: AST.Union.make(rest, ast.annotations), nullable: true }
}

const codec = (shape: Shape, ast: AST.AST): Pick<Column, "encode" | "decode"> => {
  const toCell = cellOf(shape)
  const ofCell = valueOf(shape.kind, ast)
  // A keyword alone has nothing to check beyond what the cell checks. In JSON that is no NULL, null is a value as any other.
  if (isPlain(ast)) {
    const nullIsJson = isAnything(ast) && !shape.nullable
    return {
      encode: (value) => value === null && !nullIsJson ? nullOf(shape) : toCell(value),
      decode: (cell) => cell === null ? nullOf(shape) : ofCell(cell)
    }
  }
  const schema = Schema.make<unknown, unknown>(ast)
  const encode = ParseResult.encodeUnknownEither(schema)
  const decode = ParseResult.decodeUnknownEither(schema)
  const nullIsOurs = shape.nullable && !acceptsNull(ast)
  return {
    encode: (value) => {
      if (value === null && nullIsOurs) return null
      const encoded = encode(value)
      if (Either.isLeft(encoded)) return unfit(encoded.left)
      return encoded.right === null ? nullOf(shape) : toCell(encoded.right)
    },
    decode: (cell) => {
      if (cell === null && nullIsOurs) return null
      const stored = cell === null ? nullOf(shape) : ofCell(cell)
      if (stored instanceof Unfit) return stored
      const decoded = decode(stored)
      return Either.isLeft(decoded)
        ? unfit(decoded.left)
        : decoded.right
    }
  }
}

const unfit = (issue: ParseResult.ParseIssue): Unfit =>
  new Unfit(
    ParseResult.ArrayFormatter.formatIssueSync(issue)
      .map(({ message, path }) => path.length === 0 ? message : `${path.map(String).join(".")}: ${message}`)
      .join("; ")
  )

const nullOf = (shape: Shape): null | Unfit => shape.nullable ? null : new Unfit("it is null")

const acceptsNull = (ast: AST.AST): boolean => withoutNull(AST.encodedAST(ast)).nullable

const isPlain = (ast: AST.AST): boolean =>
  AST.isStringKeyword(ast) || AST.isNumberKeyword(ast) || AST.isBooleanKeyword(ast) || AST.isBigIntKeyword(ast) ||
  isAnything(ast) || (AST.isDeclaration(ast) && naturalKind(ast) !== undefined) ||
  literals(ast).every((value) => typeof value === "string")

/** What is stored, as a cell. */
const cellOf = ({ kind, values }: Shape): (value: unknown) => Cell | Unfit => {
  switch (kind) {
    case "text":
      return textCell
    case "enum": {
      const known: ReadonlySet<unknown> = new Set(values)
      return (value) => known.has(value) ? value as string : new Unfit(`${show(value)} is none of ${values.join(", ")}`)
    }
    case "integer":
      return (value) =>
        Number.isSafeInteger(value) ? value as number + 0 : new Unfit(`${show(value)} is no integer below 2^53`)
    case "double":
      return (value) => Number.isFinite(value) ? value as number + 0 : new Unfit(`${show(value)} is no finite number`)
    case "bigint":
      return bigintCell
    case "boolean":
      return (value) => typeof value === "boolean" ? value : new Unfit(`${show(value)} is no boolean`)
    case "timestamp":
      return timestampCell
    case "bytes":
      return (value) => value instanceof Uint8Array ? value : new Unfit(`${show(value)} is no Uint8Array`)
    case "json":
      return jsonCell
  }
}

const textCell = (value: unknown): Cell | Unfit => {
  if (typeof value !== "string") return new Unfit(`${show(value)} is no text`)
  if (value.includes("\u0000")) return new Unfit("the text holds a NUL character")
  return value.isWellFormed() ? value : new Unfit("the text holds a lone surrogate")
}

const bigintCell = (value: unknown): Cell | Unfit => {
  const integer = typeof value === "string" && /^-?\d{1,19}$/.test(value) ? BigInt(value) : value
  return typeof integer === "bigint" && BigInt.asIntN(64, integer) === integer
    ? integer
    : new Unfit(`${show(value)} is no integer of 64 bits`)
}

const instant = /^(?!0000)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

const timestampCell = (value: unknown): Cell | Unfit => {
  const text = value instanceof Date
    ? Number.isNaN(value.getTime()) ? "" : value.toISOString()
    : DateTime.isDateTime(value)
    ? DateTime.formatIso(value)
    : typeof value !== "string"
    ? ""
    : instant.test(value) && !Number.isNaN(Date.parse(value))
    ? value
    : Option.match(DateTime.make(value), { onNone: constant(""), onSome: DateTime.formatIso })
  return instant.test(text) ? text : new Unfit(`${show(value)} is no instant of the years 1 to 9999`)
}

/** An escape of NUL or of half a surrogate pair, in the way `JSON.stringify` writes it. */
const unstorable = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f][0-9a-f]{2})/

const jsonCell = (value: unknown): Cell | Unfit => {
  const text = Option.getOrUndefined(Option.liftThrowable(() => JSON.stringify(value) as string | undefined)())
  if (text === undefined) return new Unfit("it cannot be written as JSON")
  return unstorable.test(text) ? new Unfit("its text holds a NUL character or a lone surrogate") : text
}

/** What was stored, of a cell. */
const valueOf = (kind: Kind, ast: AST.AST): (cell: NonNullable<Cell>) => unknown => {
  if (kind === "json") {
    return (cell) =>
      Option.getOrElse(
        Option.liftThrowable(() => JSON.parse(cell as string) as unknown)(),
        () => new Unfit(`${show(cell)} is no JSON`)
      )
  }
  const isStored = naturalKind(bare(ast)) === kind
  if (kind === "bigint" && !isStored) return String
  if (kind !== "timestamp" || !isStored) return (cell) => cell
  const isDate = Option.getOrUndefined(AST.getIdentifierAnnotation(bare(ast))) === "DateFromSelf"
  return isDate
    ? (cell) => DateTime.toDateUtc(DateTime.unsafeMake(cell as string))
    : (cell) => DateTime.unsafeMake(cell as string)
}

/** The cell of what a driver returned. */
const readerOf = (shape: Shape): (stored: unknown) => Cell | Unfit => {
  const toCell = storedCell(shape)
  return (stored) => stored === null ? nullOf(shape) : toCell(stored)
}

const storedCell = (shape: Shape): (stored: unknown) => Cell | Unfit => {
  const toCell = cellOf(shape)
  switch (shape.kind) {
    case "integer":
    case "double":
      return (stored) => toCell(typeof stored === "bigint" ? Number(stored) : stored)
    case "bigint":
      return (stored) => toCell(Number.isSafeInteger(stored) ? BigInt(stored as number) : stored)
    case "boolean":
      return (stored) => stored === 0 || stored === 0n ? false : stored === 1 || stored === 1n ? true : toCell(stored)
    case "bytes":
      return (stored) => stored instanceof Uint8Array ? Uint8Array.from(stored) : toCell(stored)
    case "json":
      return textCell
    default:
      return toCell
  }
}

const show = (value: unknown): string => {
  const text = typeof value === "bigint"
    ? `${value}n`
    : typeof value === "string"
    ? JSON.stringify(value)
    : String(value)
  return text.length > 80 ? `${text.slice(0, 80)}…` : text
}
