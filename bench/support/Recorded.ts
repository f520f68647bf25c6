/**
 * Recorded: the strands of this repository that the benchmarks repeat, recorded from document-drive 4.
 */
import { fileURLToPath } from "node:url"

export const path: string = fileURLToPath(new URL("../../../examples/data/g1-strands.ndjson.gz", import.meta.url))
