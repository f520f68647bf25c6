/**
 * Disk: what durability costs on this machine. A subject that commits row by row pays it for each row, one that commits
 * batches hardly at all, so their ratio cannot be read without it.
 */
import { closeSync, fsyncSync, openSync, rmSync, writeSync } from "node:fs"
import { join } from "node:path"
import { median } from "./Result.js"

const writes = 200
const page = Buffer.alloc(8_192, 1)

/** A sentence about how long it takes to write a page of 8 KiB and to have it on the disk, the median of 200. */
export const note = (directory: string): string => {
  const path = join(directory, "disk")
  const file = openSync(path, "w")
  const millis = Array.from({ length: writes }, () => {
    const begun = performance.now()
    writeSync(file, page)
    fsyncSync(file)
    return performance.now() - begun
  })
  closeSync(file)
  rmSync(path)
  return `The disk: 8 KiB written and synced in ${median(millis).toFixed(3)} ms.`
}
