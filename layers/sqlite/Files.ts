/**
 * The open files: a bounded set, from which a lease of any file is had, opening and closing on the way.
 *
 *     lease ─▶ turn at the file ─▶ one of `filesMax` turns ─┬ open ─────────────────────────▶ connection
 *                                                           └ closed ─▶ room? ─▶ open ──────▶ connection
 *                                                                         └ no: close the one idle for longest
 *
 * Invariant: at most `filesMax` handles are open. Whoever has passed both turnstiles finds room: the others who have are
 * fewer than `filesMax`, and every open file but theirs is idle. Closing a file writes its log back into it.
 */

import type { Connection as SqlConnection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import type Database from "better-sqlite3"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { StoreUnavailable } from "../../src/store/StoreUnavailable.js"
import { codeOf } from "./Code.js"
import * as Connection from "./Connection.js"
import * as DatabaseFile from "./DatabaseFile.js"
import * as Diagnosis from "./Diagnosis.js"
import * as Lease from "./Lease.js"
import type { Settings } from "./Settings.js"
import * as Turnstile from "./Turnstile.js"

/** How long a lease may wait for its turn, in milliseconds: those who wait for each other give up and try again. */
const waitMillis = 30_000

export interface Files {
  /** A file of the set, whether it is open or not. */
  readonly file: (settings: Settings) => File
}

export interface File {
  /** The connection for one fiber alone. One that cannot be opened any more is an `SqlError` with SQLite's code. */
  readonly lease: SqlConnection.Acquirer
  /** Opens the file now, and creates it where there is none; a lease never creates one. */
  readonly open: Effect.Effect<void, StoreUnavailable | SqlError>
}

interface Slot {
  readonly settings: Settings
  readonly turn: Turnstile.Turnstile
  isHeld: boolean
  opened: { readonly db: Database.Database; readonly lease: SqlConnection.Acquirer } | undefined
}

/** Nothing is open yet; whatever is in the end closes with the scope. */
export const make = (filesMax: number): Effect.Effect<Files, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(Effect.sync((): Opened => ({ slots: new Set(), isOver: false })), closeAll),
    (opened) => {
      const turns = Turnstile.make(filesMax, waitMillis, `one of ${filesMax} open files`)
      return {
        file: (settings) => {
          const turn = Turnstile.make(1, waitMillis, settings.filename)
          const slot: Slot = { settings, turn, isHeld: false, opened: undefined }
          const entered = (creates: boolean) =>
            Effect.map(enter(turns, slot), () => open(opened, filesMax, slot, creates))
          return {
            lease: Effect.flatMap(
              Effect.flatMap(entered(false), Effect.mapError(asSqlError)),
              ({ lease }) => lease
            ),
            open: Effect.scoped(Effect.asVoid(Effect.flatten(entered(true))))
          }
        }
      }
    }
  )

/** Both turns, for as long as the scope is open. */
const enter = (turns: Turnstile.Turnstile, slot: Slot): Effect.Effect<void, SqlError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      yield* restore(slot.turn.take)
      yield* Effect.addFinalizer(() => slot.turn.release)
      yield* restore(turns.take)
      slot.isHeld = true
      yield* Effect.addFinalizer(() => Effect.zipRight(Effect.sync(() => void (slot.isHeld = false)), turns.release))
    })
  )

/** Whoever only reads cannot write the log back, so the writer of a file closes last. */
const closeAll = (opened: Opened): Effect.Effect<void> =>
  Effect.suspend(() => {
    opened.isOver = true
    const slots = Array.from(opened.slots).sort((a, b) => Number(b.settings.readonly) - Number(a.settings.readonly))
    return Effect.forEach(slots, (slot) => close(opened, slot), { discard: true })
  })

/** What is open, the one used last at the end. */
interface Opened {
  readonly slots: Set<Slot>
  isOver: boolean
}

/** The slot's handle, which is now the one used last. Nothing else happens between making room and taking it. */
const open = (
  all: Opened,
  filesMax: number,
  slot: Slot,
  creates: boolean
): Effect.Effect<NonNullable<Slot["opened"]>, StoreUnavailable> =>
  Effect.suspend(() => {
    const { slots } = all
    if (slot.opened !== undefined) {
      slots.delete(slot)
      slots.add(slot)
      return Effect.succeed(slot.opened)
    }
    const idle = slots.size < filesMax ? undefined : Array.from(slots).find(({ isHeld }) => !isHeld)
    const closed = idle === undefined ? Effect.void : close(all, idle)
    try {
      if (all.isOver) throw new Error("the store has been closed")
      const db = DatabaseFile.openNow(slot.settings, creates)
      const opened = { db, lease: Lease.make(db, Connection.make(db.defaultSafeIntegers(true))) }
      slot.opened = opened
      slots.add(slot)
      return Effect.as(closed, opened)
    } catch (cause) {
      return Effect.zipRight(closed, Effect.fail(Diagnosis.unavailable(slot.settings, cause)))
    }
  })

/** Closes at once; the effect only tells if that went wrong. */
const close = ({ slots }: Opened, slot: Slot): Effect.Effect<void> => {
  const db = slot.opened?.db
  slots.delete(slot)
  slot.opened = undefined
  return db === undefined ? Effect.void : DatabaseFile.closeNow(db)
}

/** A driver's own refusal to open has no code of SQLite's. */
const asSqlError = ({ cause, message }: StoreUnavailable): SqlError =>
  new SqlError({
    message,
    cause: codeOf(cause) === "" ? Object.assign(new Error(message, { cause }), { code: "SQLITE_CANTOPEN" }) : cause
  })
