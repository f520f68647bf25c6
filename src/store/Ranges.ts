/**
 * Ranges: how the cursors of a processor become others when it is divided anew, with nothing lost and nothing repeated.
 *
 *     0–511 at 20 · 512–1,023 at 50   ──divide──▶   0–1,023 at 20, 512–1,023 of them ahead, at 50
 *
 * Invariants: each slice goes on from the position that it had come to. A range begins at the lowest position of its slices;
 * what is above it is known of the others, so that what they have passed is not taken for news. How far a slice was handled
 * once, before its rows were emptied, is known of each slice as well.
 */

import * as Position from "../domain/Position.js"
import * as Slice from "../domain/Slice.js"

/** How far slices have come that are further than their range. */
export interface Ahead {
  readonly slices: Slice.Range
  readonly position: Position.Position
}

/** How far a range has come. */
export interface Standing {
  readonly slices: Slice.Range
  readonly position: Position.Position
  /** Those of its slices that have come further, in their order. */
  readonly ahead: ReadonlyArray<Ahead>
  /** Those of its slices that had come further before their rows were emptied, in their order: what they repeat. */
  readonly handled: ReadonlyArray<Ahead>
  /** Commits so far. */
  readonly sequence: bigint
  /** How many dead letters were ever written. */
  readonly letters: bigint
}

export const areSame = (some: ReadonlyArray<Slice.Range>, others: ReadonlyArray<Slice.Range>): boolean =>
  some.length === others.length && some.every((range, i) => Slice.isSame(range, others[i]!))

/** What becomes of ranges that hold all slices when they are divided into `ranges`, which do as well. */
export const divide = (
  standings: ReadonlyArray<Standing>,
  ranges: ReadonlyArray<Slice.Range>
): ReadonlyArray<Standing> =>
  ranges.map((slices) => {
    const parts = standings.flatMap((standing) => cut(stretches(standing), slices))
    const position = parts.reduce((lowest, part) => part.position < lowest ? part.position : lowest, parts[0]!.position)
    const from = standings.filter((standing) => Slice.shared(standing.slices, slices) !== undefined)
    return {
      slices,
      position,
      ahead: joined(parts.filter((part) => part.position > position)),
      handled: joined(standings.flatMap(({ handled }) => cut(handled, slices))),
      sequence: highest(from.map(({ sequence }) => sequence)),
      letters: highest(from.map(({ letters }) => letters))
    }
  })

/** Whether a strand of this slice at this position is one that a range has yet to see. */
export const isNews = (
  { ahead, slices }: Pick<Standing, "slices" | "ahead">,
  slice: number,
  position: Position.Position
): boolean =>
  Slice.isIn(slices, slice) && !ahead.some((part) => position <= part.position && Slice.isIn(part.slices, slice))

/** Whether a strand of this slice at this position was handled once, and its range has not come so far again. */
export const wasHandled = (
  { handled, position: stands }: Pick<Standing, "position" | "handled">,
  slice: number,
  position: Position.Position
): boolean =>
  handled.some((part) => stands < part.position && position <= part.position && Slice.isIn(part.slices, slice))

/** How far a slice has come; the origin where it is in none of the stretches. */
export const positionIn = (parts: ReadonlyArray<Ahead>, slice: number): Position.Position =>
  parts.find(({ slices }) => Slice.isIn(slices, slice))?.position ?? Position.origin

/** The lowest and the highest position of stretches, of which there is at least one. */
export const bounds = (
  parts: ReadonlyArray<Ahead>
): { readonly lowest: Position.Position; readonly highest: Position.Position } => {
  let lowest = parts[0]!.position
  let highest = lowest
  for (const { position } of parts) {
    if (position < lowest) lowest = position
    if (position > highest) highest = position
  }
  return { lowest, highest }
}

/** Of each slice the further of two positions. Slices that `others` lack stay where they are. */
export const furthest = (parts: ReadonlyArray<Ahead>, others: ReadonlyArray<Ahead>): ReadonlyArray<Ahead> =>
  joined(others.reduce((all, other) => all.flatMap((part) => raised(part, other)), parts))

/** The stretches that are behind `others`, as far as they share slices: where they are. */
export const behind = (parts: ReadonlyArray<Ahead>, others: ReadonlyArray<Ahead>): ReadonlyArray<Ahead> =>
  others.flatMap(({ position, slices }) => cut(parts, slices).filter((part) => part.position < position))

/** A stretch with what it shares with another at the further position of both. */
const raised = (part: Ahead, other: Ahead): ReadonlyArray<Ahead> => {
  const both = Slice.shared(part.slices, other.slices)
  if (both === undefined || other.position <= part.position) return [part]
  const { first, last } = part.slices
  return [
    ...(first < both.first ? [{ ...part, slices: { first, last: both.first - 1 } }] : []),
    { slices: both, position: other.position },
    ...(both.last < last ? [{ ...part, slices: { first: both.last + 1, last } }] : [])
  ]
}

/** A range as stretches of one position each. */
export const stretches = (
  { ahead, position, slices }: Pick<Standing, "slices" | "position" | "ahead">
): ReadonlyArray<Ahead> => {
  const parts: Array<Ahead> = []
  let first = slices.first
  for (const part of ahead) {
    if (part.slices.first > first) parts.push({ slices: { first, last: part.slices.first - 1 }, position })
    parts.push(part)
    first = part.slices.last + 1
  }
  if (first <= slices.last) parts.push({ slices: { first, last: slices.last }, position })
  return parts
}

const cut = (parts: ReadonlyArray<Ahead>, to: Slice.Range): ReadonlyArray<Ahead> =>
  parts.flatMap(({ position, slices }) => {
    const both = Slice.shared(slices, to)
    return both === undefined ? [] : [{ slices: both, position }]
  })

/** Neighbours at one position made one. */
const joined = (parts: ReadonlyArray<Ahead>): ReadonlyArray<Ahead> => {
  const all: Array<Ahead> = []
  for (const part of parts) {
    const before = all.at(-1)
    if (before !== undefined && before.position === part.position && before.slices.last + 1 === part.slices.first) {
      all[all.length - 1] = { position: part.position, slices: { first: before.slices.first, last: part.slices.last } }
    } else {
      all.push(part)
    }
  }
  return all
}

const highest = (values: ReadonlyArray<bigint>): bigint => values.reduce((a, b) => a > b ? a : b, 0n)

/** As a cursor's row has it: JSON, nothing where no slice is ahead. */
export const toText = (ahead: ReadonlyArray<Ahead>): string =>
  ahead.length === 0
    ? ""
    : JSON.stringify(ahead.map(({ position, slices }) => [slices.first, slices.last, String(position)]))

/** Those of a row's list that are still ahead of its position. */
export const fromText = (text: string, than: Position.Position): ReadonlyArray<Ahead> =>
  text === "" ? [] : (JSON.parse(text) as ReadonlyArray<readonly [number, number, string]>).flatMap(
    ([first, last, at]) => {
      const position = Position.fromSql(at)
      return position > than ? [{ slices: { first, last }, position }] : []
    }
  )
