/**
 * A position: a place in a source's order.
 *
 * Invariants: positions of one source are compared as integers, each strand's is greater than the one before it, and every
 * one is above {@link origin}. What the number means is the source's own business. At most 2^63 - 1, the BIGINT that both
 * databases store.
 */

import * as Schema from "effect/Schema"

/** The largest position, 2^63 - 1. */
export const max = 9_223_372_036_854_775_807n

export const Position = Schema.BigIntFromSelf.pipe(
  Schema.betweenBigInt(0n, max),
  Schema.brand("Position")
)
export type Position = typeof Position.Type

/** Brands an integer; throws a `ParseError` below 0 or above {@link max}. */
export const make: (value: bigint) => Position = Schema.decodeUnknownSync(Position)

/** Before every strand of any source. */
export const origin: Position = make(0n)

/** Reads a position as a database returns it: text, number or bigint. */
export const fromSql = (value: string | number | bigint): Position => make(BigInt(value))
