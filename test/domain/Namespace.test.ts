/** A namespace's name is only ever hashed and compared, and the place it stands for is safe wherever it is written. */
import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as Schema from "effect/Schema"
import * as Namespace from "../../src/domain/Namespace.js"

const placeOf = (name: string) => Namespace.place(Namespace.make(name))

describe("a namespace", () => {
  it.each([
    ["empty", ""],
    ["a digit first", "1todos"],
    ["an underscore first", "_todos"],
    ["a hyphen first", "-todos"],
    ["a dot, which names another schema", "evil.tbl"],
    ["a quote", "a\"; DROP SCHEMA public; --"],
    ["a space", "a b"],
    ["NUL", "a\u0000"],
    ["a newline at the end", "todos\n"],
    ["a letter that looks like another", "t\u043edos"],
    ["a letter that folds to another", "\u212Aelvin"],
    ["a path", "../../etc/passwd"],
    ["129 characters", "a".repeat(129)],
    ["this framework's own", "processor_framework"],
    ["this framework's own, in other letters", "Processor_Framework"],
    ["no text", 7]
  ])("is not %s", (_, name) => expect(Schema.is(Namespace.Namespace)(name)).toBe(false))

  it.each(["a", "todos", "Shop-EU", "pg_catalog", "sqlite_master", "information_schema", "processor", "a".repeat(128)])(
    "may be %j",
    (name) => expect(Namespace.make(name)).toBe(name)
  )

  it("says why it refuses", () => {
    expect(() => Namespace.make("processor_x")).toThrow(/reserved/)
    expect(() => Namespace.make("a b")).toThrow(/a namespace is A-Z, a-z, 0-9, _ and -/)
  })
})

describe("the place of a namespace", () => {
  // Written down once and for all: whoever changes one of these loses the tables of every namespace that exists.
  it.each([
    ["todos", "todos_020c5492b4b3823f69e8"],
    ["Shop-EU", "shop_eu_57616d230ada6db4214d"],
    ["Shop", "shop_c3e2454e4c45e4e4476b"],
    ["shop", "shop_bc3dc85b41336b10ab33"],
    ["a-b", "a_b_83944e066f282a307e71"],
    ["a_b", "a_b_d7ee20acfa6793da840e"],
    ["pg", "n_pg_37cbbd6cb6e7eab344a5"],
    ["pg_catalog", "n_pg_catalog_39ae712d869ea1f3104d"]
  ])("of %s is %s", (name, place) => expect(placeOf(name)).toBe(place))

  it("tells the two names apart that Powerhouse's own hash takes for one", () => {
    expect(placeOf("SearchIndexerProcessor_0221632b")).toBe("searchindexerprocessor_0221632b_1ab4f62648c542302689")
    expect(placeOf("SearchIndexerProcessor_a488c284")).toBe("searchindexerprocessor_a488c284_1aca12e10f3082a5c731")
  })

  it("is an identifier and a file name that nobody has to quote, whatever the name is", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.oneof(
          FastCheck.stringMatching(/^[A-Za-z][A-Za-z0-9_-]{0,127}$/),
          FastCheck.stringMatching(/^(pg|PG_|sqlite|Sqlite-|information_schema)[a-z_-]{0,40}$/)
        ).filter(Schema.is(Namespace.Namespace)),
        (name) => {
          const place = placeOf(name)
          expect(place).toMatch(/^[a-z][a-z0-9_]{0,56}$/)
          expect(place).not.toMatch(/^(pg|sqlite)_/)
          expect(place.slice(-20)).toMatch(/^[0-9a-f]{20}$/)
        }
      )
    )
  })
})
