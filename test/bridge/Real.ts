/**
 * Real: the published packages of Powerhouse, typed as far as these tests use them. They are installed in `test/powerhouse`.
 */
import type { Kysely, SelectQueryBuilder } from "kysely"

export interface RelationalDb<Schema> extends Kysely<Schema> {
  createNamespace<S>(namespace: string): Promise<RelationalDb<S>>
  queryNamespace<S>(namespace: string): QueryBuilder<S>
}

/** What reads, as `IRelationalQueryBuilder` has it. */
export interface QueryBuilder<Schema> {
  selectFrom<T extends keyof Schema & string>(table: T): SelectQueryBuilder<Schema, T, object>
  withSchema(schema: string): QueryBuilder<Schema>
}

export interface Filter {
  readonly documentType?: Array<string>
  readonly scope?: Array<string>
  readonly branch?: Array<string>
  readonly documentId?: Array<string>
}

/** The abstract class that the processors of users extend. */
export interface RelationalDbProcessorClass {
  new<Schema>(namespace: string, filter: Filter, relationalDb: RelationalDb<Schema>): RelationalDbProcessor<Schema>
  getNamespace(driveId: string): string
  query<Schema>(driveId: string, db: object): QueryBuilder<Schema>
}

/** Its members; `relationalDb` is protected there. */
export interface RelationalDbProcessor<Schema> {
  relationalDb: RelationalDb<Schema>
  readonly filter: Filter
  readonly namespace: string
  readonly query: QueryBuilder<Schema>
}

interface Packages {
  readonly processors: {
    readonly RelationalDbProcessor: RelationalDbProcessorClass
    readonly hashNamespace: (text: string, length?: number) => string
    readonly createRelationalDb: (db: unknown) => RelationalDb<unknown>
  }
}

/** Where they are exported from; a bundle elsewhere is told so by this variable. */
export const address: string = process.env["POWERHOUSE_PROCESSORS"] ??
  new URL("../powerhouse/processors.mjs", import.meta.url).href

/** As the published packages export it, version 6.2.2. */
export const { processors } = await import(/* @vite-ignore */ address) as Packages
