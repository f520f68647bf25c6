/**
 * A query: typed by the tables it touches, compiled by Kysely, run on the fiber's own transaction.
 *
 *     (db) => db.selectFrom("todos").select("title")  ──▶  select "title" from "todos"  ──▶  ReadonlyArray<{ title: string }>
 *
 *     interface Database { readonly todos: { id: string; title: string; done: number } }
 *     const query = yield* Query.kysely<Database>()
 *     const open = yield* query((db) => db.selectFrom("todos").selectAll().where("done", "=", 0))
 *
 * Kysely builds text and parameters, and nothing else: it has no connection, so a query runs in the transaction of whoever
 * asks, is rolled back with it, and fails as any other statement does. Values mean what the layers say they mean.
 *
 * A query that Kysely cannot compile is a mistake in the program and a defect, as are rows with uneven columns, whose gaps
 * one database would fill with NULL and the other with the column's default.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
// What is ignored is that Kysely may be missing where this is used: the declarations keep the comment, so they compile
// without it. Here it is installed, and tests hold that its types are there: a misspelt column does not compile.
// oxlint-disable-next-line typescript/ban-ts-comment
/** @ts-ignore */
import type * as Kysely from "kysely"
import { dialectOf } from "../domain/Dialect.js"
import type { Dialect } from "../domain/Dialect.js"
import * as KyselyDialect from "./KyselyDialect.js"

/** What may be run: a query builder, or a `` sql<Row>`…` `` of Kysely's, not executed. */
export interface Compilable<A> {
  readonly compile: (db: Kysely.QueryExecutorProvider) => Kysely.CompiledQuery<A>
}

/**
 * What a query is answered with: rows, or for an insert, update, delete or merge without `returning`, how many it affected,
 * which is the same number on both databases. `insertId` is never there; ask for it with `returning`.
 */
export type Answer<A> = [A] extends
  [Kysely.InsertResult | Kysely.UpdateResult | Kysely.DeleteResult | Kysely.MergeResult] ? A : ReadonlyArray<A>

/** Runs queries over the tables of `Database`, which are written as Kysely has them: columns by table, by name. */
export interface Query<Database> {
  /** Runs what `build` returns. It can begin no transaction and close no connection: it is given neither. */
  <A>(
    build: (db: Kysely.QueryCreator<Database>) => Compilable<A>
  ): Effect.Effect<Answer<A>, SqlError, SqlClient.SqlClient>
  /** The rows as the layer reads them: PostgreSQL through a cursor, SQLite all at once. Takes a select. */
  readonly stream: <A>(
    build: (db: Kysely.QueryCreator<Database>) => Compilable<A>
  ) => Stream.Stream<A, SqlError, SqlClient.SqlClient>
}

/** All of Kysely over the tables of `Database`, for what was written for it and brings no connection of its own. */
export type Full<Database> = Kysely.Kysely<Database>

/** What of it reads, over the tables of `Database`. */
export type Reading<Database> = Pick<
  Kysely.QueryCreator<Database>,
  "selectFrom" | "selectNoFrom" | "with" | "withRecursive"
>

export interface Options {
  /** Of Kysely, such as its `CamelCasePlugin`. */
  readonly plugins?: ReadonlyArray<Kysely.KyselyPlugin> | undefined
}

/** A mistake in the program: it ends the fiber as a defect. */
export class QueryRefused extends Data.TaggedError("QueryRefused")<{
  readonly reason: string
  readonly cause?: unknown
}> {
  override get message(): string {
    return this.reason
  }
}

/** Loads Kysely, once for all. Without the package it dies with a `QueryRefused`. Build it where the handler is built. */
export const kysely = <Database>(options: Options = {}): Effect.Effect<Query<Database>> =>
  Effect.map(
    Effect.orDie(Effect.mapError(KyselyDialect.load, (cause) =>
      new QueryRefused({ reason: "typed queries need the package kysely", cause }))),
    (library) =>
      make<Database>(library, options.plugins ?? [])
  )

const make = <Database>(library: typeof Kysely, plugins: ReadonlyArray<Kysely.KyselyPlugin>): Query<Database> => {
  const compilers = {
    sqlite: compiler<Database>(library, "sqlite", plugins),
    pg: compiler<Database>(library, "pg", plugins)
  }
  const compile = <A>(build: Build<Database, A>): Effect.Effect<Compiled<A>, never, SqlClient.SqlClient> =>
    Effect.map(SqlClient.SqlClient, (sql) => compilers[dialectOf(sql)](build))
  const rows = <A>(build: Build<Database, A>) =>
    Effect.flatMap(
      compile(build),
      (compiled) =>
        KyselyDialect.withConnection((connection) =>
          connection.executeRaw(compiled.query.sql, compiled.query.parameters)
        ).pipe(
          Effect.flatMap((answer) => transformed(compiled, KyselyDialect.resultOf<A>(answer))),
          Effect.map((result) => answerOf(library, compiled.query.query, result) as Answer<A>)
        )
    )
  const stream = <A>(build: Build<Database, A>) =>
    Stream.unwrapScoped(Effect.gen(function*() {
      const compiled = yield* compile(build)
      const connection = yield* KyselyDialect.connection
      const found = connection.executeStream(compiled.query.sql, compiled.query.parameters, undefined) as Stream.Stream<
        A,
        SqlError
      >
      if (compiled.plugins.length === 0) return found
      return Stream.mapConcatEffect(Stream.chunks(found), (chunk) =>
        Effect.map(transformed(compiled, { rows: [...chunk] }), (result) => result.rows))
    }))
  return Object.assign(rows, { stream })
}

type Build<Database, A> = (db: Kysely.QueryCreator<Database>) => Compilable<A>

/** A query with the plugins that are to see its result: a builder may have been given some of its own, or lost them. */
interface Compiled<A> {
  readonly query: Kysely.CompiledQuery<A>
  readonly plugins: ReadonlyArray<Kysely.KyselyPlugin>
}

const compiler = <Database>(
  library: typeof Kysely,
  dialect: Dialect,
  plugins: ReadonlyArray<Kysely.KyselyPlugin>
): <A>(build: Build<Database, A>) => Compiled<A> => {
  const { createAdapter, createQueryCompiler } = KyselyDialect.parts(library, dialect)
  const [adapter, text] = [createAdapter(), createQueryCompiler()]
  const pluginsOf = new WeakMap<Kysely.CompiledQuery, ReadonlyArray<Kysely.KyselyPlugin>>()
  /** Compiles, and executes nothing. */
  class Executor extends library.DefaultQueryExecutor {
    constructor(seeing: ReadonlyArray<Kysely.KyselyPlugin>) {
      super(text, adapter, nowhere, [...seeing])
    }
    override compileQuery(node: Kysely.RootOperationNode, queryId: Kysely.QueryId): Kysely.CompiledQuery {
      const query = super.compileQuery(node, queryId)
      pluginsOf.set(query, this.plugins)
      return query
    }
    override withPlugins = (added: ReadonlyArray<Kysely.KyselyPlugin>) => new Executor([...this.plugins, ...added])
    override withPlugin = (added: Kysely.KyselyPlugin) => new Executor([...this.plugins, added])
    override withPluginAtFront = (added: Kysely.KyselyPlugin) => new Executor([added, ...this.plugins])
    override withoutPlugins = () => new Executor([])
    override withConnectionProvider = () => this
  }
  const executor = new Executor(plugins)
  const db = new library.QueryCreator<Database>({ executor })
  return (build) => {
    const query = build(db).compile({ getExecutor: () => executor })
    if (hasUnevenRows(library, query.query)) throw new QueryRefused({ reason: uneven })
    return { query, plugins: pluginsOf.get(query) ?? [] }
  }
}

const uneven = "refused to write uneven rows: some lack a column that others have; give each of them a value or null"

/** Kysely fills the gaps of rows that lack a column with this node. */
const hasUnevenRows = (library: typeof Kysely, node: Kysely.RootOperationNode): boolean =>
  library.InsertQueryNode.is(node) && node.values !== undefined && library.ValuesNode.is(node.values)
  && node.values.values.some((row) =>
    library.ValueListNode.is(row) && row.values.some(library.DefaultInsertValueNode.is)
  )

/** Where a builder's own `execute` ends. */
const nowhere: Kysely.ConnectionProvider = {
  provideConnection: () =>
    Promise.reject(
      new QueryRefused({ reason: "a query is returned and not executed: write query((db) => …) around it" })
    )
}

const transformed = <R>(
  { plugins, query: { queryId } }: Compiled<unknown>,
  result: Kysely.QueryResult<R>
): Effect.Effect<Kysely.QueryResult<R>> =>
  Effect.reduce(plugins, result, (last, plugin) =>
    Effect.map(
      Effect.promise(() => plugin.transformResult({ result: last, queryId } as Kysely.PluginTransformResultArgs)),
      (next) => next as Kysely.QueryResult<R>
    ))

/** As the builders of Kysely do it, but for the `insertId`: after a statement that inserted nothing, SQLite has an older one. */
const answerOf = <R>(
  library: typeof Kysely,
  node: Kysely.RootOperationNode,
  { numAffectedRows = 0n, rows }: Kysely.QueryResult<R>
): unknown => {
  if ("returning" in node && node.returning !== undefined) return rows
  switch (node.kind) {
    case "InsertQueryNode":
      return new library.InsertResult(undefined, numAffectedRows)
    case "UpdateQueryNode":
      return new library.UpdateResult(numAffectedRows, undefined)
    case "DeleteQueryNode":
      return new library.DeleteResult(numAffectedRows)
    case "MergeQueryNode":
      return new library.MergeResult(numAffectedRows)
    default:
      return rows
  }
}
