/**
 * Errands: the transactions that a file's thread takes off the event loop, one at a time and under the file's own lease.
 *
 *     lease ──▶ offered, and fit? ─┬ no ──▶ the connection here
 *                                  └ yes ─▶ the thread's, started if there is none; it ends once idle for `idleMillis`
 *
 * Invariant: whoever has either connection holds the lease, so the two never wait for each other's lock.
 *
 * A file is not fit any more once this connection differs from one that is opened anew: when it has set a PRAGMA, made
 * something TEMPORARY, attached another file or loaded an extension; nor when another file lies in its place, nor while a
 * backup of it runs.
 */

import type { Connection } from "@effect/sql/SqlConnection"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Errand from "../../src/store/Errand.js"
import * as DatabaseFile from "./DatabaseFile.js"
import type { Settings } from "./Settings.js"
import { Thread } from "./Thread.js"
import type { Traits } from "./Traits.js"

/** How long a thread is kept with nothing to do, in milliseconds. */
const idleMillis = 10_000

/** A file whose thread has ended by itself so often, one after another, has no more. */
const lossesMax = 3

interface Desk {
  readonly settings: Settings
  readonly traits: Traits
  /** The file that is open here, among all there are; `undefined`: that cannot be told. */
  readonly file: string | undefined
  /** Those that have not ended. */
  readonly threads: Set<Thread>
  thread: Thread | undefined
  timer: NodeJS.Timeout | undefined
  losses: number
  isClosed: boolean
}

/** `lease`, or for errands that of a thread beside it, which ends with the scope. */
export const make = (
  settings: Settings,
  traits: Traits,
  lease: Connection.Acquirer
): Effect.Effect<Connection.Acquirer, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync((): Desk => {
        const filename = Path.resolve(settings.filename)
        return {
          settings: { ...settings, filename },
          traits,
          file: identityOf(filename),
          threads: new Set(),
          thread: undefined,
          timer: undefined,
          losses: 0,
          isClosed: false
        }
      }),
      close
    ),
    (desk) =>
      Effect.withFiberRuntime((fiber) => {
        const errand = Context.get(fiber.currentContext, Errand.Offered)
        return errand === undefined ? lease : Effect.flatMap(lease, (connection) => assign(desk, errand, connection))
      })
  )

/** The connection for a transaction that may be run on either. */
const assign = (
  desk: Desk,
  errand: Errand.Errand,
  connection: Connection
): Effect.Effect<Connection, never, Scope.Scope> =>
  Effect.uninterruptible(Effect.suspend(() => {
    const thread = isFit(desk) ? threadOf(desk) : undefined
    if (thread === undefined) return Effect.succeed(connection)
    errand.isTaken = true
    return Effect.as(Effect.addFinalizer(() => Effect.zipRight(thread.leave, rest(desk, thread))), thread)
  }))

const isFit = ({ file, isClosed, losses, settings, traits }: Desk): boolean =>
  !isClosed && traits.isPlain && traits.backups === 0 && losses < lossesMax && file !== undefined &&
  identityOf(settings.filename) === file

/** The thread that there is, or a new one. */
const threadOf = (desk: Desk): Thread | undefined => {
  clearTimeout(desk.timer)
  if (desk.thread?.isOver === false) return desk.thread
  try {
    const { settings, threads } = desk
    const thread = new Thread({
      filename: settings.filename,
      timeout: settings.busyTimeoutMillis,
      pragmas: DatabaseFile.pragmasOf(settings)
    })
    threads.add(thread)
    desk.thread = thread
    return thread
  } catch {
    desk.losses = lossesMax
    return undefined
  }
}

/** A thread that is given back ends after a while, unless it is wanted again. */
const rest = (desk: Desk, thread: Thread): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (thread.isOver) {
      desk.threads.delete(thread)
      desk.thread = undefined
      desk.losses++
      return Effect.logDebug(`a thread of ${desk.settings.filename} has ended by itself`)
    }
    desk.losses = 0
    clearTimeout(desk.timer)
    desk.timer = setTimeout(() => {
      desk.thread = undefined
      Effect.runFork(Effect.map(thread.close, () => void desk.threads.delete(thread)))
    }, idleMillis).unref()
    return Effect.void
  })

const close = (desk: Desk): Effect.Effect<void> =>
  Effect.suspend(() => {
    desk.isClosed = true
    clearTimeout(desk.timer)
    return Effect.forEach(desk.threads, (thread) => thread.close, { concurrency: "unbounded", discard: true })
  })

/** What tells one file from another, wherever it lies; `undefined` where there is none. */
const identityOf = (filename: string): string | undefined => {
  const found = Fs.statSync(filename, { bigint: true, throwIfNoEntry: false })
  return found === undefined ? undefined : `${found.dev} ${found.ino}`
}
