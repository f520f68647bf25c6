/**
 * Recorded: the strands of this repository that the benchmarks repeat, recorded from document-drive 4. The path is that from
 * where this file is compiled to.
 */
import { fileURLToPath } from "node:url"

export const path: string = fileURLToPath(new URL("../../../examples/data/g1-strands.ndjson.gz", import.meta.url))
