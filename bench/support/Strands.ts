/**
 * Strands: the input of a benchmark, recorded strands repeated under new document ids until there are enough operations.
 */
import { createReadStream } from "node:fs"
import { open } from "node:fs/promises"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { createGunzip } from "node:zlib"

/** One strand as document-drive 4 delivers it, as far as the benchmark needs to know it. */
export interface RecordedStrand {
  readonly documentId: string
  readonly scope: string
  readonly branch: string
  readonly operations: ReadonlyArray<{
    readonly index: number
    readonly type: string
    readonly timestamp: string
    readonly input?: unknown
  }>
}

/** The lines of an NDJSON file, gzipped or not by its name. */
export const lines = (file: string): AsyncIterable<string> => {
  const raw = createReadStream(file)
  return createInterface({ input: file.endsWith(".gz") ? raw.pipe(createGunzip()) : raw, crlfDelay: Infinity })
}

/**
 * Writes `file` again and again into one NDJSON file in `directory`, each time with other document ids, until it holds at
 * least `operations`. Returns the new file.
 */
export const repeat = async (file: string, operations: number, directory: string): Promise<string> => {
  const recorded: Array<RecordedStrand> = []
  for await (const line of lines(file)) recorded.push(JSON.parse(line) as RecordedStrand)
  const path = join(directory, "strands.ndjson")
  const out = await open(path, "w")
  let written = 0
  for (let copy = 0; written < operations; copy++) {
    for (const strand of recorded) {
      await out.write(`${JSON.stringify({ ...strand, documentId: `${strand.documentId}-${copy}` })}\n`)
      written += strand.operations.length
    }
  }
  await out.close()
  return path
}
