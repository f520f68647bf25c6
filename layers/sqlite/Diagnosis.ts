/**
 * A diagnosis: what an error of opening a file means, and what its operator can do about it.
 *
 *     cause ──▶ its code, and what is found in the file's place ──▶ StoreUnavailable
 */

import * as Option from "effect/Option"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { StoreUnavailable } from "../../src/store/StoreUnavailable.js"
import { codeOf } from "./Code.js"
import type { Settings } from "./Settings.js"

/** Why the file cannot be used. */
export const unavailable = (settings: Settings, cause: unknown): StoreUnavailable =>
  new StoreUnavailable({ store: "sqlite", target: settings.filename, ...diagnose(settings, cause), cause })

const diagnose = (
  { filename, readonly }: Settings,
  cause: unknown
): { readonly reason: string; readonly hint: string; readonly transient: boolean } => {
  const directory = Path.dirname(Path.resolve(filename))
  const code = codeOf(cause)
  const message = cause instanceof Error ? cause.message : String(cause)
  if (/directory does not exist/.test(message)) {
    return { reason: "its directory does not exist", hint: `create ${directory} first`, transient: false }
  }
  if (code.startsWith("SQLITE_CANTOPEN") || code.startsWith("SQLITE_READONLY")) {
    const file = Option.getOrUndefined(Option.liftThrowable(() => Fs.statSync(filename))())
    if (file?.isDirectory() === true) {
      return { reason: "it is a directory", hint: "name a file inside it", transient: false }
    }
    if (file === undefined && readonly) {
      return { reason: "there is no such file", hint: "a read-only store has to exist already", transient: false }
    }
    const reason = `this process may not ${readonly ? "read" : "write"} the file or its directory`
    const hint = `give it the rights to both, since SQLite keeps a -wal and a -shm file beside it in ${directory}`
    return { reason, hint, transient: false }
  }
  if (code.startsWith("SQLITE_NOTADB")) {
    return {
      reason: "it is not an SQLite database",
      hint: "name another file; this one was not changed",
      transient: false
    }
  }
  if (code.startsWith("SQLITE_CORRUPT")) {
    return { reason: `it is damaged (${message})`, hint: "restore it from a backup, or rebuild it", transient: false }
  }
  if (code.startsWith("SQLITE_BUSY") || code.startsWith("SQLITE_LOCKED")) {
    return { reason: "another process has it locked", hint: "wait for that process, or stop it", transient: true }
  }
  if (code.startsWith("SQLITE_FULL") || code.startsWith("SQLITE_IOERR")) {
    return { reason: message, hint: "see to its disk: space, quota, mount", transient: true }
  }
  return { reason: message, hint: "see the cause", transient: false }
}
