/** The routes: whoever a strand is routed to is who wants it, as the filters say by themselves. */
import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import type { Strand } from "../../src/domain/Strand.js"
import * as Filter from "../../src/ingest/Filter.js"
import { Routes } from "../../src/ingest/Routes.js"

const value = FastCheck.constantFrom("a", "b", "c", "*", "")
const values = FastCheck.option(FastCheck.array(value, { maxLength: 3 }), { nil: undefined })
const filters = FastCheck.record({
  documentId: values,
  documentType: values,
  driveId: values,
  scope: values,
  branch: values
}).map((fields) => Object.fromEntries(Object.entries(fields).filter(([, list]) => list !== undefined)) as Filter.Filter)
const strand = FastCheck.record({
  documentId: value,
  documentType: value,
  driveId: FastCheck.option(value, { nil: undefined }),
  scope: value,
  branch: value
}).map((fields) => fields as Strand)
const follower = FastCheck.record({
  filter: filters,
  dialect: FastCheck.constantFrom<Filter.Dialect>("drive", "reactor")
})

const wanting = <To>(routes: Routes<To>, each: Strand): ReadonlyArray<To> => {
  // Asked twice, since the first answer may be kept for the second.
  const found = routes.wanting(each)
  expect(routes.wanting(each)).toEqual(found)
  return found
}

const named = (fields: Partial<Record<keyof Filter.Filter, string>>) => fields as Strand

describe("a strand", () => {
  it("is routed to exactly those whose filters match it, each once, also when others have left", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.array(FastCheck.record({ follower, leaves: FastCheck.boolean() }), { maxLength: 20 }),
        FastCheck.array(strand, { minLength: 1, maxLength: 10 }),
        (followers, strands) => {
          const routes = new Routes<number>()
          const constraints = followers.map(({ follower: { dialect, filter } }) => Filter.constraints(filter, dialect))
          for (const [i, each] of constraints.entries()) routes.add(each, i)
          for (const each of strands) wanting(routes, each)
          for (const [i, { leaves }] of followers.entries()) if (leaves) routes.remove(constraints[i]!, i)
          for (const each of strands) {
            const expected = followers.flatMap(({ follower: { dialect, filter }, leaves }, i) =>
              !leaves && Filter.matches(filter, each, dialect) ? [i] : []
            )
            expect(wanting(routes, each).toSorted((a, b) => a - b)).toEqual(expected)
          }
        }
      ),
      { numRuns: 500 }
    )
  })

  it("finds filters that list more values than the index holds places for", () => {
    const many = Array.from({ length: 3_000 }, (_, i) => `${i}`)
    const routes = new Routes<string>()
    const wanted = { documentId: many, documentType: many, branch: ["main"] }
    routes.add(Filter.constraints(wanted), "p")
    expect(wanting(routes, named({ documentId: "7", documentType: "2999", branch: "main" }))).toEqual(["p"])
    expect(wanting(routes, named({ documentId: "7", documentType: "3000", branch: "main" }))).toEqual([])
    expect(wanting(routes, named({ documentId: "7", documentType: "8", branch: "draft" }))).toEqual([])
    routes.remove(Filter.constraints(wanted), "p")
    expect(wanting(routes, named({ documentId: "7", documentType: "8", branch: "main" }))).toEqual([])
  })

  it("is compared with no filter of another type, however many there are", () => {
    const routes = new Routes<number>()
    let tested = 0
    const counted = new Set(["t0"])
    counted.has = (type) => {
      tested++
      return Set.prototype.has.call(counted, type)
    }
    for (let i = 0; i < 10_000; i++) {
      routes.add(
        [{ field: "documentType", values: new Set([`t${i % 1_000}`]) }, { field: "scope", values: counted }],
        i
      )
    }
    expect(wanting(routes, named({ documentType: "t7", scope: "t0" }))).toHaveLength(10)
    expect(tested).toBe(0)
  })
})
