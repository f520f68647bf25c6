/**
 * A pruner's worker: the program of a thread that finds the lines of blocks and prunes them.
 *
 *     block ──▶ where lines end in it, and the pruned text of each, or "" for a line that is to be read as it is
 *
 * Invariant: of a line that is not whole it keeps no more than a line may be long, and then judges nothing of it.
 *
 * It is plain JavaScript, since a thread loads what it finds beside the module that starts it: from the sources where they
 * run as they are, and from what was built of them.
 *
 * @import { Lines, Request, Start } from "./PrunerThread.js"
 */

import { isAscii, isUtf8 } from "node:buffer"
import { parentPort, workerData } from "node:worker_threads"
import { prune } from "./Pruning.js"

const { lineBytesMax } = /** @type {Start} */ (workerData)
const port = /** @type {import("node:worker_threads").MessagePort} */ (parentPort)

/**
 * The start of a line whose end is in a block to come, in parts; of one that is too long, nothing.
 *
 * @type {Array<Buffer>}
 */
let held = []
let heldBytes = 0

port.on("message", (/** @type {Request} */ request) => {
  if (request.held !== undefined) {
    letGo()
    hold(request.held)
  }
  const { block } = request
  port.postMessage(linesOf(Buffer.from(block.buffer, block.byteOffset, block.byteLength)))
})

/**
 * @param {Buffer} block
 * @returns {Lines}
 */
const linesOf = (block) => {
  const isPlain = isAscii(block)
  /** @type {Array<number>} */
  const ends = []
  /** @type {Array<string>} */
  const texts = []
  let start = 0
  for (let end = block.indexOf(newline); end !== -1; end = block.indexOf(newline, start)) {
    const text = isPlain && heldBytes === 0
      ? end - start <= lineBytesMax ? block.toString("latin1", start, end) : undefined
      : endOf(block.subarray(start, end))
    ends.push(end)
    texts.push(text === undefined ? "" : prune(text) ?? "")
    start = end + 1
  }
  hold(block.subarray(start))
  return { ends, texts }
}

const newline = 0x0a

/**
 * The text of a line of which this is the last part.
 *
 * @param {Buffer} part
 */
const endOf = (part) => {
  hold(part)
  const text = heldBytes > lineBytesMax ? undefined : textOf(Buffer.concat(held))
  letGo()
  return text
}

/**
 * Keeps a part, which is copied: a block is overwritten.
 *
 * @param {Uint8Array} part
 */
const hold = (part) => {
  heldBytes += part.length
  if (heldBytes > lineBytesMax) held = []
  else held.push(Buffer.from(part))
}

const letGo = () => {
  held = []
  heldBytes = 0
}

/**
 * Decoding replaces what is not UTF-8 and says nothing, so it is looked for first.
 *
 * @param {Buffer} bytes
 */
const textOf = (bytes) => isAscii(bytes) ? bytes.toString("latin1") : isUtf8(bytes) ? bytes.toString("utf8") : undefined

port.postMessage("ready")
