/**
 * An input: the NDJSON files of one run, in order, and the name that their content goes by.
 *
 *     paths, or `-` ──▶ files that can be read twice ──▶ name of the source
 *
 * Positions count lines, so a cursor means something only in the files that it was set in. The name of the source,
 * which cursors are kept under, therefore tells one content from another: it is made of the files' base names and a
 * hash over the first line of each. Files of other names or with other first lines never go on from an old cursor, not
 * even where they were put in the same place; the same files do wherever they lie, also after lines were added to the
 * end of the last.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { createHash } from "node:crypto"
import { createReadStream } from "node:fs"
import { open as openFile, stat } from "node:fs/promises"
import { basename } from "node:path"
import { createGunzip } from "node:zlib"
import { Ndjson } from "../../src/index.js"
import type { Source } from "../../src/index.js"

export interface Input {
  readonly name: string
  readonly files: ReadonlyArray<string>
  /** The size of the files together, packed as they are. */
  readonly bytes: number
}

/** The input cannot be read; nothing was written. */
export class InputUnreadable extends Data.TaggedError("InputUnreadable")<{
  readonly path: string
  readonly reason: string
  readonly cause?: unknown
}> {
  override get message(): string {
    return `cannot read ${this.path}: ${this.reason}`
  }
}

/** Looks at each file, and copies standard input (`-`) to a temporary one that lives as long as the scope. */
export const open = (
  paths: ReadonlyArray<string>
): Effect.Effect<Input, InputUnreadable | Source.SourceUnavailable, Scope.Scope> =>
  Effect.gen(function*() {
    if (paths.filter((path) => path === "-").length > 1) {
      return yield* new InputUnreadable({ path: "-", reason: "standard input can be given once" })
    }
    const files = yield* Effect.forEach(paths, (path) => path === "-" ? standardInput : Effect.succeed(path))
    const looked = yield* Effect.forEach(files, (file, i) => look(paths[i] ?? file, file))
    const hash = createHash("sha256")
    for (const { firstLineHash } of looked) hash.update(firstLineHash)
    const names = paths.map((path) => path === "-" ? "stdin" : basename(path))
    return {
      name: `${shown(names)}#${hash.digest("hex").slice(0, 12)}`,
      files,
      bytes: looked.reduce((sum, { bytes }) => sum + bytes, 0)
    }
  })

/** Base names in a source's name: clean, and short enough whatever they are. */
const shown = (names: ReadonlyArray<string>): string => {
  const text = names.join("+").toWellFormed().replaceAll(/[\u0000-\u001f\u007f]/g, "?")
  return text.length <= 200 ? text : `${text.slice(0, 180).toWellFormed()}…${names.length} files`
}

const standardInput = Effect.suspend((): Effect.Effect<
  string,
  InputUnreadable | Source.SourceUnavailable,
  Scope.Scope
> =>
  process.stdin.isTTY
    ? new InputUnreadable({ path: "standard input", reason: "it is a terminal; pipe a file into this program" })
    : Ndjson.spool(process.stdin)
)

/**
 * The first line says what a file holds: a strand with its ids, hashes and timestamps. At most so much of it is read.
 */
const firstLineBytesMax = 1_048_576

/** Small, so that a file which is damaged further on still has a first line. */
const lookBytes = 16_384

/** Large, since counting gets one block each time the event loop comes round, which commits make slow. */
const countBytes = 524_288

const look = (
  path: string,
  file: string
): Effect.Effect<{ readonly bytes: number; readonly firstLineHash: Buffer }, InputUnreadable> =>
  Effect.tryPromise({
    try: async (signal) => {
      const stats = await stat(file)
      if (!stats.isFile()) {
        throw new Error(
          stats.isDirectory()
            ? "it is a directory; name the files in it"
            : "it is not a regular file; pipe it in and give --input -"
        )
      }
      const hash = createHash("sha256")
      let left = firstLineBytesMax
      for await (const block of blocks(file, lookBytes, signal)) {
        const end = block.indexOf(0x0a)
        const part = block.subarray(0, Math.min(left, end === -1 ? block.length : end))
        hash.update(part)
        left -= part.length
        if (end !== -1 || left === 0) break
      }
      return { bytes: stats.size, firstLineHash: hash.digest() }
    },
    catch: (cause) => new InputUnreadable({ path, reason: words(cause), cause })
  })

/** The file's bytes, unpacked where it is gzip, so many at a time. */
async function* blocks(file: string, blockBytes: number, signal: AbortSignal): AsyncGenerator<Buffer, void> {
  const packed = createReadStream(file, { signal, highWaterMark: blockBytes })
  const bytes = await isGzip(file) ? packed.pipe(createGunzip({ chunkSize: blockBytes })) : packed
  packed.on("error", (error) => bytes.destroy(error))
  try {
    for await (const block of bytes) yield block as Buffer
  } finally {
    bytes.destroy()
    packed.destroy()
  }
}

const isGzip = async (file: string): Promise<boolean> => {
  const handle = await openFile(file)
  try {
    const { buffer, bytesRead } = await handle.read({ buffer: Buffer.alloc(2), position: 0 })
    return bytesRead === 2 && buffer[0] === 0x1f && buffer[1] === 0x8b
  } finally {
    await handle.close()
  }
}

const words = (cause: unknown): string => {
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined
  const message = cause instanceof Error ? cause.message : String(cause)
  if (code === "ENOENT" || code === "ENOTDIR") return "there is no such file; check the path and the current directory"
  if (code === "EACCES" || code === "EPERM") return "permission denied; let this user read it"
  if (code === "Z_BUF_ERROR") return "its gzip data end within the first line; copy the file again"
  return typeof code === "string" && code.startsWith("Z_")
    ? `its gzip data are damaged (${message}); copy the file again`
    : message
}

/**
 * How many lines each file has, told file by file as it is known. Reads all of them, so it runs beside the work: what a
 * progress display divides by. A file that cannot be read to its end counts as far as it can; whoever works on it says
 * why.
 */
export const countLines = (
  input: Input,
  counted: (file: number, lines: number) => void
): Effect.Effect<void> =>
  Effect.forEach(input.files, (file, i) =>
    Effect.tryPromise(async (signal) => {
      let lines = 0
      let isOpen = false
      try {
        for await (const block of blocks(file, countBytes, signal)) {
          for (let at = block.indexOf(0x0a); at !== -1; at = block.indexOf(0x0a, at + 1)) lines++
          isOpen = block[block.length - 1] !== 0x0a
        }
      } finally {
        counted(i, isOpen ? lines + 1 : lines)
      }
    }).pipe(Effect.ignore), { discard: true })
