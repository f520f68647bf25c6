/**
 * Effort: how long a benchmark takes. What a developer shortens for a quick look is what a result states by itself.
 *
 *     BENCH_ROUNDS=1 BENCH_OPERATIONS=4000 BENCH_SECONDS=1 npm run bench:throughput
 */

const count = (variable: string, otherwise: number): number => {
  const given = process.env[variable]
  if (given === undefined) return otherwise
  const value = Number(given)
  if (!Number.isInteger(value) || value < 1) throw new Error(`${variable} has to be a whole number above 0: ${given}`)
  return value
}

/** Rounds that count, each with every subject once; a round before them warms up. */
export const rounds: number = count("BENCH_ROUNDS", 5)

/** As {@link rounds}, where another number is usual. */
export const roundsOr = (otherwise: number): number => count("BENCH_ROUNDS", otherwise)

/** Operations that a stream has at least. */
export const operations = (otherwise: number): number => count("BENCH_OPERATIONS", otherwise)

/** For how long a subject may read, about, in seconds: one that is too slow for the whole stream reads its beginning. */
export const seconds: number = count("BENCH_SECONDS", 3)

/** Of the commits whose latency is measured so many are counted, the last ones: those before warm the process up. */
export const countedCommits = 1_000

/** Processors of one reactor. */
export const processors = (otherwise: number): number => count("BENCH_PROCESSORS", otherwise)
