/**
 * Slots: a page of what was applied of a stream, as text, 8 characters for each of 32 indexes.
 *
 *     │ fingerprint · fingerprint · left out · empty · fingerprint │      nothing behind the last
 */

import type { Operation } from "../domain/Operation.js"

/** What tells an operation from the others of its stream. */
export type Identity = Pick<Operation, "index" | "skip" | "hash">

const pageSize = 32
/** Characters of a slot. */
export const size = 8

/** Of an index of which nothing was applied. */
export const empty = " ".repeat(size)

/** Stands in place of a fingerprint's first character where the operation was left out. No fingerprint has it. */
const leftOutMark = "!"

/** The slot of the same operation, where it was left out. */
export const leftOut = (slot: string): string => leftOutMark + slot.slice(1)

/** Whether the operation of the slot was left out. */
export const isLeftOut = (slot: string): boolean => slot.startsWith(leftOutMark)

/** No page has a number as high as this. */
export const pageMax = 2_147_483_647

/** The number of the page that an index is in. */
export const pageOf = (index: number): number => Math.floor(index / pageSize)

const offsetOf = (index: number): number => (index % pageSize) * size

/** The slot of an index in its page. */
export const at = (page: string, index: number): string => {
  const offset = offsetOf(index)
  return offset < page.length ? page.slice(offset, offset + size) : empty
}

/** The page with another slot at an index. */
export const put = (page: string, index: number, slot: string): string => {
  const offset = offsetOf(index)
  return page.slice(0, offset).padEnd(offset) + slot + page.slice(offset + size)
}

/** The page up to an index, and slots from there on; what it held there or behind is gone. */
export const append = (page: string, index: number, slots: string): string =>
  page.slice(0, offsetOf(index)).padEnd(offsetOf(index)) + slots

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

/** The text of every 12 bits, the lower six first. */
const twoCharacters = Array.from({ length: 4096 }, (_, bits) => alphabet[bits & 63]! + alphabet[bits >> 6]!)

/**
 * The fingerprints that were made last: an operation has one for each processor that wants it, and each of them asks. The
 * place of one is told by the last characters of its hash, which differ where all begin alike; what else comes there takes it.
 */
const made = new Array<{ readonly skip: number; readonly hash: string; readonly text: string } | undefined>(8_192)
  .fill(undefined)

const placeOf = (hash: string): number => {
  const end = hash.length
  let place = end
  for (let i = Math.max(0, end - 6); i < end; i++) place = Math.imul(place, 31) + hash.charCodeAt(i)
  return place & (made.length - 1)
}

/**
 * 48 bits over skip and hash, in 8 characters. Two FNV-1a sums with different starts; what it must tell apart is an
 * operation and its replacement at one index, not an adversary's choice.
 */
export const fingerprint = ({ hash, skip }: Identity): string => {
  const place = placeOf(hash)
  const known = made[place]
  if (known !== undefined && known.hash === hash && known.skip === skip) return known.text
  const text = sumOf(hash, skip)
  made[place] = { skip, hash, text }
  return text
}

const sumOf = (hash: string, skip: number): string => {
  let a = 0x811c9dc5 ^ skip
  let b = 0x01000193 + skip
  for (let i = 0; i < hash.length; i++) {
    const unit = hash.charCodeAt(i)
    a = Math.imul(a ^ unit, 0x01000193)
    b = Math.imul(b ^ unit, 0x85ebca6b)
    b ^= b >>> 13
  }
  a ^= a >>> 15
  b ^= b >>> 16
  return twoCharacters[a & 4095]! + twoCharacters[(a >>> 12) & 4095]! + twoCharacters[b & 4095]! +
    twoCharacters[(b >>> 12) & 4095]!
}
