/**
 * A COPY whose data is at hand: sent with its text in one go, and answered as any other statement.
 *
 *     COPY … FROM STDIN, data, end of data ──▶ COPY 4000, or an error
 *
 * The server is not asked whether it wants the data: what it was sent behind a text that it refuses it leaves aside
 * ("Message Flow", PostgreSQL's documentation, COPY Operations).
 */

import pg from "pg"
import type * as Pg from "pg"
import type { Sent } from "../../src/store/Flight.js"

/** The data of a COPY: text, or bytes of it. */
type Data = string | Uint8Array

/** Whether a statement is a COPY with its data as the only parameter. */
export const isCopyIn = (statement: Sent): statement is readonly [string, readonly [Data]] => {
  const [text, values] = statement
  return asks.test(text) && values.length === 1 && (typeof values[0] === "string" || values[0] instanceof Uint8Array)
}

const asks = /^\s*COPY\b[^;]*\bFROM\s+STDIN\b/i

/** What `pg` has on a connection, which its types leave out. */
type Connection = Pg.Connection & {
  readonly sendCopyFromChunk: (data: Uint8Array) => void
  readonly endCopyFrom: () => void
}

const bufferOf = (data: Data): Buffer =>
  typeof data === "string" ? Buffer.from(data) : Buffer.from(data.buffer, data.byteOffset, data.byteLength)

/** One of its own queries: of others it takes none into a pipeline. */
export class CopyIn extends pg.Query {
  constructor(
    private readonly copy: string,
    private readonly data: Data,
    done: (error: Error | undefined, answer: unknown) => void
  ) {
    super(copy, done)
  }

  override submit = (connection: Pg.Connection): void => {
    connection.query(this.copy)
    ;(connection as Connection).sendCopyFromChunk(bufferOf(this.data))
    ;(connection as Connection).endCopyFrom()
  }

  /** The server is ready for what it is being sent. */
  handleCopyInResponse(): void {}
}
