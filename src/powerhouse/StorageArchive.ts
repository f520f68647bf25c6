/**
 * A storage archive: what document-drive, of generations 1 and 2, has stored.
 *
 *     drive ─▶ its documents ─▶ each as it is stored: the operations of its scopes
 *
 * Documents are read and not replayed, so that one which cannot be replayed hinders nobody. There is no order over
 * documents, and no mark: to look for what is new is to read every document of the drive.
 */

import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { indexMax } from "../domain/Operation.js"
import { read } from "./Archive.js"
import type { Archive, Found } from "./Archive.js"
import type * as Contract from "./Contract.js"

/** The archive of the storage that the server is built with. */
export const make = (storage: Contract.DocumentStorage): Archive => ({
  since: (_, drive) =>
    Stream.unwrap(Effect.map(
      read("documents", () => storage.getChildren(drive)),
      (children) => Stream.mapEffect(Stream.fromIterable([drive, ...children]), (id) => strandsOf(storage, drive, id))
    )),
  between: ({ documentId, from, scope, to }) =>
    Stream.fromEffect(Effect.map(
      documentIn(storage, documentId),
      (document) => document === undefined ? [] : [strand(documentId, document, scope, from, to)]
    )),
  document: (drive, documentId) => Stream.fromEffect(strandsOf(storage, drive, documentId)),
  within: (drive, documentIds) =>
    Effect.map(read("documents", () => storage.getChildren(drive)), (children) => {
      const known = new Set([drive, ...children])
      return new Set(documentIds.filter((id) => known.has(id)))
    }),
  head: Effect.succeed(0)
})

const strandsOf = (storage: Contract.DocumentStorage, driveId: string, documentId: string) =>
  Effect.map(
    documentIn(storage, documentId),
    (document): ReadonlyArray<Found> =>
      document === undefined ? [] : Object.keys(document.operations).flatMap((scope) => {
        // The real system never delivers this scope: it is its own.
        if (scope === "local") return []
        const { envelope, ordinal } = strand(documentId, document, scope, 0, indexMax)
        return envelope.operations.length === 0 ? [] : [{ envelope: { ...envelope, driveId }, ordinal }]
      })
  )

/** A document that was deleted meanwhile, or whose file cannot be read, has nothing to tell; the reactor says so itself. */
const documentIn = (storage: Contract.DocumentStorage, documentId: string) =>
  Effect.orElseSucceed(read("documents", () => storage.get(documentId)), () => undefined)

const strand = (
  documentId: string,
  document: Contract.StoredDocument,
  scope: string,
  from: number,
  to: number
) => ({
  envelope: {
    documentId,
    documentType: document.header.documentType,
    scope,
    branch: "main",
    // Said, so that no input is taken for the text of one.
    state: undefined,
    operations: standing(document.operations[scope] ?? []).filter(({ index }) => index >= from && index <= to)
  },
  ordinal: undefined
})

/** What the real system delivers of a scope: all that no later operation skips. */
const standing = (operations: ReadonlyArray<Contract.StoredOperation>): ReadonlyArray<Contract.StoredOperation> => {
  let floor = Infinity
  return operations.toSorted((a, b) => a.index - b.index || a.skip - b.skip).toReversed().filter(({ index, skip }) => {
    const stands = index < floor
    if (stands) floor = index - skip
    return stands
  }).toReversed()
}
