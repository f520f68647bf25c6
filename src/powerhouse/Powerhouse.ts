/**
 * The contents page of the bridge to Powerhouse: what stands between its processors, reactors and subgraphs and ours.
 */
export * as HashNamespace from "./HashNamespace.js"
export * as RelationalProcessor from "./RelationalProcessor.js"
