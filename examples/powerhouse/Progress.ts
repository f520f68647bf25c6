/**
 * Progress: what a person sees while a reactor works, on standard error: a bar on a terminal, a line a second
 * elsewhere.
 *
 *     pulses: positions, counts ─┐
 *     lines of the input ────────┴─▶ [########··········]  41 %  21,904 operations  9,120/s  0 held
 *
 * The share done is that of the input's lines that are behind the cursors, on average over the subscriptions. Until the
 * lines have been counted, there is no share.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { Ndjson } from "../../src/index.js"
import type { Pulse } from "../../src/index.js"
import { countLines } from "./Input.js"
import type { Input } from "./Input.js"

export interface Progress {
  /** Prints a line of its own, whatever the display is doing. */
  readonly note: (text: string) => Effect.Effect<void>
  /** Shows the last state, and stops. */
  readonly finish: Effect.Effect<void>
}

export interface Options {
  readonly input: Input
  readonly pulses: Effect.Effect<ReadonlyArray<Pulse.Pulse>>
  /** How often plain lines appear, in milliseconds. */
  readonly everyMillis: number
}

const barMillis = 100

/** Shows progress until the scope closes or `finish` is run. */
export const follow = ({ everyMillis, input, pulses }: Options): Effect.Effect<Progress, never, Scope.Scope> =>
  Effect.gen(function*() {
    const isTerminal = process.stderr.isTTY
    const lines = new Array<number | undefined>(input.files.length).fill(undefined)
    const startedMillis = yield* Clock.currentTimeMillis
    const write = (text: string) => Effect.sync(() => void process.stderr.write(text))
    const clear = isTerminal ? write("\r\u001b[K") : Effect.void

    const draw = Effect.gen(function*() {
      const state = stateOf(yield* pulses, lines, (yield* Clock.currentTimeMillis) - startedMillis)
      yield* write(isTerminal ? `\r\u001b[K${bar(state)}${text(state)}` : `${text(state)}\n`)
    })

    yield* Effect.forkScoped(countLines(input, (file, count) => void (lines[file] = count)))
    const display = yield* draw.pipe(
      Effect.delay(isTerminal ? barMillis : everyMillis),
      Effect.repeat(Schedule.forever),
      Effect.forkScoped
    )
    yield* Effect.addFinalizer(() => clear)
    return {
      note: (line) => Effect.zipRight(clear, write(`${line}\n`)),
      finish: Effect.all([Fiber.interrupt(display), draw, isTerminal ? write("\n") : Effect.void], { discard: true })
    }
  })

interface State {
  /** From 0 to 1. */
  readonly share: number | undefined
  readonly operations: number
  readonly perSecond: number
  readonly held: number
}

const stateOf = (
  pulses: ReadonlyArray<Pulse.Pulse>,
  lines: ReadonlyArray<number | undefined>,
  elapsedMillis: number
): State => {
  const operations = Math.max(0, ...pulses.map((pulse) => pulse.totals.operations))
  return {
    share: shareOf(pulses, lines),
    operations,
    perSecond: elapsedMillis < 1 ? 0 : operations / elapsedMillis * 1_000,
    held: Math.max(0, ...pulses.map((pulse) => pulse.parked))
  }
}

const shareOf = (
  pulses: ReadonlyArray<Pulse.Pulse>,
  lines: ReadonlyArray<number | undefined>
): number | undefined => {
  if (pulses.length > 0 && pulses.every(({ phase }) => phase === "ended")) return 1
  let all = 0
  const before = lines.map((count) => {
    const sum = all
    all += count ?? Number.NaN
    return sum
  })
  if (Number.isNaN(all) || all === 0 || pulses.length === 0) return undefined
  const shares = pulses.map(({ phase, position }) => {
    if (phase === "ended") return 1
    if (position === undefined) return 0
    const { file, line } = Ndjson.placeOf(position)
    return Math.min(1, ((before[file] ?? 0) + line) / all)
  })
  return shares.reduce((sum, share) => sum + share, 0) / shares.length
}

const width = 24

const bar = ({ share }: State): string => {
  const full = Math.round((share ?? 0) * width)
  return `[${"#".repeat(full)}${"·".repeat(width - full)}] `
}

const text = ({ held, operations, perSecond, share }: State): string => {
  const percent = share === undefined ? "" : `${Math.floor(share * 100).toString().padStart(3)} %  `
  return `${percent}${whole(operations)} operations  ${whole(perSecond)}/s  ${whole(held)} held`
}

const whole = (n: number): string => Math.round(n).toLocaleString("en-US")
