/**
 * Strands: the input of a benchmark, recorded strands repeated under new document ids until there are enough operations.
 */
import { createReadStream } from "node:fs"
import { open } from "node:fs/promises"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { createGunzip } from "node:zlib"
import * as Search from "../subjects/search.js"

/** One strand as document-drive 4 delivers it, as far as the benchmarks need to know it. */
export interface RecordedStrand {
  readonly driveId: string
  readonly documentId: string
  readonly documentType: string
  readonly scope: string
  readonly branch: string
  readonly operations: ReadonlyArray<{
    readonly id?: string
    readonly index: number
    readonly skip: number
    readonly hash: string
    readonly type: string
    readonly timestamp: string
    readonly input?: unknown
    readonly state?: unknown
  }>
}

/** A file of strands, a line each. */
export interface File {
  readonly path: string
  readonly operations: number
  /** What the search index holds once all of it is projected. */
  readonly outcome: Search.Digest
}

/** The lines of an NDJSON file, gzipped or not by its name. */
export const lines = (file: string): AsyncIterable<string> => {
  const raw = createReadStream(file)
  return createInterface({ input: file.endsWith(".gz") ? raw.pipe(createGunzip()) : raw, crlfDelay: Infinity })
}

/** The strands of an NDJSON file. */
export async function* read(file: string): AsyncGenerator<RecordedStrand> {
  for await (const line of lines(file)) yield JSON.parse(line) as RecordedStrand
}

/**
 * Writes the strands of `file` again and again into one NDJSON file in `directory`, each time with other document ids, until
 * it holds at least `operations`.
 */
export const repeat = async (file: string, operations: number, directory: string): Promise<File> => {
  const recorded: Array<RecordedStrand> = []
  for await (const strand of read(file)) recorded.push(strand)
  const copies = async function*() {
    for (let copy = 0;; copy++) {
      for (const strand of recorded) yield { ...strand, documentId: `${strand.documentId}-${copy}` }
    }
  }
  return write(copies(), operations, directory)
}

/** Writes the first strands of `file` into a file of their own, until it holds at least `operations` or all of them. */
export const first = (file: string, operations: number, directory: string): Promise<File> =>
  write(read(file), operations, directory)

/** As `repeat`, with a strand for each operation, for subjects that commit operation by operation. */
export const repeatSingly = async (file: string, operations: number, directory: string): Promise<File> => {
  const whole = await repeat(file, operations, directory)
  const singles = async function*() {
    for await (const strand of read(whole.path)) {
      for (const operation of strand.operations) yield { ...strand, operations: [operation] }
    }
  }
  return write(singles(), whole.operations, directory)
}

/** As `repeatSingly`, with a document for each operation, its first: each makes a row of its own. */
export const repeatApart = async (file: string, operations: number, directory: string): Promise<File> => {
  const whole = await repeatSingly(file, operations, directory)
  const apart = async function*() {
    let made = 0
    for await (const { operations: [only], ...strand } of read(whole.path)) {
      yield { ...strand, documentId: `document-${made++}`, operations: [{ ...only!, index: 0, skip: 0 }] }
    }
  }
  return write(apart(), operations, directory)
}

/** Tells the files apart: the beginning of a file may be as long as the file. */
let files = 0

const write = async (
  strands: AsyncIterable<RecordedStrand>,
  operations: number,
  directory: string
): Promise<File> => {
  const path = join(directory, `strands-${++files}.ndjson`)
  const out = await open(path, "w")
  const index = new Map<string, Search.SearchRow>()
  let written = 0
  for await (const strand of strands) {
    await out.write(`${JSON.stringify(strand)}\n`)
    for (const operation of strand.operations) {
      const row = Search.rowOf(strand.documentId, operation)
      index.set(row.id, row)
    }
    written += strand.operations.length
    if (written >= operations) break
  }
  await out.close()
  return { path, operations: written, outcome: Search.digestOf(index.values()) }
}
