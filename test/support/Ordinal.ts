/**
 * Ordinal: that of the n-th dead letter of a subscription, which is one of this document.
 */
import * as Slice from "../../src/domain/Slice.js"

export const of = (n: number, documentId: string): bigint => BigInt(n * Slice.count + Slice.of(documentId))
