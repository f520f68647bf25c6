/**
 * The contract: what the real Powerhouse reactor expects of a processor factory, and what it lets one read, as far as we
 * use either. Shapes of our own, so that none of its packages is needed to compile or to run.
 *
 *     generation                     a factory is given    a processor is given
 *     1  document-drive up to 4      the drive's id        onStrands(strands)
 *     2  document-drive 5            the drive's header    onStrands(strands)
 *     3  @powerhousedao/reactor 6    the drive's header    onOperations(operations)
 *
 * What is delivered is typed as unknown: it comes from outside, and `Envelope` decodes it.
 */

/** A drive as a factory is told of it: its id, or a header that has it. */
export type DriveArgument = string | { readonly id: string }

/** What a record asks the reactor to deliver. A field that is left out stands for anything, in all generations. */
export interface ProcessorFilter {
  readonly documentType?: Array<string>
  readonly documentId?: Array<string>
  readonly scope?: Array<string>
  readonly branch?: Array<string>
}

/** A processor as the reactor calls it. Each promise rejects with a tagged error, which is an `Error` to the reactor. */
export interface TheirProcessor {
  /** Generations 1 and 2. Resolves once all of it is in the database, committed or set aside. */
  readonly onStrands: (strands: ReadonlyArray<unknown>) => Promise<void>
  /** Generation 3. Resolves once all of it is in the database, committed or set aside. */
  readonly onOperations: (operations: ReadonlyArray<unknown>) => Promise<void>
  /** Resolves once everything is released. What is delivered later is refused. */
  readonly onDisconnect: () => Promise<void>
  /** Brings the tables up to date; for hosts that call it. A factory has begun with it by itself. */
  readonly initAndUpgrade: () => Promise<void>
  /** Where the tables are: the name of our namespace. */
  readonly namespace: string
}

/** What a factory gives the reactor for each processor. */
export interface ProcessorRecord {
  /** Names the reactor's own cursor, where it is told to go by names. */
  readonly id: string
  readonly processor: TheirProcessor
  readonly filter: ProcessorFilter
  /** Where the reactor begins to deliver to a processor that it has no cursor of. Generation 3. */
  readonly startFrom: "beginning" | "current"
}

/** A factory as `registerFactory` of any generation takes it. */
export type ProcessorFactory = (drive: DriveArgument) => Promise<Array<ProcessorRecord>>

/** A page of what a reactor has stored. */
export interface Page<A> {
  readonly results: ReadonlyArray<A>
  readonly nextCursor?: string | undefined
}

/** How a page is asked for. */
export interface Paging {
  readonly cursor: string
  readonly limit: number
}

/** Where an operation of generation 3 belongs. */
export interface OperationContext {
  readonly documentId: string
  readonly documentType: string
  readonly scope: string
  readonly branch: string
  readonly ordinal: number | string
}

/** An operation of generation 3, as far as its place goes. */
export interface Operation {
  readonly index: number
}

/** An operation as generation 3 keeps it for a drive: flat. */
export interface IndexEntry extends OperationContext, Operation {}

/** What we read of the module that `ReactorBuilder.buildModule()` of generation 3 returns. */
export interface ReactorModule {
  readonly operationIndex: {
    readonly getSinceOrdinal: (
      ordinal: number,
      paging?: Paging
    ) => Promise<Page<{ readonly operation: Operation; readonly context: OperationContext }>>
    readonly find: (
      collectionId: string,
      cursor?: number,
      view?: undefined,
      paging?: Paging
    ) => Promise<Page<IndexEntry>>
    /** The entries of one document, by their ordinals. */
    readonly get: (documentId: string, view?: undefined, paging?: Paging) => Promise<Page<IndexEntry>>
    readonly getCollectionsForDocuments: (documentIds: Array<string>) => Promise<Record<string, Array<string>>>
  }
  readonly operationStore: {
    /** The operations above an index. */
    readonly getSince: (
      documentId: string,
      scope: string,
      branch: string,
      index: number,
      filter?: undefined,
      paging?: Paging
    ) => Promise<Page<Operation>>
  }
}

/** The storage that `document-drive` of generations 1 and 2 is built with. */
export interface DocumentStorage {
  readonly getChildren: (parentId: string) => Promise<ReadonlyArray<string>>
  readonly get: (documentId: string) => Promise<StoredDocument>
}

/** A document as that storage keeps it. */
export interface StoredDocument {
  readonly header: { readonly documentType: string }
  readonly operations: { readonly [scope: string]: ReadonlyArray<StoredOperation> | undefined }
}

/** An operation as that storage keeps it, as far as its place goes. */
export interface StoredOperation {
  readonly index: number
  readonly skip: number
}
