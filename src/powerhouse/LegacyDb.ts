/**
 * A database of theirs: the `IRelationalDb` that a relational processor is given, a Kysely whose statements go where we say.
 *
 *     db.withSchema(hash).insertInto("todo")…  ──▶  their Kysely calls  ──▶  ours compiles  ──▶  line.execute(text, values)
 *
 * It is a Kysely of the package that is installed here, with `createNamespace` and `queryNamespace` beside it, also on what
 * they return (which the real ones are typed to have, and lack), and `getDb` and `healthCheck` of the first specification.
 *
 * On SQLite there are no schemas: the names of those that were created here are taken off again, and creating one does
 * nothing. A second namespace would then be the same tables, so it is refused.
 */

import type * as Kysely from "kysely"
import type { Dialect } from "../domain/Dialect.js"
import * as KyselyDialect from "../process/KyselyDialect.js"
import { LegacyRefused } from "./Call.js"
import { hashNamespace } from "./HashNamespace.js"

type Db = Kysely.Kysely<unknown>

/** A connection as Kysely holds it. `begin` and what follows it are only for those that can have a transaction. */
export interface Line {
  readonly execute: (text: string, parameters: ReadonlyArray<unknown>) => Promise<unknown>
  readonly stream: (text: string, parameters: ReadonlyArray<unknown>) => AsyncIterable<Kysely.QueryResult<never>>
  readonly begin: () => Promise<void>
  readonly commit: () => Promise<void>
  readonly rollback: () => Promise<void>
  readonly release: () => void
}

export interface Wiring {
  readonly dialect: Dialect
  /** A connection for a query of this namespace; `undefined`: of none that was named. */
  readonly open: (namespace: string | undefined) => Line
  /** Runs what a `db.transaction()` or `db.connection()` was given. */
  readonly inside: <A>(body: () => A) => A
  /**
   * Whether a namespace's tables are in the schema that the real system would keep them in; otherwise they are where
   * unqualified names lead.
   */
  readonly hasSchemas: (namespace: string | undefined) => boolean
  /** Whether each namespace is a place of its own; otherwise all are where `open` leads. */
  readonly hasPlaces: boolean
}

/** The database, over what it is wired to. */
export const make = (kysely: typeof Kysely, wiring: Wiring): object => new Builder(kysely, wiring).base()

class Builder {
  /** Schemas that are taken off. */
  private readonly stripped = new Set<string>()
  private readonly stripping: Kysely.KyselyPlugin

  constructor(private readonly kysely: typeof Kysely, private readonly wiring: Wiring) {
    this.stripping = stripping(kysely, (schema) => this.stripped.has(schema))
  }

  base(): object {
    return this.dressed(this.over(undefined), undefined)
  }

  private over(namespace: string | undefined): Db {
    const parts = KyselyDialect.parts(this.kysely, this.wiring.dialect)
    return new this.kysely.Kysely({
      dialect: { ...parts, createDriver: () => driver(this.wiring, namespace) },
      plugins: this.wiring.hasSchemas(namespace) ? [] : [this.stripping]
    })
  }

  /** Adds what is theirs, to it and to whatever Kysely makes of it. */
  private dressed(db: Db, schema: string | undefined): Db {
    const own = {
      withSchema: db.withSchema.bind(db),
      withPlugin: db.withPlugin.bind(db),
      withoutPlugins: db.withoutPlugins.bind(db),
      withTables: db.withTables.bind(db),
      transaction: db.transaction.bind(db),
      connection: db.connection.bind(db)
    }
    return Object.assign(db, {
      withSchema: (name: string) => this.dressed(own.withSchema(name), name),
      withPlugin: (plugin: Kysely.KyselyPlugin) => this.dressed(own.withPlugin(plugin), schema),
      withoutPlugins: () => this.dressed(own.withoutPlugins(), undefined),
      withTables: () => this.dressed(own.withTables() as Db, schema),
      transaction: () => telling(own.transaction(), (body) => (trx) => this.wiring.inside(() => body(trx))),
      connection: () => telling(own.connection(), (body) => (held) => body(this.dressed(held as Db, schema))),
      startTransaction: () => {
        throw new LegacyRefused({ reason: "a transaction is begun with db.transaction(), which ends by itself" })
      },
      destroy: () => Promise.resolve(),
      createNamespace: (namespace: string) => this.createNamespace(db, namespace),
      queryNamespace: (namespace: string) => this.queryNamespace(db, namespace),
      getDb: () => Promise.resolve(db),
      healthCheck: (table: string) => this.hasTable(db, schema, table)
    })
  }

  /** Only what reads, as theirs has it. */
  private readonly queryNamespace = (db: Db, namespace: string): object => reading(this.within(db, namespace))

  private readonly createNamespace = (db: Db, namespace: string): Promise<Db> => {
    const schema = hashNamespace(namespace)
    const named = Promise.resolve().then(() => this.within(db, namespace))
    if (this.wiring.hasPlaces || !this.wiring.hasSchemas(namespace)) return named
    // Asked first: a role that may not create schemas may use one that somebody made for it.
    const { sql } = this.kysely
    return sql`SELECT FROM pg_catalog.pg_namespace WHERE nspname = ${schema}`.execute(db)
      .then(({ rows }) => rows.length > 0 ? undefined : db.schema.createSchema(schema).ifNotExists().execute())
      .then(() => named)
  }

  private within(db: Db, namespace: string): Db {
    const schema = hashNamespace(namespace)
    if (!this.wiring.hasSchemas(namespace)) this.stripped.add(schema)
    if (!this.wiring.hasPlaces && this.stripped.size > 1) {
      throw new LegacyRefused({
        reason: `one processor has the tables of one namespace here, and ${namespace} would be its second`
      })
    }
    return this.dressed((this.wiring.hasPlaces ? this.over(namespace) : db).withSchema(schema), schema)
  }

  /** Whether the namespace has a table or view of this name. */
  private readonly hasTable = (db: Db, schema: string | undefined, table: string): Promise<boolean> => {
    const { sql } = this.kysely
    const place = schema === undefined || this.stripped.has(schema) ? null : schema
    const found = this.wiring.dialect === "sqlite"
      ? sql`SELECT 1 AS found FROM sqlite_schema WHERE type IN ('table', 'view') AND name = ${table}`
      : sql`
        SELECT 1 AS found FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname = ${table}
          AND n.nspname = coalesce(${place}, current_schema())`
    return found.execute(db).then(({ rows }) => rows.length > 0)
  }
}

/** A builder of Kysely's whose body is given through `wrap`. */
const telling = <B extends object>(builder: B, wrap: (body: Body) => Body): B =>
  new Proxy(builder, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name)
      if (typeof value !== "function") return value
      return (...args: ReadonlyArray<unknown>) => {
        const [body] = args
        const given = name === "execute" && typeof body === "function"
          ? [wrap((db): unknown => Reflect.apply(body, undefined, [db]))]
          : args
        const made: unknown = Reflect.apply(value, target, given)
        return name === "execute" || typeof made !== "object" || made === null ? made : telling(made, wrap)
      }
    }
  })

type Body = (db: unknown) => unknown

const reading = (db: Db): object => ({
  selectFrom: db.selectFrom.bind(db),
  selectNoFrom: db.selectNoFrom.bind(db),
  with: db.with.bind(db),
  withRecursive: db.withRecursive.bind(db),
  withSchema: (schema: string) => reading(db.withSchema(schema))
})

/** Takes the schemas off that only their packages know. */
const stripping = (kysely: typeof Kysely, isTheirs: (schema: string) => boolean): Kysely.KyselyPlugin => {
  class Stripper extends kysely.OperationNodeTransformer {
    protected override transformSchemableIdentifier(
      node: Kysely.SchemableIdentifierNode,
      queryId?: Kysely.QueryId
    ): Kysely.SchemableIdentifierNode {
      const { schema, ...rest } = super.transformSchemableIdentifier(node, queryId)
      return schema === undefined || isTheirs(schema.name) ? rest : { ...rest, schema }
    }
  }
  const stripper = new Stripper()
  return {
    transformQuery: ({ node, queryId }) => stripper.transformNode(node, queryId),
    transformResult: ({ result }) => Promise.resolve(result)
  }
}

const driver = (wiring: Wiring, namespace: string | undefined): Kysely.Driver => {
  const lines = new WeakMap<Kysely.DatabaseConnection, Line>()
  const lineOf = (connection: Kysely.DatabaseConnection): Line => lines.get(connection)!
  return {
    init: () => Promise.resolve(),
    acquireConnection: () => {
      const line = wiring.open(namespace)
      const connection: Kysely.DatabaseConnection = {
        executeQuery: <R>(query: Kysely.CompiledQuery): Promise<Kysely.QueryResult<R>> =>
          isSchemaOnSqlite(wiring, query)
            ? Promise.resolve({ rows: [] })
            : line.execute(query.sql, query.parameters).then((answer) => KyselyDialect.resultOf<R>(answer)),
        streamQuery: <R>(query: Kysely.CompiledQuery) =>
          line.stream(query.sql, query.parameters) as AsyncIterableIterator<Kysely.QueryResult<R>>
      }
      lines.set(connection, line)
      return Promise.resolve(connection)
    },
    beginTransaction: (connection) => lineOf(connection).begin(),
    commitTransaction: (connection) => lineOf(connection).commit(),
    rollbackTransaction: (connection) => lineOf(connection).rollback(),
    releaseConnection: (connection) => Promise.resolve(lineOf(connection).release()),
    destroy: () => Promise.resolve()
  }
}

const isSchemaOnSqlite = (wiring: Wiring, { query }: Kysely.CompiledQuery): boolean =>
  wiring.dialect === "sqlite" && query.kind === "CreateSchemaNode"
