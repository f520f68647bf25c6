/**
 * A prompt: what a connection has whose driver lets the program wait, so that the answer is there when it is asked for.
 *
 *     statement ─┬ the connection has one ──────▶ its rows, or why there are none     one step of the fiber
 *                └ it has none, or that passes ─▶ `execute`, an Effect of many        each costs about a tenth of a row
 *
 * Nothing interrupts what is answered so, nor comes between it and what is concluded from it.
 */

import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"

export interface Prompt {
  /**
   * Runs a statement as `execute` would, now; so it is called where an Effect is run, not where one is made. `undefined`: it
   * passes, nothing was done, and `execute` has to run it.
   */
  readonly answer: (text: string, parameters: ReadonlyArray<unknown>, safeIntegers: boolean) => Answer | undefined
  /** Whether a transaction is open. */
  readonly isInside: () => boolean
}

/** Rows, or a failure. */
export type Answer = ReadonlyArray<object> | SqlError

/** A connection that may have one. */
export interface Prompting extends Connection {
  readonly prompt: Prompt | undefined
}

export const promptOf = (connection: Connection): Prompt | undefined => (connection as Partial<Prompting>).prompt

export const isFailure = (answer: Answer): answer is SqlError => answer instanceof SqlError
