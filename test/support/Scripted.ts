/**
 * Scripted: an HTTP server that answers as a test says, and keeps what it was asked.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { once } from "node:events"
import { createServer } from "node:http"
import type { IncomingHttpHeaders } from "node:http"
import type { AddressInfo } from "node:net"

export interface Asked {
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly body: {
    readonly query: string
    readonly variables: { readonly [name: string]: unknown }
    readonly operationName?: string
  }
}

export interface Reply {
  readonly status?: number
  /** Text is sent as it is; anything else as JSON. */
  readonly body: unknown
}

export interface Scripted {
  readonly url: string
  readonly asked: ReadonlyArray<Asked>
}

/** The data of an answer that has this value for a field, under the name that the question gives it. */
export const dataOf = (query: string, field: string, value: unknown): { readonly [name: string]: unknown } => ({
  [new RegExp(`(\\w+): ${field}\\b`).exec(query)?.[1] ?? field]: value
})

/** A strand as a pull responder is answered, with one operation, which `more` may say more about. */
export const strand = (documentId: string, index: number, more: object = {}) => ({
  driveId: "home",
  documentId,
  documentType: "test/list",
  scope: "global",
  branch: "main",
  operations: [{
    id: `${documentId} ${index}`,
    index,
    skip: 0,
    hash: `h${index}`,
    timestampUtcMs: "2026-11-22T00:00:00.000Z",
    type: "PUT",
    input: "{}",
    ...more
  }]
})

/** Opens one; it ends with the scope. */
export const make = (reply: (asked: Asked) => Reply): Effect.Effect<Scripted, never, Scope.Scope> =>
  Effect.gen(function*() {
    const asked: Array<Asked> = []
    const server = yield* Effect.acquireRelease(
      Effect.promise(async () => {
        const listening = createServer((request, response) => {
          const parts: Array<Buffer> = []
          request.on("data", (part: Buffer) => parts.push(part))
          request.on("end", () => {
            const body = JSON.parse(Buffer.concat(parts).toString()) as Asked["body"]
            const one = { path: request.url ?? "", headers: request.headers, body }
            asked.push(one)
            const { body: text, status = 200 } = reply(one)
            response.writeHead(status, { "content-type": "application/json" })
            response.end(typeof text === "string" || text instanceof Uint8Array ? text : JSON.stringify(text))
          })
        })
        listening.listen(0, "127.0.0.1")
        await once(listening, "listening")
        return listening
      }),
      (open) =>
        Effect.promise(async () => {
          const closed = once(open, "close")
          open.close()
          open.closeAllConnections()
          await closed
        })
    )
    return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked }
  })
