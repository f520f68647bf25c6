/**
 * What both Emmett subjects share: how a strand becomes events, and the parts of Emmett's packages that they use.
 *
 *     strand ──▶ stream `document:scope:branch` ──▶ an event for each operation
 *
 * An event has what the search index needs, without the document's state: it is shorter than the strand that ours parses.
 */
import * as Strands from "../support/Strands.js"
import * as Search from "./search.js"

export interface OperationEvent {
  readonly type: string
  readonly data: { readonly documentId: string; readonly timestamp: string; readonly input: unknown }
}

export const rowOf = ({ data, type }: OperationEvent): Search.SearchRow =>
  Search.rowOf(data.documentId, { type, timestamp: data.timestamp, input: data.input })

interface EventStore {
  readonly appendToStream: (name: string, events: ReadonlyArray<OperationEvent>) => Promise<unknown>
}

export const streamOf = ({ branch, documentId, scope }: Strands.RecordedStrand): string =>
  `${documentId}:${scope}:${branch}`

export const eventsOf = ({ documentId, operations }: Strands.RecordedStrand): ReadonlyArray<OperationEvent> =>
  operations.map(({ input, timestamp, type }) => ({ type, data: { documentId, timestamp, input: input ?? null } }))

/** Appends all the strands of a file to an event store, a strand an append. */
export const fill = async (store: EventStore, input: string): Promise<void> => {
  for await (const strand of Strands.read(input)) {
    const events = eventsOf(strand)
    if (events.length > 0) await store.appendToStream(streamOf(strand), events)
  }
}

/** How many events there are, and of which types, before the clock starts: a projection has to name its types. */
export const survey = async (input: string) => {
  const types = new Set<string>()
  let operations = 0
  for await (const strand of Strands.read(input)) {
    for (const { type } of strand.operations) types.add(type)
    operations += strand.operations.length
  }
  return { types: [...types], operations }
}

/** Emmett's default pulls 100 messages every 50 ms; tuned, it pulls 1,000 and does not rest. */
export const pulling = (how: string) =>
  how === "tuned" ? { batchSize: Search.batchOperations, pullingFrequencyInMs: 0 } : {}

/** Transactions: one a batch. */
export const commitsOf = (operations: number, how: string): number =>
  Math.ceil(operations / (how === "tuned" ? Search.batchOperations : 100))

interface Projector {
  readonly processorId: string
  readonly projection: unknown
  readonly startFrom?: "CURRENT"
  readonly stopAfter?: (event: OperationEvent) => boolean
}

export interface SqliteConnection {
  readonly command: (sql: string, values?: ReadonlyArray<unknown>) => Promise<unknown>
  readonly query: <T>(sql: string) => Promise<Array<T>>
  readonly querySingle: <T>(sql: string) => Promise<T | null>
  readonly close: () => void
}

interface SqliteOptions {
  readonly fileName: string
  readonly connectionOptions: { readonly singleton: true; readonly connection: SqliteConnection }
}

/** Emmett 0.42, as far as the subjects need it. */
export interface Emmett {
  readonly sql: (text: string, ...values: ReadonlyArray<string>) => string
  readonly getPostgreSQLEventStore: (url: string) => EventStore & {
    readonly schema: { readonly migrate: () => Promise<void> }
    readonly close: () => Promise<void>
  }
  readonly postgreSQLEventStoreConsumer: (
    options: { readonly connectionString: string; readonly pulling: object }
  ) => {
    readonly projector: (options: Projector) => unknown
    readonly start: () => Promise<void>
    readonly close: () => Promise<void>
  }
  readonly postgreSQLRawSQLProjection: (options: {
    readonly name: string
    readonly canHandle: ReadonlyArray<string>
    readonly evolve: (event: OperationEvent) => string
  }) => unknown
  readonly getSQLiteEventStore: (options: SqliteOptions) => EventStore & {
    readonly schema: { readonly migrate: () => Promise<void> }
    readonly consumer: (options: { readonly pulling: object }) => {
      readonly processor: (options: Projector) => unknown
      readonly start: () => Promise<void>
    }
  }
  readonly sqliteConnection: (options: { readonly fileName: string }) => SqliteConnection
  readonly sqliteProjection: (definition: {
    readonly name: string
    readonly canHandle: ReadonlyArray<string>
    readonly handle: (
      events: ReadonlyArray<OperationEvent>,
      context: { readonly connection: SqliteConnection }
    ) => Promise<void>
  }) => unknown
}

const nobody = (): void => undefined

const upsertPostgres = Search.pg.upsertOne.replace(/\$\d/g, "%L")

/** The search index as a projection on PostgreSQL; `handled` is called with each event before its row is written. */
export const projectionPostgres = (emmett: Emmett, canHandle: ReadonlyArray<string>, handled = nobody): unknown =>
  emmett.postgreSQLRawSQLProjection({
    name: "search",
    canHandle,
    evolve: (event) => {
      handled()
      return emmett.sql(upsertPostgres, ...Search.one(rowOf(event)))
    }
  })

/** The same on SQLite. */
export const projectionSqlite = (emmett: Emmett, canHandle: ReadonlyArray<string>, handled = nobody): unknown =>
  emmett.sqliteProjection({
    name: "search",
    canHandle,
    handle: async (events, context) => {
      for (const event of events) {
        handled()
        await context.connection.command(Search.sqlite.upsertOne, Search.one(rowOf(event)))
      }
    }
  })

/** The packages are installed in `bench/peers`, which this program reaches from where it is compiled to. */
export const packages = (): Promise<Emmett> =>
  import(new URL("../../../bench/peers/packages.mjs", import.meta.url).href) as Promise<Emmett>
