/**
 * The door to the real reactor 6.2.2: `test/powerhouse/reactor.mjs`, with types, one reactor in a scope.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Powerhouse } from "../../src/index.js"
import type { PostgresDatabase } from "../support/Database.js"

/** An operation as the reactor delivers and stores it. */
export interface Delivered {
  readonly operation: {
    readonly index: number
    readonly skip: number
    readonly hash: string
    readonly action: { readonly type: string; readonly input: unknown }
  }
  readonly context: {
    readonly documentId: string
    readonly documentType: string
    readonly scope: string
    readonly branch: string
    readonly ordinal: number
    /** Only what is delivered live. */
    readonly resultingState?: string
  }
}

/** A processor as anyone writes one for the reactor. */
export interface PlainRecord {
  readonly processor: {
    readonly onOperations: (operations: ReadonlyArray<Delivered>) => Promise<void>
    readonly onDisconnect: () => Promise<void>
  }
  readonly filter: Powerhouse.Contract.ProcessorFilter
}

export interface Tracked {
  readonly processorId: string
  readonly status: "active" | "errored"
  readonly lastError?: string
  readonly lastOrdinal: number
  readonly retry: () => Promise<void>
}

export interface Reactor6 extends Powerhouse.Contract.ReactorModule {
  readonly processorManager: {
    readonly registerFactory: (
      name: string,
      factory: Powerhouse.Contract.ProcessorFactory | ((drive: { readonly id: string }) => ReadonlyArray<PlainRecord>)
    ) => Promise<void>
    readonly unregisterFactory: (name: string) => Promise<void>
    readonly getAll: () => ReadonlyArray<Tracked>
  }
  /** What it logged as errors, in any reactor of this process. */
  readonly said: ReadonlyArray<string>
  readonly documentType: string
  readonly createDrive: (id: string) => Promise<string>
  readonly createDocument: (id: string) => Promise<string>
  readonly deleteDocument: (id: string) => Promise<void>
  readonly addToDrive: (drive: string, document: string) => Promise<void>
  readonly removeFromDrive: (drive: string, document: string) => Promise<void>
  readonly execute: (document: string, ...actions: ReadonlyArray<object>) => Promise<void>
  readonly addFile: (id: string) => object
  readonly setName: (text: string) => object
  readonly setDescription: (text: string) => object
  /** An action that the document refuses: it is recorded, and changes nothing. */
  readonly refused: () => object
  readonly undo: () => object
  /** The document as the reactor has it. */
  readonly read: (id: string) => Promise<{ readonly state: { readonly global: { readonly name: string } } }>
  readonly stored: () => Promise<ReadonlyArray<Delivered>>
  readonly close: () => Promise<void>
}

interface Package {
  readonly open: (url: string) => Promise<Reactor6>
  readonly modules: Powerhouse.RelationalProcessor.Options["models"] & object
}

const load = (): Promise<Package> =>
  import(new URL("../powerhouse/reactor.mjs", import.meta.url).href) as Promise<Package>

/** The models of its documents, as the packages have them. */
export const modules = () => load().then((it) => it.modules)

/** Opens one outside any scope: for what ends with its process. */
export const unscoped = async (url: string): Promise<Reactor6> => (await load()).open(url)

/** A reactor on a database, which may have been another's before. */
export const open = (database: PostgresDatabase): Effect.Effect<Reactor6, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => unscoped(database.url)),
    (reactor) => Effect.promise(() => reactor.close())
  )
