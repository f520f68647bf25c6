/**
 * The directory: where the files of a store's namespaces are, made with those above it where it is missing.
 */

import * as Effect from "effect/Effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { StoreUnavailable } from "../../src/store/StoreUnavailable.js"
import { codeOf } from "./Code.js"

/** Creates what is missing. */
export const make = (path: string): Effect.Effect<void, StoreUnavailable> =>
  Effect.try({
    try: () => create(Path.resolve(path)),
    catch: (cause) =>
      new StoreUnavailable({
        store: "sqlite",
        target: path,
        reason: cause instanceof Error ? cause.message : String(cause),
        hint: "name a directory that this user may write to, or may make",
        transient: false,
        cause
      })
  })

/** One by one: Node's own `recursive` never ends below `/proc`. */
const create = (path: string): void => {
  const found = look(path)
  if (found?.isDirectory() === true) return
  if (found !== undefined) throw new Error(`${path} is a file`)
  create(Path.dirname(path))
  try {
    Fs.mkdirSync(path)
  } catch (cause) {
    // Somebody else made it meanwhile.
    if (codeOf(cause) !== "EEXIST") throw cause
  }
}

/** What is there; nothing below a file, which is found to be one in its turn. */
const look = (path: string): Fs.Stats | undefined => {
  try {
    return Fs.statSync(path, { throwIfNoEntry: false })
  } catch (cause) {
    if (codeOf(cause) === "ENOTDIR") return undefined
    throw cause
  }
}
