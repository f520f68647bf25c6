/**
 * A FIFO: what waits, first in, first out, in one array for its whole life.
 *
 *     shift ◀── │ gone · gone · first · … · last │ ◀── push
 *
 * It matters to collections of young garbage. Whatever an old array or table still refers to, they take for alive, even when
 * nobody has that array any more: so what has left is forgotten at once, and room is made within the array, not in a new one.
 */
export class Fifo<A extends object> {
  private readonly items: Array<A | undefined> = []
  /** Where the first one is; what lies before has left. */
  private start = 0

  get length(): number {
    return this.items.length - this.start
  }

  get isEmpty(): boolean {
    return this.start === this.items.length
  }

  get first(): A | undefined {
    return this.items[this.start]
  }

  /** The one with so many before it, of which there must be more. */
  at(place: number): A {
    return this.items[this.start + place]!
  }

  push(item: A): void {
    if (this.start >= goneMax && 2 * this.start >= this.items.length) this.closeUp()
    this.items.push(item)
  }

  /** Lets the first one go, of which there must be one. */
  shift(): A {
    const item = this.items[this.start]!
    this.items[this.start++] = undefined
    return item
  }

  /** Whether these are the first ones. */
  startsWith(items: ReadonlyArray<A>): boolean {
    if (items.length > this.length) return false
    for (let i = 0; i < items.length; i++) if (this.items[this.start + i] !== items[i]) return false
    return true
  }

  /** Lets so many go, of which there must be as many. */
  drop(count: number): void {
    this.items.fill(undefined, this.start, this.start + count)
    this.start += count
  }

  /** Those with at least so many before them, in order. */
  from(place: number): ReadonlyArray<A> {
    return this.items.slice(this.start + place) as ReadonlyArray<A>
  }

  private closeUp(): void {
    const { items, length } = this
    items.copyWithin(0, this.start).fill(undefined, length)
    items.length = length
    this.start = 0
  }
}

/** So many may have left before the others move up. */
const goneMax = 1_024
