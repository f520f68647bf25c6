/**
 * Reads: how long it takes to look up one row by its key, key after key.
 */
import * as Quantiles from "../support/Quantiles.js"
import type * as Search from "./search.js"

type Row = Search.SearchRow | undefined

/** Throws when a key is not found. */
export const measure = async (
  keys: ReadonlyArray<string>,
  find: (id: string) => Row | Promise<Row>
): Promise<Quantiles.Quantiles> => {
  const millis: Array<number> = []
  for (const key of keys) {
    const begun = performance.now()
    const found = find(key)
    const row = found instanceof Promise ? await found : found
    millis.push(performance.now() - begun)
    if (row?.id !== key) throw new Error(`${key} is not in the table`)
  }
  return Quantiles.make(millis)
}
