/**
 * A dispatcher: what takes a message to its document, and says how that went.
 *
 *     message ─▶ deliver ─┬─ done ───────────────▶ delivered, and remembered
 *                         ├─ ReceiverUnavailable ▶ again after a pause, for as long as it takes
 *                         └─ MessageRefused ─────▶ set aside; what follows it for the same document waits
 *
 * A message is delivered at least once: whoever is killed between the answer and its mark sends it again. It has the same
 * `id` then, and its actions have theirs, so that a receiver can tell.
 */

import * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

export class Dispatcher extends Context.Tag("effect-processors/Dispatcher")<Dispatcher, {
  /**
   * Delivers one message. When it succeeds the document's keeper has the actions for good. Messages of one processor for one
   * document come one after another, in the order in which they were sent; others come at the same time.
   */
  readonly deliver: (message: Message) => Effect.Effect<void, MessageRefused | ReceiverUnavailable>
}>() {}

/** What is delivered. */
export interface Message {
  /** A UUID made of the message's key: the same whenever the same operation is handled again. */
  readonly id: string
  readonly processor: string
  readonly source: string
  /** The operation that it was sent for. */
  readonly cause: {
    readonly documentId: string
    readonly scope: string
    readonly branch: string
    readonly index: number
    readonly skip: number
    readonly hash: string
    /** ISO 8601 in UTC. */
    readonly timestamp: string
  }
  /** Which of the operation's messages it is, from 0. */
  readonly nth: number
  readonly documentId: string
  readonly scope: string
  readonly branch: string
  readonly actions: ReadonlyArray<Outbound>
  /** When the handler sent it, in milliseconds since 1970. */
  readonly sentAtMillis: number
}

/** One action of a message, as JSON has it. */
export interface Outbound {
  /** A UUID made of the message's id and the action's place. */
  readonly id: string
  readonly type: string
  readonly input: unknown
}

/** The receiver cannot be reached, or cannot take it now. */
export class ReceiverUnavailable extends Data.TaggedError("ReceiverUnavailable")<{
  readonly reason: string
  readonly cause?: unknown
}> {
  override get message(): string {
    return this.reason
  }
}

/** The receiver will never take it as it is. */
export class MessageRefused extends Data.TaggedError("MessageRefused")<{
  readonly reason: string
  readonly cause?: unknown
}> {
  override get message(): string {
    return this.reason
  }
}

/** A dispatcher of one function. */
export const layer = (deliver: Context.Tag.Service<Dispatcher>["deliver"]): Layer.Layer<Dispatcher> =>
  Layer.succeed(Dispatcher, { deliver })
