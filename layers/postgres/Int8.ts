/**
 * An int8: a `number` where that is exact and a `bigint` beyond 2^53, so that nothing is rounded.
 */

import * as Pg from "pg"

type Parser = (text: string) => unknown

const int8 = 20
const int8Array = 1016

const parseInt8 = (text: string): number | bigint => {
  const value = Number(text)
  return Number.isSafeInteger(value) ? value : BigInt(text)
}

const stock = Pg.types.getTypeParser as (oid: number, format?: string) => Parser

const typesWith = (parse: Parser): Pg.CustomTypesConfig => {
  const parseArray: Parser = (text) => deep(stock(int8Array)(text), parse)
  const getTypeParser = (oid: number, format?: string): Parser =>
    format === "binary" ? stock(oid, format) : oid === int8 ? parse : oid === int8Array ? parseArray : stock(oid)
  return { getTypeParser: getTypeParser as typeof Pg.types.getTypeParser }
}

const deep = (value: unknown, parse: Parser): unknown =>
  Array.isArray(value) ? value.map((item) => deep(item, parse)) : typeof value === "string" ? parse(value) : value

/** Reads an int8, and the members of an int8[], as a `number` where that is exact and as a `bigint` beyond. */
export const types = typesWith(parseInt8)

/** Reads every int8 as a `bigint`, as `SqlClient.SafeIntegers` asks. */
export const typesSafe = typesWith(BigInt)
