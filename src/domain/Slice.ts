/**
 * A slice: one of 1,024 shares of all documents, so that work can be divided and each document stays whole.
 *
 *     document id ──▶ FNV-1a, 32 bits ──▶ mixed ──▶ its upper 10 bits: 0 to 1,023
 *
 * Invariant: a document's slice never changes, from one version to the next either: cursors and dead letters go by it.
 */

/** How many slices there are, for good. */
export const count = 1_024

/** Slices from `first` to `last`, both included. */
export interface Range {
  readonly first: number
  readonly last: number
}

/** All slices. */
export const whole: Range = { first: 0, last: count - 1 }

/**
 * The slice of a document: FNV-1a over the UTF-16 code units of its id, from 2166136261 by 16777619, then the finalizer of
 * MurmurHash3 for 32 bits, since the upper bits of FNV of short texts are much alike.
 */
export const of = (documentId: string): number => {
  let sum = 0x811c9dc5
  for (let i = 0; i < documentId.length; i++) sum = Math.imul(sum ^ documentId.charCodeAt(i), 0x01000193)
  sum = Math.imul(sum ^ (sum >>> 16), 0x85ebca6b)
  sum = Math.imul(sum ^ (sum >>> 13), 0xc2b2ae35)
  return (sum ^ (sum >>> 16)) >>> 22
}

export const isIn = ({ first, last }: Range, slice: number): boolean => first <= slice && slice <= last

export const isSame = (a: Range, b: Range): boolean => a.first === b.first && a.last === b.last

/** What two ranges share; `undefined` where that is nothing. */
export const shared = (a: Range, b: Range): Range | undefined => {
  const first = Math.max(a.first, b.first)
  const last = Math.min(a.last, b.last)
  return first <= last ? { first, last } : undefined
}
