/**
 * An outline: what some strands hold of each stream, worked out once for all processors that are given them together.
 *
 *     strand · strand · strand · … ──▶ stretch: the operations of one stream ──▶ chain, if each comes next after the one before
 *
 * A batch is mostly chains; to a stream that stands right before one, the chain is a few pieces of text, not its operations.
 */

import type { Operation } from "../domain/Operation.js"
import type { Strand, Stream } from "../domain/Strand.js"
import * as Slots from "./Slots.js"

/** Operations of which each continues the stream behind the one before, or takes its end back; there is at least one. */
export interface Chain {
  readonly first: Operation
  readonly last: Operation
  /** Their slots, page by page. */
  readonly pieces: ReadonlyArray<Piece>
}

/** The slots of a chain in one page. */
export interface Piece {
  readonly page: number
  /** The index of the first. */
  readonly from: number
  readonly slots: string
}

type Indexed = Pick<Operation, "index">

/** The operations of one stream, in the order in which they come. */
export class Stretch<O extends Indexed> implements Stream {
  readonly documentId
  readonly scope
  readonly branch
  readonly operations: Array<O> = []
  /** The pages that hold their slots; the first lies behind the last where there are none. */
  readonly pages = { first: Slots.pageMax, last: 0 }
  private linked: { readonly chain: Chain | undefined } | undefined = undefined

  constructor({ branch, documentId, scope }: Stream) {
    this.documentId = documentId
    this.scope = scope
    this.branch = branch
  }

  add(operation: O): void {
    this.operations.push(operation)
    const page = Slots.pageOf(operation.index)
    if (page < this.pages.first) this.pages.first = page
    if (page > this.pages.last) this.pages.last = page
  }

  /** `undefined` where not each operation comes next after the one before, or anything is wrong with one. */
  chain(this: Stretch<Operation>): Chain | undefined {
    this.linked ??= { chain: isChain(this.operations) ? link(this.operations) : undefined }
    return this.linked.chain
  }
}

/** By stream, in the order in which the streams come. Strands of one stream need not follow each other. */
export type Outline<O extends Indexed> = ReadonlyArray<Stretch<O>>

export const make = <O extends Indexed>(
  strands: ReadonlyArray<Stream & { readonly operations: ReadonlyArray<O> }>
): Outline<O> => {
  const stretches: Array<Stretch<O>> = []
  const byDocument = new Map<string, Array<Stretch<O>>>()
  for (const strand of strands) {
    const { branch, documentId, operations, scope } = strand
    let some = byDocument.get(documentId)
    if (some === undefined) byDocument.set(documentId, some = [])
    let stretch: Stretch<O> | undefined
    for (const each of some) if (each.scope === scope && each.branch === branch) stretch = each
    if (stretch === undefined) {
      stretch = new Stretch<O>(strand)
      some.push(stretch)
      stretches.push(stretch)
    }
    for (const operation of operations) stretch.add(operation)
  }
  return stretches
}

const outlines = new WeakMap<ReadonlyArray<Strand>, Outline<Operation>>()

/** {@link make}, once for each list of strands. */
export const of = (strands: ReadonlyArray<Strand>): Outline<Operation> => {
  const known = outlines.get(strands)
  if (known !== undefined) return known
  const outline = make(strands)
  outlines.set(strands, outline)
  return outline
}

const isChain = (operations: ReadonlyArray<Operation>): boolean => {
  let before: Operation | undefined
  for (const operation of operations) {
    if (operation.flaw !== undefined) return false
    const { index, skip } = operation
    if (before !== undefined && (index <= before.index || index - skip > before.index + 1)) return false
    before = operation
  }
  return before !== undefined
}

const link = (operations: ReadonlyArray<Operation>): Chain => {
  const pieces: Array<Piece> = []
  let page = -1
  let from = 0
  let slots = ""
  for (const operation of operations) {
    const { index } = operation
    if (Slots.pageOf(index) !== page) {
      if (page >= 0) pieces.push({ page, from, slots })
      page = Slots.pageOf(index)
      from = index
      slots = ""
    }
    slots = slots.padEnd((index - from) * Slots.size) + Slots.fingerprint(operation)
  }
  pieces.push({ page, from, slots })
  return { first: operations[0]!, last: operations.at(-1)!, pieces }
}
