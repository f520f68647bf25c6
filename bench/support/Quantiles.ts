/**
 * Quantiles: how long something takes as a rule, and at its worst but one in a hundred. In milliseconds.
 */
export interface Quantiles {
  readonly p50: number
  readonly p99: number
}

/** The first tenth of the values warms up and is not counted. Throws when fewer than ten values are left. */
export const make = (millis: ReadonlyArray<number>): Quantiles => {
  const sorted = millis.slice(Math.ceil(millis.length / 10)).sort((a, b) => a - b)
  if (sorted.length < 10) throw new Error(`${millis.length} values are too few for a quantile`)
  const at = (share: number) => sorted[Math.ceil(share * sorted.length) - 1]!
  return { p50: at(0.5), p99: at(0.99) }
}
