/**
 * The processors' part of the real packages alone, which starts in a fraction of the time.
 */
export * as processors from "@powerhousedao/shared/processors"
