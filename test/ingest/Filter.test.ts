/** The filter's table of meanings, in both dialects: the effective matchers of document-drive and of the reactor. */
import { describe, expect, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { Strand } from "../../src/domain/Strand.js"
import * as Filter from "../../src/ingest/Filter.js"

const strand = Schema.decodeUnknownSync(Strand)({
  position: 1n,
  driveId: "drive-1",
  documentId: "doc-1",
  documentType: "acme/todo",
  scope: "global",
  branch: "main",
  operations: [],
  bytes: 0
})
const withoutDrive: Strand = { ...strand, driveId: undefined }

const both = ["drive", "reactor"] as const
type Case = readonly [claim: string, filter: Filter.Filter, strand: Strand]

describe.each(both)("in the %s dialect", (dialect) => {
  it.each<Case>([
    ["another document type", { documentType: ["acme/invoice"] }, strand],
    ["another scope", { scope: ["local"] }, strand],
    ["another branch", { branch: ["draft"] }, strand],
    ["another document", { documentId: ["doc-2"] }, strand],
    ["another drive", { driveId: ["drive-2"] }, strand],
    ["one field that differs among four that match", {
      documentType: ["acme/todo"],
      scope: ["global"],
      branch: ["draft"],
      documentId: ["doc-1"]
    }, strand],
    ["the last field differs", { documentType: ["acme/todo"], documentId: ["doc-2"] }, strand],
    ["upper case", { documentType: ["ACME/TODO"] }, strand],
    ["only a beginning of the value", { documentType: ["acme"] }, strand],
    ["a pattern, which is plain text", { documentType: ["acme/*"] }, strand],
    ["empty text", { scope: [""] }, strand],
    ["a drive, of a strand that names none", { driveId: ["drive-1"] }, withoutDrive]
  ])("does not want: %s", (_, filter, offered) => expect(Filter.matches(filter, offered, dialect)).toBe(false))

  it.each<Case>([
    ["everything, of a filter without fields", Filter.all, strand],
    [
      "anything, of fields that list nothing",
      { documentType: [], scope: [], branch: [], documentId: [], driveId: [] },
      strand
    ],
    ["the document type it lists", { documentType: ["acme/todo"] }, strand],
    ["one of several document types", { documentType: ["acme/invoice", "acme/todo"] }, strand],
    ["the scope it lists", { scope: ["global"] }, strand],
    ["one of several scopes", { scope: ["document", "global"] }, strand],
    ["the branch it lists", { branch: ["main"] }, strand],
    ["the document it lists", { documentId: ["doc-1"] }, strand],
    ["any document, of a star", { documentId: ["*"] }, strand],
    ["any document, of a star among ids", { documentId: ["doc-2", "*"] }, strand],
    ["a star for the document together with fields that match", { documentId: ["*"], scope: ["global"] }, strand],
    ["all fields at once", {
      documentType: ["acme/todo"],
      scope: ["global"],
      branch: ["main"],
      documentId: ["doc-1"],
      driveId: ["drive-1"]
    }, strand],
    ["an empty list beside a field that matches", { documentType: [], scope: ["global"] }, strand],
    ["any drive, of a star", { driveId: ["*"] }, withoutDrive],
    ["any drive, of an empty list", { driveId: [] }, withoutDrive]
  ])("wants: %s", (_, filter, offered) => expect(Filter.matches(filter, offered, dialect)).toBe(true))

  it("is compiled once and tested often, to the same effect", () => {
    const wants = Filter.compile({ scope: ["global"], branch: ["main"] }, dialect)
    expect([strand, { ...strand, scope: "local" as Strand["scope"] }, strand].map(wants)).toEqual([true, false, true])
  })
})

describe.each(["documentType", "scope", "branch"] as const)("a star in %s", (field) => {
  it("is any value to drives and only a star to the reactor", () => {
    expect(Filter.matches({ [field]: ["*"] }, strand, "drive")).toBe(true)
    expect(Filter.matches({ [field]: ["*"] }, strand, "reactor")).toBe(false)
    expect(Filter.matches({ [field]: ["*"] }, { ...strand, [field]: "*" }, "reactor")).toBe(true)
  })
  it("is reported as a difference between the dialects", () => {
    expect(Filter.dialectDifferences({ [field]: ["*"] })).toEqual([field])
  })
})

it("the dialects do not differ over a star for documents or drives, nor without one", () => {
  expect(Filter.dialectDifferences({ documentId: ["*"], driveId: ["*"], scope: ["global"], branch: [] })).toEqual([])
})

it("the drive dialect is the one that holds when none is named", () => {
  expect(Filter.matches({ scope: ["*"] }, strand)).toBe(true)
})
