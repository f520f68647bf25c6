/**
 * Post: a processor that sends, one operation of which is refused, and a receiver that keeps what it was given in a file, so
 * that it outlives whoever is killed.
 *
 *     orders ─▶ processor ─▶ outbox ─▶ courier ─▶ a line in the file, for each time a message came
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { appendFileSync, existsSync, readFileSync } from "node:fs"
import { Courier, Dispatcher, Outbox, Source } from "../../src/index.js"
import type { Dispatch, Operation, Processor, Strand } from "../../src/index.js"
import * as Senders from "../support/Senders.js"

/** Sends through the outbox, or, as the control, by itself. */
export type Program = "outbox" | "direct"

/** What is told to a child. */
export interface Order {
  readonly dialect: "sqlite" | "pg"
  /** A file name or a URL. */
  readonly target: string
  /** The receiver's file. */
  readonly received: string
  readonly program: Program
  /** The statement to die at, from 1; 0: none. */
  readonly killAt: number
  readonly moment: "before" | "sent" | "after"
}

const targets = ["a", "b"]

/** Orders of three documents, in turns, two at a time. */
export const strands: ReadonlyArray<Source.Unplaced> = [0, 1].flatMap((turn) =>
  ["o1", "o2", "o3"].map((documentId) => Senders.orders(documentId, 2 * turn, targets[turn]!, targets[1 - turn]!))
)

/** The operation that is refused after it has sent; what follows it in its document waits. */
const isRefused = (documentId: string, index: number) => documentId === "o2" && index === 2

/** What is there in the end, in the order of sending. */
export const expected: ReadonlyArray<Line> = strands.flatMap(({ branch, documentId, operations, scope }) =>
  operations.filter(({ index }) => documentId !== "o2" || index < 2).map(({ hash, index, input, skip }) => ({
    id: Outbox.idOf({
      processor: "orders",
      source: "shop",
      cause: { documentId, scope, branch, index, skip, hash },
      nth: 0
    }),
    documentId: (input as { readonly to: string }).to
  }))
)

/** One delivery. */
export interface Line {
  readonly id: string
  readonly documentId: string
}

const refuse = (strand: Strand.Strand, operation: Operation.Operation) =>
  isRefused(strand.documentId, operation.index) ? new Senders.Unwilling({ n: operation.index }) : Effect.void

const sending = Senders.make({
  batch: 3,
  handle: (input, at) => Effect.zipRight(Senders.noteAndShip(input, at), refuse(at.strand, at.operation))
})

/** Sends from the handler, under the id that the outbox would give. */
const direct = (received: string) =>
  Senders.make<SqlClient.SqlClient>({
    batch: 3,
    handle: ({ n, to }, { operation, strand }) =>
      Effect.sync(() => {
        const cause = { ...operation, documentId: strand.documentId, scope: strand.scope, branch: strand.branch }
        keep(received, { id: Outbox.idOf({ processor: "orders", source: "shop", cause, nth: 0 }), documentId: to })
      }).pipe(Effect.zipRight(Senders.note(n)), Effect.zipRight(refuse(strand, operation)))
  })

export const processor = (
  { program, received }: Pick<Order, "program" | "received">
): Processor.Processor<never, SqlClient.SqlClient | Dispatch.Dispatch> =>
  program === "outbox" ? sending : direct(received)

const keep = (received: string, { documentId, id }: Line): void =>
  appendFileSync(received, `${JSON.stringify({ id, documentId })}\n`)

/** Everything that came, in order. */
export const receivedIn = (received: string): ReadonlyArray<Line> =>
  existsSync(received)
    ? readFileSync(received, "utf8").trimEnd().split("\n").filter((line) => line !== "").map((line) =>
      JSON.parse(line) as Line
    )
    : []

/** The source, the receiver, and a courier that does not wait long for one that was killed. */
export const layer = ({ received }: Pick<Order, "received">): Layer.Layer<Source.Source | Dispatcher.Dispatcher> =>
  Layer.mergeAll(
    Source.layerIterable("shop", strands),
    Dispatcher.layer((message) => Effect.sync(() => keep(received, message))),
    Layer.succeed(Courier.Settings, {
      concurrency: 4,
      leaseMillis: 250,
      answerWithin: "5 seconds",
      pauseMinMillis: 5,
      pauseMaxMillis: 40,
      lookMaxMillis: 50,
      rememberFor: "7 days"
    })
  )

/** What is wrong with what came, in words: each message at least once; each the first time in order for its document. */
export const violations = (lines: ReadonlyArray<Line>): ReadonlyArray<string> => {
  const found: Array<string> = []
  const first = new Map<string, Line>()
  for (const line of lines) if (!first.has(line.id)) first.set(line.id, line)
  const ids = new Set(expected.map(({ id }) => id))
  for (const id of ids) if (!first.has(id)) found.push(`${id} never came`)
  for (const id of first.keys()) if (!ids.has(id)) found.push(`${id} came, and what it was sent for is not committed`)
  for (const target of targets) {
    const came = [...first.values()].filter(({ documentId, id }) => documentId === target && ids.has(id))
    const due = expected.filter(({ documentId }) => documentId === target)
    if (came.map(({ id }) => id).join() !== due.map(({ id }) => id).join()) {
      found.push(`${target} had them out of order`)
    }
  }
  return found
}
