/**
 * What all subjects of the fan-out write: a row for each operation and processor, under a key that has both.
 */
import { createHash } from "node:crypto"

export type Row = {
  readonly id: string
  readonly title: string
}

export const createTable = "CREATE TABLE entry (id TEXT PRIMARY KEY, title TEXT NOT NULL)"

/** Documents that the operations are of, in turns. */
const documents = 20

/** One of many operations: which document it is of, its index there, and what is said of it. */
export const operationOf = (i: number) => {
  const documentId = `document ${i % documents}`
  const index = Math.floor(i / documents)
  return {
    documentId,
    index,
    id: `${documentId}-${index}`,
    type: "PUT",
    /** As the real system makes them, of 20 bytes in base64. */
    hash: createHash("sha1").update(`${documentId} ${index}`).digest("base64"),
    input: { body: "x".repeat(200) }
  }
}

/** What is said of an operation, as far as rows are made of it. */
interface Said {
  readonly id: string
  readonly type: string
}

export const rowsOf = (
  processor: string,
  strands: Iterable<{ readonly operations: ReadonlyArray<Said> }>
): ReadonlyArray<Row> => {
  const rows: Array<Row> = []
  for (const { operations } of strands) {
    for (const { id, type: title } of operations) rows.push({ id: `${processor}/${id}`, title })
  }
  return rows
}
