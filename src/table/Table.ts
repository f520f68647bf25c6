/**
 * A table: rows of a Schema, written and read by a handler one at a time, and sent to the database many at a time.
 *
 *     const Todos = Table.make("todos", Schema.Struct({ id: Schema.String, done: Schema.Boolean }), { key: ["id"] })
 *
 *     Todos.upsert({ id: "1", done: false })     in a handler: held back, folded by key, flushed before COMMIT
 *     Todos.update({ id: "1" }, { done: true })  elsewhere: a statement, at once
 *     Todos.get({ id: "1" })                     Option.some({ id: "1", done: true }) in either case
 *
 * The table itself is made by a migration; its columns are those of the Schema, as `Column` says. A value that does not
 * fit its column is an `SqlError` with a SQLSTATE of class 22, as a database's own refusal would be.
 *
 * Folding has the outcome of a statement for each operation. What only the database knows of is the exception: a CHECK or
 * a foreign key of a migration written by hand sees the rows that a commit leaves, and not those between. A table whose
 * changes set off others, by a trigger or ON DELETE CASCADE, is not folded: each of its operations is a statement.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Fiber from "effect/Fiber"
import type { RuntimeFiber } from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Schema from "effect/Schema"
import { dialectOf } from "../domain/Dialect.js"
import type { Dialect } from "../domain/Dialect.js"
import type { Cells, Send } from "./Bulk.js"
import * as Change from "./Change.js"
import { Codec, isRefusal } from "./Codec.js"
import type { Values } from "./Codec.js"
import * as Definition from "./Definition.js"
import type { Fold } from "./Fold.js"
import { foldOf } from "./FoldingConnection.js"
import { Plan, removal } from "./Plan.js"

/** An operation on a table. */
export type Operation<A> = Effect.Effect<A, SqlError, SqlClient.SqlClient>

/** The columns that numbers can be added to: stored as the program sees them, and not of the key. */
export type Countable<Row, Encoded, Key> = {
  readonly [C in Exclude<keyof Row & keyof Encoded, Key> as IsNumber<Row[C], Encoded[C]> extends true ? C : never]?:
    Delta<
      NonNullable<Row[C]>
    >
}

type IsNumber<Value, Stored> = [NonNullable<Value>] extends [bigint] ? true
  : [NonNullable<Value>, NonNullable<Stored>] extends [number, number] ? true
  : false

type Delta<Value> = Value extends bigint ? bigint : number

/** What a table does not have under that name, or cannot add to. Nothing is of this type. */
export interface NoSuchColumn<out Name> {
  readonly [noSuchColumn]: Name
}

declare const noSuchColumn: unique symbol

type Only<Given, Known> = { readonly [C in Exclude<keyof Given, keyof Known>]: NoSuchColumn<C> }

export interface Table<Row extends object, Encoded, Key extends keyof Row> {
  readonly name: string
  readonly definition: Definition.Definition
  /** Adds a row. Fails if there is one with its key, or with the same values in a unique set of columns. */
  readonly insert: (row: Row) => Operation<void>
  /** Adds a row, or puts it in place of the one with its key. */
  readonly upsert: (row: Row) => Operation<void>
  /**
   * {@link insert} for each of these rows, one after another: those before the first that fails are added. In a handler it is
   * one step instead of one for each row, and holds them back as they would.
   */
  readonly insertAll: (rows: Iterable<Row>) => Operation<void>
  /** {@link upsert} for each of these rows, as `insertAll`: of two with one key the later one stays. */
  readonly upsertAll: (rows: Iterable<Row>) => Operation<void>
  /** Sets some columns of the row with this key; nothing, if there is none. */
  readonly update: (key: Pick<Row, Key>, columns: Partial<Omit<Row, Key>>) => Operation<void>
  /**
   * Adds to some columns of the row with this key; nothing, if there is none. NULL stays NULL. With `otherwise`, the other
   * columns of the row, it inserts a row that starts with these numbers if there is none.
   */
  readonly increment: <const By extends Countable<Row, Encoded, Key>>(
    key: Pick<Row, Key>,
    by: By & Only<By, Countable<Row, Encoded, Key>>,
    otherwise?: Omit<Row, Key | keyof By>
  ) => Operation<void>
  /** Removes the row with this key, if there is one. */
  readonly delete: (key: Pick<Row, Key>) => Operation<void>
  /**
   * Removes all rows of a document, told by the column that the table names for it. Inside a handler, writes what is held
   * back first. Dies where the table names no such column.
   */
  readonly removeDocument: (documentId: string) => Operation<void>
  /** The row with this key. */
  readonly get: (key: Pick<Row, Key>) => Operation<Option.Option<Row>>
  /**
   * The rows that have all these values, in the order of the key, at most `limit` of them ({@link findDefault} unless told,
   * {@link findMax} at most). Inside a handler, writes what is held back of this table first.
   */
  readonly find: (
    columns: Partial<Row>,
    options?: { readonly limit?: number | undefined }
  ) => Operation<ReadonlyArray<Row>>
  /**
   * Says that these rows will be asked for, so that the first `get` of one reads them all. Does nothing outside a handler,
   * nor for more than 10,000 rows at a time.
   */
  readonly prefetch: (keys: Iterable<Pick<Row, Key>>) => Effect.Effect<void>
}

/** Rows that `find` returns unless told otherwise. */
export const findDefault = 1_000

/** Rows that `find` returns at most. */
export const findMax = 10_000

export interface Options<Column extends string, Key extends ReadonlyArray<Column>> {
  /** The primary key. */
  readonly key: Key
  /** Further sets of columns of which no two rows have the same values. Folding has to know of them. */
  readonly unique?: ReadonlyArray<ReadonlyArray<Column>>
  /** Sets of columns that rows are looked for by. */
  readonly indexes?: ReadonlyArray<ReadonlyArray<Column>>
  /**
   * The column with the id of the document that a row was projected from: text, never NULL. By it the rows of a document are
   * found when it is projected anew.
   */
  readonly document?: Column
}

/** Throws a `TypeError` that names what cannot be: a name, a key, or a property that no column can hold. */
export const make = <
  S extends Schema.Schema.AnyNoContext,
  const Key extends ReadonlyArray<keyof Schema.Schema.Type<S> & string>
>(
  name: string,
  schema: S,
  options: Options<keyof Schema.Schema.Type<S> & string, Key>
): Table<Schema.Schema.Type<S>, Schema.Schema.Encoded<S>, Key[number]> => {
  const definition = Definition.make(name, schema, options)
  const codec = new Codec(definition, schema)
  const plans: Plans = {
    sqlite: lazily(() => new Plan(definition, "sqlite")),
    pg: lazily(() => new Plan(definition, "pg"))
  }
  const inserted = (row: Values) => codec.insert(row)
  const upserted = (row: Values) => codec.upsert(row)
  const removed = (key: Values) => codec.remove(key)
  const changed = (change: () => Change.Change | SqlError) => change()
  return {
    name,
    definition,
    insert: (row) => new Changing(plans, inserted, row),
    upsert: (row) => new Changing(plans, upserted, row),
    insertAll: (rows) => new ChangingAll(plans, inserted, rows),
    upsertAll: (rows) => new ChangingAll(plans, upserted, rows),
    update: (key, columns) => new Changing(plans, changed, () => codec.set(key, columns)),
    increment: (key, by, otherwise) => new Changing(plans, changed, () => codec.add(key, by, otherwise)),
    delete: (key) => new Changing(plans, removed, key),
    removeDocument: (documentId) => removeDocument(definition, documentId),
    get: (key) => new Getting(plans, codec, key),
    find: (columns, { limit = findDefault } = {}) =>
      finding(plans, codec, columns, Math.max(0, Math.min(Math.trunc(limit), findMax))),
    prefetch: (keys) => expecting(plans, codec, keys)
  }
}

/** The statements of a table in each dialect, made when first needed. */
type Plans = { readonly [D in Dialect]: () => Plan }

const lazily = <A>(build: () => A): () => A => {
  let built: A | undefined
  return () => built ??= build()
}

// A handler does these a thousand times in a batch: no generator, no layer and no span.

/** A change of one row, as an Effect: a small object, and what the fiber that runs it calls. */
class Changing<Given> extends Effectable.Class<void, SqlError, SqlClient.SqlClient> {
  constructor(
    private readonly plans: Plans,
    private readonly changeOf: (given: Given) => Change.Change | SqlError,
    private readonly given: Given
  ) {
    super()
  }

  override commit(): Operation<void> {
    const change = this.changeOf(this.given)
    if (isRefusal(change)) return Effect.fail(change)
    const fiber = running()
    const fold = foldOf(fiber)
    return fold === undefined
      ? alone(this.plans, clientOf(fiber), change)
      : fold.change(this.plans[fold.dialect](), change)
  }
}

/** Rows that are taken in before other fibers have a turn: about as many as if each were an Effect. */
const rowsATurn = 1_000

/** {@link Changing} for each of many. */
class ChangingAll<Given> extends Effectable.Class<void, SqlError, SqlClient.SqlClient> {
  constructor(
    private readonly plans: Plans,
    private readonly changeOf: (given: Given) => Change.Change | SqlError,
    private readonly given: Iterable<Given>
  ) {
    super()
  }

  override commit(): Operation<void> {
    const fiber = running()
    const fold = foldOf(fiber)
    if (fold === undefined) {
      return Effect.forEach(this.given, (each) => new Changing(this.plans, this.changeOf, each), { discard: true })
    }
    return this.takeIn(fold, this.plans[fold.dialect](), this.given[Symbol.iterator]())
  }

  private takeIn(fold: Fold, plan: Plan, given: Iterator<Given>): Effect.Effect<void, SqlError> {
    const left = this.takeSome(fold, plan, given)
    if (left === undefined) return Effect.void
    return Effect.zipRight(left, Effect.suspend(() => this.takeIn(fold, plan, given)))
  }

  /** Takes in what others wait for meanwhile, and no more; what is to be done before the rest, if there is any. */
  private takeSome(fold: Fold, plan: Plan, given: Iterator<Given>): Effect.Effect<void, SqlError> | undefined {
    for (let taken = 0; taken < rowsATurn; taken++) {
      const next = given.next()
      if (next.done === true) return undefined
      const change = this.changeOf(next.value)
      if (isRefusal(change)) return Effect.fail(change)
      const left = fold.take(plan, change)
      if (left !== undefined) return left
    }
    return Effect.yieldNow()
  }
}

/** The fiber that calls. */
const running = (): RuntimeFiber<unknown, unknown> => Option.getOrThrow(Fiber.getCurrentFiber())

const alone = (plans: Plans, sql: SqlClient.SqlClient, change: Change.Change): Effect.Effect<void, SqlError> =>
  Change.run(plans[dialectOf(sql)](), change, (text, parameters) => sql.unsafe(text, parameters).raw)

/** Removes the rows that a table has of a document. Dies where it names no column for the document's id. */
export const removeDocument = ({ document, name }: Definition.Definition, documentId: string): Operation<void> =>
  Effect.withFiberRuntime((fiber) => {
    if (document === undefined) return Effect.dieMessage(`${name} names no column for the id of a document`)
    const fold = foldOf(fiber)
    const sql = clientOf(fiber)
    const remove = removal(name, document, fold?.dialect ?? dialectOf(sql))
    return fold === undefined ? sql.unsafe(remove, [documentId]).raw : fold.statement(remove, [documentId])
  })

/** A look for one row, as {@link Changing} is a change of one. */
class Getting<Row> extends Effectable.Class<Option.Option<Row>, SqlError, SqlClient.SqlClient> {
  constructor(private readonly plans: Plans, private readonly codec: Codec, private readonly values: Values) {
    super()
  }

  override commit(): Operation<Option.Option<Row>> {
    const { codec, plans } = this
    const key = codec.key(this.values)
    if (isRefusal(key)) return Effect.fail(key)
    const fiber = running()
    const fold = foldOf(fiber)
    if (fold === undefined) return Effect.flatMap(readAlone(plans, clientOf(fiber), key), (row) => this.shown(row))
    const plan = plans[fold.dialect]()
    const known = fold.known(plan, key)
    return known === undefined ? Effect.flatMap(fold.read(plan, key), (row) => this.shown(row)) : this.shown(known)
  }

  private shown(row: Cells | null): Effect.Effect<Option.Option<Row>, SqlError> {
    if (row === null) return Effect.succeedNone
    const decoded = this.codec.decode(row)
    return isRefusal(decoded) ? Effect.fail(decoded) : Effect.succeed(Option.some(decoded.value as Row))
  }
}

const readAlone = (plans: Plans, sql: SqlClient.SqlClient, key: Cells): Effect.Effect<Cells | null, SqlError> => {
  const plan = plans[dialectOf(sql)]()
  return Effect.map(plan.readRows(plan.read, [key], valuesBy(sql)), ([row]) => row ?? null)
}

const finding = <Row>(plans: Plans, codec: Codec, columns: Values, limit: number): Operation<ReadonlyArray<Row>> =>
  Effect.withFiberRuntime((fiber) => {
    const where = codec.where(columns)
    if (isRefusal(where)) return Effect.fail(where)
    const fold = foldOf(fiber)
    const sql = clientOf(fiber)
    const plan = plans[fold?.dialect ?? dialectOf(sql)]()
    const query = plan.find(where, limit)
    const found = fold === undefined
      ? Effect.flatMap(valuesBy(sql)(...query), (rows) => plan.cellsOf(rows))
      : fold.find(plan, query)
    return Effect.flatMap(found, (rows) => {
      const decoded: Array<Row> = []
      for (const row of rows) {
        const each = codec.decode(row)
        if (isRefusal(each)) return Effect.fail(each)
        decoded.push(each.value as Row)
      }
      return Effect.succeed(decoded)
    })
  })

const expecting = (plans: Plans, codec: Codec, keys: Iterable<Values>): Effect.Effect<void> =>
  Effect.withFiberRuntime((fiber) => {
    const fold = foldOf(fiber)
    if (fold === undefined) return Effect.void
    const expected: Array<Cells> = []
    for (const values of keys) {
      const key = codec.key(values)
      // Whoever asks for it is told what is wrong with it.
      if (!isRefusal(key)) expected.push(key)
    }
    fold.expect(plans[fold.dialect](), expected)
    return Effect.void
  })

const clientOf = (fiber: RuntimeFiber<unknown, unknown>): SqlClient.SqlClient =>
  Context.unsafeGet(fiber.currentContext, SqlClient.SqlClient)

const valuesBy = (sql: SqlClient.SqlClient): Send<ReadonlyArray<ReadonlyArray<unknown>>> => (text, parameters) =>
  sql.unsafe(text, parameters).values
