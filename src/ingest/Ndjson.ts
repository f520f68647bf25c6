/**
 * A source over NDJSON files, plain or gzip: an envelope a line, in the order of the files and of their lines.
 *
 *     files ──▶ blocks ─┬──────────────▶ lines ──▶ JSON ──▶ envelope ──▶ strands
 *                       └─▶ pruner ─▶ pruned lines ─▶┘    of a long file that carries much state
 *
 * A position is the place of a strand, in 63 bits:
 *
 *     | file, from 0: 10 bits | line, from 1: 33 bits | strand in its line, from 0: 20 bits |
 *
 * so it holds for as long as the files keep their order and their lines; files and lines may be added at the end.
 *
 * Invariants: memory holds one block and one line, and the strands of that block, however long the file, and with a pruner
 * what that is ahead (2 MiB, and a read) and what is left of its lines; a line is parsed only once it is known to be short
 * enough; all the strands of a block are one chunk; lines up to a resume point are counted, never parsed, and files before it
 * are not opened; the line of a resume point has to be there; the strands before a failure are supplied before it fails, but for those that share a block with damage to
 * gzip data. With a pruner and without, strands, positions and failures are the same.
 */

import * as Chunk from "effect/Chunk"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { constants, isAscii, isUtf8 } from "node:buffer"
import * as fs from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import { pipeline } from "node:stream/promises"
import { quote } from "../domain/Operation.js"
import { make as makePosition } from "../domain/Position.js"
import type { Position } from "../domain/Position.js"
import type { Strand } from "../domain/Strand.js"
import * as Blocks from "./Blocks.js"
import * as Envelope from "./Envelope.js"
import * as Pruner from "./Pruner.js"
import type { Lines } from "./PrunerThread.js"
import { MalformedSource, name, Source, SourceShortened, SourceUnavailable } from "./Source.js"
import type { SourceError } from "./Source.js"

/** The longest line that is read unless the options say otherwise: 16 MiB. */
export const lineBytesMaxDefault = 16_777_216

export interface Options {
  /** Names the cursors that follow this source. */
  readonly name: string
  /** Paths, in the order in which they are read. At most {@link filesMax}. */
  readonly files: ReadonlyArray<string>
  /** The longest line that is read, in bytes without its newline; {@link lineBytesMaxDefault} unless given. */
  readonly lineBytesMax?: number
  /** How much of a file is read at a time, in bytes; 256 KiB unless given, and never more than 64 KiB of a packed file. */
  readonly blockBytes?: number
}

/** The place of a strand: file from 0, line from 1, strand in its line from 0. */
export interface Place {
  readonly file: number
  readonly line: number
  readonly strand: number
}

export const filesMax = 2 ** 10
export const linesMax = 2 ** 33 - 1
export const strandsPerLineMax = 2 ** 20

/** The position of a place within the bounds above. */
export const positionOf = ({ file, line, strand }: Place): Position =>
  makePosition((BigInt(file) << 53n) | (BigInt(line) << 20n) | BigInt(strand))

/** The place that a position of this source stands for; line 0 for {@link Position.origin}. */
export const placeOf = (packed: Position): Place => ({
  file: Number(packed >> 53n),
  line: Number((packed >> 20n) & 0x1_ffff_ffffn),
  strand: Number(packed & 0xf_ffffn)
})

/**
 * Builds the source; fails when the options are out of bounds. The files are opened when their strands are asked for. `head`
 * is known once the strands have been read to the end.
 */
export const make = (options: Options): Effect.Effect<Context.Tag.Service<Source>, MalformedSource> =>
  Effect.gen(function*() {
    const settings = yield* settle(options)
    const bounds = yield* Pruner.Limits
    const head = yield* Ref.make(Option.none<Position>())
    const extent: Extent = []
    return {
      name: name(settings.name),
      strands: (after) => {
        const { file: first, line } = placeOf(after)
        if (line > 0 && first >= settings.files.length) {
          return Stream.fail(shortened(
            settings,
            after,
            `it was read to line ${line} of file ${first + 1}, and has ` +
              `${settings.files.length}: name all the files that it had, in their order`
          ))
        }
        return Stream.unwrapScoped(Effect.map(Pruner.make(bounds, settings.lineBytesMax), (pruner) => {
          let last = after
          return Stream.range(first, settings.files.length - 1).pipe(
            Stream.flatMap((file) => strandsOf(settings, file, after, pruner, extent)),
            Stream.mapChunks((strands) => {
              last = Chunk.isNonEmpty(strands) ? Chunk.lastNonEmpty(strands).position : last
              return strands
            }),
            Stream.onEnd(Effect.suspend(() => Ref.set(head, Option.some(last))))
          )
        }))
      },
      head: Ref.get(head),
      distance: (from, to) => linesBetween(extent, placeOf(from), placeOf(to))
    }
  })

/** {@link make} as a Layer. */
export const layer = (options: Options): Layer.Layer<Source, MalformedSource> => Layer.effect(Source, make(options))

/** A stream that Node reads, such as `process.stdin`; said here, so that whoever imports this needs no `@types/node`. */
export interface Readable extends AsyncIterable<string | Uint8Array> {
  on(event: "error", listener: (cause: Error) => void): unknown
  off(event: "error", listener: (cause: Error) => void): unknown
}

/**
 * Copies a stream, such as standard input, to a file that lives as long as the scope, and returns the file's path once the
 * stream has ended: what can be read once becomes what a source can read again. Only the disk bounds it. A position in the
 * file means something in another run only when that run is given the same bytes.
 */
export const spool = (
  readable: Readable,
  sourceName = "standard input"
): Effect.Effect<string, SourceUnavailable, Scope.Scope> =>
  Effect.gen(function*() {
    const attempt = <A>(what: string, evaluate: (signal: AbortSignal) => Promise<A>) =>
      Effect.tryPromise({
        try: evaluate,
        catch: (cause) => {
          const reason = `${what} (${cause instanceof Error ? cause.message : String(cause)})`
          return new SourceUnavailable({ source: sourceName, reason, cause })
        }
      })
    const hint = "the directory for temporary files, TMPDIR, must be writable and have room for all of it"
    // An error that comes before the copying is told by the copying; unheard, it would end the process.
    yield* Effect.acquireRelease(
      Effect.sync(() => readable.on("error", ignore)),
      () => Effect.sync(() => readable.off("error", ignore))
    )
    const directory = yield* Effect.acquireRelease(
      attempt(`no directory for a copy, ${hint}`, () => fs.mkdtemp(path.join(os.tmpdir(), "strands-"))),
      (made) => Effect.promise(() => fs.rm(made, { recursive: true, force: true }))
    )
    const copy = path.join(directory, "spool.ndjson")
    yield* Effect.acquireUseRelease(
      attempt(`no file for a copy, ${hint}`, () => fs.open(copy, "wx", 0o600)),
      (file) =>
        attempt(`copying broke off, give the same input again; ${hint}`, (signal) =>
          pipeline(readable, file.createWriteStream(), { signal })),
      (file) =>
        Effect.promise(() => file.close())
    )
    return copy
  })

const ignore = (): void => {}

type Settings = Required<Options>

const settle = (options: Options): Effect.Effect<Settings, MalformedSource> => {
  const settings = { lineBytesMax: lineBytesMaxDefault, blockBytes: Blocks.blockBytesDefault, ...options }
  const { blockBytes, files, lineBytesMax } = settings
  const refuse = (at: string, reason: string) => new MalformedSource({ source: settings.name, at, reason })
  if (files.length === 0) return refuse("files", "there are none: name at least one")
  if (files.length > filesMax) {
    return refuse("files", `there are ${files.length}, more than the ${filesMax} that a position can tell apart`)
  }
  if (!isWithin(lineBytesMax, constants.MAX_STRING_LENGTH)) {
    return refuse("lineBytesMax", `${lineBytesMax} is not a whole number from 1 to ${constants.MAX_STRING_LENGTH}`)
  }
  if (!isWithin(blockBytes, blockBytesMax)) {
    return refuse("blockBytes", `${blockBytes} is not a whole number from 1 to ${blockBytesMax}`)
  }
  return Effect.succeed(settings)
}

const blockBytesMax = 2 ** 26

const isWithin = (value: number, max: number): boolean => Number.isInteger(value) && value >= 1 && value <= max

/** How many lines each file has, once it was read to its end. */
type Extent = Array<number | undefined>

/** The lines above one place and up to another, or the strands of one line. */
const linesBetween = (extent: Extent, from: Place, to: Place): number => {
  if (from.file === to.file) return from.line === to.line ? to.strand - from.strand : to.line - from.line
  let lines = to.line - from.line
  for (let file = from.file; file < to.file; file++) lines += extent[file] ?? Infinity
  return lines
}

/** One file as it is read. `line` counts from 1 and names the line that `held`, the start of it, belongs to. */
interface Reading {
  readonly settings: Settings
  readonly file: number
  readonly after: Position
  /** What every position in this file has in common. */
  readonly base: bigint
  /** The line to which it was read before, of which the strands that follow are still to be read; 0 if it was not. */
  readonly lineRead: number
  readonly pruner: Pruner.Pruner
  readonly extent: Extent
  line: number
  held: Array<Buffer>
  heldBytes: number
  strands: Array<Strand>
  end: "no" | "reached" | SourceError
}

const strandsOf = (
  settings: Settings,
  file: number,
  after: Position,
  pruner: Pruner.Pruner,
  extent: Extent
): Stream.Stream<Strand, SourceError> => {
  const resume = placeOf(after)
  const reading: Reading = {
    settings,
    file,
    after,
    base: BigInt(file) << 53n,
    lineRead: file === resume.file ? resume.line : 0,
    pruner,
    extent,
    line: 1,
    held: [],
    heldBytes: 0,
    strands: [],
    end: "no"
  }
  return Blocks.open(pathOf(reading), settings.blockBytes).pipe(
    Effect.mapError((unreadable) => fromUnreadable(reading, unreadable)),
    Effect.flatMap((blocks) => pruner.over(blocks, () => Buffer.concat(reading.held))),
    Effect.map((next) => Stream.fromPull(Effect.succeed(pull(reading, next)))),
    Stream.unwrapScoped
  )
}

/** The strands of the next read that has any. */
const pull = (
  reading: Reading,
  next: Effect.Effect<Pruner.Read>
): Effect.Effect<Chunk.Chunk<Strand>, Option.Option<SourceError>> =>
  Effect.suspend(() => {
    if (reading.end === "reached") return Effect.fail(Option.none())
    if (reading.end !== "no") return Effect.fail(Option.some(reading.end))
    return Effect.flatMap(next, (read) => {
      const strands = takeStrands(reading, read)
      return strands.length > 0 ? Effect.succeed(Chunk.unsafeFromArray(strands)) : pull(reading, next)
    })
  })

const takeStrands = (reading: Reading, { end, pieces }: Pruner.Read): Array<Strand> => {
  const failure = firstFailure(pieces, (piece) => takePiece(reading, piece)) ??
    (end === "no" ? undefined : end === "reached" ? endFile(reading) : fromUnreadable(reading, end))
  reading.end = failure ?? (end === "reached" ? "reached" : "no")
  const strands = reading.strands
  reading.strands = []
  return strands
}

const firstFailure = <A>(
  values: ReadonlyArray<A>,
  take: (value: A) => SourceError | undefined
): SourceError | undefined => {
  for (const value of values) {
    const failure = take(value)
    if (failure !== undefined) return failure
  }
  return undefined
}

const newline = 0x0a

const takePiece = (reading: Reading, { block, lines }: Pruner.Piece): SourceError | undefined =>
  lines === undefined ? takeBlock(reading, block) : takeLines(reading, block, lines)

const takeBlock = (reading: Reading, block: Buffer): SourceError | undefined => {
  const isPlain = isAscii(block)
  let start = 0
  for (let end = block.indexOf(newline); end !== -1; end = block.indexOf(newline, start)) {
    const failure = isPlain && reading.held.length === 0
      ? endPlainLine(reading, block, start, end)
      : endLine(reading, block.subarray(start, end))
    if (failure !== undefined) return failure
    start = end + 1
  }
  return holdLine(reading, block.subarray(start))
}

/** {@link takeBlock} where it is known where the lines end, and what is left of some once they were pruned. */
const takeLines = (reading: Reading, block: Buffer, { ends, texts }: Lines): SourceError | undefined => {
  let start = 0
  for (let i = 0; i < ends.length; i++) {
    const end = ends[i]!
    const text = texts[i]!
    const failure = text === ""
      ? endLine(reading, block.subarray(start, end))
      : endPrunedLine(reading, text, end - start)
    if (failure !== undefined) return failure
    start = end + 1
  }
  return holdLine(reading, block.subarray(start))
}

/** {@link endLine} for a whole line of ASCII, which needs neither a view of its bytes nor a look at them. */
const endPlainLine = (reading: Reading, block: Buffer, start: number, end: number): SourceError | undefined => {
  if (isWanted(reading)) {
    const bytes = end - start
    if (bytes > reading.settings.lineBytesMax) return tooLong(reading, bytes)
    const failure = judge(reading, block.toString("latin1", start, end), bytes)
    if (failure !== undefined) return failure
  }
  return nextLine(reading)
}

/** {@link endLine} for a line of which only this text is left; `length` is that of its part in this block. */
const endPrunedLine = (reading: Reading, text: string, length: number): SourceError | undefined => {
  if (isWanted(reading)) {
    const bytes = reading.heldBytes + length
    if (bytes > reading.settings.lineBytesMax) return tooLong(reading, bytes)
    const failure = readText(reading, text, bytes)
    if (failure !== undefined) return failure
    letGo(reading)
  }
  return nextLine(reading)
}

const isWanted = (reading: Reading): boolean => reading.line >= reading.lineRead

/** Keeps the start of a line whose end is in a block to come; of a line that is skipped, nothing. */
const holdLine = (reading: Reading, part: Buffer): SourceError | undefined => {
  if (part.length === 0 || !isWanted(reading)) return undefined
  reading.heldBytes += part.length
  if (reading.heldBytes > reading.settings.lineBytesMax) return tooLong(reading, reading.heldBytes)
  reading.held.push(Buffer.from(part))
  return undefined
}

const endLine = (reading: Reading, part: Buffer): SourceError | undefined => {
  if (isWanted(reading)) {
    const bytes = reading.heldBytes + part.length
    if (bytes > reading.settings.lineBytesMax) return tooLong(reading, bytes)
    const failure = readLine(reading, reading.held.length === 0 ? part : Buffer.concat([...reading.held, part]))
    if (failure !== undefined) return failure
    letGo(reading)
  }
  return nextLine(reading)
}

/**
 * What is left when the file ends is its last line. One that was read before has to be there, and was whole: a file that
 * ends before it, or in it, is not what was read.
 */
const endFile = (reading: Reading): SourceError | undefined => {
  const { after, heldBytes, line, lineRead, settings } = reading
  const isGone = line < lineRead || (line === lineRead && line > 0 && heldBytes === 0)
  reading.extent[reading.file] = line
  const failure = isGone ? undefined : endLine(reading, Buffer.alloc(0))
  if (!isGone && (failure === undefined || line !== lineRead)) return failure
  return shortened(
    settings,
    after,
    `${quote(pathOf(reading))} ends ${
      isGone ? "before" : "in"
    } line ${lineRead}, so that it was cut off, or is another ` +
      "file: put back what was read, or give the source another name and begin with empty tables",
    failure
  )
}

const letGo = (reading: Reading): void => {
  if (reading.heldBytes === 0) return
  reading.held = []
  reading.heldBytes = 0
}

const nextLine = (reading: Reading): SourceError | undefined => {
  reading.line += 1
  return reading.line > linesMax ? malformed(reading, `a position counts no more than ${linesMax} lines`) : undefined
}

const tooLong = (reading: Reading, bytes: number): SourceError =>
  malformed(
    reading,
    `the line is too long: ${bytes} bytes so far, at most ${reading.settings.lineBytesMax} are read (lineBytesMax)`
  )

const readLine = (reading: Reading, bytes: Buffer): SourceError | undefined => {
  const text = textOf(reading.line === 1 ? withoutMark(bytes) : bytes)
  return text === undefined
    ? malformed(reading, "the line is not UTF-8")
    : judge(reading, text, bytes.length)
}

/** {@link readText} of a line as it is, of which the pruner learns. */
const judge = (reading: Reading, text: string, bytes: number): SourceError | undefined => {
  reading.pruner.saw(text, bytes)
  return readText(reading, text, bytes)
}

const readText = (reading: Reading, text: string, bytes: number): SourceError | undefined => {
  if (blank.test(text)) return undefined
  const json = parseJson(text)
  if (Either.isLeft(json)) return malformed(reading, jsonWords(text, json.left), json.left)
  const envelope = Envelope.decode(json.right, bytes)
  if (Either.isLeft(envelope)) return malformed(reading, envelope.left.message, envelope.left)
  return placeStrands(reading, envelope.right)
}

const placeStrands = (reading: Reading, strands: ReadonlyArray<Omit<Strand, "position">>): SourceError | undefined => {
  if (strands.length > strandsPerLineMax) {
    return malformed(
      reading,
      `holds ${strands.length} strands; a position counts no more than ${strandsPerLineMax} a line`
    )
  }
  for (let i = 0; i < strands.length; i++) {
    // Within the bounds that were just checked, and exact: line and strand together are 53 bits.
    const position = (reading.base + BigInt(reading.line * strandsPerLineMax + i)) as Position
    if (position <= reading.after) continue
    const { branch, bytes, documentId, documentType, driveId, operations, protocol = 2, scope } = strands[i]!
    reading.strands.push({ position, driveId, documentId, documentType, scope, branch, operations, bytes, protocol })
  }
  return undefined
}

const blank = /^[ \t\r]*$/

const withoutMark = (bytes: Buffer): Buffer =>
  bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes

/** Decoding replaces what is not UTF-8 and says nothing, so it is looked for first. */
const textOf = (bytes: Buffer): string | undefined =>
  isAscii(bytes) ? bytes.toString("latin1") : isUtf8(bytes) ? bytes.toString("utf8") : undefined

const parseJson = (text: string): Either.Either<unknown, unknown> => Either.try((): unknown => JSON.parse(text))

/** What the parser says, the column where it says one, and the text around it. */
const jsonWords = (text: string, error: unknown): string => {
  const message = error instanceof Error ? error.message : String(error)
  const told = /at position (\d+)/.exec(message)?.[1]
  const offset = told !== undefined ? Number(told) : /end of JSON/.test(message) ? text.length : undefined
  return offset === undefined
    ? `not JSON: ${quote(message)}`
    : `not JSON: ${quote(message)}, column ${offset + 1}, near ${
      quote(text.slice(Math.max(0, offset - 30), offset + 30))
    }`
}

const pathOf = ({ file, settings }: Reading): string => settings.files[file] ?? ""

const shortened = (settings: Settings, after: Position, reason: string, cause?: unknown): SourceError =>
  new SourceShortened({ source: settings.name, after, reason, ...(cause === undefined ? undefined : { cause }) })

const malformed = (reading: Reading, reason: string, cause?: unknown): SourceError =>
  new MalformedSource({
    source: reading.settings.name,
    at: `${quote(pathOf(reading))}, line ${reading.line}`,
    reason,
    ...(cause === undefined ? undefined : { cause })
  })

const fromUnreadable = (reading: Reading, { cause, lasting, reason }: Blocks.Unreadable): SourceError =>
  lasting
    ? malformed(reading, reason, cause)
    : new SourceUnavailable({
      source: reading.settings.name,
      reason: `${quote(pathOf(reading))}${reading.line > 1 ? ` after line ${reading.line - 1}` : ""}: ${reason}`,
      ...(cause === undefined ? undefined : { cause })
    })
