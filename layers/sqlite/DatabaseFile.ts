/**
 * The database file: open, as durable as its settings say, and known to be readable and, if asked for, writable.
 *
 *     open ─▶ pragmas, read back ─▶ first read ─▶ first write lock ─▶ close
 *        └────────── StoreUnavailable ──────────────────┘
 */

import Database from "better-sqlite3"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { StoreUnavailable } from "../../src/store/StoreUnavailable.js"
import { codeOf } from "./Code.js"
import * as Diagnosis from "./Diagnosis.js"
import { set } from "./Prepared.js"
import type { Settings } from "./Settings.js"

/**
 * The write-ahead log is cut back to this many bytes after a checkpoint; by itself it keeps the size of its worst day.
 */
const walBytesMax = 64 * 1024 * 1024

/**
 * The write-ahead log is copied into the file once it has so many pages, 16 MiB. SQLite's own 1,000 are a few commits of
 * a full batch, and each copying waits for the disk twice.
 */
const checkpointPages = 4_000

/** Opens the file until the scope closes. One that is only read is not configured, and nobody asks for its lock. */
export const open = (settings: Settings): Effect.Effect<Database.Database, StoreUnavailable, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({ try: () => openNow(settings, true), catch: (cause) => Diagnosis.unavailable(settings, cause) }),
    closeNow
  )

/** The same by itself: throws SQLite's error, and leaves nothing open then. */
export const openNow = (settings: Settings, creates: boolean): Database.Database => {
  const db = new Database(settings.filename, {
    readonly: settings.readonly,
    fileMustExist: settings.readonly || !creates,
    timeout: settings.busyTimeoutMillis
  })
  try {
    if (settings.readonly) readFirst(db)
    else configure(db, settings)
    return db
  } catch (cause) {
    db.close()
    throw cause
  }
}

/** Closes at once, not when the effect is run, which tells if that went wrong. */
export const closeNow = (db: Database.Database): Effect.Effect<void> => {
  try {
    db.close()
    return Effect.void
  } catch (cause) {
    return Effect.logWarning("closing the SQLite file failed", cause)
  }
}

/** A pragma, and what it has to be once it is set, where durability or integrity rest on it. */
export interface Pragma {
  readonly name: string
  readonly value: string
  readonly wanted?: string | number
}

/** What a file does not remember. */
export const pragmasOf = ({ busyTimeoutMillis, cacheKibibytes, filename, synchronous }: Settings): Array<Pragma> => {
  const isFull = synchronous === "full"
  const inMemory = filename === "" || filename === ":memory:"
  return [
    // A database without a name is kept in no file that a log could lie beside.
    { name: "journal_mode", value: filename === "" ? "MEMORY" : "WAL", wanted: inMemory ? "memory" : "wal" },
    { name: "synchronous", value: synchronous, wanted: isFull ? 2 : 1 },
    { name: "foreign_keys", value: "ON", wanted: 1 },
    { name: "busy_timeout", value: String(busyTimeoutMillis), wanted: busyTimeoutMillis },
    // On macOS alone does an fsync stop short of the disk, and this asks for the one that does not.
    { name: "fullfsync", value: isFull ? "ON" : "OFF" },
    { name: "cache_size", value: String(-cacheKibibytes) },
    { name: "wal_autocheckpoint", value: String(checkpointPages) },
    { name: "journal_size_limit", value: String(walBytesMax) }
  ]
}

/** Sets what a file does not remember, and reads back what durability and integrity rest on. */
const configure = (db: Database.Database, settings: Settings): void => {
  for (const pragma of pragmasOf(settings)) set(db, pragma)
  readFirst(db)
  writeFirst(db)
}

const readFirst = (db: Database.Database): void => void db.exec("SELECT count(*) FROM sqlite_schema")

/**
 * Takes the write lock and gives it back. Finding it taken is as good: that this file is read-only is said before that.
 */
const writeFirst = (db: Database.Database): void => {
  try {
    db.exec("BEGIN IMMEDIATE")
    db.exec("ROLLBACK")
  } catch (cause) {
    if (!codeOf(cause).startsWith("SQLITE_BUSY")) throw cause
  }
}
