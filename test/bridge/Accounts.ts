/**
 * Accounts: the world of the kill tests, for the test and for its child: a legacy processor, and what it is to follow.
 */
import { Powerhouse, Processor } from "../../src/index.js"
import type { Source } from "../../src/index.js"
import type { Fate } from "../guarantees/Mortal.js"
import { Balances } from "./Legacy.js"
import { strand } from "./Run.js"

const { RelationalProcessor } = Powerhouse
const driveId = "b443d823-3e4d-4e60-ae44-45edafd5f632"

/** What a child is told. */
export interface Order extends Fate {
  readonly dialect: "sqlite" | "pg"
  /** A file name or a URL. */
  readonly target: string
  readonly program: "ours" | "theirs"
}

/** Two documents, and a strand that comes twice. */
export const strands: ReadonlyArray<Source.Unplaced> = [
  strand("d1", [1, 2]),
  strand("d2", [4]),
  strand("d1", [8], { from: 2 }),
  strand("d1", [8], { from: 2 })
]

/** The same without what comes twice, as the real reactor has it. */
export const delivered: ReadonlyArray<Source.Unplaced> = strands.slice(0, 3)

/** In batches of which some end in the middle of a strand. */
export const processor = RelationalProcessor.make("balances", Balances, { driveId, batch: { operations: 2 } }).pipe(
  Processor.withPolicy(RelationalProcessor.policy)
)

export const namespace: string = Balances.getNamespace(driveId)

/** What the tables come to in the end. */
export const balances = [
  { document_id: "d1", amount: 11, operations: 3 },
  { document_id: "d2", amount: 4, operations: 1 }
]
