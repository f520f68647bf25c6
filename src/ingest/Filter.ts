/**
 * A filter: plain data saying which strands are wanted.
 *
 *     { documentType: ["acme/todo"], branch: ["main"] }
 *
 * Fields are ANDed; within a field any listed value matches, exactly. Two generations of the real system differ in what a
 * wildcard is, so a filter is compiled for one of two dialects:
 *
 * | field holds            | `drive` (document-drive 4 and 5) | `reactor` (@powerhousedao/reactor 6) |
 * | nothing, or an empty list | any                           | any                                   |
 * | `"*"` in documentId       | any                           | any                                   |
 * | `"*"` in another field    | any                           | only the text `*`                     |
 *
 * Sources: document-drive `resolveStorageUnitsFilterComponent`, reactor `matchesFilter`.
 */

import type { Strand } from "../domain/Strand.js"

export interface Filter {
  readonly documentType?: ReadonlyArray<string>
  readonly documentId?: ReadonlyArray<string>
  readonly scope?: ReadonlyArray<string>
  readonly branch?: ReadonlyArray<string>
  /** Ours, not the real system's: strands delivered for these drives. A strand without a drive matches only "any". */
  readonly driveId?: ReadonlyArray<string>
}

export type Dialect = "drive" | "reactor"

/** Wants every strand. */
export const all: Filter = {}

const fields = ["documentType", "documentId", "scope", "branch", "driveId"] as const

/** The fields in which `"*"` means "any" to one dialect and a literal star to the other. */
export const dialectDifferences = (filter: Filter): ReadonlyArray<keyof Filter> =>
  fields.filter((field) => field !== "documentId" && field !== "driveId" && filter[field]?.includes("*") === true)

/** A field that has to hold one of these values. */
export interface Constraint {
  readonly field: keyof Filter
  readonly values: ReadonlySet<string>
}

/** What a filter comes to: a strand is wanted when it meets every constraint. None: every strand is. */
export const constraints = (filter: Filter, dialect: Dialect = "drive"): ReadonlyArray<Constraint> =>
  fields.flatMap((field) => {
    const wanted = filter[field]
    const starIsAny = dialect === "drive" || field === "documentId" || field === "driveId"
    return wanted === undefined || wanted.length === 0 || (starIsAny && wanted.includes("*"))
      ? []
      : [{ field, values: new Set(wanted) }]
  }).slice() // Thousands are kept: this one has no room to grow.

/** Whether a strand meets all of them. */
export const meets = (
  strand: { readonly [Field in keyof Filter]-?: string | undefined },
  tests: ReadonlyArray<Constraint>
): boolean =>
  tests.every(({ field, values }) => {
    const value = strand[field]
    return value !== undefined && values.has(value)
  })

/** Builds the test for one strand. Compile once, test often. */
export const compile = (filter: Filter, dialect: Dialect = "drive"): (strand: Strand) => boolean => {
  const tests = constraints(filter, dialect)
  return (strand) => meets(strand, tests)
}

/** Whether `filter` wants `strand`, for a single test. */
export const matches = (filter: Filter, strand: Strand, dialect: Dialect = "drive"): boolean =>
  compile(filter, dialect)(strand)
