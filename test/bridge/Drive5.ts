/**
 * The door to the real document-drive 5.3.2: `test/powerhouse/drive/server.mjs`, with types.
 */
import type { Powerhouse } from "../../src/index.js"

/** A strand as the server delivers it. */
export interface Strand {
  readonly documentId: string
  readonly operations: ReadonlyArray<{ readonly index: number }>
}

/** A processor as anyone writes one for the server. */
export interface PlainRecord {
  readonly processor: {
    readonly onStrands: (strands: ReadonlyArray<Strand>) => Promise<void>
    readonly onDisconnect: () => Promise<void>
  }
  readonly filter: Powerhouse.Contract.ProcessorFilter
}

/** An operation as it is stored, with its place. */
export interface Stored {
  readonly documentId: string
  readonly scope: string
  readonly branch: string
  readonly operation: {
    readonly index: number
    readonly skip: number
    readonly hash: string
    readonly type: string
    readonly input: unknown
  }
}

export interface Drive5 {
  readonly storage: Powerhouse.Contract.DocumentStorage
  readonly processorManager: {
    readonly registerFactory: (
      name: string,
      factory: Powerhouse.Contract.ProcessorFactory | ((drive: { readonly id: string }) => ReadonlyArray<PlainRecord>)
    ) => Promise<void>
    readonly unregisterFactory: (name: string) => Promise<void>
  }
  readonly createDrive: (id: string) => Promise<void>
  readonly createDocument: (drive: string, id: string) => Promise<void>
  readonly execute: (document: string, ...actions: ReadonlyArray<object>) => Promise<void>
  readonly setName: (text: string) => object
  readonly undo: () => object
  /** The document as the server has it. */
  readonly read: (id: string) => Promise<{ readonly state: { readonly global: { readonly name: string } } }>
  readonly stored: (drive: string) => Promise<ReadonlyArray<Stored>>
}

interface Package {
  readonly open: (options?: { readonly directory?: string; readonly storage?: Drive5["storage"] }) => Promise<Drive5>
  readonly writeAtomically: () => void
}

export const load = (): Promise<Package> =>
  import(new URL("../powerhouse/drive/server.mjs", import.meta.url).href) as Promise<Package>

/** A server in memory, or on the storage of another. */
export const open = async (storage?: Drive5["storage"]): Promise<Drive5> => {
  const { open: make } = await load()
  return make(storage === undefined ? {} : { storage })
}
