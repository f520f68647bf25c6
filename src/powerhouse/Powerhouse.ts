/**
 * The contents page of the bridge to Powerhouse: what stands between its processors, reactors and subgraphs and ours.
 *
 *     ours in theirs        processorFactory, ReactorArchive, StorageArchive
 *     theirs in ours        RelationalProcessor, RelationalDb, RelationalDbProcessor
 *     over the wire         PullResponder, SyncChannel
 *     from their database   OperationStore
 *     back to them          ReactorDispatcher
 */
export * as Archive from "./Archive.js"
export * from "./Bridge.js"
export type * as Contract from "./Contract.js"
export * as DocumentPull from "./DocumentPull.js"
export * as Endpoint from "./Endpoint.js"
export type { DeliveryError } from "./Engagement.js"
export * as Following from "./Following.js"
export * as HashNamespace from "./HashNamespace.js"
export * as OperationStore from "./OperationStore.js"
export * as PullResponder from "./PullResponder.js"
export * as ReactorArchive from "./ReactorArchive.js"
export * as ReactorDispatcher from "./ReactorDispatcher.js"
export * as RelationalDb from "./RelationalDb.js"
export { RelationalDbProcessor } from "./RelationalDbProcessor.js"
export * as RelationalProcessor from "./RelationalProcessor.js"
export { Disconnected, ProcessorStopped, sourceName } from "./Session.js"
export * as StorageArchive from "./StorageArchive.js"
export * as SyncChannel from "./SyncChannel.js"
