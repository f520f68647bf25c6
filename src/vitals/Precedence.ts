/**
 * Precedence: a processor that reads the tables of others never runs ahead of them.
 *
 *     others at 50 and 70 ─▶ of a batch up to 80, what is up to 50 now, the rest when they have come further
 *
 * Invariant: an operation is committed only once every partition of the others has committed all that it wants up to the
 * operation's position. What they have set aside they have passed: it is not waited for, and not to be found.
 */

import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type { Position } from "../domain/Position.js"
import type { Batch } from "../ingest/Batch.js"
import type * as Brake from "../ingest/Brake.js"
import type { Processor, ProcessorName } from "../process/Processor.js"
import type { Pulse } from "./Pulse.js"

/** Why a batch waits: another processor, which goes before this one, has not come so far. */
export class Behind extends Data.TaggedClass("Behind")<{
  readonly before: ProcessorName
  /** How far it has come; `undefined` before it has opened. */
  readonly at: Position | undefined
  /** Whether it will not go on by itself: it has halted, or waits for one that has. */
  readonly isForGood: boolean
}> {
  get message(): string {
    const stands = this.at === undefined ? "has not opened" : `has come to position ${this.at}`
    return `${this.before} goes before it and ${stands}${this.isForGood ? ", where it has halted" : ""}`
  }
}

/** How long is waited before looking again, in milliseconds, doubling; the others' commits tell of themselves. */
const pauses = { minMillis: 5, maxMillis: 200 }

/** The brake of one subscription. */
export class Precedence implements Brake.Brake<Behind> {
  private readonly news = Effect.unsafeMakeLatch(false)
  private readonly halt = Effect.unsafeMakeLatch(false)

  /** Behind all subscriptions of the processors that go before, at least one. */
  constructor(private readonly before: ReadonlyArray<Pulse>) {}

  /** Tells that one of those before may have come further. */
  readonly stir: Effect.Effect<void> = Effect.asVoid(this.news.open)

  /** Waits until a batch waits for one that has halted, and may go on again where it is projected anew. */
  readonly stuck: Effect.Effect<void> = Effect.suspend(() =>
    Effect.zipRight(this.halt.await, this.last).pipe(
      Effect.flatMap(({ isForGood }) =>
        isForGood ? Effect.void : Effect.zipRight(Effect.sync(() => this.halt.unsafeClose()), this.stuck)
      )
    )
  )

  readonly release: Brake.Brake<Behind>["release"] = (batch, held) =>
    Effect.gen(this, function*() {
      let told: Behind | undefined
      for (let pauseMillis = pauses.minMillis;; pauseMillis = Math.min(2 * pauseMillis, pauses.maxMillis)) {
        this.news.unsafeClose()
        const last = yield* this.last
        const released = last.at === undefined ? undefined : upTo(batch, last.at)
        if (released !== undefined || !last.isForGood) this.halt.unsafeClose()
        if (released !== undefined) return released
        if (told?.isForGood !== last.isForGood) yield* held(last)
        if (last.isForGood) yield* this.halt.open
        told = last
        yield* Effect.timeoutOption(this.news.await, pauseMillis)
      }
    })

  /** The one that is furthest behind. */
  private readonly last: Effect.Effect<Behind> = Effect.suspend(() =>
    Effect.map(
      Effect.forEach(this.before, (pulse) => Effect.map(pulse.passed, (at) => standing(pulse, at))),
      (all) => all.reduce((a, b) => (b.at ?? -1n) < (a.at ?? -1n) ? b : a)
    )
  )
}

/** The brakes of a reactor: who goes after whom. */
export class Order {
  private readonly behind = new Map<ProcessorName, Array<Precedence>>()

  constructor(private readonly pulses: ReadonlyMap<ProcessorName, ReadonlyArray<Pulse>>) {}

  /** A brake for one subscription of this processor; none where it goes after nobody. */
  brake({ after }: Pick<Processor<unknown, unknown>, "after">): Precedence | undefined {
    if (after.length === 0) return undefined
    const precedence = new Precedence(after.flatMap((name) => this.pulses.get(name) ?? []))
    for (const name of after) this.behind.set(name, [...this.behind.get(name) ?? [], precedence])
    return precedence
  }

  /** Tells those who go after this processor that it may have come further. */
  stir(name: ProcessorName): Effect.Effect<void> {
    return Effect.forEach(this.behind.get(name) ?? [], (precedence) => precedence.stir, { discard: true })
  }
}

const standing = (pulse: Pulse, at: Position | undefined): Behind =>
  new Behind({
    before: pulse.key.processor,
    at,
    isForGood: pulse.phase === "halted" || pulse.isGone() ||
      (pulse.state.failure instanceof Behind && pulse.state.failure.isForGood)
  })

/** What of a batch is at or below a position, and what is left; `undefined` where that is nothing. */
export const upTo = (batch: Batch, position: Position): Brake.Released | undefined => {
  const { position: to, strands } = batch
  // The last strand may be the beginning of one that is longer than the batch, whose position is beyond.
  const last = strands.at(-1)?.position ?? to
  if (to <= position && last <= position) return { first: batch, rest: undefined }
  const beyond = strands.findIndex((strand) => strand.position > position)
  const at = beyond < 0 ? strands.length : beyond
  if (at === 0) return undefined
  const operations = strands.slice(0, at).reduce((sum, strand) => sum + strand.operations.length, 0)
  return {
    first: { strands: strands.slice(0, at), operations, position: to < position ? to : position },
    rest: { strands: strands.slice(at), operations: batch.operations - operations, position: to }
  }
}

/** What is wrong with who goes after whom, in words; `undefined`: nothing is. */
export const flaw = (
  processors: ReadonlyArray<Pick<Processor<unknown, unknown>, "name" | "after">>
): string | undefined => {
  const byName = new Map(processors.map((processor) => [processor.name, processor]))
  const settled = new Set<ProcessorName>()
  const visit = (name: ProcessorName, path: ReadonlyArray<ProcessorName>): string | undefined => {
    if (path.includes(name)) return `${[...path.slice(path.indexOf(name)), name].join(" goes after ")}: none can begin`
    if (settled.has(name)) return undefined
    for (const before of byName.get(name)!.after) {
      const wrong = byName.has(before)
        ? visit(before, [...path, name])
        : `${name} goes after ${before}, which is not in this reactor`
      if (wrong !== undefined) return wrong
    }
    settled.add(name)
    return undefined
  }
  for (const { name } of processors) {
    const wrong = visit(name, [])
    if (wrong !== undefined) return wrong
  }
  return undefined
}
