/**
 * A failure that the engine raises about one operation, naming the operation.
 */

import * as Data from "effect/Data"
import { quote } from "../domain/Operation.js"
import type { Operation } from "../domain/Operation.js"
import type { Stream } from "../domain/Strand.js"

/** Which operation, in the fields that identify it. */
export interface Subject {
  readonly documentId: string
  readonly scope: string
  readonly branch: string
  readonly index: number
  readonly skip: number
  readonly type: string
}

export const subject = (stream: Stream, operation: Operation): Subject => ({
  documentId: stream.documentId,
  scope: stream.scope,
  branch: stream.branch,
  index: operation.index,
  skip: operation.skip,
  type: operation.type
})

/** The operation in words: its type, index, document, scope and branch. */
export const show = (at: Subject): string =>
  `${quote(at.type)} at index ${at.index} of document ${quote(at.documentId)} (${quote(at.scope)}, ${quote(at.branch)})`

/** The operation does not fit its model, or holds what cannot be stored safely. `reason` says what and where. */
export class MalformedOperation extends Data.TaggedError("MalformedOperation")<
  Subject & { readonly reason: string; readonly cause?: unknown }
> {
  override get message(): string {
    return `${show(this)}: ${this.reason}`
  }
}

/** The operation's type is not one of its document model's. A newer model may have added it. */
export class UnknownOperation extends Data.TaggedError("UnknownOperation")<
  Subject & { readonly documentType: string }
> {
  override get message(): string {
    return `${show(this)}: the model ${quote(this.documentType)} has no such operation`
  }
}

/** Operations before this one are missing: `expected` is the first index that never came. */
export class StrandGap extends Data.TaggedError("StrandGap")<Subject & { readonly expected: number }> {
  override get message(): string {
    const last = this.index - this.skip - 1
    const missing = last > this.expected ? `indexes ${this.expected} to ${last} are` : `index ${this.expected} is`
    return `${show(this)}: ${missing} missing before it`
  }
}

/** Another operation was already applied at this index: the document's history was rewritten under the processor. */
export class HistoryRewritten extends Data.TaggedError("HistoryRewritten")<Subject & { readonly head: number }> {
  override get message(): string {
    return `${show(this)}: a different operation was applied at this index, and the document stands at ${this.head}`
  }
}

/**
 * The operation takes others back, and the document's rows cannot be made what is left: `reason` says why. Only processors
 * that cope with rewritten history can fail so.
 */
export class HistoryLost extends Data.TaggedError("HistoryLost")<
  Subject & { readonly reason: string; readonly cause?: unknown }
> {
  override get message(): string {
    return `${show(this)}: ${this.reason}`
  }
}

/** The handler has a bug: it threw, or died. No policy is asked; the subscription halts before the operation. */
export class Defect extends Data.TaggedError("Defect")<{ readonly cause: unknown }> {
  override get message(): string {
    return `the handler died: ${this.cause instanceof Error ? this.cause.message : String(this.cause)}`
  }
}
