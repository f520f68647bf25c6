/**
 * The contents page of the bridge to Powerhouse: what stands between its processors, reactors and subgraphs and ours.
 */
export * as DocumentPull from "./DocumentPull.js"
export * as Endpoint from "./Endpoint.js"
export * as Following from "./Following.js"
export * as HashNamespace from "./HashNamespace.js"
export * as OperationStore from "./OperationStore.js"
export * as PullResponder from "./PullResponder.js"
export * as RelationalDb from "./RelationalDb.js"
export { RelationalDbProcessor } from "./RelationalDbProcessor.js"
export * as RelationalProcessor from "./RelationalProcessor.js"
export * as SyncChannel from "./SyncChannel.js"
 * Powerhouse: what there is for those who have, or come from, the real Powerhouse packages.
 */
export * as Archive from "./Archive.js"
export * from "./Bridge.js"
export type * as Contract from "./Contract.js"
export type { DeliveryError } from "./Engagement.js"
export * as ReactorArchive from "./ReactorArchive.js"
export { Disconnected, ProcessorStopped, sourceName } from "./Session.js"
export * as StorageArchive from "./StorageArchive.js"
