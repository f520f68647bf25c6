/**
 * A hashed namespace: the schema in which the real system keeps the tables of a relational processor.
 *
 *     TodoList, drive b443-…  ──▶  "TodoList_b443_…"  ──▶  64 bits of FNV-1a  ──▶  base 26  ──▶  "sfdreoisuf"
 *
 * It is what the packages compute, bit for bit, since subgraphs find tables by it. It is short, so it collides
 * (`SearchIndexerProcessor_0221632b` and `SearchIndexerProcessor_a488c284` share `hqhnkcbirl`): places of our own come from
 * `Namespace.place`.
 */

/** The bits that FNV-1a comes in, with its offset basis and its prime. */
const sizes: ReadonlyArray<readonly [bits: number, offset: bigint, prime: bigint]> = [
  [32, 0x811c9dc5n, (1n << 24n) + 0x193n],
  [64, 0xcbf29ce484222325n, (1n << 40n) + 0x1b3n],
  [128, 0x6c62272e07bb014262b821756295c58dn, (1n << 88n) + 0x13bn]
]

const alphabet = "abcdefghijklmnopqrstuvwxyz"

/** The longest hash that is computed here; the packages ask for 10. */
export const lengthMax = 27

/**
 * `length` lower-case letters, 10 unless told otherwise, at most {@link lengthMax}; throws a `RangeError` beyond. A lone
 * surrogate counts as U+FFFD, as it does in UTF-8.
 */
export const hashNamespace = (text: string, length = 10): string => {
  const bits = Math.ceil(length * Math.log2(alphabet.length))
  const size = sizes.find(([supported]) => supported >= bits)
  if (!(length >= 1) || size === undefined) throw new RangeError(`a hash has 1 to ${lengthMax} letters, not ${length}`)
  return letters(fnv1a(new TextEncoder().encode(text), size), length)
}

/** The namespace of a class for a drive, as the static `getNamespace` of theirs has it. */
export const getNamespace = (className: string, driveId: string): string =>
  `${className}_${driveId.replaceAll("-", "_")}`

const fnv1a = (bytes: Uint8Array, [bits, offset, prime]: (typeof sizes)[number]): bigint =>
  bytes.reduce((hash, byte) => BigInt.asUintN(bits, (hash ^ BigInt(byte)) * prime), offset)

/** The last `length` digits to base 26, the most significant first. */
const letters = (hash: bigint, length: number): string => {
  let rest = hash
  let text = ""
  while (text.length < length) {
    text = alphabet.charAt(Number(rest % 26n)) + text
    rest /= 26n
  }
  return text
}
