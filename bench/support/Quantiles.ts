/**
 * Quantiles: how long something takes as a rule, and at its worst but one in a hundred. In milliseconds.
 */
export interface Quantiles {
  readonly p50: number
  readonly p99: number
}

/**
 * The first tenth of the values warms up and is not counted, nor is what comes before the last `most`. Throws when fewer than
 * ten values are left.
 */
export const make = (millis: ReadonlyArray<number>, most = Infinity): Quantiles =>
  all(millis.slice(Math.max(Math.ceil(millis.length / 10), millis.length - most)))

/** Counts all values. Throws when they are fewer than ten. */
export const all = (millis: ReadonlyArray<number>): Quantiles => {
  const sorted = millis.toSorted((a, b) => a - b)
  if (sorted.length < 10) throw new Error(`${millis.length} values are too few for a quantile`)
  const at = (share: number) => sorted[Math.ceil(share * sorted.length) - 1]!
  return { p50: at(0.5), p99: at(0.99) }
}
