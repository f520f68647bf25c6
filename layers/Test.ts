/**
 * The layers of a test: namespaces in memory and a source over strands that are at hand, in place of the real ones.
 *
 *     Effect.gen(function*() {
 *       yield* Reactor.run(TodoList)
 *       expect(yield* Namespace.query("todos", titles)).toEqual(["buy milk"])
 *     }).pipe(Effect.provide(Test.layer(strands)))
 */

import type * as SqlClient from "@effect/sql/SqlClient"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type { Protocol } from "../src/domain/History.js"
import { OperationType, Timestamp } from "../src/domain/Operation.js"
import type { Operation } from "../src/domain/Operation.js"
import { Branch, DocumentId, DocumentType, DriveId, Scope } from "../src/domain/Strand.js"
import * as Source from "../src/ingest/Source.js"
import type { Namespaces } from "../src/store/Namespaces.js"
import * as Sqlite from "./Sqlite.js"

/**
 * An in-memory SQLite for each namespace, another as the `SqlClient`, in which no processor writes, and a finite source named
 * `test` over these strands.
 */
export const layer = (
  strands: Iterable<Source.Unplaced>
): Layer.Layer<Namespaces | SqlClient.SqlClient | Source.Source> =>
  Layer.merge(Layer.fresh(Sqlite.layerMemory), Source.layerIterable("test", strands))

/** What may be said of a strand; the rest is filled in. */
export interface StrandOptions {
  readonly documentId: string
  readonly documentType: string
  readonly operations: ReadonlyArray<OperationOptions>
  readonly driveId?: string
  readonly scope?: string
  readonly branch?: string
  /** The rule by which its operations take others back; 2, the reactor's, when left out. */
  readonly protocol?: Protocol
  /** The index of the first operation; 0 when left out. The others count on from it. */
  readonly from?: number
}

export interface OperationOptions {
  readonly type: string
  readonly input?: unknown
  readonly index?: number
  readonly skip?: number
  readonly hash?: string
  readonly timestamp?: string
  readonly error?: string
}

/** A strand of a test: scope `global`, branch `main`, indexes counting on, a hash that tells one input from another. */
export const strand = (options: StrandOptions): Source.Unplaced => ({
  driveId: options.driveId === undefined ? undefined : decode(DriveId)(options.driveId),
  documentId: decode(DocumentId)(options.documentId),
  documentType: decode(DocumentType)(options.documentType),
  scope: decode(Scope)(options.scope ?? "global"),
  branch: decode(Branch)(options.branch ?? "main"),
  protocol: options.protocol ?? 2,
  bytes: 256 * options.operations.length,
  operations: options.operations.map((operation, i): Operation => {
    const index = operation.index ?? (options.from ?? 0) + i
    return {
      id: `${options.documentId}-${index}`,
      index,
      skip: operation.skip ?? 0,
      type: decode(OperationType)(operation.type),
      timestamp: decode(Timestamp)(operation.timestamp ?? "2026-01-01T00:00:00.000Z"),
      hash: operation.hash ?? `${operation.type}${JSON.stringify(operation.input)}`,
      input: operation.input,
      ...(operation.error === undefined ? {} : { error: operation.error })
    }
  })
})

const decode = Schema.decodeUnknownSync
