/**
 * A definition: what a table cannot be is refused where it is declared, and named.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { Definition } from "../../src/index.js"

const row = Schema.Struct({ id: Schema.String, note: Schema.NullOr(Schema.String), tags: Schema.Unknown })

describe("a definition", () => {
  it("has the columns of its Schema, in order", () => {
    const made = Definition.make("things", row, { key: ["id"], unique: [["note"]], indexes: [["note", "id"]] })
    expect(made.columns.map(({ kind, name, nullable }) => [name, kind, nullable])).toEqual([
      ["id", "text", false],
      ["note", "text", true],
      ["tags", "json", false]
    ])
    expect(made).toMatchObject({ name: "things", key: ["id"], unique: [["note"]], indexes: [["note", "id"]] })
  })

  it("may come from a class", () => {
    class Thing extends Schema.Class<Thing>("Thing")({ id: Schema.Int }) {}
    expect(Definition.make("things", Thing, { key: ["id"] }).columns.map(({ name }) => name)).toEqual(["id"])
  })

  it("has an index by which the rows of a document are found, unless a key or another index begins with it", () => {
    const indexesOf = (options: Partial<Definition.Options>) =>
      Definition.make("things", Schema.Struct({ id: Schema.Int, document: Schema.String }), {
        key: ["id"],
        document: "document",
        ...options
      }).indexes
    expect(indexesOf({})).toEqual([["document"]])
    expect(indexesOf({ indexes: [["id", "document"]] })).toEqual([["id", "document"], ["document"]])
    expect(indexesOf({ indexes: [["document", "id"]] })).toEqual([["document", "id"]])
    expect(indexesOf({ key: ["document", "id"] })).toEqual([])
    expect(indexesOf({ unique: [["document", "id"]] })).toEqual([])
  })

  it("may be named as what the statements about it call it, or as what is none of their functions", () => {
    for (
      const name of ["t", "v", "excluded", "wanted", "select", "unnest", "json_each_of_mine", "my_pragma_table_info"]
    ) {
      expect(Definition.make(name, row, { key: ["id"] }).name).toBe(name)
    }
  })

  it.each<readonly [string, Schema.Schema.AnyNoContext, Definition.Options, RegExp]>([
    ["a b", row, { key: ["id"] }, /"a b" cannot name a table: a name is A-Z, a-z, 0-9 and _/],
    ["a\"b", row, { key: ["id"] }, /cannot name a table/],
    ["x".repeat(64), row, { key: ["id"] }, /cannot name a table/],
    ["processor_cursor", row, { key: ["id"] }, /cannot name a table/],
    [
      "sqlite_master",
      row,
      { key: ["id"] },
      /cannot name a table: processor_, sqlite_ and pg_ begin names that are taken/
    ],
    ...["json_each", "JSON_Each", "pragma_table_xinfo", "PRAGMA_index_list"].map((name) =>
      [
        name,
        row,
        { key: ["id"] },
        new RegExp(`^${name} cannot name a table: json_each and pragma_ are functions of SQLite`)
      ] as const
    ),
    ["things", Schema.String, { key: ["id"] }, /no Struct and no Class/],
    ["things", Schema.Record({ key: Schema.String, value: Schema.Int }), { key: ["id"] }, /no Struct and no Class/],
    ["things", Schema.Struct({ "a-b": Schema.Int }), { key: ["a-b"] }, /a-b cannot name a column of things: a name is/],
    [
      "things",
      Schema.Struct({ xmin: Schema.Int }),
      { key: ["xmin"] },
      /xmin cannot name a column of things: PostgreSQL/
    ],
    ["things", Schema.Struct({ id: Schema.optional(Schema.Int) }), { key: ["id"] }, /things\.id is optional/],
    ["things", Schema.Struct({ id: Schema.Int, ID: Schema.Int }), { key: ["id"] }, /differ in case alone/],
    ["things", row, { key: [] }, /has no columns/],
    ["things", row, { key: ["id", "id"] }, /a column twice/],
    ["things", row, { key: ["other"] }, /things has no column other/],
    ["things", row, { key: ["note"] }, /things\.note is nullable/],
    ["things", row, { key: ["tags"] }, /things\.tags is JSON/],
    ["things", row, { key: ["id"], unique: [["tags"]] }, /things\.tags is JSON/],
    ["things", row, { key: ["id"], indexes: [["nope"]] }, /no column nope/],
    ["things", row, { key: ["id"], document: "nope" }, /things\.nope holds no document's id/],
    ["things", row, { key: ["id"], document: "note" }, /things\.note holds no document's id/],
    ["things", row, { key: ["id"], document: "tags" }, /things\.tags holds no document's id/]
  ])("of %s refuses what cannot be, and names it", (name, schema, options, reason) => {
    expect(() => Definition.make(name, schema, options)).toThrow(reason)
    expect(() => Definition.make(name, schema, options)).toThrow(TypeError)
  })
})
