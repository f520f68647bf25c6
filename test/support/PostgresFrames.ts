/**
 * PostgresFrames: the messages in one direction of a PostgreSQL connection (protocol 3, unencrypted).
 *
 *     ┌──────┬────────┬──────────────┐
 *     │ type │ length │ body         │   length counts itself and the body; a client's first messages have no type
 *     └──────┴────────┴──────────────┘
 *
 * TCP cuts the bytes where it likes, so a reader is fed chunk by chunk and remembers an unfinished message. A message
 * longer than `sizeMax` is passed over unseen: whatever begins or ends a transaction is short.
 */

export interface Message {
  /** One character, such as `Q` (query) from a client or `C` (command complete) from a server. */
  readonly type: string
  readonly body: string
}

/** Takes the next chunk and gives the messages that it completes, in order. */
export type Reader = (chunk: Buffer) => ReadonlyArray<Message>

const sizeMax = 256
const typeSize = 1
const lengthSize = 4

/** Reads what a client sends, from its first byte on. */
export const fromClient = (): Reader => reader({ started: false })

/** Reads what a server sends, from its first byte on. */
export const fromServer = (): Reader => reader({ started: true })

/** Whether a client asks for the end of a transaction: as a simple query, or parsed as a statement. */
export const asksForCommit = (message: Message): boolean => {
  const text = message.type === "Q" ? message.body : message.type === "P" ? message.body.split("\0")[1] : undefined
  return text !== undefined && /^\s*(?:COMMIT|END)\b/i.test(text)
}

/** Whether a server says that a transaction is committed; the COMMIT of a failed one is answered with ROLLBACK. */
export const confirmsCommit = (message: Message): boolean => message.type === "C" && message.body === "COMMIT\0"

const reader = (state: { started: boolean }): Reader => {
  let pending = Buffer.alloc(0)
  let unseen = 0
  return (chunk) => {
    const messages: Array<Message> = []
    pending = Buffer.concat([pending, chunk])
    for (;;) {
      const passed = Math.min(unseen, pending.length)
      pending = pending.subarray(passed)
      unseen -= passed
      const head = state.started ? typeSize + lengthSize : lengthSize
      if (unseen > 0 || pending.length < head) return messages
      const size = head - lengthSize + pending.readUInt32BE(head - lengthSize)
      if (size > sizeMax) {
        unseen = size
        state.started = true
      } else if (pending.length < size) {
        return messages
      } else {
        if (state.started) messages.push({ type: pending.toString("latin1", 0, 1), body: bodyOf(pending, size) })
        else state.started = isStartup(pending)
        pending = pending.subarray(size)
      }
    }
  }
}

const bodyOf = (bytes: Buffer, size: number): string => bytes.toString("utf8", typeSize + lengthSize, size)

/** Requests for encryption may come before the startup message; they bear another major version. */
const isStartup = (bytes: Buffer): boolean => bytes.readUInt16BE(lengthSize) === 3
