/**
 * Blocks: the bytes of a file from its start, a piece at a time, unpacked where the file is gzip.
 *
 *     file ──▶ 256 KiB ────────────────────────▶ block
 *     file ──▶ 64 KiB ──▶ gunzip ──▶ blocks            told by the magic bytes, whatever the file's name
 *
 * Invariants: one block of a plain file is read ahead of `next`, and nothing of a packed one, so memory holds one block more
 * than are kept, or what one read unpacks to (gzip grows at most 1,032-fold), and no more; a block that is not kept may be
 * overwritten by the next `next`. All that can be unpacked of data that end too early is supplied before the failure; of
 * damaged data, what the reads before the damage unpack to. The file is closed with the scope.
 */

import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { constants } from "node:fs"
import * as fs from "node:fs/promises"
import * as zlib from "node:zlib"

/** The file cannot be read, or not to its end. */
export class Unreadable extends Data.TaggedError("Unreadable")<{
  /** What could not be done, and what to do about it. */
  readonly reason: string
  /** Whether reading the same file again is bound to end the same way. */
  readonly lasting: boolean
  readonly cause?: unknown
}> {
  override get message(): string {
    return this.reason
  }
}

export interface Blocks {
  /** The blocks of the next read, and whether it was the last. Not to be called again once the end is not "no". */
  readonly next: Effect.Effect<Read>
  /** From the next `next` on the last so many blocks stay as they are; one, unless this is asked for. */
  readonly keep: (blocks: number) => void
}

export interface Read {
  readonly blocks: ReadonlyArray<Buffer>
  readonly end: "no" | "reached" | Unreadable
}

/** What one read takes from a file. */
export const blockBytesDefault = 262_144

/** What one read takes from a packed file at most, for the sake of what it may unpack to. */
export const packedBytesMax = 65_536

/** Opens a regular file. Anything else is refused: a pipe or a device does not give the same bytes twice. */
export const open = (
  path: string,
  blockBytes: number = blockBytesDefault
): Effect.Effect<Blocks, Unreadable, Scope.Scope> =>
  Effect.gen(function*() {
    const file = yield* Effect.acquireRelease(
      // Without O_NONBLOCK, opening a pipe waits for its writer.
      fromPromise(() => fs.open(path, constants.O_RDONLY | constants.O_NONBLOCK)),
      (opened) => Effect.promise(() => opened.close())
    )
    const stats = yield* fromPromise(() => file.stat())
    yield* refuseUnlessFile(stats)
    const magic = yield* fromPromise(() => file.read({ buffer: Buffer.alloc(2), position: 0 }))
    return magic.bytesRead === 2 && magic.buffer[0] === 0x1f && magic.buffer[1] === 0x8b
      ? yield* unpacked(raw(file, stats.size, Math.min(blockBytes, packedBytesMax)))
      : ahead(file, stats.size, blockBytes)
  })

const fromPromise = <A>(evaluate: () => Promise<A>): Effect.Effect<A, Unreadable> =>
  Effect.tryPromise({
    try: evaluate,
    catch: (cause) => new Unreadable({ reason: failureWords(cause), lasting: false, cause })
  })

const refuseUnlessFile = (stats: { isFile(): boolean; isDirectory(): boolean }): Effect.Effect<void, Unreadable> => {
  if (stats.isFile()) return Effect.void
  return new Unreadable({
    reason: stats.isDirectory()
      ? "it is a directory: name the files in it"
      : "it is not a regular file and cannot be read twice: copy it to a file first (Ndjson.spool does)",
    lasting: false
  })
}

const hints: ReadonlyMap<string, string> = new Map([
  ["ENOENT", "there is no such file: check the path and the working directory"],
  ["ENOTDIR", "a part of its path is a file, not a directory: check the path"],
  ["EACCES", "permission denied: let this process's user read the file and enter its directories"],
  ["EPERM", "permission denied: let this process's user read the file"],
  ["EISDIR", "it is a directory: name the files in it"],
  ["EMFILE", "too many open files: raise the limit (ulimit -n)"],
  ["ENFILE", "too many open files on this machine"]
])

const failureWords = (cause: unknown): string => {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : ""
  return hints.get(code) ?? `reading failed (${cause instanceof Error ? cause.message : String(cause)})`
}

/** Why what was read so far is not the whole file, if it is not: it had so many bytes when it was opened. */
const shortage = (position: number, size: number): Unreadable | undefined =>
  position >= size ? undefined : new Unreadable({
    reason: `it had ${size} bytes when it was opened and ends after ${position}: it was cut off, or is being replaced`,
    lasting: false
  })

/** Reads into one buffer, over and over. Of length 0 at the end of the file. */
const raw = (file: fs.FileHandle, size: number, blockBytes: number): Effect.Effect<Buffer, Unreadable> => {
  const buffer = Buffer.allocUnsafeSlow(blockBytes)
  let position = 0
  return Effect.flatMap(
    fromPromise(() => file.read({ buffer, position })),
    ({ bytesRead }) => {
      position += bytesRead
      return (bytesRead === 0 ? shortage(position, size) : undefined) ?? Effect.succeed(buffer.subarray(0, bytesRead))
    }
  )
}

/**
 * {@link raw} into buffers in turn, one more than the blocks that are kept: while they are looked at, the disk supplies the
 * next. A thread may look at them too.
 */
const ahead = (file: fs.FileHandle, size: number, blockBytes: number): Blocks => {
  const buffers: Array<Buffer | undefined> = [undefined, undefined]
  let position = 0
  let turn = 0
  const read = () => {
    const buffer = buffers[turn] ??= Buffer.from(new SharedArrayBuffer(blockBytes))
    return file.read({ buffer, position })
  }
  let next: ReturnType<typeof read> | undefined
  const block = Effect.flatMap(fromPromise(() => next ?? read()), ({ buffer, bytesRead }) => {
    position += bytesRead
    turn = (turn + 1) % buffers.length
    next = bytesRead === 0 ? undefined : read()
    // Its failure is told when its turn comes; unheard until then, it would end the process.
    next?.catch(ignore)
    return (bytesRead === 0 ? shortage(position, size) : undefined) ?? Effect.succeed(buffer.subarray(0, bytesRead))
  })
  return {
    next: plain(block),
    keep: (blocks) => {
      while (buffers.length <= blocks) buffers.push(undefined)
    }
  }
}

const ignore = (): void => {}

const plain = (block: Effect.Effect<Buffer, Unreadable>): Effect.Effect<Read> =>
  Effect.match(block, {
    onFailure: (end): Read => ({ blocks: [], end }),
    onSuccess: (found): Read => found.length === 0 ? { blocks: [], end: "reached" } : { blocks: [found], end: "no" }
  })

/**
 * A gunzip between two reads. It is fed by hand, and flows: an ordinary pipe would throw away what it has unpacked when it
 * fails, and the lines before the damage with it.
 */
interface Gunzip {
  readonly stream: zlib.Gunzip
  blocks: Array<Buffer>
  state: "open" | "ended" | Error
  settle: () => void
}

const unpacked = (packed: Effect.Effect<Buffer, Unreadable>): Effect.Effect<Blocks, never, Scope.Scope> =>
  Effect.map(makeGunzip, (gunzip) => ({
    next: packed.pipe(
      Effect.flatMap((block) => Effect.as(feed(gunzip, block), block.length === 0)),
      Effect.match({
        onFailure: (end): Read => ({ blocks: [], end }),
        onSuccess: (fileEnded): Read => ({ blocks: take(gunzip), end: outcome(gunzip, fileEnded) })
      })
    ),
    // What is unpacked is never overwritten.
    keep: ignore
  }))

const makeGunzip: Effect.Effect<Gunzip, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => {
    const gunzip: Gunzip = {
      stream: zlib.createGunzip({ chunkSize: blockBytesDefault }),
      blocks: [],
      state: "open",
      settle: () => {}
    }
    gunzip.stream.on("data", (block: Buffer) => gunzip.blocks.push(block))
    gunzip.stream.on("end", () => settleAs(gunzip, "ended"))
    gunzip.stream.on("error", (error) => settleAs(gunzip, error))
    return gunzip
  }),
  (gunzip) => Effect.sync(() => gunzip.stream.destroy())
)

const settleAs = (gunzip: Gunzip, state: "ended" | Error): void => {
  gunzip.state = state
  gunzip.settle()
}

/** Settles when all of the block is unpacked, or the data have ended or broken. An empty block says that no more comes. */
const feed = (gunzip: Gunzip, block: Buffer): Effect.Effect<void> =>
  Effect.async((resume) => {
    gunzip.settle = () => resume(Effect.void)
    if (block.length === 0) gunzip.stream.end()
    else gunzip.stream.write(block, (error) => error instanceof Error ? settleAs(gunzip, error) : gunzip.settle())
  })

const take = (gunzip: Gunzip): ReadonlyArray<Buffer> => {
  const blocks = gunzip.blocks
  gunzip.blocks = []
  return blocks
}

const outcome = ({ state }: Gunzip, fileEnded: boolean): Read["end"] => {
  if (state === "open") return "no"
  if (state === "ended") {
    return fileEnded
      ? "reached"
      : new Unreadable({ reason: "its gzip data are followed by something else", lasting: true })
  }
  return "code" in state && state.code === "Z_BUF_ERROR"
    ? new Unreadable({
      reason: "its gzip data end too early: wait if the file is still being written, or copy it again",
      lasting: false,
      cause: state
    })
    : new Unreadable({
      reason: `its gzip data are damaged (${state.message}): copy it again`,
      lasting: true,
      cause: state
    })
}
