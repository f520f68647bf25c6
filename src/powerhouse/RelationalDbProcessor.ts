/**
 * The base class of relational processors, as the published one is and as the first specification has it, for a class that is
 * to do without the packages of the real system.
 *
 *     class TodoIndexer extends RelationalDbProcessor<{ todo: Todo }> { … }
 *
 * It is what `@powerhousedao/shared/processors` 6.2.2 exports under this name: the constructor, the statics, the getters and
 * the mark by which the real manager knows it. `getDb` and `healthCheck` are the specification's; no release has had them.
 */

import type { Filter } from "../ingest/Filter.js"
import type * as Query from "../process/Query.js"
import { getNamespace } from "./HashNamespace.js"

/** What reads a namespace. */
export type QueryBuilder<Schema> = Query.Reading<Schema> & {
  readonly withSchema: (schema: string) => QueryBuilder<Schema>
}

/** A database of theirs over the tables of `Schema`: Kysely, with namespaces. */
export type RelationalDb<Schema = unknown> = Query.Full<Schema> & {
  readonly createNamespace: <Own>(namespace: string) => Promise<RelationalDb<Own>>
  readonly queryNamespace: <Own>(namespace: string) => QueryBuilder<Own>
  readonly getDb: () => Promise<RelationalDb<Schema>>
  readonly healthCheck: (tableName: string) => Promise<boolean>
}

const mark: unique symbol = Symbol.for("ph.IS_RELATIONAL_DB_PROCESSOR") as never

export abstract class RelationalDbProcessor<Schema = unknown> {
  static readonly [mark] = true

  /** The name of the namespace of this class for a drive. A class may name it otherwise. */
  static getNamespace(driveId: string): string {
    return getNamespace(this.name, driveId)
  }

  /** Reads the tables of this class for a drive, as subgraphs do. */
  static query<Schema>(driveId: string, db: Pick<RelationalDb, "queryNamespace">): QueryBuilder<Schema> {
    return db.queryNamespace<Schema>(this.getNamespace(driveId))
  }

  constructor(
    protected readonly _namespace: string,
    protected readonly _filter: Filter,
    protected readonly relationalDb: RelationalDb<Schema>
  ) {}

  get filter(): Filter {
    return this._filter
  }

  get namespace(): string {
    return this._namespace
  }

  get query(): QueryBuilder<Schema> {
    return this.relationalDb
  }

  /** The database that the processor writes: it is one of the call that asks. */
  protected getDb(): Promise<RelationalDb<Schema>> {
    return this.relationalDb.getDb()
  }

  /** Whether the namespace has a table or view of this name, without a schema. */
  protected healthCheck(tableName: string): Promise<boolean> {
    return this.relationalDb.healthCheck(tableName)
  }

  /** Makes the tables, if need be; called before the first delivery each time the processor opens. */
  abstract initAndUpgrade(): Promise<void>
  /** Told that it is over. */
  abstract onDisconnect(): Promise<void>
}
